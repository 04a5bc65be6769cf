"""Rows and splits: files of every kind, and every way in which they can be wrong."""

import bz2
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdsweep.config import TrialConfig
from kdsweep.data import load_data, stratified_order
from kdsweep.errors import DataError

Config = Callable[..., TrialConfig]
Write = Callable[..., Path]


def rows(count: int = 20) -> list[tuple[str, str]]:
    return [(f"text {number}", "good" if number % 2 else "bad") for number in range(count)]


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl"])
def test_files_of_every_kind_are_read_compressed_or_not(name: str, write_rows: Write, tiny_config: Config) -> None:
    path = write_rows(name, rows())
    expected = load_data(tiny_config(train_file=str(path)))
    assert expected.label_names == ("bad", "good")
    for suffix, pack in ((".gz", gzip.compress), (".bz2", bz2.compress)):
        packed = path.with_name(f"{name}{suffix}")
        packed.write_bytes(pack(path.read_bytes()))
        assert load_data(tiny_config(train_file=str(packed))).sha256() == expected.sha256()


def test_texts_that_pandas_would_call_missing_stay_texts(write_rows: Write, tiny_config: Config) -> None:
    texts = [("NA", "good"), ("null", "bad"), ("nan", "good"), *rows()]
    data = load_data(tiny_config(train_file=str(write_rows("rows.csv", texts))))
    assert {"NA", "null", "nan"} <= set(data.train.texts) | set(data.validation.texts)


def test_integer_labels_are_ordered_by_size_and_chosen_classes_as_given(write_rows: Write, tiny_config: Config) -> None:
    path = write_rows("rows.csv", [(f"text {number}", number % 12) for number in range(120)])
    assert load_data(tiny_config(train_file=str(path))).label_names == tuple(map(str, range(12)))
    chosen = load_data(tiny_config(train_file=str(path), label_names=("7", "2")))
    assert chosen.label_names == ("7", "2") and len(chosen.train) + len(chosen.validation) == 20


def test_duplicates_never_cross_splits_and_are_counted(write_rows: Write, tiny_config: Config) -> None:
    train = write_rows("train.csv", [*rows(), ("seen", "good"), ("seen", "good")])
    validation = write_rows("validation.csv", [("seen", "good"), ("new", "bad")])
    data = load_data(tiny_config(train_file=str(train), validation_file=str(validation)))
    assert data.duplicates_dropped == 2
    assert set(data.train.texts).isdisjoint(data.validation.texts)


def test_cuts_are_stratified_disjoint_and_limits_nest(write_rows: Write, tiny_config: Config) -> None:
    path = str(write_rows("rows.csv", [(f"text {n}", "rare" if n % 10 == 0 else "common") for n in range(400)]))
    data = load_data(tiny_config(train_file=path, validation_fraction=0.25, test_fraction=0.25))
    assert data.test is not None and (len(data.train), len(data.validation), len(data.test)) == (200, 100, 100)
    assert [int((split.labels == 1).sum()) for split in (data.train, data.validation, data.test)] == [20, 10, 10]
    small, large = (load_data(tiny_config(train_file=path, train_limit=limit)).train.texts for limit in (50, 100))
    assert set(small) < set(large)


def test_every_beginning_of_a_stratified_order_holds_the_classes_in_their_shares() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    order = stratified_order(labels, 0)
    assert sorted(order) == list(range(100))
    assert [int(labels[order[:count]].sum()) for count in (20, 50, 100)] == [2, 5, 10]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([("a", "x"), ("b", None)], "every row must have a label"),
        ([("a", "x"), ("b", "x")], "two classes"),
        ([("a", -1), ("b", -1)], "hidden"),
        ([("a", 0.5), ("b", 1.5)], "regression"),
        ([("a", ["x", "y"]), ("b", ["x"])], "multi-label"),
        ([("a", "x"), (" ", "y")], "non-empty"),
        ([({"nested": 1}, "x")], "non-empty"),
    ],
)
def test_rows_that_cannot_be_classified_are_refused(
    content: list[tuple[Any, Any]], message: str, write_rows: Write, tiny_config: Config
) -> None:
    path = write_rows("rows.jsonl", [{"text": text, "label": label} for text, label in content])
    with pytest.raises(DataError, match=message):
        load_data(tiny_config(train_file=str(path)))


def test_missing_columns_files_kinds_and_classes_are_named(
    write_rows: Write, tiny_config: Config, tmp_path: Path
) -> None:
    path = write_rows("rows.csv", rows())
    unseen = write_rows("unseen.csv", [("x", "ugly")])
    empty, torn = tmp_path / "empty.csv", tmp_path / "torn.jsonl"
    empty.touch()
    torn.write_text(json.dumps({"text": "a"})[:-3])
    cases: list[tuple[dict[str, Any], str]] = [
        ({"label_column": "labels"}, "but has text, label: 'labels' is missing"),
        ({"train_file": "nowhere.csv"}, "does not"),
        ({"train_file": str(tmp_path / "tiny.doc")}, "does not"),
        ({"train_file": str(empty)}, "is empty"),
        ({"train_file": str(torn)}, "readable as json"),
        ({"validation_file": str(unseen)}, r"\['ugly'\]"),
        ({"label_names": ("great", "awful")}, "its classes are"),
    ]
    for change, message in cases:
        with pytest.raises(DataError, match=message):
            load_data(tiny_config(**{"train_file": str(path), **change}))


def test_a_hub_dataset_that_cannot_be_reached_names_the_way_out(tiny_config: Config) -> None:
    with pytest.raises(DataError, match="train_file"):
        load_data(tiny_config(train_file=None, dataset="nobody/nothing"))
