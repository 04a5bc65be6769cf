"""A lock is its holder's until the block ends, however it ends; one that comes second waits."""

import threading
from pathlib import Path

import pytest

from kdsweep.errors import ResultsError
from kdsweep.system.files import Lock, locked


def test_a_lock_is_given_back_when_its_block_ends_however_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "study.lock"
    with locked(path):
        assert Lock(path).is_held() and not Lock(path).take()
    assert not Lock(path).is_held()
    with pytest.raises(KeyError), locked(path):
        raise KeyError
    assert not Lock(path).is_held()


def test_whoever_comes_second_waits(tmp_path: Path) -> None:
    path, order = tmp_path / "study.lock", list[str]()

    def second() -> None:
        with locked(path):
            order.append("second")

    waiting = threading.Thread(target=second)
    with locked(path):
        waiting.start()
        waiting.join(0.1)
        order.append("first")
    waiting.join(10)
    assert order == ["first", "second"]


def test_a_lock_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("a file")
    with pytest.raises(ResultsError, match=r"study\.lock must be writable"), locked(tmp_path / "locks" / "study.lock"):
        pass
