"""Texts read one after the other: each kind of file, and where it is none."""

import itertools
from pathlib import Path

import pytest

from kdsweep.errors import DataError
from kdsweep.shipping.text_rows import TextRow, read_rows


def rows(path: Path, content: str | bytes, pair_column: str | None = None) -> list[tuple[str, str | None]]:
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return [tuple(row) for row in read_rows(path, column="text", pair_column=pair_column)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "one\n\ntwo, three"),
        ("a", b"\xef\xbb\xbfone\r\n\r\ntwo, three\r\n"),
        ("a.CSV", 'label,text\nx,one\n\ny,""\nz,"two, three"\n'),
        ("a.tsv", "text\tlabel\none\tx\n\tx\ntwo, three\ty\n"),
        ("a.jsonl", '{"text": "one", "more": 1}\n\n{"text": "two, three"}\n'),
    ],
)
def test_a_file_is_read_by_its_name_and_an_empty_row_keeps_its_place(tmp_path: Path, name: str, content: str) -> None:
    assert rows(tmp_path / name, content) == [("one", None), ("", None), ("two, three", None)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "one\ttwo\n\nthree\tfour\n"),
        ("a.csv", "other,text\ntwo,one\n,\nfour,three\n"),
        ("a.ndjson", '{"text": "one", "other": "two"}\n\n{"other": "four", "text": "three"}'),
    ],
)
def test_a_student_of_pairs_reads_both_texts(tmp_path: Path, name: str, content: str) -> None:
    found = rows(tmp_path / name, content, pair_column="other")
    assert found == [("one", "two"), ("", ""), ("three", "four")]
    assert [TextRow(*row).is_empty() for row in found] == [False, True, False]


@pytest.mark.parametrize(
    ("name", "content", "pair", "said"),
    [
        ("a.txt", "", None, "must hold a text, but it is empty"),
        ("a.txt", "\n \n", None, "must hold a text, but it is empty"),
        ("a.csv", "text,label\n", None, "must hold a text, but it is empty"),
        ("a.txt", b"one\ntwo\ncaf\xe9\n", None, "line 3 holds 0xe9 (byte 4 of the line)"),
        ("a.csv", b"text\none\ncaf\xe9\n", None, "line 3 holds 0xe9"),
        ("a.txt", "one\ttwo\nthree\n", "other", "line 2 has 0"),
        ("a.txt", "one\ttwo\tthree\n", "other", "line 1 has 2"),
        ("a.csv", "body,label\none,x\n", None, "'text' is missing: it has body, label"),
        ("a.csv", "text,label\none,x\ntwo\n", None, "the one that ends on line 3 has 1"),
        ("a.csv", 'text,label\n"one,x\n', None, "must be readable as csv, but line 2"),
        ("a.jsonl", '{"text": "one"}\n{"text"\n', None, "line 2 must be a JSON object"),
        ("a.jsonl", '["one"]\n', None, "line 1 must be a JSON object"),
        ("a.jsonl", '{"text": null}\n', None, "line 1: 'text' must be a text, but got null"),
        ("a.jsonl", '{"body": "one"}\n', None, "line 1 must have the columns"),
    ],
)
def test_what_is_no_row_is_refused_with_its_line(
    tmp_path: Path, name: str, content: str, pair: str | None, said: str
) -> None:
    with pytest.raises(DataError) as refused:
        rows(tmp_path / name, content, pair)
    assert said in str(refused.value) and str(tmp_path / name) in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none.txt must be a readable file, but: No such file"):
        list(read_rows(tmp_path / "none.txt", column="text", pair_column=None))


def test_rows_come_before_the_rest_of_the_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\n" * 100_000 + b"\xff\n")
    found = read_rows(path, column="text", pair_column=None)
    assert [row.text for row in itertools.islice(found, 3)] == ["one", "one", "one"]
