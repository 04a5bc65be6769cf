"""Build the saved view of a W&B project, and the W&B report of a sweep, as wandb-workspaces holds them.

The package is W&B's own, in public preview; it is imported only where a sweep has `tracking.workspace`. `pages.py` saves both.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own, about pydantic
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces import expr
    from wandb_workspaces.workspaces import internal as internal

from kdsweep.config.arms import PRIMARY
from kdsweep.config.axis import Axis
from kdsweep.config.sweep import SweepConfig
from kdsweep.config.tasks import BEST_AND_LAST, TaskName
from kdsweep.records.schema import Pages

VIEW = "kdsweep: the last sweep"
"""The name of the project's view, which W&B's menu of views shows."""
MOST_PINNED, MOST_RUNS = 20, 1000
"""Runs that W&B's app pins, and runs that it draws in a panel."""
LONGEST_TITLE = 128
"""Characters of a report's title; wandb-workspaces refuses a longer one."""
LOW, MIDDLE, HIGH = "#440154", "#21918c", "#fde725"
"""Colours of a bad, a middling and a good value: dark to light, told apart by those who see few colours."""
CURVES: dict[TaskName, tuple[str, ...]] = {
    "single_label": ("val_accuracy", "val_loss", "val_agreement", "val_ece"),
    "multi_label": (
        "val_example_f1",
        "val_macro_f1",
        "val_map",
        "val_accuracy",
        "val_loss",
        "val_agreement",
        "val_ece",
    ),
    "regression": ("val_pearson", "val_spearman", "val_rmse", "val_loss"),
}
"""What is measured on the validation rows in each task, as the view's curves show it; `study.metric` comes second."""
WIDTH = 24
"""Columns of a report's grid of panels."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Holds what view and report show of a sweep."""

    sweep: SweepConfig
    baseline: str | None
    """The W&B run of the best fine-tuned finalist, with which the view compares all others; None where no run of it was tracked."""
    pinned: tuple[str, ...]
    """The W&B runs of the finalists, best first."""
    headline: str
    sections: tuple[tuple[str, str], ...]
    """The report in words: headings, and what stands below each in Markdown."""
    task: TaskName = "single_label"


def build_view(shown: Shown, entity: str) -> Any:
    """Build the project's view: the sweep's runs by job type, where the search looked and what it found there, losses, validation curves."""
    sweep = shown.sweep
    runs = sum(sweep.budget(arm) for arm in sweep.arms) + sweep.finalist_runs() + 2
    pinned = [*([shown.baseline] if shown.baseline else []), *shown.pinned]
    return ws.Workspace(
        entity=entity,
        project=sweep.tracking.project,
        name=VIEW,
        sections=[
            ws.Section(name="Search", panels=_search(sweep), is_open=True, pinned=True),
            ws.Section(name="Losses", panels=_losses(sweep), is_open=True),
            ws.Section(name="Validation", panels=_validation(shown), is_open=True),
        ],
        settings=ws.WorkspaceSettings(max_runs=min(runs, MOST_RUNS)),
        runset_settings=ws.RunsetSettings(
            filters=expr.And(expr.Metric("Group") == sweep.name),
            groupby=[expr.Metric("JobType")],
            order=[expr.Ordering(expr.Summary(summary_name(sweep.study.metric)), ascending=False)],
            pinned_columns=columns(sweep),
            baseline_run=shown.baseline,
            pinned_runs=list(dict.fromkeys(pinned))[:MOST_PINNED],
        ),
    )


def build_report(shown: Shown, entity: str, pages: Pages | None, view_url: str) -> Any:
    """Build the sweep's report; with `pages`, the one that takes the place of theirs."""
    sweep = shown.sweep
    name = sweep.name
    runs = wr.Runset(
        entity=entity,
        project=sweep.tracking.project,
        name=name,
        filters=expr.And(expr.Metric("Group") == name),
        order=[wr.OrderBy(name=wr.SummaryMetric(summary_name(sweep.study.metric)), ascending=False)],
        pinned_columns=["run:displayName", *columns(sweep)],
    )
    (first, text), *rest = shown.sections
    blocks = [wr.H1(text=first), wr.MarkdownBlock(text=text)]
    blocks += [wr.P(text=["The runs, as a table and in panels: ", wr.Link(text=VIEW, url=view_url)])]
    blocks += [wr.PanelGrid(runsets=[runs], panels=_search(sweep))]
    for heading, text in rest:
        blocks += [wr.H1(text=heading), wr.MarkdownBlock(text=text)]
    title = f"Distillation sweep {name}"[:LONGEST_TITLE]
    report = wr.Report(
        entity=entity,
        project=sweep.tracking.project,
        title=title,
        description=shown.headline,
        blocks=blocks,
        width="fluid",
    )
    report.id = pages.report_id if pages else ""
    return report


