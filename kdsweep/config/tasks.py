"""Name the classification tasks, and the metrics by which a sweep may rank its trials in each."""

from typing import Final, Literal

TaskName = Literal["single_label", "multi_label", "regression"]
"""One class of several; any number of labels, each there or not; a number."""

METRICS: Final[dict[TaskName, tuple[str, ...]]] = {
    "single_label": ("val_accuracy", "val_macro_f1", "val_mcc"),
    "multi_label": ("val_example_f1", "val_micro_f1", "val_macro_f1", "val_map", "val_accuracy"),
    "regression": ("val_pearson", "val_spearman"),
}
"""What `study.metric` may be, by task; the first is what it is where the sweep file does not say. Higher is better in each."""
