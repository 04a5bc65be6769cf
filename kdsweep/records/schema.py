"""What is measured and recorded: steps, epochs, how a trial ended, the teacher, the test split."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from kdsweep.config.sweep import Arm
from kdsweep.records.layout import TrialId

Status = Literal["complete", "pruned", "failed", "duplicate"]
VALIDATED = ("val_accuracy", "val_macro_f1", "val_mcc", "val_loss", "val_ece", "val_agreement", "val_kl")
"""What an epoch measures on the validation rows."""
REPEATABLE = (
    *("status", *VALIDATED, "best_epoch", "best_val_accuracy", "epochs", "steps"),
    *("parameters", "size_mb", "initial_weights_sha256", "weights_sha256", "teacher_weights_sha256", "data_sha256"),
)
"""Fields of `TrialResult` that another attempt gives again."""


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """One training step's losses: L_soft with its T² but not alpha, L_hard unweighted, L_total = alpha L_soft + (1 - alpha) L_hard."""

    step: int
    epoch: int
    L_soft: float
    L_hard: float
    L_total: float
    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """One epoch: mean training losses over its rows, then the student on the validation rows."""

    epoch: int
    step: int
    L_soft: float
    L_hard: float
    L_total: float
    val_accuracy: float
    """Share of validation rows whose class is right, in [0, 1]."""
    val_macro_f1: float
    """Mean F1 over the classes, in [0, 1]."""
    val_mcc: float
    """Matthews correlation, in [-1, 1]: 0 for naming one class always."""
    val_loss: float
    """Mean cross-entropy of the validation rows in nats, T = 1."""
    val_ece: float
    """Expected calibration error, T = 1, in [0, 1]."""
    val_agreement: float
    """Share of validation rows on which student and teacher name the same class, in [0, 1]."""
    val_kl: float
    """Mean KL from the teacher's distribution to the student's in nats, T = 1."""
    train_seconds: float
    evaluate_seconds: float

    def measured(self) -> dict[str, float]:
        """The metrics that a reproduction must give again: everything but the clock."""
        return {name: value for name, value in dataclasses.asdict(self).items() if not name.endswith("_seconds")}


@dataclass(frozen=True, kw_only=True)
class TeacherEpoch:
    """One epoch of the teacher's fine-tuning: mean training cross-entropy, then the validation rows."""

    epoch: int
    step: int
    L_hard: float
    val_accuracy: float
    val_loss: float
    train_seconds: float


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One time that a trial was started."""

    attempt: int
    owner: str
    """The process: host, number, and a word of its own."""
    from_step: int
    """The step of the checkpoint it goes on from; 0: from the start."""
    steps_again: int
    """Steps after that checkpoint that an attempt before had made already."""
    started_at: str


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """What makes a run a finalist: it is a trial of the search once more, with another seed."""

    seed: int
    round: int
    """1; higher where the test split was opened again, because the search went on and chose others."""


@dataclass(frozen=True, kw_only=True)
class FinalTest:
    """A model on the test split, T = 1: shares in [0, 1], loss (cross-entropy) and kl in nats a row."""

    accuracy: float
    macro_f1: float
    mcc: float
    """Matthews correlation, in [-1, 1]."""
    loss: float
    ece: float
    """Expected calibration error, in [0, 1]."""
    agreement: float
    """With the teacher."""
    kl: float
    """From the teacher's distribution to the model's."""
    reliability: tuple[tuple[float, float, int], ...]
    """Mean confidence, accuracy and rows of each of the calibration error's bins that holds rows."""
    rows: int
    opened_at: str

    def measured(self) -> dict[str, float]:
        """Return the metrics that a reproduction must give again, one number each."""
        names = ("accuracy", "macro_f1", "mcc", "loss", "ece", "agreement", "kl", "rows")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """How one trial ended. Metrics are the last epoch's, and None where no epoch was finished."""

    arm: Arm
    trial: int
    attempt: int
    status: Status
    error: str | None
    """Why it failed, was pruned or not trained."""
    val_accuracy: float | None
    val_macro_f1: float | None
    val_mcc: float | None
    val_loss: float | None
    val_ece: float | None
    val_agreement: float | None
    val_kl: float | None
    best_epoch: int | None
    best_val_accuracy: float | None
    epochs: int
    steps: int
    parameters: int | None
    size_mb: float | None
    """Of the saved weights; None where the student was not saved."""
    latency_ms_p50: float | None
    """Median of one row's forward pass, batch 1, on the trial's device and threads."""
    rows_per_second: float | None
    """Validation rows a second in batches."""
    train_seconds: float
    evaluate_seconds: float
    seconds: float
    """The whole trial, from the config to the saved student."""
    initial_weights_sha256: str | None
    teacher_weights_sha256: str | None
    data_sha256: str | None
    environment: Mapping[str, str]
    """Versions, device name, processor, host's operating system."""
    started_at: str
    run_id: str | None
    """The W&B run."""
    micro_batches: int = 1
    """Pieces that batches were cut into, because whole ones did not fit in memory."""
    steps_again: int = 0
    """Steps trained more than once, because attempts were cut off after their last checkpoint."""
    finalist: Finalist | None = None
    """None for a trial of the search."""
    latency_ms_p95: float | None = None
    """95th percentile of the same passes."""
    violates: tuple[str, ...] = ()
    """Constraints that the student breaks, with value and limit."""
    weights_sha256: str | None = None
    """Of the trained student, whole; None for a trial that failed, and in older records."""
    config: Mapping[str, Any] | None = None
    """Every field that ran, as config.yaml held it then: who edits that file later is told. None in older records."""
    truncated_rows: Mapping[str, int] = field(default_factory=dict)
    """Of each split that it met, those of which `max_length` cut the student's tokens; empty where nobody counted."""
    run_url: str | None = None
    """The W&B run's page; None for one that did not go to a server."""
    run_missing: str | None = None
    """Why W&B has no run although the sweep was tracked; None where it has one, or tracking was off."""

    def summary(self) -> dict[str, Any]:
        """What W&B's table of runs shows: everything but what stands in the config or in the history, whose last values it shows."""
        kept = {"environment", "run_id", "run_url", "run_missing", "config", "truncated_rows"}
        kept |= {each.name for each in dataclasses.fields(EpochMetrics)}
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in kept}


