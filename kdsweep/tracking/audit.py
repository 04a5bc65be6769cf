"""Compare W&B with the records: check that the rows of every trial, the teacher and the verdict are in its W&B run, with equal values.

    python -m kdsweep.report results/T_alpha --audit

The last attempt of a trial logs its whole history, so earlier attempts are spares; where the run of the last one lost rows, theirs may
have them. A gap affects only W&B's pages: results are computed from the results folder.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from kdsweep.config.arms import ARM_NAMES
from kdsweep.records.layout import teacher_folder
from kdsweep.records.reading import (
    TrialRow,
    read_steps,
    read_sweep_key,
    read_teacher,
    read_teacher_config,
    read_teacher_epochs,
    read_verdict,
    torn_lines,
)
from kdsweep.records.schema import TrialResult
from kdsweep.records.whole_sweep import SweepRecords, read_records
from kdsweep.tracking.gaps import Record, nowhere, row_gaps, run_gaps
from kdsweep.tracking.names import (
    attempt_of,
    export_number,
    is_teacher,
    key_in,
    sweep_facts,
    tracked_runs,
    trial_facts,
    verdict_number,
)
from kdsweep.tracking.wandb_reader import TrackedRun, read_run


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Holds the gaps of one W&B run, or of a record without a run."""

    run_id: str
    what: str
    """The name of its record: `distilled trial 7`."""
    gaps: tuple[str, ...] = ()
    note: str = ""
    """Why it was not compared; empty where it was."""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Holds what the comparison of a sweep's W&B runs with its records found."""

    runs: int
    findings: tuple[Finding, ...]

    def gaps(self) -> int:
        """Count the gaps of all findings; with 0, all rows are accounted for."""
        return sum(len(finding.gaps) for finding in self.findings)


def audit(folder: Path, *others: Path) -> Audit:
    """Compare a sweep's W&B runs with its records. Raises ResultsError where `folder` has no records, or another folder is of another sweep."""
    found = read_records(folder, *others)
    listed = {there: tracked_runs(there) for there in found.folders}
    console = Console(stderr=True)
    paths = [path for runs in listed.values() for _, path in runs]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        reading = pool.map(read_run, paths)
        shown = {"description": "reading W&B's runs", "total": len(paths), "disable": not console.is_terminal}
        read = {run.path: run for run in track(reading, console=console, transient=True, **shown)}  # type: ignore[arg-type]
    keys = _sweep_keys(found)
    runs = {there: [read[path] for name, path in listed[there] if key_in(name) in keys] for there in listed}
    findings = [*_teachers(found, runs), *_verdicts(found, runs)]
    findings += _trials(found, [run for there in runs.values() for run in there])
    exported = {run.run_id for run in read.values() if export_number(run.run_id)}
    findings += [_noted(run_id, "export", "the exported student's files, not compared") for run_id in sorted(exported)]
    known = {finding.run_id for finding in findings}
    findings += [
        Finding(
            run_id=run_id, what="-", gaps=("no record knows this run: its trial's folder is gone, or never was here",)
        )
        for run_id in dict.fromkeys(run.run_id for run in read.values())
        if run_id not in known
    ]
    return Audit(runs=len(paths), findings=tuple(findings))


def audit_text(done: Audit) -> str:
    """Write the text of an audit: one line a gap, one for each reason why runs were not compared, and the number of runs and gaps."""
    lines = [f"{finding.run_id} ({finding.what}): {gap}" for finding in done.findings for gap in finding.gaps]
    for note in dict.fromkeys(finding.note for finding in done.findings if finding.note):
        lines.append(f"{note}: {', '.join(finding.run_id for finding in done.findings if finding.note == note)}")
    if not done.gaps():
        return "\n".join([*lines, f"{_count(done.runs, 'run')}, all rows accounted for"])
    return "\n".join(
        [
            *lines,
            "Every row of a record must be whole and stand in its W&B run. The records' results rank the trials, the report reads them "
            "alone, and python -m kdsweep.reproduce runs a trial again.",
            f"{_count(done.runs, 'run')}, {_count(done.gaps(), 'gap')}",
        ]
    )


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'s' * (number != 1)}"


def _sweep_keys(found: SweepRecords) -> set[str | None]:
    """Return the keys with which the ids of the sweep's runs may end: its own, those in its records, and None for ids without a key."""
    results = [found.teacher, *(trial.result for trial in (*found.trials, *found.finalists))]
    recorded = {key_in(result.run_id) for result in results if result and result.run_id}
    return {None, *recorded, *(read_sweep_key(there) for there in found.folders)}


