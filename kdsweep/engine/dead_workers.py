"""Handle workers that died: find which ones still run, and record the trials that are not tried again."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kdsweep.config.lengths import lengthened
from kdsweep.config.sweep import SweepConfig
from kdsweep.errors import ResultsError
from kdsweep.records.layout import locks_folder, trial_folder, worker_lock
from kdsweep.records.reading import read_trial
from kdsweep.records.schema import finalist_of, missing_result
from kdsweep.records.writing import TrialFolder
from kdsweep.system.files import Lock, naming
from kdsweep.system.process import is_of_this_host

if TYPE_CHECKING:
    from kdsweep.search.assignment import Settled  # imports Optuna

STOP_SECONDS = 60
"""Time between SIGTERM and SIGKILL in which a worker checkpoints its trial: more than W&B has to send its run."""


def record_failed(sweep: SweepConfig, folder: Path, settled: Sequence["Settled"]) -> None:
    """Write a failed result for each of the `settled` trials that is not tried again."""
    for each in settled:
        if each.failed is None:
            continue
        trial = TrialFolder(trial_folder(folder, each.id))
        if not (trial.path / "config.yaml").exists():
            config = sweep.trial(each.id.arm, each.params)
            trial.start(lengthened(config, sweep.length_factor(each.id.stage)))
        result = missing_result(
            each.id.arm,
            each.id.number,
            status="failed",
            error=each.failed,
            attempt=each.attempt,
            epochs=read_trial(trial.path).epochs,
            finalist=finalist_of(each.id, each.round),
        )
        trial.finish(result)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Run the block as the only supervisor of an embedded sweep. Raises ResultsError where another one runs.

    First waits for the workers of a supervisor that was killed: they notice it, checkpoint and end by themselves. Raises ResultsError
    where they do not.
    """
    path = locks_folder(folder) / "supervisor.lock"
    lock = Lock(path)
    if not lock.take():
        raise ResultsError(
            f"{folder} must have one run at a time, but process {path.read_text() or '?'} works on it; wait for it or stop it. "
            "Several hosts share a sweep by study.storage"
        )
    try:
        with naming(path):
            path.write_text(str(os.getpid()))
        _outlive(folder)
        yield
    finally:
        lock.give_back()


def _outlive(folder: Path) -> None:
    """Wait until the workers of a killed supervisor have ended, and remove their locks. Raises ResultsError after twice `STOP_SECONDS`."""
    deadline = time.monotonic() + 2 * STOP_SECONDS
    while living := living_workers(folder):
        if time.monotonic() > deadline:
            raise ResultsError(f"workers of a run that was killed must have ended, but still live: {', '.join(living)}")
        time.sleep(0.1)
    for dead in locks_folder(folder).glob("worker-*.lock"):
        dead.unlink()


def living_workers(folder: Path) -> list[str]:
    """Return the owner names of workers in `folder` whose processes run on this host."""
    locks = locks_folder(folder).glob("worker-*.lock")
    return [path.stem.removeprefix("worker-") for path in locks if Lock(path).is_held()]


def is_dead_here(folder: Path, owner: str | None) -> bool:
    """Return whether the worker `owner` ran on this host, in this results folder, and is dead."""
    if owner is None or not is_of_this_host(owner):
        return False
    lock = worker_lock(folder, owner)
    return lock.exists() and not Lock(lock).is_held()
