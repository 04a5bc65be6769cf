"""Tables and prose fit their width, lose no cell, and stay what they are when Markdown reads them."""

import re

import pytest

from kdsweep.reporting.tables import (
    MARKDOWN_WIDTH,
    TERMINAL_WIDTH,
    first_columns,
    markdown_prose,
    markdown_tables,
    markdown_text,
    terminal_table,
    terminal_tables,
)

NAMES = ["rank", "trial", *(f"searched_field_{n}" for n in range(12)), "95 % interval"]
WIDE = [
    NAMES,
    *([str(line), f"t{line}", *(f"{line}.{n}e-5" for n in range(12)), "79.4 % to 89.3 %"] for line in (1, 2)),
]


def widest(text: str) -> int:
    return max(map(len, text.splitlines()))


@pytest.mark.parametrize(("tables", "width"), [(terminal_tables, TERMINAL_WIDTH), (markdown_tables, MARKDOWN_WIDTH)])
def test_a_table_of_any_number_of_columns_is_spread_over_tables_that_fit_and_begin_alike(tables, width) -> None:  # type: ignore[no-untyped-def]
    text = tables(WIDE, keys=2)
    assert widest(text) <= width
    cells = [cell.strip() for line in text.splitlines() for cell in line.strip("|").split("|")]
    assert {cell for line in WIDE[1:] for cell in line} | set(NAMES[:-1]) <= set(cells)
    parts = text.split("\n\n")
    assert len(parts) > 1 and all(part.startswith("| rank | trial |") for part in parts)


def test_a_long_cell_goes_on_in_the_next_line_of_a_terminal() -> None:
    words = "distilled finalists against fine-tuned ones (primary) " * 3
    text = terminal_table([["comparison", "p"], [words, "x" * 200]])
    assert widest(text) <= TERMINAL_WIDTH
    assert " ".join(re.sub(r"[|x-]", " ", text).split()).endswith("ones (primary)") and text.count("x") == 200


def test_nothing_is_folded_that_fits() -> None:
    text = terminal_table([["comparison", "95 % interval"], ["distilled finalists against fine-tuned ones", "−7.2 to"]])
    assert len(text.splitlines()) == 3


def test_columns_that_do_not_fit_are_named() -> None:
    kept, left_out = first_columns(WIDE, keys=2)
    assert widest(terminal_table(kept)) <= TERMINAL_WIDTH
    assert [*kept[0], *left_out] == NAMES and left_out
    assert first_columns([line[:3] for line in WIDE], keys=2) == ([line[:3] for line in WIDE], [])


def test_markdown_is_escaped_only_where_it_would_be_a_tag_or_an_entity() -> None:
    for same in ("p < 0.001 (Holm)", "R&D, a <= b, 3 <4", "a > b & c"):
        assert markdown_text(same) == same
    assert markdown_text("<script>x</script><!-- -->\n# y") == "&lt;script>x&lt;/script>&lt;!-- --> # y"
    assert markdown_text("&lt;b> &#60;") == "&amp;lt;b> &amp;#60;"


def test_prose_is_broken_at_words_that_cannot_become_a_list_a_heading_or_a_quote() -> None:
    told = "L = alpha · L_soft + (1 − alpha) · L_hard - # heading > quote 1. item 2) item * star 3.5 % and so on"
    for shift in range(40):
        text = "x" * shift + " " + " ".join([told] * 12)
        wrapped = markdown_prose(text.strip())
        assert " ".join(wrapped.split()) == text.strip()
        assert all(re.match(r"[\w(](?!\d*[.)] )", line) for line in wrapped.splitlines())
        assert widest(wrapped) <= MARKDOWN_WIDTH
    assert all(line.startswith("  ") for line in markdown_prose("- a " * 99, indent="  ").splitlines()[1:])
