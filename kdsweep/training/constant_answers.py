"""Measure what a model that reads nothing is worth: one answer for every row, the best that the training labels suggest.

Shapes: C classes or labels, N rows.
"""

import numpy as np

from kdsweep.analysis.measured import measured_by_task
from kdsweep.config.tasks import METRICS
from kdsweep.training.data.splits import Data


def majority_accuracy(data: Data) -> float | None:
    """Return the validation accuracy of always giving the commonest class or set of labels; None for regression."""
    if data.task == "single_label":
        return data.majority_accuracy()
    return majority_scores(data, data.validation.labels).get("val_accuracy")


def majority_scores(data: Data, labels: np.ndarray) -> dict[str, float]:
    """Return, by name, the metrics on rows with `labels` of always giving one answer: of several answers the best for each metric.

    The metrics are those that the task ranks by; for regression the val_loss and val_rmse of the training labels' mean are among them.
    """
    answers = [np.tile(logits, (len(labels), 1)) for logits in _answers(data)]
    found = [measured_by_task(logits, labels, data.task) for logits in answers]
    names = (*METRICS[data.task], *(("val_loss", "val_rmse") if data.task == "regression" else ()))
    known = {name: [each[name.removeprefix("val_")] for each in found] for name in names}
    return {name: max(value for value in values if value is not None) for name, values in known.items()}


def _answers(data: Data) -> list[np.ndarray]:
    """Return the logits [C] of each answer: of single_label the commonest class; of multi_label the commonest set of labels, those that more
    than half of the rows have, and the commonest one; of regression the mean."""
    labels = data.train.labels
    if data.task == "regression":
        return [np.array([labels.mean(dtype=np.float64)], dtype=np.float32)]
    if data.task == "single_label":
        return [np.eye(len(data.label_names))[np.bincount(labels).argmax()]]
    sets, counts = np.unique(labels, axis=0, return_counts=True)
    shares = labels.mean(axis=0)
    answers = (sets[counts.argmax()] > 0, shares > 0.5, np.arange(labels.shape[1]) == shares.argmax())
    return [np.where(there, 1.0, -1.0) for there in answers]
