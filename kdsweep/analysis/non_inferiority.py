"""Test whether an exported form of a student is no worse than the float32 student by more than a margin, on the same rows.

Every function is pure. Rows alone are random: both forms are fixed functions of the same weights, so there is no seed. A row is
a gain (only the form is right), a loss (only the float32 student is right) or neither, independently of other rows; so gains and
losses among N rows are trinomial whatever makes a form differ, and how often a word is false can be computed exactly.

Each limit of the interval carries a word, and each is the one that finds most while its word stays true:

    low   Tango's (1998) score limit, Stat. Med. 17, 891: the d from which on a test, whose variance is estimated under d itself, does
          not reject. Forms differ on few rows, where limits from the variance found are false: with `row_variance`, they call a
          form `no worse` at a loss of the margin in up to 7.1 %. Those of `compare_counts` are never false, but find less (below).
    high  that of `compare_counts`, which agrees with McNemar's exact test. Tango's would be false in up to 4.4 % where losses are
          few, and call a form with 4 losses and no gain worse; it takes 6.

The word: `no worse` where low > -margin, whether or not a smaller loss is shown: that is what a margin means. Else `worse` where
high < 0: a loss is shown, and it may be larger than the margin, so such a form is not to be shipped on these rows. Asking that
high < -margin would call it `cannot tell` although a loss is certain. Else `cannot tell`; rows_to_settle says what it takes.

Computed exactly (tests/test_forms_truth.py), where only one of both is right on 1, 2, 5, 10 % of rows (from 500 to 10,000 rows and with
margins of 0.5 to 2 points, `no worse` is false in 2.5 % at most; with a margin of 0.25 points, in 2.6 % at 500 rows):

                                                    500 rows                      3,000 rows
    a loss of the margin, 0.5 points
      called `no worse`, which is false             1.2, 2.0, 2.3, 2.4 %          2.2, 2.4, 2.5, 2.5 %
      called `worse`                                6.5, 6.5, 4.7, 4.1 %          74, 45, 21, 13 %
      covered                                       98.6, 97.3, 96.3, 95.8 %      96.7, 95.9, 95.5, 95.4 %
    equal forms
      called `no worse`                             12, 9.7, 6.6, 5.3 %           74, 48, 23, 14 %
        by the lower limit of `compare_counts`      8.5, 6.2, 4.7, 4.0 %          71, 44, 21, 13 %
        with a margin of 1 point                    42, 29, 15, 10 %              99.9, 96, 68, 41 %
      called `worse`, which is false                0.4, 1.1, 1.5, 1.8 %          1.5, 1.9, 2.1, 2.2 %
    a loss of 1 point, called `worse`               38, 24, 12, 8.3 %             100, 97, 66, 39 %

Scores of rows that are no right and wrong are compared by `compare_scores`, whose limits are these where a row's difference is 0 or
1. Simulated (1,500 times; F1 of labels, whose differences on 1, 2, 5, 10 % of rows are fifths to wholes):

                                                    500 rows                      3,000 rows
    a loss of the margin, 0.5 points of F1
      called `no worse`, which is false             0.1, 1.1, 2.2, 2.9 %          2.3, 2.2, 2.6, 2.5 %
        by a t interval with `row_variance`         2.7, 2.1, 2.3, 2.9 %          3.9, 2.9, 2.7, 2.6 %
    equal forms, called `no worse`                  21, 22, 14, 8.5 %             99.7, 95, 66, 37 %

So a margin of 0.5 points asks for 3,000 rows and a form that seldom differs; with fewer than 765 rows, not even equal predictions
are `no worse`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri

from kdsweep.analysis.two_arms import POWER, quantile
from kdsweep.analysis.two_students import CONFIDENCE, compare_counts, lower_limit
from kdsweep.analysis.variances import row_df
from kdsweep.errors import DataError
from kdsweep.records.export_schema import Word


@dataclass(frozen=True, kw_only=True)
class NonInferiority:
    """Holds the comparison of an exported form with the float32 student, on the same rows."""

    rows: int
    gains: int
    """Rows that the form has right and the float32 student wrong; of other scores, those on which the form's is higher."""
    losses: int
    """Rows that the float32 student has right and the form wrong; of other scores, those on which the form's is lower."""
    difference: float
    """Accuracy minus the float32 student's, (gains - losses) / rows, in [-1, 1]; of other scores the difference of their means, in `unit`."""
    low: float
    """Lower end of the difference's 95 % interval: what `no worse` rests on."""
    high: float
    """Upper end of the difference's 95 % interval: what `worse` rests on."""
    margin: float
    """The loss of accuracy that is accepted, in (0, 1]."""
    word: Word
    """`no worse`: low > -margin; `worse`: else, and high < 0; else `cannot tell`."""
    rows_to_settle: int | None
    """How many rows say `no worse`, or `worse` where the difference is -margin or below, with a chance of 80 %, if the form differs
    as it does here; None if the word is not `cannot tell`."""


