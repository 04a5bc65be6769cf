"""Verdicts against the truth: a thousand simulated studies for each planted gain, in two models (`-s` prints them)."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from study_simulator import ACROSS, SAME, Plan, Study, UnevenPlan, row_deviations, studies, uneven_studies

from kdsweep.analysis.secondary import adjusted, third_arm
from kdsweep.analysis.two_arms import compare_arms, compare_finalists
from kdsweep.analysis.variances import SeedVariance, run_variance, seed_variance

pytestmark = pytest.mark.slow
STUDIES = 1000
EVEN = [Plan(seed_sd=sd) for sd in (0.0, 0.5)]
EVEN_GAIN = [Plan(gain=2, seed_sd=0.5)]
"""The hardest: with smaller seed effects more is found (1.000 of studies)."""
UNEVEN = [UnevenPlan(arms=3, third_gain=2.0), UnevenPlan(arms=3, validation_rows=1000)]
UNEVEN_GAIN = [UnevenPlan(arms=3, gain=2, third_gain=2.0), UnevenPlan(gain=2, validation_rows=1000)]
THREE_ARMS = [*UNEVEN, UNEVEN_GAIN[0]]
"""Both models with the default finalists; the third arm gains as much as the first or nothing, or gains alone."""
IGNORED = SeedVariance(mean_square=0.0, residual=0.0, df=10**6)


@cache
def measured(plan: Plan | UnevenPlan, count: int = STUDIES) -> dict[str, float]:
    """Of `count` studies: how often the arms' verdict says what, how often intervals cover, widths, bias and what is shipped, in points."""
    rows = [_row(plan, study) for study in simulated(plan, count)]
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    print(f"\n{plan}\n  " + "  ".join(f"{name} {value:.3f}" for name, value in means.items()))
    return means


def simulated(plan: Plan | UnevenPlan, count: int) -> Sequence[Study]:
    found = studies(plan, count) if isinstance(plan, Plan) else uneven_studies(plan, count)
    return found  # type: ignore[return-value]


def _row(plan: Plan | UnevenPlan, study: Study) -> dict[str, float]:
    """What one study says: the primary comparison, that of the chosen pair, and the third arm's."""
    distilled, fine_tuned, *third = [list(arm) for arm in study.test.astype(np.float64)]
    searched = (plan.trials, plan.trials)
    arms, gain = compare_arms(distilled, fine_tuned, searched=searched), plan.gain / 100
    (i, j), runs = study.chosen, seed_variance([*distilled, *fine_tuned])
    pair = compare_finalists(
        distilled[i], fine_tuned[j], seeds=runs if runs.df else run_variance([distilled, fine_tuned])
    )
    of_pair = study.truth[0, i] - study.truth[1, j]
    row = {
        "better": arms.word.startswith("better"),
        "not better": arms.word.startswith("not better"),
        "covers gain": arms.low <= gain <= arms.high,
        "width": 100 * (arms.high - arms.low),
        "bias": 100 * (arms.difference - gain),
        "pair covers": pair.low <= of_pair <= pair.high,
        "pair better": pair.word == "better",
        "pair falsely better": pair.word == "better" and of_pair <= 0,
        "pair width": 100 * (pair.high - pair.low),
        "shipped": 100 * study.truth[0, i],
        "finalists": 100 * study.truth[0].mean(),
    }
    if third:
        asked = third_arm(distilled, fine_tuned, third[0], searched=(plan.trials,) * 3)
        words = [each.word for each in adjusted(asked)]
        true = [plan.gain - plan.third_gain, plan.third_gain]
        row["third falsely"] = any(word != "cannot tell" for word, real in zip(words, true, strict=True) if real == 0)
        row["third found"] = all(word == "better" for word, real in zip(words, true, strict=True) if real > 0)
    return {name: float(value) for name, value in row.items()}


@pytest.mark.parametrize("plan", [*EVEN, *UNEVEN], ids=str)
def test_without_a_difference_the_verdict_of_the_arms_says_better_in_at_most_3_5_percent(
    plan: Plan | UnevenPlan,
) -> None:
    found = measured(plan)
    assert found["better"] <= 0.035 and found["not better"] <= 0.035


