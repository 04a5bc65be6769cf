"""Measure quality and calibration of a classifier from its predictions and logits, in numpy.

Every function is pure. Shapes: C classes, N rows (at least one). Probabilities are softmax(logits) at temperature 1. What multi_label and
regression measure otherwise is in `label_metrics` and `number_metrics`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from kdsweep.errors import DataError

Measure = Callable[[np.ndarray, np.ndarray], float]
"""Function that computes a metric from predictions and labels, of one shape."""


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of rows whose predicted class is the label; both int [N]."""
    return agreement(predictions, labels)


def agreement(predictions: np.ndarray, others: np.ndarray) -> float:
    """Return the share of rows that two classifiers put in the same class; both int [N]."""
    check_rows(predictions, others)
    return float(np.mean(predictions == others))


def macro_f1(predictions: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """Return the mean over classes of F1 = 2 TP / (2 TP + FP + FN); predictions and labels int [N], in 0 .. classes - 1.

    A class that is neither predicted nor a label has no F1 and is left out of the mean.
    """
    counts = confusion(predictions, labels, classes)
    sizes = counts.sum(axis=0) + counts.sum(axis=1)
    return float(np.mean(2 * counts.diagonal()[sizes > 0] / sizes[sizes > 0]))


def matthews(predictions: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """Return Matthews' correlation of C classes, R_K of Gorodkin (2004), Comput. Biol. Chem. 28, 367; in [-1, 1].

    With n rows, c of them right, t_k labels and p_k predictions of class k:
    (c n - sum t_k p_k) / sqrt((n^2 - sum p_k^2) (n^2 - sum t_k^2)); 0 where all labels or all predictions are one class.
    """
    counts = confusion(predictions, labels, classes).astype(np.float64)
    true, predicted, rows = counts.sum(axis=1), counts.sum(axis=0), counts.sum()
    spread = (rows**2 - predicted @ predicted) * (rows**2 - true @ true)
    return float((np.trace(counts) * rows - true @ predicted) / np.sqrt(spread)) if spread > 0 else 0.0


def confusion(predictions: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Count the rows of label i (first axis) that are predicted as j, int [C, C]. Raises DataError where a class is outside 0 .. C - 1."""
    check_rows(predictions, labels)
    for name, values in (("predictions", predictions), ("labels", labels)):
        if values.min() < 0 or values.max() >= classes:
            raise DataError(f"{name} must lie in 0 .. {classes - 1}, but reach {values.min()} .. {values.max()}")
    return np.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)


def measure(metric: str, classes: int) -> Measure:
    """Return the function of predictions and labels, both int [N], that computes `metric`, a value of `study.metric` for single_label."""
    if metric == "val_accuracy":
        return accuracy
    return partial({"val_macro_f1": macro_f1, "val_mcc": matthews}[metric], classes=classes)


def nll(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean negative log-likelihood -log p(label) in nats; logits float [N, C], labels int [N]."""
    check_rows(logits[:, 0], labels)
    return float(-np.mean(log_softmax(logits)[np.arange(labels.size), labels]))


def kl_to_teacher(teacher_logits: np.ndarray, student_logits: np.ndarray) -> float:
    """Return the mean over rows of KL(p_teacher || q_student) in nats, at T = 1 whatever T the student trained with; both [N, C]."""
    check_rows(teacher_logits, student_logits)
    log_p, log_q = log_softmax(teacher_logits), log_softmax(student_logits)
    return float(np.mean(np.sum(np.exp(log_p) * (log_p - log_q), axis=1)))


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Holds a reliability diagram: rows by the probability of their predicted class, in bins of equal width."""

    edges: np.ndarray
    """Edges of the bins, float [B + 1], 0 .. 1; bin b holds edges[b] < confidence <= edges[b + 1]."""
    rows: np.ndarray
    """Rows in each bin, int [B]."""
    confidence: np.ndarray
    """Mean probability of the predicted class, float [B]; nan in an empty bin."""
    accuracy: np.ndarray
    """Share of right rows, float [B]; nan in an empty bin."""


def reliability(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> Reliability:
    """Sort rows into bins by the probability of their predicted class; logits float [N, C], labels int [N]."""
    check_rows(logits[:, 0], labels)
    return binned(np.exp(log_softmax(logits).max(axis=1)), logits.argmax(axis=1) == labels, bins)


def binned(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> Reliability:
    """Sort decisions [N] into bins by their confidence, float in [0, 1]; `right`, bool, tells which are right."""
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    rows = np.bincount(place, minlength=bins)
    filled = np.where(rows > 0, rows, np.nan)
    means = [np.bincount(place, weights=values, minlength=bins) / filled for values in (confidence, right)]
    return Reliability(edges=edges, rows=rows, confidence=means[0], accuracy=means[1])


def expected_calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Return the mean over rows of |accuracy - confidence| of their bin. Guo et al. (2017), ICML; logits [N, C], labels int [N].

    Biased upwards where bins hold few rows, so compare only models on the same rows.
    """
    return mean_gap(reliability(logits, labels, bins))


def mean_gap(found: Reliability) -> float:
    """Return the mean over all decisions of |accuracy - confidence| of their bin."""
    return float(np.nansum(found.rows * np.abs(found.accuracy - found.confidence)) / found.rows.sum())


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return log-probabilities, float64 [N, C], without overflow at any finite logit."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def check_rows(one: np.ndarray, other: np.ndarray) -> None:
    """Check that two arrays are of the same rows. Raises DataError for other shapes, and for no row."""
    if one.shape != other.shape or not one.size:
        raise DataError(
            f"a metric needs the same rows twice, at least one, but got shapes {one.shape} and {other.shape}"
        )
