"""Define what is measured and recorded: steps, epochs, how a trial ended, the test split."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from kdsweep.config.arms import Arm
from kdsweep.config.tasks import TaskName
from kdsweep.records.layout import TrialId
from kdsweep.records.teacher_schema import TeacherEpoch

Status = Literal["complete", "pruned", "failed", "duplicate"]
VALIDATED_IN: Final[dict[TaskName, tuple[str, ...]]] = {
    "single_label": ("val_accuracy", "val_macro_f1", "val_mcc", "val_loss", "val_ece", "val_agreement", "val_kl"),
    "multi_label": (
        *("val_accuracy", "val_macro_f1", "val_loss", "val_ece", "val_agreement", "val_kl"),
        *("val_micro_f1", "val_example_f1", "val_map"),
    ),
    "regression": ("val_loss", "val_pearson", "val_spearman", "val_rmse"),
}
"""The metrics that an epoch measures on the validation rows, by task; those of the other tasks are None."""
VALIDATED = tuple(dict.fromkeys(name for names in VALIDATED_IN.values() for name in names))
"""Those of all tasks."""
REPEATABLE = (
    *("status", *VALIDATED, "best_epoch", "best_val_accuracy", "epochs", "steps"),
    *("parameters", "size_mb", "initial_weights_sha256", "weights_sha256", "teacher_weights_sha256", "data_sha256"),
    "unlabeled_sha256",
)
"""Fields of `TrialResult` that are equal in every attempt at a trial."""


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """Holds one training step's losses: L_soft with its T² but not alpha, L_hard with its label smoothing but unweighted,
    L_total = alpha L_soft + (1 - alpha) L_hard, each with the step's own T and alpha."""

    step: int
    epoch: int
    L_soft: float
    L_hard: float
    L_total: float
    learning_rate: float
    L_relation: float = 0.0
    """The loss on self-attention relations without its weight, which L_total adds too; 0 in a trial without it."""
    soft_rows: int | None = None
    """Rows that L_soft is the mean over: those that have the teacher's outputs. None in older records."""
    hard_rows: int | None = None
    """Rows that L_hard is the mean over: those that have a label. None in older records."""
    temperature: float | None = None
    """T of this step, in float32; None where it is the same in all steps, or has no effect."""
    alpha: float | None = None
    """alpha of this step, in float32; None where it is the same in all steps."""

    def logged(self) -> dict[str, Any]:
        """Return what W&B gets: every field that has a value, L_relation only where it was computed."""
        return {name: value for name, value in known(self).items() if name != "L_relation" or value}


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """Holds one epoch's measurements: mean training losses over its rows, then the student's metrics on the validation rows."""

    epoch: int
    step: int
    L_soft: float
    L_hard: float
    L_total: float
    val_accuracy: float | None
    """Share of validation rows whose class is right (multi_label: all of whose labels are), in [0, 1]; None for regression."""
    val_macro_f1: float | None
    """Mean F1 over the classes or labels, in [0, 1]; None for regression."""
    val_mcc: float | None
    """Matthews correlation, in [-1, 1]: 0 for always predicting one class; of single_label alone."""
    val_loss: float
    """Mean cross-entropy of the validation rows in nats, T = 1; multi_label: of the decisions; regression: mean squared error."""
    val_ece: float | None
    """Expected calibration error, T = 1, in [0, 1]; multi_label: of all decisions; None for regression."""
    val_agreement: float | None
    """Share of validation rows (multi_label: of all decisions) on which student and teacher agree, in [0, 1]; None for regression, and where
    a teacher_file lacks such rows."""
    val_kl: float | None
    """Mean KL from the teacher's distribution to the student's in nats, T = 1, multi_label: summed over the labels; None as val_agreement."""
    train_seconds: float
    evaluate_seconds: float
    L_relation: float = 0.0
    soft_rows: int | None = None
    """Rows, each as often as it was trained on, that L_soft is the mean over. None in older records."""
    hard_rows: int | None = None
    """Rows, each as often as it was trained on, that L_hard is the mean over. None in older records."""
    val_micro_f1: float | None = None
    """F1 of all decisions together, in [0, 1]; this and the next two of multi_label alone."""
    val_example_f1: float | None = None
    """Mean over rows of the F1 of a row's labels, in [0, 1]."""
    val_map: float | None = None
    """Mean average precision over the labels that occur, in [0, 1]."""
    val_pearson: float | None = None
    """Correlation of predictions and labels, in [-1, 1]; this and the next two of regression alone."""
    val_spearman: float | None = None
    """Correlation of their ranks, in [-1, 1]."""
    val_rmse: float | None = None
    """Root of the mean squared error, in the labels' unit."""

    def measured(self) -> dict[str, float]:
        """Return the metrics that a reproduction must give again: everything but seconds and numbers of rows, and what is None."""
        kept = {name: value for name, value in known(self).items() if not name.endswith("_seconds")}
        return {name: value for name, value in kept.items() if not name.endswith("_rows")}


