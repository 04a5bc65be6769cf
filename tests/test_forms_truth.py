"""What is said of an exported form against the truth: how often each word is false, computed exactly (`-s` prints the rates).

A row is a gain, a loss or neither, independently of the others. So gains and losses are trinomial, and the chance of a word is a
sum over the counts that give it, without the noise of a simulation; one from rows is beside it, as a check of the sum.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from scipy.stats import binom

from kdsweep.analysis.non_inferiority import NonInferiority, compare_form_counts, compare_forms
from kdsweep.analysis.two_arms import POWER

pytestmark = pytest.mark.slow
MARGIN = 0.005
DISAGREEMENTS = {500: (0.01, 0.02, 0.05, 0.1), 3000: (0.01, 0.02, 0.05)}
"""By the number of rows, shares of them on which only one of both is right. (3,000 rows and 10 % give what 5 % give, and take long.)"""


@cache
def compared(gains: int, losses: int, rows: int) -> NonInferiority:
    return compare_form_counts(gains=gains, losses=losses, rows=rows, margin=MARGIN)


SAYS: dict[str, Callable[[NonInferiority], bool]] = {
    "no worse": lambda one: one.word == "no worse",
    "not worse": lambda one: one.word != "worse",
    "low above": lambda one: one.low > -MARGIN,
    "high above": lambda one: one.high >= -MARGIN,
}


@cache
def most_losses(what: str, rows: int) -> np.ndarray:
    """For each number of gains, the largest number of losses at which `SAYS[what]` still holds, -1 if none: one more gain allows more."""
    expected = rows * (max(DISAGREEMENTS[rows]) + 2 * MARGIN) / 2
    found, losses = [], -1
    for gains in range(int(expected + 6 * expected**0.5)):
        while gains + losses < rows and SAYS[what](compared(gains, losses + 1, rows)):
            losses += 1
        found.append(losses)
    return np.array(found)


def chance(what: str, rows: int, disagree: float, loss: float) -> float:
    """The chance that `what` holds, where a form loses `loss` in truth, and only one of both is right on `disagree` of rows."""
    gained, lost = (disagree - loss) / 2, (disagree + loss) / 2
    most = most_losses(what, rows)
    gains = np.arange(most.size)
    below = np.where(most < 0, 0.0, binom.cdf(most, rows - gains, lost / (1 - gained)))
    return float((binom.pmf(gains, rows, gained) * below).sum())


def rates(rows: int, disagree: float) -> dict[str, float]:
    """How often each word is said, and the interval covers, at a loss of the margin, at none, and at twice the margin."""
    found = {
        "falsely no worse": chance("no worse", rows, disagree, MARGIN),
        "worse at the margin": 1 - chance("not worse", rows, disagree, MARGIN),
        "covers": chance("high above", rows, disagree, MARGIN) - chance("low above", rows, disagree, MARGIN),
        "no worse": chance("no worse", rows, disagree, 0.0),
        "falsely worse": 1 - chance("not worse", rows, disagree, 0.0),
        "worse at twice the margin": 1 - chance("not worse", rows, disagree, 2 * MARGIN),
    }
    print(f"\n{rows} rows, {disagree:.0%}: " + "  ".join(f"{name} {value:.4f}" for name, value in found.items()))
    return found


@pytest.mark.parametrize(
    ("rows", "disagree"), [(rows, share) for rows, shares in DISAGREEMENTS.items() for share in shares]
)
def test_a_word_is_false_in_2_5_percent_at_most_and_the_interval_covers_in_95_percent(
    rows: int, disagree: float
) -> None:
    found = rates(rows, disagree)
    assert found["falsely no worse"] <= 0.025 and found["falsely worse"] <= 0.025
    assert found["covers"] >= 0.95


def test_3000_rows_find_that_equal_forms_are_no_worse_where_they_seldom_differ() -> None:
    assert chance("no worse", 3000, 0.01, 0.0) > 0.7 > 0.4 > chance("no worse", 3000, 0.05, 0.0)
    assert 1 - chance("not worse", 3000, 0.02, 2 * MARGIN) > 0.95


@pytest.mark.parametrize(("gains", "losses", "rows"), [(0, 0, 500), (15, 16, 1000), (20, 30, 1000)])
def test_as_many_rows_as_it_takes_give_the_word_in_80_percent(gains: int, losses: int, rows: int) -> None:
    one = compared(gains, losses, rows)
    assert one.word == "cannot tell" and one.rows_to_settle
    shares = np.array([gains + 0.5, losses + 0.5, rows - gains - losses]) / (rows + 1)
    drawn = np.random.default_rng(0).multinomial(one.rows_to_settle, shares, size=300)
    words = [compared(int(gained), int(lost), one.rows_to_settle).word for gained, lost, _ in drawn]
    expected = "no worse" if one.difference > -MARGIN else "worse"
    assert words.count(expected) / len(words) == pytest.approx(POWER, abs=0.08)


def test_rows_drawn_from_a_population_give_the_computed_rates() -> None:
    """A form loses the margin in truth; both are wrong on a tenth of rows."""
    draw, rows, disagree, words = np.random.default_rng(0), 500, 0.05, []
    shares = np.array([(disagree - MARGIN) / 2, (disagree + MARGIN) / 2, 0.1, 0.9 - disagree])
    for _ in range(800):
        kind = draw.choice(4, size=rows, p=shares)
        words.append(compare_forms((kind == 0) | (kind == 3), (kind == 1) | (kind == 3), margin=MARGIN).word)
    said = {word: words.count(word) / len(words) for word in ("no worse", "worse")}
    assert said["no worse"] == pytest.approx(chance("no worse", rows, disagree, MARGIN), abs=0.018)
    assert said["worse"] == pytest.approx(1 - chance("not worse", rows, disagree, MARGIN), abs=0.025)
