"""A row of a study as the rest of the sweep knows it: which trial it means, and the one that this process is to run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, Trial

from kdsweep.config.sweep import Arm, Stage
from kdsweep.records.schema import Finalist
from kdsweep.search.storage import OUTAGES, Storage


@dataclass(frozen=True, kw_only=True)
class Who:
    """Which trial of the sweep a row of a study means."""

    arm: Arm
    trial: int
    finalist: Finalist | None = None


def who_is(stage: Stage, row: FrozenTrial | Trial) -> Who:
    """What a row of a study means."""
    if stage != "finalists":
        return Who(arm=stage, trial=row.number)
    told = row.user_attrs
    finalist = Finalist(seed=told["seed"], round=told["round"])
    return Who(arm=told["arm"], trial=told["trial"], finalist=finalist)


@dataclass(frozen=True, kw_only=True)
class Settled:
    """A trial whose worker is dead: back in the queue, or failed where that happened too often."""

    arm: Arm
    trial: int
    finalist: Finalist | None
    attempt: int
    params: Mapping[str, Any]
    failed: str | None
    """Why it is not tried again."""


@dataclass(frozen=True, kw_only=True)
class StoredTrial:
    """A finished trial as the study itself carries it, for a host that does not have its folder."""

    arm: Arm
    trial: int
    finalist: Finalist | None
    record: Mapping[str, str]
    """As `reading.packed_trial` makes it."""


class Assignment:
    """A trial that this process is to run."""

    def __init__(self, trial: Trial, who: Who, attempt: int, params: Mapping[str, Any], storage: Storage) -> None:
        self._trial, self._storage = trial, storage
        self.arm, self.trial, self.finalist = who.arm, who.trial, who.finalist
        self.stage: Stage = who.arm if who.finalist is None else "finalists"
        self.attempt, self.params = attempt, params
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
