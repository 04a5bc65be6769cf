"""A surrogate of recorded trials: the accuracy of every configuration by a Gaussian process, and the noise of a trial by its parts."""

import csv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import cho_solve, cholesky
from scipy.optimize import minimize

from kdsweep.config.axis import Axis

Point = dict[str, Any]
AXES = {
    "temperature": Axis(low=1.0, high=16.0, log=True),
    "alpha": Axis(low=0.0, high=1.0),
    "learning_rate": Axis(low=3e-5, high=1.5e-3, log=True),
    "batch_size": Axis(choices=(16, 32, 64)),
}
"""What was recorded, and what the searches search."""
VALIDATION_ROWS, TEST_ROWS = 800, 1_000
"""Rows of the recorded trials' splits."""
JITTER = 1e-8


def unit(points: list[Point]) -> np.ndarray:
    """Points in the unit cube, float [points, axes]; an axis of choices by its logarithms."""
    columns = []
    for name, axis in AXES.items():
        values = np.array([float(point[name]) for point in points])
        low, high = (axis.low, axis.high) if not axis.choices else (axis.choices[0], axis.choices[-1])
        assert low is not None and high is not None
        logs = axis.log or bool(axis.choices)
        columns.append(np.log(values / low) / np.log(high / low) if logs else (values - low) / (high - low))
    return np.stack(columns, axis=1)


@dataclass(frozen=True, kw_only=True)
class Process:
    """A Gaussian process with one length scale an axis (Matern 5/2), fitted to values at places of the unit cube."""

    places: np.ndarray
    mean: float
    scale: float
    lengths: np.ndarray
    weights: np.ndarray

    def at(self, places: np.ndarray) -> np.ndarray:
        """The mean at each place."""
        found: np.ndarray = self.mean + self.scale * _matern(places, self.places, self.lengths) @ self.weights
        return found


def fit(places: np.ndarray, values: np.ndarray) -> Process:
    """The process whose lengths, variance and noise are the likeliest, under weak priors that keep a few trials from saying too much."""
    mean, scale = float(values.mean()), float(values.std()) or 1e-3
    targets = (values - mean) / scale
    usual, width = (
        np.array([*[np.log(0.7)] * places.shape[1], 0.0, -2.0]),
        np.array([*[1.0] * places.shape[1], 1.0, 2.0]),
    )

    def loss(logs: np.ndarray) -> tuple[float, np.ndarray]:
        lengths, amplitude, noise = np.exp(logs[:-2]), np.exp(logs[-2]), np.exp(logs[-1])
        signal = amplitude * _matern(places, places, lengths)
        inverse, half_log = _inverse(signal + (noise + JITTER) * np.eye(len(places)))
        weights = inverse @ targets
        pull = (inverse - np.outer(weights, weights)) / 2
        slopes = [amplitude * (pull * each).sum() for each in _slopes(places, lengths)]
        slope = np.array([*slopes, (pull * signal).sum(), noise * np.trace(pull)])
        away = (logs - usual) / width
        return float(targets @ weights / 2 + half_log + away @ away / 2), slope + away / width

    bounds = [(-3, 3)] * (len(usual) - 1) + [(-9, 1)]
    logs = minimize(loss, usual, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60}).x
    lengths, amplitude, noise = np.exp(logs[:-2]), float(np.exp(logs[-2])), float(np.exp(logs[-1]))
    inverse, _ = _inverse(amplitude * _matern(places, places, lengths) + (noise + JITTER) * np.eye(len(places)))
    return Process(places=places, mean=mean, scale=scale, lengths=lengths, weights=amplitude * inverse @ targets)


def _inverse(covariance: np.ndarray) -> tuple[np.ndarray, float]:
    """The inverse, and half the logarithm of the determinant."""
    lower = cholesky(covariance, lower=True)
    return cho_solve((lower, True), np.eye(len(covariance))), float(np.log(np.diag(lower)).sum())


def _slopes(places: np.ndarray, lengths: np.ndarray) -> Iterator[np.ndarray]:
    """How `_matern` of the places changes with the logarithm of each length."""
    squares = ((places[:, None] - places[None]) / lengths) ** 2
    apart = np.sqrt(5 * squares.sum(axis=2))
    shared = 5 / 3 * (1 + apart) * np.exp(-apart)
    yield from (shared * squares[:, :, axis] for axis in range(len(lengths)))


