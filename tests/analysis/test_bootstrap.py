"""The difference of Pearson correlations by drawing rows anew: against numpy's correlations and the delta method."""

import numpy as np
import pytest

from kdsweep.analysis.bootstrap import pearson_difference
from kdsweep.errors import DataError


def arms_of(
    rows: int, noises: tuple[float, float], seed: int = 0
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Two finalists an arm, of two and of one seed, whose predictions are the labels with noise."""
    rng = np.random.default_rng(seed)
    labels = (3 + rng.normal(size=rows)).astype(np.float32)
    arms = [
        [(labels + noise * rng.normal(size=(seeds, rows))).astype(np.float32) for seeds in (2, 1)] for noise in noises
    ]
    return arms[0], arms[1], labels


def test_it_is_the_difference_of_the_means_over_finalists_of_their_seeds_mean() -> None:
    one, other, labels = arms_of(500, (0.5, 0.7))
    r = lambda arm: np.mean([np.mean([np.corrcoef(seed, labels)[0, 1] for seed in each]) for each in arm])
    found = pearson_difference(one, other, labels)
    assert found.value == pytest.approx(r(one) - r(other), abs=1e-6)
    assert found.low < found.value < found.high and (found.rows, found.draws) == (500, 2000)
    assert found.counted == "bootstrap over rows"
    assert found == pearson_difference(one, other, labels)  # the draws have a seed of their own


def test_the_interval_is_as_wide_as_the_influence_of_single_rows_says() -> None:
    """r's influence of a row is zx zy - r (zx^2 + zy^2) / 2; of the difference, paired, that of one less that of the other."""
    rng = np.random.default_rng(1)
    labels = rng.normal(size=2000)
    both = [labels + noise * rng.normal(size=2000) for noise in (0.5, 0.7)]
    z = lambda values: (values - values.mean()) / values.std()
    influence = [z(x) * z(labels) - np.corrcoef(x, labels)[0, 1] * (z(x) ** 2 + z(labels) ** 2) / 2 for x in both]
    found = pearson_difference([both[0][None]], [both[1][None]], labels)
    expected = 2 * 1.96 * np.std(influence[0] - influence[1]) / np.sqrt(2000)
    assert found.high - found.low == pytest.approx(expected, rel=0.08)


def test_a_constant_is_correlated_with_nothing_and_an_arm_with_itself_does_not_differ() -> None:
    one, _, labels = arms_of(50, (0.5, 0.7))
    flat = pearson_difference([np.ones((1, 50))], [np.full((2, 50), 3.0)], labels)
    assert (flat.value, flat.low, flat.high) == (0, 0, 0)
    same = pearson_difference(one, one, labels)
    assert (same.value, same.low, same.high) == pytest.approx((0, 0, 0), abs=1e-9)


def test_predictions_of_other_rows_are_refused() -> None:
    one, other, labels = arms_of(20, (0.5, 0.7))
    with pytest.raises(DataError, match="on the same rows, but got labels"):
        pearson_difference(one, other, labels[:-1])