STEP_METRICS = tuple(each.name for each in dataclasses.fields(StepMetrics) if each.name not in ("step", "epoch"))
"""Names whose curves in W&B are those of the steps: an epoch's values of them are not logged."""


def logged_epoch(epoch: EpochMetrics | TeacherEpoch) -> dict[str, Any]:
    """Return what W&B gets of an epoch: its numbers without its mean training losses, since W&B can smooth those of the steps."""
    return {name: value for name, value in known(epoch).items() if name not in STEP_METRICS}


def known(record: StepMetrics | EpochMetrics | TeacherEpoch) -> dict[str, Any]:
    """Return a step's or an epoch's numbers by name, without those that are None."""
    return {name: value for name, value in vars(record).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """Records one start of a trial."""

    attempt: int
    owner: str
    """The process: its host, its number and a random word."""
    from_step: int
    """The step of the checkpoint from which it continues; 0: from the start."""
    steps_again: int
    """Steps after that checkpoint that an earlier attempt had trained already."""
    started_at: str


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """Records what makes a run a finalist: it runs a trial of the search once more, with another seed."""

    seed: int
    round: int
    """1; higher where the test split was opened again, because the search continued and chose other configurations."""


@dataclass(frozen=True, kw_only=True)
class FinalTest:
    """Holds a model's metrics on the test split, as `EpochMetrics` has them of the validation split; each is None where the task does not have it."""

    accuracy: float | None
    macro_f1: float | None
    mcc: float | None
    """Matthews correlation, in [-1, 1]."""
    loss: float
    ece: float | None
    """Expected calibration error, in [0, 1]."""
    agreement: float | None
    """Share of rows (multi_label: of decisions) on which model and teacher agree; None where a teacher_file lacks some rows."""
    kl: float | None
    """Mean KL from the teacher's distribution to the model's; None where a teacher_file lacks some rows."""
    reliability: tuple[tuple[float, float, int], ...]
    """Mean confidence, accuracy and number of rows (multi_label: of decisions) of each bin of the calibration error that holds any; empty for
    regression."""
    rows: int
    opened_at: str
    micro_f1: float | None = None
    example_f1: float | None = None
    map: float | None = None
    pearson: float | None = None
    spearman: float | None = None
    rmse: float | None = None

    def measured(self) -> dict[str, float]:
        """Return the metrics that a reproduction must give again, one number each, without those that are None."""
        names = (*(name.removeprefix("val_") for name in VALIDATED), "rows")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """Records how one trial ended. Metrics are the last epoch's, and None where no epoch was finished."""

    arm: Arm
    trial: int
    attempt: int
    status: Status
    error: str | None
    """Why the trial failed, was pruned or not trained."""
    val_accuracy: float | None
    val_macro_f1: float | None
    val_mcc: float | None
    val_loss: float | None
    val_ece: float | None
    val_agreement: float | None
    val_kl: float | None
    best_epoch: int | None
    """The epoch of `best_val_accuracy` (regression: of the best val_pearson), whatever metric ranks: the leaderboard has the best epoch by
    `study.metric`."""
    best_val_accuracy: float | None
    epochs: int
    steps: int
    parameters: int | None
    size_mb: float | None
    """Megabytes of the saved weights; None where the student was not saved."""
    latency_ms_p50: float | None
    """Median milliseconds of one row's forward pass, batch 1, on the trial's device and threads."""
    rows_per_second: float | None
    """Validation rows per second, in batches."""
    train_seconds: float
    evaluate_seconds: float
    seconds: float
    """The whole trial, from the config to the saved student."""
    initial_weights_sha256: str | None
    teacher_weights_sha256: str | None
    data_sha256: str | None
    environment: Mapping[str, str]
    """Versions, device name, processor, the host's operating system."""
    started_at: str
    run_id: str | None
    """The id of the W&B run."""
    micro_batches: int = 1
    """Pieces that batches were cut into, because whole ones did not fit in memory."""
    steps_again: int = 0
    """Steps trained more than once, because attempts were cut off after their last checkpoint."""
    finalist: Finalist | None = None
    """Seed and round of a finalist; None for a trial of the search."""
    latency_ms_p95: float | None = None
    """95th percentile of the passes of `latency_ms_p50`."""
    violates: tuple[str, ...] = ()
    """Constraints that the student breaks, with value and limit."""
    limited_form: str | None = None
    """The form of the student that `study.constraints` means: fp32 or int8; None where it is the student as it is trained."""
    limited_latency_ms_p50: float | None = None
    """Median milliseconds of one row in that form, on the CPU and as many threads as trials have; measured once for each size of student."""
    limited_size_mb: float | None = None
    """Megabytes of that form's file."""
    weights_sha256: str | None = None
    """Hash of all weights of the trained student; None for a trial that failed, and in older records."""
    config: Mapping[str, Any] | None = None
    """Every field that ran, as config.yaml held it then, so that later edits of that file are noticed. None in older records."""
    truncated_rows: Mapping[str, int] = field(default_factory=dict)
    """Rows of each split read whose student tokens `max_length` cut; empty where they were not counted."""
    shortcuts: Mapping[str, str] = field(default_factory=dict)
    """For each shortcut of the training, the same mathematics at less cost, `taken` or why it was not; empty for a trial that failed, and in
    older records."""
    unlabeled_sha256: str | None = None
    """Hash of the texts without labels; None for a trial without such texts."""
    unlabeled_rows: int = 0
    """Texts without labels that the trial was trained on."""
    unlabeled_dropped: Mapping[str, int] = field(default_factory=dict)
    """Texts without labels that were left out: `empty`, `duplicates`, `labelled` (of training rows), `held_out` (of validation or
    test); with a teacher that is a file, `untaught` too."""
    vocabulary_pieces: int | None = None
    """Word pieces of a student with `student_vocabulary: trained`; None, like the five fields below, for one that has them all."""
    vocabulary_whole: int | None = None
    """Word pieces that the same student has with `student_vocabulary: full`."""
    val_unknown_share: float | None = None
    """Share of the validation rows' pieces that are unknown to the smaller tokenizer."""
    val_recut_share: float | None = None
    """Share of the validation texts that the smaller tokenizer cuts otherwise than the whole one."""
    test_unknown_share: float | None = None
    """The same of the test rows; None where the test split was not opened."""
    test_recut_share: float | None = None
    run_url: str | None = None
    """The W&B run's page; None for one that did not go to a server."""
    run_missing: str | None = None
    """Why W&B has no run although the sweep was tracked; None where it has one, or tracking was off."""
    val_micro_f1: float | None = None
    val_example_f1: float | None = None
    val_map: float | None = None
    val_pearson: float | None = None
    val_spearman: float | None = None
    val_rmse: float | None = None

    def summary(self) -> dict[str, Any]:
        """Return what W&B's table of runs shows: everything but what is in the config or in the history, whose last values it shows anyway."""
        kept = {
            "environment",
            "run_id",
            "run_url",
            "run_missing",
            "config",
            "truncated_rows",
            "unlabeled_dropped",
            "shortcuts",
        }
        kept |= {each.name for each in dataclasses.fields(EpochMetrics)}
        kept |= set() if self.limited_form else {"limited_form", "limited_latency_ms_p50", "limited_size_mb"}
        kept |= set() if self.vocabulary_pieces else set(VOCABULARY)
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in kept}


