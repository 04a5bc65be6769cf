"""Rank an arm's complete trials, or its finalists' runs, by their values in the study."""

from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from kdsweep.config.arms import Arm, Stage
from kdsweep.records.layout import TrialId
from kdsweep.search import attributes
from kdsweep.search.assignment import trial_id


def best_first(
    stage: Stage, arm: Arm, trials: Sequence[FrozenTrial], of_search: Sequence[TrialId]
) -> list[tuple[TrialId, float]]:
    """Return the complete ones of an arm among the `trials` of a stage, and their values, best first; no duplicates, none that breaks a
    constraint.

    Ties go to the lower number. Of finalists, whose numbers depend on which began first, they go by round, by seed, and by the place of the
    configuration among those `of_search`, the arm's trials best first.
    """
    done = [
        trial
        for trial in trials
        if trial.state == TrialState.COMPLETE
        and attributes.TWIN not in trial.user_attrs
        and max(trial.constraints.values(), default=0.0) <= 0
    ]
    places = {trial.number: place for place, trial in enumerate(of_search)}

    def order(each: tuple[TrialId, FrozenTrial]) -> tuple[float, ...]:
        run, trial = each
        turn = trial.user_attrs.get(attributes.ROUND, 0)
        return (-trial.values[0], turn, run.seed or 0, places.get(run.number, 0), trial.number)

    mine = sorted([(run, trial) for trial in done if (run := trial_id(stage, trial)).arm == arm], key=order)
    return [(run, trial.values[0]) for run, trial in mine]
