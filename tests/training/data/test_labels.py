"""Labels of every task: lists, columns of 0 and 1, numbers; what is refused; and how their rows are cut."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from kdsweep.config.trial import TrialConfig
from kdsweep.errors import DataError
from kdsweep.training.data.numbering import strata
from kdsweep.training.data.splits import Data, load_data
from kdsweep.training.folds import fold_of_rows

Load = Callable[..., Data]
LISTS = [["joy"], [], ["joy", "anger"], ["fear"], ["joy"]]


@pytest.fixture
def load(write_rows: Callable[..., Path]) -> Load:
    """`load(labels)`: the data of a file of 40 rows that have these labels in turn; a mapping is a row's columns but the text."""

    def loaded(labels: list[Any], suffix: str = "jsonl", rows: int = 40, **changes: Any) -> Data:
        columns = [label if isinstance(label, dict) else {"label": label} for label in labels]
        content = [{"text": f"text {row}", **columns[row % len(columns)]} for row in range(rows)]
        fields: dict[str, Any] = {"train_file": str(write_rows(f"rows.{suffix}", content)), "teacher": "bert"}
        return load_data(TrialConfig(**{**fields, "teacher_epochs": 1, **changes}))

    return loaded


def by_text(data: Data, count: int) -> list[Any]:
    """The labels of the texts 0 to count - 1, wherever they lie."""
    found: dict[str, Any] = {}
    for split in (data.train, data.validation):
        found |= dict(zip(split.texts, split.labels.tolist(), strict=True))
    return [found[f"text {row}"] for row in range(count)]


def test_lists_are_labels_each_there_or_not(load: Load) -> None:
    data = load(LISTS)
    assert (data.task, data.label_names) == ("multi_label", ("anger", "fear", "joy"))
    assert data.train.labels.dtype == np.uint8 and data.train.labels.shape == (len(data.train), 3)
    assert by_text(data, 5) == [[0, 0, 1], [0, 0, 0], [1, 0, 1], [0, 1, 0], [0, 0, 1]]
    numbers = load([[2, 10], [2], [], [10, 10]])
    assert numbers.label_names == ("2", "10") and by_text(numbers, 4) == [[1, 1], [1, 0], [0, 0], [0, 1]]
    assert data.sha256() != load(LISTS[::-1]).sha256() and load(LISTS, task="multi_label").sha256() == data.sha256()


def test_named_labels_are_kept_in_their_order_and_no_row_is_lost(load: Load) -> None:
    data = load(LISTS, label_names=("joy", "anger"))
    assert data.label_names == ("joy", "anger") and len(data.train) + len(data.validation) == 40
    assert by_text(data, 5) == [[1, 0], [0, 0], [1, 1], [0, 0], [1, 0]]


@pytest.mark.parametrize(
    ("suffix", "one", "zero"), [("csv", "1", "0"), ("csv", "True", "False"), ("jsonl", True, 0), ("csv", "1.0", "0.0")]
)
def test_columns_of_0_and_1_are_labels_named_like_them(load: Load, suffix: str, one: Any, zero: Any) -> None:
    content = [{"toxic": one, "insult": zero}, {"toxic": zero, "insult": zero}, {"toxic": one, "insult": one}]
    data = load(content, suffix, label_columns=("toxic", "insult"))
    assert (data.task, data.label_names) == ("multi_label", ("toxic", "insult"))
    assert by_text(data, 3) == [[1, 0], [0, 0], [1, 1]]


def test_numbers_with_fractions_are_a_regression_and_whole_ones_where_the_task_says_so(load: Load) -> None:
    for suffix in ("jsonl", "csv"):
        data = load([1, 2.5, 4.25], suffix)
        assert (data.task, data.label_names, data.train.labels.dtype) == ("regression", ("label",), np.dtype("float32"))
        assert by_text(data, 3) == [1.0, 2.5, 4.25]
        stated = load([1, 3, 5], suffix, task="regression")
        assert stated.task == "regression" and by_text(stated, 3) == [1.0, 3.0, 5.0]
        assert load([1, 3, 5], suffix).label_names == ("1", "3", "5"), "classes, as before"
        assert load([0.5, 1.5], suffix, label_names=("0.5", "1.5")).task == "single_label"
    assert load(["1.5", "2"], "jsonl").task == "regression", "texts that are numbers are numbers"
    assert load([" 1.5 ", ".5"], "jsonl").task == "regression"
    assert load([1, 2.5], "csv").sha256() != load([1, 2.5], "csv", label_names=("1", "2.5")).sha256()


