"""An exported form beside the float32 student: limits, words, edges, and what it would take to settle."""

import math

import numpy as np
import pytest

from kdsweep.analysis.non_inferiority import NonInferiority, compare_form_counts, compare_forms, compare_scores
from kdsweep.analysis.two_students import compare_counts
from kdsweep.errors import DataError


def found(gains: int, losses: int, rows: int, margin: float = 0.005) -> NonInferiority:
    return compare_form_counts(gains=gains, losses=losses, rows=rows, margin=margin)


def score(gains: int, losses: int, rows: int, d: float) -> float:
    """Tango's (1998) statistic by his equations 24 to 26, with a margin of -d."""
    a, b, c = 2 * rows, -gains - losses + (2 * rows - gains + losses) * d, -losses * d * (1 - d)
    q = (math.sqrt(b * b - 4 * a * c) - b) / (2 * a)
    return (gains - losses - rows * d) / math.sqrt(rows * (2 * q + d * (1 - d)))


def test_the_statistic_is_that_of_the_published_example() -> None:
    """Soft contact lenses: of 44 patients one was treated by the standard alone; margin 0.1 (Tango 1998, section 6.1)."""
    assert score(0, 1, 44, -0.1) == pytest.approx(1.709, abs=5e-4)


@pytest.mark.parametrize(
    ("gains", "losses", "rows"), [(0, 1, 44), (25, 28, 618), (0, 0, 3000), (3, 9, 500), (5, 0, 5), (0, 4, 5), (0, 0, 1)]
)
def test_the_lower_limit_lies_where_the_score_test_stops_to_reject(gains: int, losses: int, rows: int) -> None:
    assert score(gains, losses, rows, found(gains, losses, rows).low) == pytest.approx(1.959964, abs=1e-4)


def test_the_upper_limit_is_that_of_mcnemars_exact_test() -> None:
    for gains, losses in ((0, 0), (0, 6), (4, 12), (7, 7)):
        assert found(gains, losses, 400).high == compare_counts(gains=gains, losses=losses, rows=400).high


@pytest.mark.parametrize("rows", [1, 2, 3, 9])
def test_few_rows_give_an_interval_around_the_difference_and_never_all_of_it_for_certain(rows: int) -> None:
    for gains in range(rows + 1):
        for losses in range(rows + 1 - gains):
            one = found(gains, losses, rows)
            assert -1 <= one.low <= one.difference == (gains - losses) / rows <= one.high <= 1
            assert one.low < one.high and (one.word == "no worse") == (one.low > -0.005)
            assert one.rows_to_settle is None or one.rows_to_settle > rows


@pytest.mark.parametrize(
    ("gains", "losses", "rows", "word"),
    [
        (0, 0, 764, "cannot tell"),  # equal predictions of too few rows prove nothing
        (0, 0, 765, "no worse"),
        (15, 15, 3000, "no worse"),
        (15, 22, 3000, "cannot tell"),
        (0, 4, 3000, "no worse"),
        (0, 6, 3000, "no worse"),  # a loss is shown, and that it is smaller than the margin
        (0, 5, 500, "cannot tell"),
        (0, 6, 500, "worse"),  # a loss is shown, not that it is larger than the margin
        (0, 30, 3000, "worse"),
        (30, 0, 3000, "no worse"),
    ],
)
def test_the_word_is_read_off_the_interval(gains: int, losses: int, rows: int, word: str) -> None:
    one = found(gains, losses, rows)
    assert one.word == word
    assert (one.low > -0.005) == (word == "no worse") and (word != "worse" or one.high < 0)


def test_a_larger_margin_is_easier_to_keep() -> None:
    assert [found(30, 36, 3000, margin).word for margin in (0.005, 0.01)] == ["cannot tell", "no worse"]


@pytest.mark.parametrize(("gains", "losses", "rows"), [(0, 0, 500), (3, 3, 500), (20, 24, 1000), (10, 19, 1000)])
def test_so_many_more_rows_like_these_settle_it(gains: int, losses: int, rows: int) -> None:
    """Found in as many rows, the same shares are beyond the limit by as much as luck takes away in one of five cases."""
    one = found(gains, losses, rows)
    assert one.word == "cannot tell" and one.rows_to_settle
    factor = one.rows_to_settle / rows
    assert found(round(gains * factor), round(losses * factor), one.rows_to_settle).word != "cannot tell"


def test_what_is_settled_asks_for_no_rows_and_a_loss_of_the_margin_for_those_that_show_it() -> None:
    assert found(0, 0, 3000).rows_to_settle is None and found(0, 30, 3000).rows_to_settle is None
    at_the_margin = found(10, 15, 1000)
    assert (at_the_margin.word, at_the_margin.difference) == ("cannot tell", -0.005)
    assert at_the_margin.rows_to_settle  # rows that show a loss


