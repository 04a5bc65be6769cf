"""Compare one record with its W&B run: list what is missing there, or has another value."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kdsweep.config.trial_fields import TRIAL_DEFAULTS
from kdsweep.config.yaml import plain_values
from kdsweep.records.schema import EpochMetrics, StepMetrics, logged_epoch
from kdsweep.records.teacher_schema import TeacherEpoch
from kdsweep.tracking.wandb_reader import TrackedRun, Values

DEFAULTS = plain_values(TRIAL_DEFAULTS)
"""The defaults of a trial's fields, as JSON returns them: a run from before a field was added lacks it, and its record has the default."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """Holds what one W&B run must contain."""

    run_id: str | None
    """None where the record names no run: its worker died."""
    what: str
    config: Values
    summary: Values
    steps: Sequence[StepMetrics]
    epochs: Sequence[EpochMetrics | TeacherEpoch]
    whole: bool
    """Whether the steps were read too, so that a row of the run for which there is no step counts as a gap."""
    missing: str | None = None
    """Why W&B could open no run; None where it opened one, or tracking was off."""


def nowhere(record: Record) -> str:
    """Say that no run of the record was found, and why that may be."""
    if record.whole:
        return "the run is nowhere on disk (wandb clean, or sync --clean?); the record has everything"
    return "the run is nowhere on disk: the trial ran on another host, whose folder can be named too"


def run_gaps(record: Record, own: Sequence[TrackedRun]) -> list[str]:
    """List what is missing or differs in the end, config and summary of the record's own run."""
    if not own:
        return []
    gaps = [f"torn: {own[-1].torn}"] if own[-1].torn else []
    config, missing = _as_logged(record.config), "not set"
    later = {
        name for name, value in config.items() if name not in own[-1].config and value == DEFAULTS.get(name, missing)
    }
    pairs = [(name, own[-1].config.get(name, missing), value) for name, value in config.items() if name not in later]
    gaps += _first(
        [f"config: {name} is {tracked!r}, {v!r} in the record" for name, tracked, v in pairs if tracked != v]
    )
    summary = {name: value for name, value in _as_logged(record.summary).items() if value is not None}
    given = {name: [value for run in own for value in run.summary.get(name, ())] for name in summary}
    if lost := [name for name, values in given.items() if not values]:
        gaps.append("summary missing" if len(lost) == len(summary) else f"summary: {', '.join(lost)} missing")
    other = [name for name, values in given.items() if values and summary[name] not in values]
    return gaps + _first([f"summary: {n} is {given[n][-1]!r}, {summary[n]!r} in the record" for n in other])


def row_gaps(record: Record, runs: Sequence[TrackedRun], own: Sequence[TrackedRun]) -> list[str]:
    """List steps and epochs that are missing in `runs`, that differ there, or that only the record's own run has."""
    rows: dict[int, dict[str, Any]] = {}
    for run in runs:
        for step, row in run.rows.items():
            rows.setdefault(step, {}).update(row)
    steps = {step.step: step.logged() for step in record.steps}
    epochs = {epoch.epoch: logged_epoch(epoch) for epoch in record.epochs}
    gaps, other = [], []
    for word, wanted, file in (("step", steps, "steps.jsonl"), ("epoch", epochs, "epochs.jsonl")):
        beside = {number: (rows.get(values["step"], {}), values) for number, values in wanted.items()}
        if lost := [number for number, (row, values) in beside.items() if not values.keys() <= row.keys()]:
            gaps.append(f"{word}{'s' * (len(lost) > 1)} {_ranges(lost)} missing")
        other += [
            f"{name} of {word} {number} is {row[name]!r}, {value!r} in {file}"
            for number, (row, values) in beside.items()
            for name, value in values.items()
            if name in row and row[name] != value
        ]
    extra = sorted(
        {step for run in own for step in run.rows} - {values["step"] for values in [*steps.values(), *epochs.values()]}
    )
    if record.whole and extra:
        gaps.append(f"the record lacks step{'s' * (len(extra) > 1)} {_ranges(extra)}, which the run has")
    return gaps + _first(other)


def _as_logged(values: Values) -> dict[str, Any]:
    """Convert values to what JSON returns for them: lists for tuples."""
    logged: dict[str, Any] = json.loads(json.dumps(values))
    return logged


def _first(texts: Sequence[str]) -> list[str]:
    """Shorten a list of gaps of one kind to its first, with the number of the others."""
    return [texts[0] + (f" (and {len(texts) - 1} more)" if len(texts) > 1 else "")] if texts else []


def _ranges(numbers: Iterable[int]) -> str:
    """Write ascending numbers as ranges: `1-3, 7` for 1, 2, 3, 7."""
    ends: list[list[int]] = []
    for number in numbers:
        if ends and number == ends[-1][1] + 1:
            ends[-1][1] = number
        else:
            ends.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in ends)
