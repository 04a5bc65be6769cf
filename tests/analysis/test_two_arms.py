"""Comparisons over rows and seeds: formulas, edges and words. How often they are right: test_truth.py."""

from dataclasses import replace

import numpy as np
import pytest
from samples import finalist
from scipy.stats import t

from kdsweep.analysis.planned_power import choice_factor
from kdsweep.analysis.two_arms import compare_arms, compare_finalists
from kdsweep.analysis.two_students import compare_counts
from kdsweep.analysis.variances import SeedVariance, run_variance, seed_variance
from kdsweep.errors import DataError


def test_variance_is_rows_plus_seeds_less_what_both_hold() -> None:
    """Against the textbook's mean squares of a crossed design, written out in sums."""
    right, baseline = finalist(0.8, 3, sd=0.05).astype(float), finalist(0.7, 3, seed=1, sd=0.05).astype(float)
    found, n, seeds_part = compare_finalists(right, baseline), 400, 0.0
    for arm in (right, baseline):
        rows, seeds = arm.mean(axis=0), arm.mean(axis=1)
        total = np.square(arm - arm.mean()).sum()
        residual = (total - 3 * np.square(rows - arm.mean()).sum() - n * np.square(seeds - arm.mean()).sum()) / (
            2 * (n - 1)
        )
        between = n * np.square(seeds - arm.mean()).sum() / 2
        seeds_part += (between - residual) / n / 3
    differences = right.mean(axis=0) - baseline.mean(axis=0)
    rows_part = (np.square(differences - differences.mean()).sum() + 1) / (n * (n - 1))
    assert found.standard_error**2 == pytest.approx(rows_part + seeds_part)
    assert found.counted == "rows and seeds" and found.rows == n and found.seed_sd is not None and found.seed_sd > 0


def test_interval_and_p_value_come_of_one_t_test() -> None:
    found = compare_finalists(finalist(0.8, 3), finalist(0.75, 3, seed=1))
    assert found.high - found.low == pytest.approx(2 * t.ppf(0.975, found.df) * found.standard_error)
    assert found.p_value == pytest.approx(2 * t.sf(abs(found.difference) / found.standard_error, found.df))
    assert (found.p_value < 0.05) == (found.low > 0 or found.high < 0)


def test_swapping_mirrors_everything_but_the_word() -> None:
    one, other = finalist(0.9, 3), finalist(0.7, 3, seed=1)
    there, back = compare_finalists(one, other), compare_finalists(other, one)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert (there.word, back.word) == ("better", "not better")
    assert there.rows_to_settle is None and there.seeds_to_settle is None


def test_one_seed_of_each_is_said_to_count_rows_alone_and_is_near_mcnemar() -> None:
    one, other = finalist(0.82, 1, rows=2000), finalist(0.8, 1, rows=2000, seed=1)
    found = compare_finalists(one, other)
    gains, losses = int((one & ~other).sum()), int((other & ~one).sum())
    exact = compare_counts(gains=gains, losses=losses, rows=2000)
    assert (found.counted, found.seed_sd, found.seeds_to_settle) == ("rows", None, None)
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=0.001)


def test_one_seed_never_says_more_than_cannot_tell_whatever_its_p_value() -> None:
    """A run that collapsed looks like a recipe that failed."""
    good, collapsed = finalist(0.85, 1), finalist(0.5, 1, seed=1)
    pool = seed_variance([finalist(0.85, 3), finalist(0.84, 3, seed=2)])
    for found in (
        compare_finalists(good, collapsed),
        compare_finalists(collapsed, good),
        compare_finalists(finalist(0.85, 3), collapsed),
        compare_finalists(good, collapsed, seeds=pool),
        compare_finalists(good, collapsed, given_baseline=True),
        compare_arms([good], [collapsed]),
        compare_arms([finalist(0.85, 3)] * 2, [collapsed]),
        compare_arms([good] * 9, [collapsed], searched=(24, 24)),
    ):
        assert found.p_value < 0.001 and found.one_seed and found.word == "cannot tell"
        assert found.rows_to_settle is None and found.seeds_to_settle is None


def test_several_configurations_of_one_seed_each_separate_luck_from_recipe() -> None:
    """The variance between them includes the seed's; where one of them collapsed, it says so."""
    good, bad = ([finalist(level, 1, seed=number) for number in range(9)] for level in (0.85, 0.8))
    found = compare_arms(good, bad, searched=(24, 24))
    assert (found.word, found.one_seed, found.seed_sd, found.seeds) == ("better", False, None, 1)
    one_collapsed = compare_arms(good, [*good[:8], finalist(0.5, 1, seed=9)])
    assert one_collapsed.difference > 0.03 and one_collapsed.word == "cannot tell"


