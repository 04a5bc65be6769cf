"""A teacher that is worse than students fine-tuned without it is called so: once as it happens, then first of all."""

import io
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from makers import ROWS, make_epoch, make_predictions, make_sweep, make_teacher, make_trial, page_of, teacher_of
from rich.console import Console

from kdsweep.analysis.metrics import accuracy
from kdsweep.analysis.two_students import compare_predictions
from kdsweep.analysis.weak_teacher import read_weak_teacher, swap_test
from kdsweep.config.sweep import StudyConfig, SweepConfig
from kdsweep.engine.display import SweepDisplay
from kdsweep.engine.events import Epoch, Plan, Prepared, TrialEnded
from kdsweep.engine.supervisor import Supervisor
from kdsweep.engine.sweep import WeakTeacherWatch
from kdsweep.engine.worker_process import WorkerProcess
from kdsweep.records.layout import TrialId, teacher_folder
from kdsweep.records.writing import TrialFolder, write_sweep
from kdsweep.reporting.build import build_report
from kdsweep.reporting.markdown import render_markdown, terminal_text
from kdsweep.reporting.write import write_report
from kdsweep.run import main

POINT: dict[str, Any] = {"temperature": 4.0, "alpha": 0.75, "learning_rate": 2e-4, "batch_size": 32}


def right_on(share: float, *, seed: int = 0) -> np.ndarray:
    """Which of the rows are right, bool [ROWS]: a share of them, at random places."""
    return np.random.default_rng(seed).permutation(ROWS) < share * ROWS


def make(
    folder: Path, teacher: float, students: Sequence[float], *, predicted: bool = True, **fixed: Any
) -> SweepConfig:
    """A teacher and fine-tuned students, each right on a share of the rows."""
    sweep = make_sweep(folder, **{"teacher_learning_rate": 2e-4, **fixed})
    make_teacher(folder, val_accuracy=teacher)
    if predicted:
        TrialFolder(teacher_folder(folder)).write_predictions(right_on(teacher).astype(np.int64))
    for trial, share in enumerate(students):
        add_student(folder, sweep, trial, share, predicted=predicted)
    return sweep


def add_student(folder: Path, sweep: SweepConfig, trial: int, share: float, *, predicted: bool = True) -> None:
    make_trial(folder, sweep, "fine_tuned", trial, POINT, share)
    if predicted:
        make_predictions(folder, "fine_tuned", trial, right_on(share, seed=1 + trial))


@pytest.mark.slow
@pytest.mark.parametrize("predicted", [True, False], ids=["paired", "accuracies alone"])
def test_it_stands_first_on_page_in_markdown_and_terminal_with_what_to_do(tmp_path: Path, predicted: bool) -> None:
    folder = tmp_path / "s"
    sweep = make(folder, 0.46, [0.6, 0.82], predicted=predicted)
    make_trial(folder, sweep, "distilled", 0, POINT, 0.5)
    make_predictions(folder, "distilled", 0, right_on(0.5, seed=9))
    report = write_report(folder)
    first = (
        "The teacher is worse than students fine-tuned without it (46.0 % against 82.0 % on validation): train it longer "
        "(teacher_epochs, now 2) or at another rate (teacher_learning_rate, now 0.0002), in a new sweep (--fork NEW_NAME)."
    )
    plain = lambda text: text.replace("\N{NO-BREAK SPACE}", " ").replace("\n", " ")
    assert plain(report.headline).startswith(first + " ")
    assert plain(terminal_text(report)).startswith(first)
    assert plain(render_markdown(report).split("\n\n")[1]).startswith(f"**{first}")
    assert plain(page_of(folder).headings[0]).startswith(first)
    assert report.weak_teacher is not None and report.weak_teacher.trial == 1


def test_before_a_fine_tuned_student_is_complete_or_where_it_is_not_better_nothing_is_said(tmp_path: Path) -> None:
    make(tmp_path / "none", 0.46, [])
    make(tmp_path / "equal", 0.80, [0.5, 0.80])
    make(tmp_path / "chance", 0.80, [0.82], predicted=False)
    for name in ("none", "equal", "chance"):
        assert build_report(tmp_path / name).weak_teacher is None


@pytest.mark.parametrize("students", [1, 3])
def test_of_accuracies_alone_p_is_two_sided_and_times_the_students(tmp_path: Path, students: int) -> None:
    """Both accuracies' variances and, as every estimate of one from few rows needs it, one row more."""
    sweep = make(tmp_path / "s", 0.70, [0.83, 0.5, 0.5][:students], predicted=False)
    found = read_weak_teacher(tmp_path / "s", sweep)
    error = math.sqrt((0.7 * 0.3 + 0.83 * 0.17 + 1 / ROWS) / ROWS)
    assert found is not None
    assert found.p_value == pytest.approx(2 * students * (1 - NormalDist().cdf(0.13 / error)))


def test_two_sided_five_percent_is_the_line(tmp_path: Path) -> None:
    """Of 200 rows 158 are one-sidedly 2.0 % from 140, and 157 are 2.6 %."""
    found = [
        read_weak_teacher(tmp_path / str(right), make(tmp_path / str(right), 0.70, [right / ROWS], predicted=False))
        for right in (157, 158)
    ]
    assert found[0] is None and found[1] is not None and 0.035 < found[1].p_value < 0.05


