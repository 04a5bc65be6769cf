"""Metrics of several labels a row against values worked out by hand."""

import math

import numpy as np
import pytest

from kdsweep.analysis import label_metrics, metrics

LABELS = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0]], dtype=np.uint8)
DECISIONS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 1, 1]], dtype=np.uint8)


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def test_the_scores_of_decisions() -> None:
    """TP 3, FP 2, FN 1 in all; rows: 2/3, 1, 1 (both empty), 1/2; labels: 1, 1/2, 0 (never there, decided on once)."""
    assert label_metrics.subset_accuracy(DECISIONS, LABELS) == 0.5
    assert label_metrics.micro_f1(DECISIONS, LABELS) == pytest.approx(6 / 9)
    assert label_metrics.macro_f1(DECISIONS, LABELS) == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert label_metrics.mean_example_f1(DECISIONS, LABELS) == pytest.approx((2 / 3 + 1 + 1 + 1 / 2) / 4)


def test_a_label_that_nobody_names_is_left_out_of_macro_f1_and_no_label_at_all_gives_0() -> None:
    assert label_metrics.macro_f1(DECISIONS[:2], LABELS[:2]) == pytest.approx((1 + 2 / 3) / 2)
    nothing = np.zeros((2, 3), np.uint8)
    assert [measure(nothing, nothing) for measure in (label_metrics.macro_f1, label_metrics.micro_f1)] == [0, 0]
    assert label_metrics.mean_average_precision(np.ones((2, 3)), nothing) == 0


def test_average_precision_of_the_documentation_of_scikit_learn() -> None:
    """average_precision_score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) is 0.83…: 1/2 · 1 + 1/2 · 2/3."""
    found = label_metrics.average_precision(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
    assert found == pytest.approx(0.5 + 1 / 3)


def test_rows_of_equal_score_pass_a_threshold_together() -> None:
    """Of three rows at 0.5 one is right: precision 2/4 there, whatever their order; (1/2) · 1 + (1/2) · 2/4."""
    for place in range(1, 4):
        labels = np.array([1, 0, 0, 0])
        labels[place] = 1
        assert label_metrics.average_precision(np.array([0.9, 0.5, 0.5, 0.5]), labels) == pytest.approx(0.75)


def test_mean_average_precision_is_over_the_labels_that_occur() -> None:
    """Label 0: rows 0 and 3 first, 1; label 1: ranks 1 and 3, (1 + 2/3) / 2; label 2 does not occur."""
    logits = np.array([[2.0, 3.0, 0.0], [0.0, 1.0, 0.0], [-1.0, 2.0, 0.0], [1.0, 0.0, 9.0]])
    assert label_metrics.mean_average_precision(logits, LABELS) == pytest.approx((1 + (1 + 2 / 3) / 2) / 2)


def test_binary_nll_is_the_mean_surprise_of_the_decisions_and_survives_large_logits() -> None:
    found = label_metrics.binary_nll(np.array([[logit(0.8), logit(0.6)]]), np.array([[1, 0]], np.uint8))
    assert found == pytest.approx(-(math.log(0.8) + math.log(0.4)) / 2)
    assert label_metrics.binary_nll(np.array([[1e4, -1e4]]), np.array([[0, 0]], np.uint8)) == pytest.approx(5e3)


def test_bernoulli_kl_is_summed_over_the_labels() -> None:
    """Against p log(p/q) + (1-p) log((1-p)/(1-q)), and 0 to itself at any size of logit."""
    teacher, student = np.array([[logit(0.9), logit(0.3)]]), np.array([[logit(0.5), logit(0.2)]])
    by_hand = sum(p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)) for p, q in ((0.9, 0.5), (0.3, 0.2)))
    assert label_metrics.bernoulli_kl(teacher, student) == pytest.approx(by_hand)
    assert label_metrics.bernoulli_kl(np.array([[1e3, -1e3]]), np.array([[1e3, -1e3]])) == 0


def test_calibration_is_that_of_all_decisions() -> None:
    """Bin (0.6, 0.7]: 0.62 right, 0.68 wrong; bin (0.9, 1]: 0.95 right, twice. (2 · |0.5 - 0.65| + 2 · 0.05) / 4."""
    logits = np.array([[logit(0.62), logit(1 - 0.68)], [logit(0.95), logit(0.05)]])
    found = label_metrics.decided_reliability(logits, np.array([[1, 1], [1, 0]], np.uint8), bins=10)
    assert found.rows.sum() == 4
    assert metrics.mean_gap(found) == pytest.approx((2 * 0.15 + 2 * 0.05) / 4)
