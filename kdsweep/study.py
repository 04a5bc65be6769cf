"""Optuna's part: one study an arm in one storage, trials proposed by slot, and nothing counted twice.

A slot is an Optuna trial number. It never moves: a trial that was cut off goes back to the queue under its own number. The
sampler is built anew for each slot from (study seed, slot), so that a resumed sweep proposes what an undisturbed one would.
Trials are asked for and told here, not by `study.optimize`, which dies with its database and fails what was merely cut off.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from kdsweep import space
from kdsweep.clock import Clock
from kdsweep.errors import ResultsError
from kdsweep.records import EpochMetrics, Status, TrialResult
from kdsweep.sampler import SlotSampler, pruner
from kdsweep.storage import OUTAGES, Storage
from kdsweep.sweep_config import ARMS, Arm, SweepConfig, identity_changes

warnings.filterwarnings("ignore", message="The reported value is ignored because this `step`")  # an attempt run again

STATES: dict[Status, TrialState] = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


@dataclass(frozen=True, kw_only=True)
class Settled:
    """A trial whose worker is dead: back in the queue, or failed where that happened too often."""

    arm: Arm
    trial: int
    attempt: int
    params: Mapping[str, Any]
    failed: str | None
    """Why it is not tried again."""


@dataclass(frozen=True, kw_only=True)
class StoredTrial:
    """A finished trial as the study itself carries it, for a host that does not have its folder."""

    arm: Arm
    trial: int
    config: str
    result: Mapping[str, Any]
    epochs: tuple[Mapping[str, Any], ...]


class Assignment:
    """A trial that this process is to run."""

    def __init__(
        self, trial: optuna.trial.Trial, arm: Arm, attempt: int, params: Mapping[str, Any], storage: Storage
    ) -> None:
        self._trial, self._storage = trial, storage
        self.arm, self.trial, self.attempt, self.params = arm, trial.number, attempt, params
        self._untold: list[tuple[float, int]] = []

    @property
    def id(self) -> int:
        """Optuna's id of the trial, over all studies of its storage."""
        return self._trial._trial_id

    def report(self, value: float, epoch: int) -> None:
        """Tell an epoch's value; one that a database does not take now is told with the next."""
        self._untold.append((value, epoch))
        try:
            while self._untold:
                self._trial.report(*self._untold[0])
                self._untold.pop(0)
        except OUTAGES as error:
            self._storage.note_outage(error, first=len(self._untold) == 1)

    def should_prune(self) -> bool:
        """Whether the others are ahead, as far as is known."""
        try:
            return not self._untold and self._trial.should_prune()
        except OUTAGES as error:
            self._storage.note_outage(error)
            return False


