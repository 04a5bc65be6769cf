"""Say in which form an exported student ships, and why: the answer, a table of its forms, what was measured on which machine."""

from collections.abc import Sequence

from kdsweep.analysis.exports import Exported, Role, exported_name
from kdsweep.analysis.formats import enumerated, milliseconds, number, percent, signed
from kdsweep.analysis.shipped_form import (
    FORM_NAMES,
    POINTS,
    SCORE_NAMES,
    at_one_thread,
    form_score,
    judged,
    judged_split,
    may_ship,
    one_row_ms,
    score_said,
    times_teacher,
)
from kdsweep.config.forms import Constraints
from kdsweep.config.tasks import TaskName
from kdsweep.records.export_schema import Export, FormQuality, FormRecord, FormSpeed
from kdsweep.records.schema import FinalTest
from kdsweep.records.teacher_schema import TeacherResult

ROLES_SAID: dict[Role, str] = {
    "to ship": "the student to ship",
    "best fine-tuned": "the best fine-tuned student, beside it",
    "other": "not the student to ship now",
}
BUSY = "The machine was busy while speeds were measured: kdsweep export with --again on an idle one gives ratios that hold."
LIKE: dict[TaskName, str] = {
    "single_label": "same label",
    "multi_label": "same labels",
    "regression": "largest change",
}
"""The column on how like the float32 student's the answers are, by task."""
COUNTED: dict[TaskName, str] = {
    "single_label": (
        "Accuracy is of rows answered alone; points and their 95 % interval are from the float32 student on the same rows, and a form is no "
        "worse where the interval ends above the margin. Same label: the share of rows with the float32 student's label. Batch-dependent: "
        "rows whose label is another in a batch of 32."
    ),
    "multi_label": (
        "Example F1 (the F1 of a row's labels, mean over rows) is of rows answered alone; points of it and their 95 % interval are from the "
        "float32 student on the same rows, and a form is no worse where the interval ends above the margin. Same labels: the share of single "
        "decisions that are the float32 student's. Batch-dependent: rows any of whose labels is another in a batch of 32."
    ),
    "regression": (
        "R² (1 minus the squared error over the labels' variance) is of rows answered alone; points, a hundredth of it, and their 95 % "
        "interval are from the float32 student on the same rows, and a form is no worse where the interval ends above the margin. Largest "
        "change: of one number, from the float32 student's. Batch-dependent: rows whose number in a batch of 32 is another by more than a "
        "hundredth of the labels' standard deviation."
    ),
}
"""What a table of forms counts, by task."""


def caption(task: TaskName) -> str:
    """Return what the tables of forms in a report count, and with what their times compare."""
    return (
        "Teacher and forms were measured in turns in one run, so that times compare within a table, and with no other time of this report: "
        f"one row, and rows a second in batches of 32, at one thread unless a column says otherwise. {COUNTED[task]} "
        "Memory is of a process with that form alone, libraries included."
    )


def teacher_beside(export: Export, teacher: TeacherResult | None, test: FinalTest | None) -> float | None:
    """Return the teacher's score (`shipped_form.form_score`) on the rows on which an export was judged; None where it is not known."""
    on_test = judged_split(export) == "test"
    known = test if on_test else teacher
    before = "" if on_test else "val_"
    if export.task == "regression":
        return _r2(getattr(known, f"{before}rmse", None), judged(export.forms[0]))
    name = "accuracy" if export.task == "single_label" else "example_f1"
    score: float | None = getattr(known, f"{before}{name}", None)
    return score


def _r2(rmse: float | None, student: FormQuality) -> float | None:
    """Return R² of a model with this error on the rows whose labels' variance the R² of the student tells."""
    if rmse is None or student.r2 is None or student.r2 == 1:
        return None
    return 1 - rmse**2 * (1 - student.r2) / student.loss


# The answer ----------------------------------------------------------------------------------------------------------


def form_said(exported: Exported, models: int = 1) -> str:
    """Return size, speed and quality of the form to ship, without a full stop; `models` is how many models the teacher is."""
    export, form = exported.export, exported.form
    speed, times = at_one_thread(form.speed), times_teacher(export, form)
    said = [f"{number(form.size_mb)} MB"]
    if speed:
        ends = (milliseconds(speed.latency_ms_p50), milliseconds(speed.latency_ms_p95))
        said.append(f"{ends[0]} ms a row on one thread ({ends[1]} at the 95th percentile)")
    if times:
        whose = "the teacher's speed" if models == 1 else f"the speed of one of the teacher's {models} models"
        said.append(f"{times:.1f} times {whose}")
    return f"{', '.join(said)}, {_quality_said(export, form)}"


def _quality_said(export: Export, form: FormRecord) -> str:
    if form.form == "pytorch":
        return "as it was trained"
    rows = f"{judged(form).rows:,} {judged_split(export)} rows"
    return f"no worse than the float32 student by more than {_margin(export)} on {rows}"


def passed_over(exported: Exported) -> str:
    """Return why faster forms than the one to ship do not ship, a sentence each, and that times are doubtful where the machine was busy."""
    limit = one_row_ms(exported.form)
    faster = [form for form in exported.export.forms if one_row_ms(form) < limit and not may_ship(form)]
    sentences = [_not_shipped(exported.export, form) for form in faster]
    return " ".join([*sentences, BUSY] if exported.export.busy_note else sentences)


def limits_said(exported: Exported, constraints: Constraints) -> str:
    """Return that study.constraints means another form than the one that ships, as a sentence; empty where it does not."""
    meant, form = constraints.onnx_form, exported.form
    if meant is None or form.form == meant:
        return ""
    size = f"{number(form.size_mb)} MB and {milliseconds(one_row_ms(form))} ms"
    return f"study.constraints means {FORM_NAMES[meant]}, which does not ship: hold {size} against its limits."