def test_the_best_of_many_must_be_ahead_by_more_than_the_best_of_one(tmp_path: Path) -> None:
    sweep = make(tmp_path / "s", 0.70, [0.80])
    found = read_weak_teacher(tmp_path / "s", sweep)
    assert found is not None and 0.01 < found.p_value < 0.05
    for trial in range(1, 8):
        add_student(tmp_path / "s", sweep, trial, 0.5)
    assert read_weak_teacher(tmp_path / "s", sweep) is None


def test_a_teacher_that_comes_fine_tuned_is_to_be_replaced_or_fine_tuned_here(tmp_path: Path) -> None:
    sweep = make(tmp_path / "s", 0.46, [0.82], teacher_epochs=0, student_init="finetuned")
    found = read_weak_teacher(tmp_path / "s", sweep)
    assert (
        found is not None and "name a better one, or fine-tune it on these rows (teacher_epochs, now 0)" in found.text()
    )


def test_it_is_judged_by_the_metric_of_the_study(tmp_path: Path) -> None:
    """By accuracy the teacher, which names one class always, is ahead."""
    folder = tmp_path / "s"
    sweep = replace(make_sweep(folder), study=StudyConfig(trials=12, metric="val_macro_f1"))
    write_sweep(folder, sweep)
    labels = (np.arange(ROWS) % 10 == 0).astype(np.int64)
    make_teacher(folder, val_accuracy=0.9)
    there = TrialFolder(teacher_folder(folder))
    there.write_labels(labels)
    there.write_predictions(np.zeros(ROWS, np.int64))
    student = np.where(np.arange(ROWS) % 7 == 1, 1 - labels, labels)
    make_trial(folder, sweep, "fine_tuned", 0, POINT, float((student == labels).mean()), val_macro_f1=0.7)
    make_predictions(folder, "fine_tuned", 0, student)
    found = read_weak_teacher(folder, sweep)
    assert found is not None and found.text().count("val_macro_f1") == 2 and found.teacher < 0.5 < found.student
    by_accuracy = replace(sweep, study=StudyConfig(trials=12))
    write_sweep(folder, by_accuracy)
    assert read_weak_teacher(folder, by_accuracy) is None


@pytest.mark.parametrize(("gains", "losses"), [(8, 2), (12, 4), (25, 20), (3, 9)])
def test_swapping_gives_mcnemars_p_value_for_accuracies(gains: int, losses: int) -> None:
    labels = np.ones(100, np.int64)
    one, other = labels.copy(), labels.copy()
    other[:gains], one[gains : gains + losses] = 0, 0
    exact = compare_predictions(one, other, labels).p_value
    found = swap_test(one, other, labels, accuracy, swaps=4000)
    assert found == 1 if gains < losses else 2 * found == pytest.approx(exact, abs=0.02)


def test_it_is_said_once_as_soon_as_a_fine_tuned_student_passes(tmp_path: Path) -> None:
    sweep = make(tmp_path / "s", 0.46, [0.40])
    watch = WeakTeacherWatch(sweep, tmp_path / "s")
    assert watch.look() is None and watch.look(0.40) is None
    add_student(tmp_path / "s", sweep, 1, 0.82)
    said = watch.look(0.82)
    assert said is not None and said.startswith("The teacher is worse than students") and said.endswith(".")
    add_student(tmp_path / "s", sweep, 2, 0.84)
    assert watch.look(0.84) is None
    later = WeakTeacherWatch(sweep, tmp_path / "s")
    assert later.look() is not None and later.look(0.84) is None  # the next run's plan has it


def test_the_supervisor_tells_of_every_complete_fine_tuned_trial_and_of_nothing_else(tmp_path: Path) -> None:
    sweep, heard = make(tmp_path / "s", 0.46, []), list[float]()
    display = cast(Any, SimpleNamespace(show=lambda event, worker: None))
    options: dict[str, Any] = {"workers": 1, "starter": None, "on_control": heard.append}
    supervisor = Supervisor(sweep, tmp_path / "s", cast(Any, None), display, **options)
    worker = WorkerProcess(place=0, owner="w", process=cast(Any, None))
    done = TrialEnded(id=TrialId("fine_tuned", 0), status="complete", error=None, score=0.5, violates=(), seconds=1.0)
    others = [TrialId("distilled", 0), TrialId("fine_tuned", 0, 1)]
    pruned, epoch = replace(done, status="pruned"), Epoch(metrics=make_epoch(0, 0.9))
    for event in (done, *(replace(done, id=trial) for trial in others), pruned, epoch):
        supervisor._take_in(worker, event)
    assert heard == [0.5]


def test_the_plan_of_the_next_run_starts_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep, out = make(tmp_path / "s", 0.46, [0.82]), io.StringIO()
    warning = WeakTeacherWatch(sweep, tmp_path / "s").look()
    display = SweepDisplay(Console(file=out, width=100), sweep, dict.fromkeys(sweep.stages, 0), warning=warning)
    plan = Plan(
        max_length="64",
        device="cpu",
        precision="fp32",
        threads=1,
        tracking="off",
        tracking_why="",
    )
    display.show(Prepared(teacher=teacher_of(val_accuracy=0.46), plan=plan))
    assert out.getvalue().startswith("The teacher is worse than students fine-tuned without it")
    monkeypatch.setenv("KDSWEEP_RESULTS", str(tmp_path))
    file = str(tmp_path / "s" / "sweep.yaml")
    assert main([file, "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("The teacher is worse than students")
    assert main([file, "fixed.teacher_epochs=4", "--dry-run"]) == 0  # what it says to do: another sweep
    assert "The teacher is worse" not in capsys.readouterr().out