def test_features_of_a_hub_dataset_say_their_task(tmp_path: Path) -> None:
    kinds = {
        "label": datasets.List(datasets.ClassLabel(names=["sad", "glad", "mad"])),
        "score": datasets.Value("float32"),
        "tags": datasets.List(datasets.Value("string")),
        "one": datasets.ClassLabel(names=["no", "yes"]),
        "exact": datasets.Value("decimal128(3, 1)"),
    }
    columns = {
        "text": [f"text {row}" for row in range(30)],
        "label": [[[2, 1], [0], []][row % 3] for row in range(30)],
        "score": [float(row % 4) for row in range(30)],
        "tags": [[["b"], ["a", "b"], []][row % 3] for row in range(30)],
        "one": [row % 2 for row in range(30)],
        "exact": [Decimal(row % 3) + Decimal("0.5") for row in range(30)],
    }
    table = datasets.Dataset.from_dict(columns, features=datasets.Features({"text": datasets.Value("string"), **kinds}))
    (tmp_path / "rows").mkdir()
    table.to_parquet(tmp_path / "rows" / "train.parquet")
    fields: dict[str, Any] = {"teacher": "bert", "teacher_epochs": 1}
    found = {}
    for source in ({"dataset": str(tmp_path / "rows")}, {"train_file": str(tmp_path / "rows" / "train.parquet")}):
        for column in kinds:
            data = load_data(TrialConfig(**{**fields, **source, "label_column": column}))
            found[next(iter(source)), column] = (data.task, data.label_names)
        data = load_data(TrialConfig(**{**fields, **source}))
        assert by_text(data, 3) == [[0, 1, 1], [1, 0, 0], [0, 0, 0]]
    exact = TrialConfig(**fields, train_file=str(tmp_path / "rows" / "train.parquet"), label_column="exact")
    assert load_data(exact).task == "regression" and set(load_data(exact).train.labels.tolist()) == {0.5, 1.5, 2.5}
    for source in ("dataset", "train_file"):
        assert found[source, "label"] == ("multi_label", ("sad", "glad", "mad"))
        assert found[source, "tags"] == ("multi_label", ("a", "b"))
        assert found[source, "one"] == ("single_label", ("no", "yes"))
    assert found["dataset", "score"] == ("regression", ("score",))
    assert found["train_file", "score"] == ("single_label", ("0", "1", "2", "3")), "whole numbers of a file, as before"
    with pytest.raises(DataError, match=r"those in one stand for the classes \['no', 'yes'\]"):
        load_data(TrialConfig(**fields, dataset=str(tmp_path / "rows"), label_column="one", task="regression"))