VOCABULARY = (
    *("vocabulary_pieces", "vocabulary_whole"),
    *("val_unknown_share", "val_recut_share", "test_unknown_share", "test_recut_share"),
)
"""Fields of `TrialResult` that only students with fewer pieces than their tokenizer's have."""


@dataclass(frozen=True, kw_only=True)
class ToldVerdict:
    """Records the verdict that was sent to W&B."""

    number: int
    """How many times a verdict has been sent, this time included: more trials can change it."""
    summary: Mapping[str, Any]
    """The summary of its W&B run."""


@dataclass(frozen=True, kw_only=True)
class Pages:
    """Records where W&B has the view and the report of a sweep, so that both are updated and never made twice."""

    view_url: str
    """The saved view of the project, which all its sweeps share."""
    report_url: str
    report_id: str
    """W&B's id of the report, by which it is written again."""


def finalist_of(trial: TrialId, round_: int) -> Finalist | None:
    """Return the seed and round that the record holds of a finalist; None for a trial of the search."""
    return None if trial.seed is None else Finalist(seed=trial.seed, round=round_)


def validated(last: EpochMetrics | None) -> dict[str, Any]:
    """Return a result's validation metrics, from the last epoch; each is None without an epoch."""
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
    """Return the result of a trial that did not finish a training of its own: its worker died, or its answer was in the record."""
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
