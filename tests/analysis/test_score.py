"""Metrics and differences of row scores in words, in the unit of each task."""

from pathlib import Path

import pytest
from task_sweeps import make_task_sweep

from kdsweep.analysis.score import (
    difference_text,
    majority_score,
    named_score,
    row_difference_text,
    row_number,
    row_scale,
    scale,
    score_text,
    score_title,
    teacher_score,
)
from kdsweep.analysis.tasks import ROW_SCORES
from kdsweep.config.tasks import METRICS, TaskName
from kdsweep.records.layout import teacher_folder
from kdsweep.records.reading import read_teacher
from kdsweep.records.whole_sweep import read_records

SHARES = {"val_accuracy", "val_macro_f1", "val_micro_f1", "val_example_f1", "val_map"}


@pytest.mark.parametrize("metric", sorted({metric for metrics in METRICS.values() for metric in metrics}))
def test_every_metric_is_a_share_in_percent_or_a_correlation(metric: str) -> None:
    plain = lambda text: text.replace("\N{NO-BREAK SPACE}", " ")
    if metric in SHARES:
        assert (scale(metric), score_title(metric)) == (100, f"{metric}, %")
        assert plain(score_text(metric, 0.8765)) == "87.6 %" and difference_text(metric, -0.0123) == "−1.2 points"
    else:
        assert (scale(metric), score_title(metric)) == (1, metric)
        assert score_text(metric, -0.8765) == "−0.876" and difference_text(metric, 0.0123) == "0.012"
    assert score_text(metric, None) == "–"


def test_an_accuracy_is_named_where_it_asks_for_all_labels() -> None:
    plain = lambda text: text.replace("\N{NO-BREAK SPACE}", " ")
    assert plain(named_score("val_accuracy", 0.4123)) == "41.2 %"
    assert plain(named_score("val_accuracy", 0.4123, task="multi_label")) == "a subset accuracy of 41.2 %"
    assert (
        named_score("rmse", 0.5) == "an rmse of 0.500"
        and named_score("val_pearson", 0.5) == "a val_pearson of 0.500"
        and named_score("pearson", 0.5) == "a Pearson correlation of 0.500"
    )


@pytest.mark.parametrize(
    ("task", "value", "said", "factor"),
    [
        ("single_label", 0.0123, "1.2 points", 100),
        ("multi_label", -0.0123, "−1.2 points of F1", 100),
        ("regression", 0.123, "squared error lower by 0.123 (8 % of it)", 1),
        ("regression", -0.0005, "squared error higher by 0.0005 (0 % of it)", 1),
    ],
)
def test_a_difference_of_row_scores_has_its_own_unit(task: TaskName, value: float, said: str, factor: float) -> None:
    score = ROW_SCORES[task]
    assert row_difference_text(score, value, baseline=-1.5).replace("\N{NO-BREAK SPACE}", " ") == said
    assert row_scale(score) == factor
    assert (
        row_number("minus_squared_error", -0.0123, sign=True) == "−0.0123" and row_number("accuracy", 0.0123) == "1.2"
    )
    assert row_difference_text("subset_accuracy", 0.02) == "2.0 points of subset accuracy"


@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_teacher_and_one_answer_are_read_from_the_teachers_record(task: TaskName, tmp_path: Path) -> None:
    metric = METRICS[task][-2]  # val_map is not one of predictions
    make_task_sweep(tmp_path / "s", task, finalists=False, metric=metric)
    found, teacher = read_records(tmp_path / "s"), read_teacher(teacher_folder(tmp_path / "s"))
    assert teacher and teacher_score(found) == getattr(teacher, metric) > 0.5
    assert majority_score(found) == teacher.majority_scores[metric]