def test_where_no_finalist_has_a_second_seed_pairs_are_judged_by_how_finalists_vary() -> None:
    arms = [[finalist(level + 0.01 * number, 1, seed=number) for number in range(4)] for level in (0.85, 0.6)]
    runs = run_variance(arms)
    assert (runs.over_runs, runs.df) == (True, 6) and not run_variance([arm[:1] for arm in arms]).df
    found, alone = compare_finalists(arms[0][3], arms[1][3], seeds=runs), compare_finalists(arms[0][3], arms[1][3])
    assert (found.counted, found.word, alone.word) == ("rows and runs", "better", "cannot tell")
    assert found.high - found.low > alone.high - alone.low
    assert compare_finalists(arms[0][3], arms[1][3], seeds=run_variance([arm[:1] for arm in arms])).one_seed


def test_the_best_of_many_vary_more_than_their_spread_says() -> None:
    """Against the variance of the mean of the best k of n exponential draws, and that variance simulated."""
    assert choice_factor(9, 9) == 1 and choice_factor(1, 2) == 1.25
    assert choice_factor(9, 24) == pytest.approx(1.579, abs=0.001)
    draws = np.sort(np.random.default_rng(0).exponential(size=(20_000, 24)), axis=1)[:, -9:]
    said = choice_factor(9, 24) * draws.var(axis=1, ddof=1).mean() / 9
    assert draws.mean(axis=1).var() == pytest.approx(said, rel=0.05)
    one, other = ([finalist(level + 0.01 * k, 2, seed=k) for k in range(4)] for level in (0.7, 0.75))
    drawn, chosen = compare_arms(one, other), compare_arms(one, other, searched=(30, 30))
    assert chosen.difference == drawn.difference and chosen.standard_error > 1.2 * drawn.standard_error


def test_two_seeds_an_arm_are_enough_and_a_teacher_needs_none() -> None:
    good, bad = finalist(0.85, 2), finalist(0.5, 2, seed=1)
    assert compare_arms([good, good[:1]], [bad, bad[:1]]).word == "better"
    assert compare_finalists(bad, good[0], given_baseline=True).word == "not better"


def test_who_is_counted_is_said() -> None:
    three, one = finalist(0.8, 3), finalist(0.8, 1, seed=1)
    pool = seed_variance([three, finalist(0.8, 3, seed=2)])
    assert compare_finalists(three, one).counted == "rows and the finalist's seeds"
    assert compare_finalists(one, three).counted == "rows and the baseline's seeds"
    assert compare_finalists(three, one, seeds=pool).counted == "rows and seeds"
    assert compare_finalists(three, one[0], seeds=pool, given_baseline=True).counted == "rows and the finalist's seeds"
    assert compare_arms([one], [one]).counted == "rows"
    assert compare_arms([one, one], [one, one]).counted == "rows, seeds and finalists"
    assert compare_arms([three, three], [three, one]).counted == "rows, seeds and finalists"


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_equal_predictions_tell_nothing_and_keep_a_width(seeds: int) -> None:
    same = np.ones((seeds, 50), dtype=bool)
    for found in (compare_finalists(same, same), compare_arms([same, same], [same, same])):
        assert (found.difference, found.p_value, found.word) == (0, 1, "cannot tell")
        assert found.low < 0 < found.high and found.rows_to_settle is None and found.seeds_to_settle is None


def test_more_finalists_in_the_pool_are_more_degrees_of_freedom() -> None:
    finalists = [finalist(0.8, 3, seed=number, sd=0.03) for number in range(6)]
    assert seed_variance(finalists).df == 12 and seed_variance(finalists[:2]).df == 4
    assert seed_variance([finalist(0.8, 1)]) == SeedVariance(mean_square=0.0, residual=0.0, df=0)


def test_a_pool_without_repeated_seeds_counts_rows_alone() -> None:
    one = finalist(0.8, 1)
    assert compare_finalists(one, one, seeds=seed_variance([one, one])).counted == "rows"


def test_the_numbers_that_settle_it_do_so_when_they_are_given() -> None:
    pool = SeedVariance(mean_square=9e-5, residual=8e-5, df=12)
    found = compare_finalists(finalist(0.8, 3), finalist(0.79, 3, seed=1), seeds=pool)
    assert found.word == "cannot tell" and found.rows_to_settle is not None and found.seeds_to_settle is not None
    target = (found.difference / (t.ppf(0.975, found.df) + t.ppf(0.8, found.df))) ** 2
    rows = found.standard_error**2 - pool.main * 2 / 3
    assert rows * 400 / found.rows_to_settle + pool.main * 2 / 3 == pytest.approx(target, rel=0.01)
    kept = rows - pool.residual * 2 / 3
    assert kept + pool.mean_square * 2 / found.seeds_to_settle <= target
    assert kept + pool.mean_square * 2 / (found.seeds_to_settle - 1) > target


def test_no_number_of_rows_settles_what_seeds_blur() -> None:
    pool = SeedVariance(mean_square=0.01, residual=0.0, df=12)
    found = compare_finalists(finalist(0.8, 3), finalist(0.78, 3, seed=1), seeds=pool)
    assert found.word == "cannot tell" and found.rows_to_settle is None


