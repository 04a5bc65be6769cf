"""Declare the interface of a run and of a tracker, which send metrics to W&B; implement both for a sweep that is not tracked."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kdsweep.config.sweep import Resolved
from kdsweep.records.schema import EpochMetrics, Pages, StepMetrics
from kdsweep.records.teacher_schema import TeacherEpoch
from kdsweep.tracking.names import RunLabel


@dataclass(frozen=True, kw_only=True)
class Model:
    """Holds what becomes a version of a model artifact."""

    name: str
    files: Mapping[str, Path]
    """Files and folders by their names in the artifact; the name `.` stands for a folder whose content lies at the top."""
    metadata: Mapping[str, Any]
    aliases: tuple[str, ...] = ()
    collection: str | None = None
    """Where it is linked, as `wandb-registry-NAME/COLLECTION`; None: nowhere."""


class Run(Protocol):
    """Accepts the metrics of one trial, of the teacher or of the verdict."""

    run_id: str | None
    url: str | None
    """The address of its page; None for a run that was not sent to a server."""
    missing: str | None
    """Why W&B has no run although the sweep is tracked; None where it has one, or tracking is off."""

    def log_steps(self, steps: Sequence[StepMetrics]) -> None:
        """Log the losses of `steps`."""

    def log_epoch(self, epoch: EpochMetrics | TeacherEpoch) -> None:
        """Log an epoch's validation metrics."""

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Add values that describe the whole run to its summary."""

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Log a table under `name`."""

    def log_model(self, model: Model) -> None:
        """Log a model as a new version of an artifact, and link that to a registry where the model names one."""


class Tracker(Protocol):
    """Opens the runs of a sweep."""

    @property
    def mode(self) -> Resolved:
        """Return how W&B is reached now: after its first error, `offline`."""

    def run(self, label: RunLabel, config: Mapping[str, Any]) -> Any:
        """Return a context manager that opens a `Run` and closes it however the block ends."""

    def amend(self, run_id: str, values: Mapping[str, Any], pages: Pages | None = None) -> None:
        """Add values to the summary, and links to `pages` to the notes, of a run that has ended and is on the server; an ended offline run
        cannot be changed."""


class NullRun:
    """Drops all metrics: tracking is off, or W&B could not open the run for the reason in `missing`."""

    run_id: str | None = None
    url: str | None = None
    missing: str | None = None

    def __init__(self, missing: str | None = None) -> None:
        self.missing = missing

    def log_steps(self, steps: Sequence[StepMetrics]) -> None:
        """Do nothing."""

    def log_epoch(self, epoch: EpochMetrics | TeacherEpoch) -> None:
        """Do nothing."""

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Do nothing."""

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Do nothing."""

    def log_model(self, model: Model) -> None:
        """Do nothing."""


class NullTracker:
    """Opens runs that drop all metrics: tracking is off."""

    mode: Resolved = "off"

    @contextmanager
    def run(self, label: RunLabel, config: Mapping[str, Any]) -> Iterator[Run]:
        """Run the block with a run that drops all metrics."""
        yield NullRun()

    def amend(self, run_id: str, values: Mapping[str, Any], pages: Pages | None = None) -> None:
        """Do nothing."""
