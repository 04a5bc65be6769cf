"""Queue the finalists: the best trials of the search, as ranked now, once more on fresh seeds."""

from collections.abc import Callable, Sequence

from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from kdsweep.config.arms import Arm
from kdsweep.config.sweep import SweepConfig
from kdsweep.errors import ResultsError
from kdsweep.records.layout import TrialId
from kdsweep.search import attributes
from kdsweep.search.assignment import trial_id
from kdsweep.search.storage import Storage


class FinalistsQueue:
    """Queues in a `study` the runs that confirm the best trials; `ranked` returns an arm's trials, best first."""

    def __init__(
        self, sweep: SweepConfig, study: Study, storage: Storage, ranked: Callable[[Arm], Sequence[TrialId]]
    ) -> None:
        self._sweep, self._study, self._storage, self._ranked = sweep, study, storage, ranked

    def wanted(self) -> list[TrialId]:
        """Return every run that confirms the best trials of the search as it is ranked now; seed by seed, best first."""
        best = {arm: self._ranked(arm)[: self._sweep.finalists.top] for arm in self._sweep.arms}
        places = range(self._sweep.finalists.top)
        seeds = self._sweep.finalist_seeds()
        return [
            TrialId(arm, best[arm][n].number, seed)
            for seed in seeds
            for n in places
            for arm in self._sweep.arms
            if n < len(best[arm])
        ]

    def check_length(self) -> None:
        """Raise ResultsError where finalists were queued with another `finalists.epochs_factor`: one comparison would mix two lengths."""
        now, trials = self._sweep.finalists.epochs_factor, self._trials()
        queued = self._storage.patiently(lambda: self._study.user_attrs).get(attributes.EPOCHS_FACTOR, 1)
        if trials and self._sweep.finalists.top and queued != now:
            raise ResultsError(
                f"all finalists of {self._sweep.name} must be trained equally long, but the first were queued with "
                f"finalists.epochs_factor: {queued}, now {now}\nUndo the change to continue that sweep, or start a new one beside it "
                "with --fork NEW_NAME"
            )

    def to_come(self) -> int:
        """Return how many of the wanted finalists have not ended."""
        ended = {_key(trial) for trial in self._trials() if trial.state.is_finished()}
        return sum(trial not in ended for trial in self.wanted())

    def enqueue(self) -> None:
        """Queue the wanted finalists that the study lacks: all of them after the search, more where the search was continued since."""
        self.check_length()
        if set(self.wanted()) <= {_key(trial) for trial in self._trials()}:
            return
        with self._storage.alone():
            self.check_length()  # another host may have queued the first ones just now
            study, there = self._study, self._trials()
            if not there:
                study.set_user_attr(attributes.EPOCHS_FACTOR, self._sweep.finalists.epochs_factor)
            queued = {_key(trial) for trial in there}
            turn = 1 + max((trial.user_attrs.get(attributes.ROUND, 0) for trial in there), default=0)
            for wanted in self.wanted():
                if wanted not in queued:
                    study.enqueue_trial({}, _attributes(wanted, turn))

    def pop(self) -> int | None:
        """Set the first wanted finalist that waits to running; return its storage id, None where none waits.

        Optuna's `ask` would sample a new trial where none waits, and would run finalists that a longer search has replaced.
        """
        wanted, rdb = set(self.wanted()), self._storage.rdb
        for trial in self._trials():
            if trial.state == TrialState.WAITING and _key(trial) in wanted:
                try:
                    if rdb.set_trial_state_values(trial._trial_id, state=TrialState.RUNNING):
                        return trial._trial_id
                except UpdateFinishedTrialError:  # another worker was faster
                    continue
        return None

    def _trials(self) -> list[FrozenTrial]:
        return self._storage.patiently(lambda: self._study.get_trials(deepcopy=False))


def best_of_each_first(ranked: Sequence[tuple[TrialId, float]]) -> list[TrialId]:
    """Return an arm's runs, given best first, as each configuration's best run, configurations by their means, then each one's second.

    The first runs, one a configuration, thus include the run to ship, which a configuration with one lucky run cannot displace.
    Trials of a search, one run each, keep their order.
    """
    runs: dict[int, list[tuple[TrialId, float]]] = {}
    for trial, value in ranked:
        runs.setdefault(trial.number, []).append((trial, value))
    by_mean = sorted(runs.values(), key=lambda each: -sum(value for _, value in each) / len(each))
    most = max(map(len, by_mean), default=0)
    return [each[place][0] for place in range(most) for each in by_mean if place < len(each)]


def _key(finalist: FrozenTrial) -> TrialId | None:
    """Return which run a trial of the finalists' study is; None while it is being queued and has no attributes yet."""
    return trial_id("finalists", finalist) if attributes.ARM in finalist.user_attrs else None


def _attributes(finalist: TrialId, turn: int) -> dict[str, str | int | None]:
    return {
        attributes.ARM: finalist.arm,
        attributes.TRIAL: finalist.number,
        attributes.SEED: finalist.seed,
        attributes.ROUND: turn,
    }
