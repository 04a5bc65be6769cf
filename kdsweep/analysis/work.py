"""Add up what a sweep gave each arm, in trials, steps, rows and seconds, so that equal work can be read off."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from kdsweep.analysis.leaderboard import status
from kdsweep.config.arms import Arm
from kdsweep.records.reading import TrialRow
from kdsweep.records.whole_sweep import SweepRecords

ALIKE = 0.02
"""Share by which whole trainings of two arms may differ and still count as equally long."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """Holds what the trials of one arm's search, or its finalists, were given in all; duplicates, which are not trained, count nowhere."""

    arm: Arm
    finalists: bool
    trials: int
    """Trials that were trained, to their end or not."""
    pruned: int
    steps: int
    rows: int
    """Training rows, each as often as it was trained on; steps times batch size in records that did not count them."""
    labeled_rows: int
    """Those of `rows` that had a label; a pseudo-labeled student's include the teacher's."""
    evaluations: int
    train_seconds: float
    whole_steps: float | None
    """Median steps of the trials that ran to their end; None where none did."""
    whole_rows: float | None
    """Median rows of the trials that ran to their end; None where none did."""


def given_work(found: SweepRecords) -> tuple[Given, ...]:
    """Return what each arm's search was given, then what each arm's finalists were."""
    groups: dict[tuple[bool, Arm], list[TrialRow]] = {}
    for finalists, trials in ((False, found.trials), (True, found.finalists)):
        for trial in trials:
            if trial.epochs and status(trial) != "duplicate":
                groups.setdefault((finalists, trial.arm), []).append(trial)
    return tuple(given(trials, finalists=finalists) for (finalists, _), trials in groups.items())


def given(trials: Sequence[TrialRow], *, finalists: bool = False) -> Given:
    """Add up what `trials` of one arm, at least one, were given."""
    rows = [_rows(trial) for trial in trials]
    whole = [place for place, trial in enumerate(trials) if status(trial) in ("complete", "infeasible")]
    return Given(
        arm=trials[0].arm,
        finalists=finalists,
        trials=len(trials),
        pruned=sum(status(trial) == "pruned" for trial in trials),
        steps=sum(trial.epochs[-1].step for trial in trials),
        rows=sum(count for count, _ in rows),
        labeled_rows=sum(labeled for _, labeled in rows),
        evaluations=sum(len(trial.epochs) for trial in trials),
        train_seconds=sum(epoch.train_seconds for trial in trials for epoch in trial.epochs),
        whole_steps=float(median(trials[place].epochs[-1].step for place in whole)) if whole else None,
        whole_rows=float(median(rows[place][0] for place in whole)) if whole else None,
    )


def _rows(trial: TrialRow) -> tuple[int, int]:
    """Return the rows that a trial was trained on, each as often as it was, and those of them that had a label."""
    rows = labeled = before = 0
    for epoch in trial.epochs:
        counted = [count for count in (epoch.soft_rows, epoch.hard_rows) if count is not None]
        seen = max(counted) if counted else (epoch.step - before) * trial.config.batch_size
        rows, before = rows + seen, epoch.step
        labeled += seen if epoch.hard_rows is None else epoch.hard_rows
    return rows, labeled


def same_length(searches: Sequence[Given]) -> str | None:
    """Return what whole trainings of all `searches` have alike, `steps` or `rows`; None where they differ in both.

    Where batch sizes are searched, steps may differ although every training sees as many rows, and the other way round.
    """
    for name in ("steps", "rows"):
        lengths = [each.whole_steps if name == "steps" else each.whole_rows for each in searches]
        known = [length for length in lengths if length is not None]
        if len(known) == len(searches) and max(known) - min(known) <= ALIKE * max(known):
            return name
    return None


def work_json(work: Sequence[Given]) -> list[Mapping[str, Any]]:
    """Return what each arm was given in the form of leaderboard.json."""
    return [dict(vars(each)) for each in work]
