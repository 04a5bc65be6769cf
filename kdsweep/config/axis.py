"""Define one searched field: its interval or its choices, the arms that search it, and under which condition."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kdsweep.config import conditions
from kdsweep.config.arms import Arm
from kdsweep.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Describes one searched field: an interval (`low`, `high`, optionally `log` or `step`) or a list of `choices`."""

    low: float | None = None
    """Lower end of the interval, included."""
    high: float | None = None
    """Upper end of the interval, included."""
    log: bool = False
    """Whether the interval is searched on a logarithmic scale."""
    step: float | None = None
    """Distance between neighbouring values, counted from low; null: any value."""
    choices: tuple[Any, ...] = ()
    """The values themselves, in place of an interval."""
    arms: tuple[Arm, ...] = ()
    """The arms that search the field; the others have its fixed value, or its default. Empty: all arms that do not fix it."""
    when: conditions.When = field(default_factory=dict)
    """Values of other fields, such as {soft_loss: [kl]}: the field is searched only in trials that have them; elsewhere it has its fixed
    or default value."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", tuple(tuple(c) if isinstance(c, list) else c for c in self.choices))
        if self.choices:
            if self.low is not None or self.high is not None or self.log or self.step is not None:
                raise ConfigError(
                    "either low and high or choices, not both (on the command line, null drops a key: choices=null, or low=null high=null log=null)"
                )
            if len(set(self.choices)) < len(self.choices):
                raise ConfigError(f"choices are distinct, but got {list(self.choices)}")
            return
        if self.low is None or self.high is None:
            raise ConfigError("an axis has low and high, or choices")
        rules = [
            (
                all(math.isfinite(end) for end in (self.low, self.high)),
                "finite low and high",
                f"{self.low} and {self.high}",
            ),
            (self.low < self.high, "low < high", f"low {self.low}, high {self.high}"),
            (not self.log or self.low > 0, "a log axis starts above 0", f"low {self.low}"),
            (self.step is None or self.step > 0, "step > 0", f"step {self.step}"),
            (not (self.log and self.step), "log or step, not both", f"log: true, step: {self.step}"),
        ]
        broken = [f"{rule} must hold, but got {given}" for holds, rule, given in rules if not holds]
        if broken:
            raise ConfigError(broken)

    def ends(self) -> tuple[Any, ...]:
        """Return the values that must be valid for the axis to be valid: its choices, or both ends of its interval."""
        return self.choices or (self.low, self.high)

    def points(self) -> tuple[Any, ...] | None:
        """Return all values of a finite axis; None for a continuous one."""
        if self.choices or self.step is None:
            return self.choices or None
        assert self.low is not None and self.high is not None
        count = int((self.high - self.low) / self.step + 1e-9) + 1
        return tuple(self.low + index * self.step for index in range(count))

    def holds(self, value: Any) -> bool:
        """Return whether `value` lies on the axis."""
        if self.choices:
            return value in self.choices
        assert self.low is not None and self.high is not None
        if not (isinstance(value, int | float) and self.low <= value <= self.high):
            return False
        return self.step is None or any(math.isclose(value, point, abs_tol=1e-9) for point in self.points() or ())

    def applies(self, values: Mapping[str, Any]) -> bool:
        """Return whether the axis is searched in a trial whose fields have these `values`."""
        return conditions.holds(self.when, values)

    def text(self) -> str:
        """Return the axis in a few characters, for a table and for a sweep's identity."""
        return self._values_text() + (f" when {conditions.condition_text(self.when)}" if self.when else "")

    def _values_text(self) -> str:
        if self.choices:
            return "{" + ", ".join(str(list(c) if isinstance(c, tuple) else c) for c in self.choices) + "}"
        assert self.low is not None and self.high is not None
        kind = " log" if self.log else f" step {_short(self.step)}" if self.step else ""
        return f"[{_short(self.low)}, {_short(self.high)}]{kind}"


def _short(value: float) -> str:
    """Return a number as text with all its digits and no others: identities of sweeps are compared by this text."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)
