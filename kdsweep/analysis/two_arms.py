"""Test whether one arm's finalists, or one finalist, are better than another's on the same rows, each trained on fresh seeds.

Every function is pure. A finalist is `right`, [S, N]: the score on row n of the student of seed s, such as whether it is right
(`tasks.row_scores`). Its mean is that of an average training run on an average row, so rows and seeds are both random, and
crossed: the student of every seed predicts every row. With d the difference of two means,

    Var(d) = V_rows + sigma2_seed (1 / S1 + 1 / S2)

V_rows is the variance of the N rows' differences of seed means over N: rows, how the two configurations differ on them,
and the effect of a seed on a single row. sigma2_seed is the effect of a seed on all rows alike: a mean square between
seeds minus the residual one, which V_rows contains already; never below 0. Degrees of freedom are those of Satterthwaite
(1946), Biometrics Bull. 2, 110: Var^2 / sum of (term^2 / its df), with the mean square between seeds in full, so that a
component cut off at 0 does not count as known exactly.

Nothing here is about right and wrong: scores may be F1 in [0, 1], or squared errors without bounds, of which a few rows may make
up most. Of these V_rows is at least what single rows add to the other terms, which contain it, and its degrees of freedom follow
from the kurtosis of the rows' differences (`variances.row_df`); else luck on one row could leave next to none.

Assumed: rows are drawn independently; the two students' seeds are independent (shared ones that help both alike make the
interval too wide); means are near enough to normal. Two or three seeds estimate their own variance badly, so pass `seeds`,
pooled over all finalists of a study: that assumes that they share it.

Two arms are compared by this formula, one level up: finalists, each the mean of its seeds, take the place of seeds, so
that what a search happens to find is random too; each arm's finalists have a variance of their own (Welch), which holds that
of their seeds, so one seed each is enough. The best F of n configurations lie close together because they were chosen,
while their level varies from search to search: their variance is multiplied by `choice_factor`. The chosen pair alone does
not cover that: where both arms are equal, one of a pair is still a little better than the other one.

Measured (tests/test_truth.py: 24 trials an arm, 3,000 test rows, 1,000 studies each; the first model has seed effects of
0 and 0.5 points, the second configurations that differ by 1.3 points and 3,000 or 1,000 validation rows), as `better` without
a difference, `better` at a gain of 2 points, coverage of the gain:

    compare_arms, 10 finalists of one seed
      first model                               2.4, 1.1 %    100, 99.9 %   95.1, 97.5 %
      second model                              2.6, 1.6 %    94.1, 90.2 %  94.5, 94.6 %
      second model, without `searched`          4.4, 3.7 %    97.1, 96.2 %  90.9, 91.2 %  (a prototype of the model)
    second model, not in the test, as many studies:
      9 finalists of one seed                   2.5, 2.0 %    89.9, 89.8 %  95.3, 95.0 %
      6 finalists of two seeds                  2.0, 1.7 %    79.3, 72.2 %  95.3, 96.1 %
      3 finalists of three seeds                1.3, 1.7 %    36.6, 30.8 %  97.4, 96.4 %
    a pair, three seeds each                    21 %          (second model: so its word is about this pair alone)
    a third arm, Holm over its two comparisons  4.0-4.6 % have a word where there is no difference; 92.2, 87.6 % find 2 points
    rows alone, three seeds; one seed           cover 81, 72 % (first model, seed effects of 0.5 points)

Other scores (tests/test_score_truth.py: 24 trials an arm that differ by 1.3 points of F1, or 5 % of the squared error; 200 to 1,000
studies each), as `better` without a difference, with one, coverage with and without, 10 finalists of one seed but where said:

    F1, 3,000 rows, 2 points                    2.8 %    90.8 %   94.9, 95.5 %
      3 finalists of three seeds                1.5 %             96.8 %
    squared errors, 3,000 rows, 8 % lower       2.5 %    95.5 %   95.3, 94.5 %
      heavy tails (Student's t with 5 df)       3.0 %    92.5 %   94.5, 94.0 %
      the same, 300 rows, alike, 15 % lower     1.5 %    88.5 %   97.3, 95.5 %
    one of each, three seeds, heavy tails, 100 rows: 0.7 % say `better`, and as many the contrary; an error 30 % lower is found too
    small in 5.7 % (without what is done about tails: 6.8 %, and intervals that now and then have no end, by luck on one row)

A pair of one seed each is compared with `run_variance`: its interval is rather too wide (it covers 99 to 100 %), and `better`
is wrong in 0.1 % at most (1 % where no pair differs). A single run an arm is never called `better` or `not better`, whatever
its p-value: it does not separate luck from recipe, and a run that collapsed looks like a recipe that failed.

Not part of any interval: another teacher, another training set.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtr, stdtrit

from kdsweep.analysis.spread import Spread, finalist_unit, rows_part
from kdsweep.analysis.tasks import RowScore
from kdsweep.analysis.two_students import CONFIDENCE, Word
from kdsweep.analysis.variances import SeedVariance, matrix, pair, row_df, seed_variance
from kdsweep.errors import DataError

POWER = 0.8
"""Chance of finding a true difference with which detectable differences and the sizes of studies are computed."""


@dataclass(frozen=True, kw_only=True)
class FinalComparison:
    """Holds the comparison of one or several finalists with a baseline, on the same rows."""

    rows: int
    finalists: int
    """Number of finalists compared; 1 if two configurations are."""
    baseline_finalists: int
    seeds: int
    """Number of seeds of each finalist (the fewest)."""
    baseline_seeds: int
    difference: float
    """Mean score of a row minus the baseline's: of accuracies and F1 in [-1, 1], of squared errors how far they are lower."""
    low: float
    """Lower end of the difference's 95 % interval."""
    high: float
    """Upper end of the difference's 95 % interval."""
    p_value: float
    """Two-sided p-value of no difference; below 0.05 if and only if the interval excludes 0."""
    standard_error: float
    df: float
    """Degrees of freedom of the standard error, by Satterthwaite's formula."""
    seed_sd: float | None
    """Standard deviation of the true mean score over seeds; None if no finalist has two seeds."""
    counted: str
    """What the interval counts as random: `rows, seeds and finalists` (`rows and finalists` of one seed each);
    `rows and seeds`; `rows and the finalist's seeds` (the baseline is taken as it is, or has one seed);
    `rows and the baseline's seeds`; `rows` (another seed may give another result)."""
    one_seed: bool
    """Whether a side has a single seed (a baseline taken as it is needs none), which does not separate luck from recipe."""
    word: Word
    """`better`: p < 0.05 and difference > 0; `not better`: high <= 0; else, and of `one_seed`, `cannot tell`. Where `compare_arms`
    got one configuration of each arm: `better of this pair`, `not better of this pair`."""
    rows_to_settle: int | None
    """How many rows, with as many seeds, find a difference as large as this one with a chance of 80 %; None if no number
    does, if the word is not `cannot tell`, or if a side has one seed."""
    seeds_to_settle: int | None
    """How many seeds of each finalist that is not taken as it is, on as many rows, find a difference as large as this one
    with a chance of 80 %; None if no number does, if the word is not `cannot tell`, or if a side has one seed."""
    score: RowScore
    """What the mean score of a row is: the unit of difference and interval, whose words are in `score.py`."""
    baseline_score: float
    """The baseline's mean score of a row."""

    @property
    def of_a_pair(self) -> bool:
        """Return whether it compares two configurations, not several of each kind."""
        return self.finalists == self.baseline_finalists == 1


