"""Draw what models of a regression predict against the labels, a figure for the best student and one for the teacher."""

import html

import numpy as np
import plotly.graph_objects as go

from kdsweep.analysis.predicted_numbers import Numbers, Predicted
from kdsweep.reporting.figures.style import COLOURS, NEUTRAL, SYMBOLS, Figure, missing, new_plot, short

MOST_ROWS = 3000
"""Rows that a figure draws: of more, as many are drawn by chance, the same for every model."""


def predicted_against_label(numbers: Numbers | None) -> tuple[Figure, ...]:
    """Draw a mark a row at its label and the predicted number, for each model on scales of one range; a row on the diagonal is predicted exactly."""
    if numbers is None:
        note = "No complete student's predictions are on this disk, so there is nothing to say of single rows."
        return (missing("predictions", "Predicted against label", note),)
    return tuple(_scatter(numbers, each, _drawn(len(numbers.labels))) for each in numbers.models)


def _drawn(rows: int) -> np.ndarray:
    """Return the rows that are drawn, in their order."""
    if rows <= MOST_ROWS:
        return np.arange(rows)
    return np.sort(np.random.default_rng(0).choice(rows, MOST_ROWS, replace=False))


def _scatter(numbers: Numbers, each: Predicted, drawn: np.ndarray) -> Figure:
    every = np.concatenate([numbers.labels, *(model.numbers for model in numbers.models)])
    room = 0.04 * (float(every.max() - every.min()) or 1.0)
    ends = [short(float(every.min()) - room), short(float(every.max()) + room)]
    plot = new_plot(height=340, x_title=f"{html.escape(numbers.label)}, the label", y_title="predicted")
    dotted = {"dash": "dot", "width": 1.5, "color": NEUTRAL}
    plot.add_trace(go.Scatter(x=ends, y=ends, mode="lines", line=dotted, hoverinfo="skip"))
    x, y = ([short(value) for value in values[drawn].tolist()] for values in (numbers.labels, each.numbers))
    many = len(drawn) > 500
    marker = {"size": 4 if many else 6, "opacity": 0.35 if many else 0.6, "color": NEUTRAL}
    marker |= {"color": COLOURS[each.arm], "symbol": SYMBOLS[each.arm]} if each.arm else {}
    hover = f"<b>{each.name}</b><br>row %{{customdata}}<br>label %{{x}}, predicted %{{y}}<extra></extra>"
    plot.add_trace(
        go.Scatter(
            x=x, y=y, customdata=drawn.tolist(), meta=each.arm, mode="markers", marker=marker, hovertemplate=hover
        )
    )
    plot.update_xaxes(range=ends)
    plot.update_yaxes(range=ends)
    name = f"predictions-{each.name.replace(' ', '-').replace(',', '')}"
    return Figure(name=name, title=each.name, description=_described(numbers, each, len(drawn)), plot=plot)


def _described(numbers: Numbers, each: Predicted, drawn: int) -> str:
    rows = len(numbers.labels)
    most = f" ({drawn:,} of them drawn)" if drawn < rows else ""
    bias = float(np.mean(each.numbers.astype(np.float64) - numbers.labels))
    off = f"{abs(bias):.2g} too {'high' if bias > 0 else 'low'} on average" if bias else "right on average"
    who = each.name if each.arm else "the teacher"
    return (
        f"What {who} predicts for the {rows:,} {numbers.split} rows{most}, {off}, with a root mean squared error of "
        f"{each.rmse(numbers.labels):.3g}; on the dotted line a prediction is the label."
    )
