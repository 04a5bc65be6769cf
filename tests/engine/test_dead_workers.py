"""One supervisor at a time works on a results folder, and waits for the workers of one that was killed."""

import os
from pathlib import Path

import pytest

from kdsweep.engine import dead_workers
from kdsweep.engine.dead_workers import alone_in, is_dead_here, living_workers
from kdsweep.errors import ResultsError
from kdsweep.records.layout import locks_folder, worker_lock
from kdsweep.system.files import Lock
from kdsweep.system.process import new_owner


def test_a_second_supervisor_is_refused_by_the_number_of_the_first_until_that_one_ends(tmp_path: Path) -> None:
    with alone_in(tmp_path):
        with (
            pytest.raises(ResultsError, match=f"one run at a time, but process {os.getpid()} works on it"),
            alone_in(tmp_path),
        ):
            pass
        assert Lock(locks_folder(tmp_path) / "supervisor.lock").is_held()
    with pytest.raises(KeyError), alone_in(tmp_path):
        raise KeyError
    assert not Lock(locks_folder(tmp_path) / "supervisor.lock").is_held()


def test_workers_of_a_killed_supervisor_are_waited_for_and_their_locks_cleared_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_workers, "STOP_SECONDS", 0)
    owner = new_owner()
    lives = Lock(worker_lock(tmp_path, owner))
    assert lives.take() and living_workers(tmp_path) == [owner] and not is_dead_here(tmp_path, owner)
    with pytest.raises(ResultsError, match=f"must have ended, but still live: {owner}"), alone_in(tmp_path):
        pass
    assert not Lock(locks_folder(tmp_path) / "supervisor.lock").is_held()
    lives.give_back()
    assert is_dead_here(tmp_path, owner)
    with alone_in(tmp_path):
        assert not worker_lock(tmp_path, owner).exists()
