"""Format tables and prose as text that fits a width: Markdown for a pull request, padded columns for a terminal.

A table is a list of lines of cells, the header first.
"""

import re
import textwrap
from collections.abc import Iterable, Sequence
from itertools import zip_longest

Table = Sequence[Sequence[str]]
TERMINAL_WIDTH = 100
MARKDOWN_WIDTH = 120
LONGEST_CELL = 32
"""Most letters of a terminal's cell in one line; longer cells continue in the next line."""
MAY_BEGIN_A_LINE = re.compile(r"(?!\d+[.)]$)[\w(]")
"""Matches words that may begin a line of Markdown: any other word could mean something else there, such as a list item."""


# Markdown ------------------------------------------------------------------------------------------------------------


def markdown_text(text: str) -> str:
    """Return text from data as one line in which Markdown finds no tag and no entity; `p < 0.001` and `R&D` stay as they are."""
    safe = re.sub(r"&(?=#?\w+;)", "&amp;", text)
    return " ".join(re.sub(r"<(?=[A-Za-z/!?])", "&lt;", safe).split())


def markdown_prose(text: str, *, indent: str = "") -> str:
    """Wrap a paragraph or list item of Markdown at `MARKDOWN_WIDTH` where words allow it; `indent` begins all lines but the first."""
    words: list[str] = []
    for word in text.split():
        if words and not MAY_BEGIN_A_LINE.match(word):
            words[-1] += f" {word}"
        else:
            words.append(word)
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 1 + len(word) <= MARKDOWN_WIDTH:
            lines[-1] += f" {word}"
        else:
            lines.append(f"{indent if lines else ''}{word}")
    return "\n".join(lines)


def markdown_table(lines: Table) -> str:
    """Return a Markdown table with padded cells, so that it reads as text too."""
    safe = [[markdown_text(cell).replace("|", "\\|") for cell in line] for line in lines]
    return _drawn(safe, [max(map(len, column)) for column in zip(*safe, strict=True)], header_lines=1)


def markdown_tables(lines: Table, keys: int) -> str:
    """Spread columns over Markdown tables that fit `MARKDOWN_WIDTH`, each with the first `keys` columns."""
    widths = [max(len(markdown_text(cell)) for cell in column) for column in zip(*lines, strict=True)]
    return "\n\n".join(markdown_table(_chosen(lines, group)) for group in _groups(widths, keys, MARKDOWN_WIDTH))


# A terminal ----------------------------------------------------------------------------------------------------------


def terminal_table(lines: Table) -> str:
    """Return a padded table; headers and long cells continue in the next line, so that a few columns always fit `TERMINAL_WIDTH`."""
    flat = [[" ".join(cell.split()) for cell in line] for line in lines]
    widths = _fitted_widths(flat)
    folded = [_folded(line, widths) for line in flat]
    return _drawn([cells for part in folded for cells in part], widths, header_lines=len(folded[0]))


def terminal_tables(lines: Table, keys: int) -> str:
    """Spread columns over padded tables that fit `TERMINAL_WIDTH`, each with the first `keys` columns."""
    groups = _groups(_folded_widths(lines), keys, TERMINAL_WIDTH)
    return "\n\n".join(terminal_table(_chosen(lines, group)) for group in groups)


def first_columns(lines: Table, keys: int) -> tuple[list[list[str]], list[str]]:
    """Return the first columns, as many as fit `TERMINAL_WIDTH`, and the headers of the others."""
    kept = _groups(_folded_widths(lines), keys, TERMINAL_WIDTH)[0]
    return _chosen(lines, kept), [str(name) for name in lines[0][len(kept) :]]


# Column widths -------------------------------------------------------------------------------------------------------


def _groups(widths: Sequence[int], keys: int, width: int) -> list[list[int]]:
    """Return the column numbers of each table: the first `keys`, then as many others as fit `width`, at least one."""
    first = list(range(keys))
    groups = [[*first]]
    for column in range(keys, len(widths)):
        if len(groups[-1]) > keys and _total([widths[place] for place in (*groups[-1], column)]) > width:
            groups.append([*first])
        groups[-1].append(column)
    return groups


def _total(widths: Iterable[int]) -> int:
    """Return the letters of a table's line with columns of these widths."""
    return sum(width + 3 for width in widths) + 1


def _chosen(lines: Table, columns: Sequence[int]) -> list[list[str]]:
    return [[line[column] for column in columns] for line in lines]


def _folded_widths(lines: Table) -> list[int]:
    """Return the width of each column: its longest cell, up to `LONGEST_CELL`, or the longest word of its header if that is longer."""
    header, *others = lines
    cells = [
        min(LONGEST_CELL, max(len(line[place]) for line in others)) if others else 0 for place in range(len(header))
    ]
    return [max(1, cell, *map(len, name.split())) for cell, name in zip(cells, header, strict=True)]


def _fitted_widths(lines: Table) -> list[int]:
    """Return column widths that fit `TERMINAL_WIDTH`; room that is left goes first to columns that need the least of it."""
    widths, whole = _folded_widths(lines), [max(map(len, column)) for column in zip(*lines, strict=True)]
    room = TERMINAL_WIDTH - _total(widths)
    while room < 0 and max(widths) > 1:
        widths[widths.index(max(widths))] -= 1
        room += 1
    for place in sorted(range(len(widths)), key=lambda place: whole[place] - widths[place]):
        more = max(0, min(room, whole[place] - widths[place]))
        widths[place] += more
        room -= more
    return widths


def _folded(line: Sequence[str], widths: Sequence[int]) -> list[list[str]]:
    """Return a line of a table as the lines of text that it needs."""
    cells = [textwrap.wrap(cell, width, break_on_hyphens=False) for cell, width in zip(line, widths, strict=True)]
    return [list(part) for part in zip_longest(*cells, fillvalue="")]


def _drawn(lines: Table, widths: Sequence[int], *, header_lines: int) -> str:
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    texts = [f"| {' | '.join(line)} |" for line in padded]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([*texts[:header_lines], rule, *texts[header_lines:]])
