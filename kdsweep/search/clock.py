"""Measure how long a sweep has run: one count in its study for all runs and hosts, of the time during which any worker runs."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from optuna.study import Study

from kdsweep.errors import ResultsError
from kdsweep.search import attributes
from kdsweep.search.storage import Storage

TICK_SECONDS = 5.0
GAP_SECONDS = 60.0
"""A longer time between two ticks is a pause, which is not counted."""


class Clock:
    """Counts the seconds during which at least one worker of the sweep ran, over all runs and hosts; `minutes` is their limit."""

    def __init__(self, study: Study, storage: Storage, minutes: float | None) -> None:
        self._study, self._storage = study, storage
        self._limit_seconds = float("inf") if minutes is None else 60 * minutes

    def seconds(self) -> float:
        """Return the seconds counted up to the last tick."""
        return self._read()[0]

    def is_up(self) -> bool:
        """Return whether the time limit is reached; False without a limit."""
        return self._limit_seconds < float("inf") and self.seconds() >= self._limit_seconds

    def tick(self, *, after_seconds: float = 0.0) -> None:
        """Add the time since the last tick of any worker; none after a pause of `GAP_SECONDS`, and none yet before `after_seconds`."""
        seconds, last = self._read()
        now = time.time()
        passed = now - last
        if 0 <= passed < after_seconds:
            return
        counted = passed if 0 < passed < GAP_SECONDS else 0.0
        entry = [seconds + counted, max(now, last)]
        self._storage.patiently(lambda: self._study.set_user_attr(attributes.CLOCK, entry))

    @contextmanager
    def going(self, say: Callable[[str], None]) -> Iterator[None]:
        """Run the block while a thread counts time; at the limit, send `say` a message and this process SIGTERM, which checkpoints."""
        done = threading.Event()
        thread = threading.Thread(target=self._go, args=(done, say), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(TICK_SECONDS)

    def _go(self, done: threading.Event, say: Callable[[str], None]) -> None:
        while True:
            with suppress(
                ResultsError
            ):  # on a full disk the training thread raises the error; this one only ticks late
                self.tick(after_seconds=TICK_SECONDS / 2)  # of many workers, few write
                if self.is_up():
                    say(f"study.timeout_minutes ({self._limit_seconds / 60:g}) is up; running trials are checkpointed")
                    os.kill(os.getpid(), signal.SIGTERM)
                    return
            if done.wait(TICK_SECONDS):
                return

    def _read(self) -> tuple[float, float]:
        seconds, last = self._storage.patiently(lambda: self._study.user_attrs).get(attributes.CLOCK, (0.0, 0.0))
        return float(seconds), float(last)
