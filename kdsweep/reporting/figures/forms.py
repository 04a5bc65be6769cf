"""Draw the forms of exported students and the teacher: accuracy, or their task's score, over latency and over size."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from kdsweep.analysis.exports import Exported, exported_name
from kdsweep.analysis.formats import enumerated, milliseconds, number, percent
from kdsweep.analysis.shipped_form import (
    FORM_NAMES,
    POINTS,
    SCORE_NAMES,
    at_one_thread,
    form_score,
    judged,
    judged_split,
    score_said,
    times_teacher,
)
from kdsweep.config.arms import Arm
from kdsweep.config.forms import Form
from kdsweep.config.tasks import TaskName
from kdsweep.records.export_schema import FormQuality, FormRecord
from kdsweep.reporting.figures.cost import pareto_front
from kdsweep.reporting.figures.style import COLOURS, DASHES, NEUTRAL, Figure, new_plot, short

SHAPES: dict[Form, dict[str, Any]] = {
    "pytorch": {"symbol": "circle-open", "size": 17, "line": {"width": 2}},
    "fp32": {"symbol": "triangle-up", "size": 10},
    "int8": {"symbol": "square", "size": 11},
}
"""The ring of PyTorch is wide, so that ONNX in float32, which weighs as much and answers the same, stands inside it."""
SAME, NEAR, EDGE = 0.02, 0.15, 0.06
"""Shares of the widest mark's place: within the first, two marks share a name; within the second, their names stand one above the other;
within the third, a name begins at its mark."""
PLAIN: dict[str, Any] = {"showarrow": False, "font": {"size": 12}}
LABELS: dict[Form, str] = {"pytorch": "PyTorch", "fp32": "ONNX", "int8": "int8"}
"""The forms as they are written beside the marks of the student to ship."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Holds the place of one form, or of the teacher, in a figure."""

    x: float
    y: float
    """The task's score, in the unit of the axis: a share in percent, R² as it is."""
    text: str
    """The hover label."""
    form: FormRecord | None = None
    """None for the teacher."""
    scale: float = 100.0
    """By what a difference of scores is multiplied to be in that unit."""


def form_fronts(exports: Sequence[Exported], teacher_score: float | None) -> tuple[Figure, ...]:
    """Draw the score over one row's median milliseconds at one thread, and over megabytes; `teacher_score` is on the same rows.

    The arm is the colour, the form the shape; whiskers are the interval of the difference from the float32 student; a line shows the
    margin of the student to ship, or else of the first. Exports judged on another split than the first are left out, and all of them where
    the score is not defined there (R² of equal labels).
    """
    alike = [each for each in exports if judged_split(each.export) == judged_split(exports[0].export)]
    if form_score(judged(alike[0].export.forms[0]), alike[0].export.task) is None:
        return ()
    return tuple(_front(alike, teacher_score, name) for name in ("latency", "size"))


def _scale(task: TaskName) -> float:
    return 1.0 if task == "regression" else 100.0