def compare_forms(right: np.ndarray, reference: np.ndarray, *, margin: float) -> NonInferiority:
    """Compare an exported form with the float32 student: whether each is right on the same rows, bool [N] each.

    `margin` is the accepted loss of accuracy as a share, in (0, 1]. Raises DataError for other shapes, values or margins.
    """
    if not (right.shape == reference.shape and right.ndim == 1 and right.size):
        raise DataError(
            f"forms are compared on the same rows, right or wrong on each, but got {right.shape} and {reference.shape}; "
            "predict the same rows with both"
        )
    if not right.dtype == reference.dtype == np.bool_:
        raise DataError(
            f"whether each row is right is true or false, but got {right.dtype} and {reference.dtype}; pass predictions == labels"
        )
    return compare_form_counts(
        gains=int((right & ~reference).sum()),
        losses=int((~right & reference).sum()),
        rows=right.size,
        margin=margin,
    )


def compare_scores(
    scores: np.ndarray, reference: np.ndarray, *, margin: float, unit: float | None = None
) -> NonInferiority:
    """Compare an exported form with the float32 student by the score of each on the same rows, float [N] each, higher is better.

    Without `unit` scores lie in [0, 1] (multi_label: `margin` is a share of example F1). With `unit`, above 0, they have no
    bounds, and difference, interval and `margin` count in it (regression: minus the squared error, with the variance of the
    labels as unit, so that the margin is a loss of R²). Raises DataError for other shapes, values or margins.

    Scores in [0, 1] are compared as if a row's difference x were none or a whole one of m, the size of a typical difference,
    sum(x^2) / sum(|x|) with one row more that differs by 1: gains and losses are then sums of x over m, in whole and broken
    rows, and the limits those above times m. Where x is 0, 1 or -1 they are those of `compare_forms`. Others have Student's t
    interval of the paired differences, which estimates their variance from what was found.
    """
    if not (scores.shape == reference.shape and scores.ndim == 1 and scores.size > 1):
        raise DataError(
            f"forms are compared by their scores on the same rows, at least two, but got {scores.shape} and {reference.shape}; "
            "predict the same rows with both"
        )
    _check_margin(margin)
    if unit is not None and not unit > 0:
        raise DataError(f"unit > 0 must hold (the variance of the labels), but got {unit}")
    found = (scores.astype(np.float64) - reference) / (unit or 1.0)
    if not np.isfinite(found).all() or (unit is None and np.abs(found).max() > 1):
        raise DataError(
            "scores must be finite, and lie in [0, 1] where there is no unit, but differ by up to "
            f"{np.abs(found).max()}"
        )
    return _compare_bounded(found, margin) if unit is None else _compare_unbounded(found, margin)


def _compare_bounded(found: np.ndarray, margin: float) -> NonInferiority:
    """Compare by the rows' differences in [-1, 1], as broken numbers of rows that differ by a typical size."""
    size = (np.square(found).sum() + 1) / (np.abs(found).sum() + 1)
    gains, losses = (float(found[sign * found > 0].sum() * sign / size) for sign in (1, -1))
    low, high = _score_limit(gains, losses, found.size) * size, -lower_limit(losses, gains, found.size) * size
    return _result(found, low, high, margin, lambda: _rows_to_settle(gains, losses, found.size, margin / size))


