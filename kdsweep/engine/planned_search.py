"""Say in the plan what a search starts from, and what its validation rows can tell apart."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kdsweep.analysis.formats import enumerated
from kdsweep.analysis.planned_power import NEAR, SEED_SD, ranked_rightly
from kdsweep.config.arms import ARM_NAMES, Arm
from kdsweep.config.lengths import least_rows_trained, most_evaluations
from kdsweep.config.sweep import SweepConfig
from kdsweep.config.tasks import TaskName, stated_task
from kdsweep.records.reading import read_sweep
from kdsweep.search.warm_start import warm_points

Warm = Mapping[Arm, Sequence[Mapping[str, Any]]]
"""The points that each arm takes from earlier sweeps."""
AsText = Callable[[Mapping[str, Any]], str]
CHEAP = 0.1
"""Share of a trial's time up to which twice the validation rows are advised."""


def planned_warm_start(sweep: SweepConfig, folder: Path) -> Warm | None:
    """Return the points that a first start of the sweep would take from `study.warm_start`.

    None without one, and where `folder` holds the sweep already: its study keeps the points that it read then, whatever the earlier
    folders hold now.
    """
    if not sweep.warm_starts() or read_sweep(folder) is not None:
        return None
    return {arm: warm_points(sweep, arm) for arm in sweep.arms}


def warm_start_lines(sweep: SweepConfig, warm: Warm | None, as_text: AsText) -> dict[str, str]:
    """Return the lines of the plan about `study.warm_start`, by their names: the points of each arm that has trials."""
    if not sweep.warm_starts():
        return {}
    if warm is None:
        return {"warm start": f"as the sweep read {enumerated(sweep.study.warm_start)} when it first started"}
    lines = {}
    for arm in sweep.arms:
        if sweep.budget(arm):
            points = "; ".join(as_text(point) for point in warm.get(arm, ()))
            after = ", after those tried first" if arm == "distilled" and sweep.enqueue and points else ""
            lines[f"warm start {ARM_NAMES[arm]}"] = (points or "the earlier sweeps have no trial of this arm") + after
    return lines


def what_rows_tell_apart(
    sweep: SweepConfig, rows: int | None, train_rows: int | None = None, task: TaskName | None = None
) -> str | None:
    """Return which true difference of two students `rows` validation rows show in 95 of 100 trials, in words.

    It is about accuracy alone: None for other metrics, whose scores of a row vary as nobody knows before, and without `rows`. With
    `train_rows`, more rows are advised where the limit is reached and evaluating them costs little; how many it keeps out is not known here.
    """
    task = task or stated_task(sweep.fixed) or "single_label"
    if rows is None or task != "single_label" or sweep.study.metric != "val_accuracy":
        return None
    said = (
        f"{rows:,} rows: of two students that truly differ by {100 * ranked_rightly(rows):.1f} points the better one scores higher in 95 of "
        f"100 cases, if students disagree on {100 * NEAR:.1f} % of rows and a seed is worth {100 * SEED_SD:.1f} points"
    )
    if train_rows is None or sweep.fixed.get("validation_limit") != rows:
        return said
    more_time = rows * most_evaluations(sweep) / (3 * least_rows_trained(sweep, train_rows))
    if more_time > CHEAP:
        return said
    twice = f"twice the rows, if there are so many (fixed.validation_limit={2 * rows}), tell {100 * ranked_rightly(2 * rows):.1f} points apart"
    share = f"about {100 * more_time:.0f}" if more_time >= 0.01 else "under 1"
    return f"{said}; {twice} for {share} % more time a trial"