def _front(exports: Sequence[Exported], teacher_score: float | None, name: str) -> Figure:
    task = exports[0].export.task
    score, in_percent = SCORE_NAMES[task], ", %" if _scale(task) == 100 else ""
    unit = "milliseconds a row, one thread" if name == "latency" else "megabytes of weights"
    plot = new_plot(height=340, x_title=unit, y_title=f"{score} on {judged_split(exports[0].export)}{in_percent}")
    students = [(each, _marks(each, name)) for each in exports]
    teachers = _teachers(exports, teacher_score, name)
    every = [*(mark for _, marks in students for mark in marks), *teachers]
    front = pareto_front([(mark.x, mark.y) for mark in every])
    steps = {"shape": "hv", "dash": "dot", "width": 1.5, "color": NEUTRAL}
    plot.add_trace(_line([x for x, _ in front], [y for _, y in front], steps))
    widest = max(mark.x for mark in every)
    floor = _margin(exports[0], widest)
    plot.add_trace(floor)
    for each, marks in students:
        for trace in _student(each, marks):
            plot.add_trace(trace)
    if teachers:
        plot.add_trace(_stars(teachers))
    under = {"x": floor.x[1], "y": floor.y[1], "text": "margin", "xanchor": "right", "yanchor": "bottom", **PLAIN}
    plot.update_layout(annotations=[*_labels(students[0][1], widest), *_labels(teachers[:1], widest), under])
    plot.update_xaxes(range=[0, 1.08 * widest], tick0=0)
    ends = " to ".join(
        f"{y:.1f} % at {x:.3g}" if in_percent else f"{y:.3f} at {x:.3g}"
        for x, y in dict.fromkeys((front[0], front[-1]))
    )
    listed = enumerated([exported_name(each.export) for each in exports]) + " and the teacher" * bool(teachers)
    described = (
        f"The forms of {listed}; the Pareto front goes from {ends} {unit.partition(',')[0]}. "
        f"Below the line named margin, a form has lost more than {100 * exports[0].export.margin:g} {POINTS[task]}."
    )
    return Figure(name=f"forms-{name}", title=f"{score}, over {unit}", description=described, plot=plot)


def _marks(exported: Exported, name: str) -> list[Mark]:
    """Return the marks of a student's forms; over latency, of those whose speed at one thread is known."""
    marks, task = [], exported.export.task
    for form in exported.export.forms:
        speed, score = at_one_thread(form.speed), form_score(judged(form), task)
        x = form.size_mb if name == "size" else speed.latency_ms_p50 if speed else None
        if x is not None and score is not None:
            y = short(_scale(task) * score)
            marks.append(Mark(x=short(x), y=y, text=_told(exported, form), form=form, scale=_scale(task)))
    return marks


def _told(exported: Exported, form: FormRecord) -> str:
    speed, quality, times = at_one_thread(form.speed), judged(form), times_teacher(exported.export, form)
    lines = [f"<b>{exported_name(exported.export)}: {FORM_NAMES[form.form]}</b>", f"{number(form.size_mb)} MB"]
    if speed:
        ends = (milliseconds(speed.latency_ms_p50), milliseconds(speed.latency_ms_p95))
        lines.append(
            f"{ends[0]} ms a row (p95 {ends[1]})" + (f", {times:.1f} times the teacher's speed" if times else "")
        )
    lines.append(_scored(quality, exported.export.task))
    lines += [quality.word] if quality.word else []
    lines += ["not the student to ship now"] if exported.role == "other" else []
    return "<br>".join(lines)


def _scored(quality: FormQuality, task: TaskName) -> str:
    said = f"{SCORE_NAMES[task]} {score_said(form_score(quality, task), task)}"
    if task == "regression":
        return f"{said}, its numbers within {number(quality.largest_logit_difference, 4)}"
    return f"{said}, {percent(quality.agreement, 2)} the same label{'s' * (task == 'multi_label')}"


def _teachers(exports: Sequence[Exported], score: float | None, name: str) -> list[Mark]:
    """Return the teacher's marks: one for each export over latency, as each run of measurements timed it; equal ones once."""
    marks = []
    for each in exports if score is not None else ():
        task = each.export.task
        speed = at_one_thread(each.export.teacher_speed)
        x = each.export.teacher_size_mb if name == "size" else speed.latency_ms_p50 if speed else None
        if x is not None and score is not None:
            beside = (
                f"{milliseconds(speed.latency_ms_p50)} ms a row, beside {exported_name(each.export)}" if speed else ""
            )
            told = f"<b>teacher</b><br>{number(each.export.teacher_size_mb)} MB<br>{beside}<br>"
            told += f"{SCORE_NAMES[task]} {score_said(score, task)}"
            marks.append(Mark(x=short(x), y=short(_scale(task) * score), text=told))
    return list({(mark.x, mark.y): mark for mark in reversed(marks)}.values())[::-1]