@dataclass(frozen=True, kw_only=True)
class TeacherResult:
    """The teacher and the rows, as every trial of the sweep meets them."""

    teacher: str
    val_accuracy: float
    val_loss: float
    majority_accuracy: float
    """Validation accuracy of always naming the commonest training class."""
    parameters: int
    size_mb: float
    latency_ms_p50: float
    rows_per_second: float
    weights_sha256: str
    data_sha256: str
    label_names: tuple[str, ...]
    train_rows: int
    validation_rows: int
    test_rows: int
    duplicates_dropped: int
    """Training rows whose text stands in validation or test too."""
    fine_tuned_seconds: float
    logits_seconds: float
    from_cache: bool
    environment: Mapping[str, str]
    run_id: str | None
    latency_ms_p95: float | None = None
    empty_texts_dropped: int = 0
    """Rows left out because a text of theirs is empty."""
    conflicting_texts: int = 0
    """Texts (pairs) that stand in the rows with two labels or more."""
    truncated_rows: Mapping[str, int] = field(default_factory=dict)
    """Of each split, those of which `max_length` cut the teacher's tokens; empty where nobody counted."""
    run_url: str | None = None
    """As of a trial."""
    run_missing: str | None = None

    def summary(self) -> dict[str, Any]:
        """What W&B's table of runs shows."""
        return {"val_accuracy": self.val_accuracy, "parameters": self.parameters, "size_mb": self.size_mb}


@dataclass(frozen=True, kw_only=True)
class ToldVerdict:
    """The verdict that W&B was told."""

    number: int
    """For the how many-th time: more trials can change it."""
    summary: Mapping[str, Any]
    """Of its run."""


def finalist_of(trial: TrialId, round_: int) -> Finalist | None:
    """Return what the record says of a finalist; None for a trial of the search."""
    return None if trial.seed is None else Finalist(seed=trial.seed, round=round_)


def validated(last: EpochMetrics | None) -> dict[str, Any]:
    """A result's validation metrics, from its last epoch."""
    return {name: getattr(last, name) if last else None for name in VALIDATED}


def missing_result(
    arm: Arm,
    trial: int,
    *,
    status: Status,
    error: str,
    attempt: int,
    epochs: Sequence[EpochMetrics] = (),
    finalist: Finalist | None = None,
) -> TrialResult:
    """The result of a trial that has no training of its own to tell of: its worker died, or it was answered from the record."""
    last = epochs[-1] if epochs else None
    return TrialResult(
        arm=arm,
        trial=trial,
        attempt=attempt,
        status=status,
        error=error,
        **validated(last),
        best_epoch=None,
        best_val_accuracy=None,
        epochs=len(epochs),
        steps=last.step if last else 0,
        parameters=None,
        size_mb=None,
        latency_ms_p50=None,
        rows_per_second=None,
        train_seconds=sum(epoch.train_seconds for epoch in epochs),
        evaluate_seconds=sum(epoch.evaluate_seconds for epoch in epochs),
        seconds=0.0,
        initial_weights_sha256=None,
        teacher_weights_sha256=None,
        data_sha256=None,
        environment={},
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        run_id=None,
        finalist=finalist,
    )
