"""Read texts one after the other, for a student that answers each at once: lines, csv, tsv or json lines, of a file or a pipe.

Nothing is read ahead but the buffer of a file, so that a file may be larger than the memory, and a pipe is answered while it is open.
"""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from kdsweep.errors import DataError

SEPARATORS = {".csv": ",", ".tsv": "\t"}
OBJECTS = (".jsonl", ".ndjson")
"""How the name of a file of JSON objects ends, one a line."""
_LONGEST_FIELD = 2**31 - 1
"""Characters of a field of csv; Python's default limit of 131,072 is shorter than some documents."""


class TextRow(NamedTuple):
    """Holds one row: its text, and the second text of a pair or None."""

    text: str
    pair: str | None

    def is_empty(self) -> bool:
        """Return whether the row has no text at all, as an empty line."""
        return not (self.text.strip() or (self.pair or "").strip())


def read_rows(path: Path | None, *, column: str, pair_column: str | None) -> Iterator[TextRow]:
    """Read the rows of the file `path`, of standard input where it is None; a `pair_column` means pairs of texts.

    A name that ends in .csv, .tsv, .jsonl or .ndjson means a table, whose texts stand in these columns; any other file has a text in each
    line, a tab between the two of a pair. Raises DataError, with the line, for bytes that are not UTF-8, for lines that are no row, and for
    a file without a text.
    """
    where = "standard input" if path is None else str(path)
    columns = [column] if pair_column is None else [column, pair_column]
    found = False
    with _opened(path, where) as file:
        for row in _rows(file, "" if path is None else path.suffix.lower(), columns, where):
            found = found or not row.is_empty()
            yield row
    if not found:
        raise DataError(f"{where} must hold a text, but it is empty")


def _rows(file: IO[bytes], suffix: str, columns: list[str], where: str) -> Iterator[TextRow]:
    lines = _decoded(file, where)
    if suffix in SEPARATORS:
        return _delimited(lines, SEPARATORS[suffix], columns, where)
    return _objects(lines, columns, where) if suffix in OBJECTS else _plain(lines, len(columns), where)


def _opened(path: Path | None, where: str) -> IO[bytes]:
    if path is None:
        return sys.stdin.buffer
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{where} must be a readable file, but: {error.strerror}") from error


def _decoded(file: IO[bytes], where: str) -> Iterator[str]:
    """Yield each line with its end, without a byte order mark. Raises DataError for bytes that are not UTF-8."""
    for number, line in enumerate(file, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            byte = line[error.start]
            raise DataError(
                f"{where} must be text in UTF-8, but line {number:,} holds 0x{byte:02x} (byte {error.start + 1:,} of the line): convert it, "
                "such as iconv -f latin1 -t utf-8"
            ) from error


def _plain(lines: Iterator[str], texts: int, where: str) -> Iterator[TextRow]:
    for number, line in enumerate(lines, 1):
        text = line.rstrip("\r\n")
        if texts == 1 or not text.strip():
            yield TextRow(text, None if texts == 1 else "")
            continue
        parts = text.split("\t")
        if len(parts) != texts:
            raise DataError(
                f"{where}: this student reads pairs of texts, so every line has one tab between them, but line {number:,} has {len(parts) - 1}"
            )
        yield TextRow(*parts)


def _delimited(lines: Iterator[str], delimiter: str, columns: list[str], where: str) -> Iterator[TextRow]:
    csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        if header:
            _check_columns(columns, header, where)
        places = [header.index(name) for name in columns if header]
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                line = f"but the one that ends on line {reader.line_num:,} has {len(cells)}"
                raise DataError(f"{where}: every row must have the {len(header)} fields that the header has, {line}")
            yield _row([cells[place] for place in places])
    except csv.Error as error:
        raise DataError(f"{where} must be readable as csv, but line {reader.line_num:,}: {error}") from error


def _objects(lines: Iterator[str], columns: list[str], where: str) -> Iterator[TextRow]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            yield _row([""] * len(columns))
            continue
        here = f"{where}, line {number:,}"
        content = _parsed(line, here)
        _check_columns(columns, list(content), here)
        wrong = [name for name in columns if not isinstance(content[name], str)]
        if wrong:
            raise DataError(f"{here}: {wrong[0]!r} must be a text, but got {json.dumps(content[wrong[0]])[:80]}")
        yield _row([content[name] for name in columns])


def _parsed(line: str, here: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError as error:
        raise DataError(f"{here} must be a JSON object, but: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{here} must be a JSON object, but is {json.dumps(content)[:80]}")
    return content


def _check_columns(wanted: list[str], found: list[str], where: str) -> None:
    missing = [name for name in wanted if name not in found]
    if missing:
        raise DataError(
            f"{where} must have the columns that the student was trained on, {', '.join(wanted)}, but {missing[0]!r} is missing: it has "
            f"{', '.join(found)}"
        )


def _row(texts: list[str]) -> TextRow:
    return TextRow(texts[0], texts[1] if len(texts) > 1 else None)