def _student(exported: Exported, marks: Sequence[Mark]) -> list[go.Scatter]:
    """Draw a student's forms: a line that joins them, and marks with whiskers."""
    arm: Arm = exported.export.arm
    opacity = 0.4 if exported.role == "other" else 1.0
    joined = {"width": 1, "color": COLOURS[arm], "dash": DASHES[arm]}
    line = _line([m.x for m in marks], [m.y for m in marks], joined, meta=arm, opacity=0.5 * opacity)
    return [line, *(_mark(mark, arm, opacity) for mark in marks)]


def _mark(mark: Mark, arm: Arm, opacity: float) -> go.Scatter:
    assert mark.form is not None
    shape, quality = SHAPES[mark.form.form], judged(mark.form)
    whiskers = {}
    if (
        quality.difference is not None
        and quality.low is not None
        and quality.high is not None
        and quality.low < quality.high
    ):
        above, below = (short(mark.scale * abs(end - quality.difference)) for end in (quality.high, quality.low))
        whiskers = {"error_y": {"array": [above], "arrayminus": [below], "thickness": 1.2, "width": 5}}
    marker = {**shape, "color": COLOURS[arm]}
    hover = "%{text}<extra></extra>"
    return go.Scatter(
        x=[mark.x],
        y=[mark.y],
        text=[mark.text],
        mode="markers",
        marker=marker,
        meta=arm,
        opacity=opacity,
        hovertemplate=hover,
        **whiskers,
    )


def _labels(marks: Sequence[Mark], widest: float) -> list[dict[str, Any]]:
    """Write the forms' names above their marks and whiskers, as Plotly's annotations; forms at one place share a text.

    A name whose neighbour on the left is so near that a phone would write one over the other stands a line higher.
    """
    places: list[list[Mark]] = []
    for mark in sorted(marks, key=lambda mark: mark.x):
        if places and mark.x - places[-1][0].x <= SAME * widest:
            places[-1].append(mark)
        else:
            places.append([mark])
    notes: list[dict[str, Any]] = []
    lifted = 0
    for place, before in zip(places, [None, *places], strict=False):
        lifted = lifted + 1 if before and place[0].x - before[0].x < NEAR * widest else 0
        text = ", ".join(LABELS[mark.form.form] if mark.form else "teacher" for mark in place)
        at = {"x": place[0].x, "y": max(map(_top, place)), "yshift": 8 + 14 * lifted}
        anchor = "left" if place[0].x < EDGE * widest else "center"  # a centred name would cover the axis
        notes.append({**at, "text": text, "xanchor": anchor, "yanchor": "bottom", **PLAIN})
    return notes


def _top(mark: Mark) -> float:
    """Return where a mark ends with its whisker."""
    quality = judged(mark.form) if mark.form else None
    if quality is None or quality.high is None or quality.difference is None:
        return mark.y
    return mark.y + mark.scale * (quality.high - quality.difference)


def _stars(teachers: Sequence[Mark]) -> go.Scatter:
    star = {"size": 14, "symbol": "star", "color": NEUTRAL}
    hover = "%{text}<extra></extra>"
    x, y, texts = [m.x for m in teachers], [m.y for m in teachers], [m.text for m in teachers]
    return go.Scatter(x=x, y=y, text=texts, mode="markers", marker=star, hovertemplate=hover)


def _margin(exported: Exported, widest: float) -> go.Scatter:
    """Draw the score below which a form of this student has lost more than the margin."""
    reference, task = exported.export.form("pytorch") or exported.export.forms[0], exported.export.task
    floor = short(_scale(task) * ((form_score(judged(reference), task) or 0.0) - exported.export.margin))
    arm: Arm = exported.export.arm
    return _line([0, 1.05 * widest], [floor, floor], {"width": 1, "dash": "4px,6px", "color": COLOURS[arm]}, meta=arm)


def _line(x: Sequence[float], y: Sequence[float], line: dict[str, Any], **style: Any) -> go.Scatter:
    return go.Scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", **style)
