"""The report of a sweep with several labels a row, or a number a row, says nothing of accuracies that there are not."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers import Page, teacher_of
from task_sweeps import NAMES, make_task_sweep

from kdsweep.analysis.predicted_numbers import Numbers, Predicted
from kdsweep.analysis.tasks import RowScore
from kdsweep.config.tasks import METRICS, TaskName
from kdsweep.reporting.build import Report, build_report, provenance
from kdsweep.reporting.figures import cost, curves, importances, parallel, predictions, search_map, style
from kdsweep.reporting.figures.labels import MOST_LABELS, f1_by_label
from kdsweep.reporting.figures.predictions import predicted_against_label
from kdsweep.reporting.markdown import render_markdown, terminal_text
from kdsweep.reporting.memorised import memorised, seen_line, seen_table
from kdsweep.reporting.page import render_html
from kdsweep.reporting.task_words import ends, gained, made, share_of, signed_numbers

OTHERS: tuple[TaskName, ...] = ("multi_label", "regression")
OF_CLASSES = ("accuracy", "agreement", "F1", "confidence", "commonest class", "points", "Class by class")


@dataclass(frozen=True)
class Found:
    difference: float
    low: float
    high: float
    score: RowScore


@pytest.mark.parametrize(
    ("found", "said", "of"),
    [
        (Found(0.035, 0.019, 0.051, "accuracy"), "makes +3.5 points", "+1.9 to +5.1"),
        (Found(-0.01, -0.021, 0.001, "example_f1"), "makes −1.0 points of F1", "−2.1 to +0.1"),
        (Found(0.123, -0.01, 0.3, "minus_squared_error"), "lowers the squared error by 0.123", "−0.010 to 0.300"),
        (Found(-12.3, -20.0, 1.0, "minus_squared_error"), "raises the squared error by 12.3", "−1.0 to 20.0"),
        (Found(0.0, 0.0, 0.0, "minus_squared_error"), "lowers the squared error by 0.00", "0.00 to 0.00"),
    ],
)
def test_a_difference_is_said_in_the_unit_of_a_rows_score(found: Found, said: str, of: str) -> None:
    assert (made(found), ends(found)) == (said, of)


def test_a_squared_errors_difference_is_a_share_too_and_keeps_its_sign_in_a_table() -> None:
    worse = Found(-0.25, -0.5, 0.125, "minus_squared_error")
    assert gained(worse) == "a squared error higher by 0.250"
    assert signed_numbers(worse) == ["−0.250", "−0.500", "+0.125"]
    assert share_of(worse, -2.0).startswith("12") and share_of(replace(worse, score="accuracy"), 0.5) == ""
    assert made(worse, several=True).startswith("raise the")


def test_a_regressions_page_speaks_of_numbers(task_reports: dict[TaskName, Report]) -> None:
    report = task_reports["regression"]
    page = Page(render_html(report).replace(style.plotly_js(), ""))
    assert [word for word in OF_CLASSES if word in page.text] == []
    assert "Predicted against label" in page.headings and "always the mean" in page.text
    student, teacher = predicted_against_label(report.numbers)
    assert student.plot and teacher.plot and student.title.startswith("distilled") and teacher.title == "teacher"
    assert list(student.plot.data[1].x) == list(teacher.plot.data[1].x), "the same rows at the same labels"
    assert all(name in page.text for name in ("val_pearson", "val_spearman", "val_rmse"))


def test_a_regressions_answer_is_in_squared_errors_with_pearsons_r_beside(task_reports: dict[TaskName, Report]) -> None:
    report = task_reports["regression"]
    assert "distilling lowers the squared error by 0." in report.answer and "of it; 95 % interval" in report.answer
    assert "Pearson's r changes by +0." in report.answer and "bootstrap over rows)" in report.answer
    assert "and a root mean squared error of " in report.answer
    assert report.verdict and report.verdict.score == "minus_squared_error" and (report.verdict.baseline_score or 0) < 0
    sure = dict(report.questions)["How sure is that?"]
    assert "finds a squared error truly lower by" in sure and "of fine-tuning's)" in sure
    text = render_markdown(report) + terminal_text(report)
    assert "better by" in text and "by Pearson's r" in text and "test pearson" in text and "accuracy" not in text


def test_several_labels_are_said_in_points_of_f1_and_shown_label_by_label(task_reports: dict[TaskName, Report]) -> None:
    report = task_reports["multi_label"]
    assert "points of F1 (95 % interval" in report.answer and "and a subset accuracy of" in report.answer
    text = render_markdown(report)
    assert "test subset accuracy" in text and "(primary), by F1" in text and ", by subset accuracy" in text
    assert "## Label by label" in text and "named as another" not in text
    assert "val_accuracy, 95 % interval" in text and "val_example_f1, 95" not in text
    whole = render_html(report).replace(style.plotly_js(), "")
    page = Page(whole)
    assert "Label by label" in page.headings and "all labels of a row right" in page.text
    assert "confidence of the decision" in whole and "data-confusion" not in str(page.tags)
    (drawn,) = f1_by_label(report.by_class)
    assert drawn.plot and [len(trace.x) for trace in drawn.plot.data] == [4, 4, 4], "teacher, distilled, fine-tuned"
    assert list(drawn.plot.layout.yaxis.ticktext) == ["joy", "anger &lt;b&gt;", "pride", "fear"], "the commonest on top"


@pytest.mark.parametrize("task", OTHERS)
def test_every_figure_is_drawn_by_the_tasks_metric(task: TaskName, task_reports: dict[TaskName, Report]) -> None:
    found = task_reports[task].records
    drawn = [*search_map.search_maps(found), *curves.learning_curves(found), *cost.score_versus_cost(found)]
    drawn += [parallel.parallel_coordinates(found), importances.parameter_importances(found)]
    told = " ".join(figure.title + figure.description for figure in drawn)
    assert METRICS[task][0] in told and "accuracy" not in told
    assert ("temperature" in told) == (task == "multi_label"), "a regression does not search it"


@pytest.mark.parametrize("task", OTHERS)
def test_before_finalists_the_best_trials_are_compared_by_their_rows(task: TaskName, tmp_path: Path) -> None:
    make_task_sweep(tmp_path, task, finalists=False)
    report = build_report(tmp_path)
    unit = {"multi_label": "points of F1 (95", "regression": "a squared error lower by 0."}[task]
    better = {"multi_label": "have a higher F1 with distilling", "regression": "have a smaller error with distilling"}
    assert unit in report.answer and better[task] in report.answer and "paired t test p" in report.answer
    constant = {"multi_label": "always naming the same labels", "regression": "always naming the mean"}[task]
    assert f"The teacher reaches a {METRICS[task][0]} of" in report.answer and constant in report.answer
    assert (("labels" if task == "multi_label" else "label"), ", ".join(NAMES[task])) in report.provenance


def test_of_many_rows_some_are_drawn_the_same_of_both_models(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.linspace(0, 1, 50, dtype=np.float32)
    models = [
        Predicted(name=name, arm=arm, numbers=labels + 0.5)
        for name, arm in (("distilled 1", "distilled"), ("teacher", None))
    ]
    numbers = Numbers(split="test", label="score", labels=labels, models=tuple(models))
    monkeypatch.setattr(predictions, "MOST_ROWS", 20)
    student, teacher = predicted_against_label(numbers)
    assert student.plot and teacher.plot and len(student.plot.data[1].x) == 20
    assert list(student.plot.data[1].customdata) == list(teacher.plot.data[1].customdata)
    assert "50 test rows (20 of them drawn), 0.5 too high on average" in student.description
    assert predicted_against_label(None)[0].plot is None


def test_of_very_many_labels_those_of_the_table_are_drawn(task_reports: dict[TaskName, Report]) -> None:
    by = task_reports["multi_label"].by_class
    assert by is not None
    many = MOST_LABELS + 1
    counts = np.tile(by.chosen.counts, (many, 1, 1))[:many]
    judged = tuple(replace(each, counts=counts) for each in by.judged)
    (drawn,) = f1_by_label(replace(by, names=tuple(map(str, range(many))), rows=(1,) * many, judged=judged))
    assert f"F1 of 10 of {many} labels" in drawn.description


def test_what_a_teacher_memorised_is_said_in_its_tasks_words() -> None:
    seen: dict[str, Any] = {"train_loss": 0.1, "train_accuracy": None, "val_accuracy": None, "val_loss": 0.4}
    numbers = teacher_of(task="regression", **seen)
    assert seen_table(numbers)[0] == ["teacher on", "mean squared error"] and len(seen_table(numbers)) == 3
    assert "mean squared error is 0.100 on the rows that it was fine-tuned on and 0.400" in memorised(numbers)
    assert (
        seen_line(numbers) == "The teacher's mean squared error: 0.100 on its own training rows, 0.400 on validation."
    )
    labels = teacher_of(task="multi_label", train_loss=0.1, train_accuracy=0.95, train_ece=0.01)
    assert "has all labels right on 95.0" in memorised(labels) and seen_table(labels)[0][1] == "subset accuracy"
    none = teacher_of(task="multi_label", train_loss=0.1, train_accuracy=0.01, train_ece=0.01)
    assert "by its subset accuracy it had memorised none" in memorised(none)


@pytest.mark.parametrize(
    ("task", "measured", "said"),
    [
        ("multi_label", {"accuracy": 0.5, "ece": 0.05, "loss": 0.2}, "subset accuracy 50.0"),
        ("regression", {"loss": 0.25}, "mean squared error 0.250, on 90 of train"),
        ("regression", {}, ""),
    ],
)
def test_numbers_of_a_file_are_judged_as_their_task_is(
    task: TaskName, measured: dict[str, float], said: str, task_reports: dict[TaskName, Report]
) -> None:
    numbers = {"rows": 100, "zeros": 0.0, "one_hot": 0.0, "labeled_rows": 90, **measured}
    taught = {"train": 80, "validation": 10, "test": 0}
    teacher = teacher_of(task=task, taught_rows=taught, numbers=numbers, conflicting_texts=1, label_names=NAMES[task])
    lines = dict(provenance(replace(task_reports[task].records, teacher=teacher)))
    assert said in lines.get("teacher on labelled rows", "") and ("teacher's hard labels" in lines) != (
        task == "regression"
    )
    assert "two numbers or more" in lines or "two sets of labels or more" in lines
