"""Test whether one student is better than another: intervals, a paired test, and a word that claims no more than they do.

Every function is pure: counts and vectors in, numbers out.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.optimize import brentq
from scipy.special import bdtr, betainc, betaincinv, ndtri, stdtr, stdtrit  # scipy.stats takes half a second to import

from kdsweep.analysis.tasks import ROW_SCORES, RowScore, row_scores
from kdsweep.analysis.variances import row_df, row_size, row_variance
from kdsweep.config.tasks import TaskName
from kdsweep.errors import DataError

CONFIDENCE = 0.95
"""Level of every interval; a p-value is significant below 1 - CONFIDENCE."""

Word = Literal["better", "not better", "cannot tell", "better of this pair", "not better of this pair"]
"""What a comparison says; `… of this pair` where it stands in for one of arms, but has a single configuration of each."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Holds the comparison of a model with a baseline, on the same rows."""

    rows: int
    """Rows that both predicted."""
    gains: int
    """Rows that the model has right and the baseline wrong; of other scores, those on which the model's is higher."""
    losses: int
    """Rows that the baseline has right and the model wrong; of other scores, those on which the model's is lower."""
    difference: float
    """Accuracy minus the baseline's, (gains - losses) / rows, in [-1, 1]; of other scores the difference of their means."""
    low: float
    """Lower end of the difference's 95 % interval."""
    high: float
    """Upper end of the difference's 95 % interval."""
    p_value: float
    """Two-sided p-value of McNemar's exact test, of other scores of a paired t test; below 0.05 if and only if the interval excludes 0."""
    word: Word
    """`better`: p < 0.05 and difference > 0; `not better`: high <= 0; else `cannot tell`."""
    score: RowScore = "accuracy"
    """What the mean score of a row is: the unit of difference and interval."""
    baseline_score: float | None = None
    """The baseline's mean score of a row; None where only discordant rows were counted."""


def wilson_interval(accuracy: float, rows: int) -> tuple[float, float]:
    """Return the 95 % score interval of an accuracy over `rows` rows. Wilson (1927), J. Am. Stat. Assoc. 22, 209.

    SciPy's `binomtest(...).proportion_ci(method="wilson")` is equal to 2e-16, but takes a count of rows and runs a test first,
    which would cost a report some milliseconds a trial.
    """
    z = float(ndtri((1 + CONFIDENCE) / 2))
    centre = (accuracy + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * math.sqrt(accuracy * (1 - accuracy) / rows + z**2 / (4 * rows**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def compare_by_task(predictions: np.ndarray, baseline: np.ndarray, labels: np.ndarray, task: TaskName) -> Comparison:
    """Compare predictions with a baseline's by `labels`, by the scores of their rows: classes by McNemar's test, else by a paired t test.

    Raises DataError for other shapes.
    """
    if task == "single_label":
        return compare_predictions(predictions, baseline, labels)
    if not (predictions.shape == baseline.shape == labels.shape and labels.size):
        raise DataError(_not_paired(predictions, baseline, labels))
    one, other = (row_scores(each, labels, task) for each in (predictions, baseline))
    return compare_row_scores(one, other, ROW_SCORES[task])


def compare_row_scores(scores: np.ndarray, baseline: np.ndarray, score: RowScore) -> Comparison:
    """Compare the scores of rows [N] with a baseline's by Student's t test of their differences; rows alone count as random."""
    rows = scores.astype(np.float64) - baseline
    difference, df = float(rows.mean()), row_df(rows, score)
    error = math.sqrt(row_variance(rows, row_size(scores, baseline, score)))
    half = float(stdtrit(df, (1 + CONFIDENCE) / 2)) * error
    p_value = float(2 * stdtr(df, -abs(difference) / error)) if error else 1.0
    bound = math.inf if score == "minus_squared_error" else 1.0
    word: Word = "better" if difference - half > 0 else "not better" if difference + half <= 0 else "cannot tell"
    return Comparison(
        rows=rows.size,
        gains=int((rows > 0).sum()),
        losses=int((rows < 0).sum()),
        difference=difference,
        low=max(-bound, difference - half),
        high=min(bound, difference + half),
        p_value=p_value,
        word=word,
        score=score,
        baseline_score=float(baseline.mean()),
    )


def _not_paired(predictions: np.ndarray, baseline: np.ndarray, labels: np.ndarray) -> str:
    return (
        "a paired comparison needs one prediction of each and one label a row, but got "
        f"{predictions.shape}, {baseline.shape} and labels {labels.shape}; run both trials on the same rows"
    )


def compare_predictions(predictions: np.ndarray, baseline: np.ndarray, labels: np.ndarray) -> Comparison:
    """Compare the predicted classes with a baseline's by `labels`, each int [N]. Raises DataError for other shapes."""
    if not (predictions.shape == baseline.shape == labels.shape and labels.ndim == 1 and labels.size):
        raise DataError(_not_paired(predictions, baseline, labels))
    right, baseline_right = predictions == labels, baseline == labels
    gains, losses = int((right & ~baseline_right).sum()), int((~right & baseline_right).sum())
    found = compare_counts(gains=gains, losses=losses, rows=labels.size)
    return replace(found, baseline_score=float(baseline_right.mean()))


def compare_counts(*, gains: int, losses: int, rows: int) -> Comparison:
    """Compare a classifier with a baseline by discordant rows, those that only one has right, with McNemar's (1947) exact test.

    Without a difference, gains are Binomial(gains + losses, 1/2): Psychometrika 12, 153. The interval is built as Fay
    and Lumbard (2021), Stat. Med. 40, 1147, propose, so that it agrees with that test. Raises DataError for impossible
    counts.
    """
    if min(gains, losses) < 0 or gains + losses > rows or rows < 1:
        raise DataError(
            f"0 <= gains + losses <= rows and rows >= 1 must hold, but got {gains} + {losses} of {rows} rows"
        )
    p_value = min(1.0, 2 * float(bdtr(min(gains, losses), gains + losses, 0.5))) if gains + losses else 1.0
    low, high = lower_limit(gains, losses, rows), -lower_limit(losses, gains, rows)
    word: Word = "cannot tell"
    if p_value < 1 - CONFIDENCE and gains > losses:
        word = "better"
    elif high <= 0:
        word = "not better"
    difference = (gains - losses) / rows
    return Comparison(
        rows=rows, gains=gains, losses=losses, difference=difference, low=low, high=high, p_value=p_value, word=word
    )


def lower_limit(gains: float, losses: float, rows: int) -> float:
    """Compute the lower 2.5 % limit of d = t (2 s - 1), t the share of discordant rows and s that of gains among them.

    Both follow the confidence distributions behind Clopper and Pearson's (1934) exact limits: s its lower one, t the
    one that makes d smaller. As t > 0, the limit lies above 0 exactly where the one-sided test rejects s = 1/2.
    """
    discordant = gains + losses
    if gains == 0:
        return (
            -float(betaincinv(discordant + 1, rows - discordant, (1 + CONFIDENCE) / 2)) if discordant < rows else -1.0
        )
    points = (np.arange(500) + 0.5) / 500
    less = betaincinv(discordant, rows - discordant + 1, points)
    more = betaincinv(discordant + 1, rows - discordant, points) if discordant < rows else np.ones_like(points)

    def excess(d: float) -> float:
        shares = less if d >= 0 else more
        return float(np.mean(betainc(gains, losses + 1, np.clip((1 + d / shares) / 2, 0, 1)))) - (1 - CONFIDENCE) / 2

    return float(brentq(excess, -1.0, 1.0, xtol=1e-10))
