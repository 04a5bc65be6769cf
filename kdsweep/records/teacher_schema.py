"""Define what is recorded of the teacher: its epochs, what it is worth, and the rows that it was asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kdsweep.config.tasks import TaskName

OTHER_TASKS = ("val_macro_f1", "val_micro_f1", "val_example_f1", "val_map", "val_pearson", "val_spearman", "val_rmse")
"""Metrics on the validation rows that the teacher's record holds for multi_label and regression; None where the task does not have them."""
MEASURED_OF_TEACHER = (
    *("val_ece", "train_accuracy", "train_loss", "train_ece"),
    *("out_of_fold_accuracy", "out_of_fold_loss", "out_of_fold_ece"),
)
"""Fields of `TeacherResult` that tell what the teacher has memorised; None where they were not measured."""


@dataclass(frozen=True, kw_only=True)
class TeacherEpoch:
    """Holds one epoch of the teacher's fine-tuning: mean training loss on the labels, then metrics of `EpochMetrics` on the validation rows."""

    epoch: int
    step: int
    L_hard: float
    val_accuracy: float | None
    """None for regression."""
    val_loss: float
    train_seconds: float
    val_example_f1: float | None = None
    """Of multi_label alone."""
    val_pearson: float | None = None
    """Of regression alone."""


@dataclass(frozen=True, kw_only=True)
class TeacherResult:
    """Holds what is recorded of the teacher and the rows that every trial of the sweep uses.

    Of a teacher that is a file, size and speed are None; and accuracy and loss where it has no numbers for some of the validation rows.
    """

    teacher: str
    """The address of its weights, or of the file in their place."""
    val_accuracy: float | None
    val_loss: float | None
    majority_accuracy: float | None
    """Validation accuracy of always predicting the most common training class (multi_label: set of labels); None for regression."""
    parameters: int | None
    size_mb: float | None
    latency_ms_p50: float | None
    rows_per_second: float | None
    weights_sha256: str
    """Hash of its weights, or of the numbers in its file."""
    data_sha256: str
    label_names: tuple[str, ...]
    train_rows: int
    validation_rows: int
    test_rows: int
    duplicates_dropped: int
    """Rows left out because their text is in another split too: training rows in validation or test, validation rows in test."""
    fine_tuned_seconds: float
    logits_seconds: float
    from_cache: bool
    environment: Mapping[str, str]
    run_id: str | None
    latency_ms_p95: float | None = None
    task: TaskName = "single_label"
    """What the rows' labels ask of a model; older records hold classes."""
    empty_texts_dropped: int = 0
    """Rows left out because one of their texts is empty."""
    conflicting_texts: int = 0
    """Texts (pairs) that occur in the rows with two labels or more."""
    truncated_rows: Mapping[str, int] = field(default_factory=dict)
    """Rows of each split whose teacher tokens `max_length` cut; empty where they were not counted."""
    run_url: str | None = None
    """The W&B run's page; None for one that did not go to a server."""
    run_missing: str | None = None
    taught_rows: Mapping[str, int] = field(default_factory=dict)
    """Rows of each split for which a teacher that is a file has numbers; empty for a model, which has them for all."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """What is known of the numbers of a teacher that is a file, empty for a model. rows: how many; zeros: share of probabilities that are
    exactly 0; one_hot: share of rows with a probability of 1; and on the `labeled_rows` of train and validation accuracy, loss and ece."""
    folds: int = 1
    """How many models the teacher is. Size, parameters and speed are of one; the logits of a new row cost a pass of each."""
    kept_epochs: tuple[int, ...] = ()
    """For each of them the epoch whose weights were kept; empty where that is the last."""
    val_ece: float | None = None
    """Expected calibration error on the validation rows, T = 1, in [0, 1]; None in older records, as all that follow."""
    train_accuracy: float | None = None
    """Accuracy on the labelled training rows that it was fine-tuned on; with folds, the mean of the models, each on its own rows."""
    train_loss: float | None = None
    """Mean cross-entropy of the same rows in nats."""
    train_ece: float | None = None
    out_of_fold_accuracy: float | None = None
    """Accuracy on the labelled training rows, each judged by the one model that has not seen it; None without folds."""
    out_of_fold_loss: float | None = None
    out_of_fold_ece: float | None = None
    val_macro_f1: float | None = None
    """This and the following metrics as in `EpochMetrics`, for multi_label and regression; None for single_label."""
    val_micro_f1: float | None = None
    val_example_f1: float | None = None
    val_map: float | None = None
    val_pearson: float | None = None
    val_spearman: float | None = None
    val_rmse: float | None = None
    majority_scores: Mapping[str, float] = field(default_factory=dict)
    """Metrics on the validation rows, by name, of always giving one answer. multi_label: the best for each metric of the training rows'
    commonest set of labels, the labels that more than half of them have, and the commonest label; regression: the mean. Empty for single_label."""

    def sizes(self) -> dict[str, int]:
        """Return the number of rows of each split; 0 for a test split that there is not."""
        return {"train": self.train_rows, "validation": self.validation_rows, "test": self.test_rows}

    @property
    def is_file(self) -> bool:
        """Return whether the teacher is a file of numbers, and no model."""
        return bool(self.taught_rows)

    def lacks(self, split: str) -> bool:
        """Return whether a teacher that is a file has no numbers for some rows of `split`, so that it cannot be measured there."""
        return self.is_file and self.taught_rows.get(split, 0) < self.sizes()[split]

    def summary(self) -> dict[str, Any]:
        """Return what W&B's table of runs shows of the teacher."""
        shown = {"val_accuracy": self.val_accuracy, "parameters": self.parameters, "size_mb": self.size_mb}
        measured = {name: getattr(self, name) for name in (*MEASURED_OF_TEACHER, *OTHER_TASKS)}
        return {**shown, **{name: value for name, value in measured.items() if value is not None}}
