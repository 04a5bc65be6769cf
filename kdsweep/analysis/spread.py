"""Hold the variance of a difference by its sources, and what would bring it down."""

import math
from dataclasses import dataclass

from kdsweep.analysis.variances import SeedVariance


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