class Studies:
    """A sweep's two studies. Creating them twice is harmless; another sweep under the same name is refused.

    `owner` names the process that takes trials here; `say` hears of a database that does not answer.
    """

    def __init__(self, sweep: SweepConfig, folder: Path, owner: str = "-", say: Callable[[str], None] = print) -> None:
        self._sweep, self._owner = sweep, owner
        self._storage = Storage(sweep.study, folder, say)
        with self._storage.alone():
            self._studies = {arm: self._create(arm) for arm in ARMS}
        self.clock = Clock(self._studies["distilled"], self._storage, sweep.study.timeout_minutes)

    # How far ----------------------------------------------------------------------------------------------------------

    def remaining(self, arm: Arm) -> int:
        """Trials still to finish."""
        return max(0, self._sweep.budget(arm) - self.finished(arm))

    def finished(self, arm: Arm) -> int:
        """Trials that completed, were pruned or failed by themselves."""
        return sum(trial.state.is_finished() for trial in self._trials(arm))

    def is_done(self) -> bool:
        """Whether nothing is left to run, the target is reached or the time is up."""
        return self._is_closed() or not any(self.remaining(arm) for arm in ARMS)

    def is_open(self) -> bool:
        """Whether a trial waits for somebody to take it."""
        return not self._is_closed() and any(self._open(arm) for arm in ARMS)

    def target_reached(self) -> bool:
        """Whether a trial has `study.target`."""
        target = self._sweep.study.target
        return target is not None and any(value >= target for arm in ARMS for _, value in self.ranking(arm))

    def ranking(self, arm: Arm) -> list[tuple[int, float]]:
        """Number and value of the complete trials, best first; duplicates left out."""
        done = [t for t in self._trials(arm) if t.state == TrialState.COMPLETE and "twin" not in t.user_attrs]
        return sorted(((t.number, t.values[0]) for t in done), key=lambda each: (-each[1], each[0]))

    def running(self) -> int:
        """Trials that somebody runs."""
        return sum(trial.state == TrialState.RUNNING for arm in ARMS for trial in self._trials(arm))

    def stored(self) -> list[StoredTrial]:
        """Finished trials with all that the ranking needs."""
        found = [
            (arm, t) for arm in ARMS for t in self._trials(arm) if t.state.is_finished() and "record" in t.user_attrs
        ]
        return [StoredTrial(arm=arm, trial=trial.number, **trial.user_attrs["record"]) for arm, trial in found]

    # Taking and telling -----------------------------------------------------------------------------------------------

    def take(self) -> Assignment | None:
        """A trial of the arm that is further behind its budget; None where there is nothing to take now."""
        if self._is_closed():
            return None
        open_arms = [arm for arm in ARMS if self._open(arm)]
        for arm in sorted(open_arms, key=lambda arm: self._started(arm) / self._sweep.budget(arm)):
            if (assignment := self.take_from(arm)) is not None:
                return assignment
        return None

    def take_from(self, arm: Arm) -> Assignment | None:
        """The next trial of an arm: one that was put back, or a new one; None past the budget."""
        if not self._open(arm):
            return None
        trial = self._storage.patiently(self._studies[arm].ask)
        if trial.number >= self._sweep.budget(arm):  # somebody else was faster
            self._storage.patiently(lambda: self._storage.put_back(trial._trial_id))
            return None
        return self._storage.patiently(lambda: self._assignment(arm, trial))

    @contextmanager
    def alive(self, assignment: Assignment) -> Iterator[None]:
        """Inside the block, other hosts see that the trial is being run."""
        with self._storage.beating(assignment.id):
            yield

    def finish(
        self, assignment: Assignment, result: TrialResult, config: str, epochs: tuple[EpochMetrics, ...]
    ) -> bool:
        """Tell how a trial ended; False where somebody else runs or ran it by now, so that this is a spare attempt."""
        return self._storage.patiently(lambda: self._tell(assignment, result, config, epochs))

    def twin(self, assignment: Assignment) -> FrozenTrial | None:
        """An earlier trial of the same arm with the same parameters that has ended."""
        axes = self._sweep.axes(assignment.arm)
        wanted = {name: space.encode(value) for name, value in assignment.params.items()}
        ended = [t for t in self._trials(assignment.arm) if t.state.is_finished() and "twin" not in t.user_attrs]
        return next((t for t in ended if t.number != assignment.trial and t.params == wanted and axes), None)

    def finish_like(self, assignment: Assignment, twin: FrozenTrial, result: TrialResult, config: str) -> bool:
        """Answer a duplicate from the record: it ends as its twin did."""

        def tell() -> bool:
            for epoch, value in twin.intermediate_values.items():
                assignment._trial.report(value, epoch)
            assignment._trial.set_user_attr("twin", twin.number)
            return self._tell(assignment, result, config, (), like=twin)

        return self._storage.patiently(tell)

    def put_back(self, assignment: Assignment) -> None:
        """Give up a trial that is to be continued by whoever takes it next."""
        if self._is_mine(assignment):
            self._storage.put_back(assignment.id)

    # Dead workers -----------------------------------------------------------------------------------------------------

    def settle(self, is_dead: Callable[[str | None], bool], *, blame: bool = False) -> list[Settled]:
        """Put back every running trial whose owner `is_dead` (None: it has not said yet who it is).

        With `blame`, the death counts against the trial, which fails at the `study.max_attempts`th: it may be the cause.
        """
        running = [(arm, trial) for arm in ARMS for trial in self._trials(arm) if trial.state == TrialState.RUNNING]
        dead = [(arm, trial) for arm, trial in running if is_dead(trial.user_attrs.get("owner"))]
        return [self._settle(arm, trial, blame=blame) for arm, trial in dead]

    def settle_stale(self) -> list[Settled]:
        """Put back the trials of hosts that have not been heard of for the grace period."""
        settled = []
        for arm, study in self._studies.items():
            stale = self._storage.stale(study._study_id)
            before = datetime.now() - timedelta(seconds=4 * self._sweep.study.heartbeat_seconds)
            for trial in self._trials(arm):
                nameless = "owner" not in trial.user_attrs and trial.datetime_start and trial.datetime_start < before
                silent = trial._trial_id in stale or (nameless and not self._storage.embedded)
                if trial.state == TrialState.RUNNING and silent:
                    settled.append(self._settle(arm, trial, blame=True))
        return settled

    def agree(self, facts: Mapping[str, str]) -> None:
        """All hosts must bring the same teacher and rows. Raises ResultsError with what differs."""
        study = self._studies["distilled"]
        with self._storage.alone():
            stored = study.user_attrs.get("materials")
            if stored is None:
                study.set_user_attr("materials", dict(facts))
        changes = [
            f"  {name}: {stored[name]}, here {facts[name]}" for name in facts if stored and stored[name] != facts[name]
        ]
        if changes:
            raise ResultsError(
                f"every trial of {self._sweep.name} must meet the same teacher and rows, but these differ from what its first "
                "trials met:\n"
                + "\n".join(changes)
                + "\nBring the cache of the first run (KDSWEEP_CACHE), name a teacher "
                "that is fine-tuned already (teacher_epochs: 0), or start afresh with --fork NEW_NAME"
            )

    # Inside -----------------------------------------------------------------------------------------------------------

    def _create(self, arm: Arm) -> Study:
        study = optuna.create_study(
            study_name=f"{self._sweep.name}-{arm}",
            storage=self._storage.rdb,
            direction="maximize",
            sampler=SlotSampler(self._sweep.study, ARMS.index(arm)),
            pruner=pruner(self._sweep),
            load_if_exists=True,
        )
        self._check_identity(study)
        for point in self._queue(arm)[len(study.get_trials(deepcopy=False)) :]:
            study.enqueue_trial({name: space.encode(value) for name, value in point.items()})
        return study

    def _check_identity(self, study: Study) -> None:
        stored = study.user_attrs.get("identity")
        if stored is None:
            study.set_user_attr("identity", json.dumps(_plain(self._sweep.identity())))
            return
        changes = identity_changes(json.loads(stored), _plain(self._sweep.identity()))
        if changes:
            raise ResultsError(
                f"the study {study.study_name!r} was made by another sweep file:\n" + "\n".join(changes) + "\n"
                "Undo the change to continue that sweep, or start a new one beside it with --fork NEW_NAME"
            )

    def _queue(self, arm: Arm) -> list[Mapping[str, Any]]:
        """Known recipes first; Optuna's own grid sampler breaks beside a queue, so a grid is queued whole, each point once."""
        known = self._sweep.enqueue if arm == "distilled" else ()
        if self._sweep.study.sampler != "grid":
            return list(known)

        def place(point: Mapping[str, Any]) -> int:
            return next((index for index, item in enumerate(known) if item.items() <= point.items()), len(known))

        return sorted(self._sweep.grid(arm), key=place)

    def _trials(self, arm: Arm) -> list[FrozenTrial]:
        return self._storage.patiently(lambda: self._studies[arm].get_trials(deepcopy=False))

    def _is_closed(self) -> bool:
        return self.target_reached() or self.clock.is_up()

    def _open(self, arm: Arm) -> bool:
        return self._started(arm) < self._sweep.budget(arm)

    def _started(self, arm: Arm) -> int:
        return sum(trial.state != TrialState.WAITING for trial in self._trials(arm))

    def _assignment(self, arm: Arm, trial: optuna.trial.Trial) -> Assignment:
        attributes, axes = trial.user_attrs, self._sweep.axes(arm)
        attempt = int(attributes.get("attempt", 0)) + (
            attributes.get("owner") != self._owner
        )  # asked again in an outage
        trial.set_user_attr("attempt", attempt)
        trial.set_user_attr("owner", self._owner)
        params = {name: _suggest(trial, name, space.distribution(name, axis)) for name, axis in axes.items()}
        decoded = {name: space.decode(axis, params[name]) for name, axis in axes.items()}
        return Assignment(trial, arm, attempt, decoded, self._storage)

    def _is_mine(self, assignment: Assignment) -> bool:
        now = self._storage.patiently(lambda: self._storage.rdb.get_trial(assignment.id))
        mine = (now.user_attrs.get("owner"), now.user_attrs.get("attempt")) == (self._owner, assignment.attempt)
        return now.state == TrialState.RUNNING and mine

    def _tell(
        self,
        assignment: Assignment,
        result: TrialResult,
        config: str,
        epochs: tuple[EpochMetrics, ...],
        like: FrozenTrial | None = None,
    ) -> bool:
        if not self._is_mine(assignment):
            return False
        record = {"config": config, "result": asdict(result), "epochs": [asdict(epoch) for epoch in epochs]}
        assignment._trial.set_user_attr("record", record)
        state = like.state if like else STATES[result.status]
        value = like.value if like else result.val_accuracy
        try:
            complete = state == TrialState.COMPLETE
            self._studies[assignment.arm].tell(assignment.trial, value if complete else None, state=state)
        except (UpdateFinishedTrialError, ValueError):  # settled between the two lines above: "Cannot tell a … trial"
            return False
        return True

    def _settle(self, arm: Arm, trial: FrozenTrial, *, blame: bool) -> Settled:
        deaths = int(trial.user_attrs.get("deaths", 0)) + blame
        failed = None
        if blame:
            self._storage.patiently(lambda: self._storage.rdb.set_trial_user_attr(trial._trial_id, "deaths", deaths))
        if deaths >= self._sweep.study.max_attempts:
            failed = (
                f"a worker must live through a trial, but died with this one {deaths} times (study.max_attempts); "
                "the system's log says whether memory ran out"
            )
            self._storage.patiently(lambda: self._studies[arm].tell(trial.number, state=TrialState.FAIL))
        else:
            self._storage.patiently(lambda: self._storage.put_back(trial._trial_id))
        return Settled(
            arm=arm,
            trial=trial.number,
            attempt=int(trial.user_attrs.get("attempt", 1)),
            params={name: space.decode(self._sweep.search[name], value) for name, value in trial.params.items()},
            failed=failed,
        )


def _suggest(trial: optuna.trial.Trial, name: str, wanted: BaseDistribution) -> Any:
    match wanted:
        case FloatDistribution():
            return trial.suggest_float(name, wanted.low, wanted.high, step=wanted.step, log=wanted.log)
        case IntDistribution():
            return trial.suggest_int(name, wanted.low, wanted.high, step=wanted.step, log=wanted.log)
        case CategoricalDistribution():
            return trial.suggest_categorical(name, wanted.choices)
    raise AssertionError(wanted)


def _plain(identity: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in identity.items()}
