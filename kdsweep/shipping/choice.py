"""Choose the runs whose students are exported: the one to ship and, to judge it fairly, the best fine-tuned one; or those named."""

import re
import shlex
from pathlib import Path

from kdsweep.analysis.exports import best_fine_tuned
from kdsweep.analysis.shipped import shipped
from kdsweep.config.arms import ARMS
from kdsweep.errors import ShippingError
from kdsweep.records.layout import TrialId, trial_in
from kdsweep.records.reading import TrialRow
from kdsweep.records.whole_sweep import SweepRecords


def to_export(found: SweepRecords) -> tuple[TrialRow, ...]:
    """Return the run to ship, and the best fine-tuned one where that is another. Raises ShippingError for a sweep without complete trial."""
    ship = shipped(found)
    if ship is None:
        raise ShippingError(f"a sweep must have a complete trial to be exported, but {found.folder} has none")
    twin = best_fine_tuned(found)
    return (ship,) if twin is None or twin.id == ship.id else (ship, twin)


def named(found: SweepRecords, name: str) -> TrialRow:
    """Return the run that a user names: by a number (of arm distilled), by the name of its exported folder, or by its own folder.

    Raises ShippingError for what names no complete trial of the sweep.
    """
    trial = _trial_of(name)
    rows = (row for row in (*found.trials, *found.finalists) if row.id == trial)
    run = next(rows, None)
    if run is None:
        raise ShippingError(
            f"TRIAL names a trial of {found.folder}: by its number (7, of arm distilled), as fine_tuned-0003 or distilled-0007-seed1, "
            f"or by its folder (trials/0007), but got {name!r}"
            + ("" if trial is None else ", which that sweep does not have")
        )
    if run.result is None or run.result.status != "complete":
        state = "has not ended" if run.result is None else f"was {run.result.status}"
        raise ShippingError(f"a trial must be complete to be exported, but {run.folder} {state}")
    return run


def _trial_of(name: str) -> TrialId | None:
    """Return the trial that a text names; None where it names none."""
    if name.isdigit():
        return TrialId("distilled", int(name))
    for arm in ARMS:
        if match := re.fullmatch(rf"{arm}-(\d+)(?:-seed(\d+))?", name):
            return TrialId(arm, int(match[1]), int(match[2]) if match[2] else None)
    return trial_in(Path(name))


def student_of(run: TrialRow) -> Path:
    """Return the folder of a run's student. Raises ShippingError where it is not on disk, with the way to get it again."""
    if not run.has_student():
        raise ShippingError(
            f"the student of {run.folder} is not on disk: a sweep keeps those of its best trials (study.keep_students)\n"
            f"Train it again, to the same bits, and keep it: python -m kdsweep.reproduce {shlex.quote(str(run.folder))} --keep-student"
        )
    return run.folder / "student"
