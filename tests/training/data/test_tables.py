"""Tables in files: cells as they stand, rows named by their line, and every way in which a file can be wrong."""

import bz2
import gzip
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from kdsweep.errors import DataError
from kdsweep.training.data.tables import Table, as_text, read_table

Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write("rows.csv", "text,label\\n…")`: the path."""

    def written(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return written


def read(path: Path, *columns: str, delimiter: str | None = None, encoding: str = "utf-8") -> Table:
    return read_table(path, columns or ("text", "label"), where=path.name, delimiter=delimiter, encoding=encoding)


def cells(path: Path, **options: Any) -> list[tuple[Any, ...]]:
    table = read(path, **options)
    return list(zip(table.columns["text"], table.columns["label"], strict=True))


def test_cells_of_a_csv_are_texts_as_they_stand(write: Write) -> None:
    stands = ["01", "1", "00", "1E5", "true", "0.0", "NA", "null", "", " x ", "-1"]
    path = write("rows.csv", "text,label\n" + "".join(f"{each},{each}\n" for each in stands))
    assert cells(path) == [(each, each) for each in stands]


def test_quotes_delimiters_line_breaks_and_a_byte_order_mark_are_read_as_csv_has_them(write: Write) -> None:
    content = '\ufefftext,label\r\n"one, ""two""\nthree",a\r\n\r\n"four",b'
    table = read(write("rows.csv", content))
    assert table.columns == {"text": ['one, "two"\nthree', "four"], "label": ["a", "b"]}
    assert list(table.places) == [2, 5] and table.named([0, 1]) == "lines 2, 5"


def test_a_field_may_be_longer_than_pythons_limit(write: Write) -> None:
    long = "word " * 40_000
    assert cells(write("rows.csv", f"text,label\n{long},a\n")) == [(long, "a")]


def test_an_unused_column_never_fails_a_file(write: Write) -> None:
    numbers = "".join(f"{n},t {n},a\n" for n in range(12_000))
    assert len(read(write("rows.csv", f"id,text,label\n{numbers}x9,last,b\n"))) == 12_001
    lines = "".join(f'{{"id": {n}, "text": "t", "label": "a"}}\n' for n in range(9))
    mixed = f'{lines}{{"id": "x", "text": "t", "label": "b"}}\n{{"id": [1], "text": "t", "label": "b"}}\n'
    assert len(read(write("rows.jsonl", mixed))) == 11


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n", "must have the columns text, label, but has a, b: 'text' is missing$"),
        (
            "text,label\nx,y\nfirst,second,a\nz\n",
            "2 fields that the header has, but line 3 has 3, line 4 has 1; a text",
        ),
        ("text,label\n" + "x\n" * 7, "line 6 has 1 and 2 rows more"),
        ('text,label\nx,y\n"open,a\nz,b\n', "the row that begins on line 3: unexpected end of data"),
        ('text,label\n"two\nlines",b\n"x" y,a\n', "the row that begins on line 4: ',' expected after"),
        ("text,label,text\nx,y,z\n", "'text' stands there more than once"),
    ],
)
def test_a_csv_that_is_none_is_refused_by_line(content: str, message: str, write: Write) -> None:
    with pytest.raises(DataError, match=message):
        read(write("rows.csv", content))


@pytest.mark.parametrize(("character", "spelled"), [(";", '";"'), ("\t", r'"\\t"'), ("|", r'"\|"')])
def test_another_delimiter_is_read_when_named_and_suggested_when_not(
    character: str, spelled: str, write: Write
) -> None:
    path = write("rows.csv", f'"text"{character}label\n"a, b"{character}x\n')
    assert cells(path, delimiter=character) == [("a, b", "x")]
    with pytest.raises(DataError, match=f"; csv_delimiter: {spelled} finds them"):
        read(path)


def test_a_tsv_is_read_by_tabs_unless_the_config_says_otherwise(write: Write) -> None:
    assert cells(write("rows.tsv", "text\tlabel\na, b\tx\n")) == [("a, b", "x")]
    with pytest.raises(DataError, match='; csv_delimiter: "," finds them'):
        read(write("commas.tsv", "text,label\na,x\n"))


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16"])
@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_another_encoding_is_read_when_named(encoding: str, name: str, write: Write) -> None:
    content = "text,label\ncafé,a\n" if name == "rows.csv" else '{"text": "café", "label": "a"}\n'
    path = write(name, content.encode(encoding))
    assert cells(path, encoding=encoding) == [("café", "a")]
    with pytest.raises(DataError, match="must be text in utf-8, but line . holds 0x.. .* such as encoding: "):
        read(path)


def test_bytes_that_are_not_text_are_named_by_line_and_place(write: Write) -> None:
    path = write("rows.csv.gz", gzip.compress("text,label\nplain,a\ncafé,b\n".encode("cp1252")))
    with pytest.raises(DataError, match=r"line 3 holds 0xe9 \(byte 22\): .* such as encoding: cp1252$"):
        read(path)
    with pytest.raises(DataError, match="encoding: utf-16$"):
        read(write("utf16.csv", "text,label\n".encode("utf-16")))
    with pytest.raises(DataError, match="must be text in utf-16, but .*: name its own encoding"):
        read(write("plain.csv", "text,label\nx,y\n"), encoding="utf-16")


def test_json_keeps_types_in_lines_and_in_a_list(write: Write) -> None:
    objects = ['{"text": 1.0, "label": true}', '{"text": null, "label": -1}', '{"label": "x", "text": "a"}']
    expected = [(1.0, True), (None, -1), ("a", "x")]
    lines, listed = write("rows.jsonl", "\n\n".join(objects)), write("rows.json", f"\n[{','.join(objects)}]")
    assert cells(lines) == cells(listed) == expected
    assert read(lines).named([1]) == "line 3" and read(listed).named([1]) == "row 1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a", "label": 1}\n{"text"', "rows.json, line 2, must be readable as json"),
        ("[{", "must be readable as json"),
        ("[" * 100_000, "must be readable as json"),
        ("1\n", "must hold objects"),
        ('{"text": "a"}\n', "but has text: 'label' is missing"),
    ],
)
def test_json_that_is_none_is_refused(content: str, message: str, write: Write) -> None:
    with pytest.raises(DataError, match=message):
        read(write("rows.json", content))


def packed(path: Path, suffix: str) -> Path:
    target, content = path.with_name(f"{path.name}{suffix}"), path.read_bytes()
    if suffix == ".zip":
        with zipfile.ZipFile(target, "w") as archive:
            archive.write(path, path.name)
            archive.writestr(f"__MACOSX/._{path.name}", b"")
        return target
    zst = lambda raw: pyarrow.compress(raw, codec="zstd", asbytes=True)
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zst}[suffix]
    target.write_bytes(pack(content))
    return target


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst", ".zip"])
def test_files_of_every_kind_are_read_through_every_compression(suffix: str, tmp_path: Path, write: Write) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"text": ["é"], "label": ["a"]}), tmp_path / "rows.parquet")
    paths = [write("rows.CSV", "text,label\né,a\n"), write("rows.jsonl", '{"text": "é", "label": "a"}\n')]
    for path in (*paths, tmp_path / "rows.parquet"):
        assert cells(packed(path, suffix)) == [("é", "a")], path


@pytest.mark.parametrize("name", ["r.csv.gz", "r.csv.bz2", "r.csv.xz", "r.csv.zst", "r.csv.zip", "r.parquet"])
def test_a_file_that_is_not_what_its_name_says_is_one_message(name: str, write: Write) -> None:
    with pytest.raises(DataError, match=f"{name} must be readable as"):
        read(write(name, "text,label\nx,y\n"))


def test_a_packed_file_cut_short_and_an_archive_of_two_are_refused(write: Write, tmp_path: Path) -> None:
    whole = gzip.compress(b"text,label\n" + bytes(range(97, 122)) * 999 + b",y\n")
    with pytest.raises(DataError, match="must be readable as csv"):
        read(write("rows.csv.gz", whole[:-30]))
    with zipfile.ZipFile(tmp_path / "two.csv.zip", "w") as archive:
        archive.writestr("a.csv", "text,label\n")
        archive.writestr("b.csv", "text,label\n")
    with pytest.raises(DataError, match="must hold one file, but holds 2: a.csv, b.csv"):
        read(tmp_path / "two.csv.zip")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        (None, None),
        (float("nan"), None),
        (True, "true"),
        (False, "false"),
        (7, "7"),
        (1.0, "1"),
        (-0.5, "-0.5"),
        (1e300, "1e+300"),
    ],
)
def test_a_number_becomes_its_shortest_text(value: Any, text: str | None) -> None:
    assert as_text(value) == text
    with pytest.raises(TypeError):
        as_text([value])
