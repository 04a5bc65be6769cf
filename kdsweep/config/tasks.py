"""Name the classification tasks, and the metrics by which a sweep may rank its trials in each."""

from collections.abc import Mapping
from typing import Any, Final, Literal

TaskName = Literal["single_label", "multi_label", "regression"]
"""One class of several; any number of labels, each there or not; a number."""

Metric = Literal[
    "val_accuracy",
    "val_macro_f1",
    "val_mcc",
    "val_example_f1",
    "val_micro_f1",
    "val_map",
    "val_pearson",
    "val_spearman",
]
"""What `study.metric` may be, in any task."""
METRICS: Final[dict[TaskName, tuple[Metric, ...]]] = {
    "single_label": ("val_accuracy", "val_macro_f1", "val_mcc"),
    "multi_label": ("val_example_f1", "val_micro_f1", "val_macro_f1", "val_map", "val_accuracy"),
    "regression": ("val_pearson", "val_spearman"),
}
"""What `study.metric` may be, by task; the first is what it is where the sweep file does not say. Higher is better in each."""

BEST_AND_LAST: Final = tuple(first for first, *_ in METRICS.values())
"""The metrics of which a W&B run's summary has both the best and the last epoch's value, as `NAME.max` and `NAME.last`."""


def stated_task(fields: Mapping[str, Any]) -> TaskName | None:
    """Return the task that fields of a trial state, by `task` or by `label_columns`; None where the data decide."""
    if fields.get("label_columns"):
        return "multi_label"
    return next((task for task in METRICS if task == fields.get("task")), None)