@pytest.mark.parametrize("plan", [*EVEN_GAIN, *UNEVEN_GAIN], ids=str)
def test_a_gain_of_2_points_is_found_in_at_least_90_percent(plan: Plan | UnevenPlan) -> None:
    assert measured(plan)["better"] >= 0.9


@pytest.mark.parametrize("plan", [*EVEN, *UNEVEN, *EVEN_GAIN, *UNEVEN_GAIN], ids=str)
def test_the_interval_covers_the_gain_in_93_to_98_percent_and_a_pairs_is_rather_too_wide(
    plan: Plan | UnevenPlan,
) -> None:
    """A pair of one seed each is judged by how finalists vary, which is more than seeds do."""
    found = measured(plan)
    assert 0.93 <= found["covers gain"] <= 0.98 and abs(found["bias"]) <= 0.1
    assert found["pair covers"] >= 0.93 and found["pair falsely better"] <= 0.035


@pytest.mark.parametrize("plan", THREE_ARMS, ids=str)
def test_the_third_arms_comparisons_are_as_rarely_wrong(plan: UnevenPlan) -> None:
    """Both together, corrected for their number; whatever the third arm does, the limits above hold."""
    found = measured(plan)
    assert found["third falsely"] <= 0.055
    assert found["third found"] >= 0.8  # two comparisons share what the verdict has to itself


@pytest.mark.parametrize(
    "plan",
    [
        Plan(seed_sd=0.3, deficits=(0.0, 0.0)),
        Plan(seed_sd=0.2, seed_sd_fine_tuned=0.6),
        Plan(trials=10, finalists=5, seeds=2),
        UnevenPlan(trials=10, finalists=5, seeds=2),
        UnevenPlan(trials=10, finalists=6),
    ],
    ids=["equal configurations", "seed effects differ by arm", "ten trials", "ten uneven", "six of ten uneven"],
)
def test_other_worlds_keep_what_is_promised(plan: Plan | UnevenPlan) -> None:
    """Not without bias: the noisier arm's chosen finalists had the luckier seeds."""
    found = measured(plan, STUDIES // 2)
    assert found["better"] <= 0.035 and found["pair covers"] >= 0.93


def test_few_finalists_of_several_seeds_find_half_as_much_and_a_pair_proves_nothing_of_arms() -> None:
    few = UnevenPlan(gain=2, finalists=3, seeds=3)
    assert measured(few, 300)["better"] < 0.6 < measured(UNEVEN_GAIN[0])["better"]
    pair = measured(UnevenPlan(finalists=1, seeds=3), 300)
    assert pair["better"] > 0.07  # so the word is that of this pair


def test_intervals_from_rows_alone_cover_too_rarely() -> None:
    covered = []
    for study in simulated(Plan(seed_sd=0.5, finalists=3, seeds=3), 300):
        (i, j), truth = study.chosen, study.truth
        right, baseline, gain = study.test[0, i], study.test[1, j], truth[0, i] - truth[1, j]
        methods = (
            compare_finalists(right, baseline, seeds=IGNORED),
            compare_finalists(right[:1], baseline[:1]),
            compare_finalists(right, baseline, seeds=seed_variance([*study.test[0], *study.test[1]])),
        )
        covered.append([one.low <= gain <= one.high for one in methods])
    rows, single, pooled = np.mean(covered, axis=0)
    assert single < 0.8 and rows < 0.86 and pooled >= 0.93


def test_simulated_students_disagree_as_real_ones_do() -> None:
    even = Plan(seed_sd=0.0, deficits=(0.0, 0.0), finalists=3, seeds=3)
    uneven = UnevenPlan(seed_sd=0.0, spread=0.0, finalists=3, seeds=3)
    for plan in (even, uneven):
        found = list(simulated(plan, 30))
        for rights in (np.stack([study.test for study in found]), np.stack([study.validation for study in found])):
            assert np.mean(rights[:, :, :, 0] != rights[:, :, :, 1]) == pytest.approx(SAME, abs=0.002)
            assert np.mean(rights[:, 0, 0, 0] != rights[:, 1, 0, 0]) == pytest.approx(ACROSS, abs=0.003)
            assert rights.mean() == pytest.approx(0.85, abs=0.005)
    assert np.sum(row_deviations(0.85) ** 2) == pytest.approx(1)
