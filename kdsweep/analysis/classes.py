"""Compute precision, recall and F1 of each class, and which classes are confused with which, in numpy.

Every function is pure. C classes; counts int [C, C] are rows of class i (first axis) that a model predicts as j, as
`metrics.confusion` returns them; of labels that a row may have several of, int [C, 2, 2], those of `label_counts`. Counts of
several seeds may be added: scores of the sum are pooled over the seeds.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """Holds the scores of one class, as shares in [0, 1]."""

    precision: float | None
    """Share of the rows predicted as this class that are of it; None where no row is predicted as it."""
    recall: float | None
    """Share of the class's rows that are predicted as it; None for a class without rows."""
    f1: float | None
    """2 TP / (2 TP + FP + FN); None for a class without rows that is never predicted."""


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Holds how many rows of one class are predicted as another."""

    true: int
    predicted: int
    count: int
    share: float
    """Share of the true class's rows, in (0, 1]."""


def class_scores(counts: np.ndarray) -> tuple[ClassScore, ...]:
    """Compute the scores of every class or label from `counts`, in their order."""
    if counts.ndim == 3:
        right, true, named = counts[:, 1, 1], counts[:, 1].sum(axis=1), counts[:, :, 1].sum(axis=1)
    else:
        right, true, named = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    return tuple(
        ClassScore(precision=_share(tp, p), recall=_share(tp, t), f1=_share(2 * tp, t + p))
        for tp, t, p in zip(right.tolist(), true.tolist(), named.tolist(), strict=True)
    )


def label_counts(decisions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Count for each label the rows that lack or have it (first axis of two) and are predicted without or with it, int [C, 2, 2].

    decisions and labels are 0 or 1, [N, C]; in the form of scikit-learn's multilabel_confusion_matrix.
    """
    both, true, named = (each.sum(axis=0, dtype=np.int64) for each in (decisions & labels, labels, decisions))
    neither = len(labels) - true - named + both
    return np.stack([neither, named - both, true - both, both], axis=1).reshape(-1, 2, 2)


def confusions(counts: np.ndarray) -> tuple[Confusion, ...]:
    """Return every pair of classes that is confused, the most rows first; ties in the order of the classes.

    Nothing for labels: a row has several, and a wrong one stands in for no other.
    """
    if counts.ndim == 3:
        return ()
    wrong, true = counts - np.diag(counts.diagonal()), counts.sum(axis=1)
    pairs = sorted(np.argwhere(wrong).tolist(), key=lambda pair: (-wrong[pair[0], pair[1]], pair))
    return tuple(
        Confusion(true=i, predicted=j, count=int(wrong[i, j]), share=float(wrong[i, j] / true[i])) for i, j in pairs
    )


def worst_first(scores: tuple[ClassScore, ...]) -> list[int]:
    """Return the numbers of the classes by F1, the lowest first; classes without F1 are left out."""
    known = [(score.f1, place) for place, score in enumerate(scores) if score.f1 is not None]
    return [place for _, place in sorted(known)]


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
