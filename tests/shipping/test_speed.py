"""Models timed in turns: nobody's passes stand together, and a busy machine is told."""

from collections.abc import Callable

import numpy as np
import pytest

from kdsweep.shipping import speed
from kdsweep.shipping.speed import BATCH_ROWS, PASSES, ROUNDS, busy_note, middle_rows, timed


def test_every_round_runs_every_model(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    clock = [0.0]
    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(speed.time, "process_time", lambda: 0.75 * clock[0])

    def passes(name: str, one_ms: float, many_ms: float) -> tuple[Callable[[], object], Callable[[], object]]:
        def run(what: str, milliseconds: float) -> None:
            seen.append(f"{name}, {what}")
            clock[0] += milliseconds / 1000

        return lambda: run("one", one_ms), lambda: run("many", many_ms)

    rounds: list[tuple[int, int]] = []
    models = {"teacher": passes("teacher", 20, 500), "int8": passes("int8", 2, 40)}
    found = timed(models, threads=1, batch_rows=8, on_round=lambda *done: rounds.append(done))
    one_round = ["teacher, one"] * (PASSES + 1) + ["int8, one"] * (PASSES + 1)
    one_round += ["teacher, many"] * 2 + ["int8, many"] * 2
    assert seen == one_round * ROUNDS and rounds == [(done, ROUNDS) for done in range(1, ROUNDS + 1)]
    teacher, int8 = found.speeds["teacher"], found.speeds["int8"]
    assert (teacher.latency_ms_p50, int8.latency_ms_p50) == (pytest.approx(20), pytest.approx(2))
    assert (teacher.latency_ms_p95, int8.rows_per_second) == (pytest.approx(20), pytest.approx(200))
    assert found.taken == pytest.approx(0.25) and teacher.threads == 1


def test_a_machine_that_others_use_is_told() -> None:
    assert busy_note(0.1) is None
    said = busy_note(0.25)
    assert said is not None and said.startswith("Other processes took 25% of the core")


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 200])
def test_the_rows_that_are_timed_are_of_median_length(rows: int) -> None:
    lengths = np.random.default_rng(rows).permutation(rows) + 3
    one, many = middle_rows(lengths)
    assert lengths[one] == 3 + rows // 2 and len(many) == min(rows, BATCH_ROWS) and one in many
    assert lengths[many].max() - lengths[many].min() == len(many) - 1, "neighbours by length"
