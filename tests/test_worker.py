"""A worker's own doing: what it opens and hands on."""

import gc
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from test_tracking import config_of, inspected

from kdsweep import machine, worker_loop
from kdsweep.assets import cache_root
from kdsweep.config import FIELD_TYPES, read_trial_config
from kdsweep.errors import KDSweepError
from kdsweep.imports import for_good
from kdsweep.records import start_sweep, teacher_folder
from kdsweep.stopping import StopRequest
from kdsweep.sweep_file import load_sweep
from kdsweep.worker_loop import Worker


def test_what_is_imported_for_good_is_never_looked_at_by_the_collector() -> None:
    made: list[list[object]] = []
    with for_good():
        assert not gc.isenabled()
        made.append([made])
    assert gc.isenabled() and not any(each is made[0] for each in gc.get_objects())
    with pytest.raises(ImportError), for_good():
        import kdsweep.missing  # type: ignore[import-not-found] # noqa: F401
    assert gc.isenabled()


def test_the_workers_of_a_sweep_take_the_precision_that_the_first_of_them_measured(
    tiny_sweep_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = load_sweep(tiny_sweep_file(fixed={"precision": "auto"}))
    folder = start_sweep(tmp_path / "results" / "tiny", sweep)
    for measured in ("bf16", "fp32"):
        monkeypatch.setattr(machine, "best_precision", lambda _: measured)  # noqa: B023
        worker = Worker(sweep, folder, measured, lambda event, **fields: None, StopRequest())
        assert {corner.precision for corner in worker._corners()} == {"bf16"}


def test_the_teachers_threads_are_those_of_the_worker_that_began_the_sweep(
    tiny_sweep_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = load_sweep(tiny_sweep_file(fixed={"teacher_threads": "auto", "threads": "auto"}))
    folder = start_sweep(tmp_path / "results" / "tiny", sweep)
    for cores in (6, 2):
        monkeypatch.setattr(worker_loop, "available_cores", lambda: cores)  # noqa: B023
        worker = Worker(sweep, folder, str(cores), lambda event, **fields: None, StopRequest())
        assert {corner.teacher_threads for corner in worker._corners()} == {6}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 500}, "batch_size <= training rows must hold, but got 500 and 72 rows"),
        ({"max_length": 128}, "max_length <= 64 .* must hold, but got 128, and a row of 7"),
    ],
)
def test_what_a_sweep_refuses_is_refused_before_its_teacher_is_fine_tuned(
    changes: dict[str, int],
    message: str,
    tiny_sweep_file: Callable[..., Path],
    tiny_body: Path,
    write_rows: Callable[..., Path],
    tiny_rows: list[tuple[str, str]],
    tmp_path: Path,
) -> None:
    train = write_rows("train.csv", tiny_rows)
    test = write_rows("test.csv", [("film " * 68, "positive"), ("dull " * 3, "negative")])
    fixed = {
        "teacher": str(tiny_body),
        "teacher_epochs": 1,
        "train_file": str(train),
        "test_file": str(test),
        **changes,
    }
    sweep = load_sweep(tiny_sweep_file(fixed=fixed, finalists={"top": 1}))
    folder = start_sweep(tmp_path / "results" / "tiny", sweep)
    with pytest.raises(KDSweepError, match=message):
        Worker(sweep, folder, "me", lambda event, **fields: None, StopRequest()).prepare()
    assert not (cache_root() / "teachers").exists() and not teacher_folder(folder).exists()


def test_a_worker_says_what_it_goes_on_with_all_the_same(
    tiny_sweep_file: Callable[..., Path], tiny_body: Path, tmp_path: Path
) -> None:
    told: list[str] = []

    def send(event: str, **fields: Any) -> None:
        told.extend([fields["text"]] if event == "note" else [])

    path = tiny_sweep_file(fixed={"teacher": str(tiny_body)}, study={"accept_weak_teacher": True})
    sweep, refusing = load_sweep(path), load_sweep(path, ["study.accept_weak_teacher=false"])
    assert sweep.identity() == refusing.identity()
    folder = start_sweep(tmp_path / "results" / "tiny", sweep)
    with pytest.raises(KDSweepError, match="it has nothing to teach"):
        Worker(refusing, folder, "me", send, StopRequest()).prepare()
    Worker(sweep, folder, "me", send, StopRequest()).prepare()
    assert len(told) == 1 and "this teacher is taken: the teacher must close 4%" in told[0]


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [6, 0])
def test_the_teachers_run_has_the_config_that_stands_in_its_folder(
    epochs: int, tiny_sweep_file: Callable[..., Path], tiny_body: Path, tiny_classifier: Path, tmp_path: Path
) -> None:
    fixed = {"teacher": str(tiny_body if epochs else tiny_classifier), "teacher_epochs": epochs}
    fixed |= {"teacher_learning_rate": 3e-3, "teacher_batch_size": 8}
    sweep = load_sweep(tiny_sweep_file(fixed=fixed, tracking={"mode": "offline"}))
    folder = start_sweep(tmp_path / "results" / "tiny", sweep)
    Worker(sweep, folder, "me", lambda event, **fields: None, StopRequest()).prepare()
    written = read_trial_config(teacher_folder(folder) / "config.yaml")
    (path,) = (folder / "wandb").glob("offline-run-*-tiny-teacher/*.wandb")
    tracked = config_of(inspected(path))
    assert {name: tracked[name] for name in FIELD_TYPES} == json.loads(json.dumps(asdict(written)))
    if epochs:
        assert (written.alpha, written.epochs, written.learning_rate, written.batch_size) == (0.0, 6, 3e-3, 8)
