"""The report's figures: each function takes trials and gives a `Figure`, drawn or with the reason why there is none.

Colours, dashes and backgrounds read on light and on dark pages; the page colours text, axes, and the traces whose
`meta` names an arm. Thousands of points lie in few traces, curves as one line with gaps: a browser draws that at once.
"""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from kdsweep.analysis.budget import FEWEST_TRIALS as FEWEST_SCORES
from kdsweep.analysis.budget import tuning_curve
from kdsweep.analysis.formats import ARM_NAMES, plural
from kdsweep.analysis.leaderboard import accuracy, complete, score
from kdsweep.config.sweep import ARMS, Arm, Axis
from kdsweep.records.whole_sweep import SweepRecords
from kdsweep.records.writing import TrialRow

COLOURS: dict[Arm, str] = {"distilled": "#3b82c4", "fine_tuned": "#cf7a1c"}
DASHES: dict[Arm, str] = {"distilled": "solid", "fine_tuned": "dash"}
SYMBOLS: dict[Arm, str] = {"distilled": "circle", "fine_tuned": "diamond"}
SCALE = ((0.0, "#4a5a94"), (0.5, "#3c9a94"), (1.0, "#e3b23c"))
"""Low to high val_accuracy; lightness rises with it, so that it survives a grey print."""
COLOUR_BAR = {"thickness": 10, "len": 0.6, "outlinewidth": 0, "orientation": "h", "nticks": 5, "tickangle": 0}
COLOUR_BAR |= {"x": 1, "xanchor": "right", "y": 1.01, "yanchor": "bottom"}
NEUTRAL = "rgba(128,128,128,0.75)"
GRID = "rgba(128,128,128,0.22)"
CLEAR = "rgba(0,0,0,0)"
FEW_CURVES = 60
"""Trials of an arm up to which each epoch has its mark."""
LAYERS = 8
"""Traces that share an arm's faint curves beyond that."""
MOST_POINTS = 5000
"""Points of one trace beyond which epochs are left out of it, never a curve's ends."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of the page."""

    name: str
    """Its id on the page."""
    title: str
    description: str
    """What it shows, for those who cannot see it."""
    plot: go.Figure | None
    note: str = ""
    """Why there is no plot."""
    wide: bool = False
    """Whether it needs the width of a desk; a phone scrolls it."""
    dense: bool = False
    """Whether paper holds two of its kind in a row, not three."""

    @property
    def height(self) -> int:
        """In CSS pixels."""
        return int(self.plot.layout.height) if self.plot else 0

    def json(self) -> str:
        """The plot as JSON that cannot close the script tag it stands in; `null` without a plot."""
        return str(self.plot.to_json()).replace("<", "\\u003c") if self.plot else "null"


def plotly_js() -> str:
    """The library that draws the figures on the page, to be inlined once."""
    return str(get_plotlyjs())


# The training --------------------------------------------------------------------------------------------------------


def learning_curves(trials: Sequence[TrialRow]) -> tuple[Figure, ...]:
    """L_soft, L_hard and val_accuracy over the epochs: all trials faint, the best of each arm strong."""
    return tuple(_curve(trials, metric) for metric in ("L_soft", "L_hard", "val_accuracy"))


