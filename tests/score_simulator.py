"""Simulated studies of row scores that are no right and wrong: F1 of a row's labels, with atoms at 0 and 1, and minus the squared error.

Both follow the first model of `study_simulator.py`: row n has an effect on every model, on those of an arm, of a configuration
and of a seed, all normal, with the correlations `ALIKE` of two seeds, two configurations of an arm, and students of two arms. Of
24 configurations an arm, which differ by a standard deviation of `spread`, the 10 best on 1,000 validation rows are finalists.

F1: the effects' sum, plus the configuration's and the seed's own shift, falls between the cuts of `F1_CUTS`: 30 % of rows have 0,
42 % have 1, the others what sets of one to four labels give; its mean is 0.58, as on emotions with 28 labels.

Squared error: the effects' sum is an error, times a row's own size: with `tail` t, sizes are those that make errors Student's t
with so many degrees of freedom, so that a few rows make up much of the mean. A student's mean squared error is 1 less the shifts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from scipy.stats import norm

ALIKE = (0.93, 0.91, 0.89)
F1_VALUES = np.array([0.0, 0.4, 0.5, 2 / 3, 0.8, 1.0])
F1_CUTS = norm.ppf(np.cumsum([0.30, 0.05, 0.08, 0.11, 0.04]))


@dataclass(frozen=True, kw_only=True)
class ScorePlan:
    """What a simulated study is made of; gain, spread and seed_sd count in the mean score: points of F1 / 100, or squared error."""

    kind: Literal["f1", "squared error"] = "f1"
    gain: float = 0.0
    spread: float = 0.013
    seed_sd: float = 0.003
    tail: int = 0
    """Degrees of freedom of the errors' Student's t; 0: normal."""
    trials: int = 24
    finalists: int = 10
    seeds: int = 1
    validation_rows: int = 1000
    test_rows: int = 3000


def score_studies(plan: ScorePlan, count: int, seed: int = 0) -> Iterator[np.ndarray]:
    """The test scores of the finalists of `count` studies, float [2, F, S, rows], distilled first."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield _study(plan, rng)


def _study(plan: ScorePlan, rng: np.random.Generator) -> np.ndarray:
    shifts = plan.spread * rng.standard_normal((2, plan.trials)) + np.array([[plan.gain], [0.0]])
    searched = _scores(plan, rng, shifts, 1, plan.validation_rows).mean(axis=(2, 3))
    best = np.argsort(-searched, axis=1)[:, : plan.finalists]
    return _scores(plan, rng, np.take_along_axis(shifts, best, axis=1), plan.seeds, plan.test_rows)


def _scores(plan: ScorePlan, rng: np.random.Generator, shifts: np.ndarray, seeds: int, rows: int) -> np.ndarray:
    normal = lambda *shape: rng.standard_normal(shape, dtype=np.float32)
    row, arm, configuration, noise = _deviations()
    arms, configurations = shifts.shape
    found = row * normal(rows) + arm * normal(arms, 1, 1, rows) + configuration * normal(arms, configurations, 1, rows)
    found = found + noise * normal(arms, configurations, seeds, rows)
    moved = (shifts[:, :, None] + plan.seed_sd * normal(arms, configurations, seeds))[..., None]
    if plan.kind == "f1":
        return F1_VALUES[np.searchsorted(F1_CUTS, found + moved / _slope())]
    sizes = plan.tail - 2 if plan.tail else 1.0
    sizes = sizes / rng.chisquare(plan.tail, rows) if plan.tail else np.ones(rows)
    return -np.square(found) * sizes * (1 - moved)


def _deviations() -> np.ndarray:
    same, near, across = ALIKE
    return np.sqrt(np.array([across, near - across, same - near, 1 - same])).astype(np.float32)


@cache
def _slope() -> float:
    """By how much the mean F1 rises with a shift of the effects' sum."""
    return float(np.diff(F1_VALUES) @ norm.pdf(F1_CUTS))