def test_arms_count_what_a_search_happens_to_find() -> None:
    """Equal finalists but for their accuracy: the interval of the arms is wider than one of as many seeds alone."""
    near, far = ([finalist(0.8 + step, 3, seed=number) for number in range(3)] for step in (0.0, 0.01))
    spread = [finalist(0.7 + 0.1 * number, 3, seed=number) for number in range(3)]
    tight, wide = compare_arms(far, near), compare_arms(spread, near)
    assert wide.high - wide.low > 3 * (tight.high - tight.low)
    assert (tight.finalists, tight.baseline_finalists, tight.seeds, tight.baseline_seeds) == (3, 3, 3, 3)
    assert tight.difference == pytest.approx(np.mean([right.mean() for right in far]) - np.mean(near))


def test_arms_of_one_finalist_are_those_finalists_and_the_word_says_so() -> None:
    one, other = finalist(0.9, 3), finalist(0.7, 3, seed=1)
    arms = compare_arms([one], [other])
    assert replace(arms, word="better") == compare_finalists(one, other) and arms.of_a_pair
    assert (arms.word, compare_arms([other], [one]).word) == ("better of this pair", "not better of this pair")
    assert compare_arms([one], [one]).word == "cannot tell"
    assert compare_arms([one, one], [other]).df > 0 and not compare_arms([one, one], [other]).of_a_pair


def test_the_only_configuration_there_is_varies_by_its_seeds_alone() -> None:
    """An arm that searches nothing has chosen nothing, so the other arm's spread is not its own."""
    wide = [finalist(0.75 + 0.05 * number, 2, seed=number) for number in range(4)]
    only = finalist(0.7, 2, seed=9)
    fixed, chosen = (compare_arms(wide, [only], searched=(9, count)) for count in (1, 9))
    assert fixed.standard_error < chosen.standard_error / 1.5


def test_other_rows_and_empty_arms_are_refused() -> None:
    with pytest.raises(DataError, match="got 3 and 2"):
        compare_finalists(np.ones((2, 3)), np.ones((2, 2)))
    with pytest.raises(DataError, match="got 0 and 1"):
        compare_arms([], [np.ones((2, 2))])
    with pytest.raises(DataError, match=r"\[S, N\], but got \(1, 2, 3\)"):
        compare_finalists(np.ones((1, 2, 3)), np.ones((2, 3)))


# Squared errors ------------------------------------------------------------------------------------------------------


def squared(level: float, finalists: int, seeds: int, rows: int = 300, seed: int = 0) -> list[np.ndarray]:
    """Minus the squared errors of an arm's finalists, [S, N] each."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal(rows)
    return [-level * np.square(shared + 0.5 * rng.standard_normal((seeds, rows))) for _ in range(finalists)]


@pytest.mark.parametrize(("finalists", "seeds"), [(1, 3), (4, 1), (3, 2)])
def test_squared_errors_have_no_bounds_and_no_unit(finalists: int, seeds: int) -> None:
    one, other = squared(1.0, finalists, seeds), squared(1.5, finalists, seeds, seed=1)
    small = compare_arms(one, other, score="minus_squared_error")
    large = compare_arms([1e4 * each for each in one], [1e4 * each for each in other], score="minus_squared_error")
    assert small.word.startswith("better") and (large.word, large.score) == (small.word, "minus_squared_error")
    for name in ("difference", "low", "high", "standard_error", "baseline_score"):
        assert getattr(large, name) == pytest.approx(1e4 * getattr(small, name), rel=1e-9)
    assert (large.p_value, large.df) == pytest.approx((small.p_value, small.df))
    assert small.baseline_score == pytest.approx(-1.5 * 1.25, rel=0.2) and large.low > 1


def test_students_that_are_never_wrong_do_not_differ() -> None:
    found = compare_arms([np.zeros((2, 50))] * 2, [np.zeros((2, 50))] * 2, score="minus_squared_error")
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


@pytest.mark.parametrize("finalists", [1, 5])
def test_a_row_that_makes_up_most_of_an_error_leaves_few_degrees_of_freedom_but_some(finalists: int) -> None:
    """By luck both arms' means may agree on the one row that finalists differ on: rows would seem to be known, and df would be 0."""
    one, other = squared(1.0, finalists, 3), squared(1.0, finalists, 3, seed=1)
    far = np.linspace(-1, 1, 3)[:, None] * np.eye(1, 300)
    one, other = ([each - 1000 - 900 * far for each in arm] for arm in (one, other))
    found = compare_arms(one, other, score="minus_squared_error")
    plain = compare_arms(one, other)
    assert found.df >= 1 and found.standard_error >= plain.standard_error
    assert found.word == "cannot tell" and np.isfinite([found.low, found.high]).all()


def test_scores_in_0_to_1_are_compared_as_right_and_wrong_are() -> None:
    one, other = finalist(0.8, 3), finalist(0.7, 3, seed=1)
    found, floats = (
        compare_finalists(one, other),
        compare_finalists(one.astype(float), other.astype(float), score="example_f1"),
    )
    assert floats == replace(found, score="example_f1")
