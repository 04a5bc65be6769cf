"""Optuna's own plot of a study that is rebuilt from the records: what mattered."""

from collections.abc import Iterator
from contextlib import contextmanager

import optuna
from optuna.importance import PedAnovaImportanceEvaluator

from kdsweep.figures import COLOURS, Figure, calm, missing
from kdsweep.gathered import SweepRecords
from kdsweep.leaderboard import accuracy, complete
from kdsweep.space import distribution, encode

FEWEST_TRIALS = 50
"""Complete trials below which bars would claim more than they know: PED-ANOVA looks at the best tenth, five of them."""


def parameter_importances(records: SweepRecords) -> Figure:
    """How far each searched field sets the best tenth of the distilled trials apart from the others; sums to 1.

    PED-ANOVA, Watanabe et al. (2023), IJCAI: deterministic, no forest to seed.
    """
    title, study = "What mattered", _study(records)
    values = {trial.value for trial in study.trials}
    note = ""
    if len(study.trials) < FEWEST_TRIALS:
        note = f"Too few trials for importances: {FEWEST_TRIALS} complete distilled ones are needed, there are {len(study.trials)}."
    elif len(values) == 1:
        note = "All distilled trials have the same val_accuracy, so no field made a difference."
    if note:
        return missing("importances", title, note)
    evaluator = PedAnovaImportanceEvaluator()
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    plot = optuna.visualization.plot_param_importances(study, evaluator=evaluator, target_name="val_accuracy")
    plot.update_traces(marker_color=COLOURS["distilled"], meta="distilled", width=0.5, cliponaxis=False)
    calm(plot, height=90 + 36 * len(shares), x_title="importance (sums to 1)", y_title="")
    plot.update_layout(margin={"r": 44})
    plot.update_xaxes(nticks=6)
    plot.update_yaxes(showgrid=False, ticksuffix="  ")
    listed = ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
    return Figure(name="importances", title=title, description=f"Importances: {listed}.", plot=plot)


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
