"""Verdicts on scores that are no right and wrong against the truth: many simulated studies for each planted gain (`-s` prints them)."""

from functools import cache

import numpy as np
import pytest
from score_simulator import ScorePlan, score_studies

from kdsweep.analysis.tasks import RowScore
from kdsweep.analysis.two_arms import compare_arms

F1 = ScorePlan()
SQUARED = ScorePlan(kind="squared error", spread=0.05, seed_sd=0.01)
HEAVY = ScorePlan(kind="squared error", spread=0.05, seed_sd=0.01, tail=5)
FEW_ROWS = ScorePlan(kind="squared error", spread=0.02, seed_sd=0.01, tail=5, test_rows=300)


@cache
def measured(plan: ScorePlan, count: int) -> dict[str, float]:
    """Of `count` studies: how often the arms' verdict says what, how often its interval covers the gain, its median width, and the bias."""
    score: RowScore = "example_f1" if plan.kind == "f1" else "minus_squared_error"
    rows = []
    for study in score_studies(plan, count):
        found = compare_arms(list(study[0]), list(study[1]), searched=(plan.trials, plan.trials), score=score)
        covers = found.low <= plan.gain <= found.high
        words = found.word == "better", found.word == "not better"
        rows.append([*words, covers, found.high - found.low, found.difference - plan.gain])
    better, worse, covered, _, bias = np.mean(rows, axis=0).tolist()
    means = {"better": better, "not better": worse, "covers gain": covered, "bias": bias}
    means["width"] = float(np.median([row[3] for row in rows]))
    print(f"\n{plan}\n  " + "  ".join(f"{name} {value:.4f}" for name, value in means.items()))
    return means


@pytest.mark.parametrize(
    "plan",
    [
        ScorePlan(finalists=4, trials=8, validation_rows=200, test_rows=400, gain=0.08),
        ScorePlan(finalists=4, trials=8, validation_rows=200, test_rows=400, gain=0.35, kind="squared error", tail=8),
    ],
    ids=["f1", "squared error"],
)
def test_a_large_gain_is_found_and_covered_in_small_studies(plan: ScorePlan) -> None:
    found = measured(plan, 40)
    assert found["covers gain"] >= 0.85 and found["better"] >= 0.85 and found["not better"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("plan", [F1, SQUARED, HEAVY, FEW_ROWS], ids=str)
def test_without_a_difference_few_verdicts_say_one_and_intervals_cover(plan: ScorePlan) -> None:
    found = measured(plan, 400)
    assert found["better"] <= 0.04 and found["not better"] <= 0.04
    assert 0.925 <= found["covers gain"] <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "power"),
    [
        (ScorePlan(gain=0.02), 0.85),
        (ScorePlan(kind="squared error", spread=0.05, seed_sd=0.01, gain=0.08), 0.85),
        (ScorePlan(kind="squared error", spread=0.05, seed_sd=0.01, tail=5, gain=0.08), 0.8),
        (ScorePlan(kind="squared error", spread=0.02, seed_sd=0.01, tail=5, test_rows=300, gain=0.15), 0.6),
    ],
    ids=str,
)
def test_a_gain_is_found_and_covered(plan: ScorePlan, power: float) -> None:
    found = measured(plan, 200)
    assert found["better"] >= power and found["covers gain"] >= 0.92