def _matern(one: np.ndarray, other: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    apart = np.sqrt(5 * (((one[:, None] - other[None]) / lengths) ** 2).sum(axis=2))
    near: np.ndarray = (1 + apart + apart**2 / 3) * np.exp(-apart)
    return near


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Standard deviations of a score around a configuration's true accuracy, by what it comes from."""

    seed: float
    """The seed makes a better or a worse student, on all rows."""
    rows: float
    """These validation rows suit the configuration, whatever the seed."""
    flips: float
    """These rows and this seed: it falls anew for every run."""

    @property
    def whole(self) -> float:
        """That of a trial's score."""
        return float(np.sqrt(self.seed**2 + self.rows**2 + self.flips**2))


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """The recorded trials of a data set."""

    points: list[Point]
    validation: np.ndarray
    test: np.ndarray

    @property
    def pooled(self) -> np.ndarray:
        """The accuracy on the rows of both splits; the level of validation rows is that of test rows first."""
        level = self.validation - self.validation.mean() + self.test.mean()
        found: np.ndarray = (VALIDATION_ROWS * level + TEST_ROWS * self.test) / (VALIDATION_ROWS + TEST_ROWS)
        return found

    def repeats(self) -> list[np.ndarray]:
        """Which trials have one configuration, for those with several seeds."""
        groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for number, point in enumerate(self.points):
            groups[tuple(point[name] for name in AXES)].append(number)
        return [np.array(group) for group in groups.values() if len(group) > 1]


def read(table: Path) -> Recorded:
    """Read a table of `record_trials.py`."""
    with table.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    points = [{n: int(row[n]) if n == "batch_size" else float(row[n]) for n in AXES} for row in rows]
    validation, test = (np.array([float(row[name]) for row in rows]) for name in ("val_accuracy", "test_accuracy"))
    return Recorded(points=points, validation=validation, test=test)


def noise_of(found: Recorded, good: float = 0.5) -> Noise:
    """The noise of the better half of the trials: a search chooses among these, and students that learned nothing agree on all rows.

    Two seeds of a configuration share neither seed nor flips; what they have in common on both splits is the seed's. The difference of
    validation and test holds rows and flips of both, each in inverse proportion to the rows.
    """
    line = np.quantile(found.pooled, 1 - good)
    groups = [group for group in found.repeats() if found.pooled[group].mean() >= line]
    within = [np.cov(found.validation[group], found.test[group]) for group in groups]
    seeds = np.average(within, axis=0, weights=[len(group) - 1 for group in groups])
    seed = max(0.0, float(seeds[0, 1]))
    flips = max(0.0, float(seeds[0, 0]) - seed)
    apart = (found.validation - found.test)[found.pooled >= line]
    per_row = float(apart.var(ddof=1)) / (1 / VALIDATION_ROWS + 1 / TEST_ROWS)
    rows = max(0.0, per_row / VALIDATION_ROWS - flips)
    return Noise(seed=seed**0.5, rows=rows**0.5, flips=flips**0.5)


@dataclass(frozen=True, kw_only=True)
class Surrogate:
    """Answers a configuration's true accuracy."""

    process: Process

    def accuracy(self, points: list[Point]) -> np.ndarray:
        """The true accuracy of each point, in (0, 1)."""
        found: np.ndarray = 1 / (1 + np.exp(-self.process.at(unit(points))))
        return found


def surrogate_of(found: Recorded) -> Surrogate:
    """The surrogate of a table: a process of the log odds of the pooled accuracy."""
    odds = np.log(found.pooled / (1 - found.pooled))
    return Surrogate(process=fit(unit(found.points), odds))


def held_out(found: Recorded, folds: int = 6) -> Iterator[tuple[float, float]]:
    """Each trial's pooled accuracy as a surrogate predicts it that has seen no trial of its configuration, and the recorded one."""
    names = [tuple(point[name] for name in AXES) for point in found.points]
    order = {name: number % folds for number, name in enumerate(dict.fromkeys(names))}
    fold = np.array([order[name] for name in names])
    for number in range(folds):
        seen, new = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        part = Recorded(
            points=[found.points[index] for index in seen], validation=found.validation[seen], test=found.test[seen]
        )
        guessed = surrogate_of(part).accuracy([found.points[index] for index in new])
        yield from zip(guessed.tolist(), found.pooled[new].tolist(), strict=True)
