"""A teacher that is a file: its columns, its numbers, and which row gets them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdsweep.config.trial import TrialConfig
from kdsweep.errors import DataError
from kdsweep.training.data.splits import Split
from kdsweep.training.teacher_file import EPSILON, TeacherFile, read_teacher_file

Write = Callable[..., Path]
NAMES = ("no", "yes")


def config_of(path: Path, **changes: Any) -> TrialConfig:
    fields = {"train_file": "rows.csv", "teacher_file": str(path), "student": "distilbert", **changes}
    return TrialConfig(**fields)


def read(path: Path, names: tuple[str, ...] = NAMES, **changes: Any) -> TeacherFile:
    return read_teacher_file(config_of(path, **changes), names)


def split_of(*texts: str, pairs: tuple[str, ...] | None = None, ids: tuple[str, ...] | None = None) -> Split:
    return Split(texts=texts, pairs=pairs, labels=np.zeros(len(texts), dtype=np.int64), ids=ids)


def line(text: str, no: Any, yes: Any, **more: Any) -> dict[str, Any]:
    return {"text": text, "prob_no": no, "prob_yes": yes, **more}


@pytest.mark.parametrize("name", ["n.csv", "n.tsv", "n.jsonl"])
def test_probabilities_become_logits_and_rows_get_them_by_their_text(name: str, write_rows: Write) -> None:
    path = write_rows(name, [line("a b", 0.25, 0.75, other=1), line("c", "", ""), line("d", 1.0, 0.0)])
    found = read(path).outputs(split_of("d", "c", "a b", "unheard of"))
    assert found.taught.tolist() == [True, False, True, False]
    wanted = np.log(np.array([[1.0, 0.0], [0.25, 0.75]]) + EPSILON)
    np.testing.assert_allclose(found.logits[[0, 2]], wanted, rtol=1e-6, atol=1e-6)
    assert not found.logits[[1, 3]].any()


def test_the_order_of_the_columns_is_that_of_the_classes_and_logits_stay_as_they_are(write_rows: Write) -> None:
    path = write_rows("n.csv", [{"text": "a", "logit_yes": -3.5, "logit_no": 41.0}])
    assert read(path).outputs(split_of("a")).logits.tolist() == [[41.0, -3.5]]


def test_pairs_and_ids_join_too(write_rows: Write) -> None:
    rows = [line("a", 0.1, 0.9, also="x", id=1), line("a", 0.6, 0.4, also="y", id=2.0)]
    path = write_rows("n.jsonl", rows)
    by_pair = read(path, text_pair_column="also").outputs(split_of("a", "a", "y", pairs=("y", "z", "a")))
    assert by_pair.taught.tolist() == [True, False, False]
    by_id = read(path, id_column="id").outputs(split_of("b", "c", ids=("2", "1")))
    np.testing.assert_allclose(np.exp(by_id.logits), [[0.6, 0.4], [0.1, 0.9]], rtol=1e-6)


def test_rounded_numbers_are_divided_by_their_sum(write_rows: Write) -> None:
    names = tuple(f"c{number}" for number in range(60))
    row = {"text": "a", **{f"prob_{name}": 0.0 for name in names}, "prob_c0": 0.61, "prob_c1": 0.2}
    found = read(write_rows("n.jsonl", [row]), names)
    share = np.exp(found.outputs(split_of("a")).logits[0].astype(float))
    assert share[0] == pytest.approx(0.61 / 0.81) and share.sum() == pytest.approx(1)
    assert found.zeros == pytest.approx(58 / 60) and found.one_hot == 0


ROW = line("a", 0.25, 0.75)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a", "prob_no": 0.5}], r"of the classes are \['yes'\] missing"),
        ([ROW | {"prob_perhaps": 0.0}], r"\['perhaps'\] unknown"),
        ([{"text": "a", "prob_no": 0.5, "prob_Yes": 0.5}], "did you mean 'yes' by 'Yes'"),
        ([ROW | {"logit_no": 0.0}], "but has both, such as prob_no and logit_no"),
        ([{"text": "a", "label": "no"}], r"a column prob_CLASS of each class, .* but has only \['label'\]"),
        ([{"prob_no": 0.5, "prob_yes": 0.5}], "'text' is missing"),
        ([line("a", -0.25, 1.25)], "must not be negative, but 1 break this .*such as -0.25"),
        (
            [ROW, line("b", 25.0, 75.0)],
            r"must not be above 1 \(logits stand .*, but 1 break this \(line 3\), such as 75",
        ),
        ([line("a", 0.123456, 0.5)], "must add up to 1, within 0.01, but 1 break this .*such as 0.623456"),
        ([line("a", 0.0, 0.0)], "must add up to 1, within 0.01, but"),
        ([line("a", 0.5, "inf")], "a row's numbers must be finite"),
        ([ROW, line("b", 0.5, "")], r"or all of them left empty, but 1 break this \(line 3\)"),
        ([line("a", "", "")], "no row has any"),
        ([ROW, line("b", 0.5, "half")], "column prob_yes must hold numbers, but in line 3 'half'"),
        ([ROW, line("b", 0.5, 0.5), line("a", 0.75, 0.25)], r"'a' \(lines 2, 4\)"),
    ],
)
def test_bad_numbers_are_refused(rows: list[dict[str, Any]], message: str, write_rows: Write) -> None:
    with pytest.raises(DataError, match=message):
        read(write_rows("n.csv", rows))


@pytest.mark.parametrize("name", ["n.csv", "n.jsonl"])
def test_an_empty_file_is_refused_as_such(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(DataError, match="must hold the teacher's outputs, but is empty"):
        read(tmp_path / name)


def test_a_doubled_class_is_refused(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text("text,prob_no,prob_yes,prob_yes\na,0.5,0.5,0.5\n")
    with pytest.raises(DataError, match=r"\['yes'\] doubled"):
        read(tmp_path / "n.csv")


def test_ids_of_two_rows_or_of_none_are_refused_and_so_is_a_row_without(write_rows: Write) -> None:
    path = write_rows("n.csv", [ROW | {"id": "1"}, line("b", 0.5, 0.5, id="2")])
    found = read(path, id_column="id")
    with pytest.raises(DataError, match=r"must be that of one row, but 1 are of two or more: \['1'\]"):
        found.check_unique([split_of("a", ids=("1",)), split_of("b", "c", "d", ids=("1", "0", "0"))])
    found.check_ids({"1", "2", "3"})
    with pytest.raises(DataError, match=r"must be that of a row, but 1 of 2 are of none: \['2'\]"):
        found.check_ids({"1"})
    with pytest.raises(DataError, match="every row must have an id in id, but not so line 2"):
        read(write_rows("blank.csv", [ROW | {"id": ""}]), id_column="id")


def test_the_same_numbers_twice_are_one_and_the_hash_is_that_of_the_content(write_rows: Write) -> None:
    two = [ROW, line("b", 0.5, 0.5)]
    once, again = read(write_rows("n.csv", two)), read(write_rows("m.jsonl", [*reversed(two), ROW]))
    assert once.sha256 == again.sha256
    other = read(write_rows("o.csv", [ROW, line("b", 0.5, 0.4999999)]))
    assert other.sha256 != once.sha256


def test_a_training_file_can_be_the_teachers_and_its_rows_without_text_mean_none(write_rows: Write) -> None:
    rows = [ROW | {"label": "no"}, line("", 0.9, 0.1, label="no"), line(" ", 0.8, 0.2, label="yes")]
    assert len(read(write_rows("n.csv", rows)).places) == 1


def test_every_label_of_multi_label_has_a_probability_of_its_own(write_rows: Write) -> None:
    path = write_rows("n.csv", [line("a", 0.75, 0.9), line("b", 0.0, 1.0), line("c", 0.0, 0.0), line("d", "", "")])
    file = read_teacher_file(config_of(path), NAMES, "multi_label")
    found = file.outputs(split_of("a", "b", "c", "d"))
    assert found.taught.tolist() == [True, True, True, False]
    np.testing.assert_allclose(found.logits[0], np.log([3.0, 9.0]), rtol=1e-6)
    far = np.log(EPSILON)
    np.testing.assert_allclose(found.logits[1:3], [[far, -far], [far, far]], rtol=1e-5)
    assert (file.zeros, file.one_hot) == (0.5, pytest.approx(2 / 3))
    logits = write_rows("l.csv", [{"text": "a", "logit_no": -2, "logit_yes": 3}])
    assert read_teacher_file(config_of(logits), NAMES, "multi_label").logits.tolist() == [[-2, 3]]
    for wrong, rule in ((1.5, "must not be above 1"), (-0.5, "must not be negative")):
        with pytest.raises(DataError, match=rule):
            read_teacher_file(config_of(write_rows("w.csv", [line("a", wrong, 0.5)])), NAMES, "multi_label")


def test_a_regressions_output_is_one_column_of_numbers(write_rows: Write) -> None:
    path = write_rows("n.csv", [{"text": "a", "prediction": "3.25"}, {"text": "b", "prediction": ""}])
    file = read_teacher_file(config_of(path), ("score",), "regression")
    found = file.outputs(split_of("b", "a"))
    assert found.taught.tolist() == [False, True] and found.logits.tolist() == [[0.0], [3.25]]
    assert (file.kind, file.zeros, file.one_hot) == ("number", 0.0, 0.0)
    with pytest.raises(DataError, match="'prediction' is missing: it holds the teacher's number for each row"):
        read_teacher_file(config_of(write_rows("p.csv", [ROW])), ("score",), "regression")
    with pytest.raises(DataError, match="column prediction must hold numbers, but in line 2 'high'"):
        read_teacher_file(
            config_of(write_rows("w.csv", [{"text": "a", "prediction": "high"}])), ("score",), "regression"
        )
