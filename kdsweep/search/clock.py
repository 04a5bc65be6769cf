"""How long a sweep has been worked on: one clock in its study, for all runs and hosts. It goes while any worker lives."""

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
"""A longer silence between two ticks is a pause, and not counted."""


class Clock:
    """Seconds that any worker of the sweep lived, those of several side by side counted once; `minutes`: the limit."""

    def __init__(self, study: Study, storage: Storage, minutes: float | None) -> None:
        self._study, self._storage = study, storage
        self._limit_seconds = float("inf") if minutes is None else 60 * minutes

    def seconds(self) -> float:
        """Up to the last tick."""
        return self._read()[0]

    def is_up(self) -> bool:
        """Whether the limit is reached."""
        return self._limit_seconds < float("inf") and self.seconds() >= self._limit_seconds

    def tick(self) -> None:
        """Count the time since the last tick of anybody."""
        seconds, last = self._read()
        now = time.time()
        passed = now - last
        counted = passed if 0 < passed < GAP_SECONDS else 0.0
        entry = [seconds + counted, max(now, last)]
        self._storage.patiently(lambda: self._study.set_user_attr(attributes.CLOCK, entry))

    @contextmanager
    def going(self, say: Callable[[str], None]) -> Iterator[None]:
        """Inside the block, time is counted; when it is up, `say` hears of it and this process gets SIGTERM, which checkpoints."""
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
            ):  # a full disk stops the thread that trains, with its message; here only a tick is late
                self.tick()
                if self.is_up():
                    say(f"study.timeout_minutes ({self._limit_seconds / 60:g}) is up; running trials are checkpointed")
                    os.kill(os.getpid(), signal.SIGTERM)
                    return
            if done.wait(TICK_SECONDS):
                return

    def _read(self) -> tuple[float, float]:
        seconds, last = self._storage.patiently(lambda: self._study.user_attrs).get(attributes.CLOCK, (0.0, 0.0))
        return float(seconds), float(last)
