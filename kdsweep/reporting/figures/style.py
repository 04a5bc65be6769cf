"""Provide what the report's figures share: `Figure`, drawn or with the reason why it is missing, and its style.

Colours, dashes and backgrounds are legible on light and on dark pages; the page colours text, axes, and the traces whose
`meta` names an arm. Thousands of points are put into few traces, curves as one line with gaps, which a browser draws at once.
"""

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from kdsweep.analysis.leaderboard import ranked
from kdsweep.analysis.score import scale, score, score_text
from kdsweep.config.arms import ARM_NAMES, Arm
from kdsweep.config.axis import Axis
from kdsweep.config.sweep import SweepConfig
from kdsweep.records.reading import TrialRow

COLOURS: dict[Arm, str] = {"distilled": "#3b82c4", "fine_tuned": "#cf7a1c", "pseudo_labeled": "#c0437a"}
"""Told apart with every kind of colour vision (CIE distance 17 at least, by Machado et al. 2009), and by dash and symbol without any."""
DASHES: dict[Arm, str] = {"distilled": "solid", "fine_tuned": "dash", "pseudo_labeled": "dot"}
SYMBOLS: dict[Arm, str] = {"distilled": "circle", "fine_tuned": "diamond", "pseudo_labeled": "square"}
SCALE = ((0.0, "#4a5a94"), (0.5, "#3c9a94"), (1.0, "#e3b23c"))
"""Colours of low to high scores; lightness rises with the score, so that a grey print stays legible."""
COLOUR_BAR = {"thickness": 10, "len": 0.6, "outlinewidth": 0, "orientation": "h", "nticks": 5, "tickangle": 0}
COLOUR_BAR |= {"x": 1, "xanchor": "right", "y": 1.01, "yanchor": "bottom"}
NEUTRAL = "rgba(128,128,128,0.75)"
GRID = "rgba(128,128,128,0.22)"
CLEAR = "rgba(0,0,0,0)"
FEW_CURVES = 60
"""Trials of an arm up to which each epoch gets a mark."""
MOST_TRIALS = 2000
"""Trials of an arm that a figure draws at most: the best quarter of so many, and others evenly spread over the rest."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Holds one figure of the page: its plot, or why there is none, and its texts."""

    name: str
    """The figure's id on the page."""
    title: str
    description: str
    """What the figure shows, in words, for readers who cannot see it."""
    plot: go.Figure | None
    note: str = ""
    """Why there is no plot; empty with one."""
    wide: bool = False
    """Whether the figure needs the width of a desktop screen; a phone scrolls it."""
    dense: bool = False
    """Whether a printed row holds two figures of this kind, not three."""

    @property
    def height(self) -> int:
        """Return the plot's height in CSS pixels; 0 without a plot."""
        return int(self.plot.layout.height) if self.plot else 0

    def json(self) -> str:
        """Return the plot as JSON that cannot close the script tag around it; `null` without a plot."""
        return str(self.plot.to_json()).replace("<", "\\u003c") if self.plot else "null"


def plotly_js() -> str:
    """Return the source of Plotly's JavaScript library, to be inlined once in the page."""
    return str(get_plotlyjs())


def missing(name: str, title: str, note: str) -> Figure:
    """Return a figure without a plot, with the reason as its `note`."""
    return Figure(name=name, title=title, description="", plot=None, note=note)


def placed(trial: TrialRow, name: str, axis: Axis) -> Any:
    """Return a trial's value of the field `name` as a plot's coordinate: a choice as a word, any other value as it is."""
    return word(getattr(trial.config, name)) if axis.choices else getattr(trial.config, name)


def word(choice: Any) -> str:
    """Return a choice as text escaped for HTML, since the distances between choices mean nothing."""
    return html.escape(str(list(choice) if isinstance(choice, tuple) else choice))


def searching(trials: Iterable[TrialRow], *axes: Axis) -> list[TrialRow]:
    """Return the trials in which the conditions of all `axes` hold: elsewhere a field has a value that nobody searched."""
    return [trial for trial in trials if all(axis.applies(vars(trial.config)) for axis in axes)]


def axis_scale(axis: Axis) -> dict[str, Any]:
    """Return Plotly's settings of an axis over the whole searched range, so that the page also shows where no trial is."""
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
        }  # from the axis, not from its labels
        return {"type": "log", "range": [low - room, high + room], **words}
    room = 0.04 * (axis.high - axis.low)
    return {"type": "linear", "range": [axis.low - room, axis.high + room]}


def told(value: Any) -> str:
    """Return a value as text for a hover label, escaped, since Plotly reads markup in texts; a dash for None."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else html.escape(str(value))


def thinned(trials: Sequence[TrialRow], sweep: SweepConfig) -> list[TrialRow]:
    """Return an arm's trials in their order; of more than `MOST_TRIALS` the best ones and an even part of the others."""
    if len(trials) <= MOST_TRIALS:
        return list(trials)
    best = {trial.id for trial in ranked(trials, sweep)[: MOST_TRIALS // 4]}
    others = [trial.id for trial in trials if trial.id not in best]
    left = MOST_TRIALS - len(best)
    kept = best | {others[place * len(others) // left] for place in range(left)}
    return [trial for trial in trials if trial.id in kept]


def heights(trials: Sequence[TrialRow], sweep: SweepConfig) -> list[float]:
    """Return each complete trial's `study.metric` as figures show it: a share in percent."""
    return [short(scale(sweep.study.metric) * score(trial, sweep)) for trial in trials]


def marks(trials: Sequence[TrialRow], x: Sequence[Any], sweep: SweepConfig, arm: Arm) -> go.Scatter:
    """Draw trials of an arm by `x` and `study.metric`."""
    many = len(trials) > FEW_CURVES
    marker = {
        "size": 6 if many else 10,
        "color": COLOURS[arm],
        "symbol": SYMBOLS[arm],
        "opacity": 0.5 if many else 0.85,
    }
    return scatter(trials, x, heights(trials, sweep), sweep, name=arm, meta=arm, marker=marker)


def scatter(
    trials: Sequence[TrialRow], x: Sequence[Any], y: Sequence[Any], sweep: SweepConfig, **style: Any
) -> go.Scatter:
    """Draw marks of one arm's trials, whose hover labels show trial, searched values and `study.metric`."""
    search, metric = sweep.search, sweep.study.metric
    lines = ["<b>" + (ARM_NAMES[trials[0].arm] if trials else "") + " trial %{customdata[0]}</b>"]
    lines += [f"{name} %{{customdata[{place}]}}" for place, name in enumerate(search, start=1)]
    lines.append(f"{metric} %{{customdata[{len(search) + 1}]}}")
    measured = [score_text(metric, getattr(trial.result, metric, None), 2) for trial in trials]
    rows = [
        [trial.trial, *map(told, sweep.searched(trial.config).values()), said]
        for trial, said in zip(trials, measured, strict=True)
    ]
    hover = "<br>".join(lines) + "<extra></extra>"
    return go.Scatter(x=x, y=y, mode="markers", customdata=rows, hovertemplate=hover, **style)


def short(value: float) -> float:
    """Return `value` rounded to five significant digits: enough for the eye, and short enough for thousands on a page."""
    return float(f"{value:.5g}")


def new_plot(*, height: int, x_title: str, y_title: str) -> go.Figure:
    """Return an empty plot in the page's style."""
    return calm(go.Figure(), height=height, x_title=x_title, y_title=y_title)


def calm(plot: go.Figure, *, height: int, x_title: str, y_title: str) -> go.Figure:
    """Set the page's style on a plot, and return it: no frame, no background, no title, one font family."""
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
