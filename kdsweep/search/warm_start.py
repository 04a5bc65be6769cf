"""Read the best configurations of earlier sweeps, fitted into this sweep's axes, so that they are tried first."""

from collections.abc import Iterator
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from kdsweep.config.arms import Arm
from kdsweep.config.axis import Axis
from kdsweep.config.sweep import SweepConfig
from kdsweep.config.trial_fields import NUMBERS
from kdsweep.records.reading import TrialRow
from kdsweep.records.whole_sweep import SweepRecords, read_records

Point = dict[str, Any]


def warm_points(sweep: SweepConfig, arm: Arm) -> list[Point]:
    """Return the points that `arm` tries first: the best of each folder in `study.warm_start`, then the second best of each, and so on.

    At most `study.startup_trials`, all different. A number outside its axis moves to the nearer end, or to the nearest step; a field
    whose value is no choice of its axis is left open, to be sampled. Raises ResultsError for a folder that holds no sweep.
    """
    ranked = [_best_first(read_records(Path(folder)), arm) for folder in sweep.study.warm_start]
    rows = (row for rank in zip_longest(*ranked) for row in rank if row is not None)
    return list(islice(_distinct(sweep, arm, rows), sweep.study.startup_trials))


def _best_first(found: SweepRecords, arm: Arm) -> list[TrialRow]:
    """Return an arm's complete trials that break no constraint, best first by that sweep's own metric."""
    metric = found.sweep.study.metric
    ended = [(row, row.result) for row in found.trials if row.arm == arm and row.result is not None]
    valued = [
        (getattr(result, metric), row)
        for row, result in ended
        if result.status == "complete" and not result.violates and getattr(result, metric) is not None
    ]
    return [row for _, row in sorted(valued, key=lambda each: (-each[0], each[1].trial))]


def _distinct(sweep: SweepConfig, arm: Arm, rows: Iterator[TrialRow]) -> Iterator[Point]:
    seen: list[Point] = []
    for row in rows:
        point: Point = {}
        for name, axis in sweep.axes(arm).items():
            if sweep.applies(arm, axis, point) and (value := fitted(name, axis, getattr(row.config, name))) is not None:
                point[name] = value
        if point and point not in seen:
            seen.append(point)
            yield point


def fitted(name: str, axis: Axis, value: Any) -> Any:
    """Return the value of the field `name` that lies on `axis` and is nearest to `value`; None where no choice is `value`."""
    if axis.choices:
        return value if value in axis.choices else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    assert axis.low is not None and axis.high is not None
    points = axis.points()
    near = min(points, key=lambda point: abs(point - value)) if points else min(max(value, axis.low), axis.high)
    return NUMBERS[name](near)
