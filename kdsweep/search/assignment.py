"""Translate Optuna's trials into the sweep's terms: arm, number, finalist's seed. `Assignment` is a trial that this process trains."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from kdsweep.config.arms import Stage
from kdsweep.errors import Superseded
from kdsweep.records.layout import TrialId
from kdsweep.records.schema import Status
from kdsweep.search import attributes
from kdsweep.search.storage import OUTAGES, Storage

STATES: dict[Status, TrialState] = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}
"""Optuna's state for each status of an ended trial."""


def trial_id(stage: Stage, trial: FrozenTrial | optuna.trial.Trial) -> TrialId:
    """Return which trial of the sweep an Optuna trial is; for a finalist, its user attributes name it."""
    if stage != "finalists":
        return TrialId(stage, trial.number)
    said = trial.user_attrs
    return TrialId(said[attributes.ARM], said[attributes.TRIAL], said[attributes.SEED])


@dataclass(frozen=True, kw_only=True)
class Settled:
    """Describes a trial whose worker died: back in the queue, or failed after `study.max_attempts` deaths."""

    id: TrialId
    round: int
    """A finalist's round, as in `schema.Finalist`; 0 for a trial of the search."""
    attempt: int
    params: Mapping[str, Any]
    failed: str | None
    """Why the trial is not tried again; None where it is back in the queue."""


@dataclass(frozen=True, kw_only=True)
class StoredTrial:
    """Holds a finished trial as the study stores it, for a host that does not have its folder."""

    id: TrialId
    record: Mapping[str, str]
    """The files of its folder, as `reading.packed_trial` returns them."""


@dataclass(frozen=True, kw_only=True)
class Twin:
    """Describes an ended trial that has the arm and the parameters of another one: its number, status and scores."""

    number: int
    status: Status
    score: float | None
    """The study's metric; None where the trial did not complete."""
    scores: Mapping[int, float]
    """The study's metric of each epoch that it reported."""


def twin_of(trial: FrozenTrial) -> Twin:
    """Return a finished Optuna trial as a `Twin`."""
    status = next(status for status, state in STATES.items() if state == trial.state)
    score = trial.value if status == "complete" else None
    return Twin(number=trial.number, status=status, score=score, scores=trial.intermediate_values)


class Assignment:
    """Holds a trial that this process is to run, and reports on it to its study."""

    def __init__(
        self,
        trial: optuna.trial.Trial,
        id_: TrialId,
        owner: str,
        attempt: int,
        params: Mapping[str, Any],
        storage: Storage,
    ) -> None:
        self._trial, self._storage, self._owner = trial, storage, owner
        self.id, self.attempt, self.params = id_, attempt, params
        self.round: int = trial.user_attrs.get(attributes.ROUND, 0)
        """A finalist's round, as in `schema.Finalist`; 0 for a trial of the search."""
        self._untold: list[tuple[float, int]] = []

    @property
    def number(self) -> int:
        """Return Optuna's number of the trial in its study; a finalist has its own, unlike that of the trial it repeats (`id.number`)."""
        return self._trial.number

    @property
    def storage_id(self) -> int:
        """Return Optuna's id of the trial, unique over all studies of its storage."""
        return self._trial._trial_id

    def report(self, value: float, epoch: int) -> None:
        """Report an epoch's value to the study; a value that the database cannot take now is sent with the next one.

        Raises Superseded where another worker has taken the trial since: its epochs would be mixed with this one's.
        """
        self._untold.append((value, epoch))
        try:
            if not self._storage.rows.is_owned(self.storage_id, self._owner, self.attempt):
                raise Superseded(f"trial {self.id.number} is another worker's by now")
            while self._untold:
                self._trial.report(*self._untold[0])
                self._untold.pop(0)
        except OUTAGES as error:
            self._storage.note_outage(error, first=len(self._untold) == 1)

    def constrain(self, excess: Mapping[str, float]) -> None:
        """Store by how much the trial breaks each constraint; at most 0 where it keeps the constraint."""
        for name, value in excess.items():
            if name not in self._trial.constraints:  # an earlier attempt may have stored it
                self._storage.patiently(lambda: self._trial.set_constraint(name, value))  # noqa: B023

    def should_prune(self) -> bool:
        """Return whether the study's pruner ends the trial here; False during an outage or while an epoch's value is unsent."""
        try:
            return not self._untold and self._trial.should_prune()
        except OUTAGES as error:
            self._storage.note_outage(error)
            return False

    def answer_like(self, twin: Twin) -> None:
        """Report the epochs of `twin` as this trial's own, and store the twin's number as an attribute."""
        for epoch, score in twin.scores.items():
            self._trial.report(score, epoch)
        self._trial.set_user_attr(attributes.TWIN, twin.number)
