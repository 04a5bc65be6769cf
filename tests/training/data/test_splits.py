"""Rows and splits: files of every kind, and every way in which they can be wrong."""

import bz2
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from kdsweep.config.trial import TrialConfig
from kdsweep.errors import DataError
from kdsweep.training.data.splits import load_data, stratified_order

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
        ([("a", ["x", "y"]), ("b", "x")], "must be all lists or none"),
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


def test_parquet_files_and_classes_that_the_data_declares_keep_their_order(tmp_path: Path, tiny_config: Config) -> None:
    classes = datasets.ClassLabel(names=["never", "zebra", "ant"])
    columns = {"text": [f"text {n}" for n in range(20)], "label": [1 + n % 2 for n in range(20)]}
    table = datasets.Dataset.from_dict(
        columns, features=datasets.Features({"text": datasets.Value("string"), "label": classes})
    )
    table.to_parquet(tmp_path / "rows.parquet")
    data = load_data(tiny_config(train_file=str(tmp_path / "rows.parquet")))
    assert data.label_names == ("never", "zebra", "ant")
    by_text = dict(zip(columns["text"], columns["label"], strict=True))
    assert [by_text[text] for text in data.train.texts] == data.train.labels.tolist()


def test_declared_classes_that_are_hidden_are_refused(tmp_path: Path, tiny_config: Config) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["a", "b"])})
    table = datasets.Dataset.from_dict({"text": ["x", "y"], "label": [-1, -1]}, features=features)
    table.to_parquet(tmp_path / "test.parquet")
    with pytest.raises(DataError, match="hidden"):
        load_data(tiny_config(test_file=str(tmp_path / "test.parquet")))


def test_both_texts_of_a_pair_are_read_and_make_the_row(write_rows: Write, tiny_config: Config) -> None:
    content = [{"a": f"p {n % 10}", "b": f"h {n}", "label": "xy"[n % 2]} for n in range(20)]
    path = write_rows("rows.jsonl", content)
    fields = {"train_file": str(path), "text_column": "a", "text_pair_column": "b"}
    data = load_data(tiny_config(**fields))
    assert data.duplicates_dropped == 0 and data.train.pairs is not None
    assert set(data.train.row_keys()) < {(row["a"], row["b"]) for row in content}
    with pytest.raises(DataError, match="must have the columns a, c, label, but has a, b, label: 'c' is missing"):
        load_data(tiny_config(**{**fields, "text_pair_column": "c"}))


def test_labels_follow_their_texts_through_cuts_limits_and_duplicates(
    tiny_rows: list[tuple[str, str]], tiny_config: Config
) -> None:
    data = load_data(tiny_config(test_fraction=0.2, train_limit=30, validation_limit=10))
    known = dict(tiny_rows)
    assert data.test is not None and (len(data.train), len(data.validation)) == (30, 10)
    for split in (data.train, data.validation, data.test):
        assert [known[text] for text in split.texts] == [data.label_names[label] for label in split.labels]


def test_the_hash_follows_texts_labels_and_class_names(write_rows: Write, tiny_config: Config) -> None:
    base = rows()
    contents = [base, [("other", "bad"), *base[1:]], [("text 0", "good"), *base[1:]]]
    contents += [[(text, label.replace("bad", "worse")) for text, label in base], base]
    hashes = [load_data(tiny_config(train_file=str(write_rows("rows.csv", rows_)))).sha256() for rows_ in contents]
    assert len(set(hashes)) == 4 and hashes[0] == hashes[-1]


def test_another_split_seed_cuts_other_rows_and_the_same_one_the_same(tiny_config: Config) -> None:
    first, again, other = (load_data(tiny_config(split_seed=seed)).validation.texts for seed in (0, 0, 1))
    assert first == again and set(first) != set(other)


def test_a_row_that_stands_in_test_is_taken_from_validation_and_training(
    write_rows: Write, tiny_config: Config
) -> None:
    files = {
        "train_file": [*rows(), ("shared", "good")],
        "validation_file": [("new", "bad"), ("shared", "good")],
        "test_file": [("shared", "good"), ("newer", "bad")],
    }
    paths = {name: str(write_rows(f"{name}.csv", content)) for name, content in files.items()}
    data = load_data(tiny_config(**paths))
    assert data.test is not None and data.duplicates_dropped == 2
    assert (len(data.train), data.validation.texts, data.test.texts) == (20, ("new",), ("shared", "newer"))


def test_a_split_that_only_repeats_the_others_is_refused(write_rows: Write, tiny_config: Config) -> None:
    path = str(write_rows("rows.csv", rows()))
    with pytest.raises(DataError, match="no training row is left after the duplicates were dropped"):
        load_data(tiny_config(train_file=path, validation_file=path))


def test_always_naming_the_commonest_training_class_is_the_majority(write_rows: Write, tiny_config: Config) -> None:
    train = write_rows("train.csv", [(f"t {n}", "a" if n < 15 else "b") for n in range(20)])
    validation = write_rows("validation.csv", [("v 1", "a"), ("v 2", "b"), ("v 3", "b"), ("v 4", "b")])
    data = load_data(tiny_config(train_file=str(train), validation_file=str(validation)))
    assert data.majority_accuracy() == 0.25


def test_texts_with_two_labels_are_counted_within_and_across_splits(write_rows: Write, tiny_config: Config) -> None:
    train = [*rows(), ("twice", "good"), ("twice", "bad"), ("twice", "bad"), ("same", "bad"), ("same", "bad")]
    train = [*train, ("crossing", "good")]
    fields = {"train_file": train, "validation_file": [("crossing", "bad"), ("new", "good")]}
    data = load_data(tiny_config(**{name: str(write_rows(f"{name}.csv", them)) for name, them in fields.items()}))
    assert data.conflicting_texts == 2 and data.duplicates_dropped == 1
    pairs = [{"text": "one", "b": f"h {n}", "label": "xy"[n % 2]} for n in range(20)] + [
        {"text": "one", "b": "h 0", "label": "y"}
    ]
    data = load_data(tiny_config(train_file=str(write_rows("pairs.csv", pairs)), text_pair_column="b"))
    assert data.conflicting_texts == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation_file": [("rare", "odd")]}, r"none of the 20 that are left is of \['odd'\]"),
        ({"train_limit": 2}, r"none of the 2 .* is of \['odd'\]: duplicates, .* train_limit \(2\)"),
        ({"label_names": ("good", "bad", "ugly")}, r"is of \['ugly'\]"),
    ],
)
def test_a_class_of_which_no_training_row_is_left_is_refused_as_soon_as_rows_are_read(
    changes: dict[str, Any], message: str, write_rows: Write, tiny_config: Config
) -> None:
    files = {"train_file": [*rows(), ("rare", "odd")], "validation_file": [("v 1", "good"), ("v 2", "bad")]} | changes
    fields = {
        name: str(write_rows(f"{name}.csv", them)) if name.endswith("_file") else them for name, them in files.items()
    }
    with pytest.raises(DataError, match=message):
        load_data(tiny_config(**fields))


def test_an_unseen_class_among_many_is_told_with_ten_of_them(write_rows: Write, tiny_config: Config) -> None:
    many = [(f"text {number}", f"intent {number:03}") for number in range(150)]
    fields = {"train_file": str(write_rows("train.csv", many * 2))}
    fields["validation_file"] = str(write_rows("dev.csv", [("x", "other")]))
    with pytest.raises(DataError, match=r"'intent 009', … and 140 more\]\), but got \['other'\]") as told:
        load_data(tiny_config(**fields))
    assert len(str(told.value)) < 300
