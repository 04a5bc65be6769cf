"""The finalists' queue: the best of the search once more on fresh seeds, as its ranking stands now."""

from collections.abc import Callable, Sequence

from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from kdsweep.config.sweep import ARMS, Arm, SweepConfig
from kdsweep.records.layout import TrialId
from kdsweep.search import attributes
from kdsweep.search.assignment import trial_id
from kdsweep.search.storage import Storage


class FinalistsQueue:
    """The runs of a `study` that confirm the best; `ranked` gives an arm's trials, best first."""

    def __init__(
        self, sweep: SweepConfig, study: Study, storage: Storage, ranked: Callable[[Arm], Sequence[TrialId]]
    ) -> None:
        self._sweep, self._study, self._storage, self._ranked = sweep, study, storage, ranked

    def wanted(self) -> list[TrialId]:
        """Every run that confirms the best, as the search stands now; seed by seed, best first."""
        best = {arm: self._ranked(arm)[: self._sweep.finalists.top] for arm in ARMS}
        places = range(self._sweep.finalists.top)
        seeds = self._sweep.finalist_seeds()
        return [
            TrialId(arm, best[arm][n].number, seed)
            for seed in seeds
            for n in places
            for arm in ARMS
            if n < len(best[arm])
        ]

    def to_come(self) -> int:
        """Those that have not ended."""
        ended = {_key(trial) for trial in self._trials() if trial.state.is_finished()}
        return sum(trial not in ended for trial in self.wanted())

    def enqueue(self) -> None:
        """Queue those that are not in the study yet: all at once after the search, more where the search has gone on."""
        if set(self.wanted()) <= {_key(trial) for trial in self._trials()}:
            return
        with self._storage.alone():
            study, there = self._study, self._trials()
            queued = {_key(trial) for trial in there}
            turn = 1 + max((trial.user_attrs.get(attributes.ROUND, 0) for trial in there), default=0)
            for wanted in self.wanted():
                if wanted not in queued:
                    study.enqueue_trial({}, _attributes(wanted, turn))

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


def _key(finalist: FrozenTrial) -> TrialId | None:
    """Which run a trial of the study is; None for one that is being queued at this moment."""
    return trial_id("finalists", finalist) if attributes.ARM in finalist.user_attrs else None


def _attributes(finalist: TrialId, turn: int) -> dict[str, str | int | None]:
    return {
        attributes.ARM: finalist.arm,
        attributes.TRIAL: finalist.number,
        attributes.SEED: finalist.seed,
        attributes.ROUND: turn,
    }
