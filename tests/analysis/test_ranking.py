"""Ranks, Holm's correction, the ratio to the teacher, shrinkage and power."""

import math

import numpy as np
import pytest
from samples import finalist
from scipy.stats import nct, t

from kdsweep.analysis.planned_power import choice_factor
from kdsweep.analysis.ranking import distillation_ratio, holm, minimal_detectable_difference, power, ranks, shrinkage
from kdsweep.analysis.two_arms import compare_arms
from kdsweep.analysis.variances import run_variance
from kdsweep.errors import DataError


def test_holm_multiplies_by_the_tests_left_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1] and holm([]) == []


def test_finalists_that_cannot_be_told_apart_share_a_rank() -> None:
    finalists = [finalist(0.6, 3, seed=1), finalist(0.9, 3, seed=2), finalist(0.9, 3, seed=3)]
    assert ranks(finalists) == [3, 1, 1]
    assert ranks([finalists[0]] * 3) == [1, 1, 1] and ranks(finalists[:1]) == [1]
    assert ranks([right[:1] for right in finalists]) == [3, 1, 1]


def test_the_ratio_is_the_share_of_the_gap_that_is_closed() -> None:
    right, baseline, teacher = finalist(0.8, 3), finalist(0.7, 3, seed=1), finalist(0.9, 1, seed=2)
    found = distillation_ratio([right], [baseline], teacher[0])
    assert found is not None and found.low < found.value < found.high
    assert found.value == pytest.approx((right.mean() - baseline.mean()) / (teacher.mean() - baseline.mean()))


def test_at_the_ends_of_the_ratios_interval_the_difference_is_just_significant() -> None:
    """Fieller: |X - r Y| = t SE(X - r Y), with rows and the fine-tuned seeds in both."""
    one, other = ([finalist(level + 0.02 * k, 1, seed=k) for k in range(3)] for level in (0.8, 0.7))
    teacher = finalist(0.9, 1, seed=9)
    found = distillation_ratio(one, other, teacher[0], searched=(9, 9))
    gain = compare_arms(one, other, searched=(9, 9))
    gap = compare_arms(other, [teacher], searched=(9, 1), given_baseline=True)
    assert found is not None and gap.df < 20
    spread = [
        choice_factor(3, 9) / 3 * (known.mean_square - known.residual) for known in map(run_variance, ([one], [other]))
    ]
    for r in (found.low, found.high):
        rows = np.mean(one, axis=(0, 1)) - (1 - r) * np.mean(other, axis=(0, 1)) - r * teacher[0]
        variance = rows.var(ddof=1) / 400 + (1 + r**2) / (400 * 399) + spread[0] + (1 - r) ** 2 * spread[1]
        ratio = abs(rows.mean()) / np.sqrt(variance)
        assert ratio == pytest.approx(t.ppf(0.975, min(gain.df, gap.df)), rel=1e-6)


def test_without_a_gap_or_with_a_worse_teacher_the_ratio_is_undefined() -> None:
    right, baseline = finalist(0.8, 3), finalist(0.75, 3, seed=1)
    assert distillation_ratio([right], [baseline], finalist(0.751, 1, seed=2)[0]) is None
    assert distillation_ratio([right], [baseline], finalist(0.5, 1, seed=2)[0]) is None


def test_shrinkage_is_the_mean_loss_with_students_interval() -> None:
    """Losses 1, 2, 3 points: mean 2, standard deviation 1, t(2) = 4.3027."""
    found = shrinkage([0.81, 0.82, 0.83], [0.80, 0.80, 0.80])
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.02, 0.02 - 0.024842, 0.02 + 0.024842), abs=1e-5)
    assert shrinkage([0.8], [0.7]) is None
    with pytest.raises(DataError, match="got 2 and 1"):
        shrinkage([0.8, 0.8], [0.7])


def test_power_is_half_the_level_without_a_difference_and_that_of_the_normal_for_many_df() -> None:
    assert power(0.0, 0.01, 12) == pytest.approx(0.025, abs=1e-6)
    assert power(0.028016, 0.01, 1e5) == pytest.approx(0.8, abs=1e-3)
    for df in (1, 5, 50, 1000):
        for ratio in (-5.0, 0.5, 3.0, 38.2, 38.3, 45.6, 50.7, 100.0):
            assert power(ratio, 1.0, df) == pytest.approx(nct.sf(t.ppf(0.975, df), df, ratio), abs=1e-12)


def test_the_minimal_detectable_difference_is_found_with_80_percent() -> None:
    for df in (2.5, 4, 12, 30, 3000):
        assert power(minimal_detectable_difference(0.004, df), 0.004, df) == pytest.approx(0.8, abs=1e-6)
    assert math.isclose(minimal_detectable_difference(0.004, 1e5), 0.004 * 2.8016, rel_tol=1e-3)
