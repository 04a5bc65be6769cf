"""Optuna's own plots of a study that is rebuilt from the records: what mattered, and every trial as a line."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import optuna
import plotly.graph_objects as go
from optuna.importance import PedAnovaImportanceEvaluator
from plotly.colors import sample_colorscale

from kdsweep.figures import COLOURS, SCALE, Figure, calm, missing
from kdsweep.leaderboard import accuracy, complete
from kdsweep.records import SweepRecords
from kdsweep.space import distribution, encode

FEWEST_TRIALS = 4
"""Complete trials below which an importance would be noise."""


def parameter_importances(records: SweepRecords) -> Figure:
    """How far each searched field sets the best tenth of the distilled trials apart from the others; sums to 1.

    PED-ANOVA, Watanabe et al. (2023), IJCAI: deterministic, no forest to seed.
    """
    title, study = "What mattered", _study(records)
    values = {trial.value for trial in study.trials}
    note = ""
    if len(study.trials) < FEWEST_TRIALS:
        note = f"Too few trials: {FEWEST_TRIALS} complete distilled ones are needed, there are {len(study.trials)}."
    elif len(values) == 1:
        note = "All distilled trials have the same val_accuracy, so no field made a difference."
    if note:
        return missing("importances", title, note)
    evaluator = PedAnovaImportanceEvaluator()
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    plot = optuna.visualization.plot_param_importances(study, evaluator=evaluator, target_name="val_accuracy")
    plot.update_traces(marker_color=COLOURS["distilled"], width=0.5, cliponaxis=False)
    calm(plot, height=90 + 36 * len(shares), x_title="importance (sums to 1)", y_title="")
    plot.update_layout(margin={"r": 44})
    plot.update_xaxes(nticks=6)
    plot.update_yaxes(showgrid=False, ticksuffix="  ")
    listed = ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
    return Figure(name="importances", title=title, description=f"Importances: {listed}.", plot=plot)


def parallel_coordinates(records: SweepRecords) -> Figure:
    """Every complete distilled trial as a line through its searched values and its val_accuracy."""
    title, study = "Every trial as a line", _study(records)
    if not study.trials:
        return missing("parallel", title, "No distilled trial is complete yet.")
    plot = optuna.visualization.plot_parallel_coordinate(study, target_name="val_accuracy")
    _colour_lines(plot, [trial.value or 0.0 for trial in study.trials])
    calm(plot, height=400, x_title="", y_title="")
    plot.update_layout(margin={"l": 60, "r": 30, "t": 8, "b": 40})
    plot.update_xaxes(showgrid=False)
    plot.update_annotations(font_size=11)
    axes = ", ".join([*records.sweep.search, "val_accuracy"])
    described = f"{len(study.trials)} complete distilled trials across {axes}."
    return Figure(name="parallel", title=title, description=described, plot=plot, wide=True)


def _colour_lines(plot: go.Figure, accuracies: Sequence[float]) -> None:
    """Optuna's blues fade on a light page, so its lines take this page's scale; val_accuracy's own axis is the key."""
    low, high = min(accuracies), max(accuracies)
    shares = [(accuracy - low) / (high - low) if high > low else 1.0 for accuracy in accuracies]
    colours = sample_colorscale([list(step) for step in SCALE], shares)
    for line, share, colour in zip(plot.data, shares, colours, strict=False):
        line.update(line={"color": colour, "width": 3 if share == 1 else 1.6}, opacity=1.0 if share == 1 else 0.65)
    plot.update_traces(marker_showscale=False, selector={"mode": "markers"})


def _study(records: SweepRecords) -> optuna.Study:
    """The distilled arm's complete trials as an in-memory study, for Optuna's own plots."""
    axes = records.sweep.axes("distilled")
    distributions = {name: distribution(name, axis) for name, axis in axes.items()}
    with _quiet_optuna():
        study = optuna.create_study(direction="maximize", study_name="distilled")
    for trial in complete(records.trials):
        if trial.arm == "distilled":
            params = {name: encode(getattr(trial.config, name)) for name in axes}
            study.add_trial(
                optuna.trial.create_trial(params=params, distributions=distributions, value=accuracy(trial))
            )
    return study


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
