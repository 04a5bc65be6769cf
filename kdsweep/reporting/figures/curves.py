"""Draw losses and `study.metric` over epochs or steps, and the expected best score over the number of trials."""

from collections.abc import Sequence
from typing import Literal

import plotly.graph_objects as go

from kdsweep.analysis.budget import FEWEST_TRIALS as FEWEST_SCORES
from kdsweep.analysis.budget import tuning_curve
from kdsweep.analysis.formats import plural
from kdsweep.analysis.leaderboard import complete, ranked
from kdsweep.analysis.score import scale, score, score_title
from kdsweep.config.arms import ARM_NAMES, Arm
from kdsweep.records.reading import TrialRow
from kdsweep.records.whole_sweep import SweepRecords
from kdsweep.reporting.figures.style import (
    COLOURS,
    DASHES,
    FEW_CURVES,
    SYMBOLS,
    Figure,
    missing,
    new_plot,
    short,
    thinned,
)

LAYERS = 8
"""Traces that share an arm's faint curves where there are more than `FEW_CURVES`."""

MOST_POINTS = 5000
"""Points of one trace beyond which it leaves epochs out, but never a curve's first or last."""

Over = Literal["epoch", "step"]
"""What a curve is drawn over: a field of `EpochMetrics`."""


def learning_curves(records: SweepRecords) -> tuple[Figure, ...]:
    """Draw L_soft, L_hard, L_relation where a trial has it, and `study.metric`, over epochs, over steps where a trial has `max_steps`: all trials
    faint, the best of each arm strong."""
    relations = any(epoch.L_relation for trial in records.trials for epoch in trial.epochs)
    losses = ("L_soft", "L_hard", "L_relation") if relations else ("L_soft", "L_hard")
    return tuple(_curve(records, name) for name in (*losses, records.sweep.study.metric))


def _curve(records: SweepRecords, metric: str) -> Figure:
    with_epochs = [trial for trial in records.trials if trial.epochs]
    if not with_epochs:
        return missing(metric, metric, "No epoch is finished yet.")
    title = score_title(metric) if metric.startswith("val_") else metric
    over: Over = "step" if any(trial.config.max_steps for trial in with_epochs) else "epoch"
    plot = new_plot(height=300, x_title=over, y_title="")
    ends = []
    for arm in records.sweep.arms:
        of_arm = [trial for trial in with_epochs if trial.arm == arm]
        plot.add_traces(_faint_lines(thinned(of_arm, records.sweep), metric, arm, over))
        if done := ranked(of_arm, records.sweep):
            plot.add_trace(_lines(done[:1], metric, arm, over, opacity=1.0, width=3, marker=7))
            unit = title.removeprefix(metric).strip(",")
            ends.append(f"the best {ARM_NAMES[arm]} one ends at {_measured(done[0], metric)[-1]:.3g}{unit}")
    if over == "epoch":
        most = max(len(trial.epochs) for trial in with_epochs)
        plot.update_xaxes(range=[0.7, most + 0.3], dtick=max(1, most // 6))
    described = "; ".join([f"{metric} of {plural(len(with_epochs), 'trial')} over the {over}s", *ends]) + "."
    return Figure(name=metric, title=title, description=described, plot=plot)


def _measured(trial: TrialRow, metric: str) -> list[float]:
    factor = scale(metric) if metric.startswith("val_") else 1
    return [short(factor * float(getattr(epoch, metric))) for epoch in trial.epochs]


def _faint_lines(trials: Sequence[TrialRow], metric: str, arm: Arm, over: Over) -> list[go.Scatter]:
    """Draw every trial of an arm: with a mark for each epoch where trials are few, else as layers of lines that darken where they cross."""
    if len(trials) <= FEW_CURVES:
        return [_lines(trials, metric, arm, over, opacity=0.28, width=1.2, marker=4)] if trials else []
    longer = [trial for trial in trials if len(trial.epochs) > 1]
    single = [trial for trial in trials if len(trial.epochs) == 1]
    layers = [longer[first::LAYERS] for first in range(LAYERS) if longer[first::LAYERS]]
    drawn = [_lines(layer, metric, arm, over, opacity=0.12, width=1, marker=0) for layer in layers]
    return drawn + ([_lines(single, metric, arm, over, opacity=0.12, width=0, marker=4)] if single else [])


def _lines(
    trials: Sequence[TrialRow], metric: str, arm: Arm, over: Over, *, opacity: float, width: float, marker: float
) -> go.Scatter:
    """Draw the trials' curves as one trace with gaps; `width` 0 draws no lines, `marker` 0 no marks."""
    step = max(1, sum(len(trial.epochs) for trial in trials) // MOST_POINTS)
    x: list[int | None] = []
    y: list[float | None] = []
    numbers: list[int | None] = []
    for trial in trials:
        last = len(trial.epochs) - 1
        kept = [epoch for epoch in range(last + 1) if epoch % step == 0 or epoch == last]
        measured = _measured(trial, metric)
        x += [getattr(trial.epochs[epoch], over) for epoch in kept] + [None]
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
        hovertemplate=f"{ARM_NAMES[arm]} trial %{{customdata}}<br>{over} %{{x}}<br>{metric} %{{y:.4g}}<extra></extra>",
    )


def budget_curves(records: SweepRecords) -> Figure:
    """Draw the expected best of k trials over k, with its 95 % band, for each arm with enough complete trials."""
    title, metric = "What the budget bought", records.sweep.study.metric
    plot, told = new_plot(height=340, x_title="complete trials", y_title=f"expected best {score_title(metric)}"), []
    factor = scale(metric)
    shown: list[float] = []
    for arm in records.sweep.arms:
        scores = [score(trial, records.sweep) for trial in complete(records.trials) if trial.arm == arm]
        if len(scores) < FEWEST_SCORES:
            continue
        curve = tuning_curve(scores, floor=min(0.0, *scores))
        x, middle = curve.trials.tolist(), [short(factor * value) for value in curve.expected]
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
        half = short(factor * curve.at((len(scores) + 1) // 2))
        told.append(f"{ARM_NAMES[arm]}: {half:.4g} expected of half the {len(scores)} trials, {middle[-1]:.4g} of all")
    if not told:
        return missing("budget", title, f"Too few complete trials for a curve: it needs {FEWEST_SCORES} of an arm.")
    span = max(shown) - min(shown) or 1.0
    plot.update_yaxes(range=[min(shown) - 0.25 * span, max(shown) + 0.5 * span])
    return Figure(name="budget", title=title, description="; ".join(told) + ".", plot=plot)
