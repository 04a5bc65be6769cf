"""Workers share the teachers of folds: the first asks, others help, a killed one's fold is taken over."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import processes, started, wait_for

from kdsweep.config.sweep_file import load_sweep
from kdsweep.config.trial import TrialConfig
from kdsweep.engine.events import Event, FoldsBegun, Phase, Prepared, TeacherEpoch, TeacherStep
from kdsweep.engine.preparation import Preparation
from kdsweep.engine.supervisor import Supervisor
from kdsweep.engine.teacher_folds import help_with_folds
from kdsweep.engine.trial_configs import TrialConfigs
from kdsweep.engine.worker_loop import Worker
from kdsweep.engine.worker_process import WorkerProcess
from kdsweep.records.layout import locks_folder, teacher_folder
from kdsweep.records.reading import read_teacher, read_teacher_epochs
from kdsweep.records.writing import start_sweep
from kdsweep.search.studies import Studies
from kdsweep.system.files import Lock
from kdsweep.system.process import StopRequest
from kdsweep.system.wheels import cache_root
from kdsweep.training.teacher import UNWATCHED

WriteSweep = Callable[..., Path]
FOLDED = {"teacher_epochs": 2, "teacher_folds": 2, "teacher_learning_rate": 3e-3, "teacher_batch_size": 16}


def prepared(path: Path, folder: Path, **options: Any) -> list[Event]:
    """The events of a worker's preparation."""
    events: list[Event] = []
    sweep = load_sweep(path)
    Worker(sweep, start_sweep(folder, sweep), "me", events.append, StopRequest(), **options).prepare()
    return events


@pytest.mark.slow
def test_the_first_worker_asks_for_help_once_and_only_while_it_fine_tunes(
    tiny_sweep_file: WriteSweep, tiny_body: Path, tmp_path: Path
) -> None:
    fixed = FOLDED | {"teacher": str(tiny_body), "teacher_keep": "lowest_loss"}
    path = tiny_sweep_file(fixed=fixed, study={"accept_weak_teacher": True})
    events = prepared(path, tmp_path / "results" / "tiny")
    assert [event for event in events if isinstance(event, FoldsBegun)] == [FoldsBegun(folds=2)]
    steps = [event for event in events if isinstance(event, TeacherStep)]
    assert {event.fold for event in steps} == {"fold 1 of 2", "fold 2 of 2"}
    assert {(event.step, event.steps) for event in steps if event.step == event.steps} == {(6, 6)}  # 36 rows, 16 a step
    told = [(event.fold, event.epoch) for event in events if isinstance(event, TeacherEpoch)]
    assert told == [(f"fold {fold} of 2", epoch) for fold in (1, 2) for epoch in (1, 2)]
    (ready,) = [event for event in events if isinstance(event, Prepared)]
    recorded = read_teacher(teacher_folder(tmp_path / "results" / "tiny"))
    assert recorded == ready.teacher and recorded.folds == 2 and len(recorded.kept_epochs) == 2
    measured = [recorded.val_ece, recorded.train_loss, recorded.out_of_fold_loss]
    assert None not in measured and {"train_ece", "out_of_fold_accuracy"} < recorded.summary().keys()
    assert [epoch.epoch for epoch in read_teacher_epochs(teacher_folder(tmp_path / "results" / "tiny"))] == [1, 2]
    again = prepared(path, tmp_path / "results" / "again")
    assert not [event for event in again if isinstance(event, FoldsBegun | TeacherStep)]


def test_the_supervisor_starts_a_helper_for_each_free_place_and_fold(tmp_path: Path) -> None:
    class Starts(Supervisor):
        def _start(self, place: int, *, folds_alone: bool = False) -> None:
            started.append((place, folds_alone))

    class Silent:
        def show(self, event: Event, worker: int) -> None: ...

    silent: Any = Silent()
    nothing: Any = None
    for workers, folds, expected in ((4, 3, [1, 2]), (2, 5, [1]), (1, 5, [])):
        started: list[tuple[int, bool]] = []
        supervisor = Starts(nothing, tmp_path, nothing, silent, workers=workers, starter=nothing)
        supervisor._take_in(WorkerProcess(place=0, owner="me", process=nothing), FoldsBegun(folds=folds))
        assert started == [(place, True) for place in expected]


