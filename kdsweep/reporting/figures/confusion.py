"""Draw the report's confusion matrices, where classes are few."""

import html

import plotly.graph_objects as go

from kdsweep.analysis.by_class import ByClass, Judged
from kdsweep.analysis.formats import clipped
from kdsweep.reporting.figures.style import SCALE, Figure, new_plot, short

LONGEST_TICK = 14
"""Most letters of a class's name beside a matrix, so that it fits a phone's screen."""


def confusion_matrices(by: ByClass | None) -> tuple[Figure, ...]:
    """Draw a confusion matrix for the teacher and each student; none where classes are too many to read."""
    return tuple(_matrix(by, each) for each in by.judged) if by and by.few else ()


def _matrix(by: ByClass, each: Judged) -> Figure:
    """Draw the shares in % of each class's rows (a line) by the class that the model names; a cell without rows stays empty."""
    places, names = list(range(len(by.names))), [html.escape(name) for name in by.names]
    shares = [[short(100 * count / sum(line)) if count else None for count in line] for line in each.counts.tolist()]
    told = [
        [f"{names[i]} named {names[j]}<br>{shares[i][j] or 0:.1f} % of its {by.rows[i]:,} rows" for j in places]
        for i in places
    ]
    plot = new_plot(height=min(460, 150 + 34 * len(places)), x_title="named", y_title="class")
    plot.add_trace(
        go.Heatmap(
            z=shares,
            x=places,
            y=places,
            zmin=0,
            zmax=100,
            colorscale=SCALE,
            showscale=False,
            xgap=2,
            ygap=2,
            text=told,
            texttemplate="%{z:.0f}",
            hoverongaps=False,
            hovertemplate=f"<b>{each.name}</b><br>%{{text}}<extra></extra>",
        )
    )
    ticks = {"tickvals": places, "ticktext": [html.escape(clipped(name, LONGEST_TICK)) for name in by.names]}
    plot.update_xaxes(**ticks, showgrid=False, tickangle=-45 if len(places) > 3 else 0)
    plot.update_yaxes(**ticks, showgrid=False, autorange="reversed")
    return Figure(
        name=f"confusion-{each.name.replace(' ', '-')}",
        title=f"{each.name}, %",
        description=_described(by, each),
        plot=plot,
        dense=len(places) > 6,
    )


def _described(by: ByClass, each: Judged) -> str:
    """Describe one model's matrix: the share of rows named right, and the commonest mistake."""
    right = f"{each.name}: {100 * each.counts.trace() / each.counts.sum():.1f} % of the {by.split} rows are named right"
    pairs = each.confused()
    if not pairs:
        return f"{right}."
    worst = pairs[0]
    return (
        f"{right}; most often {clipped(by.names[worst.true])} is named {clipped(by.names[worst.predicted])}, "
        f"{100 * worst.share:.1f} % of its rows."
    )
