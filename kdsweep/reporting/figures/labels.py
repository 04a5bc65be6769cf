"""Draw the F1 of every label of a multi-label sweep: teacher and the best student of each arm, side by side."""

import html

import plotly.graph_objects as go

from kdsweep.analysis.by_class import ByClass, Judged
from kdsweep.analysis.formats import clipped, enumerated
from kdsweep.reporting.figures.style import COLOURS, NEUTRAL, SYMBOLS, Figure, new_plot, short

MOST_LABELS = 40
"""Labels that the figure has room for: of more, it shows those with the lowest F1 that the table shows."""
LONGEST_TICK = 22
"""Most letters of a label's name beside the figure."""


def f1_by_label(by: ByClass | None) -> tuple[Figure, ...]:
    """Draw a line a label, the commonest first, with a mark for each model at its F1; none without predictions."""
    if by is None:
        return ()
    places = list(range(len(by.names))) if len(by.names) <= MOST_LABELS else by.shown()
    places.sort(key=lambda place: -by.rows[place])
    plot = new_plot(height=90 + 24 * len(places), x_title="F1, %", y_title="")
    for each in reversed(by.judged):  # the student to ship lies above the others, the teacher above all
        plot.add_trace(_marks(by, each, places))
    ticks = [html.escape(clipped(by.names[place], LONGEST_TICK)) for place in places]
    plot.update_yaxes(tickvals=list(range(len(places))), ticktext=ticks, autorange="reversed", ticksuffix="  ")
    plot.update_xaxes(range=[-2, 102])
    told = enumerated([each.name for each in by.judged])
    which = "every label" if len(places) == len(by.names) else f"{len(places)} of {len(by.names)} labels"
    described = f"F1 of {which} on the {by.split} rows, of {told}; labels of most rows stand on top."
    return (Figure(name="labels", title="F1 by label", description=described, plot=plot),)


def _marks(by: ByClass, each: Judged, places: list[int]) -> go.Scatter:
    """Draw one model's F1 of the labels that have one."""
    scores = each.scores()
    known = [(line, place, f1) for line, place in enumerate(places) if (f1 := scores[place].f1) is not None]
    marker = {"size": 10, "color": NEUTRAL, "symbol": "star"}
    marker |= {"color": COLOURS[each.arm], "symbol": SYMBOLS[each.arm], "opacity": 0.85} if each.arm else {}
    return go.Scatter(
        x=[short(100 * f1) for _, _, f1 in known],
        y=[line for line, _, _ in known],
        text=[
            f"{html.escape(by.names[place])}, {by.rows[place]:,} rows<br>F1 {100 * f1:.1f} %" for _, place, f1 in known
        ],
        meta=each.arm,
        mode="markers",
        marker=marker,
        hovertemplate=f"<b>{each.name}</b><br>%{{text}}<extra></extra>",
    )