def test_a_helper_looks_for_free_folds_once_for_all_configs_of_a_teacher(
    tiny_sweep_file: WriteSweep, tiny_body: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helped: list[int] = []
    monkeypatch.setattr(
        "kdsweep.training.shared.help_with_folds", lambda config, *_: helped.append(config.teacher_folds)
    )
    sweep = load_sweep(tiny_sweep_file(fixed=FOLDED | {"teacher": str(tiny_body)}))
    folder = start_sweep(tmp_path / "results" / sweep.name, sweep)
    studies = Studies(sweep, folder, "me", lambda _: None)
    assert len(TrialConfigs(sweep, folder, studies.agreements).corners()) > 1
    help_with_folds(sweep, folder, "me", lambda _: None, StopRequest())
    assert helped == [2]


def test_a_worker_that_waits_for_the_teacher_says_so_and_takes_free_folds_and_for_a_recorded_one_it_does_not_wait(
    tiny_sweep_file: WriteSweep, tiny_body: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    sweep, known = load_sweep(tiny_sweep_file(fixed=FOLDED | {"teacher": str(tiny_body)})), object()
    folder = start_sweep(tmp_path / "results" / sweep.name, sweep)
    worker = Worker(sweep, folder, "me", events.append, StopRequest())
    preparation = Preparation(
        *(sweep, folder, worker._studies.agreements, worker._materials),
        *(worker._messages, worker._tracked, worker._limits),
        sweep_key="",
        checkpointing=worker._checkpointing,
        is_first=True,
    )
    config, other = worker._configs.corners()[0], Lock(locks_folder(folder) / "teacher.lock")
    helped: list[int] = []

    def help_(config: TrialConfig, *_: object) -> None:
        helped.append(config.teacher_folds)
        other.give_back()

    monkeypatch.setattr("kdsweep.training.shared.help_with_folds", help_)
    assert other.take()
    with preparation._recording(config, UNWATCHED):
        assert helped == [2] and not other.take()
    assert events == [Phase("waiting for the teacher, which another worker prepares")]
    assert other.take()
    monkeypatch.setattr("kdsweep.engine.preparation.recorded_teacher", lambda *_: known)
    assert preparation._teacher(config) is known


def test_helpers_that_end_in_order_do_not_hide_a_first_worker_that_dies_each_time(tmp_path: Path) -> None:
    class Ended:
        def __init__(self, code: int) -> None:
            self._code = code

        def wait(self) -> int:
            return self._code

    class Silent:
        def show(self, event: Event, worker: int = 0) -> None: ...
        def forget(self, place: int) -> None: ...
        def settle(self, mine: Any, *, blame: bool) -> list[Any]:
            return []

    silent: Any = Silent()
    supervisor = Supervisor(
        load_sweep(Path("sweeps/T_alpha.yaml")), tmp_path, silent, silent, workers=2, starter=silent
    )
    found = []
    for _ in range(3):
        for place, code in ((0, -9), (1, 0)):
            ended: Any = Ended(code)
            found.append(
                supervisor._ended(WorkerProcess(place=place, owner="me", process=ended, folds_alone=place == 1))
            )
    assert [type(each).__name__ for each in found] == ["NoneType"] * 4 + ["ResultsError", "NoneType"]


@pytest.mark.slow
def test_with_folds_a_teacher_gets_a_workers_share_of_the_cores(
    tiny_sweep_file: WriteSweep, tiny_body: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("kdsweep.engine.trial_configs.available_cores", lambda: 7)
    for folds, threads in ((1, 7), (2, 1)):
        fixed = FOLDED | {"teacher": str(tiny_body), "teacher_folds": folds}
        auto = {"teacher_threads": "auto", "threads": "auto"}
        sweep = load_sweep(tiny_sweep_file(f"folds{folds}", fixed=fixed | auto))
        folder = start_sweep(tmp_path / "results" / sweep.name, sweep)
        studies = Studies(sweep, folder, "me", lambda _: None)
        assert TrialConfigs(sweep, folder, studies.agreements).corners()[0].teacher_threads == threads


@pytest.mark.slow
def test_two_workers_share_the_folds_and_a_killed_one_is_taken_over(
    tiny_sweep_file: WriteSweep, tiny_body: Path, tmp_path: Path
) -> None:
    fixed = FOLDED | {"teacher": str(tiny_body), "teacher_epochs": 40, "teacher_batch_size": 2}
    path = tiny_sweep_file(fixed=fixed, study={"checkpoint_seconds": 0.5, "trials": 1, "controls": 0})
    checkpoints = cache_root() / "checkpoints"

    def workers(*, folds_alone: bool) -> list[int]:
        lines = processes(tmp_path / "results").items()
        return [pid for pid, line in lines if "kdsweep.worker" in line and ("--folds-alone" in line) is folds_alone]

    with started("run", path, "--workers", "2") as process:
        wait_for(lambda: list(checkpoints.glob("*/*.pt")))
        (first,) = workers(folds_alone=False)
        os.kill(first, signal.SIGSTOP)  # its fold lasts until the helper is in the other one
        wait_for(lambda: len(list(checkpoints.glob("*"))) == 2 and len(list(checkpoints.glob("*/*.pt"))) >= 3)
        (helper,) = workers(folds_alone=True)
        os.kill(helper, signal.SIGKILL)
        os.kill(first, signal.SIGCONT)
        said, _ = process.communicate()
    assert process.returncode == 0 and "a worker died (SIGKILL); no trial was running" in said
    assert said.count("epoch 40: val_accuracy") == 2  # each fold to its end once
    assert len(list((cache_root() / "teachers").iterdir())) == 2
