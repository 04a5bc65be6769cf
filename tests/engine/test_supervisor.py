"""What the supervisor does between two events."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from searches import sweep_of

from kdsweep.engine.supervisor import Supervisor
from kdsweep.engine.worker_process import WorkerProcess
from kdsweep.search.assignment import Settled


class Search:
    """The studies as the supervisor looks at them: whether a trial is left to take."""

    def __init__(self) -> None:
        self.open, self.looks_for_nameless = True, 0

    def settle_nameless(self) -> list[Settled]:
        self.looks_for_nameless += 1
        return []

    def is_open(self) -> bool:
        return self.open

    def search_is_over(self) -> bool:
        return False

    def target_reached(self) -> bool:
        return False

    def is_complete(self) -> bool:
        return False


@pytest.mark.parametrize(("wanted", "busy"), [(2, 1), (1, 1)])
def test_it_says_once_that_cores_are_idle_while_the_last_trials_run(tmp_path: Path, wanted: int, busy: int) -> None:
    idle: list[bool] = []
    search: Any = Search()
    nothing: Any = None
    supervisor = Supervisor(
        *(sweep_of(), tmp_path, search, nothing), workers=wanted, starter=nothing, on_idle=lambda: idle.append(True)
    )
    supervisor._prepared = True
    running = {f"w{place}": WorkerProcess(place=place, owner=f"w{place}", process=nothing) for place in range(wanted)}
    supervisor._workers.update(running)
    supervisor._look()
    assert not idle, "a trial is left to take"
    search.open = False
    if busy < wanted:
        supervisor._look()
        assert not idle, "no worker has ended"
        del supervisor._workers["w0"]
    for _ in range(2):
        supervisor._look()
    assert idle == [True]


def test_after_a_death_it_looks_for_a_trial_that_its_worker_took_without_storing_its_name(tmp_path: Path) -> None:
    search: Any = Search()
    search.open = False
    nothing: Any = None
    supervisor = Supervisor(*(sweep_of(), tmp_path, search, nothing), workers=1, starter=nothing)
    for died in (False, True):
        supervisor._has_lost_a_worker = died
        supervisor._look()
    assert search.looks_for_nameless == 1


def test_a_worker_that_a_signal_found_half_started_ends_with_the_others(tmp_path: Path) -> None:
    ended: list[str] = []

    class Process:
        def terminate(self) -> None:
            ended.append("worker")

    class Starter:
        def start(self, place: int, arguments: list[str]) -> WorkerProcess:
            supervisor._signals.append(signal.SIGINT)
            supervisor._stop()
            reading, writing = os.pipe()
            os.close(writing)
            process: Any = Process()
            return WorkerProcess(place=place, owner="w0", process=process, events=reading)

    nothing: Any = None
    starter: Any = Starter()
    supervisor = Supervisor(*(sweep_of(), tmp_path, nothing, nothing), workers=1, starter=starter)
    supervisor._prepared = True
    supervisor._start(0)
    assert ended == ["worker"]
