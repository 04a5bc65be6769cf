"""Draw the searched values and their scores: as a map of temperature and alpha, or as a slice for each field."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from kdsweep.analysis.formats import plural
from kdsweep.analysis.leaderboard import complete, ranked
from kdsweep.analysis.score import score, score_text, score_title
from kdsweep.config.axis import Axis
from kdsweep.config.sweep import SweepConfig
from kdsweep.records.reading import TrialRow
from kdsweep.records.whole_sweep import SweepRecords
from kdsweep.reporting.figures.style import (
    COLOUR_BAR,
    NEUTRAL,
    SCALE,
    Figure,
    axis_scale,
    heights,
    marks,
    missing,
    new_plot,
    placed,
    scatter,
    searching,
    short,
    thinned,
)

FEWEST_FOR_DENSITY = 20
"""Distilled trials from which on the map shades their density; fewer can be seen one by one."""
SHADE = ((0.0, "rgba(128,128,128,0)"), (1.0, "rgba(128,128,128,0.26)"))


def search_maps(records: SweepRecords) -> tuple[Figure, ...]:
    """Draw the map of temperature and alpha where both are searched, else one slice for each searched field."""
    if {"temperature", "alpha"} <= set(records.sweep.axes("distilled")):
        return (temperature_alpha_map(records),)
    return tuple(axis_slice(records, name) for name in records.sweep.search)


def temperature_alpha_map(records: SweepRecords) -> Figure:
    """Draw distilled trials by temperature and alpha, coloured by `study.metric`; a cross was pruned, shade is the trials' density."""
    sweep, search, title = records.sweep, records.sweep.search, "Temperature and alpha"
    distilled = [trial for trial in records.trials if trial.arm == "distilled"]
    tried = searching(distilled, search["temperature"], search["alpha"])
    done = ranked(tried, sweep)[::-1]  # the best on top
    if not done:
        both = " that searched both" if len(tried) < len(distilled) else ""
        return missing("map", title, f"No distilled trial{both} is complete yet.")
    pruned = [trial for trial in tried if trial.result and trial.result.status == "pruned"]
    best = done[-1]
    many = len(tried) > 100
    plot = new_plot(height=440, x_title="temperature", y_title="alpha (weight of the soft term)")
    plot.add_traces(_shade(tried, search))
    if pruned:
        size = 5 if many else 9
        cross: dict[str, Any] = {"symbol": "x-thin", "size": size, "line": {"color": NEUTRAL, "width": 1.2}}
        plot.add_trace(_points(thinned(pruned, sweep), sweep, "pruned", cross))
    drawn = thinned(done, sweep)
    plot.add_trace(_points(drawn, sweep, "complete", _disc(drawn, sweep, 8 if many else 14)))
    ring = {"symbol": "circle-open", "size": 24, "color": NEUTRAL, "line": {"width": 2}}
    plot.add_trace(_points([best], sweep, "best", ring))
    plot.update_xaxes(**axis_scale(search["temperature"]))
    plot.update_yaxes(**axis_scale(search["alpha"]))
    described = (
        f"{len(done)} complete and {len(pruned)} pruned trials; the best, trial {best.trial}, has temperature "
        f"{best.config.temperature:.3g}, alpha {best.config.alpha:.3g} and {sweep.study.metric} "
        f"{score_text(sweep.study.metric, score(best, sweep))}."
    )
    left_out = len(distilled) - len(tried)
    described += (
        f" {plural(left_out, 'trial')} that did not search both {'is' if left_out == 1 else 'are'} left out."
        if left_out
        else ""
    )
    return Figure(name="map", title=title, description=described, plot=plot)


def _disc(done: Sequence[TrialRow], sweep: SweepConfig, size: int) -> dict[str, Any]:
    title = {"text": score_title(sweep.study.metric), "side": "top", "font": {"size": 13}}
    return {
        "size": size,
        "color": heights(done, sweep),
        "colorscale": SCALE,
        "line": {"color": NEUTRAL, "width": 1 if size > 8 else 0.5},
        "showscale": len({score(trial, sweep) for trial in done}) > 1,
        "colorbar": {**COLOUR_BAR, "title": title},
    }


