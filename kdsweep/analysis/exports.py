"""Place a sweep's exports beside the run that it ships now, which more trials or finalists may have changed since."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from kdsweep.analysis.leaderboard import ranked
from kdsweep.analysis.shipped import best_run, confirmed, shipped
from kdsweep.analysis.shipped_form import at_one_thread, judged, judged_split, shipped_form, times_teacher
from kdsweep.config.arms import ARM_NAMES
from kdsweep.records.export_schema import Export, FormQuality, FormRecord
from kdsweep.records.layout import run_name
from kdsweep.records.reading import TrialRow
from kdsweep.records.whole_sweep import SweepRecords

Role = Literal["to ship", "best fine-tuned", "other"]
"""What an export is to its sweep now: of the run to ship; of the best fine-tuned run, beside it; of neither, or of neither any more."""
ROLES: tuple[Role, ...] = ("to ship", "best fine-tuned", "other")
"""The order in which exports are shown."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """Holds an export with its place in the sweep as it is now."""

    export: Export
    role: Role
    form: FormRecord
    """The form to ship of this student."""


def placed_exports(found: SweepRecords) -> tuple[Exported, ...]:
    """Return the sweep's exports: that of the run to ship first, then that of the best fine-tuned run, then the others by name."""
    ship, beside = shipped(found), best_fine_tuned(found)
    roles: dict[str, Role] = {run_name(beside.id): "best fine-tuned"} if beside else {}
    roles |= {run_name(ship.id): "to ship"} if ship else {}
    placed = [
        Exported(export=export, role=roles.get(export.run, "other"), form=shipped_form(export))
        for export in found.exports
    ]
    return tuple(sorted(placed, key=lambda each: (ROLES.index(each.role), each.export.run)))


def best_fine_tuned(found: SweepRecords) -> TrialRow | None:
    """Return the best run of the fine-tuned arm, beside which the shipped student is judged; None before one is complete."""
    runs = next((runs for (arm, _), runs in confirmed(found).items() if arm == "fine_tuned"), None)
    if runs:
        return best_run(runs, found.sweep)
    return next((trial for trial in ranked(found.trials, found.sweep) if trial.arm == "fine_tuned"), None)


def to_ship(exports: Sequence[Exported]) -> Exported | None:
    """Return the export of the run to ship; None where there is none."""
    return next((each for each in exports if each.role == "to ship"), None)


def exported_name(export: Export) -> str:
    """Name an export by its run: `distilled 7, seed 1`; a trial of the search has no seed."""
    return f"{ARM_NAMES[export.arm]} {export.trial}" + ("" if export.seed is None else f", seed {export.seed}")


def exports_json(exports: Sequence[Exported]) -> list[dict[str, Any]]:
    """Return the exports as leaderboard.json holds them: what was recorded, with `role`, and `ships`, the form to ship."""
    return [{"role": each.role, "ships": each.form.form, **asdict(each.export)} for each in exports]


RECORD_NAMES = (
    *("run", "arm", "trial", "seed", "form", "to_ship", "role", "size_mb", "resident_mb", "quantization"),
    *("latency_ms_p50", "latency_ms_p95", "rows_per_second", "times_teacher"),
    *("threads_all", "latency_ms_p50_all", "latency_ms_p95_all", "rows_per_second_all"),
    *("split", *(field.name for field in fields(FormQuality))),
)
"""Columns of `form_records`, in their order."""


def form_records(exports: Sequence[Exported]) -> list[dict[str, Any]]:
    """Return every form of every export as one flat record, in the order of `placed_exports`."""
    return [_record(each, form) for each in exports for form in each.export.forms]


def _record(exported: Exported, form: FormRecord) -> dict[str, Any]:
    export, speed = exported.export, at_one_thread(form.speed)
    every = form.at(export.threads_all)
    ships = exported.role == "to ship" and form is exported.form
    known = {name: getattr(export, name) for name in ("run", "arm", "trial", "seed", "threads_all")}
    known |= {name: getattr(form, name) for name in ("form", "size_mb", "resident_mb", "quantization")}
    for name in ("latency_ms_p50", "latency_ms_p95", "rows_per_second"):
        known |= {name: getattr(speed, name, None), f"{name}_all": getattr(every, name, None)}
    known |= {"to_ship": ships, "role": exported.role, "times_teacher": times_teacher(export, form)}
    return {**known, "split": judged_split(export), **vars(judged(form))}
