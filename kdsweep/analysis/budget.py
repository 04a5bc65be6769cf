"""Estimate what a search's budget bought, and what more trials would add."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln, smirnovi

from kdsweep.analysis.two_students import CONFIDENCE
from kdsweep.errors import DataError

FEWEST_TRIALS = 8
"""Number of trials below which a curve's slope is not used."""
MOST_POINTS = 500
"""Trials up to which a curve has a point for each number of them; of more it has about so many points, densest where they are few."""


@dataclass(frozen=True, kw_only=True)
class TuningCurve:
    """Holds the expected best score against the number of trials k, each float [K]: k is 1 .. n, of more than `MOST_POINTS` trials a part of that."""

    trials: np.ndarray
    """Every k, int [K]: rising, with n and both of its halves where n is odd."""
    expected: np.ndarray
    """Mean of the best score over all ways to draw k of the n trials; the last is the best score itself."""
    low: np.ndarray
    """Lower end of the 95 % band."""
    high: np.ndarray
    """Upper end of the 95 % band; near `ceiling` for large k and few trials, as no data exclude a rare, much better configuration."""

    def at(self, trials: int) -> float:
        """Return the expected best score of so many trials, which are one of the curve's points."""
        return float(self.expected[np.searchsorted(self.trials, trials)])


def tuning_curve(scores: Sequence[float], *, floor: float = 0.0, ceiling: float = 1.0) -> TuningCurve:
    """Estimate the expected best score of k trials from the n scores of one search (complete trials, higher is better).

    With scores sorted upwards, expected[k] = sum_i x_i C(i - 1, k - 1) / C(n, k): the unbiased estimate of E[max of k]
    (Dodge et al., EMNLP Findings 2021, arXiv 2110.00613). The band holds for all k at once, whatever the scores'
    distribution on [floor, ceiling]: it is E[max of k] under the two ends of Kolmogorov's exact band around the
    empirical distribution function, in the manner of Lourie, Cho and He, "Show Your Work with Confidence" (2023), who
    prefer medians; the Dvoretzky-Kiefer-Wolfowitz inequality is its simple bound sqrt(ln(2 / 0.05) / (2 n)). Raises
    DataError without a score, or where one lies outside [floor, ceiling].

    Both hold for independent trials: random search. TPE's trials depend on each other and get better, so its curve
    describes drawing anew from the trials that were made, and the band is only a guide.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    n = ordered.size
    if n == 0 or not (floor <= ordered[0] and ordered[-1] <= ceiling):
        raise DataError(f"a tuning curve needs at least one score, all in [{floor}, {ceiling}], but got {list(scores)}")
    width = float(
        smirnovi(n, (1 - CONFIDENCE) / 2)
    )  # each side's exact band at half the risk: 2e-6 wider than that of both
    steps, points = np.arange(n + 1) / n, np.concatenate([[floor], ordered, [ceiling]])
    trials = _points(n)
    low, high = (_expected_best(points, np.clip(steps + shift, 0.0, 1.0), trials) for shift in (width, -width))
    return TuningCurve(trials=trials, expected=_best_weights(n, trials) @ ordered, low=low, high=high)


def _points(n: int) -> np.ndarray:
    """Return the numbers of trials at which the curve of n trials is computed; all of them would take n² steps."""
    if n <= MOST_POINTS:
        return np.arange(1, n + 1)
    even, by_ratio = np.linspace(1, n, MOST_POINTS // 2), np.geomspace(1, n, MOST_POINTS // 2)
    return np.unique(np.concatenate([by_ratio, even, np.array([n // 2, (n + 1) // 2, n])]).round().astype(np.int64))


def next_gain(scores: Sequence[float], trials: int) -> float | None:
    """Estimate what `trials` more trials would add to the best score; None below 8 scores.

    The slope of `tuning_curve` against log k between n / 2 and n trials is extrapolated to n + trials: rather too much
    where scores approach a ceiling. For TPE it is only a guide, like `tuning_curve`.
    """
    n = len(scores)
    if n < FEWEST_TRIALS:
        return None
    curve = tuning_curve(scores, floor=min(scores), ceiling=max(scores))
    slope = (curve.at(n) - curve.at(n // 2)) / np.log(n / (n // 2))
    return float(slope * np.log((n + trials) / n))


def _best_weights(n: int, trials: np.ndarray) -> np.ndarray:
    """Return C(i - 1, k - 1) / C(n, k), float [K, n], k of `trials` first: the chance that the i-th lowest of n is the best of k drawn."""
    k, i = trials[:, None], np.arange(1, n + 1)[None]
    short = i < k
    chosen = gammaln(i) - gammaln(k) - gammaln(np.where(short, 1, i - k + 1))
    every = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return np.where(short, 0.0, np.exp(chosen - every))


def _expected_best(points: np.ndarray, below: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Return E[max of k], float [len(k)]: the last point - integral of F^k, where F is `below[j]` from points[j] to points[j + 1]."""
    return np.asarray(points[-1] - (below[None] ** k[:, None]) @ np.diff(points))