def _points(trials: Sequence[TrialRow], sweep: SweepConfig, name: str, marker: Mapping[str, Any]) -> go.Scatter:
    """Draw trials by temperature and alpha."""
    x, y = ([placed(trial, axis, sweep.search[axis]) for trial in trials] for axis in ("temperature", "alpha"))
    return scatter(trials, x, y, sweep, name=name, marker=marker)


def _shade(tried: Sequence[TrialRow], search: Mapping[str, Axis]) -> list[go.Contour]:
    """Draw the trials' density over temperature and alpha; nothing for few trials or for axes of choices."""
    axes = (search["temperature"], search["alpha"])
    if len(tried) < FEWEST_FOR_DENSITY or any(axis.choices for axis in axes):
        return []
    places = np.array([[unit(t.config.temperature, axes[0]), unit(t.config.alpha, axes[1])] for t in tried])
    grid = np.linspace(0, 1, 41)
    heights = density(places, grid)
    x, y = ([value_at(share, axis) for share in grid] for axis in axes)
    contours = {"coloring": "fill", "start": 0.125, "end": 1, "size": 0.125}
    z = np.round(heights / heights.max(), 3).tolist()
    style = {"colorscale": SHADE, "showscale": False, "hoverinfo": "skip", "line": {"width": 0}, "name": "density"}
    return [go.Contour(x=x, y=y, z=z, zmin=0, zmax=1, contours=contours, **style)]


def density(places: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Return the Gaussian kernel density of `places` [N, 2] in the unit square at every pair of grid values: [grid of y, grid of x].

    It is a sum, not normalised. Bandwidth: Scott's n^(-1/6) times each axis's deviation, at least 0.03 so that one point stays visible.
    """
    wide = np.maximum(places.std(axis=0) * len(places) ** (-1 / 6), 0.03)
    x, y = (np.exp(-0.5 * ((grid[:, None] - places[:, axis]) / wide[axis]) ** 2) for axis in (0, 1))
    return np.asarray(y @ x.T)


def unit(value: Any, axis: Axis) -> float:
    """Return a value's place on its axis, from 0 at the low end to 1, logarithmic on a log axis; a choice by its place in the list."""
    if axis.choices:
        return axis.choices.index(value) / (len(axis.choices) - 1) if len(axis.choices) > 1 else 0.5
    assert axis.low is not None and axis.high is not None
    if axis.log:
        return math.log(value / axis.low) / math.log(axis.high / axis.low)
    return float(value - axis.low) / (axis.high - axis.low)


def value_at(share: float, axis: Axis) -> float:
    """Return the value at a share of an interval, to five digits: the inverse of `unit`."""
    assert axis.low is not None and axis.high is not None
    if axis.log:
        return short(axis.low * (axis.high / axis.low) ** share)
    return short(axis.low + share * (axis.high - axis.low))


def axis_slice(records: SweepRecords, name: str) -> Figure:
    """Draw `study.metric` of the complete trials of every arm that searches it, over one field."""
    axis, metric = records.sweep.search[name], records.sweep.study.metric
    done = [t for t in searching(complete(records.trials), axis) if name in records.sweep.axes(t.arm)]
    if not done:
        return missing(f"slice-{name}", name, "No trial is complete yet.")
    plot = new_plot(height=300, x_title=name, y_title=score_title(metric))
    for arm in records.sweep.arms:
        trials = thinned([trial for trial in done if trial.arm == arm], records.sweep)
        if trials:
            plot.add_trace(marks(trials, [placed(t, name, axis) for t in trials], records.sweep, arm))
    plot.update_xaxes(**axis_scale(axis))
    described = f"{metric} of {plural(len(done), 'complete trial')} over {name}, {axis.text()}."
    return Figure(name=f"slice-{name}", title=name, description=described, plot=plot)