def compare_finalists(
    right: np.ndarray,
    baseline: np.ndarray,
    *,
    seeds: SeedVariance | None = None,
    given_baseline: bool = False,
    score: RowScore = "accuracy",
) -> FinalComparison:
    """Compare `right` with `baseline`, row scores [S1, N] and [S2, N] on the same rows; the module's docstring lists what is assumed.

    `seeds` is `seed_variance` over all finalists of the study on these rows; without it, that of these two is used. The
    seed of a side that has only one counts as random only with `seeds`; without, `counted` leaves it out. Either way the
    word is then `cannot tell`, unless `seeds` is `run_variance` (no finalist has a second seed): each run then counts as
    random as the finalists of an arm vary, which is at least as much as seeds do. With `given_baseline` the baseline is
    taken as it is (a teacher, which exists once), not as one of many seeds. Raises DataError for other shapes.
    """
    one, other = pair(right, baseline)
    known = seeds or seed_variance([one] if given_baseline else [one, other])
    enough = [known.df > 0 and (seeds is not None or len(side) > 1) for side in (one, other)]
    counts = (enough[0], enough[1] and not given_baseline)
    share = sum(1 / len(side) for side, counted in zip((one, other), counts, strict=True) if counted)
    rows = one.mean(axis=0) - other.mean(axis=0)
    spread = Spread(
        rows=rows_part(one, other, known.residual * share, score),
        rows_df=row_df(rows, score),
        units=((known, share),) if share else (),
        size=rows.size,
        by_seeds=(known.residual + known.main) * share,
    )
    size = _Size(
        finalists=(1, 1),
        seeds=(len(one), len(other)),
        one_seed=not (known.over_runs and known.df) and (len(one) < 2 or (len(other) < 2 and not given_baseline)),
        counted=(COUNTED_OF_RUNS if known.over_runs else COUNTED)[counts],
        per_seed=known,
        score=score,
        baseline=float(other.mean()),
    )
    return _judge(float(rows.mean()), spread, size)


