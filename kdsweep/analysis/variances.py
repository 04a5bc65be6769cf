"""Estimate the variance of a mean score over rows and over fresh seeds, in numpy.

Every function is pure. A finalist is `right`, [S, N]: the score on row n of the student of seed s, such as whether it is right
(`tasks.row_scores`). No formula assumes that scores have bounds; only `row_size` tells those that have from those that have not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kdsweep.analysis.tasks import RowScore
from kdsweep.errors import DataError


@dataclass(frozen=True, kw_only=True)
class SeedVariance:
    """Holds the variance of a mean score over fresh seeds, pooled over finalists."""

    mean_square: float
    """Variance of a single seed's mean score on these rows, around its finalist's mean."""
    residual: float
    """The part of `mean_square` that comes from flipping single rows, and shrinks with their number."""
    df: int
    """Degrees of freedom of `mean_square`: the sum of S - 1; 0 if no finalist has two seeds."""
    over_runs: bool = False
    """Whether it is the variance between finalists of an arm, by `run_variance`: of seeds at most so much, as configurations differ too."""

    @property
    def main(self) -> float:
        """Return the variance by a seed's effect on all rows alike, at least 0; its root is a standard deviation of true mean scores."""
        return max(0.0, self.mean_square - self.residual)


def seed_variance(finalists: Sequence[np.ndarray]) -> SeedVariance:
    """Pool the variance over seeds of `finalists`, each [S, N] on the same split; those with one seed add nothing.

    For each: the variance over seeds of the mean score (S - 1 df), and the mean square that row and seed effects leave,
    over N. Both are averaged with weights S - 1. Arms may differ in their variance without harm, as long as both have
    as many finalists and seeds.
    """
    matrices = [matrix(right) for right in finalists]
    repeated = [right for right in matrices if len(right) > 1]
    if not repeated:
        return SeedVariance(mean_square=0.0, residual=0.0, df=0)
    weights = [len(right) - 1 for right in repeated]
    squares = [float(right.mean(axis=1).var(ddof=1)) for right in repeated]
    residuals = [_residual(right) for right in repeated]
    return SeedVariance(
        mean_square=float(np.average(squares, weights=weights)),
        residual=float(np.average(residuals, weights=weights)),
        df=sum(weights),
    )


def run_variance(arms: Sequence[Sequence[np.ndarray]]) -> SeedVariance:
    """Pool the variance between the finalists of each of `arms`, each finalist [S, N]: of another configuration on other seeds.

    It holds the variance over seeds, and is more where configurations differ: what can be said of seeds where each
    configuration has only one.
    """
    found = seed_variance([np.stack([matrix(right).mean(axis=0) for right in arm]) for arm in arms if len(arm)])
    return replace(found, over_runs=True)


def row_variance(rows: np.ndarray, size: float = 1.0) -> float:
    """Return the variance of the mean of the rows' differences [N], as if one row more differed by `size`, half a row each way.

    So equal predictions do not give a variance of 0. Agresti and Min (2005), Stat. Med. 24, 729, add as much.
    """
    return float((np.square(rows - rows.mean()).sum() + size**2) / (rows.size * max(1, rows.size - 1)))


def row_size(one: np.ndarray, other: np.ndarray, score: RowScore) -> float:
    """Return by how much one row may differ between two sides' scores [S, N]: what `row_variance` adds.

    Scores in [0, 1] differ by 1 at most. Squared errors have no greatest difference; theirs is taken to be the mean squared
    error of both sides, in the manner of a row on which only one of them is right. It is 0 only where both are never wrong.
    """
    return 1.0 if score != "minus_squared_error" else abs(float(one.mean() + other.mean())) / 2


def row_df(rows: np.ndarray, score: RowScore) -> float:
    """Return the degrees of freedom of `row_variance`: N - 1, of squared errors fewer where a few rows make up most of it.

    The variance of N differences has a variance itself, of sigma^4 (kurtosis - 1) / N, and so 2 N / (kurtosis - 1) degrees of
    freedom: N for normal ones, which is taken to be the most. Differences of scores in [0, 1] have bounds, and N - 1 is kept.
    """
    freedom = float(max(1, rows.size - 1))
    centred = np.square(rows - rows.mean())
    if score != "minus_squared_error" or not centred.any():
        return freedom
    kurtosis = float(np.square(centred).mean() / centred.mean() ** 2)
    return max(1.0, 2 * freedom / max(2.0, kurtosis - 1))


def _residual(right: np.ndarray) -> float:
    """Return the mean square that row and seed effects leave of `right` [S, N], S >= 2, over N."""
    left = right - right.mean(axis=0) - right.mean(axis=1, keepdims=True) + right.mean()
    return float(np.square(left).sum() / ((len(right) - 1) * max(1, right.shape[1] - 1)) / right.shape[1])


def matrix(right: np.ndarray) -> np.ndarray:
    """Convert `right` to float [S, N]. Raises DataError for an empty array or more than two dimensions."""
    found = np.atleast_2d(np.asarray(right, dtype=np.float64))
    if found.ndim != 2 or not found.size:
        raise DataError(f"a finalist is one row of scores (right or wrong) a seed, [S, N], but got {np.shape(right)}")
    return found


def pair(right: np.ndarray, baseline: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    one, other = matrix(right), matrix(baseline)
    if one.shape[1] != other.shape[1]:
        raise DataError(
            f"finalists are compared on the same rows, but got {one.shape[1]} and {other.shape[1]}; evaluate both anew"
        )
    return one, other