@pytest.mark.parametrize(
    ("labels", "changes", "message"),
    [
        (
            [["a"], "b", ["c"]],
            {},
            r"all lists or none, but 27 are \(lines 1, 3, 4, 6, 7 and 22 more\) and 13 are not .*'b'\); write one label as",
        ),
        ([1.5, 2.5, "n/a"], {}, r"must be of one kind, but 27 are numbers .* and 13 are words .*'n/a'\); mend these"),
        (
            [["a", "b"], ["b"]],
            {"task": "single_label"},
            r"one class a row, but got a multi-label row: .*\['a', 'b'\]; lists of labels are task: multi",
        ),
        (
            ["a", "b"],
            {"task": "multi_label"},
            r"wants a list of labels in label, or label_columns of 0 and 1 .*40 of 40 rows .* such as 'a'",
        ),
        (
            [["a"], ["b"]],
            {"task": "regression"},
            r"a number a row in label \(lists of labels are task: multi_label\).* such as \['a'\]",
        ),
        (
            [1.5, "good", 2],
            {"task": "regression"},
            r"wants a number in label .* 13 of 40 rows .*\(lines 2, 5, .* such as 'good'",
        ),
        ([1.5, True], {"task": "regression"}, "such as True"),
        ([1.5, 2, None], {}, r"must have a label, but 13 have none \(lines 3,"),
        ([1.5, "inf"], {"task": "regression"}, "must be finite, and 1e\\+18 in size at most .*, but 20 of 40"),
        ([1.5, 2e18], {"task": "regression"}, "but 20 of 40"),
        (["['a', 'b']", "[]"], {}, r"all are lists that are written as texts, such as .* label_columns.* label_names"),
        (
            ["['a']"],
            {"task": "multi_label"},
            r"and these are texts \(json lines and parquet hold lists; a csv has label_",
        ),
        (
            [[0, 1, 1], [0, 0, 0]],
            {},
            r"are vectors of 3 zeros and ones, such as \[0, 1, 1\]; write the names .*label_columns",
        ),
        ([{"label": {"a": 1}}], {}, r"one class a row in label, but a text or a number is wanted, but got \{'a': 1\}$"),
        (["1,234.5", "2.5"], {}, r"numbers with commas, such as '1,234.5'"),
        (["1_5", "2"], {"task": "regression"}, "such as '1_5'"),
        (["1,5", "2"], {}, r"numbers with commas, such as '1,5'; a number to predict .* several labels are a list"),
        (["1,5", "2,7"], {"task": "single_label"}, "numbers with commas"),
        (
            [1.5, 2.5],
            {"teacher_folds": 99},
            r"teacher_folds <= training texts must hold, but got 99 and 36 texts; lower",
        ),
        ([["a"], ["b"]], {"teacher_folds": 99}, r"training texts of every label must hold, but got 99 and 18 of 'a'"),
        ([1.5, 1e39], {}, "must be finite"),
        ([3.5], {}, "must differ, but label is 3.5 in all 40 training rows; name another label_column"),
        ([-1.0], {"task": "regression"}, r"labels of 40 of 40 rows are hidden \(-1\).*name another split"),
        ([[-1]], {}, "hidden"),
        ([["a"], None, ["b"]], {}, r"must have a label, but 13 have none"),
        ([["a"], [" "]], {}, "every label of a list must be a text or a number, but 20 of 40"),
        ([["a"], [["b"]]], {}, r"in line 2 a text or a number is wanted, but got \['b'\]"),
        ([[], []], {}, "one label or more, but the lists of all 40 training rows are empty; name another label_column"),
        ([["a"]], {}, r"needs two labels or more, but the training rows hold \['a'\]"),
        (
            [["x"], []],
            {"label_names": ("a", "b")},
            r"one label or more of \['a', 'b'\], but those of all 40 training rows are empty",
        ),
        (
            [["a"], ["b"]],
            {"label_names": ("a", "c")},
            r"every label must have training rows, but none .*\['c'\].* the labels to keep: label_names",
        ),
        (
            [{"a": 1, "b": 0}, {"a": 0, "b": 2}],
            {},
            r"hold 0 and 1 \(or true and false\), so must b, but 20 of 40 rows .*\(lines 2, .* such as 2",
        ),
        ([{"a": 1, "b": 0}, {"a": 0, "b": None}], {}, "column b: every row must have a label, but 20 have none"),
        ([{"a": 1, "b": ["x"]}], {}, r"such as \['x'\]"),
        ([{"a": -1, "b": -1}], {}, "hidden"),
        ([{"a": 1, "b": 0}], {}, r"none of the 36 that are left is of \['b'\].* label_columns"),
        ([{"a": 0, "b": 0}], {}, r"one label or more of \['a', 'b'\], but those of all 40"),
    ],
)
def test_labels_that_do_not_go_with_their_task_are_refused(
    load: Load, labels: list[Any], changes: dict[str, Any], message: str
) -> None:
    columns = {"label_columns": ("a", "b")} if isinstance(labels[0], dict) and "a" in labels[0] else {}
    with pytest.raises(DataError, match=message):
        data = load(labels, **columns, **changes)
        fold_of_rows(data, TrialConfig(train_file="rows.csv", teacher="bert", teacher_epochs=1, **changes))


def test_a_label_or_a_number_is_held_against_that_of_the_training_rows(
    load: Load, write_rows: Callable[..., Path]
) -> None:
    def other(label: Any) -> str:
        return str(write_rows("other.jsonl", [{"text": f"other {row}", "label": label} for row in range(9)]))

    with pytest.raises(
        DataError, match=r"every label of the validation rows must occur in training .* but got \['grief'\]"
    ):
        load(LISTS, validation_file=other(["grief"]))
    with pytest.raises(DataError, match=r"those of all 9 test rows that are left are empty"):
        load(LISTS, test_file=other([]))
    with pytest.raises(DataError, match=r"must differ, but label is 2.5 in all 9 test rows"):
        load([1.5, 2, 3], test_file=other(2.5))
    written = ["['a']", "['b']"]
    assert load(["1,2", "1", "3,4"], label_names=("1,2", "3,4")).label_names == ("1,2", "3,4")
    assert load(written, label_names=tuple(written)).task == "single_label"
    with pytest.raises(DataError, match=r"other.jsonl: task: multi_label wants a list"):
        load(LISTS, test_file=other("joy"))
    with pytest.raises(DataError, match=r"other.jsonl: task: regression wants a number"):
        load([1.5, 2.5], test_file=other("joy"))
    with pytest.raises(DataError, match=r"other.jsonl: the labels of 9 of 9 rows are hidden"):
        load([1.5, 2.5], test_file=other(-1.0))
    with pytest.raises(DataError, match="is 2 in all 9 validation rows that are left"):
        load([1.5, 2.5], validation_file=other(2))
    with pytest.raises(DataError, match="those of all 9 validation rows that are left are empty"):
        load(LISTS, validation_file=other([]))


