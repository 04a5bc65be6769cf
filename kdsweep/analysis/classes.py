"""How well each class is told apart: precision, recall, F1, and which classes are taken for which, in numpy.

Every function is pure. C classes; counts int [C, C] are rows of class i (first axis) that a model names j, as
`metrics.confusion` gives them. The counts of several seeds add up: scores of the sum are pooled over the seeds.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One class, as shares in [0, 1]."""

    precision: float | None
    """Of the rows named so, those that are; None where none is named so."""
    recall: float | None
    """Of the class's rows, those that are named so; None for a class without rows."""
    f1: float | None
    """2 TP / (2 TP + FP + FN); None for a class that is neither named nor there."""


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Rows of one class that are taken for another."""

    true: int
    predicted: int
    count: int
    share: float
    """Of the true class's rows, in (0, 1]."""


def class_scores(counts: np.ndarray) -> tuple[ClassScore, ...]:
    """The scores of every class, in their order."""
    right, true, named = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    return tuple(
        ClassScore(precision=_share(tp, p), recall=_share(tp, t), f1=_share(2 * tp, t + p))
        for tp, t, p in zip(right.tolist(), true.tolist(), named.tolist(), strict=True)
    )


def confusions(counts: np.ndarray) -> tuple[Confusion, ...]:
    """Every pair of classes that is confused, the most rows first; ties in the order of the classes."""
    wrong, true = counts - np.diag(counts.diagonal()), counts.sum(axis=1)
    pairs = sorted(np.argwhere(wrong).tolist(), key=lambda pair: (-wrong[pair[0], pair[1]], pair))
    return tuple(
        Confusion(true=i, predicted=j, count=int(wrong[i, j]), share=float(wrong[i, j] / true[i])) for i, j in pairs
    )


def worst_first(scores: tuple[ClassScore, ...]) -> list[int]:
    """Classes by F1, the lowest first; those without F1 are left out."""
    known = [(score.f1, place) for place, score in enumerate(scores) if score.f1 is not None]
    return [place for _, place in sorted(known)]


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
