"""The report's figures: each function takes trials and gives a `Figure`, drawn or with the reason why there is none.

Colours, dashes and backgrounds read on light and on dark pages; the page's stylesheet colours text and axes.
"""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from kdsweep.leaderboard import ARM_NAMES, accuracy, complete
from kdsweep.records import SweepRecords, TrialRow
from kdsweep.sweep_config import ARMS, Arm, Axis

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

    def json(self) -> str:
        """The plot as JSON that cannot close the script tag it stands in; `null` without a plot."""
        return str(self.plot.to_json()).replace("<", "\\u003c") if self.plot else "null"


def plotly_js() -> str:
    """The library that draws the figures on the page, to be inlined once."""
    return str(get_plotlyjs())


# The search ----------------------------------------------------------------------------------------------------------


def search_maps(records: SweepRecords) -> tuple[Figure, ...]:
    """The map of T and alpha where both are searched, else one slice for each searched field."""
    if {"temperature", "alpha"} <= set(records.sweep.search):
        return (temperature_alpha_map(records),)
    return tuple(axis_slice(records, name) for name in records.sweep.search)


def temperature_alpha_map(records: SweepRecords) -> Figure:
    """Distilled trials by temperature and alpha, coloured by val_accuracy; crosses were pruned."""
    search, title = records.sweep.search, "Temperature and alpha"
    done = [trial for trial in complete(records.trials) if trial.arm == "distilled"]
    if not done:
        return missing("map", title, "No distilled trial is complete yet.")
    pruned = [t for t in records.trials if t.arm == "distilled" and t.result and t.result.status == "pruned"]
    best = max(done, key=accuracy)
    plot = _plot(height=440, x_title="temperature", y_title="alpha (weight of the soft term)")
    if pruned:
        marker: dict[str, Any] = {"symbol": "x-thin", "size": 9, "line": {"color": NEUTRAL, "width": 1.5}}
        plot.add_trace(_points(pruned, search, "pruned", marker))
    marker = {"size": 14, "color": [100 * accuracy(trial) for trial in done], "colorscale": SCALE}
    marker |= {"line": {"color": NEUTRAL, "width": 1}, "showscale": len({accuracy(trial) for trial in done}) > 1}
    marker["colorbar"] = {**COLOUR_BAR, "title": {"text": "val_accuracy, %", "side": "top", "font": {"size": 13}}}
    plot.add_trace(_points(done, search, "complete", marker))
    ring = {"symbol": "circle-open", "size": 24, "color": NEUTRAL, "line": {"width": 2}}
    plot.add_trace(_points([best], search, "best", ring))
    plot.update_xaxes(**_axis_scale(search["temperature"]))
    plot.update_yaxes(**_axis_scale(search["alpha"]))
    described = (
        f"{len(done)} complete and {len(pruned)} pruned trials; the best, trial {best.trial}, has temperature "
        f"{best.config.temperature:.3g}, alpha {best.config.alpha:.3g} and val_accuracy {100 * accuracy(best):.1f} %."
    )
    return Figure(name="map", title=title, description=described, plot=plot)


def axis_slice(records: SweepRecords, name: str) -> Figure:
    """val_accuracy of both arms' complete trials over one searched field."""
    done = complete(records.trials)
    if not done:
        return missing(f"slice-{name}", name, "No trial is complete yet.")
    axis = records.sweep.search[name]
    plot = _plot(height=300, x_title=name, y_title="val_accuracy, %")
    for arm in ARMS:
        trials = [trial for trial in done if trial.arm == arm and name in records.sweep.axes(arm)]
        if trials:
            plot.add_trace(_marks(trials, [_placed(t, name, axis) for t in trials], records.sweep.search, arm))
    plot.update_xaxes(**_axis_scale(axis))
    described = f"val_accuracy of {len(done)} complete trials over {name}, {axis.text()}."
    return Figure(name=f"slice-{name}", title=name, description=described, plot=plot)