def test_texts_with_two_sets_of_labels_or_numbers_are_counted(load: Load) -> None:
    rows = [
        {"text": f"text {row % 4}", "label": [["a"], ["b"], ["a"], ["b"], ["a"], ["a", "b"]][row % 6]}
        for row in range(10)
    ]
    assert load(rows[:4] + rows[4:6] + [{"label": ["a"]}], rows=7).conflicting_texts == 1, "text 1, of b and of a and b"
    numbers = [{"text": "same", "label": 1.5}, {"text": "same", "label": 2.5}, {"label": 3.5}, {"label": 1.0}]
    assert (
        load([*numbers, *({"label": row} for row in range(9))], rows=13, validation_fraction=0.5).conflicting_texts == 1
    )


def rare_labels(rows: int) -> np.ndarray:
    """0/1 [N, 3]: of a hundred rows 50 have the first label, 20 the second, 4 the third, mixed."""
    place = np.arange(rows)
    return np.stack([place % 2 == 0, place % 5 == 0, place % 25 == 0], axis=1).astype(np.uint8)


def test_cuts_limits_and_folds_hold_rare_labels_and_all_numbers_in_their_shares(load: Load) -> None:
    names = ("often", "seldom", "rare")
    lists = [[name for name, there in zip(names, row, strict=True) if there] for row in rare_labels(100).tolist()]
    data = load(lists, rows=400, validation_fraction=0.25, test_fraction=0.25, label_names=names)
    assert data.test is not None
    shares = [split.labels.sum(axis=0).tolist() for split in (data.train, data.validation, data.test)]
    assert [share[2] for share in shares] == [8, 4, 4] and [share[1] for share in shares] == [40, 20, 20]
    assert all(abs(share[0] - half) <= 2 for share, half in zip(shares, (100, 50, 50), strict=True))
    config = TrialConfig(train_file="x", teacher="bert", teacher_epochs=1, teacher_folds=4)
    folds = fold_of_rows(data, config)
    assert [int(data.train.labels[folds == fold, 2].sum()) for fold in range(4)] == [2, 2, 2, 2]
    small, large = (load(lists, rows=400, train_limit=limit, label_names=names) for limit in (50, 100))
    assert set(small.train.texts) < set(large.train.texts) and small.train.labels[:, 2].sum() == 2
    with pytest.raises(DataError, match=r"every label must hold, but got 9 and 8 of 'rare'"):
        fold_of_rows(data, TrialConfig(train_file="x", teacher="bert", teacher_epochs=1, teacher_folds=9))

    numbers = load(
        [{"text": f"text {row}", "label": row / 8} for row in range(400)], rows=400, validation_fraction=0.25
    )
    tenths = np.bincount((numbers.validation.labels // 5).astype(int))
    assert tenths.tolist() == [10] * 10, "of every tenth of the numbers"
    spread = [numbers.train.labels[fold_of_rows(numbers, config) == fold].mean() for fold in range(4)]
    assert max(spread) - min(spread) < 1.5
    again = load([{"text": f"text {row}", "label": row / 8} for row in range(400)], rows=400, validation_fraction=0.25)
    assert again.sha256() == numbers.sha256()


def test_strata_are_classes_rarest_labels_and_bins() -> None:
    classes = np.array([2, 0, 1])
    assert strata(classes) is classes
    labels = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1], [1, 0, 0]], dtype=np.uint8)
    assert strata(labels).tolist() == [1, 0, 3, 2, 0]
    assert np.bincount(strata(np.linspace(0, 1, 100, dtype=np.float32))).tolist() == [10] * 10
    assert len(set(strata(np.array([0.0, 0.0, 0.0, 1.0], dtype=np.float32)).tolist())) == 2


def test_json_and_csv_of_the_same_columns_give_the_same_rows(load: Load, tmp_path: Path) -> None:
    content = [{"a": 1, "b": 0}, {"a": 0, "b": 1}]
    assert load(content, "csv", label_columns=("a", "b")).sha256() == load(content, label_columns=("a", "b")).sha256()
    assert json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[0])["a"] == 1
