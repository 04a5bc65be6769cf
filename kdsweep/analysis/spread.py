"""Hold the variance of a difference by its sources, and what would bring it down."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdsweep.analysis.planned_power import choice_factor
from kdsweep.analysis.tasks import RowScore
from kdsweep.analysis.variances import SeedVariance, row_size, row_variance, run_variance


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Holds the variance of a difference by its sources."""

    rows: float
    rows_df: float
    """Degrees of freedom of `rows`."""
    units: tuple[tuple[SeedVariance, float], ...]
    """For each kind of unit crossed with the rows, seeds or finalists: its variance, and the share by which it counts."""
    size: int
    """Number of rows."""
    by_seeds: float
    """The part of the variance that is in inverse proportion to the number of seeds."""

    @property
    def total(self) -> float:
        return self.rows + self.across

    @property
    def across(self) -> float:
        """Return the variance by the units' effects on all rows alike, at least 0."""
        return max(0.0, sum((unit.mean_square - unit.residual) * share for unit, share in self.units))

    @property
    def df(self) -> float:
        uncertain = self.rows**2 / self.rows_df
        uncertain += sum((unit.mean_square * share) ** 2 / unit.df for unit, share in self.units)
        return self.total**2 / uncertain if uncertain else 1.0

    def rows_for(self, variance: float) -> int | None:
        """Return the number of rows at which the total falls to `variance`; None where no number suffices."""
        left = variance - self.across
        return math.ceil(self.size * self.rows / left) if left > 0 else None

    def seeds_factor(self, variance: float) -> float | None:
        """Return the factor on the number of seeds at which the total falls to `variance`; None where none suffices."""
        kept = max(0.0, self.total - self.by_seeds)
        return (self.total - kept) / (variance - kept) if self.by_seeds > 0 and variance > kept else None


def finalist_unit(
    arm: Sequence[np.ndarray], arms: Sequence[Sequence[np.ndarray]], seeds: SeedVariance, searched: int
) -> tuple[SeedVariance, float]:
    """Return the variance of an `arm`'s finalists, [S, N] each, and the share by which it counts.

    Arms need not vary alike, so it is of this arm alone. A single finalist shows none: of one configuration, which no
    search has chosen, seeds are all that varies; a chosen one is taken to vary as those of the other arm do.
    """
    if len(arm) == 1 and searched == 1 and seeds.df:
        return seeds, 1 / len(arm[0])
    return run_variance([arm] if len(arm) > 1 else arms), choice_factor(len(arm), searched) / len(arm)


def rows_part(one: np.ndarray, other: np.ndarray, flips: float, score: RowScore) -> float:
    """Return the variance over rows of the difference of two sides' means, row scores [S, N] each.

    `flips` is what single rows add to the variance of seeds or finalists. The variance over rows contains that, but where a few
    rows make up most of a squared error its estimate may fall short of it by luck, and would leave no degrees of freedom: it is then
    taken to be that. Scores in [0, 1] have no such rows.
    """
    found = row_variance(one.mean(axis=0) - other.mean(axis=0), row_size(one, other, score))
    return max(found, flips) if score == "minus_squared_error" else found
