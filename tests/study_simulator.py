"""Simulated studies whose truth is known: two arms searched, three finalists each on fresh seeds, a test split.

Row n is right for seed s of configuration c of an arm if

    m_c + g_cs + row_n + arm_n + configuration_cn + noise_csn > 0,

all but m_c normal with mean 0; the four row effects have variance 1 together, so a seed's true accuracy is
Phi(m_c + g_cs) and a configuration's, over seeds, Phi(m_c / sqrt(1 + var g)). `noise` is set so that two seeds of a
configuration disagree on 4.5 % of rows and `arm` so that students of both arms do on 6.3 % (5.4 % for two configurations
of one arm), at an accuracy of 85 %.

g is a seed's main effect: its standard deviation in points of true accuracy is the study's `seed_sd`. 0 is what large
training sets come near to; 0.3 is as much as flipped rows alone move a single seed's accuracy on 3,000 rows (0.27); 0.5
makes an interval from rows alone cover some 72 % for single seeds, 0.7 some 62 % (measured here), and such intervals
are said to cover 57-95 % in reality.

A configuration's true accuracy is the level less an exponential deficit (a quadratic response in two axes) with a mean
of 2 points for the first 10 trials, which are random, and of 1 point for the other 14, where TPE has learnt something.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import multivariate_normal, norm

SAME, NEAR, ACROSS = 0.045, 0.054, 0.063
"""Shares of rows on which two seeds, two configurations of an arm, and both arms' students disagree."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a simulated study is made of."""

    gain: float = 0.0
    """Points of true accuracy that distilling adds to every configuration."""
    seed_sd: float = 0.3
    """Standard deviation of true accuracies over seeds, in points."""
    seed_sd_fine_tuned: float | None = None
    """The same for the fine-tuned arm, where it differs."""
    uneven: float = 0.0
    """Standard deviation of log(seed_sd) between configurations."""
    level: float = 0.85
    deficits: tuple[float, float] = (2.0, 1.0)
    """Mean points lost by the first 10 configurations and by the others."""
    trials: int = 24
    finalists: int = 3
    seeds: int = 3
    validation_rows: int = 1000
    test_rows: int = 3000


@dataclass(frozen=True, kw_only=True)
class Study:
    """One simulated study: distilled first, fine-tuned second."""

    search: np.ndarray
    """The finalists' search scores, float [2, F]."""
    validation: np.ndarray
    """bool [2, F, S, rows]."""
    test: np.ndarray
    truth: np.ndarray
    """True accuracies over seeds, float [2, F]."""

    @property
    def chosen(self) -> tuple[int, int]:
        """The best finalist of each arm on validation with fresh seeds."""
        first, second = self.validation.mean(axis=(2, 3)).argmax(axis=1)
        return int(first), int(second)


def studies(plan: Plan, count: int, seed: int = 0) -> Iterator[Study]:
    """`count` independent studies of one plan."""
    rng = np.random.default_rng(seed)
    deviations = row_deviations(plan.level)
    for _ in range(count):
        yield _study(plan, rng, deviations)


def row_deviations(level: float) -> np.ndarray:
    """Standard deviations of row, arm, configuration and noise effects that give the three disagreements, float32 [4]."""
    same, near, across = (_correlation(level, share) for share in (SAME, NEAR, ACROSS))
    return np.sqrt(np.array([across, near - across, same - near, 1 - same])).astype(np.float32)


def _correlation(level: float, disagreement: float) -> float:
    mean = np.full(2, norm.ppf(level))

    def excess(rho: float) -> float:
        both = multivariate_normal.cdf(mean, cov=[[1, rho], [rho, 1]])
        return float(2 * (level - both) - disagreement)

    return float(brentq(excess, 0.01, 0.9999))


def _study(plan: Plan, rng: np.random.Generator, deviations: np.ndarray) -> Study:
    scale = 1 / norm.pdf(norm.ppf(plan.level)) / 100
    deficit = rng.exponential(np.where(np.arange(plan.trials) < 10, *plan.deficits), (2, plan.trials))
    means = norm.ppf(plan.level - deficit / 100 + np.array([[plan.gain], [0.0]]) / 100)
    second = plan.seed_sd if plan.seed_sd_fine_tuned is None else plan.seed_sd_fine_tuned
    spread = scale * np.array([[plan.seed_sd], [second]]) * np.exp(plan.uneven * rng.standard_normal(means.shape))
    row, searched = _validation(plan, rng, deviations, means, spread)
    best = np.argsort(-searched, axis=1)[:, : plan.finalists]
    pick = lambda values: np.take_along_axis(values, best, axis=1)
    seeds = pick(spread)[:, :, None] * rng.standard_normal((2, plan.finalists, plan.seeds))
    lines = -(pick(means)[:, :, None] + seeds)
    chosen_rows = np.take_along_axis(row, best[:, :, None], axis=1)
    test_rows = _rows(rng, deviations, plan.finalists, plan.test_rows)
    return Study(
        search=pick(searched),
        validation=_right(rng, deviations, chosen_rows, lines),
        test=_right(rng, deviations, test_rows, lines),
        truth=norm.cdf(pick(means) / np.sqrt(1 + pick(spread) ** 2)),
    )


def _validation(
    plan: Plan, rng: np.random.Generator, deviations: np.ndarray, means: np.ndarray, spread: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Row effects of every searched configuration [2, trials, rows], and their accuracies [2, trials] with one seed."""
    row = _rows(rng, deviations, plan.trials, plan.validation_rows)
    lines = -(means + spread * rng.standard_normal(means.shape))
    return row, _right(rng, deviations, row, lines[:, :, None]).mean(axis=(2, 3))


def _rows(rng: np.random.Generator, deviations: np.ndarray, configurations: int, rows: int) -> np.ndarray:
    """Row, arm and configuration effects together, float32 [2, configurations, rows]."""
    normal = lambda *shape: rng.standard_normal(shape, dtype=np.float32)
    everywhere, arm = deviations[0] * normal(rows), deviations[1] * normal(2, 1, rows)
    return everywhere + arm + deviations[2] * normal(2, configurations, rows)


def _right(rng: np.random.Generator, deviations: np.ndarray, rows: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """bool [2, configurations, seeds, rows]: rows [2, configurations, rows] over lines [2, configurations, seeds]."""
    noise = rng.standard_normal((*lines.shape, rows.shape[-1]), dtype=np.float32)
    return rows[:, :, None] + deviations[3] * noise > lines[..., None].astype(np.float32)
