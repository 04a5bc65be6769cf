"""Estimate the time left of what takes long, and choose when a log file gets a line about it."""

import math
import time

from kdsweep.analysis.formats import duration

LOG_SECONDS, LOG_SECONDS_AT_MOST, LOG_LINES = 30.0, 300.0, 10
"""A log file gets about `LOG_LINES` lines about a training or many rows, with at least 30 s and at most 300 s between two of them."""


class Pace:
    """Estimates the time left of what goes in steps, from those reported here: a resumed training begins at its checkpoint's step."""

    def __init__(self) -> None:
        self.seconds_left: float | None = None
        """None until two steps have shown the speed, and where nobody knows how many there are."""
        self.seconds_each: float | None = None
        """Seconds of a step; None until then, too."""
        self._first: tuple[float, int] | None = None
        self._step, self._steps = 0, math.inf
        self._told_at, self._told_step = time.monotonic(), 0

    def reach(self, step: int, steps: int | None) -> None:
        """Record that `step` of `steps` steps are done; None: nobody knows how many there are."""
        now = time.monotonic()
        self._step, self._steps = step, math.inf if steps is None else steps
        began, before = self._first = self._first or (now, step)
        self.seconds_each = (now - began) / (step - before) if before < step else None
        self.seconds_left = None if self.seconds_each is None or steps is None else self.seconds_each * (steps - step)

    def is_due(self) -> bool:
        """Return whether a log file gets a line now; if so, count the line as written."""
        now = time.monotonic()
        is_first, far = self._told_step == 0, LOG_LINES * (self._step - self._told_step) >= self._steps
        waited = now - self._told_at
        due = waited >= LOG_SECONDS and (is_first or far or waited >= LOG_SECONDS_AT_MOST) and self._step < self._steps
        if due:
            self._told_at, self._told_step = now, self._step
        return due

    def text(self) -> str:
        """Return the time left as text; empty where it is not known, or nothing is left."""
        return f"   about {duration(self.seconds_left)} to go" if self.seconds_left else ""

    def rate(self) -> str:
        """Return the steps a second as text; empty where they are not known."""
        if not self.seconds_each:
            return ""
        each_second = 1 / self.seconds_each
        return f"   {each_second:,.{0 if each_second >= 10 else 1}f} a second"
