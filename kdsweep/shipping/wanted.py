"""Compare what is asked of an export with what is on disk: an export is not made twice. Imports no torch."""

from dataclasses import dataclass

from kdsweep.records.export_schema import RECIPE, Export
from kdsweep.records.layout import export_folder
from kdsweep.records.reading import TrialRow, read_export
from kdsweep.records.whole_sweep import SweepRecords
from kdsweep.shipping.choice import student_of
from kdsweep.shipping.folder import weights_file_sha256


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Holds what an export must have."""

    forms: tuple[str, ...]
    """Of fp32 and int8."""
    margin: float
    """The accuracy in [0, 1] that a form may lose and still be no worse."""


def current(run: TrialRow, found: SweepRecords, wanted: Wanted) -> Export | None:
    """Return the export of `run` that is on disk; None where it is of another student, of other forms, or judged by another rule."""
    export = read_export(export_folder(found.folder, run.id))
    if export is None:
        return None
    made = (export.student_sha256, {form.form for form in export.forms}, export.margin, export.recipe)
    asked = (weights_file_sha256(student_of(run)), {"pytorch", *wanted.forms}, wanted.margin, RECIPE)
    return export if made == asked else None
