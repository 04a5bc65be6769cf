"""Read a whole sweep: its results folder, and what other hosts' folders add to it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdsweep.config.arms import ARMS
from kdsweep.config.lengths import length_of
from kdsweep.config.sweep import SweepConfig, identity_changes
from kdsweep.config.tasks import TaskName, stated_task
from kdsweep.errors import ResultsError
from kdsweep.records.export_schema import Export
from kdsweep.records.layout import TrialId, teacher_folder
from kdsweep.records.reading import TrialRow, read_exports, read_sweep, read_teacher, read_trials
from kdsweep.records.teacher_schema import TeacherResult
from kdsweep.system.process import uncollected


@dataclass(frozen=True, kw_only=True)
class SweepRecords:
    """Holds what a results folder records, with what other hosts' folders add to it."""

    folder: Path
    sweep: SweepConfig
    teacher: TeacherResult | None
    trials: tuple[TrialRow, ...]
    finalists: tuple[TrialRow, ...] = ()
    others: tuple[Path, ...] = ()
    """Folders of the same sweep on other hosts, gathered here."""
    spares: tuple[Path, ...] = ()
    """Trials' folders with another result than the one that counts: a second host finished the trial too."""
    exports: tuple[Export, ...] = ()
    """Exported students, one a run."""

    @property
    def task(self) -> TaskName:
        """Return the task of the rows' labels by the teacher's record; before there is one, what the sweep file states, else single_label."""
        return self.teacher.task if self.teacher else stated_task(self.sweep.fixed) or "single_label"

    @property
    def folders(self) -> tuple[Path, ...]:
        """Return all folders of the sweep, `folder` first."""
        return (self.folder, *self.others)


def read_records(folder: Path, *others: Path) -> SweepRecords:
    """Read a whole results folder, and from the folders `others` of other hosts the trials that it lacks or has unfinished.

    Raises ResultsError where a folder holds no sweep, or where `others` hold another sweep, another teacher or other rows.
    """
    sweep = _read_sweep(folder)
    others = tuple(other for other in others if other.resolve() != folder.resolve())
    for other in others:
        _check_same_sweep(folder, sweep, other)
    folders = (folder, *others)
    with uncollected():
        trials, spares = _gathered(row for there in folders for arm in sweep.arms for row in read_trials(there, arm))
    confirmed = {there: read_trials(there, "finalists") for there in folders}
    _check_one_length(trials, confirmed)
    finalists, more = _gathered(row for rows in confirmed.values() for row in rows if row.arm in sweep.arms)
    exports = {export.run: export for there in reversed(folders) for export in read_exports(there)}
    facts: dict[str, Any] = {"teacher": _common_teacher(folders), "others": others, "spares": (*spares, *more)}
    facts["exports"] = tuple(exports[run] for run in sorted(exports))
    return SweepRecords(folder=folder, sweep=sweep, trials=trials, finalists=finalists, **facts)


def _read_sweep(folder: Path) -> SweepConfig:
    sweep = read_sweep(folder)
    if sweep is None:
        raise ResultsError(f"a results folder holds sweep.yaml, but {folder} does not; {_neighbours(folder)}")
    return sweep


def _check_same_sweep(folder: Path, sweep: SweepConfig, other: Path) -> None:
    there = _read_sweep(other)
    changes = identity_changes(
        {"name": sweep.name, **sweep.identity()}, {"name": there.name, **there.identity()}, word="there"
    )
    if changes:
        raise ResultsError(
            f"folders of one report hold the same sweep, but {other} has another one than {folder}:\n"
            + "\n".join(changes)
            + "\nA report of its own shows it. Local files are named by absolute paths: hosts that keep them elsewhere ran "
            "another sweep file, and their trials come through the study alone"
        )


def _check_one_length(trials: Sequence[TrialRow], confirmed: Mapping[Path, Sequence[TrialRow]]) -> None:
    """Raise ResultsError where folders hold finalists trained for different lengths, as their records say: one comparison would mix the two."""
    searched = {(row.arm, row.trial): length_of(row.config) for row in trials}
    factors = {
        there: {length_of(run.config) / searched[place] for run in runs if (place := (run.arm, run.trial)) in searched}
        for there, runs in confirmed.items()
    }
    if len(confirmed) > 1 and len(set().union(*factors.values())) > 1:
        listed = [
            f"  {there}: {times:g} times as long as in the search"
            for there in factors
            for times in sorted(factors[there])
        ]
        raise ResultsError(
            "finalists of one report are trained equally long, but not those of:\n"
            + "\n".join(listed)
            + "\nLeave one out"
        )


def _common_teacher(folders: Sequence[Path]) -> TeacherResult | None:
    """Return the first folder's teacher result; None where no folder has one. Raises ResultsError where another differs in weights or rows."""
    known = [(there, found) for there in folders if (found := read_teacher(teacher_folder(there)))]
    for there, found in known[1:]:
        first_folder, first = known[0]
        pairs = {"teacher weights": "weights_sha256", "rows": "data_sha256"}
        changes = [
            f"  {name}: {getattr(first, field)}, there {getattr(found, field)}"
            for name, field in pairs.items()
            if getattr(first, field) != getattr(found, field)
        ]
        if changes:
            raise ResultsError(
                f"trials of one report met the same teacher and rows, but those of {there} differ from those of "
                f"{first_folder}:\n" + "\n".join(changes) + "\nLeave that folder out: its trials cannot be compared"
            )
    return known[0][1] if known else None


def _gathered(rows: Iterable[TrialRow]) -> tuple[tuple[TrialRow, ...], tuple[Path, ...]]:
    """Return one row per trial, by arm and number, the fullest of several; and the folders whose results differ from it."""
    same: dict[TrialId, list[TrialRow]] = {}
    for row in rows:
        same.setdefault(row.id, []).append(row)
    in_order = sorted(same, key=lambda trial: (ARMS.index(trial.arm), trial.number, trial.seed or 0))
    trials = [(_fullest(same[trial]), same[trial]) for trial in in_order]
    twice = [(trial, rows) for trial, rows in trials if len(rows) > 1]
    spares = [row.folder for trial, rows in twice for row in rows if row.result and row.measured() != trial.measured()]
    return tuple(trial for trial, _ in trials), tuple(spares)


def _fullest(rows: Sequence[TrialRow]) -> TrialRow:
    """Return the first row with a result, of several that are equal the one that ran in its folder; without results, the row with most epochs."""
    finished = [row for row in rows if row.result]
    if not finished:
        return max(rows, key=lambda row: len(row.epochs))
    if len(finished) == 1:
        return finished[0]
    same = [row for row in finished if row.measured() == finished[0].measured()]
    return next((row for row in same if row.ran_here()), finished[0])


def _neighbours(folder: Path) -> str:
    found = sorted(path.parent.name for path in folder.parent.glob("*/sweep.yaml"))
    return f"beside it: {', '.join(found)}" if found else f"no results in {folder.parent}"
