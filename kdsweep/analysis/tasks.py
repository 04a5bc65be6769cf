"""Tell the tasks apart: what a model predicts, what is measured of it, and the score of a single row, on which verdicts rest.

    task           labels          logits    predictions               a row's score
    single_label   int64 [N]       [N, C]    int64 [N], the largest    right or wrong, bool
    multi_label    uint8 [N, C]    [N, C]    uint8 [N, C], logit > 0   F1 of its labels, 2 |P and L| / (|P| + |L|), 1 where both are empty
    regression     float32 [N]     [N, 1]    float32 [N]               minus the squared error

Every function is pure, in numpy. Shapes: C classes or labels, N rows (at least one).
"""

from typing import Final, Literal

import numpy as np

from kdsweep.config.tasks import TaskName

RowScore = Literal["accuracy", "subset_accuracy", "example_f1", "minus_squared_error"]
"""Names in records of the mean over rows of a row's score. All but the last lie in [0, 1]; that one has no lower bound."""
ROW_SCORES: Final[dict[TaskName, RowScore]] = {
    "single_label": "accuracy",
    "multi_label": "example_f1",
    "regression": "minus_squared_error",
}
"""What the mean of `row_scores` is called; `subset_accuracy`, whether all labels of a row are right, stands beside that of multi_label."""


def predicted(logits: np.ndarray, task: TaskName) -> np.ndarray:
    """Return what logits [N, C] predict for every row: a class, labels as 0 and 1, or a number."""
    if task == "single_label":
        classes: np.ndarray = logits.argmax(axis=1)
        return classes
    found: np.ndarray = (logits > 0).astype(np.uint8) if task == "multi_label" else logits[:, 0].astype(np.float32)
    return found


def row_scores(predictions: np.ndarray, labels: np.ndarray, task: TaskName) -> np.ndarray:
    """Return the score of every row [N]: bool for single_label, float64 in [0, 1] for multi_label, float64 at most 0 for regression."""
    if task == "single_label":
        right: np.ndarray = predictions == labels
        return right
    if task == "multi_label":
        return example_f1(predictions, labels)
    lost: np.ndarray = np.square(predictions.astype(np.float64) - labels)
    return -lost


def example_f1(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the F1 of every row's labels, float64 [N]; predictions and labels 0 or 1, [N, C]. A row without any on both sides has 1."""
    both = (predictions & labels).sum(axis=1)
    sizes = predictions.sum(axis=1, dtype=np.int64) + labels.sum(axis=1, dtype=np.int64)
    return np.where(sizes > 0, 2 * both / np.maximum(sizes, 1), 1.0)
