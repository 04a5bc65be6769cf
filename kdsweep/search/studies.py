"""Take and finish the trials of a sweep in Optuna: one study for each arm and one for the finalists, in one storage.

A slot is an Optuna trial number. It never changes: a trial that was cut off goes back to the queue under its own number. The
sampler is built anew for each slot from (study seed, arm, slot), so that a resumed sweep proposes what an undisturbed one would.
Trials are taken and finished here, not by `study.optimize`, which ends in a database outage and fails trials that were only cut off.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from kdsweep.config.arms import Arm, Stage
from kdsweep.config.sweep import SweepConfig
from kdsweep.records.layout import TrialId
from kdsweep.records.schema import Status, TrialResult
from kdsweep.search import attributes, space
from kdsweep.search.agreements import Agreements
from kdsweep.search.assignment import STATES, Assignment, Settled, StoredTrial, Twin, trial_id, twin_of
from kdsweep.search.clock import Clock
from kdsweep.search.finalists_queue import FinalistsQueue
from kdsweep.search.open_studies import open_studies, warm_start_of
from kdsweep.search.sampler import known_slots
from kdsweep.search.storage import Storage

SILENCED = (
    "Heartbeat of storage is supposed",  # `Storage.beating` sends them
    "The reported value is ignored because this `step",  # from a repeated attempt
)
"""Beginnings of Optuna's warnings about what is done here on purpose."""
for _message in SILENCED:
    warnings.filterwarnings("ignore", message=_message)


