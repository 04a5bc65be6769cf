"""Choose the run of a sweep whose student to ship, for report, reproduce, W&B's artifact and the API alike."""

from collections.abc import Sequence

import numpy as np

from kdsweep.analysis.leaderboard import complete, parameters, ranked
from kdsweep.analysis.score import score
from kdsweep.config.arms import ARMS, Arm
from kdsweep.config.sweep import SweepConfig
from kdsweep.records.reading import TrialRow
from kdsweep.records.whole_sweep import SweepRecords

Place = tuple[Arm, int]
"""Arm and trial number of a configuration."""


def shipped(found: SweepRecords) -> TrialRow | None:
    """Return the run to ship: one of the best confirmed configuration, or rank 1 of the search before one is confirmed.

    The configuration is the one with the best mean of `study.metric` over its fresh seeds, of all arms; ties go to the
    smaller student, as on the leaderboard. Of its runs, the best whose student is on disk is returned. Where none is on disk
    (possible with `study.keep_students` below `finalists.top`), the best run is returned all the same, as another
    configuration was found worse: a caller that needs the weights checks `has_student()` and runs it again. A run that
    breaks one of `study.constraints` is never shipped, nor does its score count. None before the first complete trial.
    """
    for runs in confirmed(found).values():
        return best_run(runs, found.sweep)
    return next(iter(ranked(found.trials, found.sweep)), None)


def confirmed(found: SweepRecords) -> dict[Place, tuple[TrialRow, ...]]:
    """Return the complete runs, by seed, of each configuration that ran on a fresh seed; the best configuration first."""
    groups: dict[Place, tuple[TrialRow, ...]] = {}
    for run in sorted(complete(found.finalists), key=lambda run: run.finalist_seed or 0):
        groups[run.arm, run.trial] = (*groups.get((run.arm, run.trial), ()), run)

    def order(place: Place) -> tuple[float, int, int, int]:
        runs = groups[place]
        return -confirmed_score(runs, found.sweep), parameters(runs[0]), ARMS.index(place[0]), place[1]

    return {place: groups[place] for place in sorted(groups, key=order)}


def confirmed_score(runs: Sequence[TrialRow], sweep: SweepConfig) -> float:
    """Return the mean of `study.metric` over a configuration's runs on fresh seeds."""
    return float(np.mean([score(run, sweep) for run in runs]))


def best_run(runs: Sequence[TrialRow], sweep: SweepConfig) -> TrialRow:
    """Return the best of a configuration's runs by `study.metric`, of those whose student is on disk if any is."""
    return max(runs, key=lambda run: (run.has_student(), score(run, sweep)))