def summary_name(metric: str) -> str:
    """Return the name in a run's summary of the metric that ranks trials, which is that of the last epoch."""
    return f"{metric}.last" if metric in BEST_AND_LAST else metric


def columns(sweep: SweepConfig) -> list[str]:
    """Return the pinned columns of the table of runs, by W&B's names: metric, searched fields, rank and verdict, what a student costs."""
    shown = [f"summary:{summary_name(sweep.study.metric)}", *(f"config:{name}.value" for name in sweep.search)]
    return [*shown, *(f"summary:{name}" for name in ("rank", "verdict", "latency_ms_p50", "size_mb"))]


# Panels --------------------------------------------------------------------------------------------------------------


def _search(sweep: SweepConfig) -> list[Any]:
    metric = wr.SummaryMetric(summary_name(sweep.study.metric))
    lines = [
        wr.ParallelCoordinatesPlotColumn(metric=wr.Config(name), display_name=name, log=_is_log(axis))
        for name, axis in sweep.search.items()
    ]
    lines.append(wr.ParallelCoordinatesPlotColumn(metric=metric, display_name=sweep.study.metric))
    panels = [
        wr.ParallelCoordinatesPlot(
            title="Every trial", columns=lines, gradient=_gradient(), layout=wr.Layout(w=WIDTH, h=8)
        ),
        *_scatter(sweep, metric),
        wr.ParameterImportancePlot(with_respect_to=metric.name, layout=wr.Layout(y=8, x=WIDTH // 2, w=WIDTH // 2, h=8)),
    ]
    return panels


def _scatter(sweep: SweepConfig, metric: Any) -> list[Any]:
    """Return the scatter plot of T and alpha, or of the first two axes of numbers where one is not searched; nothing with fewer axes."""
    numbers = [name for name, axis in sweep.axes(PRIMARY[0]).items() if _is_numeric(axis)]
    both = ["temperature", "alpha"] if {"temperature", "alpha"} <= set(numbers) else numbers[:2]
    if len(both) < 2:
        return []
    x, y = both
    plot = wr.ScatterPlot(
        title=f"{x} and {y}, coloured by {sweep.study.metric}",
        x=wr.Config(x),
        y=wr.Config(y),
        z=metric,
        log_x=_is_log(sweep.search[x]),
        log_y=_is_log(sweep.search[y]),
        gradient=_gradient(),
        layout=wr.Layout(y=8, w=WIDTH // 2, h=8),
    )
    return [plot]


def _losses(sweep: SweepConfig) -> list[Any]:
    has_relation = any(value > 0 for value in sweep.values("relation_weight"))
    names = ("L_soft", "L_hard", "L_total", *(["L_relation"] if has_relation else []))
    return [_curve(name, "step") for name in names]


def _validation(shown: Shown) -> list[Any]:
    first, *others = CURVES[shown.task]
    names = dict.fromkeys((first, shown.sweep.study.metric, *others))
    return [_curve(name, "epoch") for name in names]


def _curve(name: str, over: str) -> Any:
    return wr.LinePlot(title=f"{name} over {over}", x=over, y=[name], max_runs_to_show=MOST_RUNS)


def _is_log(axis: Axis) -> bool | None:
    return True if axis.log else None


def _is_numeric(axis: Axis) -> bool:
    values: Sequence[Any] = axis.ends()
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _gradient() -> list[Any]:
    return [wr.GradientPoint(color=color, offset=place) for color, place in ((LOW, 0), (MIDDLE, 50), (HIGH, 100))]
