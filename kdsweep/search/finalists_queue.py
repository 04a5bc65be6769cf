"""The finalists' queue: the best of the search once more on fresh seeds, as its ranking stands now."""

from collections.abc import Callable, Sequence

from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from kdsweep.config.sweep import ARMS, Arm, SweepConfig
from kdsweep.search.assignment import Who
from kdsweep.search.storage import Storage


class FinalistsQueue:
    """The runs of a `study` that confirm the best; `ranked` gives an arm's trials with their values, best first."""

    def __init__(
        self, sweep: SweepConfig, study: Study, storage: Storage, ranked: Callable[[Arm], Sequence[tuple[Who, float]]]
    ) -> None:
        self._sweep, self._study, self._storage, self._ranked = sweep, study, storage, ranked

    def wanted(self) -> list[tuple[Arm, int, int]]:
        """Arm, trial and fresh seed of every run that confirms the best, as the search stands now; seed by seed, best first."""
        best = {arm: [who.trial for who, _ in self._ranked(arm)[: self._sweep.finalists.top]] for arm in ARMS}
        places = range(self._sweep.finalists.top)
        seeds = self._sweep.finalist_seeds()
        return [(arm, best[arm][n], seed) for seed in seeds for n in places for arm in ARMS if n < len(best[arm])]

    def to_come(self) -> int:
        """Those that have not ended."""
        ended = {_key(trial) for trial in self._trials() if trial.state.is_finished()}
        return sum(place not in ended for place in self.wanted())

    def enqueue(self) -> None:
        """Queue those that are not in the study yet: all at once after the search, more where the search has gone on."""
        if set(self.wanted()) <= {_key(trial) for trial in self._trials()}:
            return
        with self._storage.alone():
            study, there = self._study, self._trials()
            turn = 1 + max((trial.user_attrs.get("round", 0) for trial in there), default=0)
            for arm, trial, seed in self.wanted():
                if (arm, trial, seed) not in {_key(known) for known in there}:
                    study.enqueue_trial({}, {"arm": arm, "trial": trial, "seed": seed, "round": turn})

    def pop(self) -> int | None:
        """The first that waits, of the choice as it stands now; ask() would invent one, and run those that the search has passed."""
        wanted, rdb = set(self.wanted()), self._storage.rdb
        for trial in self._trials():
            if trial.state == TrialState.WAITING and _key(trial) in wanted:
                try:
                    if rdb.set_trial_state_values(trial._trial_id, state=TrialState.RUNNING):
                        return trial._trial_id
                except UpdateFinishedTrialError:  # somebody else was faster
                    continue
        return None

    def _trials(self) -> list[FrozenTrial]:
        return self._storage.patiently(lambda: self._study.get_trials(deepcopy=False))


def _key(finalist: FrozenTrial) -> tuple[Arm, int, int] | None:
    told = finalist.user_attrs
    return (told["arm"], told["trial"], told["seed"]) if "arm" in told else None