def test_rows_are_counted_by_who_is_right() -> None:
    right = np.array([True, True, False, False, True])
    reference = np.array([True, False, True, False, False])
    one = compare_forms(right, reference, margin=0.5)
    assert (one.rows, one.gains, one.losses, one.difference, one.margin) == (5, 2, 1, 0.2, 0.5)
    assert compare_forms(right, right, margin=0.5).difference == 0


@pytest.mark.parametrize(
    ("right", "reference", "margin", "said"),
    [
        (np.ones(3, bool), np.ones(2, bool), 0.1, r"\(3,\) and \(2,\)"),
        (np.ones(0, bool), np.ones(0, bool), 0.1, r"same rows"),
        (np.ones((2, 2), bool), np.ones((2, 2), bool), 0.1, r"\(2, 2\)"),
        (np.ones(3, int), np.ones(3, bool), 0.1, "int64 and bool; pass predictions == labels"),
        (np.ones(3, bool), np.ones(3, bool), 0.0, "0 < margin <= 1 must hold"),
        (np.ones(3, bool), np.ones(3, bool), 1.5, "but got 1.5"),
        (np.ones(3, bool), np.ones(3, bool), math.nan, "but got nan"),
    ],
)
def test_what_cannot_be_compared_is_refused(right: np.ndarray, reference: np.ndarray, margin: float, said: str) -> None:
    with pytest.raises(DataError, match=said):
        compare_forms(right, reference, margin=margin)


# Scores that are no right and wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gains", "losses", "rows"), [(0, 0, 800), (1, 0, 600), (2, 9, 1000), (0, 12, 900), (30, 31, 3000)]
)
def test_scores_of_0_and_1_are_compared_as_right_and_wrong_are(gains: int, losses: int, rows: int) -> None:
    right, reference = np.zeros(rows, bool), np.zeros(rows, bool)
    right[:gains], reference[gains : gains + losses] = True, True
    whole = compare_forms(right, reference, margin=0.005)
    scores = compare_scores(right.astype(np.float64), reference.astype(np.float64), margin=0.005)
    assert (scores.word, scores.gains, scores.losses, scores.rows) == (whole.word, gains, losses, rows)
    assert (scores.low, scores.high, scores.difference) == pytest.approx((whole.low, whole.high, whole.difference))
    assert scores.rows_to_settle == whole.rows_to_settle


def test_half_a_difference_on_twice_as_many_rows_says_more_than_whole_ones() -> None:
    whole, halves = np.zeros(3000), np.zeros(3000)
    whole[:10], halves[:20] = -1.0, -0.5
    one, other = (compare_scores(1 + scores, np.ones(3000), margin=0.01) for scores in (whole, halves))
    assert one.difference == pytest.approx(other.difference) == pytest.approx(-10 / 3000)
    assert one.low < other.low < other.high < 0 and other.high < one.high


def test_squared_errors_count_in_the_variance_of_the_labels() -> None:
    """Student's interval of the paired differences, by hand; a form that is equal but for rounding is no worse."""
    rng = np.random.default_rng(0)
    labels, errors = 5 * rng.standard_normal(400), rng.standard_normal(400)
    reference = -np.square(errors)
    scores = -np.square(errors + 0.3 * rng.standard_normal(400))
    unit = float(labels.var())
    found = compare_scores(scores, reference, margin=0.005, unit=unit)
    rows = (scores - reference) / unit
    assert found.difference == pytest.approx(rows.mean())
    assert found.high - found.difference == pytest.approx(found.difference - found.low)
    assert found.high - found.difference == pytest.approx(1.97 * rows.std(ddof=1) / 20, rel=0.15)
    assert (found.gains, found.losses) == (int((rows > 0).sum()), int((rows < 0).sum()))
    assert compare_scores(reference - 1e-7, reference, margin=0.005, unit=unit).word == "no worse"
    assert compare_scores(scores - unit, reference, margin=0.005, unit=unit).word == "worse"
    few = compare_scores(scores[:30], reference[:30], margin=0.005, unit=unit)
    assert few.word == "cannot tell" and few.rows_to_settle and few.rows_to_settle > 30


@pytest.mark.parametrize(
    ("scores", "reference", "margin", "unit", "said"),
    [
        (np.ones(3), np.ones(2), 0.1, None, r"on the same rows, at least two, but got \(3,\) and \(2,\)"),
        (np.ones(1), np.ones(1), 0.1, None, "at least two"),
        (np.ones(3), np.ones(3), 0.0, None, "0 < margin <= 1 must hold"),
        (np.ones(3), np.ones(3), 0.1, 0.0, "unit > 0 must hold"),
        (np.full(3, -4.0), np.ones(3), 0.1, None, r"lie in \[0, 1\] where there is no unit, but differ by up to 5"),
        (np.full(3, np.nan), np.ones(3), 0.1, 1.0, "must be finite"),
    ],
)
def test_scores_that_cannot_be_compared_are_refused(
    scores: np.ndarray, reference: np.ndarray, margin: float, unit: float | None, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        compare_scores(scores, reference, margin=margin, unit=unit)
