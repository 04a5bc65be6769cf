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
from kdsweep.search.open_studies import open_studies, warm_start
from kdsweep.search.ranked import best_first
from kdsweep.search.sampler import known_slots
from kdsweep.search.storage import LOCK_SECONDS, Storage

SILENCED = ("The reported value is ignored because this `step",)  # from a repeated attempt
"""Beginnings of Optuna's warnings about what is done here on purpose."""
NAMELESS = timedelta(seconds=2 * LOCK_SECONDS)
"""A worker on this machine that lives stores its name sooner, even where it waits for a lock of SQLite."""
for _message in SILENCED:
    warnings.filterwarnings("ignore", message=_message)


class Studies:
    """Holds a sweep's studies, created where missing; another sweep under the same name is refused.

    `owner` names the process that takes trials here; `say` is called with a message when the database does not answer.
    """

    def __init__(self, sweep: SweepConfig, folder: Path, owner: str = "-", say: Callable[[str], None] = print) -> None:
        self._sweep, self._owner = sweep, owner
        self._storage = Storage(sweep.study, folder, say)
        self._studies = self._storage.patiently(lambda: open_studies(sweep, self._storage))
        self.warm_start = self._storage.patiently(lambda: warm_start(sweep, self._studies))
        self._look: dict[Stage, list[FrozenTrial]] | None = None
        self.agreements = Agreements(sweep, self._studies["distilled"], self._storage, folder)
        ranked = lambda arm: [trial for trial, _ in self.ranked(arm, arm)]
        self.finalists = FinalistsQueue(sweep, self._studies["finalists"], self._storage, ranked, self._trials)
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

    def target_reached(self) -> bool:
        """Return whether a ranked trial has reached `study.target`; False without a target."""
        target = self._sweep.study.target
        return target is not None and any(
            value >= target for arm in self._sweep.arms for _, value in self.ranked(arm, arm)
        )

    def ranked(self, stage: Stage, arm: Arm) -> list[tuple[TrialId, float]]:
        """Return an arm's complete trials (or finalists) and their values, best first; no duplicates, none that breaks a constraint."""
        of_search = [] if stage == arm else [trial for trial, _ in self.ranked(arm, arm)]
        return best_first(stage, arm, self._trials(stage), of_search)

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
        """Return a trial of the arm that is further behind its budget, a finalist where none may be taken now; None where that cannot either.

        Before the search's end, only those of the finalists are taken that it cannot change any more.
        """
        if self.clock.is_up():
            return None
        if self.search_is_over():
            return self._take_finalist(self.finalists.wanted)
        open_arms = [arm for arm in self._sweep.arms if self._open(arm)]
        for arm in sorted(open_arms, key=lambda arm: self._started(arm) / self._sweep.budget(arm)):
            if (assignment := self.take_from(arm)) is not None:
                return assignment
        return self._take_finalist(self.finalists.certain)

    def take_from(self, arm: Arm) -> Assignment | None:
        """Return the next trial of an arm, queued or new; None past the budget, or while it must wait for earlier trials."""
        if not self._open(arm) or not self._may_start(arm):
            return None
        trial = self._storage.patiently(self._studies[arm].ask)
        if self._is_late(arm, trial.number):
            held = (trial.user_attrs.get(attributes.OWNER), trial.user_attrs.get(attributes.ATTEMPT))
            self._storage.patiently(lambda: self._storage.rows.put_back(trial._trial_id, *held))
            return None
        return self._storage.patiently(lambda: self._assignment(arm, trial))

    def _take_finalist(self, among: Callable[[], list[TrialId]]) -> Assignment | None:
        if not (runs := self._storage.patiently(among)):
            return None
        self._storage.patiently(lambda: self.finalists.enqueue(runs))
        trial_id = self._storage.patiently(lambda: self.finalists.pop(runs))
        if trial_id is None:
            return None
        study = self._studies["finalists"]
        return self._storage.patiently(lambda: self._assignment("finalists", optuna.trial.Trial(study, trial_id)))

    @contextmanager
    def one_look(self) -> Iterator[None]:
        """Run the block with each study read once, at its first use: every reading costs seven queries while trials run."""
        self._look = {}
        try:
            yield
        finally:
            self._look = None

    @contextmanager
    def alive(self, assignment: Assignment) -> Iterator[None]:
        """Run the block with heartbeats, by which other hosts see that the trial is being run."""
        with self._storage.beating(assignment.storage_id, self._owner):
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
            if self._storage.rows.is_owned(assignment.storage_id, self._owner, assignment.attempt):
                assignment.answer_like(twin)  # of a trial that has ended, Optuna takes no report
            return self._tell(assignment, twin.status, twin.score, record)

        return self._storage.patiently(tell)

    def put_back(self, assignment: Assignment) -> None:
        """Put this process's trial back into the queue, for any worker to continue."""
        of = (assignment.storage_id, self._owner, assignment.attempt)
        self._storage.patiently(lambda: self._storage.rows.put_back(*of))

    # Dead workers -----------------------------------------------------------------------------------------------------

    def settle(self, is_dead: Callable[[str | None], bool], *, blame: bool = False) -> list[Settled]:
        """Put back every running trial whose owner `is_dead` (None: the owner's name is not stored yet), and return those trials.

        With `blame`, the death counts against the trial, which may be its cause and fails at the `study.max_attempts`th.
        """
        dead = [(stage, trial) for stage, trial in self._running() if is_dead(trial.user_attrs.get(attributes.OWNER))]
        return [found for stage, trial in dead if (found := self._settle(stage, trial, blame=blame))]

    def settle_stale(self) -> list[Settled]:
        """Put back running trials of hosts that are silent for too long, or that stored no owner; return those trials."""
        if not (silent := self._storage.silent([study._study_id for study in self._studies.values()])):
            return []
        dead = [(stage, trial) for stage in self._studies for trial in self._trials(stage) if trial._trial_id in silent]
        return [found for stage, trial in dead if (found := self._settle(stage, trial, blame=True))]

    def settle_nameless(self, after: timedelta = NAMELESS) -> list[Settled]:
        """Put back running trials that have had no owner for so long: their workers died as they took them; return those trials."""
        before = datetime.now() - after
        dead = [
            each
            for each in self._running()
            if attributes.OWNER not in each[1].user_attrs and (each[1].datetime_start or before) < before
        ]
        return [found for stage, trial in dead if (found := self._settle(stage, trial, blame=False))]

    # Inside -----------------------------------------------------------------------------------------------------------

    def _trials(self, stage: Stage) -> list[FrozenTrial]:
        if self._look is not None and stage in self._look:
            return self._look[stage]
        trials = self._storage.patiently(lambda: self._studies[stage].get_trials(deepcopy=False))
        if self._look is not None:
            self._look[stage] = trials
        return trials

    def _running(self) -> list[tuple[Stage, FrozenTrial]]:
        of_all = [(stage, trial) for stage in self._sweep.stages for trial in self._trials(stage)]
        return [(stage, trial) for stage, trial in of_all if trial.state == TrialState.RUNNING]

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
        known = known_slots(self._sweep.study, slot) or 0
        return len(trials) >= known and all(trial.state.is_finished() for trial in trials[:known])

    def _is_late(self, arm: Arm, slot: int) -> bool:
        """Return whether a trial that was asked for may not start, because another worker was faster."""
        if slot >= self._sweep.budget(arm):
            return True
        if self._may_start(arm, slot):
            return False
        if self._look is not None:
            self._look.pop(arm, None)  # others have asked and told since
        return not self._may_start(arm, slot)

    def _assignment(self, stage: Stage, trial: optuna.trial.Trial) -> Assignment | None:
        """Make an asked trial this process's own, and propose its parameters; return None where another worker has taken it in an outage."""
        attempt = self._storage.rows.own(trial._trial_id, self._owner, beats=not self._storage.embedded)
        if attempt is None:
            return None
        id_ = trial_id(stage, trial)
        if stage == "finalists":
            params = self._params_of(id_)
        else:
            params = {}
            for name, axis in self._sweep.axes(stage).items():
                if self._sweep.applies(stage, axis, params):
                    params[name] = space.suggest(trial, name, axis)
        return Assignment(trial, id_, self._owner, attempt, params, self._storage)

    def _params_of(self, trial: TrialId) -> dict[str, Any]:
        """Return the parameters that the search sampled for a trial, with the fresh seed where it is a finalist."""
        sampled = self._trials(trial.arm)[trial.number].params
        params = {name: space.decode(self._sweep.search[name], value) for name, value in sampled.items()}
        return params if trial.seed is None else params | {"seed": trial.seed}

    def _tell(self, assignment: Assignment, status: Status, value: float | None, record: Mapping[str, str]) -> bool:
        value, of = (value if status == "complete" else None), (assignment.storage_id, self._owner, assignment.attempt)
        return self._storage.rows.tell(*of, state=STATES[status], value=value, told={attributes.RECORD: dict(record)})

    def _settle(self, stage: Stage, trial: FrozenTrial, *, blame: bool) -> Settled | None:
        """Put back a dead worker's trial, or let it fail; None where another process was faster, or the worker told it after all."""
        said, rows = trial.user_attrs, self._storage.rows
        of = (trial._trial_id, said.get(attributes.OWNER), said.get(attributes.ATTEMPT))
        deaths = int(said.get(attributes.DEATHS, 0)) + blame
        told = {attributes.DEATHS: deaths} if blame else {}
        failed = None
        if deaths >= self._sweep.study.max_attempts:
            failed = (
                f"a worker must live through a trial, but died with this one {deaths} times (study.max_attempts); "
                "the system's log says whether memory ran out"
            )
            mine = self._storage.patiently(lambda: rows.tell(*of, state=TrialState.FAIL, told=told))
        else:
            mine = self._storage.patiently(lambda: rows.put_back(*of, told))
        if not mine:
            return None
        id_ = trial_id(stage, trial)
        return Settled(
            id=id_,
            round=said.get(attributes.ROUND, 0),
            attempt=int(said.get(attributes.ATTEMPT, 1)),
            params=self._params_of(id_),
            failed=failed,
        )
