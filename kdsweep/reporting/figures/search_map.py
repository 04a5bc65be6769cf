"""Where the search looked and what it found: the map of T and alpha, slices, and every trial as a line."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from kdsweep.analysis.formats import compact, plural
from kdsweep.analysis.leaderboard import accuracy, complete
from kdsweep.config.sweep import ARMS, Axis
from kdsweep.records.whole_sweep import SweepRecords
from kdsweep.records.writing import TrialRow
from kdsweep.reporting.figures.style import (
    CLEAR,
    COLOUR_BAR,
    GRID,
    NEUTRAL,
    SCALE,
    Figure,
    axis_scale,
    marks,
    missing,
    new_plot,
    placed,
    scatter,
    short,
    word,
)

FEWEST_FOR_DENSITY = 20
"""Distilled trials from which the map shades where they lie thick; fewer are seen one by one."""
SHADE = ((0.0, "rgba(128,128,128,0)"), (1.0, "rgba(128,128,128,0.26)"))
BINS = 12
"""Colours of the lines in parallel coordinates: one trace each."""


def search_maps(records: SweepRecords) -> tuple[Figure, ...]:
    """The map of T and alpha where both are searched, else one slice for each searched field."""
    if {"temperature", "alpha"} <= set(records.sweep.search):
        return (temperature_alpha_map(records),)
    return tuple(axis_slice(records, name) for name in records.sweep.search)


def temperature_alpha_map(records: SweepRecords) -> Figure:
    """Distilled trials by temperature and alpha, coloured by val_accuracy; crosses were pruned, shade is their density."""
    search, title = records.sweep.search, "Temperature and alpha"
    tried = [trial for trial in records.trials if trial.arm == "distilled"]
    done = sorted(complete(tried), key=accuracy)  # the best lie on top
    if not done:
        return missing("map", title, "No distilled trial is complete yet.")
    pruned = [trial for trial in tried if trial.result and trial.result.status == "pruned"]
    best = max(done, key=lambda trial: (accuracy(trial), -trial.trial))
    many = len(tried) > 100
    plot = new_plot(height=440, x_title="temperature", y_title="alpha (weight of the soft term)")
    plot.add_traces(_shade(tried, search))
    if pruned:
        size = 5 if many else 9
        cross: dict[str, Any] = {"symbol": "x-thin", "size": size, "line": {"color": NEUTRAL, "width": 1.2}}
        plot.add_trace(_points(pruned, search, "pruned", cross))
    plot.add_trace(_points(done, search, "complete", _disc(done, 8 if many else 14)))
    ring = {"symbol": "circle-open", "size": 24, "color": NEUTRAL, "line": {"width": 2}}
    plot.add_trace(_points([best], search, "best", ring))
    plot.update_xaxes(**axis_scale(search["temperature"]))
    plot.update_yaxes(**axis_scale(search["alpha"]))
    described = (
        f"{len(done)} complete and {len(pruned)} pruned trials; the best, trial {best.trial}, has temperature "
        f"{best.config.temperature:.3g}, alpha {best.config.alpha:.3g} and val_accuracy {100 * accuracy(best):.1f} %."
    )
    return Figure(name="map", title=title, description=described, plot=plot)


def _disc(done: Sequence[TrialRow], size: int) -> dict[str, Any]:
    title = {"text": "val_accuracy, %", "side": "top", "font": {"size": 13}}
    return {
        "size": size,
        "color": [short(100 * accuracy(trial)) for trial in done],
        "colorscale": SCALE,
        "line": {"color": NEUTRAL, "width": 1 if size > 8 else 0.5},
        "showscale": len({accuracy(trial) for trial in done}) > 1,
        "colorbar": {**COLOUR_BAR, "title": title},
    }


def _points(trials: Sequence[TrialRow], search: Mapping[str, Axis], name: str, marker: Mapping[str, Any]) -> go.Scatter:
    """Trials by temperature and alpha."""
    x, y = ([placed(trial, axis, search[axis]) for trial in trials] for axis in ("temperature", "alpha"))
    return scatter(trials, x, y, search, name=name, marker=marker)


def _shade(tried: Sequence[TrialRow], search: Mapping[str, Axis]) -> list[go.Contour]:
    """The trials' density over two intervals; nothing for few trials or for axes of choices."""
    axes = (search["temperature"], search["alpha"])
    if len(tried) < FEWEST_FOR_DENSITY or any(axis.choices for axis in axes):
        return []
    places = np.array([[unit(t.config.temperature, axes[0]), unit(t.config.alpha, axes[1])] for t in tried])
    grid = np.linspace(0, 1, 41)
    heights = density(places, grid)
    x, y = ([_value(share, axis) for share in grid] for axis in axes)
    contours = {"coloring": "fill", "start": 0.125, "end": 1, "size": 0.125}
    z = np.round(heights / heights.max(), 3).tolist()
    style = {"colorscale": SHADE, "showscale": False, "hoverinfo": "skip", "line": {"width": 0}, "name": "density"}
    return [go.Contour(x=x, y=y, z=z, zmin=0, zmax=1, contours=contours, **style)]


