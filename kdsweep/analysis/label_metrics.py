"""Measure a model that decides on each of several labels, from its decisions and logits, in numpy.

Every function is pure. Shapes: C labels, N rows (at least one); decisions and labels are 0 or 1, integers [N, C]. Probabilities are
sigmoid(logits) at temperature 1.
"""

import numpy as np

from kdsweep.analysis.metrics import Reliability, binned, check_rows
from kdsweep.analysis.tasks import example_f1


def subset_accuracy(decisions: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of rows all of whose labels are decided right."""
    check_rows(decisions, labels)
    return float(np.mean((decisions == labels).all(axis=1)))


def mean_example_f1(decisions: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean over rows of the F1 of a row's labels, 1 for a row without any on both sides."""
    check_rows(decisions, labels)
    return float(np.mean(example_f1(decisions, labels)))


def micro_f1(decisions: np.ndarray, labels: np.ndarray) -> float:
    """Return F1 = 2 TP / (2 TP + FP + FN) of all decisions together; 0 where no label is decided on or there."""
    check_rows(decisions, labels)
    size = int(decisions.sum()) + int(labels.sum())
    return 2 * int((decisions & labels).sum()) / size if size else 0.0


def macro_f1(decisions: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean over labels of F1; a label that is neither decided on nor there has none and is left out, 0 where all are."""
    check_rows(decisions, labels)
    sizes = decisions.sum(axis=0, dtype=np.int64) + labels.sum(axis=0, dtype=np.int64)
    both = (decisions & labels).sum(axis=0, dtype=np.int64)
    return float(np.mean(2 * both[sizes > 0] / sizes[sizes > 0])) if sizes.any() else 0.0


def mean_average_precision(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean of the average precision over the labels that occur; 0 where none does."""
    check_rows(logits, labels)
    found = [average_precision(logits[:, label], labels[:, label]) for label in np.flatnonzero(labels.any(axis=0))]
    return float(np.mean(found)) if found else 0.0


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the sum over thresholds of (recall - the recall before) · precision, without interpolation; scores float and labels [N] of one
    label, which one row has at least. Rows of equal score pass a threshold together.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # the last row of each score
    found = np.cumsum(labels[order], dtype=np.int64)[last]
    precision = found / (np.flatnonzero(last) + 1)
    return float(np.sum(np.diff(found, prepend=0) * precision) / found[-1])


def binary_nll(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean over labels and rows of the binary cross-entropy in nats."""
    check_rows(logits, labels)
    wide = logits.astype(np.float64)
    return float(np.mean(np.logaddexp(0, wide) - wide * labels))


def bernoulli_kl(teacher_logits: np.ndarray, student_logits: np.ndarray) -> float:
    """Return the mean over rows of the sum over labels of KL(Bernoulli(p_teacher) || Bernoulli(q_student)) in nats, at T = 1."""
    check_rows(teacher_logits, student_logits)
    theirs, mine = (logits.astype(np.float64) for logits in (teacher_logits, student_logits))
    there = np.exp(log_sigmoid(theirs)) * (log_sigmoid(theirs) - log_sigmoid(mine))
    absent = np.exp(log_sigmoid(-theirs)) * (log_sigmoid(-theirs) - log_sigmoid(-mine))
    return float(np.mean(np.sum(there + absent, axis=1)))


def decided_reliability(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> Reliability:
    """Sort all N · C decisions into bins by the probability of what was decided, in [0.5, 1]; its `rows` count decisions."""
    check_rows(logits, labels)
    confidence = np.exp(log_sigmoid(np.abs(logits.astype(np.float64))))
    return binned(confidence.ravel(), ((logits > 0) == labels).ravel(), bins)


def log_sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return the logarithm of sigmoid(logits), without overflow at any finite logit."""
    return np.asarray(-np.logaddexp(0, -logits))
