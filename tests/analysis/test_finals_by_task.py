"""Finalists of several labels and of numbers a row: judged by the score of a row, with the task's other scores beside it."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from task_sweeps import NAMES, make_task_sweep

import kdsweep.analysis.weak_teacher
from kdsweep.analysis.by_class import by_class_json, read_by_class
from kdsweep.analysis.finalists import TEST_MEANS, finals_json
from kdsweep.analysis.leaderboard import column_names, leaderboard, leaderboard_csv, table
from kdsweep.analysis.read_finals import read_finals
from kdsweep.analysis.weak_teacher import weak_teacher
from kdsweep.config.tasks import METRICS, TaskName
from kdsweep.records import layout, reading
from kdsweep.records.reading import packed_trial, read_array
from kdsweep.records.schema import FinalTest
from kdsweep.records.whole_sweep import SweepRecords, read_records

TASKS: tuple[TaskName, ...] = ("multi_label", "regression")


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[TaskName, SweepRecords]:
    """A folder of each task in which distilling is better, that of labels with a pseudo-labeled arm, for tests that only read."""
    made = {}
    for task in TASKS:
        folder = tmp_path_factory.mktemp(task) / "s"
        third = {"unlabeled_file": "more.csv"} if task == "multi_label" else {}
        make_task_sweep(folder, task, gain=0.7, **third)
        made[task] = read_records(folder)
    return made


@pytest.mark.parametrize("task", TASKS)
def test_the_verdict_is_about_the_mean_score_of_a_row(task: TaskName, known: dict[TaskName, SweepRecords]) -> None:
    finals = read_finals(known[task])
    assert finals and finals.primary and (finals.task, finals.split) == (task, "test")
    mean = {
        arm: np.mean([_row_score(test) for row in finals.rows if row.arm == arm for test in row.tests])
        for arm in ("distilled", "fine_tuned")
    }
    assert finals.primary.score == {"multi_label": "example_f1", "regression": "minus_squared_error"}[task]
    assert finals.primary.difference == pytest.approx(mean["distilled"] - mean["fine_tuned"], abs=1e-6)
    assert finals.primary.baseline_score == pytest.approx(mean["fine_tuned"], abs=1e-6)
    assert (finals.primary.word == "better") == (
        task == "multi_label"
    )  # two finalists an arm tell little of squared errors
    assert finals.ratio is None or 0 < finals.ratio.value < 1
    written = json.loads(json.dumps(finals_json(finals)))
    assert (written["task"], written["score"]) == (task, finals.primary.score) == (task, written["primary"]["score"])
    assert all(value is not None for row in written["finalists"] for value in row["test"].values())
    assert tuple(written["finalists"][0]["test"]) == TEST_MEANS[task]


def _row_score(test: FinalTest) -> float:
    return test.example_f1 if test.example_f1 is not None else -test.loss


def test_squared_errors_have_no_bounds_and_pearsons_r_stands_beside_them(known: dict[TaskName, SweepRecords]) -> None:
    finals = read_finals(known["regression"])
    assert finals and finals.pearson and finals.primary and finals.primary.baseline_score < -1
    mean = {
        arm: np.mean([test.pearson for row in finals.rows if row.arm == arm for test in row.tests])
        for arm in ("distilled", "fine_tuned")
    }
    assert finals.pearson.value == pytest.approx(mean["distilled"] - mean["fine_tuned"], abs=1e-6)
    assert 0 < finals.pearson.low < finals.pearson.value < finals.pearson.high
    assert finals_json(finals)["pearson"]["counted"] == "bootstrap over rows"
    assert not [each for each in finals.secondary if each.comparison.score != "minus_squared_error"]


def test_subset_accuracy_is_a_secondary_comparison_corrected_with_those_of_arms(
    known: dict[TaskName, SweepRecords],
) -> None:
    finals = read_finals(known["multi_label"])
    assert finals and finals.pearson is None
    of_arms = [each for each in finals.secondary if " finalists against " in each.what]
    assert [each.comparison.score for each in of_arms] == ["example_f1", "example_f1", "subset_accuracy"]
    subset = of_arms[-1]
    assert subset.what == "distilled finalists against fine-tuned ones, by subset accuracy" and subset.arms is None
    accuracy = [
        np.mean([t.accuracy for r in finals.rows if r.arm == arm for t in r.tests])
        for arm in ("distilled", "fine_tuned")
    ]
    assert subset.comparison.difference == pytest.approx(accuracy[0] - accuracy[1])
    assert subset.adjusted_p >= subset.comparison.p_value


@pytest.mark.parametrize("task", TASKS)
def test_the_leaderboard_has_the_tasks_metrics_and_no_other(
    task: TaskName, known: dict[TaskName, SweepRecords]
) -> None:
    rows = leaderboard(known[task])
    searched = list(known[task].sweep.search)
    names = column_names(searched, rows)
    assert set(METRICS[task]) <= set(names) and "val_mcc" not in names
    assert ("val_rmse" in names) == (task == "regression") == ("val_ece" not in names)
    assert rows[0].score == max(row[METRICS[task][0]] for row in table(rows)) and rows[0].rank == 1
    assert (rows[0].interval is None) == (task == "regression")
    assert leaderboard_csv(rows, searched).splitlines()[0].split(",") == names


def test_labels_are_judged_one_by_one_and_numbers_not_at_all(known: dict[TaskName, SweepRecords]) -> None:
    found = known["multi_label"]
    by = read_by_class(found, read_finals(found), leaderboard(found))
    labels = reading.read_test_labels(found.folder)
    assert (
        by and labels is not None and (by.task, by.size, by.names) == ("multi_label", len(labels), NAMES["multi_label"])
    )
    assert (
        by.rows == tuple(labels.sum(axis=0).tolist())
        and f"on the {len(labels)} test rows, of the 4 labels" in by.said()
    )
    mine = next(each for each in by.judged if each.arm is None)
    predictions = reading.read_test_predictions(layout.teacher_folder(found.folder))
    assert predictions is not None
    for label, score in enumerate(mine.scores()):
        right = int((predictions[:, label] & labels[:, label]).sum())
        assert score.precision == pytest.approx(right / predictions[:, label].sum())
        assert score.recall == pytest.approx(right / labels[:, label].sum())
    written = by_class_json(by)
    assert written["task"] == "multi_label" and written["models"][0]["confused"] == []
    numbers = known["regression"]
    assert read_by_class(numbers, read_finals(numbers), leaderboard(numbers)) is None


@pytest.mark.parametrize(("task", "metric"), [("multi_label", "val_map"), ("regression", "val_pearson")])
def test_a_teacher_worse_than_the_fine_tuned_student_is_found_by_the_tasks_metric(
    task: TaskName, metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The teacher's answers are those of other rows; mean average precision is stood in for by the F1 of rows."""
    monkeypatch.setattr(kdsweep.analysis.weak_teacher, "LEAST_SWAPS", 200)
    sweep = make_task_sweep(tmp_path / "s", task, finalists=False, metric=metric, gain=0.0)
    found = read_records(tmp_path / "s")
    assert weak_teacher(sweep, found.folders, found.trials) is None
    labels, worst = reading.read_validation_labels(found.folder), np.random.default_rng(0)
    assert labels is not None
    np.save(layout.teacher_folder(found.folder) / "predictions.npy", worst.permutation(labels))
    weak = weak_teacher(sweep, found.folders, found.trials)
    assert weak and weak.metric == {"val_map": "val_example_f1"}.get(metric, metric) and weak.student > weak.teacher
    assert weak.p_value < 0.05 and weak.metric in weak.text()


def test_numbers_reach_other_hosts_as_they_are(known: dict[TaskName, SweepRecords], tmp_path: Path) -> None:
    run = known["regression"].finalists[0]
    packed = packed_trial(run.folder)
    (tmp_path / "predictions.npy").write_bytes(base64.b85decode(packed["predictions.npy"]))
    sent, own = read_array(tmp_path / "predictions.npy"), reading.read_predictions(run.folder)
    assert sent is not None and own is not None and sent.dtype == own.dtype == np.float32 and (sent == own).all()
