"""Intervals and words that hold what their docstrings say."""

import numpy as np
import pytest
from scipy.stats import binomtest, multinomial, ttest_rel

from kdsweep.analysis.two_students import (
    compare_by_task,
    compare_counts,
    compare_predictions,
    compare_row_scores,
    wilson_interval,
)
from kdsweep.errors import DataError


def test_wilson_interval_gives_the_published_example() -> None:
    """81 of 263: Newcombe (1998), Stat. Med. 17, 857, table I, method 3."""
    assert wilson_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_wilson_interval_stays_in_the_unit_interval_and_keeps_a_width(accuracy: float) -> None:
    low, high = wilson_interval(accuracy, 10)
    assert 0 <= low < high <= 1
    assert high - low == pytest.approx(0.2775, abs=5e-4)


@pytest.mark.parametrize("rows", [1, 7, 200, 3202])
def test_wilson_interval_is_scipys(rows: int) -> None:
    for right in {0, 1, rows // 3, rows - 1, rows}:
        expected = binomtest(right, rows).proportion_ci(0.95, method="wilson")
        assert wilson_interval(right / rows, rows) == pytest.approx((expected.low, expected.high), abs=1e-15)


def test_p_value_is_the_exact_binomial_one() -> None:
    """12 against 2: 2 (1 + 14 + 91) / 2^14, Armitage and Berry's media for tuberculosis cultures."""
    assert compare_counts(gains=12, losses=2, rows=50).p_value == pytest.approx(2 * 106 / 2**14)


def test_the_interval_leaves_zero_out_exactly_where_the_test_says_p_below_5_percent() -> None:
    for discordant in range(4, 13):
        for gains in range(discordant + 1):
            found = compare_counts(gains=gains, losses=discordant - gains, rows=40)
            assert (found.p_value < 0.05) == (found.low > 0 or found.high < 0)
            assert found.low <= found.difference <= found.high


def test_swapping_both_classifiers_mirrors_the_interval() -> None:
    one, other = compare_counts(gains=9, losses=4, rows=100), compare_counts(gains=4, losses=9, rows=100)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert one.p_value == other.p_value


@pytest.mark.slow
@pytest.mark.parametrize("gain", [0.02, 0.1])
def test_the_interval_covers_the_true_difference_at_least_as_often_as_it_says(gain: float) -> None:
    loss, rows = 0.03, 40
    truth, missed = gain - loss, 0.0
    for gains in range(12):
        for losses in range(7):
            found = compare_counts(gains=gains, losses=losses, rows=rows)
            if not found.low <= truth <= found.high:
                missed += float(
                    multinomial.pmf([gains, losses, rows - gains - losses], rows, [gain, loss, 1 - gain - loss])
                )
    assert missed <= 0.05


@pytest.mark.parametrize(
    ("gains", "losses", "word"),
    [(6, 0, "better"), (5, 0, "cannot tell"), (0, 0, "cannot tell"), (0, 5, "cannot tell"), (0, 6, "not better")],
)
def test_the_word_follows_the_test_at_5_percent(gains: int, losses: int, word: str) -> None:
    assert compare_counts(gains=gains, losses=losses, rows=100).word == word


def test_predictions_are_compared_row_by_row() -> None:
    labels = np.array([0, 1, 2, 0, 1])
    found = compare_predictions(np.array([0, 1, 2, 1, 1]), np.array([0, 2, 0, 0, 1]), labels)
    assert (found.rows, found.gains, found.losses) == (5, 2, 1)
    assert found.difference == pytest.approx(0.2)


def test_predictions_of_other_rows_are_refused_with_both_shapes() -> None:
    with pytest.raises(DataError, match=r"\(3,\), \(2,\) and labels \(3,\)"):
        compare_predictions(np.zeros(3), np.zeros(2), np.zeros(3))


@pytest.mark.parametrize(("gains", "losses", "rows"), [(3, 3, 5), (-1, 0, 5), (0, 0, 0)])
def test_counts_that_no_rows_can_give_are_refused(gains: int, losses: int, rows: int) -> None:
    with pytest.raises(DataError, match="must hold, but got"):
        compare_counts(gains=gains, losses=losses, rows=rows)


def test_each_task_has_its_own_test() -> None:
    labels = np.array([0, 1, 2, 0, 1])
    one, other = np.array([0, 1, 2, 1, 1]), np.array([0, 2, 0, 0, 1])
    assert compare_by_task(one, other, labels, "single_label") == compare_predictions(one, other, labels)
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal(300).astype(np.float32)
    near, far = (numbers + noise * rng.standard_normal(300).astype(np.float32) for noise in (0.5, 1.5))
    found = compare_by_task(near, far, numbers, "regression")
    assert (found.score, found.word, found.rows) == ("minus_squared_error", "better", 300)
    assert found.difference == pytest.approx(1.5**2 - 0.5**2, abs=0.5) and found.high > 1
    assert found.baseline_score == pytest.approx(-(1.5**2), abs=0.5)
    assert compare_by_task(far, near, numbers, "regression").word == "not better"
    sets = (rng.random((300, 4)) < 0.4).astype(np.uint8)
    less, more = (np.where(rng.random((300, 4)) < share, 1 - sets, sets).astype(np.uint8) for share in (0.1, 0.3))
    labelled = compare_by_task(less, more, sets, "multi_label")
    assert (labelled.score, labelled.word) == ("example_f1", "better") and 0 < labelled.low < labelled.high <= 1
    with pytest.raises(DataError, match="run both trials on the same rows"):
        compare_by_task(less, more[1:], sets, "multi_label")


def test_equal_scores_tell_nothing_and_the_interval_is_that_of_students_t() -> None:
    same = np.full(50, 0.5)
    equal = compare_row_scores(same, same, "example_f1")
    assert (equal.word, equal.difference, equal.p_value) == ("cannot tell", 0, 1) and equal.low < 0 < equal.high
    perfect = compare_row_scores(np.zeros(50), np.zeros(50), "minus_squared_error")
    assert (perfect.low, perfect.high, perfect.p_value) == (0, 0, 1)
    rng = np.random.default_rng(1)
    scores, baseline = rng.random(4000), rng.random(4000)
    found, plain = compare_row_scores(scores, baseline, "example_f1"), ttest_rel(scores, baseline)
    assert found.p_value == pytest.approx(plain.pvalue, rel=0.01)
    assert (found.low, found.high) == pytest.approx(tuple(plain.confidence_interval()), abs=3e-5)
