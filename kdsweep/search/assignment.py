"""Translates Optuna's trials into the sweep's terms: arm, number, finalist's seed. `Assignment` is the one that this process trains."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from kdsweep.config.sweep import Stage
from kdsweep.records.layout import TrialId
from kdsweep.records.schema import Status
from kdsweep.search import attributes
from kdsweep.search.storage import OUTAGES, Storage

STATES: dict[Status, TrialState] = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}
"""Optuna's word for how a trial ended."""


def trial_id(stage: Stage, trial: FrozenTrial | optuna.trial.Trial) -> TrialId:
    """Return which trial of the sweep a trial of a study is; a finalist's says it in its attributes."""
    if stage != "finalists":
        return TrialId(stage, trial.number)
    said = trial.user_attrs
    return TrialId(said[attributes.ARM], said[attributes.TRIAL], said[attributes.SEED])


@dataclass(frozen=True, kw_only=True)
class Settled:
    """A trial whose worker is dead: back in the queue, or failed where that happened too often."""

    id: TrialId
    round: int
    """Of a finalist, as in `schema.Finalist`; 0 for a trial of the search."""
    attempt: int
    params: Mapping[str, Any]
    failed: str | None
    """Why it is not tried again."""


@dataclass(frozen=True, kw_only=True)
class StoredTrial:
    """A finished trial as the study itself carries it, for a host that does not have its folder."""

    id: TrialId
    record: Mapping[str, str]
    """As `reading.packed_trial` makes it."""


@dataclass(frozen=True, kw_only=True)
class Twin:
    """An earlier trial of the same arm with the same parameters, and how it ended."""

    number: int
    status: Status
    score: float | None
    """By the study's metric; None where it did not complete."""
    scores: Mapping[int, float]
    """Of its epochs."""


def twin_of(trial: FrozenTrial) -> Twin:
    """Return a finished trial as a twin."""
    status = next(status for status, state in STATES.items() if state == trial.state)
    score = trial.value if status == "complete" else None
    return Twin(number=trial.number, status=status, score=score, scores=trial.intermediate_values)


class Assignment:
    """A trial that this process is to run."""

    def __init__(
        self, trial: optuna.trial.Trial, id_: TrialId, attempt: int, params: Mapping[str, Any], storage: Storage
    ) -> None:
        self._trial, self._storage = trial, storage
        self.id, self.attempt, self.params = id_, attempt, params
        self.round: int = trial.user_attrs.get(attributes.ROUND, 0)
        """Of a finalist, as in `schema.Finalist`; 0 for a trial of the search."""
        self._untold: list[tuple[float, int]] = []

    @property
    def number(self) -> int:
        """Optuna's number of the trial in its study, which a finalist shares with nobody in the search."""
        return self._trial.number

    @property
    def storage_id(self) -> int:
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

    def constrain(self, excess: Mapping[str, float]) -> None:
        """By how much each constraint is broken; at most 0 where it is kept."""
        for name, value in excess.items():
            if name not in self._trial.constraints:  # an attempt before has told it
                self._storage.patiently(lambda: self._trial.set_constraint(name, value))  # noqa: B023

    def should_prune(self) -> bool:
        """Whether the others are ahead, as far as is known."""
        try:
            return not self._untold and self._trial.should_prune()
        except OUTAGES as error:
            self._storage.note_outage(error)
            return False

    def answer_like(self, twin: Twin) -> None:
        """Report a twin's epochs as its own, and say whose they are."""
        for epoch, score in twin.scores.items():
            self._trial.report(score, epoch)
        self._trial.set_user_attr(attributes.TWIN, twin.number)

    def keep(self, record: Mapping[str, str]) -> None:
        """Let the study carry the finished trial."""
        self._trial.set_user_attr(attributes.RECORD, dict(record))
