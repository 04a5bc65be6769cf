"""Read named columns of csv, tsv, json, json lines and parquet files, compressed or not. Nothing is guessed.

Cells of csv and tsv are texts, unchanged; cells of json and parquet keep their types, and `as_text` converts them to texts.
"""

import bz2
import codecs
import csv
import gzip
import io
import itertools
import json
import lzma
import math
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Literal, TextIO

from kdsweep.errors import DataError
from kdsweep.training.data.progress import NOBODY

_KINDS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}
_COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst", ".zip")
_DELIMITERS = (",", ";", "\t", "|")
Columns = Sequence[str] | Callable[[Sequence[str]], Sequence[str]]
"""The wanted columns of a file, or what chooses them from the names of all its columns (a name that stands there twice is in it twice)."""
_LONGEST_FIELD = 2**31 - 1
"""Characters of a field; Python's default limit of 131,072 is shorter than some documents."""
LISTED = 5
"""How many rows a message names at most, of those that break a rule."""
ROWS_TOLD = 10_000
"""Rows that are read between two reports of how many there are so far."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Holds the wanted columns of a file or dataset, N values each, and the place of each row."""

    columns: Mapping[str, Sequence[Any]]
    places: Sequence[int]
    """The place of each row: the line on which it begins, from 1; or its number, from 0."""
    counted_in: Literal["line", "row"]
    declared: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By column of whole numbers, or of lists of them, the classes that the numbers mean (the hub's ClassLabel), in their order."""
    floats: frozenset[str] = frozenset()
    """The columns that a dataset of the hub declares to be floats."""

    def __len__(self) -> int:
        return len(self.places)

    def named(self, rows: Sequence[int]) -> str:
        """Name rows for a message: `lines 3, 7, 9`, and of many rows the first `LISTED`."""
        places = [str(self.places[row]) for row in rows[:LISTED]]
        tail = f" and {len(rows) - LISTED:,} more" if len(rows) > LISTED else ""
        return f"{self.counted_in}{'s' * (len(rows) > 1)} {', '.join(places)}{tail}"


def as_text(value: Any) -> str | None:
    """Convert a cell to a text: a number in its shortest form (1.0 is 1), true and false as json writes them; return None for a gap.

    Raises TypeError for a value of any other type, such as a list.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float):
        whole = value.is_integer() and abs(value) < 1e16
        return None if math.isnan(value) else str(int(value)) if whole else repr(value)
    raise TypeError(f"a text or a number is wanted, but got {value!r}")


def read_table(
    path: Path,
    columns: Columns,
    *,
    where: str,
    delimiter: str | None,
    encoding: str,
    on_rows: Callable[[int], None] = NOBODY,
) -> Table:
    """Read the columns of a file that messages call `where`; a `delimiter` of None means a comma, in a tsv a tab.

    `on_rows` gets the number of rows read so far, of a file of lines. Raises DataError for an unknown kind of file, one that cannot be read,
    bytes that are not `encoding`, rows with more or fewer fields than the header, and missing columns.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in _COMPRESSIONS]
    kind = _KINDS.get(suffixes[-1]) if suffixes else None
    if kind is None:
        known = ", ".join(_KINDS)
        raise DataError(f"a data file ends in one of {known} (compressed or not), but got {path.name!r}")
    names = columns if callable(columns) else list(dict.fromkeys(columns))
    try:
        if kind == "parquet":
            return _parquet(path, names, where)
        with _decompressed(path) as binary, io.TextIOWrapper(binary, _codec(encoding), newline="") as file:
            if kind == "json":
                return _json(file, names, where, on_rows)
            return _delimited(file, names, where, delimiter or ("\t" if suffixes[-1] == ".tsv" else ","), on_rows)
    except UnicodeError as error:
        raise DataError(f"{where} must be text in {encoding}, but {_undecodable(path, encoding, error)}") from error
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise DataError(f"{where} must be readable as {kind}, but: {error}") from error


