"""A sweep's task: the metric that a file gets, and what is refused beside a task that is stated or that the data say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from kdsweep.config.sweep_file import load_sweep
from kdsweep.config.task_problems import task_notes, task_problems
from kdsweep.config.tasks import METRICS, Metric, stated_task
from kdsweep.config.trial import TrialConfig
from kdsweep.errors import ConfigError

WriteSweep = Callable[..., Path]
BASE: dict[str, Any] = {"train_file": "rows.csv", "teacher": "bert", "teacher_epochs": 1}
REGRESSION = ["fixed.task=regression", "search.temperature=null"]


def test_the_metrics_of_all_tasks_are_what_a_sweep_may_name() -> None:
    assert set(get_args(Metric)) == {metric for metrics in METRICS.values() for metric in metrics}


def test_a_file_that_names_no_metric_gets_the_first_of_its_task(tiny_sweep_file: WriteSweep) -> None:
    path = tiny_sweep_file()
    assert load_sweep(path).study.metric == "val_accuracy"
    assert load_sweep(path, ["fixed.task=single_label"]).study.metric == "val_accuracy"
    assert load_sweep(path, ["fixed.task=multi_label"]).study.metric == "val_example_f1"
    assert load_sweep(path, ["fixed.label_columns=[a,b]"]).study.metric == "val_example_f1"
    assert load_sweep(path, REGRESSION).study.metric == "val_pearson"
    assert load_sweep(path, [*REGRESSION, "study.metric=val_spearman"]).study.metric == "val_spearman"
    assert stated_task({}) is None and stated_task({"task": "auto"}) is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["fixed.task=multi_label", "study.metric=val_mcc"],
            r"\(task: multi_label\) has, val_example_f1, .* got val_mcc$",
        ),
        ([*REGRESSION, "study.metric=val_accuracy"], "has, val_pearson, val_spearman, but got val_accuracy$"),
        (["fixed.task=single_label", "study.metric=val_map"], "has, val_accuracy, val_macro_f1, val_mcc, but got"),
        (
            REGRESSION[:1],
            r"temperature is not read .* squared errors, but search.temperature is given; .*temperature=null",
        ),
        ([*REGRESSION, "fixed.soft_loss=mse"], "but fixed.soft_loss is given"),
        (["fixed.task=tagging"], "task must be"),
    ],
)
def test_what_a_stated_task_does_not_have_is_refused_with_what_it_has(
    tiny_sweep_file: WriteSweep, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_sweep(tiny_sweep_file(), overrides)


def test_a_task_that_the_data_say_is_held_against_the_sweep(tiny_sweep_file: WriteSweep) -> None:
    plain = load_sweep(tiny_sweep_file(), ["fixed.class_weights=balanced"])
    assert task_problems(plain, "single_label") == []
    metric, temperature, weights = task_problems(plain, "regression")
    assert "val_pearson, val_spearman, but got val_accuracy; fixed.task: regression takes val_pearson" in metric
    assert "search.temperature is given" in temperature and "of these data (task: regression) has none" in weights
    assert len(task_problems(plain, "multi_label")) == 1, "the row's accuracy is among its metrics"
    (note,) = task_notes(plain, "multi_label")
    assert "the share of rows with all labels right; fixed.task=multi_label ranks by val_example_f1" in note
    named = load_sweep(tiny_sweep_file(), ["fixed.task=multi_label", "study.metric=val_accuracy"])
    assert task_notes(named, "multi_label") == task_notes(plain, "single_label") == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "labels"}, "auto or single_label or multi_label or regression"),
        ({"label_columns": ("a",)}, "label_columns has two labels or more"),
        ({"label_columns": ("a", "a")}, "label_columns are distinct"),
        ({"label_columns": ("a", "b"), "task": "regression"}, "label_columns go with task: multi_label"),
        ({"label_columns": ("a", "b"), "label_names": ("a", "b")}, "go without label_names"),
        ({"label_names": ("a", "b"), "task": "regression"}, "label_names name classes"),
        ({"class_weights": "balanced", "task": "multi_label"}, "weighs the classes of task: single_label"),
        ({"class_weights": "balanced", "label_columns": ("a", "b")}, "but got task: multi_label with"),
        ({"class_weights": "inverse"}, "none or balanced"),
    ],
)
def test_labels_that_a_task_cannot_have_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrialConfig(**{**BASE, **changes})


def test_a_task_left_to_the_data_is_resolved() -> None:
    assert "task" not in TrialConfig(**BASE).unresolved()
