"""Simulated studies whose truth is known: arms searched, the finalists of each on fresh seeds, a test split. Two models.

The first, `Plan`: configurations that matter little.

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
So the best ten lie 0.4 points apart (standard deviation; 0.6 as measured, on 3,000 rows). That is no less than what is
recorded: the three finalists an arm of a run of sweeps/T_alpha.yaml, of two seeds each on 3,202 rows, lie 0.2 and 0.3 points
apart as measured, where this model has 0.5; two seeds disagree there on 7.3 % of rows, two configurations of an arm on
7.3 %, both arms' students on 9.0 %, at an accuracy of 75.5 %.

The second, `UnevenPlan`: configurations that matter, on rows of very different difficulty. Whether a student is right on row
n is a coin of its own probability. Probabilities of rows follow a beta distribution with a mean of 85 %; those of an arm, and
of a configuration, are spread around the level above them by further beta distributions, so that students disagree on as
many rows as in the first model. Configurations of an arm differ by a standard deviation of `spread` points, and all that is
above is the same for both splits. The best of all are chosen on as many validation rows as there are test rows, or on 1,000.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

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
    finalists: int = 10
    seeds: int = 1
    validation_rows: int = 1000
    test_rows: int = 3000


@dataclass(frozen=True, kw_only=True)
class Study:
    """One simulated study of two or three arms: distilled first, fine-tuned second, pseudo-labeled third."""

    search: np.ndarray
    """The finalists' search scores, float [arms, F]."""
    validation: np.ndarray
    """bool [arms, F, S, rows]."""
    test: np.ndarray
    truth: np.ndarray
    """True accuracies over seeds, float [arms, F]."""

    @property
    def chosen(self) -> tuple[int, int]:
        """The best finalist of each arm on validation with fresh seeds."""
        first, second = self.validation.mean(axis=(2, 3)).argmax(axis=1)[:2]
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


# The second model ----------------------------------------------------------------------------------------------------

POPULATION = 200_000
"""Rows that those of every study are drawn from."""


@dataclass(frozen=True, kw_only=True)
class UnevenPlan:
    """What a study of the second model is made of."""

    arms: int = 2
    """3: with a pseudo-labeled one."""
    gain: float = 0.0
    """Points of true accuracy that distilling adds to every configuration."""
    third_gain: float = 0.0
    """The same for the third arm."""
    spread: float = 1.3
    """Standard deviation of true accuracies between configurations of an arm, in points."""
    seed_sd: float = 0.3
    level: float = 0.85
    trials: int = 24
    finalists: int = 10
    seeds: int = 1
    validation_rows: int = 3000
    test_rows: int = 3000


def uneven_studies(plan: UnevenPlan, count: int, seed: int = 0) -> Iterator[Study]:
    """`count` independent studies of one plan."""
    rng, population = np.random.default_rng(seed), probabilities(plan.level)
    for _ in range(count):
        yield _uneven_study(plan, rng, population)


@cache
def probabilities(level: float) -> np.ndarray:
    """How likely each of `POPULATION` rows is right in each of three arms, float32 [3, POPULATION]."""
    rng, around = np.random.default_rng(1), ACROSS / (2 * level * (1 - level))
    rows = _beta(rng, level, around / (1 - around), (1, POPULATION))
    return _beta(rng, rows, (NEAR / ACROSS) / (1 - NEAR / ACROSS), (3, POPULATION)).astype(np.float32)


def _beta(rng: np.random.Generator, mean: float | np.ndarray, weight: float, shape: tuple[int, int]) -> np.ndarray:
    return np.clip(rng.beta(weight * mean, weight * (1 - np.asarray(mean)), shape), 1e-6, 1 - 1e-6)


def _uneven_study(plan: UnevenPlan, rng: np.random.Generator, population: np.ndarray) -> Study:
    gains = np.array([[plan.gain], [0.0], [plan.third_gain]])[: plan.arms]
    shifts = (gains + plan.spread * rng.standard_normal((plan.arms, plan.trials))) / 100
    seed_effects = lambda *shape: plan.seed_sd / 100 * rng.standard_normal(shape)
    rows, test_rows = (
        population[: plan.arms, rng.integers(POPULATION, size=count)]
        for count in (plan.validation_rows, plan.test_rows)
    )
    chances = _moved(rows[:, None], shifts, plan.level)
    tried = rng.random(chances.shape, dtype=np.float32) < _moved(
        chances, seed_effects(plan.arms, plan.trials), plan.level
    )
    searched = tried.mean(axis=2)
    best = np.argsort(-searched, axis=1)[:, : plan.finalists]
    pick = lambda values: np.take_along_axis(values, best if values.ndim == 2 else best[:, :, None], axis=1)
    fresh = seed_effects(plan.arms, plan.finalists, plan.seeds)
    on_test = _moved(test_rows[:, None], pick(shifts), plan.level)
    return Study(
        search=pick(searched),
        validation=_coins(rng, pick(chances), pick(tried)[:, :, None], fresh, plan.level),
        test=_coins(rng, on_test, np.empty((plan.arms, plan.finalists, 0, 1)), fresh, plan.level),
        truth=plan.level + pick(shifts),
    )


def _moved(chances: np.ndarray, shifts: np.ndarray, level: float) -> np.ndarray:
    """`chances` [arms, any, rows], with a mean of `level`, moved so that the mean moves by `shifts` [arms, configurations]."""
    down, up = np.minimum(shifts, 0) / level, np.maximum(shifts, 0) / (1 - level)
    scale, added = (1 + down - up).astype(np.float32)[..., None], up.astype(np.float32)[..., None]
    moved: np.ndarray = chances * scale + added
    return moved


def _coins(
    rng: np.random.Generator, chances: np.ndarray, seen: np.ndarray, fresh: np.ndarray, level: float
) -> np.ndarray:
    """bool [arms, configurations, seeds, rows]: whether students of fresh seeds are right.

    A configuration's own probability on a row has a beta distribution around `chances` [arms, configurations, rows]. It is
    not drawn: given what its earlier seeds, and `seen` [arms, configurations, seeds, rows], said, the next one is right with
    the mean of the distribution that they leave (Polya's urn).
    """
    weight = np.float32((SAME / NEAR) / (1 - SAME / NEAR))
    right, count, found = weight * chances + seen.sum(axis=2, dtype=np.float32), weight + seen.shape[2], []
    for number in range(fresh.shape[2]):
        chance = _moved(right / np.float32(count), fresh[:, :, number], level)
        found.append(rng.random(chance.shape, dtype=np.float32) < chance)
        right, count = right + found[-1], count + 1
    return np.stack(found, axis=2)
