"""Estimate the difference of two arms' Pearson correlations by drawing rows anew, in numpy.

A correlation is no mean over rows, so the verdict of a regression rests on squared errors, and this stands beside it. Rows alone
count as random: neither another seed nor another search is in the interval, which is why it says `bootstrap over rows`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from kdsweep.analysis.two_students import CONFIDENCE
from kdsweep.errors import DataError

DRAWS: Final = 2000
SEED: Final = 0
AT_ONCE: Final = 2**21
"""How many drawn rows are held at a time."""


@dataclass(frozen=True, kw_only=True)
class Bootstrapped:
    """Holds a difference of two correlations with its 95 % interval."""

    value: float
    """Mean Pearson's r minus the baseline's."""
    low: float
    """Lower end of the 95 % interval: the 2.5th percentile over the draws."""
    high: float
    rows: int
    draws: int = DRAWS
    counted: Literal["bootstrap over rows"] = "bootstrap over rows"
    """What the interval counts as random, and how."""


def pearson_difference(
    finalists: Sequence[np.ndarray], baseline: Sequence[np.ndarray], labels: np.ndarray
) -> Bootstrapped:
    """Compare the arms' Pearson's r with `labels` [N]: the mean over an arm's finalists, predictions [S, N] each, of their seeds' mean.

    In each of 2,000 draws as many rows as there are are drawn with replacement, the same for all students (paired), and all
    correlations are computed anew. The draws have a seed of their own: the same rows give the same interval. Predictions of a
    constant are correlated with nothing: 0. Raises DataError for predictions of other rows.
    """
    both = [*finalists, *baseline]
    if labels.ndim != 1 or any(each.ndim != 2 or each.shape[1] != labels.size for each in both) or not labels.size:
        raise DataError(
            f"correlations are compared on the same rows, but got labels {labels.shape} and predictions "
            f"{[each.shape for each in both]}; evaluate all anew"
        )
    weights = np.concatenate([_weights(finalists), -_weights(baseline)])
    sums = _products(np.concatenate(both), labels)
    once = _correlations(sums.sum(axis=0, keepdims=True), labels.size) @ weights
    low, high = np.quantile(
        _correlations(_drawn_sums(sums), labels.size) @ weights, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    )
    return Bootstrapped(value=float(once[0]), low=float(low), high=float(high), rows=labels.size)


def _weights(arm: Sequence[np.ndarray]) -> np.ndarray:
    """Return by how much each student counts: finalists alike, and the seeds of each alike."""
    return np.concatenate([np.full(len(each), 1 / len(each) / len(arm)) for each in arm])


def _products(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return what is summed for the correlations, float64 [N, 2 + 3 M]: y, y^2, then p, p^2 and p y of each of M students.

    All are centred and scaled first, so that differences of large sums lose no digits.
    """
    y, p = (_standard(values.astype(np.float64)) for values in (labels[None], predictions))
    return np.concatenate([y, y**2, p, p**2, p * y]).T


def _standard(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean(axis=1, keepdims=True)
    spread = centred.std(axis=1, keepdims=True)
    return np.asarray(centred / np.where(spread > 0, spread, 1.0))


def _drawn_sums(products: np.ndarray) -> np.ndarray:
    """Return the sums of `products` [N, K] over the rows of each draw, float64 [draws, K]."""
    rng, rows = np.random.default_rng(SEED), len(products)
    step, sums = max(1, AT_ONCE // rows), []
    for start in range(0, DRAWS, step):
        count = min(step, DRAWS - start)
        drawn = rng.integers(rows, size=(count, rows)) + rows * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * rows).reshape(count, rows)
        sums.append(times.astype(np.float64) @ products)
    return np.concatenate(sums)


def _correlations(sums: np.ndarray, rows: int) -> np.ndarray:
    """Return every student's correlation in every draw, float64 [draws, M], from sums [draws, 2 + 3 M] over `rows` rows."""
    y, y2, *others = sums.T / rows
    p, p2, py = np.reshape(others, (3, len(others) // 3, len(sums)))
    spread = np.sqrt(np.clip(p2 - p**2, 0, None) * np.clip(y2 - y**2, 0, None))
    return np.where(spread > 1e-12, (py - p * y) / np.where(spread > 1e-12, spread, 1.0), 0.0).T