def _not_shipped(export: Export, form: FormRecord) -> str:
    quality, times = judged(form), times_teacher(export, form)
    would = f"{FORM_NAMES[form.form]} would take {milliseconds(one_row_ms(form))} ms"
    would += f" ({times:.1f} times)" if times else ""
    if quality.word is None or quality.difference is None or quality.low is None or quality.high is None:
        return f"{would}, but was not compared."
    numbers = f"{signed(quality.difference, 2)} {POINTS[export.task]}, 95 % interval {signed(quality.low, 2)} to {signed(quality.high, 2)}"
    if quality.word == "worse":
        return f"{would}, but is worse ({numbers})."
    rows = f"{quality.rows:,} {judged_split(export)} rows"
    return f"{would}, but {rows} cannot tell whether it loses more than {_margin(export)} ({numbers})."


def _margin(export: Export) -> str:
    return f"{100 * export.margin:g} {POINTS[export.task]}"


def stale_said(exports: Sequence[Exported]) -> str:
    """Return that the student to ship has no export although others do, as a sentence; empty without any export."""
    if not exports:
        return ""
    listed = enumerated([exported_name(each.export) for each in exports])
    return f"It has not been exported: what is exported is {listed}."


# The table -----------------------------------------------------------------------------------------------------------


def forms_table(exported: Exported, teacher_score: float | None) -> list[list[str]]:
    """Return an export's forms as a table, the teacher first; `teacher_score` is the teacher's on the export's split."""
    export = exported.export
    split, threads = judged_split(export), export.threads_all
    lines = [["form", "verdict", "points", "95 % interval", "MB", "ms a row", "p95", "× teacher", "rows a second"]]
    lines[0] += [f"{split} {SCORE_NAMES[export.task]}", LIKE[export.task], "batch-dependent", "MB in memory"]
    lines[0] += [f"ms, {threads} threads", f"rows a second, {threads} threads"] if threads > 1 else []
    if export.teacher_speed:
        speed = [number(export.teacher_size_mb), *_speed(export.teacher_speed, 1.0)]
        lines.append(["teacher, PyTorch", *["–"] * 3, *speed, score_said(teacher_score, export.task), *["–"] * 3])
        lines[-1] += _every(export.teacher_speed, threads)
    for form in export.forms:
        speed = [number(form.size_mb), *_speed(form.speed, times_teacher(export, form))]
        lines.append([FORM_NAMES[form.form] + ", to ship" * ships(exported, form), *_difference(form), *speed])
        lines[-1] += [*_quality(form, export.task), number(form.resident_mb, 0), *_every(form.speed, threads)]
    return lines


def ships(exported: Exported, form: FormRecord) -> bool:
    """Return whether this form of this student is the one to ship."""
    return exported.role == "to ship" and form is exported.form


def _speed(speeds: Sequence[FormSpeed], times: float | None) -> list[str]:
    """Return the cells of a speed at one thread: median, 95th percentile, times the teacher's speed, rows a second."""
    one = at_one_thread(speeds)
    if one is None:
        return ["–"] * 4
    ends = [milliseconds(one.latency_ms_p50), milliseconds(one.latency_ms_p95)]
    return [*ends, f"{times:.1f}" if times else "–", number(one.rows_per_second, 0)]


def _every(speeds: Sequence[FormSpeed], threads: int) -> list[str]:
    """Return the cells of a speed at all threads; none where that is one."""
    if threads == 1:
        return []
    found = next((each for each in speeds if each.threads == threads), None)
    return [milliseconds(found.latency_ms_p50), number(found.rows_per_second, 0)] if found else ["–", "–"]


def _difference(form: FormRecord) -> list[str]:
    """Return the cells of a form's verdict, its difference from the float32 student and the interval of it."""
    found = judged(form)
    word = found.word or ("reference" if form.form == "pytorch" else "not compared")
    ends = [signed(end, 2) for end in (found.low, found.high) if end is not None]
    return [word, "–" if found.difference is None else signed(found.difference, 2), " to ".join(ends) or "–"]


def _quality(form: FormRecord, task: TaskName) -> list[str]:
    """Return the cells of a form's score, how like the float32 student's its answers are, and the rows that depend on their batch."""
    found = judged(form)
    like = number(found.largest_logit_difference, 4) if task == "regression" else percent(found.agreement, 2)
    cells = [score_said(form_score(found, task), task), "–" if form.form == "pytorch" else like]
    return [*cells, str(found.batch_dependent)]


def forms_title(exported: Exported) -> str:
    """Return which student a table of forms is of, on which rows, as a sentence."""
    export = exported.export
    name, rows = exported_name(export), f"{judged(export.forms[0]).rows:,} {judged_split(export)} rows"
    whole = f"{name[0].upper()}{name[1:]}: {ROLES_SAID[exported.role]}. On {rows}, with a margin of {_margin(export)}."
    return whole if judged_split(export) == "test" else f"{whole} Provisional: the test split was not opened."


def measured_said(export: Export) -> str:
    """Return on which machine an export was measured, what it means for int8, and what was tried and not kept."""
    flags = f" ({', '.join(export.cpu_flags)})" if export.cpu_flags else ""
    sentences = [f"Measured on {export.hardware}{flags}."]
    sentences += [_sentence(note) for note in (export.cpu_note, export.busy_note) if note]
    sentences += [
        f"{FORM_NAMES[form.form]} is quantised {form.quantization}." for form in export.forms if form.quantization
    ]
    sentences += [_sentence(form.batch_cause) for form in export.forms if form.batch_cause]
    sentences += [f"Not kept: {'; '.join(text.rstrip('.') for text in export.rejected)}."] if export.rejected else []
    return " ".join(sentences)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].rstrip('.')}."