def _teachers(found: SweepRecords, runs: Mapping[Path, Sequence[TrackedRun]]) -> list[Finding]:
    """Compare each folder's teacher with its run: every host has a teacher of its own, all under one run id."""
    findings = []
    for there, tracked in runs.items():
        mine, path = [run for run in tracked if is_teacher(run.run_id, found.sweep.name)], teacher_folder(there)
        result = read_teacher(path)
        if result:
            key = key_in(result.run_id or "")
            config = {**asdict(read_teacher_config(path)), **(sweep_facts(found.sweep, key) if key else {})}
            facts: dict[str, Any] = {"config": config, "summary": result.summary(), "missing": result.run_missing}
            facts["epochs"] = read_teacher_epochs(path)
            record = Record(run_id=result.run_id, what="teacher", steps=(), whole=True, **facts)
            findings += [*_torn(path, result.run_id, "teacher"), *_compared(record, mine)]
        else:
            names = dict.fromkeys(run.run_id for run in mine)
            findings += [_noted(name, "teacher", "unfinished, not compared") for name in names]
    return findings


def _verdicts(found: SweepRecords, runs: Mapping[Path, Sequence[TrackedRun]]) -> list[Finding]:
    """Compare each folder's last verdict with its run: the host that writes the report sends the verdict, in a new run when it changed."""
    findings = []
    for there, tracked in runs.items():
        told = read_verdict(there)
        numbers = [(verdict_number(run.run_id, found.sweep.name), run) for run in tracked]
        mine = [run for number, run in numbers if told and number == told.number]
        others = {run.run_id for number, run in numbers if number is not None and run not in mine}
        findings += [_noted(run_id, "verdict", "earlier or unfinished verdicts") for run_id in sorted(others)]
        if told:
            run_id = mine[-1].run_id if mine else f"verdict {told.number}"
            key = key_in(run_id)
            config = {**found.sweep.identity(), **(sweep_facts(found.sweep, key) if key else {})}
            facts: dict[str, Any] = {"config": config, "summary": told.summary, "steps": (), "epochs": ()}
            record = Record(run_id=run_id, what="verdict", whole=True, **facts)
            gaps = run_gaps(record, mine) if mine else [nowhere(record)]
            findings.append(Finding(run_id=run_id, what="verdict", gaps=tuple(gaps)))
    return findings


def _trials(found: SweepRecords, runs: Sequence[TrackedRun]) -> list[Finding]:
    findings = []
    for trial in (*found.trials, *found.finalists):
        told = ((attempt_of(run.run_id, found.sweep.name, trial.id), run) for run in runs)
        numbered = [(attempt, run) for attempt, run in told if attempt is not None]
        attempts = [run for _, run in sorted(numbered, key=lambda pair: pair[0])]
        again = "" if trial.finalist_seed is None else f", seed {trial.finalist_seed}"
        what = f"{ARM_NAMES[trial.arm]} trial {trial.trial}{again}"
        if trial.result:
            findings += _torn(trial.folder, trial.result.run_id, what)
            findings += _compared(_record(found, trial, trial.result, what), attempts)
        else:
            findings += [_noted(run.run_id, what, "unfinished, not compared") for run in attempts]
    return findings


def _torn(folder: Path, run_id: str | None, what: str) -> list[Finding]:
    """List the torn lines of the record in `folder`, whether or not a run has what they held."""
    gaps = tuple(f"{line} of the record is torn: what it held is lost here" for line in torn_lines(folder))
    return [Finding(run_id=run_id or "no run", what=what, gaps=gaps)] if gaps else []


def _record(found: SweepRecords, trial: TrialRow, result: TrialResult, what: str) -> Record:
    steps, key, config = read_steps(trial.folder), key_in(result.run_id or ""), asdict(trial.config)
    if key:
        config |= trial_facts(found.sweep, key, trial.config, trial.id)
    facts: dict[str, Any] = {"config": config, "summary": result.summary(), "missing": result.run_missing}
    facts |= {"steps": steps, "epochs": trial.epochs}
    return Record(run_id=result.run_id, what=what, whole=bool(steps) or trial.ran_here(), **facts)


def _noted(run_id: str, what: str, note: str) -> Finding:
    return Finding(run_id=run_id, what=what, note=note)


def _compared(record: Record, attempts: Sequence[TrackedRun]) -> list[Finding]:
    """Compare a record with the runs of its attempts: return a finding with the gaps of its own run, and one for each spare attempt."""
    own = [run for run in attempts if run.run_id == record.run_id]
    spares = [run for run in attempts if run.run_id != record.run_id]
    findings = [_noted(run_id, record.what, "spare attempts") for run_id in dict.fromkeys(run.run_id for run in spares)]
    if record.missing:
        gap = f"W&B could open no run, not even offline ({record.missing}); the record has everything"
        return [Finding(run_id=record.run_id or "no run", what=record.what, gaps=(gap,)), *findings]
    if record.run_id is None and not spares:
        return []  # tracking was off, or the result was copied from another trial
    gaps = [nowhere(record)]
    if own or record.run_id is None:
        gaps = run_gaps(record, own) + row_gaps(record, [*spares, *own], own[-1:])
    return [Finding(run_id=record.run_id or spares[-1].run_id, what=record.what, gaps=tuple(gaps)), *findings]