class Studies:
    """Holds a sweep's studies, created where missing; another sweep under the same name is refused.

    `owner` names the process that takes trials here; `say` is called with a message when the database does not answer.
    """

    def __init__(self, sweep: SweepConfig, folder: Path, owner: str = "-", say: Callable[[str], None] = print) -> None:
        self._sweep, self._owner = sweep, owner
        self._storage = Storage(sweep.study, folder, say)
        self._studies = open_studies(sweep, self._storage)
        self.agreements = Agreements(sweep, self._studies["distilled"], self._storage, folder)
        ranked = lambda arm: [trial for trial, _ in self.ranked(arm, arm)]
        self.finalists = FinalistsQueue(sweep, self._studies["finalists"], self._storage, ranked)
        self.finalists.check_length()
        self.clock = Clock(self._studies["distilled"], self._storage, sweep.study.timeout_minutes)

    # Progress ---------------------------------------------------------------------------------------------------------

    def remaining(self, arm: Arm) -> int:
        """Return how many trials of an arm's budget are still to finish."""
        return max(0, self._sweep.budget(arm) - self.finished(arm))

    def finished(self, stage: Stage) -> int:
        """Return how many trials of `stage` completed, were pruned or failed; of the finalists, only those that are wanted now."""
        if stage == "finalists":
            return len(self.finalists.wanted()) - self.finalists.to_come()
        return sum(trial.state.is_finished() for trial in self._trials(stage))

    def search_is_over(self) -> bool:
        """Return whether every arm's budget is finished or the target is reached, so that only finalists are left."""
        return self.target_reached() or not any(self.remaining(arm) for arm in self._sweep.arms)

    def is_done(self) -> bool:
        """Return whether nothing is left to run or the time limit is reached."""
        return self.clock.is_up() or self.is_complete()

    def is_complete(self) -> bool:
        """Return whether nothing is left to run: neither trials nor finalists."""
        return self.search_is_over() and not self.finalists.to_come()

    def is_open(self) -> bool:
        """Return whether there are trials to take, now or once running ones have ended."""
        if self.clock.is_up():
            return False
        if not self.search_is_over():
            return any(self._open(arm) for arm in self._sweep.arms) or self._sweep.finalist_runs() > 0
        running = sum(trial.state == TrialState.RUNNING for trial in self._trials("finalists"))
        return self.finalists.to_come() > running

    def warm_start(self) -> dict[Arm, list[dict[str, Any]]] | None:
        """Return the points of earlier sweeps that each arm tries first, as its study holds them; None without `study.warm_start`."""
        if not self._sweep.warm_starts():
            return None
        return {arm: warm_start_of(self._sweep, arm, self._studies[arm]) for arm in self._sweep.arms}

    def target_reached(self) -> bool:
        """Return whether a ranked trial has reached `study.target`; False without a target."""
        target = self._sweep.study.target
        return target is not None and any(
            value >= target for arm in self._sweep.arms for _, value in self.ranked(arm, arm)
        )

    def ranked(self, stage: Stage, arm: Arm) -> list[tuple[TrialId, float]]:
        """Return an arm's complete trials (or finalists) and their values, best first; no duplicates, none that breaks a constraint."""
        done = [
            trial
            for trial in self._trials(stage)
            if trial.state == TrialState.COMPLETE
            and attributes.TWIN not in trial.user_attrs
            and max(trial.constraints.values(), default=0.0) <= 0
        ]
        mine = [(id_, trial) for trial in done if (id_ := trial_id(stage, trial)).arm == arm]
        mine.sort(key=lambda each: (-each[1].values[0], each[1].number))
        return [(id_, trial.values[0]) for id_, trial in mine]

    def stored(self) -> list[StoredTrial]:
        """Return every finished trial that has a record in its study: all that ranking and verdicts need."""
        return [
            StoredTrial(id=trial_id(stage, trial), record=trial.user_attrs[attributes.RECORD])
            for stage in self._sweep.stages
            for trial in self._trials(stage)
            if attributes.RECORD in trial.user_attrs and trial.state.is_finished()
        ]

    # Taking and finishing ---------------------------------------------------------------------------------------------

    def take(self) -> Assignment | None:
        """Return a trial of the arm that is further behind its budget, a finalist after the search; None where none may be taken now."""
        if self.clock.is_up():
            return None
        if self.search_is_over():
            return self._take_finalist()
        open_arms = [arm for arm in self._sweep.arms if self._open(arm)]
        for arm in sorted(open_arms, key=lambda arm: self._started(arm) / self._sweep.budget(arm)):
            if (assignment := self.take_from(arm)) is not None:
                return assignment
        return None

    def take_from(self, arm: Arm) -> Assignment | None:
        """Return the next trial of an arm, queued or new; None past the budget, or while it must wait for earlier trials."""
        if not self._open(arm) or not self._may_start(arm):
            return None
        trial = self._storage.patiently(self._studies[arm].ask)
        is_late = trial.number >= self._sweep.budget(arm) or not self._may_start(arm, trial.number)
        if is_late:  # another worker was faster
            self._storage.patiently(lambda: self._storage.put_back(trial._trial_id))
            return None
        return self._storage.patiently(lambda: self._assignment(arm, trial))

    def _take_finalist(self) -> Assignment | None:
        self._storage.patiently(self.finalists.enqueue)
        trial_id = self._storage.patiently(self.finalists.pop)
        if trial_id is None:
            return None
        study = self._studies["finalists"]
        return self._storage.patiently(lambda: self._assignment("finalists", optuna.trial.Trial(study, trial_id)))

    @contextmanager
    def alive(self, assignment: Assignment) -> Iterator[None]:
        """Run the block with heartbeats, by which other hosts see that the trial is being run."""
        with self._storage.beating(assignment.storage_id):
            yield

    def finish(self, assignment: Assignment, result: TrialResult, record: Mapping[str, str]) -> bool:
        """Store how a trial ended, and its `record`; return False where another worker has taken or settled the trial since."""
        value = getattr(result, self._sweep.study.metric)
        return self._storage.patiently(lambda: self._tell(assignment, result.status, value, record))

    def twin(self, assignment: Assignment) -> Twin | None:
        """Return an ended trial of the arm with the same parameters, among those that the trial may use; None where there is none."""
        arm, number = assignment.id.arm, assignment.id.number
        if assignment.id.stage == "finalists" or not self._sweep.axes(arm):
            return None
        wanted = {name: space.encode(value) for name, value in assignment.params.items()}
        known = self._trials(arm)[: known_slots(self._sweep.study, number)]
        ended = [t for t in known if t.state.is_finished() and attributes.TWIN not in t.user_attrs]
        same = (trial for trial in ended if trial.number != number and trial.params == wanted)
        return next(map(twin_of, same), None)

    def finish_like(self, assignment: Assignment, twin: Twin, record: Mapping[str, str]) -> bool:
        """Finish a duplicate with its twin's status and scores; return False where another worker has taken the trial since."""

        def tell() -> bool:
            assignment.answer_like(twin)
            return self._tell(assignment, twin.status, twin.score, record)

        return self._storage.patiently(tell)

    def put_back(self, assignment: Assignment) -> None:
        """Put this process's trial back into the queue, for any worker to continue."""
        if self._is_mine(assignment):
            self._storage.put_back(assignment.storage_id)

    # Dead workers -----------------------------------------------------------------------------------------------------

    def settle(self, is_dead: Callable[[str | None], bool], *, blame: bool = False) -> list[Settled]:
        """Put back every running trial whose owner `is_dead` (None: the owner's name is not stored yet), and return those trials.

        With `blame`, the death counts against the trial, which may be its cause and fails at the `study.max_attempts`th.
        """
        running = [
            (stage, t) for stage in self._sweep.stages for t in self._trials(stage) if t.state == TrialState.RUNNING
        ]
        dead = [(stage, trial) for stage, trial in running if is_dead(trial.user_attrs.get(attributes.OWNER))]
        return [self._settle(stage, trial, blame=blame) for stage, trial in dead]

    def settle_stale(self) -> list[Settled]:
        """Put back running trials of hosts whose heartbeat is too old, or that stored no owner for four heartbeats; return those trials."""
        settled = []
        for stage, study in self._studies.items():
            stale = self._storage.stale(study._study_id)
            before = datetime.now() - timedelta(seconds=4 * self._sweep.study.heartbeat_seconds)
            for trial in self._trials(stage):
                nameless = (
                    attributes.OWNER not in trial.user_attrs and trial.datetime_start and trial.datetime_start < before
                )
                silent = trial._trial_id in stale or (nameless and not self._storage.embedded)
                if trial.state == TrialState.RUNNING and silent:
                    settled.append(self._settle(stage, trial, blame=True))
        return settled

    # Inside -----------------------------------------------------------------------------------------------------------

    def _trials(self, stage: Stage) -> list[FrozenTrial]:
        return self._storage.patiently(lambda: self._studies[stage].get_trials(deepcopy=False))

    # Trials -----------------------------------------------------------------------------------------------------------

    def _open(self, arm: Arm) -> bool:
        return self._started(arm) < self._sweep.budget(arm)

    def _started(self, arm: Arm) -> int:
        return sum(trial.state != TrialState.WAITING for trial in self._trials(arm))

    def _may_start(self, arm: Arm, slot: int | None = None) -> bool:
        """Return whether all trials that `slot` (None: the next one) learns from have ended."""
        if self._sweep.study.lag is None:
            return True
        trials = self._trials(arm)
        if slot is None:
            slot = next((trial.number for trial in trials if trial.state == TrialState.WAITING), len(trials))
        return all(trial.state.is_finished() for trial in trials[: known_slots(self._sweep.study, slot)])

    def _assignment(self, stage: Stage, trial: optuna.trial.Trial) -> Assignment:
        told, id_ = trial.user_attrs, trial_id(stage, trial)
        asked_again = told.get(attributes.OWNER) == self._owner  # repeated after an outage
        attempt = int(told.get(attributes.ATTEMPT, 0)) + (not asked_again)
        trial.set_user_attr(attributes.ATTEMPT, attempt)
        trial.set_user_attr(attributes.OWNER, self._owner)
        if stage == "finalists":
            params = self._params_of(id_)
        else:
            params = {}
            for name, axis in self._sweep.axes(stage).items():
                if self._sweep.applies(stage, axis, params):
                    params[name] = space.suggest(trial, name, axis)
        return Assignment(trial, id_, attempt, params, self._storage)

    def _params_of(self, trial: TrialId) -> dict[str, Any]:
        """Return the parameters that the search sampled for a trial, with the fresh seed where it is a finalist."""
        sampled = self._trials(trial.arm)[trial.number].params
        params = {name: space.decode(self._sweep.search[name], value) for name, value in sampled.items()}
        return params if trial.seed is None else params | {"seed": trial.seed}

    def _is_mine(self, assignment: Assignment) -> bool:
        now = self._storage.patiently(lambda: self._storage.rdb.get_trial(assignment.storage_id))
        told = (now.user_attrs.get(attributes.OWNER), now.user_attrs.get(attributes.ATTEMPT))
        return now.state == TrialState.RUNNING and told == (self._owner, assignment.attempt)

    def _tell(self, assignment: Assignment, status: Status, value: float | None, record: Mapping[str, str]) -> bool:
        if not self._is_mine(assignment):
            return False
        assignment.keep(record)
        study, state = self._studies[assignment.id.stage], STATES[status]
        try:
            study.tell(assignment.number, value if status == "complete" else None, state=state)
        except (UpdateFinishedTrialError, ValueError):  # settled by another worker: "Cannot tell a … trial"
            return False
        return True

    def _settle(self, stage: Stage, trial: FrozenTrial, *, blame: bool) -> Settled:
        deaths = int(trial.user_attrs.get(attributes.DEATHS, 0)) + blame
        failed = None
        if blame:
            self._storage.patiently(
                lambda: self._storage.rdb.set_trial_user_attr(trial._trial_id, attributes.DEATHS, deaths)
            )
        if deaths >= self._sweep.study.max_attempts:
            failed = (
                f"a worker must live through a trial, but died with this one {deaths} times (study.max_attempts); "
                "the system's log says whether memory ran out"
            )
            self._storage.patiently(lambda: self._studies[stage].tell(trial.number, state=TrialState.FAIL))
        else:
            self._storage.patiently(lambda: self._storage.put_back(trial._trial_id))
        id_ = trial_id(stage, trial)
        return Settled(
            id=id_,
            round=trial.user_attrs.get(attributes.ROUND, 0),
            attempt=int(trial.user_attrs.get(attributes.ATTEMPT, 1)),
            params=self._params_of(id_),
            failed=failed,
        )