# The training --------------------------------------------------------------------------------------------------------


def learning_curves(trials: Sequence[TrialRow]) -> tuple[Figure, ...]:
    """L_soft, L_hard and val_accuracy over the epochs: all trials faint, the best of each arm strong."""
    return tuple(_curve(trials, metric) for metric in ("L_soft", "L_hard", "val_accuracy"))


def _curve(trials: Sequence[TrialRow], metric: str) -> Figure:
    with_epochs = [trial for trial in trials if trial.epochs]
    if not with_epochs:
        return missing(metric, metric, "No epoch is finished yet.")
    unit = ", %" if metric == "val_accuracy" else ""
    plot = _plot(height=300, x_title="epoch", y_title="")
    ends = []
    for arm in ARMS:
        of_arm = [trial for trial in with_epochs if trial.arm == arm]
        plot.add_traces([_line(trial, metric, arm, strong=False) for trial in of_arm])
        if done := complete(of_arm):
            best = max(done, key=accuracy)
            plot.add_trace(_line(best, metric, arm, strong=True))
            ends.append(f"the best {ARM_NAMES[arm]} one ends at {_measured(best, metric)[-1]:.3g}{unit.strip(',')}")
    most = max(len(trial.epochs) for trial in with_epochs)
    plot.update_xaxes(range=[0.7, most + 0.3], dtick=max(1, most // 6))
    described = "; ".join([f"{metric} of {len(with_epochs)} trials over their epochs", *ends]) + "."
    return Figure(name=metric, title=metric + unit, description=described, plot=plot)


def _measured(trial: TrialRow, metric: str) -> list[float]:
    factor = 100 if metric == "val_accuracy" else 1
    return [factor * float(getattr(epoch, metric)) for epoch in trial.epochs]


def _line(trial: TrialRow, metric: str, arm: Arm, *, strong: bool) -> go.Scatter:
    return go.Scatter(
        x=list(range(1, len(trial.epochs) + 1)),
        y=_measured(trial, metric),
        mode="lines+markers",
        opacity=1.0 if strong else 0.28,
        line={"color": COLOURS[arm], "dash": DASHES[arm], "width": 3 if strong else 1.2},
        marker={"size": 7 if strong else 4, "symbol": SYMBOLS[arm]},
        hovertemplate=f"{ARM_NAMES[arm]} trial {trial.trial}<br>epoch %{{x}}<br>{metric} %{{y:.4g}}<extra></extra>",
    )


# The price -----------------------------------------------------------------------------------------------------------


def accuracy_versus_cost(records: SweepRecords) -> tuple[Figure, ...]:
    """val_accuracy over parameters and over latency, where the students differ in size; the teacher is a star."""
    done = complete(records.trials)
    if len({trial.result.parameters for trial in done if trial.result}) < 2:
        return ()
    return (
        _cost(records, done, "parameters", "parameters, millions", 1e-6),
        _cost(records, done, "latency_ms_p50", "milliseconds a row", 1.0),
    )


def _cost(records: SweepRecords, trials: Sequence[TrialRow], field: str, unit: str, factor: float) -> Figure:
    teacher = records.teacher
    plot = _plot(height=300, x_title=unit, y_title="val_accuracy, %")
    for arm in ARMS:
        known = [t for t in trials if t.arm == arm and t.result and getattr(t.result, field) is not None]
        costs = [factor * getattr(trial.result, field) for trial in known]
        plot.add_trace(_marks(known, costs, records.sweep.search, arm))
    if teacher:
        star = {"size": 14, "symbol": "star", "color": NEUTRAL}
        x, y = [factor * getattr(teacher, field)], [100 * teacher.val_accuracy]
        plot.add_trace(go.Scatter(x=x, y=y, mode="markers", marker=star, hovertemplate="teacher<extra></extra>"))
    described = f"val_accuracy of {len(trials)} complete trials and the teacher over {unit}."
    return Figure(name=f"cost-{field}", title=f"Accuracy over {unit}", description=described, plot=plot)


# Shared --------------------------------------------------------------------------------------------------------------


def missing(name: str, title: str, note: str) -> Figure:
    """A figure that cannot be drawn, and why."""
    return Figure(name=name, title=title, description="", plot=None, note=note)


def _placed(trial: TrialRow, name: str, axis: Axis) -> Any:
    """A trial's value of the field `name` as its axis places it."""
    return _word(getattr(trial.config, name)) if axis.choices else getattr(trial.config, name)


def _word(choice: Any) -> str:
    """A choice as an escaped word, since the distances between choices mean nothing."""
    return html.escape(str(list(choice) if isinstance(choice, tuple) else choice))


def _axis_scale(axis: Axis) -> dict[str, Any]:
    """The whole range that was searched, so that the page shows where no trial looked."""
    if axis.choices:
        order = [_word(choice) for choice in axis.choices]
        return {"type": "category", "categoryorder": "array", "categoryarray": order}
    assert axis.low is not None and axis.high is not None
    if axis.log:
        low, high = math.log10(axis.low), math.log10(axis.high)
        room = 0.04 * (high - low)
        decades = range(math.floor(low), math.ceil(high) + 1)
        digits = (1, 2, 5) if high - low < 2 else (1,)
        ticks = [float(f"{digit}e{decade}") for decade in decades for digit in digits]
        texts = [f"{tick:g}" if tick >= 0.001 else f"{tick:.0e}".replace("e-0", "e-") for tick in ticks]
        words = {"tickvals": ticks, "ticktext": texts, "tickangle": 0}
        return {"type": "log", "range": [low - room, high + room], **words}
    room = 0.04 * (axis.high - axis.low)
    return {"type": "linear", "range": [axis.low - room, axis.high + room]}


def _hover(trial: TrialRow, search: Mapping[str, Axis]) -> str:
    """Trial, searched values and accuracy; Plotly reads markup in texts, so values are escaped."""
    result = trial.result
    lines = [f"<b>{ARM_NAMES[trial.arm]} trial {trial.trial}</b>"]
    for name in search:
        value = getattr(trial.config, name)
        lines.append(f"{name} {value:.4g}" if isinstance(value, float) else html.escape(f"{name} {value}"))
    if result and result.val_accuracy is not None:
        lines.append(f"val_accuracy {100 * result.val_accuracy:.2f} %")
    return "<br>".join(lines)


def _points(trials: Sequence[TrialRow], search: Mapping[str, Axis], name: str, marker: Mapping[str, Any]) -> go.Scatter:
    """Trials by temperature and alpha."""
    x, y = ([_placed(trial, axis, search[axis]) for trial in trials] for axis in ("temperature", "alpha"))
    return _scatter(trials, x, y, search, name=name, marker=marker)


def _marks(trials: Sequence[TrialRow], x: Sequence[Any], search: Mapping[str, Axis], arm: Arm) -> go.Scatter:
    """Trials of an arm by `x` and val_accuracy."""
    marker = {"size": 10, "color": COLOURS[arm], "symbol": SYMBOLS[arm], "opacity": 0.85}
    return _scatter(trials, x, [100 * accuracy(trial) for trial in trials], search, name=arm, marker=marker)


def _scatter(
    trials: Sequence[TrialRow], x: Sequence[Any], y: Sequence[Any], search: Mapping[str, Axis], **style: Any
) -> go.Scatter:
    text = [_hover(trial, search) for trial in trials]
    return go.Scatter(x=x, y=y, mode="markers", text=text, hovertemplate="%{text}<extra></extra>", **style)


def _plot(*, height: int, x_title: str, y_title: str) -> go.Figure:
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
    axis = {"title_font_size": 13, "showgrid": True, "gridcolor": GRID, "zeroline": False, "automargin": True}
    plot.update_xaxes(title_text=x_title, **axis)
    plot.update_yaxes(title_text=y_title, **axis)
    return plot
