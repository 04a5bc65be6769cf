"""Choose the form in which an exported student ships, for report, model card, W&B and the API alike.

Speeds are compared within one export alone, whose forms and teacher were measured in turns; never with the sweep's own latencies.
"""

import math
from collections.abc import Iterable
from typing import Any, Final, Literal

from kdsweep.analysis.formats import number, percent
from kdsweep.config.forms import Form
from kdsweep.config.tasks import TaskName
from kdsweep.records.export_schema import Export, FormQuality, FormRecord, FormSpeed

FORM_NAMES: dict[Form, str] = {"pytorch": "PyTorch float32", "fp32": "ONNX float32", "int8": "ONNX int8"}
FORM_COLUMNS = (
    *("export", "form", "form_size_mb", "form_latency_ms_p50", "form_rows_per_second", "form_times_teacher"),
    *("form_accuracy", "form_difference", "form_score"),
)
"""Columns that the leaderboard has at its end where a trial was exported; `form_columns` fills them."""
SCORE_NAMES: Final[dict[TaskName, str]] = {
    "single_label": "accuracy",
    "multi_label": "example F1",
    "regression": "R²",
}
"""The score on which a form is held against the float32 student, by task: 100 points are a score of 1."""
POINTS: Final[dict[TaskName, str]] = {
    "single_label": "points",
    "multi_label": "points of example F1",
    "regression": "points of R²",
}
"""What a difference of two such scores is counted in."""


def shipped_form(export: Export) -> FormRecord:
    """Return the form to ship: of the float32 student and the forms that are `no worse`, the one with the shortest median time of a row.

    Words come from the test split where it was opened, else from validation; times from one thread. A form that is `worse`, or of which
    the rows cannot tell, never ships, however fast it is.
    """
    return min(filter(may_ship, export.forms), key=lambda form: (one_row_ms(form), form.size_mb))


def may_ship(form: FormRecord) -> bool:
    """Return whether a form is the float32 student itself or was found no worse than it."""
    return form.form == "pytorch" or judged(form).word == "no worse"


def judged(form: FormRecord) -> FormQuality:
    """Return what a form is worth on the test split, or on validation where the test split was not opened."""
    return form.test or form.validation


def judged_split(export: Export) -> Literal["test", "validation"]:
    """Return the split that `judged` returns; on validation its words are provisional."""
    return "test" if all(form.test for form in export.forms) else "validation"


def form_score(quality: FormQuality, task: TaskName) -> float | None:
    """Return the score on which a form is held against the float32 student; None for R² where all labels are equal."""
    if task == "single_label":
        return quality.accuracy
    return quality.example_f1 if task == "multi_label" else quality.r2


def score_said(score: float | None, task: TaskName) -> str:
    """Return such a score in words: in percent, R² as a number; a dash for None."""
    return number(score, 4).replace("-", "−") if task == "regression" else percent(score, 2)


def at_one_thread(speeds: Iterable[FormSpeed]) -> FormSpeed | None:
    """Return the speed at one thread; None where it was not measured."""
    return next((speed for speed in speeds if speed.threads == 1), None)


def one_row_ms(form: FormRecord) -> float:
    """Return a form's median milliseconds of one row at one thread; infinity where they were not measured."""
    found = at_one_thread(form.speed)
    return found.latency_ms_p50 if found else math.inf


def times_teacher(export: Export, form: FormRecord) -> float | None:
    """Return how many times as fast as the teacher a form answers one row at one thread; None where either was not measured."""
    teacher, own = at_one_thread(export.teacher_speed), at_one_thread(form.speed)
    return teacher.latency_ms_p50 / own.latency_ms_p50 if teacher and own else None


def form_columns(export: Export | None) -> dict[str, Any]:
    """Return what the leaderboard says of a trial's export: its folder, its form to ship with size, speed at one thread and quality."""
    if export is None:
        return dict.fromkeys(FORM_COLUMNS)
    form = shipped_form(export)
    speed, quality = at_one_thread(form.speed), judged(form)
    values = (f"exports/{export.run}", form.form, form.size_mb)
    speeds = (speed.latency_ms_p50, speed.rows_per_second) if speed else (None, None)
    scores = (quality.accuracy, quality.difference, form_score(quality, export.task))
    known = (*values, *speeds, times_teacher(export, form), *scores)
    return dict(zip(FORM_COLUMNS, known, strict=True))
