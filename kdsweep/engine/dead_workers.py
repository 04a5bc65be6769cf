"""Workers that died: whose trials they held, what is recorded of those that are not tried again, who still lives."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kdsweep.config.sweep import SweepConfig
from kdsweep.errors import ResultsError
from kdsweep.records.layout import locks_folder, trial_folder, worker_lock
from kdsweep.records.reading import read_trial
from kdsweep.records.schema import finalist_of, missing_result
from kdsweep.records.writing import TrialFolder
from kdsweep.search.assignment import Settled
from kdsweep.system.files import Lock, naming
from kdsweep.system.process import is_of_this_host

STOP_SECONDS = 60
"""What a worker gets to checkpoint its trial after SIGTERM, before SIGKILL: more than W&B gets to send its run."""


def record_failed(sweep: SweepConfig, folder: Path, settled: Sequence[Settled]) -> None:
    """Record the trials that are not tried again."""
    for each in settled:
        if each.failed is None:
            continue
        trial = TrialFolder(trial_folder(folder, each.id))
        if not (trial.path / "config.yaml").exists():
            trial.start(sweep.trial(each.id.arm, each.params))
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
    """Inside the block, this process is an embedded sweep's only supervisor. Raises ResultsError where another one lives.

    Waits for the workers of one that was killed: they notice, checkpoint and end by themselves.
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
    """Wait until workers of a supervisor that was killed have ended, and clear their locks away."""
    deadline = time.monotonic() + 2 * STOP_SECONDS
    while living := living_workers(folder):
        if time.monotonic() > deadline:
            raise ResultsError(f"workers of a run that was killed must have ended, but still live: {', '.join(living)}")
        time.sleep(0.1)
    for dead in locks_folder(folder).glob("worker-*.lock"):
        dead.unlink()


def living_workers(folder: Path) -> list[str]:
    """Owners whose processes live on this host."""
    locks = locks_folder(folder).glob("worker-*.lock")
    return [path.stem.removeprefix("worker-") for path in locks if Lock(path).is_held()]


def is_dead_here(folder: Path, owner: str | None) -> bool:
    """Whether a worker that ran on this host, in this results folder, is dead."""
    if owner is None or not is_of_this_host(owner):
        return False
    lock = worker_lock(folder, owner)
    return lock.exists() and not Lock(lock).is_held()
