"""Queue the finalists: the best trials of the search, as ranked now, once more on fresh seeds.

They run after the search; those that no trial to come can displace run before its end too, where a worker would wait for its last trials.
"""

import json
from collections.abc import Callable, Mapping, Sequence

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

ENDING = 2
"""While this many runs a worker are left, and there are several workers, the longest ones run first; before, the best."""


class FinalistsQueue:
    """Queues in a `study` the runs that confirm the best trials; `ranked` returns an arm's ranked trials, best first, `of_search` all of them."""

    def __init__(
        self,
        sweep: SweepConfig,
        study: Study,
        storage: Storage,
        ranked: Callable[[Arm], Sequence[TrialId]],
        of_search: Callable[[Arm], Sequence[FrozenTrial]],
    ) -> None:
        self._sweep, self._study, self._storage = sweep, study, storage
        self._ranked, self._of_search = ranked, of_search

    def wanted(self) -> list[TrialId]:
        """Return every run that confirms the best trials of the search as it is ranked now; seed by seed, best first."""
        return self._runs({arm: self._sweep.finalists.top for arm in self._sweep.arms})

    def certain(self) -> list[TrialId]:
        """Return the runs that are wanted at the search's end whatever the trials bring that have not ended, in the order of `wanted`.

        A configuration is certain while it is among the best `finalists.top` even if each of those trials comes before it. A failed, pruned
        or repeated trial, one that breaks a constraint, or a search that ends early leaves fewer that could.
        """
        top = self._sweep.finalists.top
        return self._runs({arm: max(0, top - self._to_end(arm)) for arm in self._sweep.arms}) if top else []

    def _to_end(self, arm: Arm) -> int:
        """Return how many trials of an arm may still end: those left of its budget, or more that run for a host whose budget is larger."""
        trials = self._of_search(arm)
        left = self._sweep.budget(arm) - sum(trial.state.is_finished() for trial in trials)
        return max(left, sum(trial.state == TrialState.RUNNING for trial in trials))

    def _seconds(self, run: TrialId) -> float:
        """Return how long the trial of the search took that a finalist repeats, since it was last taken."""
        duration = self._of_search(run.arm)[run.number].duration
        return duration.total_seconds() if duration else 0.0

    def _runs(self, counts: Mapping[Arm, int]) -> list[TrialId]:
        best = {arm: self._ranked(arm)[:count] if count else [] for arm, count in counts.items()}
        return [
            TrialId(arm, best[arm][place].number, seed)
            for seed in self._sweep.finalist_seeds()
            for place in range(self._sweep.finalists.top)
            for arm in self._sweep.arms
            if place < len(best[arm])
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

    def enqueue(self, runs: Sequence[TrialId]) -> None:
        """Queue those of the `runs` that the study lacks."""
        self.check_length()
        if set(runs) <= {_key(trial) for trial in self._trials()}:
            return
        with self._storage.alone():
            self.check_length()  # another host may have queued the first ones just now
            study, there = self._study, self._trials()
            if not there:
                study.set_user_attr(attributes.EPOCHS_FACTOR, self._sweep.finalists.epochs_factor)
            queued, turn = {_key(trial) for trial in there}, self._round(there)
            for run in runs:
                if run not in queued:
                    study.enqueue_trial({}, _attributes(run, turn))

    def _round(self, there: Sequence[FrozenTrial]) -> int:
        """Return the round of the finalists queued now: the last one where these are of the same search, some of which began before its
        end, otherwise the next one."""
        sweep, chosen = self._sweep, self._sweep.finalists
        budgets = [sweep.budget(arm) for arm in sweep.arms]
        now = json.dumps([budgets, sweep.study.target, chosen.top, chosen.seeds])
        held = self._study.user_attrs.get(attributes.LAST_ROUND)
        if held and held["search"] == now:
            return int(held["round"])
        turn = 1 + max((trial.user_attrs.get(attributes.ROUND, 0) for trial in there), default=0)
        self._study.set_user_attr(attributes.LAST_ROUND, {"round": turn, "search": now})
        return turn

    def pop(self, runs: Sequence[TrialId]) -> int | None:
        """Set the first of the `runs` that waits to running, of the last ones the longest; return its storage id, None where none waits.

        Optuna's `ask` would sample a new trial where none waits, and would run finalists that a longer search has replaced.
        """
        trials, rdb = self._trials(), self._storage.rdb
        waiting = {_key(trial): trial for trial in trials if trial.state == TrialState.WAITING}
        left = [run for run in runs if run in waiting]
        others = sum(trial.state == TrialState.RUNNING for trial in trials)
        if others and len(left) <= ENDING * (1 + others):  # a short run at the end leaves other workers idle for less
            left.sort(key=self._seconds, reverse=True)
        for run in left:
            try:
                if rdb.set_trial_state_values(waiting[run]._trial_id, state=TrialState.RUNNING):
                    return waiting[run]._trial_id
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
