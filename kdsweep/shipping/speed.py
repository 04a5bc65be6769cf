"""Time several models in turns, so that whatever else the machine does slows all of them alike and ratios hold."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from kdsweep.records.export_schema import FormSpeed

Pass = Callable[[], object]
"""Runs a model once on rows that are ready for it, logits on the host included."""

ROUNDS = 8
PASSES = 8
"""In each of the rounds every model runs once without being timed, then `PASSES` times on one row, and once on a batch."""
BATCH_ROWS = 32
BUSY = 0.1
"""Share of a core that others may take from passes on one thread before it is said: more slows long passes more than short ones."""


class Timed(NamedTuple):
    """Holds each model's speed, and the share of the core, in [0, 1], that other processes took from passes of one row; on several threads,
    where it cannot be told, 0."""

    speeds: dict[str, FormSpeed]
    taken: float


def timed(
    models: Mapping[str, tuple[Pass, Pass]], *, threads: int, batch_rows: int, on_round: Callable[[int, int], None]
) -> Timed:
    """Time each model by its two passes, of one row and of a batch of `batch_rows`, which run on `threads` threads.

    `on_round` gets the rounds done, and how many there are.
    """
    single: dict[str, list[float]] = {name: [] for name in models}
    batch: dict[str, list[float]] = {name: [] for name in models}
    on_core = 0.0
    for number in range(ROUNDS):
        for name, (one_row, _) in models.items():
            one_row()
            started = time.process_time()
            single[name] += [_seconds(one_row) for _ in range(PASSES)]
            on_core += time.process_time() - started
        for name, (_, many_rows) in models.items():
            many_rows()
            batch[name].append(_seconds(many_rows))
        on_round(number + 1, ROUNDS)
    found = {name: _speed(single[name], batch[name], threads, batch_rows) for name in models}
    taken = 1 - on_core / sum(map(sum, single.values())) if threads == 1 else 0.0
    return Timed(found, max(0.0, taken))


def busy_note(taken: float) -> str | None:
    """Return, as a sentence, that other processes took the share `taken` of the core; None where it is small."""
    if taken <= BUSY:
        return None
    return (
        f"Other processes took {taken:.0%} of the core while speeds were measured, which slows long passes more than short ones: "
        "measure again on an idle machine"
    )


def _speed(single: list[float], batch: list[float], threads: int, batch_rows: int) -> FormSpeed:
    middle, slow = (float(value) for value in np.percentile(single, [50, 95]))
    return FormSpeed(
        threads=threads,
        latency_ms_p50=1000 * middle,
        latency_ms_p95=1000 * slow,
        rows_per_second=batch_rows / float(np.median(batch)),
    )


def _seconds(run: Pass) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def middle_rows(lengths: np.ndarray) -> tuple[int, np.ndarray]:
    """Return the number of the row of median length, and those of the `BATCH_ROWS` rows around it in order of length, or of all rows."""
    order = np.argsort(lengths, kind="stable")
    middle = len(order) // 2
    first = max(0, min(middle - BATCH_ROWS // 2, len(order) - BATCH_ROWS))
    return int(order[middle]), order[first : first + BATCH_ROWS]
