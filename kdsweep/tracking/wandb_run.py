"""Send metrics, tables and models to one open W&B run, and tell W&B's errors from others."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeGuard

import wandb

from kdsweep.records.schema import EpochMetrics, StepMetrics, logged_epoch
from kdsweep.records.teacher_schema import TeacherEpoch
from kdsweep.tracking.tracker import Model

UPLOAD_SECONDS = 600
"""Longest wait for a model's upload before it is linked to a registry."""


def is_trouble(error: BaseException) -> TypeGuard[Exception]:
    """Return whether W&B caused an error: an OSError (a full disk, a client that is gone, and the TimeoutError of finish), or one whose class
    W&B defines. Most of W&B's classes are private and no wandb.errors.Error, so they are recognised by the module that defines them."""
    its_own = any(kind.__module__.split(".")[0] == "wandb" for kind in type(error).__mro__)
    return isinstance(error, OSError) or (its_own and isinstance(error, Exception))


class WandbRun:
    """Sends metrics to one open W&B run. After W&B's first error, which is passed to `trouble`, no more metrics are sent."""

    missing: str | None = None

    def __init__(
        self, run: Any, trouble: Callable[[Exception], None], say: Callable[[str], None], *, online: bool
    ) -> None:
        self._run, self._trouble, self._say, self.is_whole = run, trouble, say, True
        self.run_id: str | None = run.id
        self.url: str | None = run.url if online else None

    def log_steps(self, steps: Sequence[StepMetrics]) -> None:
        """Log one row a step, of what it has."""
        with self._sending():
            for step in steps if self.is_whole else ():
                self._run.log(step.logged(), step=step.step)

    def log_epoch(self, epoch: EpochMetrics | TeacherEpoch) -> None:
        """Log an epoch's metrics into the row of its last step."""
        with self._sending():
            if self.is_whole:
                self._run.log(logged_epoch(epoch), step=epoch.step)

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Add the values that are not None to the run's summary."""
        with self._sending():
            if self.is_whole:
                self._run.summary.update({name: value for name, value in values.items() if value is not None})

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Log a wandb.Table under `name`."""
        with self._sending():
            if self.is_whole:
                self._run.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def log_model(self, model: Model) -> None:
        """Log a wandb.Artifact of type `model`, its files copied to W&B's staging folder first, and link it to a registry."""
        with self._sending():
            if self.is_whole:
                artifact = wandb.Artifact(model.name, type="model", metadata=dict(model.metadata))
                for inside, path in model.files.items():
                    if path.is_dir():
                        artifact.add_dir(str(path), name=None if inside == "." else inside)
                    else:
                        artifact.add_file(str(path), name=inside)
                self._run.log_artifact(artifact, aliases=["latest", *model.aliases])
                if model.collection:
                    self._link(artifact, model.collection, model.aliases)

    def _link(self, artifact: Any, collection: str, aliases: Sequence[str]) -> None:
        """Add a logged artifact to a collection of a registry; a failure is said and costs nothing else, as the run has the artifact."""
        if self.url is None:
            self._say(
                f"tracking.registry: W&B is offline, so the model is not linked to {collection}; after wandb sync link it on its page"
            )
            return
        try:
            self._run.link_artifact(artifact.wait(timeout=UPLOAD_SECONDS), collection, list(aliases))
        except Exception as error:  # of W&B's client, of its answers, or a registry that does not exist
            self._say(
                f"tracking.registry: W&B did not link the model to {collection} ({one_line(error)}); its run has it"
            )

    def finish(self, *, exit_code: int) -> None:
        """Close the run, also after an error of W&B."""
        with self._sending():
            self._run.finish(exit_code=exit_code)

    @contextmanager
    def _sending(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not is_trouble(error):
                raise
            self.is_whole = False
            self._trouble(error)


def one_line(error: Exception) -> str:
    """Return an error's text on one line of at most 200 characters; its class where it has none."""
    return " ".join(str(error).split())[:200] or type(error).__name__
