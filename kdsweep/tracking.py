"""Weights & Biases: one run a trial, in the sweep's group.

W&B is the view, the results folder is the truth: whatever goes wrong here costs no trial. Names are `L_soft`, `L_hard`,
`L_total`, `learning_rate` over `step`, and `val_accuracy` and the rest over `epoch`.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Protocol

import wandb

from kdsweep.records import EpochMetrics, StepMetrics, TeacherEpoch
from kdsweep.sweep_config import TrackingConfig

os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

STEP_METRICS = ("L_soft", "L_hard", "L_total", "learning_rate")
Mode = Literal["online", "offline"]
INIT_SECONDS = 30
FINISH_SECONDS = 60


class Run(Protocol):
    """Where one trial's metrics go."""

    run_id: str | None

    def log_steps(self, steps: Sequence[StepMetrics]) -> None:
        """Every step's losses."""

    def log_epoch(self, epoch: EpochMetrics | TeacherEpoch) -> None:
        """An epoch's validation metrics."""

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Numbers of the whole run."""


class Tracker(Protocol):
    """Opens runs."""

    def run(self, run_id: str, job_type: str, config: Mapping[str, Any]) -> Any:
        """A context manager that gives a `Run` and closes it, whatever happens inside."""


class NullRun:
    """Goes nowhere."""

    run_id: str | None = None

    def log_steps(self, steps: Sequence[StepMetrics]) -> None:
        """Nothing."""

    def log_epoch(self, epoch: EpochMetrics | TeacherEpoch) -> None:
        """Nothing."""

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Nothing."""


class NullTracker:
    """Tracking is off."""

    @contextmanager
    def run(self, run_id: str, job_type: str, config: Mapping[str, Any]) -> Iterator[Run]:
        """A run that goes nowhere."""
        yield NullRun()


class WandbRun:
    """One open W&B run."""

    def __init__(self, run: Any) -> None:
        self._run = run
        self.run_id: str | None = run.id

    def log_steps(self, steps: Sequence[StepMetrics]) -> None:
        """One row a step."""
        for step in steps:
            self._run.log(asdict(step), step=step.step)

    def log_epoch(self, epoch: EpochMetrics | TeacherEpoch) -> None:
        """Joins the row of the epoch's last step; the mean training losses of an epoch are W&B's own to smooth."""
        values = asdict(epoch)
        self._run.log({name: values[name] for name in values if name not in STEP_METRICS}, step=epoch.step)

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Into the run's summary."""
        self._run.summary.update({name: value for name, value in values.items() if value is not None})


class WandbTracker:
    """Runs in `folder`/wandb, online or offline. A server that stops answering turns it offline for good, and `say` says so."""

    def __init__(
        self, folder: Path, group: str, tracking: TrackingConfig, mode: Mode, say: Callable[[str], None] = print
    ) -> None:
        self._folder, self._group, self._tracking = folder, group, tracking
        self.mode, self._say = mode, say

    @contextmanager
    def run(self, run_id: str, job_type: str, config: Mapping[str, Any]) -> Iterator[Run]:
        """One W&B run, finished when the block ends: failed where it ends by an exception."""
        opened = self._open(run_id, job_type, config)
        try:
            yield WandbRun(opened)
        except BaseException:
            self._finish(opened, exit_code=1)
            raise
        self._finish(opened, exit_code=0)

    def _finish(self, opened: Any, *, exit_code: int) -> None:
        """A run that cannot be closed costs nothing: its rows lie on disk for `wandb sync`, and the record has them all."""
        try:
            opened.finish(exit_code=exit_code)
        except wandb.errors.Error as error:
            self._say(f"W&B could not finish the run {opened.id} ({error}); wandb sync can send it later")

    def _open(self, run_id: str, job_type: str, config: Mapping[str, Any]) -> Any:
        arguments: dict[str, Any] = {
            "project": self._tracking.project,
            "dir": str(self._folder),
            "id": run_id,
            "name": run_id,
            "group": self._group,
            "job_type": job_type,
            "tags": list(self._tracking.tags),
            "config": dict(config),
            "reinit": "finish_previous",  # the default hands back the run that is open
            "settings": _settings(),
        }
        try:
            run = wandb.init(mode=self.mode, **arguments)
        except wandb.errors.Error as error:
            if self.mode == "offline":
                raise
            self.mode = "offline"
            self._say(f"W&B stopped answering ({error}); runs are offline from here on, wandb sync sends them later")
            run = wandb.init(mode=self.mode, **arguments)
        for name in STEP_METRICS:
            run.define_metric(name, step_metric="step")
        run.define_metric("val_*", step_metric="epoch")
        run.define_metric("val_accuracy", step_metric="epoch", summary="max,last")
        return run


def _settings() -> wandb.Settings:
    """Quiet, and nothing of the machine: no command line, no git remote, no host statistics, no console."""
    return wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        save_code=False,
        init_timeout=INIT_SECONDS,
        finish_timeout=FINISH_SECONDS,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
    )


def resolved_mode(tracking: TrackingConfig) -> tuple[Mode | Literal["off"], str]:
    """`online`, `offline` or `off`, and why in a few words; asks the server once, so that no trial has to wait for it."""
    if tracking.mode in ("off", "offline"):
        return tracking.mode, "as the sweep file says"
    try:
        if wandb.login(prompt=False, verify=True):
            return "online", "the server answered"
        return "offline", "no W&B key is configured"
    except wandb.errors.Error as error:
        return "offline", f"W&B did not let us in: {' '.join(str(error).split())[:200]}"


def open_tracker(
    folder: Path,
    group: str,
    tracking: TrackingConfig,
    mode: Mode | Literal["off"],
    say: Callable[[str], None] = print,
) -> Tracker:
    """The tracker for a resolved mode."""
    return NullTracker() if mode == "off" else WandbTracker(folder, group, tracking, mode, say)
