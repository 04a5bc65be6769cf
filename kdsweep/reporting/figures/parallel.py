"""Draw every complete distilled trial as a line through its searched values."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from kdsweep.analysis.formats import compact, plural
from kdsweep.analysis.leaderboard import ranked
from kdsweep.analysis.score import score, score_text
from kdsweep.config.axis import Axis
from kdsweep.config.sweep import SweepConfig
from kdsweep.records.reading import TrialRow
from kdsweep.records.whole_sweep import SweepRecords
from kdsweep.reporting.figures.search_map import unit, value_at
from kdsweep.reporting.figures.style import CLEAR, GRID, NEUTRAL, SCALE, Figure, missing, new_plot, short, thinned, word

NOT_SEARCHED = -0.08
"""Height, below an axis, of trials in which its condition does not hold."""
BINS = 12
"""Number of colours of the lines in parallel coordinates, each of them one trace."""


def parallel_coordinates(records: SweepRecords) -> Figure:
    """Draw every complete distilled trial as a line through its searched values to its `study.metric`; the best is strong."""
    title, sweep = "Every trial as a line", records.sweep
    done = ranked((trial for trial in records.trials if trial.arm == "distilled"), sweep)[::-1]  # the best on top
    if not done:
        return missing("parallel", title, "No distilled trial is complete yet.")
    low, high = score(done[0], sweep), score(done[-1], sweep)
    quality = Axis(low=low, high=high) if high > low else Axis(choices=(low,))
    shares = [unit(score(trial, sweep), quality) if high > low else 1.0 for trial in done]
    plot = new_plot(height=400, x_title="", y_title="")
    drawn = {trial.id for trial in thinned(done, sweep)}
    for number in range(BINS):
        inside = [
            trial
            for trial, share in zip(done, shares, strict=True)
            if min(int(share * BINS), BINS - 1) == number and trial.id in drawn
        ]
        if inside:
            plot.add_trace(_strands(inside, sweep, quality, (number + 0.5) / BINS, many=len(done) > 100))
    plot.add_trace(_strands([done[-1]], sweep, quality, 1.0))
    plot.data[-1].update(name="best", opacity=1.0, line_width=3)
    _draw_axes(plot, sweep, quality)
    names = [*sweep.axes("distilled"), sweep.study.metric]
    described = f"{plural(len(done), 'complete distilled trial')} across {', '.join(names)}."
    return Figure(name="parallel", title=title, description=described, plot=plot, wide=True)


def _strands(
    trials: Sequence[TrialRow], sweep: SweepConfig, quality: Axis, share: float, *, many: bool = False
) -> go.Scatter:
    """Draw trials as one trace with gaps, in the colour of a share of the scores' range."""
    axes, metric = sweep.axes("distilled"), sweep.study.metric
    x: list[int | None] = []
    y: list[float | None] = []
    text: list[str | None] = []
    numbers: list[int | None] = []
    for trial in trials:
        values = {name: getattr(trial.config, name) for name in axes}
        heights = [
            unit(values[name], axis) if axis.applies(vars(trial.config)) else NOT_SEARCHED
            for name, axis in axes.items()
        ]
        heights.append(unit(score(trial, sweep), quality))
        x += [*range(len(heights)), None]
        y += [*map(short, heights), None]
        text += [
            f"{name} {word(compact(value)) if height != NOT_SEARCHED else 'not searched'}"
            for (name, value), height in zip(values.items(), heights, strict=False)
        ]
        text += [f"{metric} {score_text(metric, score(trial, sweep), 2)}", None]
        numbers += [trial.trial] * len(heights) + [None]
    (colour,) = sample_colorscale([list(step) for step in SCALE], [share])
    line = {"color": colour, "width": 1 if many else 1.6}
    style: dict[str, Any] = {"mode": "lines", "line": line, "opacity": 0.4 if many else 0.7, "name": "trials"}
    hover = "<b>trial %{customdata}</b><br>%{text}<extra></extra>"
    return go.Scatter(x=x, y=y, text=text, customdata=numbers, hovertemplate=hover, **style)


def _draw_axes(plot: go.Figure, sweep: SweepConfig, quality: Axis) -> None:
    """Draw an upright line a field with its name below and its values beside."""
    axes, metric = sweep.axes("distilled"), sweep.study.metric
    names = [*axes, metric]
    for place, axis in enumerate([*axes.values(), quality]):
        plot.add_shape(type="line", x0=place, x1=place, y0=0, y1=1, line={"color": NEUTRAL, "width": 1}, layer="below")
        for height, label in _labels(axis, metric if place == len(axes) else None):
            beside = {"xanchor": "left", "xshift": 6, "showarrow": False, "font": {"size": 11}}
            plot.add_annotation(x=place, y=height, text=label, **beside)
    plot.update_layout(margin={"l": 52, "r": 70, "t": 16, "b": 36}, hovermode="closest")
    ticks = {"tickvals": list(range(len(names))), "ticktext": names, "ticks": ""}
    plot.update_xaxes(showgrid=False, range=[-0.08, len(names) - 1 + 0.08], linecolor=CLEAR, gridcolor=GRID, **ticks)
    conditional = any(axis.when for axis in axes.values())
    plot.update_yaxes(visible=False, range=[NOT_SEARCHED - 0.04 if conditional else -0.04, 1.04])


def _labels(axis: Axis, metric: str | None) -> list[tuple[float, str]]:
    """Return heights and texts beside an axis, that of a metric or of a field: each choice, or five values."""
    values = list(axis.choices) or [value_at(share, axis) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    texts = [score_text(metric, value) if metric else word(compact(value)) for value in values]
    labels = list(zip([unit(value, axis) for value in values], texts, strict=True))
    return [*labels, *([(NOT_SEARCHED, "not searched")] if axis.when else [])]
