"""Draw the importance of each searched field: Optuna's own plot, of a study that is rebuilt from the records."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import optuna
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial

from kdsweep.analysis.leaderboard import complete
from kdsweep.analysis.score import score
from kdsweep.records.whole_sweep import SweepRecords
from kdsweep.reporting.figures.style import COLOURS, NEUTRAL, Figure, calm, missing
from kdsweep.search.sampler import with_trials
from kdsweep.search.space import distribution, encode

FEWEST_TRIALS = 50
"""Complete trials below which importances are too uncertain to show: PED-ANOVA uses the best tenth, which is five of these."""
RESAMPLES = 40
warnings.filterwarnings(
    "ignore", message="Some regimes for parameter"
)  # of a condition that held in one trial: the whiskers say it


def parameter_importances(records: SweepRecords) -> Figure:
    """Draw how far each searched field separates the best tenth of the distilled trials from the others; the sum is 1.

    PED-ANOVA, Watanabe et al. (2023), IJCAI: deterministic, no forest to seed. The whiskers are the 5th and 95th percentiles
    over studies drawn from these trials with replacement (bootstrap): what other trials of this search might have shown. A field with a
    condition counts where it holds, by the conditional PED-ANOVA of Optuna 5 (https://arxiv.org/abs/2601.20800).
    """
    title, trials = "What mattered", _trials(records)
    note = ""
    if len(trials) < FEWEST_TRIALS:
        note = f"Too few trials for importances: {FEWEST_TRIALS} complete distilled ones are needed, there are {len(trials)}."
    elif len({trial.value for trial in trials}) == 1:
        note = f"All distilled trials have the same {records.sweep.study.metric}, so no field made a difference."
    if note:
        return missing("importances", title, note)
    study, evaluator = _study(trials), PedAnovaImportanceEvaluator()
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    ends = _resampled(trials, list(shares))
    plot = optuna.visualization.plot_param_importances(
        study, evaluator=evaluator, target_name=records.sweep.study.metric
    )
    plot.update_traces(marker_color=COLOURS["distilled"], meta="distilled", width=0.5, cliponaxis=False)
    plot.update_traces(text=None, textposition="none")  # whiskers would be drawn across the text
    for bars in plot.data:  # Optuna draws the least important one first
        low, high = (np.array([ends[name][end] - shares[name] for name in bars.y]) for end in (0, 1))
        whiskers = {"array": np.maximum(high, 0).tolist(), "arrayminus": np.maximum(-low, 0).tolist()}
        bars.error_x = {**whiskers, "symmetric": False, "color": NEUTRAL, "thickness": 1.5, "width": 5}
    calm(plot, height=90 + 36 * len(shares), x_title="importance (sums to 1)", y_title="")
    plot.update_layout(margin={"r": 44})
    plot.update_xaxes(nticks=6, range=[0, 1.02])
    plot.update_yaxes(showgrid=False, ticksuffix="  ")
    listed = ", ".join(
        f"{name} {share:.2f} ({ends[name][0]:.2f} to {ends[name][1]:.2f})" for name, share in shares.items()
    )
    described = f"Importances, with the 5th and 95th percentiles over {RESAMPLES} resampled studies: {listed}."
    return Figure(name="importances", title=title, description=described, plot=plot)


def _resampled(trials: Sequence[FrozenTrial], names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return the 5th and 95th percentiles of each field's importance over resampled studies."""
    rng, study = np.random.default_rng(0), _study([])
    drawn = [[trials[index] for index in rng.integers(0, len(trials), len(trials))] for _ in range(RESAMPLES)]
    kept = [draw for draw in drawn if len({trial.value for trial in draw}) > 1]
    evaluator = PedAnovaImportanceEvaluator()
    found = [optuna.importance.get_param_importances(with_trials(study, draw), evaluator=evaluator) for draw in kept]
    ends = {name: np.percentile([shares.get(name, 0.0) for shares in found], [5, 95]) for name in names}
    return {name: (float(low), float(high)) for name, (low, high) in ends.items()}


def _trials(records: SweepRecords) -> list[FrozenTrial]:
    """Return the distilled arm's complete trials as Optuna's trials."""
    axes = records.sweep.axes("distilled")
    distributions = {name: distribution(name, axis) for name, axis in axes.items()}
    found = []
    for trial in complete(records.trials):
        if trial.arm == "distilled":
            names = [name for name, axis in axes.items() if axis.applies(vars(trial.config))]
            params = {name: encode(getattr(trial.config, name)) for name in names}
            sampled = {name: distributions[name] for name in names}
            value = score(trial, records.sweep)
            found.append(optuna.trial.create_trial(params=params, distributions=sampled, value=value))
    return found


def _study(trials: Sequence[FrozenTrial]) -> optuna.Study:
    """Return a study in memory with these trials."""
    with _quiet_optuna():
        study = optuna.create_study(direction="maximize", study_name="distilled")
    return with_trials(study, trials)


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
