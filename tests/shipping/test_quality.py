"""What a form is worth: numbers beside the float32 student's, rows that depend on their batch, and why."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from exports import quality, speeds

from kdsweep.shipping.int8 import CANDIDATES, Candidate, keep_file, kept_int8
from kdsweep.shipping.quality import Answers, answers, batch_cause, form_quality, near_answers
from kdsweep.shipping.same_answer import SameAnswer, same_answer


def by_neighbours(rows: np.ndarray) -> np.ndarray:
    """Row 40 alone is of class 1; of class 0 where a row below 40 is in its batch."""
    logits = np.zeros((len(rows), 2))
    logits[:, 1] = np.where(rows == 40, 1.0, -1.0)
    return logits - [[0, 5]] if rows.min() < 40 else logits


def by_size(rows: np.ndarray) -> np.ndarray:
    """Every row is of class 1 alone, and of class 0 in company."""
    return np.tile([0.0, 1.0 if len(rows) == 1 else -1.0], (len(rows), 1))


def test_rows_are_answered_alone_and_in_batches_of_their_order() -> None:
    sizes: list[int] = []

    def classify(rows: np.ndarray) -> np.ndarray:
        sizes.append(len(rows))
        return np.stack([rows, np.full(len(rows), 50)], axis=1).astype(float)

    done: list[int] = []
    found = answers(classify, 70, done.append)
    assert sizes == [*[1] * 32, 32, *[1] * 32, 32, *[1] * 6, 6] and done == [32, 64, 70]
    assert found.alone[:, 0].tolist() == list(range(70)) and found.in_batches.tolist() == [1] * 50 + [0] * 20
    assert len(found.dependent()) == 0 and batch_cause(classify, found, dynamic=True) is None
    assert found.alike(np.eye(2)[[1] * 35 + [0] * 35]) == 55 / 70
    assert Answers(alone=np.eye(2)[[0, 0]], in_batches=np.array([0, 1])).alike(np.eye(2)[[0, 0]]) == 0.5


@pytest.mark.parametrize(
    ("classify", "dynamic", "said"),
    [
        (by_neighbours, True, "one scale for all activations of a batch.*32 copies of themselves 1 of 1 such rows"),
        (by_size, False, "another order in a batch.*32 copies of themselves 0 of 64 such rows"),
    ],
)
def test_why_rows_depend_on_their_batch_is_found_by_copies(
    classify: Callable[[np.ndarray], np.ndarray], dynamic: bool, said: str
) -> None:
    found = answers(classify, 96, lambda _: None)
    found = Answers(alone=found.alone, in_batches=found.in_batches)
    cause = batch_cause(classify, found, dynamic=dynamic)
    assert cause is not None
    assert re.search(said, cause), cause


def test_a_model_that_reads_padding_is_told_from_rounding() -> None:
    found = answers(by_neighbours, 96, lambda _: None)
    cause = batch_cause(by_neighbours, found, dynamic=False, float32=True)
    assert cause is not None and "reads the padding of a batch" in cause and "(logits move by up to 5)" in cause
    assert "Sums are taken" in (batch_cause(by_neighbours, found, dynamic=False) or ""), (
        "a static scale rounds in steps"
    )

    def by_rounding(rows: np.ndarray) -> np.ndarray:
        return np.tile([0.0, 1e-7 if len(rows) == 1 else -1e-7], (len(rows), 1))

    found = answers(by_rounding, 40, lambda _: None)
    assert "Sums are taken" in (batch_cause(by_rounding, found, dynamic=False, float32=True) or "")


def test_a_float32_form_answers_alone_where_rounding_can_count() -> None:
    reference = np.zeros((40, 2))
    reference[:, 1] = np.where(np.arange(40) < 3, 1e-4, 5.0)
    alone: list[int] = []

    def classify(rows: np.ndarray) -> np.ndarray:
        if len(rows) == 1:
            alone.append(int(rows[0]))
            return np.array([[0.0, -1.0]]) if rows[0] == 1 else reference[rows]
        return reference[rows] + 1e-6

    found = near_answers(classify, reference, lambda _: None)
    assert alone == [0, 1, 2] and found.dependent().tolist() == [1]


def test_a_forms_numbers_stand_beside_the_float32_students() -> None:
    labels = np.array([0, 1] * 500)
    reference = np.eye(2)[labels] * 2
    reference[:100] = reference[:100, ::-1]
    logits = reference.copy()
    logits[:4] = reference[:4, ::-1] + 0.5
    mine = form_quality(logits, reference, labels, batch_dependent=3, margin=0.01)
    assert (mine.rows, mine.accuracy, mine.agreement, mine.batch_dependent) == (1000, 0.904, 0.996, 3)
    assert mine.largest_logit_difference == 2.5 and mine.difference == pytest.approx(0.004)
    assert mine.word == "no worse" and mine.low is not None and -0.01 < mine.low < 0.004
    itself = form_quality(reference, reference, labels, batch_dependent=0, margin=None)
    assert (itself.accuracy, itself.difference, itself.low, itself.high, itself.word) == (0.9, None, None, None, None)


def test_several_labels_are_judged_by_the_f1_of_a_row() -> None:
    labels = np.tile(np.array([[1, 0, 1], [0, 1, 0]], np.uint8), (500, 1))
    reference = np.where(labels == 1, 2.0, -2.0)
    logits = reference.copy()
    logits[:10, 0] *= -1
    mine = form_quality(logits, reference, labels, batch_dependent=1, margin=0.05, task="multi_label")
    lost = (5 * (1 - 2 / 3) + 5 * (1 - 2 / 3)) / 1000  # one label of two missed, one too many beside a right one
    assert mine.example_f1 == pytest.approx(1 - lost) and mine.difference == pytest.approx(-lost)
    assert (mine.accuracy, mine.agreement, mine.word) == (0.99, pytest.approx(1 - 10 / 3000), "no worse")
    assert mine.micro_f1 is not None and mine.map is not None and mine.r2 is mine.pearson is None
    assert mine.low is not None and mine.high is not None and mine.low < -lost < mine.high
    assert form_quality(logits, reference, labels, batch_dependent=1, margin=1e-4, task="multi_label").word == "worse"


def test_numbers_are_judged_by_the_share_of_variance_that_is_lost() -> None:
    rng = np.random.default_rng(0)
    labels = rng.normal(3, 2, 2000).astype(np.float32)
    reference = (labels + rng.normal(0, 1, 2000))[:, None].astype(np.float32)
    logits = reference + rng.normal(0, 0.02, (2000, 1)).astype(np.float32)
    mine = form_quality(logits, reference, labels, batch_dependent=0, margin=0.005, task="regression")
    itself = form_quality(reference, reference, labels, batch_dependent=0, margin=None, task="regression")
    assert mine.r2 is not None and itself.r2 is not None and itself.r2 == pytest.approx(0.75, abs=0.02)
    assert mine.difference == pytest.approx(mine.r2 - itself.r2) and mine.word == "no worse"
    assert mine.accuracy is mine.agreement is mine.ece is None and itself.word is None
    worse = form_quality(reference + 1, reference, labels, batch_dependent=0, margin=0.005, task="regression")
    assert worse.word == "worse" and worse.pearson == pytest.approx(itself.pearson)
    constant = form_quality(logits, reference, np.ones_like(labels), batch_dependent=0, margin=0.1, task="regression")
    assert (constant.r2, constant.word) == (None, None), "R² has no meaning"


def test_a_row_of_each_task_depends_on_its_batch_where_its_answer_does() -> None:
    def classify(rows: np.ndarray) -> np.ndarray:
        moved = np.where((rows == 3) & (len(rows) > 1), 0.3, 0.0) + np.where(rows == 5, 0.01 * (len(rows) > 1), 0.0)
        return np.stack([rows * 0.1 - 0.41 + moved, np.ones(len(rows))], axis=1)

    decided = answers(classify, 40, lambda _: None, SameAnswer(task="multi_label"))
    assert decided.dependent().tolist() == [3]
    assert decided.alike(classify(np.arange(40))) == 39 / 40
    cause = batch_cause(classify, decided, dynamic=False)
    assert cause is not None and "where a label's probability is all but 0.5: among 32 copies" in cause
    assert "0 of 1 such rows have the labels that they have alone" in cause
    numbers = answers(classify, 40, lambda _: None, same_answer("regression", 2 * np.arange(-1.0, 2.0)))
    assert numbers.dependent().tolist() == [3], "0.01 is within a hundredth of 1.63"
    gaps = -np.sqrt((0.3**2 + 0.01**2) / 80) / np.sqrt(8 / 3)
    assert numbers.alike(numbers.alone) == pytest.approx(gaps)
    cause = batch_cause(classify, numbers, dynamic=True)
    assert cause is not None and "0 of 1 such rows have the number that they have alone" in cause


def test_a_float32_form_answers_alone_where_rounding_can_cross_a_half() -> None:
    reference, alone = np.array([[5.0, -5.0], [1e-4, 5.0], [-4.0, 3.0]]), []

    def classify(rows: np.ndarray) -> np.ndarray:
        alone.extend(rows.tolist() if len(rows) == 1 else [])
        return reference[rows] + (1e-6 if len(rows) > 1 else -2e-4)

    found = near_answers(classify, reference, lambda _: None, SameAnswer(task="multi_label"))
    assert alone == [1] and found.dependent().tolist() == [1]
    alone.clear()
    numbers = lambda rows: classify(rows)[:, :1]
    near = near_answers(numbers, reference[:, :1], lambda _: None, SameAnswer(task="regression", spread=2.0))
    assert alone == [] and near.dependent().tolist() == [], "rounding is far below a hundredth of the spread"


def candidate(how: str, alike: float, agreement: float) -> Candidate:
    facts = quality(0.87, agreement=agreement)
    return Candidate(how=how, words=f"{how} per channel", alike=alike, validation=facts, speed=speeds(2.0))


def test_the_quantised_model_that_answers_more_rows_alike_is_kept() -> None:
    dynamic, static = candidate("dynamic", 0.97, 0.99), candidate("static", 0.98, 0.98)
    best, lost = kept_int8([dynamic, static])
    assert best == static and lost == [
        "int8, dynamic per channel: 97.00% of the validation rows have the float32 student's label both alone and in a batch (99.00% "
        "alone), accuracy 87.00%, 2.00 ms a row; kept was static per channel: 98.00% of the validation rows have the float32 student's "
        "label both alone and in a batch (98.00% alone), accuracy 87.00%, 2.00 ms a row"
    ]
    even = candidate("dynamic", 0.98, 0.99)
    assert kept_int8([static, even])[0] == even, "more rows alone"
    assert kept_int8([dynamic]) == (dynamic, []) and kept_int8([]) == (None, [])


def test_the_int8_model_of_numbers_nearest_to_the_float32_students_is_kept() -> None:
    near, far = (
        Candidate(
            how=how,
            words=how,
            alike=-gap,
            validation=quality(None, agreement=None, r2=0.75),
            speed=speeds(2.0),
            task="regression",
        )
        for how, gap in (("static", 0.01), ("dynamic", 0.03))
    )
    best, lost = kept_int8([far, near])
    assert best == near and "in a batch, are 0.0300 standard deviations of the labels from" in lost[0]
    assert "R² 0.7500" in lost[0]
    labels = Candidate(
        how="static",
        words="static",
        alike=0.9,
        validation=quality(0.5, agreement=0.99, example_f1=0.6),
        speed=speeds(2.0),
        task="multi_label",
    )
    assert "90.00% of the validation rows have the float32 student's labels both alone" in labels.described()
    assert "(99.00% of single decisions alone), example F1 60.00%" in labels.described()


def test_the_kept_model_gets_the_forms_name_and_the_other_goes(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    for how, file in CANDIDATES.items():
        (tmp_path / file).write_text(how, "utf-8")
    keep_file(tmp_path, candidate("static", 0.9, 0.9), CANDIDATES, "onnx/model_int8.onnx")
    assert [path.name for path in (tmp_path / "onnx").iterdir()] == ["model_int8.onnx"]
    assert (tmp_path / "onnx" / "model_int8.onnx").read_text("utf-8") == "static"