def check_columns(wanted: Sequence[str], found: Sequence[str], where: str, hint: str = "") -> None:
    """Check that `found` has every wanted column once. Raises DataError, with `hint`, where one is missing or occurs twice."""
    missing = [name for name in wanted if name not in found]
    if missing:
        listed = ", ".join(found)
        raise DataError(
            f"{where} must have the columns {', '.join(wanted)}, but has {listed}: {missing[0]!r} is missing{hint}"
        )
    twice = [name for name in wanted if list(found).count(name) > 1]
    if twice:
        raise DataError(f"{where} must have every named column once, but {twice[0]!r} stands there more than once")


def _chosen(columns: Columns, found: Sequence[str]) -> Sequence[str]:
    return columns(found) if callable(columns) else columns


def _codec(encoding: str) -> str:
    """Return the codec for `encoding`: for UTF-8 the one that skips a byte order mark at the beginning."""
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding


def _decompressed(path: Path) -> IO[bytes]:
    """Open a file to read its uncompressed content; its last suffix names the compression."""
    openers: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    openers |= {".zst": _zstandard, ".zip": _only_member}
    suffix = path.suffix.lower()
    opened: IO[bytes] = openers[suffix](path) if suffix in openers else path.open("rb")
    return opened


def _zstandard(path: Path) -> Any:
    import pyarrow  # takes a while, and is not needed for most files

    stream: Any = pyarrow.CompressedInputStream
    return stream(str(path), "zstd")


def _seekable(file: IO[bytes]) -> IO[bytes]:
    """Return the file itself, or where it is compressed its content, unpacked in memory."""
    return file if isinstance(file, io.BufferedReader) else io.BytesIO(file.read())


def _only_member(path: Path) -> IO[bytes]:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
        if len(names) != 1:
            listed = ", ".join(names[:LISTED])
            raise DataError(f"{path.name} must hold one file, but holds {len(names)}: {listed}")
        return archive.open(names[0])  # stays readable when the archive is closed


def _undecodable(path: Path, encoding: str, why: UnicodeError) -> str:
    """Describe, for a message, the first byte of a file that is not `encoding`."""
    with _decompressed(path) as file:
        content = file.read()
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        start, before = error.start, content[: error.start].decode(encoding, errors="replace")
        likely = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "cp1252"
        line = 1 + before.count("\n")
        return f"line {line:,} holds 0x{content[start]:02x} (byte {start:,}): name its own encoding, such as encoding: {likely}"
    return f"{why}: name its own encoding"


# csv and tsv ---------------------------------------------------------------------------------------------------------


def _delimited(file: TextIO, wanted: Columns, where: str, delimiter: str, on_rows: Callable[[int], None]) -> Table:
    """Read a csv or tsv file. Raises DataError where a row has more or fewer fields than the header, or quotes are not closed or doubled."""
    csv.field_size_limit(_LONGEST_FIELD)
    blank, first = next(((number, line) for number, line in enumerate(file) if line.strip()), (0, ""))
    hint, begins = "" if callable(wanted) else _other_delimiter(first, wanted, delimiter), blank + 1
    columns: dict[str, list[str]] = {}
    places: list[int] = []
    ragged: list[tuple[int, int]] = []
    try:
        reader = csv.reader(itertools.chain([first], file), delimiter=delimiter, strict=True)
        header = next(reader, [])
        columns = {name: [] for name in _chosen(wanted, header)}
        if header:
            check_columns(list(columns), header, where, hint)
        picked = [(column, header.index(name)) for name, column in columns.items() if header]
        begins = blank + reader.line_num + 1
        for row in reader:
            if len(row) == len(header):
                places.append(begins)
                for column, index in picked:
                    column.append(row[index])
                if len(places) % ROWS_TOLD == 0:
                    on_rows(len(places))
            elif len(row) > 1 or (row and row[0].strip()):
                ragged.append((begins, len(row)))
            begins = blank + reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{where}: every quoted field must be closed, and a quote inside it doubled, but in the row that begins on line "
            f"{begins:,}: {error}{hint}"
        ) from error
    if ragged:
        raise DataError(_ragged(ragged, len(header), where, delimiter))
    return Table(columns=columns, places=places, counted_in="line")


