"""One split as it is read: which labels are classes, and which texts are empty."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from kdsweep.config.trial import TrialConfig
from kdsweep.errors import DataError
from kdsweep.training.data.labels import in_order, listed
from kdsweep.training.data.splits import load_data

Config = Callable[..., TrialConfig]
Write = Callable[..., Path]


@pytest.fixture
def classes(write_rows: Write, tiny_config: Config) -> Callable[..., tuple[str, ...]]:
    """The classes of a file whose rows have these labels, each ten times."""

    def of(labels: list[Any], suffix: str = "csv", **changes: Any) -> tuple[str, ...]:
        rows = [(f"text {turn} of {place}", label) for turn in range(10) for place, label in enumerate(labels)]
        return load_data(tiny_config(train_file=str(write_rows(f"rows.{suffix}", rows)), **changes)).label_names

    return of


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["01", "1", "2"], ("01", "1", "2")),
        (["00", "01"], ("00", "01")),
        (["true", "false"], ("false", "true")),
        (["1E5", "2E7", "1e-3"], None),
        (["1E5", "2E7", "3A1"], ("1E5", "2E7", "3A1")),
        (["1E5", "2E7"], ("1E5", "2E7")),
        (["0.0", "1.0"], ("0", "1")),
        (["1.0", "2"], ("1", "2")),
        (["0", "0.0", "1", "1.0"], ("0", "1")),
        (["v1.5", "v2.5"], ("v1.5", "v2.5")),
        (["0.5", "1.5", "2"], None),
        (["0.5", "1.5", "v2"], ("0.5", "1.5", "v2")),
        (["¹", "²", "³"], ("²", "³", "¹")),
        (["--0", "0"], ("--0", "0")),
        (["-1", "0", "1"], ("-1", "0", "1")),
    ],
)
def test_labels_of_a_csv_are_classes_as_they_stand_unless_they_are_measurements(
    labels: list[str], expected: tuple[str, ...] | None, classes: Callable[..., tuple[str, ...]]
) -> None:
    if expected is None:
        with pytest.raises(DataError, match="to predict are task: regression. If these numbers are classes, name them"):
            classes(labels, task="single_label")
        assert classes(labels) == ("label",), "numbers to predict"
    else:
        assert classes(labels) == expected


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0.0, 1.0], ("0", "1")),
        ([-1, 0, 1], ("-1", "0", "1")),
        ([True, False], ("false", "true")),
        ([2, "b", "10"], ("10", "2", "b")),
    ],
)
def test_labels_of_json_are_classes_by_their_shortest_text(
    labels: list[Any], expected: tuple[str, ...], classes: Callable[..., tuple[str, ...]]
) -> None:
    assert classes(labels, "jsonl") == expected


def test_numbers_with_a_fraction_are_classes_where_the_user_names_them(
    classes: Callable[..., tuple[str, ...]],
) -> None:
    assert classes(["0.5", "1.5", "2"], label_names=("1.5", "0.5")) == ("1.5", "0.5")
    assert classes(["0.0", "1.0"], label_names=("1.0", "0.0")) == ("1.0", "0.0")
    with pytest.raises(DataError, match="got 0.5; numbers to predict are task: regression"):
        classes([0.5, 2], "jsonl", label_names=("a", "b"))


def test_a_split_whose_only_label_is_minus_one_is_hidden(write_rows: Write, tiny_config: Config) -> None:
    train = write_rows("train.csv", [(f"t {n}", n % 3 - 1) for n in range(30)])
    test = write_rows("test.csv", [(f"new {n}", -1) for n in range(3)])
    with pytest.raises(DataError, match=r"test.csv: the labels of 3 of 3 rows are hidden \(-1\).*another split"):
        load_data(tiny_config(train_file=str(train), test_file=str(test)))


def test_minus_one_beside_declared_classes_is_hidden_unless_the_user_names_classes(
    tmp_path: Path, tiny_config: Config
) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["a", "b"])})
    columns = {"text": [f"t {n}" for n in range(31)], "label": [n % 2 for n in range(30)] + [-1]}
    path = tmp_path / "rows.parquet"
    datasets.Dataset.from_dict(columns, features=features).to_parquet(path)
    with pytest.raises(DataError, match="1 of 31 rows are hidden .*label_names"):
        load_data(tiny_config(train_file=str(path)))
    data = load_data(tiny_config(train_file=str(path), label_names=("b", "a")))
    assert data.label_names == ("b", "a") and len(data.train) + len(data.validation) == 30


def test_numbers_that_the_declared_classes_do_not_know_are_refused(tmp_path: Path, tiny_config: Config) -> None:
    path = tmp_path / "rows.parquet"
    declared = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["a", "b"])})
    table = pyarrow.table({"text": ["x", "y", "z"], "label": [0, 1, -2]})
    pyarrow.parquet.write_table(table.replace_schema_metadata(declared.arrow_schema.metadata), path)
    with pytest.raises(DataError, match=r"numbers of the classes \['a', 'b'\], but got \['-2'\]"):
        load_data(tiny_config(train_file=str(path)))


@pytest.mark.parametrize("spelled", ["\t", r"\t"])
def test_a_config_says_how_a_file_is_written(spelled: str, tiny_config: Config, tmp_path: Path) -> None:
    lines = [f"größe {n}\t{'ab'[n % 2]}\n" for n in range(20)]
    (tmp_path / "rows.csv").write_text("text\tlabel\n" + "".join(lines), encoding="latin-1")
    path = str(tmp_path / "rows.csv")
    data = load_data(tiny_config(train_file=path, csv_delimiter=spelled, encoding="latin-1"))
    assert data.label_names == ("a", "b") and all(text.startswith("größe ") for text in data.train.texts)
    with pytest.raises(DataError, match="line 2 holds 0xf6 .* such as encoding: cp1252"):
        load_data(tiny_config(train_file=path, csv_delimiter=spelled))


def test_missing_labels_are_counted_with_their_lines(write_rows: Write, tiny_config: Config) -> None:
    path = write_rows("rows.csv", [("a", "x"), ("b", ""), ("c", "y"), ("d", " ")])
    with pytest.raises(DataError, match=r"every row must have a label, but 2 have none \(lines 3, 5\)"):
        load_data(tiny_config(train_file=str(path)))


def test_numbers_in_the_text_column_are_texts(write_rows: Write, tiny_config: Config) -> None:
    rows = [{"text": value, "label": "ab"[n % 2]} for n, value in enumerate([7, 2.5, 3.0, True, "x", "y", 8, 9])]
    for name in ("rows.csv", "rows.jsonl"):
        data = load_data(tiny_config(train_file=str(write_rows(name, rows))))
        assert {*data.train.texts, *data.validation.texts} >= {"7", "2.5", "x"}


def test_empty_texts_of_all_splits_are_counted_at_once_and_left_out_on_demand(
    write_rows: Write, tiny_config: Config
) -> None:
    full = [(f"t {n}", "ab"[n % 2]) for n in range(20)]
    train = str(write_rows("train.csv", [*full, ("", "a"), (" \t", "b"), ("", "plot")]))
    test = str(write_rows("test.jsonl", [("new", "a"), (None, "b"), *(("", "a") for _ in range(9))]))
    fields = {"train_file": train, "test_file": test, "label_names": ("a", "b")}
    with pytest.raises(DataError) as error:
        load_data(tiny_config(**fields))
    told = str(error.value)
    assert "train.csv has 2 rows with an empty one (lines 22, 23)" in told
    assert "test.jsonl has 10 rows with an empty one (lines 2, 3, 4, 5, 6 and 5 more)" in told
    assert told.endswith("drop_empty_texts: true leaves such rows out")
    data = load_data(tiny_config(**fields, drop_empty_texts=True))
    assert data.empty_texts_dropped == 12 and data.test is not None and data.test.texts == ("new",)
    assert len(data.train) + len(data.validation) == 20


def test_a_row_with_either_text_of_its_pair_empty_is_left_out(write_rows: Write, tiny_config: Config) -> None:
    rows = [{"text": f"t {n}", "b": f"h {n}", "label": "xy"[n % 2]} for n in range(20)]
    rows += [{"text": "", "b": "h", "label": "x"}, {"text": "t", "b": " ", "label": "y"}]
    fields = {"train_file": str(write_rows("rows.csv", rows)), "text_pair_column": "b", "drop_empty_texts": True}
    data = load_data(tiny_config(**fields))
    assert data.empty_texts_dropped == 2 and len(data.train) + len(data.validation) == 20


def test_a_row_without_text_and_label_is_left_out_with_the_empty_texts(tmp_path: Path, tiny_config: Config) -> None:
    rows = "".join(f"text {turn},{turn % 2}\n" for turn in range(20))
    path = tmp_path / "sheet.csv"
    path.write_text(f"text,label\n{rows},\n ,\n,1\n", encoding="utf-8")  # a spreadsheet's rows behind its last
    with pytest.raises(DataError, match=r"2 have none \(lines 22, 23\)"):
        load_data(tiny_config(train_file=str(path)))
    assert load_data(tiny_config(train_file=str(path), drop_empty_texts=True)).empty_texts_dropped == 3
    path.write_text(f"text,label\n{rows},\nunlabelled,\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"1 have none \(line 23\)"):
        load_data(tiny_config(train_file=str(path), drop_empty_texts=True))


def test_named_whole_numbers_are_found_however_a_file_spells_them(write_rows: Write, tiny_config: Config) -> None:
    def rows(*labels: str) -> list[tuple[str, str]]:
        return [(f"{len(labels)}, {label}, {turn}", label) for turn in range(10) for label in labels]

    fields = {"train_file": str(write_rows("train.csv", rows("0", "1")))}
    fields["validation_file"] = str(write_rows("validation.csv", rows("0", "0.0", "1.0")))
    for names in (("0", "1"), ("1.0", "0.0")):
        data = load_data(tiny_config(**fields, label_names=names))
        assert data.label_names == names and len(data.validation) == 30
    told_apart = tiny_config(train_file=fields["validation_file"], label_names=("0", "0.0"))
    assert load_data(told_apart).label_names == ("0", "0.0")


def test_a_file_of_nothing_but_empty_texts_is_refused(write_rows: Write, tiny_config: Config) -> None:
    path = write_rows("rows.csv", [("", "a"), (" ", "b")])
    with pytest.raises(DataError, match="all of its 2 rows have an empty one"):
        load_data(tiny_config(train_file=str(path), drop_empty_texts=True))


def test_classes_that_are_the_same_number_come_in_one_order_in_every_process() -> None:
    assert in_order({"1", "01", "001", "0"}) == ("0", "001", "01", "1")


def test_many_classes_are_named_by_the_first_ten() -> None:
    assert listed([str(n) for n in range(150)]) == f"{[str(n) for n in range(10)]}"[:-1] + ", … and 140 more]"


def test_files_are_read_without_importing_datasets(write_rows: Write) -> None:
    path = write_rows("rows.csv", [(f"t {n}", "ab"[n % 2]) for n in range(20)])
    asked = (
        "import sys; from kdsweep.config.trial import TrialConfig; from kdsweep.training.data.splits import load_data\n"
        f"load_data(TrialConfig(train_file={str(path)!r}, teacher='bert', teacher_epochs=1))\n"
        "print({'datasets', 'pandas', 'pyarrow', 'torch'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