def density(places: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Gaussian kernel density of places [N, 2] in the unit square at every pair of grid values: [grid of y, grid of x].

    Scott's bandwidth n^(-1/6) times each axis's deviation, at least 0.03 so that one point stays visible.
    """
    wide = np.maximum(places.std(axis=0) * len(places) ** (-1 / 6), 0.03)
    x, y = (np.exp(-0.5 * ((grid[:, None] - places[:, axis]) / wide[axis]) ** 2) for axis in (0, 1))
    return np.asarray(y @ x.T)


def unit(value: Any, axis: Axis) -> float:
    """Where a value lies on its axis, from 0 at its low end to 1; a choice by its place in the list."""
    if axis.choices:
        return axis.choices.index(value) / (len(axis.choices) - 1) if len(axis.choices) > 1 else 0.5
    assert axis.low is not None and axis.high is not None
    if axis.log:
        return math.log(value / axis.low) / math.log(axis.high / axis.low)
    return float(value - axis.low) / (axis.high - axis.low)


def _value(share: float, axis: Axis) -> float:
    """The value at a share of an interval: the inverse of `unit`."""
    assert axis.low is not None and axis.high is not None
    if axis.log:
        return short(axis.low * (axis.high / axis.low) ** share)
    return short(axis.low + share * (axis.high - axis.low))


def axis_slice(records: SweepRecords, name: str) -> Figure:
    """val_accuracy of both arms' complete trials over one searched field."""
    done = complete(records.trials)
    if not done:
        return missing(f"slice-{name}", name, "No trial is complete yet.")
    axis = records.sweep.search[name]
    plot = new_plot(height=300, x_title=name, y_title="val_accuracy, %")
    for arm in ARMS:
        trials = [trial for trial in done if trial.arm == arm and name in records.sweep.axes(arm)]
        if trials:
            plot.add_trace(marks(trials, [placed(t, name, axis) for t in trials], records.sweep.search, arm))
    plot.update_xaxes(**axis_scale(axis))
    described = f"val_accuracy of {plural(len(done), 'complete trial')} over {name}, {axis.text()}."
    return Figure(name=f"slice-{name}", title=name, description=described, plot=plot)


# Parallel coordinates -------------------------------------------------------------------------------------------------


def parallel_coordinates(records: SweepRecords) -> Figure:
    """Every complete distilled trial as a line through its searched values to its val_accuracy; the best is strong."""
    title, axes = "Every trial as a line", records.sweep.axes("distilled")
    done = sorted((t for t in complete(records.trials) if t.arm == "distilled"), key=accuracy)
    if not done:
        return missing("parallel", title, "No distilled trial is complete yet.")
    low, high = accuracy(done[0]), accuracy(done[-1])
    quality = Axis(low=low, high=high) if high > low else Axis(choices=(low,))
    shares = [unit(accuracy(trial), quality) if high > low else 1.0 for trial in done]
    plot = new_plot(height=400, x_title="", y_title="")
    for number in range(BINS):
        inside = [
            trial for trial, share in zip(done, shares, strict=True) if min(int(share * BINS), BINS - 1) == number
        ]
        if inside:
            plot.add_trace(_strands(inside, axes, quality, (number + 0.5) / BINS, many=len(done) > 100))
    best = max(done, key=lambda trial: (accuracy(trial), -trial.trial))
    plot.add_trace(_strands([best], axes, quality, 1.0))
    plot.data[-1].update(name="best", opacity=1.0, line_width=3)
    _draw_axes(plot, axes, quality)
    described = f"{plural(len(done), 'complete distilled trial')} across {', '.join([*axes, 'val_accuracy'])}."
    return Figure(name="parallel", title=title, description=described, plot=plot, wide=True)


def _strands(
    trials: Sequence[TrialRow], axes: Mapping[str, Axis], quality: Axis, share: float, *, many: bool = False
) -> go.Scatter:
    """Trials as one trace with gaps, in the colour of a share of the accuracies' range."""
    x: list[int | None] = []
    y: list[float | None] = []
    text: list[str | None] = []
    numbers: list[int | None] = []
    for trial in trials:
        values = {name: getattr(trial.config, name) for name in axes}
        heights = [unit(values[name], axis) for name, axis in axes.items()] + [unit(accuracy(trial), quality)]
        x += [*range(len(heights)), None]
        y += [*map(short, heights), None]
        text += [f"{name} {word(compact(value))}" for name, value in values.items()]
        text += [f"val_accuracy {100 * accuracy(trial):.2f} %", None]
        numbers += [trial.trial] * len(heights) + [None]
    (colour,) = sample_colorscale([list(step) for step in SCALE], [share])
    line = {"color": colour, "width": 1 if many else 1.6}
    style: dict[str, Any] = {"mode": "lines", "line": line, "opacity": 0.4 if many else 0.7, "name": "trials"}
    hover = "<b>trial %{customdata}</b><br>%{text}<extra></extra>"
    return go.Scatter(x=x, y=y, text=text, customdata=numbers, hovertemplate=hover, **style)


def _draw_axes(plot: go.Figure, axes: Mapping[str, Axis], quality: Axis) -> None:
    """An upright line a field with its name below and its values beside."""
    names = [*axes, "val_accuracy"]
    for place, axis in enumerate([*axes.values(), quality]):
        plot.add_shape(type="line", x0=place, x1=place, y0=0, y1=1, line={"color": NEUTRAL, "width": 1}, layer="below")
        percent = place == len(axes)
        for height, label in _labels(axis, percent=percent):
            beside = {"xanchor": "left", "xshift": 6, "showarrow": False, "font": {"size": 11}}
            plot.add_annotation(x=place, y=height, text=label, **beside)
    plot.update_layout(margin={"l": 52, "r": 70, "t": 16, "b": 36}, hovermode="closest")
    ticks = {"tickvals": list(range(len(names))), "ticktext": names, "ticks": ""}
    plot.update_xaxes(showgrid=False, range=[-0.08, len(names) - 1 + 0.08], linecolor=CLEAR, gridcolor=GRID, **ticks)
    plot.update_yaxes(visible=False, range=[-0.04, 1.04])


def _labels(axis: Axis, *, percent: bool) -> list[tuple[float, str]]:
    """Heights and texts beside an axis: each choice, or five values."""
    values = list(axis.choices) or [_value(share, axis) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    texts = [f"{100 * value:.1f} %" if percent else word(compact(value)) for value in values]
    return list(zip([unit(value, axis) for value in values], texts, strict=True))
