"""Draw what a student costs, and how well its confidence agrees with its accuracy."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from kdsweep.analysis.formats import enumerated, plural
from kdsweep.analysis.leaderboard import complete
from kdsweep.analysis.score import scale, score_text, score_title, teacher_score
from kdsweep.config.arms import ARM_NAMES, ARMS
from kdsweep.config.tasks import TaskName
from kdsweep.records.whole_sweep import SweepRecords
from kdsweep.reporting.figures.style import (
    COLOURS,
    DASHES,
    NEUTRAL,
    Figure,
    heights,
    marks,
    missing,
    new_plot,
    short,
    thinned,
)


def score_versus_cost(records: SweepRecords) -> tuple[Figure, ...]:
    """Draw `study.metric` over parameters and over latency, students and teacher (a star), with the Pareto front."""
    return (
        _cost(records, "parameters", "parameters, millions", 1e-6),
        _cost(records, "latency_ms_p50", "milliseconds a row", 1.0),
    )


def _cost(records: SweepRecords, field: str, unit: str, factor: float) -> Figure:
    metric = records.sweep.study.metric
    name, title = f"cost-{field}", f"{score_title(metric)}, over {unit}"
    known = [t for t in complete(records.trials) if t.result and getattr(t.result, field) is not None]
    if not known:
        return missing(name, title, "No trial with a measured cost is complete yet.")
    costs = [short(factor * getattr(trial.result, field)) for trial in known]
    points = list(zip(costs, heights(known, records.sweep), strict=True))
    at = {trial.id: cost for trial, cost in zip(known, costs, strict=True)}
    teacher = teacher_score(records) if records.teacher and not records.teacher.is_file else None  # a file has no cost
    if records.teacher and teacher is not None:
        passes = records.teacher.folds  # what an ensemble scores costs all of its models
        points.append((short(factor * passes * getattr(records.teacher, field)), short(scale(metric) * teacher)))
    plot = new_plot(height=300, x_title=unit, y_title=score_title(metric))
    front = pareto_front(points)
    steps = {"shape": "hv", "dash": "dot", "width": 1.5, "color": NEUTRAL}
    plot.add_trace(
        go.Scatter(x=[p[0] for p in front], y=[p[1] for p in front], mode="lines", line=steps, hoverinfo="skip")
    )
    for arm in records.sweep.arms:
        of_arm = thinned([trial for trial in known if trial.arm == arm], records.sweep)
        plot.add_trace(marks(of_arm, [at[trial.id] for trial in of_arm], records.sweep, arm))
    if teacher is not None:
        star = {"size": 14, "symbol": "star", "color": NEUTRAL}
        x, y = [points[-1][0]], [points[-1][1]]
        text = f"<b>teacher</b><br>{metric} {score_text(metric, teacher, 2)}<extra></extra>"
        plot.add_trace(go.Scatter(x=x, y=y, mode="markers", marker=star, hovertemplate=text))
    ends = " to ".join(
        f"{score_text(metric, quality / scale(metric))} at {cost:.3g}"
        for cost, quality in dict.fromkeys((front[0], front[-1]))
    )
    whose = "" if teacher is None else " and the teacher"
    described = (
        f"{plural(len(known), 'complete trial')}{whose}; the Pareto front of {len(front)} goes from {ends} {unit}."
    )
    return Figure(name=name, title=title, description=described, plot=plot)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the (cost, quality) points that no other matches or beats in both, cheapest first; equal points once."""
    front: list[tuple[float, float]] = []
    for cost, quality in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or quality > front[-1][1]:
            front.append((cost, quality))
    return front


def calibration(
    students: Mapping[str, tuple[tuple[float, float, int], ...]], task: TaskName = "single_label"
) -> Figure:
    """Draw accuracy over confidence of each student's bins (mean confidence, accuracy, rows); on the diagonal, both agree.

    Of multi_label the bins hold decisions, of which a row has one for each label.
    """
    whose, what, right = (
        ("decision", "decisions", "right") if task == "multi_label" else ("named class", "rows", "accuracy")
    )
    title = "Accuracy over confidence"
    if not students:
        return missing("calibration", title, "Calibration is measured on the test split, by finalists alone.")
    plot = new_plot(
        height=320,
        x_title=f"confidence of the {whose}, %",
        y_title="accuracy, %" if task == "single_label" else "of them right, %",
    )
    dotted = {"dash": "dot", "width": 1.5, "color": NEUTRAL}
    plot.add_trace(go.Scatter(x=[0, 100], y=[0, 100], mode="lines", line=dotted, hoverinfo="skip"))
    for name, bins in students.items():
        arm = next(arm for arm in ARMS if name.startswith(ARM_NAMES[arm]))
        style = {"width": 2, "color": COLOURS[arm], "dash": DASHES[arm]}
        text = [
            f"{name}: {count} {what}<br>confidence {100 * x:.1f} %, {right} {100 * y:.1f} %" for x, y, count in bins
        ]
        x, y = [100 * each[0] for each in bins], [100 * each[1] for each in bins]
        hover = "%{text}<extra></extra>"
        plot.add_trace(go.Scatter(x=x, y=y, text=text, meta=arm, mode="lines+markers", line=style, hovertemplate=hover))
    described = (
        f"Reliability on the test split at T = 1 of {enumerated(list(students))}; below the diagonal is overconfident."
    )
    return Figure(name="calibration", title=title, description=described, plot=plot)
