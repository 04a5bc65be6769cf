"""Tuning curves and Pareto fronts against values worked out by hand."""

from itertools import combinations

import numpy as np
import pytest
from scipy.special import smirnovi
from scipy.stats import kstwo

from kdsweep.analysis.budget import next_gain, tuning_curve
from kdsweep.errors import DataError


def test_the_curve_is_the_mean_of_the_best_over_all_draws_without_return() -> None:
    scores = [0.5, 0.9, 0.7, 0.7, 0.6]
    expected = [np.mean([max(drawn) for drawn in combinations(scores, k)]) for k in range(1, 6)]
    assert tuning_curve(scores).expected == pytest.approx(np.array(expected))


def test_the_band_holds_the_curve_and_all_three_rise() -> None:
    found = tuning_curve(list(np.linspace(0.6, 0.8, 24)))
    assert (found.low <= found.expected).all() and (found.expected <= found.high).all()
    assert all((np.diff(line) >= 0).all() for line in (found.low, found.expected, found.high))
    assert found.high[-1] <= 1 and found.low[0] >= 0


def test_the_band_covers_the_true_curve_of_independent_trials_for_all_k_at_once() -> None:
    """Uniform scores: E[max of k] = k / (k + 1)."""
    rng, truth = np.random.default_rng(0), np.arange(1, 11) / np.arange(2, 12)
    found = [tuning_curve(list(rng.random(10))) for _ in range(100)]
    assert np.mean([((one.low <= truth) & (truth <= one.high)).all() for one in found]) >= 0.95


@pytest.mark.slow
def test_the_curve_is_unbiased() -> None:
    rng, truth = np.random.default_rng(0), np.arange(1, 11) / np.arange(2, 12)
    found = np.mean([tuning_curve(list(rng.random(10))).expected for _ in range(2000)], axis=0)
    assert found == pytest.approx(truth, abs=0.01)


def test_scores_outside_their_range_and_no_scores_are_refused() -> None:
    for scores in ([], [1.2], [0.5, -0.1], [float("nan")]):
        with pytest.raises(DataError, match="a tuning curve needs"):
            tuning_curve(scores)


def test_the_next_trials_add_nothing_to_a_flat_search_and_little_to_a_long_one() -> None:
    assert next_gain([0.7] * 7, 10) is None
    assert next_gain([0.7] * 8, 10) == pytest.approx(0)
    short, long = (next_gain(list(np.linspace(0.6, 0.8, n)), 10) for n in (10, 40))
    assert short is not None and long is not None and 0 < long < short


def test_the_gain_is_the_last_slope_of_the_curve_carried_on_as_far_again() -> None:
    """From n / 2 to n trials and from n to 2 n, log k rises by the same."""
    scores = [0.61, 0.7, 0.55, 0.83, 0.64, 0.72, 0.5, 0.8]
    half, whole = (np.mean([max(drawn) for drawn in combinations(scores, k)]) for k in (4, 8))
    assert next_gain(scores, 8) == pytest.approx(whole - half)
    assert next_gain(scores, 24) == pytest.approx(2 * (whole - half))


def test_the_curve_of_thousands_of_trials_has_hundreds_of_points_its_ends_and_halves_among_them() -> None:
    scores = list(np.random.default_rng(0).random(1201))
    found, ordered = tuning_curve(scores), np.sort(scores)
    assert len(found.trials) == len(found.expected) == len(found.low) == len(found.high) <= 500
    assert {1, 2, 600, 601, 1201} <= set(found.trials.tolist())
    assert found.at(1) == pytest.approx(ordered.mean()) and found.at(1201) == pytest.approx(ordered[-1])
    two = np.sum(ordered * np.arange(1201)) / (1201 * 1200 / 2)
    assert found.at(2) == pytest.approx(two)
    assert next_gain(scores, 1201) is not None


def test_the_band_is_as_wide_as_kolmogorovs_but_for_a_few_millionths() -> None:
    for n in (1, 8, 100, 5000):
        assert float(smirnovi(n, 0.025)) == pytest.approx(float(kstwo.ppf(0.95, n)), rel=3e-6)
