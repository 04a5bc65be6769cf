"""How a worker tells what happens: to whoever shows its sweep, and to W&B."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from kdsweep.config.sweep import Resolved, SweepConfig
from kdsweep.config.trial import TrialConfig
from kdsweep.engine.events import Note, Offline, Send
from kdsweep.system.process import StopRequest
from kdsweep.tracking.names import RunLabel
from kdsweep.tracking.open import open_tracker, resolved_mode
from kdsweep.tracking.tracker import Run

STOP_TOGETHER_SECONDS = 0.5
"""What lies at most between the signals of one request to stop, as the processes of a job get them."""


class Telling:
    """Sends a worker's events; one that is asked to stop does not complain of what is stopped with it."""

    def __init__(self, send: Send, stop: StopRequest) -> None:
        self.send, self._stop = send, stop

    def note(self, text: str) -> None:
        """Send something that the user should read."""
        self.send(Note(text))

    def offline(self, text: str) -> None:
        """Not where this worker is stopped: Slurm ends W&B's client together with it, perhaps a moment before."""
        time.sleep(STOP_TOGETHER_SECONDS)
        if not self._stop.requested:
            self.send(Offline(text))

    def missing(self, name: str, why: str) -> None:
        """Say that W&B has no run of that name."""
        if not self._stop.requested:
            self.note(f"W&B has no run of {name} ({why}): the records have every number, there is nothing to sync")


class TrackedRuns:
    """A worker's W&B runs; `mode` is how W&B is reached, where a worker before has found out."""

    def __init__(self, sweep: SweepConfig, folder: Path, telling: Telling, mode: Resolved | None) -> None:
        known = (mode, "as a worker before found") if mode else None
        self.mode, self.why = known or resolved_mode(sweep.tracking)
        self._tracker = open_tracker(folder, sweep.name, sweep.tracking, self.mode, telling.offline)
        self._telling = telling

    @contextmanager
    def run(self, label: RunLabel, config: TrialConfig) -> Iterator[Run]:
        """Inside the block, a run is open; that W&B has none is said."""
        with self._tracker.run(label, asdict(config)) as run:
            if run.missing:
                self._telling.missing(label.name, run.missing)
            yield run
