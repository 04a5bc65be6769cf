"""Tell how far the rows are in what takes long: read, tokenised, taught."""

import time
from collections.abc import Callable

Progress = Callable[[str, int, int | None, str], None]
"""Gets what is made, of how many it is made so far, how many there are (None: not known yet), and what these are called."""
NO_PROGRESS: Progress = lambda what, done, rows, unit: None
NOBODY: Callable[[int], None] = lambda done: None
"""Is told how many rows are done, and does nothing."""
TOLD_SECONDS = 1.0
"""Least time between two reports; what is over sooner is not reported."""


def told(progress: Progress, what: str, rows: int | None, unit: str = "rows") -> Callable[[int], None]:
    """Return a function that takes the number of `rows` done so far and reports it, at most every `TOLD_SECONDS`; of what was reported
    before, the end too."""
    last, is_told = time.monotonic(), False

    def on_rows(done: int) -> None:
        nonlocal last, is_told
        now = time.monotonic()
        if now - last >= TOLD_SECONDS or (is_told and done == rows):
            last, is_told = now, True
            progress(what, done, rows, unit)

    return on_rows
