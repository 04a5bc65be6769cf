"""Send what happens in a worker to the process that shows its sweep, and to W&B."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from kdsweep.config.sweep import Resolved, SweepConfig
from kdsweep.config.trial import TrialConfig
from kdsweep.engine.events import Note, Offline, RowsDone, Send
from kdsweep.system.process import StopRequest
from kdsweep.tracking.names import RunLabel
from kdsweep.tracking.open import open_tracker, resolved_mode
from kdsweep.tracking.tracker import Run

STOP_TOGETHER_SECONDS = 0.5
"""Longest time between the signals of one request to stop, as the processes of a job receive them."""


class Messages:
    """Sends a worker's events; after a request to stop, it sends no warning about W&B, which may have been stopped too."""

    def __init__(self, send: Send, stop: StopRequest) -> None:
        self.send, self._stop = send, stop

    def note(self, text: str) -> None:
        """Send a message that the user should read."""
        self.send(Note(text))

    def rows_done(self, what: str, done: int, rows: int | None, unit: str) -> None:
        """Send how far the rows, or the texts without labels, are prepared."""
        self.send(RowsDone(what=what, done=done, rows=rows, unit=unit))

    def offline(self, text: str) -> None:
        """Send that W&B does not answer, unless this worker is asked to stop: Slurm ends W&B's client too, perhaps a moment before."""
        time.sleep(STOP_TOGETHER_SECONDS)
        if not self._stop.requested:
            self.send(Offline(text))

    def missing(self, name: str, why: str) -> None:
        """Send a note that W&B has no run of `name`, unless this worker is asked to stop."""
        if not self._stop.requested:
            self.note(f"W&B has no run of {name} ({why}): the records have every number, there is nothing to sync")


class TrackedRuns:
    """Opens a worker's W&B runs; `mode` is how W&B is reached (None: no earlier worker has found out)."""

    def __init__(self, sweep: SweepConfig, folder: Path, messages: Messages, mode: Resolved | None) -> None:
        known = (mode, "as a worker before found") if mode else None
        self.mode, self.why = known or resolved_mode(sweep.tracking)
        self._tracker = open_tracker(folder, sweep.name, sweep.tracking, self.mode, messages.offline)
        self._messages = messages

    @contextmanager
    def run(self, label: RunLabel, config: TrialConfig) -> Iterator[Run]:
        """Run the block with an open W&B run; send a note where W&B could not open one."""
        with self._tracker.run(label, asdict(config)) as run:
            if run.missing:
                self._messages.missing(label.name, run.missing)
            yield run