def _compare_unbounded(found: np.ndarray, margin: float) -> NonInferiority:
    """Compare by the t interval of the rows' differences, in the unit of the margin."""
    mean, deviation = float(found.mean()), float(found.std(ddof=1))
    half = quantile(row_df(found, "minus_squared_error")) * deviation / math.sqrt(found.size)

    def settle() -> int:
        bound = -margin if mean > -margin else 0.0
        reach = (_quantile((1 + CONFIDENCE) / 2) + _quantile(POWER)) * deviation / (mean - bound)
        return max(found.size + 1, math.ceil(reach**2))

    return _result(found, mean - half, mean + half, margin, settle)


def _result(found: np.ndarray, low: float, high: float, margin: float, settle: Callable[[], int]) -> NonInferiority:
    word = _word(low, high, margin)
    return NonInferiority(
        rows=found.size,
        gains=int((found > 0).sum()),
        losses=int((found < 0).sum()),
        difference=float(found.mean()),
        low=low,
        high=high,
        margin=margin,
        word=word,
        rows_to_settle=settle() if word == "cannot tell" else None,
    )


def compare_form_counts(*, gains: int, losses: int, rows: int, margin: float) -> NonInferiority:
    """Compare an exported form with the float32 student by the rows that only one has right. Raises DataError for impossible counts."""
    _check_margin(margin)
    exact = compare_counts(gains=gains, losses=losses, rows=rows)
    low = _score_limit(gains, losses, rows)
    word = _word(low, exact.high, margin)
    return NonInferiority(
        rows=rows,
        gains=gains,
        losses=losses,
        difference=exact.difference,
        low=low,
        high=exact.high,
        margin=margin,
        word=word,
        rows_to_settle=_rows_to_settle(gains, losses, rows, margin) if word == "cannot tell" else None,
    )


def _check_margin(margin: float) -> None:
    if not 0 < margin <= 1:
        raise DataError(f"0 < margin <= 1 must hold (0.005 is half a point of accuracy), but got {margin}")


def _word(low: float, high: float, margin: float) -> Word:
    if low > -margin:
        return "no worse"
    return "worse" if high < 0 else "cannot tell"


def _score_limit(gains: float, losses: float, rows: int) -> float:
    """Compute Tango's lower 2.5 % limit: the d that lies below the difference found by as many of its own standard errors."""
    gain, loss = gains / rows, losses / rows
    found, limit = gain - loss, _quantile((1 + CONFIDENCE) / 2)

    def excess(d: float) -> float:
        return found - d - limit * math.sqrt(_variance(gain, loss, d) / rows)

    nearest = found - 1e-9  # where no variance was found, the difference itself is a root too
    return float(brentq(excess, -1.0, nearest, xtol=1e-12)) if losses < rows else -1.0


def _variance(gain: float, loss: float, d: float) -> float:
    """Return the variance of a row's difference where the true one is d, as shares `gain` and `loss` of rows make most likely.

    With q the share of losses, gains are q + d, and the likelihood is largest at the positive root of
    2 q^2 - ((gain + loss) (1 - d) - 2 d (1 - gain)) q - loss d (1 - d) = 0.
    """
    half = ((gain + loss) * (1 - d) - 2 * d * (1 - gain)) / 4
    q = half + math.sqrt(max(0.0, half * half + loss * d * (1 - d) / 2))
    return max(0.0, 2 * q + d - d * d)


def _rows_to_settle(gains: float, losses: float, rows: int, margin: float) -> int:
    """Return how many rows would give a word with a chance of `POWER`, if all rows were like these.

    Above a loss of the margin the word is `no worse`, else `worse`. As if one row more differed, half a row each way
    (`row_variance`), so that equal predictions do not promise that none ever differs.
    """
    gain, loss = (gains + 0.5) / (rows + 1), (losses + 0.5) / (rows + 1)
    found = (gains - losses) / rows
    bound = -margin if found > -margin else 0.0
    by_test = _quantile((1 + CONFIDENCE) / 2) * math.sqrt(_variance(gain, loss, bound))
    by_chance = _quantile(POWER) * math.sqrt(gain + loss - found**2)
    return max(rows + 1, math.ceil(((by_test + by_chance) / (found - bound)) ** 2))


def _quantile(probability: float) -> float:
    return float(ndtri(probability))