def _other_delimiter(line: str, names: Sequence[str], delimiter: str) -> str:
    """Return a hint for a message where another delimiter would find every name in a file's first line; otherwise an empty text."""
    headers = {each: next(csv.reader([line], delimiter=each), []) for each in (delimiter, *_DELIMITERS)}
    fits = [each for each, header in headers.items() if set(names) <= set(header)]
    return f"; csv_delimiter: {json.dumps(fits[0])} finds them" if fits and fits[0] != delimiter else ""


def _ragged(ragged: Sequence[tuple[int, int]], width: int, where: str, delimiter: str) -> str:
    listed = ", ".join(f"line {line:,} has {fields}" for line, fields in ragged[:LISTED])
    more = f" and {len(ragged) - LISTED:,} rows more have another number" if len(ragged) > LISTED else ""
    return (
        f"{where}: every row must have the {width} fields that the header has, but {listed}{more}; a text that holds "
        f"{delimiter!r} or a line break stands in double quotes"
    )


# json and parquet ----------------------------------------------------------------------------------------------------


def _json(file: TextIO, wanted: Columns, where: str, on_rows: Callable[[int], None]) -> Table:
    """Read a file of one object a line, or of one list of objects. Raises DataError for any other content, and for missing columns."""
    lines = enumerate(file, 1)
    number, first = next(((number, line) for number, line in lines if line.strip()), (1, ""))
    listed = first.lstrip().startswith("[")
    objects: Iterable[tuple[int, Any]]
    if listed:
        objects = enumerate(_parsed(first + file.read(), where))
    else:
        filled = ((number, line) for number, line in itertools.chain([(number, first)], lines) if line.strip())
        objects = ((number, _parsed(line, f"{where}, line {number:,},")) for number, line in filled)
    objects = _dicts(objects, where)
    if callable(wanted):
        objects = list(objects)
        wanted = wanted(list(dict.fromkeys(key for _, item in objects for key in item)))
    columns: dict[str, list[Any]] = {name: [] for name in wanted}
    places: list[int] = []
    known: dict[str, Any] = {}
    for place, item in objects:
        places.append(place)
        known.update(item)
        for name, column in columns.items():
            column.append(item.get(name))
        if len(places) % ROWS_TOLD == 0:
            on_rows(len(places))
    if places:
        check_columns(wanted, list(known), where)
    return Table(columns=columns, places=places, counted_in="row" if listed else "line")


def _dicts(objects: Iterable[tuple[int, Any]], where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for place, item in objects:
        if not isinstance(item, dict):
            raise DataError(f"{where} must hold objects, one a line or in a list, but one is {str(item)[:80]!r}")
        yield place, item


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{where} must be readable as json, one object a line or one list of them, but: {error}"
        ) from error


def _parquet(path: Path, wanted: Columns, where: str) -> Table:
    import pyarrow  # takes a while, and is not needed for most files
    import pyarrow.parquet

    try:
        with _decompressed(path) as content, pyarrow.parquet.ParquetFile(_seekable(content)) as file:
            names = _chosen(wanted, file.schema_arrow.names)
            check_columns(names, file.schema_arrow.names, where)
            table = file.read(columns=list(names))
    except pyarrow.ArrowException as error:
        raise DataError(f"{where} must be readable as parquet, but: {error}") from error
    said = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    kinds = {name: said.get(name) or {} for name in names}
    kinds = {name: kind.get("feature", kind) if isinstance(kind, dict) else kind[0] for name, kind in kinds.items()}
    classes = {name: kind["names"] for name, kind in kinds.items() if kind.get("_type") == "ClassLabel"}
    return Table(
        columns={name: table[name].to_pylist() for name in names},
        places=range(len(table)),
        counted_in="row",
        declared={name: tuple(declared) for name, declared in classes.items()},
    )
