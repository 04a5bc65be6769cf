"""Metrics against values worked out by hand."""

import math

import numpy as np
import pytest

from kdsweep.analysis import metrics
from kdsweep.errors import DataError

LABELS = np.array([0, 0, 0, 1, 1, 2])
PREDICTIONS = np.array([0, 0, 1, 1, 2, 2])


def logits_of(confidences: list[float]) -> np.ndarray:
    """Two-class logits that predict class 1 with these probabilities."""
    return np.array([[0.0, math.log(p / (1 - p))] for p in confidences])


def test_macro_f1_is_the_mean_of_the_classes() -> None:
    """F1: 4/5, 2/4, 2/3."""
    assert metrics.macro_f1(PREDICTIONS, LABELS, 3) == pytest.approx((0.8 + 0.5 + 2 / 3) / 3)


def test_a_class_that_nobody_names_is_left_out_of_macro_f1() -> None:
    assert metrics.macro_f1(PREDICTIONS, LABELS, 5) == metrics.macro_f1(PREDICTIONS, LABELS, 3)


def test_a_class_that_is_never_predicted_counts_as_zero() -> None:
    assert metrics.macro_f1(np.zeros(4, int), np.array([0, 0, 1, 1]), 2) == pytest.approx((2 / 3 + 0) / 2)


def test_matthews_of_three_classes() -> None:
    """4 of 6 right; labels 3, 2, 1; predictions 2, 2, 2: (24 - 12) / sqrt((36 - 12) (36 - 14))."""
    assert metrics.matthews(PREDICTIONS, LABELS, 3) == pytest.approx(12 / math.sqrt(24 * 22))


def test_matthews_of_two_classes_is_the_phi_coefficient() -> None:
    """TP 3, TN 2, FP 1, FN 2: (6 - 2) / sqrt(4 * 5 * 3 * 4)."""
    labels, predictions = np.array([1] * 5 + [0] * 3), np.array([1, 1, 1, 0, 0, 0, 0, 1])
    assert metrics.matthews(predictions, labels, 2) == pytest.approx(4 / math.sqrt(240))


def test_matthews_of_one_class_alone_is_0() -> None:
    assert metrics.matthews(np.zeros(3, int), np.array([0, 1, 1]), 2) == 0


def test_nll_is_the_mean_surprise_at_the_label() -> None:
    found = metrics.nll(logits_of([0.8, 0.6]), np.array([1, 0]))
    assert found == pytest.approx(-(math.log(0.8) + math.log(0.4)) / 2)


def test_nll_survives_logits_that_overflow_exp() -> None:
    assert metrics.nll(np.array([[1e4, 0.0]]), np.array([1])) == pytest.approx(1e4)


def test_calibration_error_weighs_the_gap_of_each_bin_by_its_rows() -> None:
    """Bin (0.6, 0.7]: confidence 0.65, accuracy 1/2; bin (0.9, 1]: 0.95 and 1. (2 * 0.15 + 1 * 0.05) / 3."""
    logits, labels = logits_of([0.62, 0.68, 0.95]), np.array([1, 0, 1])
    assert metrics.expected_calibration_error(logits, labels, bins=10) == pytest.approx((2 * 0.15 + 0.05) / 3)
    found = metrics.reliability(logits, labels, bins=10)
    assert list(found.rows) == [0] * 6 + [2, 0, 0, 1]
    assert found.accuracy[6] == 0.5 and found.confidence[6] == pytest.approx(0.65) and np.isnan(found.accuracy[0])


def test_a_confidence_of_1_falls_into_the_last_bin() -> None:
    assert metrics.reliability(np.array([[1e4, 0.0]]), np.array([0]), bins=4).rows[-1] == 1


def test_kl_to_the_teacher_is_0_for_equal_distributions_and_the_written_sum_for_others() -> None:
    teacher, student = logits_of([0.9]), logits_of([0.6])
    assert metrics.kl_to_teacher(teacher, teacher + 3) == pytest.approx(0)
    assert metrics.kl_to_teacher(teacher, student) == pytest.approx(0.9 * math.log(1.5) + 0.1 * math.log(0.25))


def test_agreement_is_the_share_of_equal_predictions() -> None:
    assert metrics.agreement(PREDICTIONS, LABELS) == metrics.accuracy(PREDICTIONS, LABELS) == pytest.approx(4 / 6)


def test_other_rows_and_unknown_classes_are_refused() -> None:
    with pytest.raises(DataError, match=r"\(3,\) and \(2,\)"):
        metrics.agreement(np.zeros(3), np.zeros(2))
    with pytest.raises(DataError, match=r"\(1, 2\) and \(3, 2\)"):
        metrics.kl_to_teacher(np.zeros((1, 2)), np.zeros((3, 2)))  # NumPy would take the one row for all three
    with pytest.raises(DataError, match="labels must lie in 0 .. 1, but reach 0 .. 2"):
        metrics.macro_f1(np.zeros(6, int), LABELS, 2)
