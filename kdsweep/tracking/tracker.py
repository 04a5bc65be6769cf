"""Where a trial's metrics go: what a run and a tracker take, and those that go nowhere."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from kdsweep.records.schema import EpochMetrics, StepMetrics, TeacherEpoch
from kdsweep.tracking.names import RunLabel


class Run(Protocol):
    """Where one trial's metrics go."""

    run_id: str | None
    url: str | None
    """Its page; None for one that did not go to a server."""
    missing: str | None
    """Why W&B has no run although the sweep is tracked; None where it has one, or tracking is off."""

    def log_steps(self, steps: Sequence[StepMetrics]) -> None:
        """Every step's losses."""

    def log_epoch(self, epoch: EpochMetrics | TeacherEpoch) -> None:
        """An epoch's validation metrics."""

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Numbers of the whole run."""

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table of its own."""

    def log_model(self, name: str, files: Mapping[str, Path], metadata: Mapping[str, Any]) -> None:
        """Files and folders as one artifact of type `model`, by their names in it."""


class Tracker(Protocol):
    """Opens runs."""

    def run(self, label: RunLabel, config: Mapping[str, Any]) -> Any:
        """A context manager that gives a `Run` and closes it, whatever happens inside."""

    def amend(self, run_id: str, values: Mapping[str, Any]) -> None:
        """Into the summary of a run that has ended, where the server has it: an offline run cannot be changed any more."""


class NullRun:
    """Goes nowhere: tracking is off, or W&B could not open the run, and `missing` says why."""

    run_id: str | None = None
    url: str | None = None
    missing: str | None = None

    def __init__(self, missing: str | None = None) -> None:
        self.missing = missing

    def log_steps(self, steps: Sequence[StepMetrics]) -> None:
        """Nothing."""

    def log_epoch(self, epoch: EpochMetrics | TeacherEpoch) -> None:
        """Nothing."""

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Nothing."""

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Nothing."""

    def log_model(self, name: str, files: Mapping[str, Path], metadata: Mapping[str, Any]) -> None:
        """Nothing."""


class NullTracker:
    """Tracking is off."""

    @contextmanager
    def run(self, label: RunLabel, config: Mapping[str, Any]) -> Iterator[Run]:
        """A run that goes nowhere."""
        yield NullRun()

    def amend(self, run_id: str, values: Mapping[str, Any]) -> None:
        """Nothing."""
