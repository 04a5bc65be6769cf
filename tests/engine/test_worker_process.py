"""Workers started ahead: they get their arguments later, and end where they are not needed."""

import signal
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from searches import sweep_of

from kdsweep.engine.supervisor import Supervisor
from kdsweep.engine.worker_process import WorkerStarter
from kdsweep.worker import with_more


@pytest.fixture
def starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkerStarter:
    """Starts a program in the place of Python that tells the log its device, its arguments, and the line that it then reads."""
    program = tmp_path / "python"
    program.write_text(
        '#!/bin/sh\necho "$CUDA_VISIBLE_DEVICES: $*" >&2\nread line\necho "$line" >&2\n', encoding="utf-8"
    )
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))
    return WorkerStarter(tmp_path, workers=2, devices=["4", "5"])


def test_a_worker_started_ahead_gets_its_arguments_later(starter: WorkerStarter, tmp_path: Path) -> None:
    starter.start_ahead(1)
    starter.start_ahead(1)  # it is there already
    worker = starter.start(1, ["--tracking", "off"])
    worker.process.communicate(timeout=10)
    began, told = (tmp_path / "worker.log").read_text(encoding="utf-8").splitlines()
    assert began.startswith("5: -m kdsweep.worker") and f"--owner {worker.owner} --ahead" in began
    assert told == '["--tracking", "off"]'


def test_one_started_when_it_is_needed_has_its_arguments_at_once(starter: WorkerStarter, tmp_path: Path) -> None:
    worker = starter.start(0, ["--folds-alone"])
    worker.process.communicate(timeout=10)
    began, _ = (tmp_path / "worker.log").read_text(encoding="utf-8").splitlines()
    assert began.startswith("4: ") and began.endswith("--folds-alone") and "--ahead" not in began


def test_one_that_is_not_needed_ends_and_one_that_has_died_is_returned_as_it_is(starter: WorkerStarter) -> None:
    starter.start_ahead(0)
    starter.start_ahead(1)
    unused, dead = starter._ahead[0].process, starter._ahead[1].process
    dead.kill()
    dead.wait()
    assert starter.start(1, []).process is dead
    with suppress(BrokenPipeError):
        dead.communicate()
    starter.close()
    starter.close()
    assert unused.returncode == -signal.SIGKILL


def test_the_later_arguments_are_added_to_the_first() -> None:
    first = ["sweep.yaml", "--events", "7", "--owner", "me", "--ahead"]
    alone, more = with_more(first, "[]"), with_more(first, '["--tracking", "offline", "--folds-alone"]')
    assert (alone.owner, alone.events, alone.tracking, alone.folds_alone) == ("me", 7, None, False)
    assert (more.owner, more.events, more.tracking, more.folds_alone) == ("me", 7, "offline", True)


@pytest.mark.parametrize(
    ("workers", "trials", "cores", "ahead"), [(4, 20, 8, [1, 2, 3]), (4, 20, 2, [1]), (4, 2, 8, [1]), (1, 20, 8, [])]
)
def test_the_others_are_started_ahead_as_far_as_there_are_trials_and_cores(
    workers: int, trials: int, cores: int, ahead: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdsweep.engine.supervisor.available_cores", lambda: cores)
    started: list[int] = []
    studies: Any = SimpleNamespace(remaining=lambda arm: trials if arm == "distilled" else 0)
    starter: Any = SimpleNamespace(start_ahead=started.append)
    display: Any = None
    supervisor = Supervisor(sweep_of(), tmp_path, studies, display, workers=workers, starter=starter)
    supervisor._start_others_ahead()
    assert started == ahead
