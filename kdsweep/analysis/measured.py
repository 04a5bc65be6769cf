"""Compute all metrics of a model that its task has, from its logits, or one from its predictions.

Shapes: C classes or labels, N rows (at least one); logits are [N, C], of regression [N, 1]; labels are those of `analysis/tasks.py`.
"""

from collections.abc import Mapping

import numpy as np

from kdsweep.analysis import label_metrics, metrics, number_metrics
from kdsweep.analysis.metrics import Measure, Reliability
from kdsweep.analysis.tasks import predicted
from kdsweep.config.tasks import TaskName
from kdsweep.records.schema import VALIDATED


def measured_by_task(
    logits: np.ndarray, labels: np.ndarray, task: TaskName, teachers: np.ndarray | None = None
) -> dict[str, float | None]:
    """Return every metric of `VALIDATED` by its name without `val_`, None for one that the task does not have; T = 1.

    Without the `teachers` logits, agreement and kl are None. The loss is nan or inf where a logit is.
    """
    with np.errstate(invalid="ignore"):  # whoever trains checks the loss
        if task == "single_label":
            known = _of_classes(logits, labels, teachers)
        elif task == "multi_label":
            known = _of_labels(logits, labels, teachers)
        else:
            known = _of_numbers(predicted(logits, task), labels)
    return {name: known.get(name) for name in (each.removeprefix("val_") for each in VALIDATED)}


def _of_classes(logits: np.ndarray, labels: np.ndarray, teachers: np.ndarray | None) -> Mapping[str, float]:
    named, classes = logits.argmax(axis=1), logits.shape[1]
    known = {
        "accuracy": metrics.accuracy(named, labels),
        "macro_f1": metrics.macro_f1(named, labels, classes),
        "mcc": metrics.matthews(named, labels, classes),
        "loss": metrics.nll(logits, labels),
        "ece": metrics.expected_calibration_error(logits, labels),
    }
    if teachers is not None:
        known["agreement"] = metrics.agreement(named, teachers.argmax(axis=1))
        known["kl"] = metrics.kl_to_teacher(teachers, logits)
    return known


def _of_labels(logits: np.ndarray, labels: np.ndarray, teachers: np.ndarray | None) -> Mapping[str, float]:
    decided = predicted(logits, "multi_label")
    known = {
        "accuracy": label_metrics.subset_accuracy(decided, labels),
        "macro_f1": label_metrics.macro_f1(decided, labels),
        "micro_f1": label_metrics.micro_f1(decided, labels),
        "example_f1": label_metrics.mean_example_f1(decided, labels),
        "map": label_metrics.mean_average_precision(logits, labels),
        "loss": label_metrics.binary_nll(logits, labels),
        "ece": metrics.mean_gap(label_metrics.decided_reliability(logits, labels)),
    }
    if teachers is not None:
        known["agreement"] = metrics.agreement(decided, predicted(teachers, "multi_label"))
        known["kl"] = label_metrics.bernoulli_kl(teachers, logits)
    return known


def _of_numbers(numbers: np.ndarray, labels: np.ndarray) -> Mapping[str, float]:
    return {
        "loss": number_metrics.mean_squared_error(numbers, labels),
        "pearson": number_metrics.pearson(numbers, labels),
        "spearman": number_metrics.spearman(numbers, labels),
        "rmse": number_metrics.root_mean_squared_error(numbers, labels),
    }


def measure_by_task(metric: str, classes: int, task: TaskName) -> Measure:
    """Return the function of predictions and labels that computes `metric`, a value of `study.metric` for the task.

    Raises ValueError for val_map, which needs logits, and for a metric of another task.
    """
    if task == "single_label":
        return metrics.measure(metric, classes)
    of_labels: dict[str, Measure] = {
        "val_accuracy": label_metrics.subset_accuracy,
        "val_macro_f1": label_metrics.macro_f1,
        "val_micro_f1": label_metrics.micro_f1,
        "val_example_f1": label_metrics.mean_example_f1,
    }
    of_numbers: dict[str, Measure] = {"val_pearson": number_metrics.pearson, "val_spearman": number_metrics.spearman}
    known = of_labels if task == "multi_label" else of_numbers
    if metric not in known:
        raise ValueError(f"a metric of predictions for {task} is one of {list(known)}, but got {metric}")
    return known[metric]


def reliability_by_task(logits: np.ndarray, labels: np.ndarray, task: TaskName) -> Reliability | None:
    """Return the reliability diagram of a model's logits, for multi_label of all decisions; None for regression, which has no confidence."""
    if task == "regression":
        return None
    return (
        metrics.reliability(logits, labels)
        if task == "single_label"
        else label_metrics.decided_reliability(logits, labels)
    )