def compare_arms(
    finalists: Sequence[np.ndarray],
    baseline: Sequence[np.ndarray],
    *,
    searched: tuple[int, int] | None = None,
    given_baseline: bool = False,
    score: RowScore = "accuracy",
) -> FinalComparison:
    """Compare the finalists of one arm with those of the other one, each row scores [S, N] on the same rows: the verdict.

    Answers whether another pair of searches like these would end alike. The difference is that of the arms' means over
    finalists; `searched` is the number of configurations that each arm's finalists are the best of (without it they count
    as drawn at random). With `given_baseline` the baseline is one student, a teacher, taken as it is. One finalist in each
    arm is compared by `compare_finalists`, in words that are about this pair alone. Raises DataError for other shapes, and
    for an arm without finalists.
    """
    if not len(finalists) or not len(baseline):
        raise DataError(f"arms are compared by their finalists, but got {len(finalists)} and {len(baseline)}")
    if len(finalists) == len(baseline) == 1:
        found = compare_finalists(finalists[0], baseline[0], given_baseline=given_baseline, score=score)
        return replace(found, word=OF_THIS_PAIR[found.word])
    arms = [[matrix(right) for right in arm] for arm in (finalists, baseline)]
    drawn, sizes = arms[: 1 if given_baseline else 2], searched or (len(finalists), len(baseline))
    known = seed_variance([right for arm in drawn for right in arm])
    one, other = pair(*(np.stack([right.mean(axis=0) for right in arm]) for arm in arms))
    rows = one.mean(axis=0) - other.mean(axis=0)
    runs = sum(sum(1 / len(right) for right in arm) / len(arm) ** 2 for arm in drawn)
    units = tuple(finalist_unit(arm, drawn, known, size) for arm, size in zip(drawn, sizes, strict=False))
    flips = sum(unit.residual * min(share, 1 / len(arm)) for (unit, share), arm in zip(units, drawn, strict=True))
    spread = Spread(
        rows=rows_part(one, other, flips, score),
        rows_df=row_df(rows, score),
        units=units,
        size=rows.size,
        by_seeds=(known.residual + known.main) * runs,
    )
    seeds = [[len(right) for right in arm] for arm in arms]
    size = _Size(
        finalists=(len(one), len(other)),
        seeds=(min(seeds[0]), min(seeds[1])),
        one_seed=min(sum(arm) for arm in seeds[: len(drawn)]) < 2,
        counted="rows, seeds and finalists",
        per_seed=known,
        score=score,
        baseline=float(other.mean()),
    )
    return _judge(float(rows.mean()), spread, size)


# How a comparison is made --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Size:
    """Holds how many finalists and seeds a comparison has."""

    finalists: tuple[int, int]
    seeds: tuple[int, int]
    """The fewest seeds of a finalist, for each side."""
    one_seed: bool
    counted: str
    per_seed: SeedVariance
    score: RowScore
    baseline: float


def _judge(difference: float, spread: Spread, size: _Size) -> FinalComparison:
    """Derive the interval, the test and the word from a difference and its variance."""
    error, df = math.sqrt(spread.total), spread.df
    half = quantile(df) * error
    p_value = float(2 * stdtr(df, -abs(difference) / error)) if error else 1.0
    bound = 1.0 if size.score != "minus_squared_error" else math.inf
    word: Word = "cannot tell"
    if p_value < 1 - CONFIDENCE and difference > 0 and not size.one_seed:
        word = "better"
    elif difference + half <= 0 and not size.one_seed:
        word = "not better"
    rows, factor = None, None
    if word == "cannot tell" and difference and not size.one_seed:
        target = (difference / (quantile(df) + float(stdtrit(df, POWER)))) ** 2
        rows, factor = spread.rows_for(target), spread.seeds_factor(target)
    return FinalComparison(
        rows=spread.size,
        finalists=size.finalists[0],
        baseline_finalists=size.finalists[1],
        seeds=size.seeds[0],
        baseline_seeds=size.seeds[1],
        difference=difference,
        low=max(-bound, difference - half),
        high=min(bound, difference + half),
        p_value=p_value,
        standard_error=error,
        df=df,
        seed_sd=math.sqrt(size.per_seed.main) if size.per_seed.df else None,
        counted=size.counted,
        one_seed=size.one_seed,
        word=word,
        rows_to_settle=rows,
        seeds_to_settle=math.ceil(factor * max(size.seeds)) if factor else None,
        score=size.score,
        baseline_score=size.baseline,
    )


OF_THIS_PAIR: dict[Word, Word] = {
    "better": "better of this pair",
    "not better": "not better of this pair",
    "cannot tell": "cannot tell",
}
"""What is said of two configurations where arms of several would be judged: another pair may differ the other way."""

COUNTED = {
    (True, True): "rows and seeds",
    (True, False): "rows and the finalist's seeds",
    (False, True): "rows and the baseline's seeds",
    (False, False): "rows",
}
COUNTED_OF_RUNS = {
    (True, True): "rows and runs",
    (True, False): "rows and the finalist's run",
    (False, True): "rows and the baseline's run",
    (False, False): "rows",
}


def quantile(df: float) -> float:
    return float(stdtrit(df, (1 + CONFIDENCE) / 2))
