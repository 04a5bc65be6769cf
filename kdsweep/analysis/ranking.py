"""Compute what a study's finalists show together: ranks, the share of the gap to the teacher that distilling closes, the
shrinkage from search to fresh seeds, and the difference that the study could have found.

Every function is pure. A finalist is its row scores [S, N]: those of the student of seed s on row n, such as whether it is right.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import nctdtr

from kdsweep.analysis.tasks import RowScore
from kdsweep.analysis.two_arms import POWER, compare_arms, compare_finalists, quantile
from kdsweep.analysis.two_students import CONFIDENCE
from kdsweep.analysis.variances import SeedVariance, matrix, row_size, row_variance, seed_variance
from kdsweep.errors import DataError


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number, in the order given: with 95 % no corrected one below 0.05 is a false finding.

    The i-th smallest of m is multiplied by m - i + 1, and none falls below a smaller one's. Holm (1979), Scand. J. Stat.
    6, 65; valid however the tests depend on each other.
    """
    order = np.argsort(p_values, kind="stable")
    stepped = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(stepped))
    return [float(value) for value in adjusted]


def ranks(
    finalists: Sequence[np.ndarray], seeds: SeedVariance | None = None, score: RowScore = "accuracy"
) -> list[int]:
    """Rank each finalist, row scores [S, N] on the same rows: 1 + the number of others that are better (all pairs, Holm's p < 0.05).

    Finalists that these rows cannot tell apart share a rank. Pass validation rows, so that the test split chooses nothing;
    `seeds` as in `compare_finalists`.
    """
    known = seeds or seed_variance(finalists)
    pairs = [(i, j) for i in range(len(finalists)) for j in range(i)]
    found = [
        compare_finalists(finalists[i], finalists[j], seeds=known if known.df else None, score=score) for i, j in pairs
    ]
    adjusted = holm([one.p_value for one in found])
    beaten = [0] * len(finalists)
    for (i, j), one, p_value in zip(pairs, found, adjusted, strict=True):
        if p_value < 1 - CONFIDENCE:
            beaten[j if one.difference > 0 else i] += 1
    return [1 + count for count in beaten]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Holds a number with its 95 % interval."""

    value: float
    low: float
    high: float


def distillation_ratio(
    finalists: Sequence[np.ndarray],
    baseline: Sequence[np.ndarray],
    teacher: np.ndarray,
    *,
    searched: tuple[int, int] | None = None,
    score: RowScore = "accuracy",
) -> Estimate | None:
    """Estimate (distilled - fine-tuned) / (teacher - fine-tuned) in the mean score of a row: the share of the gap that distilling closes.

    `finalists` and `baseline`, each row scores [S, N], and `searched` are those of the primary comparison, `compare_arms`; teacher
    [N], taken as it is. The interval is Fieller's (1954), J. R. Stat. Soc. B 16, 175: all r at which distilled -
    fine-tuned - r (teacher - fine-tuned) does not differ from 0. It needs no resampling, allows for the fine-tuned students
    in both differences, and is finite exactly where the gap differs from 0. None where it does not, and where the teacher
    is the worse one: no gap to close.
    """
    gain = compare_arms(finalists, baseline, searched=searched, score=score)
    alone = (searched[1], 1) if searched else None
    gap = compare_arms(baseline, [teacher], searched=alone, given_baseline=True, score=score)
    one, other = (np.mean([matrix(right).mean(axis=0) for right in arm], axis=0) for arm in (finalists, baseline))
    top, bottom = one - other, matrix(teacher)[0] - other
    across = min(
        gain.standard_error**2 - row_variance(top, row_size(one, other, score)),
        gap.standard_error**2 - row_variance(bottom, row_size(other, matrix(teacher)[0], score)),
    )
    shared = float(np.cov(top, bottom)[0, 1] / top.size) + across
    limit = quantile(min(gain.df, gap.df)) ** 2
    a = gap.difference**2 - limit * gap.standard_error**2
    b = gain.difference * gap.difference + limit * shared
    c = gain.difference**2 - limit * gain.standard_error**2
    if a <= 0 or gap.difference >= 0:
        return None
    root = math.sqrt(b * b - a * c)
    return Estimate(value=-gain.difference / gap.difference, low=(-b - root) / a, high=(-b + root) / a)


def shrinkage(search: Sequence[float], confirmed: Sequence[float]) -> Estimate | None:
    """Estimate by how much the search flattered its finalists: mean of search score - confirmed score, with Student's t interval.

    search [F]: the score on validation by which each became a finalist; confirmed [F]: its mean over fresh seeds on the
    same rows. The luck of the rows is in both, so this is the seeds' part of the winner's curse: the rows' part shows on
    the test split only. None below two finalists. Raises DataError for lists of different lengths.
    """
    if len(search) != len(confirmed):
        raise DataError(f"each finalist needs a search and a confirmed score, got {len(search)} and {len(confirmed)}")
    if len(search) < 2:
        return None
    lost = np.asarray(search, dtype=np.float64) - np.asarray(confirmed, dtype=np.float64)
    value, half = float(lost.mean()), quantile(lost.size - 1) * float(lost.std(ddof=1)) / math.sqrt(lost.size)
    return Estimate(value=value, low=value - half, high=value + half)


def power(difference: float, standard_error: float, df: float) -> float:
    """Compute the chance that a study with this standard error finds `better` where the true difference is `difference`.

    From the noncentral t distribution. Pass a difference that would matter: at the observed difference the power only
    repeats the p-value (Hoenig and Heisey 2001, Am. Stat. 55, 19).
    """
    ratio = difference / standard_error
    missed = float(nctdtr(df, ratio, quantile(df)))
    return (
        1.0 if ratio > 30 and math.isnan(missed) else 1 - missed
    )  # SciPy gives nan there where the chance is below 1e-100


def minimal_detectable_difference(standard_error: float, df: float, chance: float = POWER) -> float:
    """Compute the true difference that a study with this standard error calls `better` with probability `chance`."""
    return standard_error * float(brentq(lambda ratio: power(ratio, 1.0, df) - chance, 0.0, 100.0))