def _curve(trials: Sequence[TrialRow], metric: str) -> Figure:
    with_epochs = [trial for trial in trials if trial.epochs]
    if not with_epochs:
        return missing(metric, metric, "No epoch is finished yet.")
    unit = ", %" if metric == "val_accuracy" else ""
    plot = new_plot(height=300, x_title="epoch", y_title="")
    ends = []
    for arm in ARMS:
        of_arm = [trial for trial in with_epochs if trial.arm == arm]
        plot.add_traces(_faint_lines(of_arm, metric, arm))
        if done := complete(of_arm):
            best = max(done, key=accuracy)
            plot.add_trace(_lines([best], metric, arm, opacity=1.0, width=3, marker=7))
            ends.append(f"the best {ARM_NAMES[arm]} one ends at {_measured(best, metric)[-1]:.3g}{unit.strip(',')}")
    most = max(len(trial.epochs) for trial in with_epochs)
    plot.update_xaxes(range=[0.7, most + 0.3], dtick=max(1, most // 6))
    described = "; ".join([f"{metric} of {plural(len(with_epochs), 'trial')} over the epochs", *ends]) + "."
    return Figure(name=metric, title=metric + unit, description=described, plot=plot)


def _measured(trial: TrialRow, metric: str) -> list[float]:
    factor = 100 if metric == "val_accuracy" else 1
    return [short(factor * float(getattr(epoch, metric))) for epoch in trial.epochs]


def _faint_lines(trials: Sequence[TrialRow], metric: str, arm: Arm) -> list[go.Scatter]:
    """Every trial of an arm: with its marks where there are few, else as layers of lines that darken where they meet."""
    if len(trials) <= FEW_CURVES:
        return [_lines(trials, metric, arm, opacity=0.28, width=1.2, marker=4)] if trials else []
    longer = [trial for trial in trials if len(trial.epochs) > 1]
    single = [trial for trial in trials if len(trial.epochs) == 1]
    layers = [longer[first::LAYERS] for first in range(LAYERS) if longer[first::LAYERS]]
    drawn = [_lines(layer, metric, arm, opacity=0.12, width=1, marker=0) for layer in layers]
    return drawn + ([_lines(single, metric, arm, opacity=0.12, width=0, marker=4)] if single else [])


def _lines(
    trials: Sequence[TrialRow], metric: str, arm: Arm, *, opacity: float, width: float, marker: float
) -> go.Scatter:
    """Curves as one trace with gaps; width or marker 0 draws none."""
    step = max(1, sum(len(trial.epochs) for trial in trials) // MOST_POINTS)
    x: list[int | None] = []
    y: list[float | None] = []
    numbers: list[int | None] = []
    for trial in trials:
        last = len(trial.epochs) - 1
        kept = [epoch for epoch in range(last + 1) if epoch % step == 0 or epoch == last]
        measured = _measured(trial, metric)
        x += [epoch + 1 for epoch in kept] + [None]
        y += [measured[epoch] for epoch in kept] + [None]
        numbers += [trial.trial] * len(kept) + [None]
    return go.Scatter(
        x=x,
        y=y,
        customdata=numbers,
        meta=arm,
        mode="+".join(["lines"] * bool(width) + ["markers"] * bool(marker)),
        opacity=opacity,
        line={"color": COLOURS[arm], "dash": DASHES[arm], "width": width},
        marker={"size": marker, "symbol": SYMBOLS[arm], "color": COLOURS[arm]},
        hovertemplate=f"{ARM_NAMES[arm]} trial %{{customdata}}<br>epoch %{{x}}<br>{metric} %{{y:.4g}}<extra></extra>",
    )


# The budget ----------------------------------------------------------------------------------------------------------


def budget_curves(records: SweepRecords) -> Figure:
    """The expected best of k trials against k, with its 95 % band, for each arm with enough complete trials."""
    title, metric = "What the budget bought", records.sweep.study.metric
    percent = metric != "val_mcc"
    factor, unit = (100, ", %") if percent else (1, "")
    plot, told = new_plot(height=340, x_title="complete trials", y_title=f"expected best {metric}{unit}"), []
    shown: list[float] = []
    for arm in ARMS:
        scores = [score(trial, records.sweep) for trial in complete(records.trials) if trial.arm == arm]
        if len(scores) < FEWEST_SCORES:
            continue
        curve = tuning_curve(scores, floor=min(0.0, *scores))
        x, middle = list(range(1, len(scores) + 1)), [short(factor * value) for value in curve.expected]
        low, high = ([short(factor * value) for value in ends] for ends in (curve.low, curve.high))
        ends = {"color": COLOURS[arm], "dash": "dot", "width": 1}
        both = go.Scatter(x=[*x, None, *x], y=[*low, None, *high], meta=arm, mode="lines", line=ends, hoverinfo="skip")
        plot.add_trace(both)
        plot.add_trace(
            go.Scatter(
                x=x,
                y=middle,
                meta=arm,
                mode="lines",
                line={"color": COLOURS[arm], "dash": DASHES[arm], "width": 2.5},
                hovertemplate=f"{ARM_NAMES[arm]}, the best of %{{x}}<br>{metric} %{{y:.4g}}<extra></extra>",
            )
        )
        shown += middle
        half = middle[(len(scores) + 1) // 2 - 1]
        told.append(f"{ARM_NAMES[arm]}: {half:.4g} expected of half the {len(scores)} trials, {middle[-1]:.4g} of all")
    if not told:
        return missing("budget", title, f"Too few complete trials for a curve: it needs {FEWEST_SCORES} of an arm.")
    span = max(shown) - min(shown) or 1.0
    plot.update_yaxes(range=[min(shown) - 0.25 * span, max(shown) + 0.5 * span])
    return Figure(name="budget", title=title, description="; ".join(told) + ".", plot=plot)


# The price -----------------------------------------------------------------------------------------------------------


def accuracy_versus_cost(records: SweepRecords) -> tuple[Figure, ...]:
    """val_accuracy over parameters and over latency, students and teacher (a star), with the Pareto front."""
    return (
        _cost(records, "parameters", "parameters, millions", 1e-6),
        _cost(records, "latency_ms_p50", "milliseconds a row", 1.0),
    )


def _cost(records: SweepRecords, field: str, unit: str, factor: float) -> Figure:
    name, title, teacher = f"cost-{field}", f"val_accuracy, %, over {unit}", records.teacher
    known = [t for t in complete(records.trials) if t.result and getattr(t.result, field) is not None]
    if not known:
        return missing(name, title, "No trial with a measured cost is complete yet.")
    costs = [short(factor * getattr(trial.result, field)) for trial in known]
    points = [(cost, 100 * accuracy(trial)) for cost, trial in zip(costs, known, strict=True)]
    if teacher:
        points.append((short(factor * getattr(teacher, field)), 100 * teacher.val_accuracy))
    plot = new_plot(height=300, x_title=unit, y_title="val_accuracy, %")
    front = pareto_front(points)
    steps = {"shape": "hv", "dash": "dot", "width": 1.5, "color": NEUTRAL}
    plot.add_trace(
        go.Scatter(x=[p[0] for p in front], y=[p[1] for p in front], mode="lines", line=steps, hoverinfo="skip")
    )
    for arm in ARMS:
        of_arm = [(trial, cost) for trial, cost in zip(known, costs, strict=True) if trial.arm == arm]
        plot.add_trace(marks([t for t, _ in of_arm], [cost for _, cost in of_arm], records.sweep.search, arm))
    if teacher:
        star = {"size": 14, "symbol": "star", "color": NEUTRAL}
        x, y = [points[-1][0]], [points[-1][1]]
        text = f"<b>teacher</b><br>val_accuracy {y[0]:.2f} %<extra></extra>"
        plot.add_trace(go.Scatter(x=x, y=y, mode="markers", marker=star, hovertemplate=text))
    ends = " to ".join(f"{quality:.1f} % at {cost:.3g}" for cost, quality in dict.fromkeys((front[0], front[-1])))
    whose = " and the teacher" if teacher else ""
    described = (
        f"{plural(len(known), 'complete trial')}{whose}; the Pareto front of {len(front)} goes from {ends} {unit}."
    )
    return Figure(name=name, title=title, description=described, plot=plot)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (cost, quality) points those that no other one beats in both, cheapest first; equal ones once."""
    front: list[tuple[float, float]] = []
    for cost, quality in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or quality > front[-1][1]:
            front.append((cost, quality))
    return front


def calibration(students: Mapping[str, tuple[tuple[float, float, int], ...]]) -> Figure:
    """Accuracy over confidence of each student's bins (mean confidence, accuracy, rows); on the diagonal, both agree."""
    title = "Accuracy over confidence"
    if not students:
        return missing("calibration", title, "Calibration is measured on the test split, by finalists alone.")
    plot = new_plot(height=320, x_title="confidence of the named class, %", y_title="accuracy, %")
    dotted = {"dash": "dot", "width": 1.5, "color": NEUTRAL}
    plot.add_trace(go.Scatter(x=[0, 100], y=[0, 100], mode="lines", line=dotted, hoverinfo="skip"))
    for name, bins in students.items():
        arm: Arm = "fine_tuned" if name.startswith("fine-tuned") else "distilled"
        style = {"width": 2, "color": COLOURS[arm], "dash": DASHES[arm]}
        text = [f"{name}: {count} rows<br>confidence {100 * x:.1f} %, accuracy {100 * y:.1f} %" for x, y, count in bins]
        x, y = [100 * each[0] for each in bins], [100 * each[1] for each in bins]
        hover = "%{text}<extra></extra>"
        plot.add_trace(go.Scatter(x=x, y=y, text=text, mode="lines+markers", line=style, hovertemplate=hover))
    described = (
        f"Reliability on the test split at T = 1 of {' and '.join(students)}; below the diagonal is overconfident."
    )
    return Figure(name="calibration", title=title, description=described, plot=plot)


# Shared --------------------------------------------------------------------------------------------------------------


def missing(name: str, title: str, note: str) -> Figure:
    """A figure that cannot be drawn, and why."""
    return Figure(name=name, title=title, description="", plot=None, note=note)


def placed(trial: TrialRow, name: str, axis: Axis) -> Any:
    """A trial's value of the field `name` as its axis places it."""
    return word(getattr(trial.config, name)) if axis.choices else getattr(trial.config, name)


def word(choice: Any) -> str:
    """A choice as an escaped word, since the distances between choices mean nothing."""
    return html.escape(str(list(choice) if isinstance(choice, tuple) else choice))


def axis_scale(axis: Axis) -> dict[str, Any]:
    """The whole range that was searched, so that the page shows where no trial looked."""
    if axis.choices:
        order = [word(choice) for choice in axis.choices]
        return {"type": "category", "categoryorder": "array", "categoryarray": order}
    assert axis.low is not None and axis.high is not None
    if axis.log:
        low, high = math.log10(axis.low), math.log10(axis.high)
        room = 0.04 * (high - low)
        decades = range(math.floor(low), math.ceil(high) + 1)
        digits = (1, 2, 5) if high - low < 2 else (1,)
        every = (float(f"{digit}e{decade}") for decade in decades for digit in digits)
        ticks = [tick for tick in every if axis.low <= tick <= axis.high]
        texts = [f"{tick:g}" if tick >= 0.001 else f"{tick:.0e}".replace("e-0", "e-") for tick in ticks]
        words = {
            "tickvals": ticks,
            "ticktext": texts,
            "tickangle": 0,
            "title_standoff": 38,
        }  # from the axis, not its texts
        return {"type": "log", "range": [low - room, high + room], **words}
    room = 0.04 * (axis.high - axis.low)
    return {"type": "linear", "range": [axis.low - room, axis.high + room]}


def told(value: Any) -> str:
    """A value as a hover shows it; Plotly reads markup in texts, so it is escaped."""
    return f"{value:.4g}" if isinstance(value, float) else html.escape(str(value))


def marks(trials: Sequence[TrialRow], x: Sequence[Any], search: Mapping[str, Axis], arm: Arm) -> go.Scatter:
    """Trials of an arm by `x` and val_accuracy."""
    many = len(trials) > FEW_CURVES
    marker = {
        "size": 6 if many else 10,
        "color": COLOURS[arm],
        "symbol": SYMBOLS[arm],
        "opacity": 0.5 if many else 0.85,
    }
    y = [short(100 * accuracy(trial)) for trial in trials]
    return scatter(trials, x, y, search, name=arm, meta=arm, marker=marker)


def scatter(
    trials: Sequence[TrialRow], x: Sequence[Any], y: Sequence[Any], search: Mapping[str, Axis], **style: Any
) -> go.Scatter:
    """Marks of one arm's trials that tell, on hovering, trial, searched values and accuracy."""
    lines = ["<b>" + (ARM_NAMES[trials[0].arm] if trials else "") + " trial %{customdata[0]}</b>"]
    lines += [f"{name} %{{customdata[{place}]}}" for place, name in enumerate(search, start=1)]
    lines.append(f"val_accuracy %{{customdata[{len(search) + 1}]}} %")
    rows = [[t.trial, *(told(getattr(t.config, name)) for name in search), _percent(t)] for t in trials]
    hover = "<br>".join(lines) + "<extra></extra>"
    return go.Scatter(x=x, y=y, mode="markers", customdata=rows, hovertemplate=hover, **style)


def _percent(trial: TrialRow) -> str:
    measured = trial.result.val_accuracy if trial.result else None
    return "–" if measured is None else f"{100 * measured:.2f}"


def short(value: float) -> float:
    """Five digits: what an eye can tell apart on a figure, and a page can carry a thousand times."""
    return float(f"{value:.5g}")


def new_plot(*, height: int, x_title: str, y_title: str) -> go.Figure:
    """An empty figure in the page's style."""
    return calm(go.Figure(), height=height, x_title=x_title, y_title=y_title)


def calm(plot: go.Figure, *, height: int, x_title: str, y_title: str) -> go.Figure:
    """No frame, no background, no title, one family of type: what every figure of the page shares."""
    plot.update_layout(
        template="none",
        title=None,
        height=height,
        showlegend=False,
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        dragmode=False,
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#7a7f87"},
        margin={"l": 52, "r": 16, "t": 14, "b": 48},
        hoverlabel={"bgcolor": "#22272e", "bordercolor": "#22272e", "font": {"color": "#ffffff"}},
    )
    axis = {
        "title_font_size": 13,
        "title_standoff": 8,
        "showgrid": True,
        "gridcolor": GRID,
        "zeroline": False,
        "automargin": True,
    }
    plot.update_xaxes(title_text=x_title, **axis)
    plot.update_yaxes(title_text=y_title, **axis)
    return plot
