"""Run one trial, from its config to its saved student."""

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from kdsweep.config.lengths import evaluations_of, unit_of
from kdsweep.config.trial import TrialConfig
from kdsweep.config.yaml import plain_values
from kdsweep.errors import ConfigError, KDSweepError, ResultsError, Superseded, TrialFailed
from kdsweep.records.layout import TrialId
from kdsweep.records.schema import (
    Attempt,
    EpochMetrics,
    Status,
    StepMetrics,
    TrialResult,
    finalist_of,
    validated,
)
from kdsweep.records.writing import TrialFolder
from kdsweep.system.files import drafting
from kdsweep.tracking.tracker import Run
from kdsweep.training.checkpoints import NO_CHECKPOINTING, Checkpointing
from kdsweep.training.evaluation import Evaluation, Speed
from kdsweep.training.fast import machine
from kdsweep.training.fast.team import leading
from kdsweep.training.final_test import open_test
from kdsweep.training.loop import distill
from kdsweep.training.models import parameter_count, weights_sha256
from kdsweep.training.objective import Objective, objective_of
from kdsweep.training.shared import Materials
from kdsweep.training.state import Training
from kdsweep.training.trained_vocabulary import VocabularyUse


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Identifies one run: arm, trial number, finalist's seed, attempt."""

    id: TrialId
    round: int = 0
    """The finalist's round, as in `schema.Finalist`; 0 for a trial of the search."""
    attempt: int = 1
    owner: str = "-"
    """The process that runs the trial."""
    violates: tuple[str, ...] = ()
    """Constraints of the study that the trial's student breaks."""
    form: str | None = None
    """The exported form that these constraints mean; None where it is the student as it is trained."""
    form_costs: Mapping[str, float] = field(default_factory=dict)
    """What the student costs in that form, by the names of the constraints."""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Holds what a trial calls: `on_steps` with the steps read, `on_epoch` with an epoch; where that returns True, the trial is pruned.

    `on_kept` gets each epoch that an earlier attempt has finished.
    """

    on_steps: Callable[[Sequence[StepMetrics]], None]
    on_epoch: Callable[[EpochMetrics], bool]
    on_kept: Callable[[EpochMetrics], None] = lambda _: None


def run_trial(
    config: TrialConfig,
    slot: Slot,
    folder: TrialFolder,
    materials: Materials,
    run: Run,
    watch: Watch,
    checkpointing: Checkpointing = NO_CHECKPOINTING,
    *,
    make_objective: Callable[[TrialConfig], Objective] = objective_of,
) -> TrialResult:
    """Train, evaluate and save one student; return its result, which is written to `folder` too.

    Continues from the checkpoint of an attempt that was cut off. A trial that fails by itself (a loss that is not finite, a row that
    does not fit in memory) gives a failed result. All else is raised; a bug with its traceback in the folder.

    `make_objective` makes the training's objective. The record holds the config alone: `reproduce` repeats the trial with `objective_of`.
    """
    outcome = _Outcome()
    _check(config, make_objective)
    folder.start(config)
    machine.set_up(int(config.threads))
    log = _Log(slot, folder, run, watch)
    checkpoints = checkpointing.of(folder.checkpoints, folder.config_text())
    try:
        rows, student, objective = materials.rows(config), materials.student(config), make_objective(config)
        with leading(config, folder.path) as team:
            training, evaluation = distill(
                student,
                *rows,
                config,
                on_start=log.start,
                on_steps=log.steps,
                on_epoch=log.epoch,
                objective=objective,
                teacher=materials.online_teacher(config) if objective.teacher_outputs else None,
                checkpoints=checkpoints,
                team=team,
            )
        _measure_and_save(training, evaluation, config, materials, log, outcome)
    except (TrialFailed, torch.OutOfMemoryError) as failure:
        outcome.status, outcome.error = "failed", str(failure)
        folder.write_log(traceback.format_exc())
    except (Superseded, KDSweepError):
        raise  # another process has the folder; or the message is enough, and the disk may be full
    except Exception:
        with suppress(ResultsError):
            folder.write_log(traceback.format_exc())
        raise
    result = _result(config, materials, log, outcome)
    run.summarise(result.summary())
    folder.finish(result)
    return result


@dataclass(kw_only=True)
class _Outcome:
    """Holds what a running trial has measured so far; where it fails, the other fields keep their defaults."""

    started: float = field(default_factory=time.perf_counter)
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    status: Status = "complete"
    error: str | None = None
    parameters: int | None = None
    speed: Speed | None = None
    micro_batches: int = 1
    weights_sha256: str | None = None
    size_mb: float | None = None
    truncated_rows: Mapping[str, int] = field(default_factory=dict)
    shortcuts: Mapping[str, str] = field(default_factory=dict)
    vocabulary: VocabularyUse | None = None


def _check(config: TrialConfig, make_objective: Callable[[TrialConfig], Objective]) -> None:
    """Check that a trial can run. Raises ConfigError for an `auto` left in it, and where its processes would train for different objectives."""
    if config.unresolved():
        raise ConfigError(f"a trial runs with every auto resolved, but {', '.join(config.unresolved())} still say auto")
    if config.devices_per_trial > 1 and make_objective is not objective_of:
        raise ConfigError(
            f"devices_per_trial must be 1 for an objective that the config does not name, but got {config.devices_per_trial}: "
            "the trial's other processes make theirs from its config.yaml"
        )


def _measure_and_save(
    training: Training,
    evaluation: Evaluation,
    config: TrialConfig,
    materials: Materials,
    log: "_Log",
    outcome: _Outcome,
) -> None:
    """Measure a trained student, save it unless it was pruned, and open the test split for a finalist."""
    student, folder, tested = training.student, log.folder, None
    outcome.speed, outcome.parameters = materials.speed(config), parameter_count(student)
    outcome.micro_batches, outcome.weights_sha256 = training.micro_batches, weights_sha256(student)
    outcome.shortcuts = training.shortcuts
    folder.write_predictions(evaluation.predictions())
    if log.pruned:
        outcome.status = "pruned"
        outcome.error = (
            f"pruned after {unit_of(config)} {len(log.epochs)} of {evaluations_of(config)}: others were ahead"
        )
    else:
        outcome.size_mb = save_student(student, materials.student_tokenizer(config), folder.student)
        if log.slot.id.seed is not None and (tested := open_test(student, config, materials, folder)):
            log.run.summarise({f"test_{name}": value for name, value in tested.items()})
    outcome.truncated_rows = materials.student_truncated_rows(config, test=tested is not None)
    outcome.vocabulary = materials.vocabulary_use(config, test=tested is not None)


class _Log:
    """Writes every step and epoch to the record first, then to W&B, then passes it to the `Watch`."""

    def __init__(self, slot: Slot, folder: TrialFolder, run: Run, watch: Watch) -> None:
        self.slot, self.folder, self.run, self._watch = slot, folder, run, watch
        self.epochs: list[EpochMetrics] = []
        self.pruned = False

    def start(self, training: Training) -> None:
        """Cut the record back to the step where training starts, add the attempt, and log what the record keeps to the attempt's W&B run."""
        steps, self.epochs, again = self.folder.cut_back(step=training.step, epochs=len(training.history))
        attempt = Attempt(
            attempt=self.slot.attempt,
            owner=self.slot.owner,
            from_step=training.step,
            steps_again=again,
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        self.folder.add_attempt(attempt)
        for epoch in self.epochs:
            self.run.log_steps([step for step in steps if step.epoch == epoch.epoch])
            self.run.log_epoch(epoch)
            self._watch.on_kept(epoch)
        self.run.log_steps([step for step in steps if step.epoch > len(self.epochs)])

    def steps_again(self) -> int:
        """Return how many steps were trained more than once, over all attempts."""
        return self.folder.steps_again()

    def steps(self, steps: Sequence[StepMetrics]) -> None:
        self.folder.add_steps(steps)
        self.run.log_steps(steps)
        self._watch.on_steps(steps)

    def epoch(self, epoch: EpochMetrics) -> bool:
        self.folder.add_epoch(epoch)
        self.run.log_epoch(epoch)
        self.epochs.append(epoch)
        self.pruned = self._watch.on_epoch(epoch)
        return self.pruned


def save_student(student: nn.Module, tokenizer: PreTrainedTokenizerBase, path: Path) -> float:
    """Save a student and its tokenizer, to be loaded with plain transformers; return the megabytes (10⁶ bytes) of its weights on disk.

    Raises ResultsError where the disk cannot be written, and then leaves no half-written student.
    """
    with drafting(path) as draft:
        student.save_pretrained(draft)  # type: ignore[operator]
        tokenizer.save_pretrained(draft)
    return sum(file.stat().st_size for file in path.glob("*.safetensors")) / 1e6


def _result(config: TrialConfig, materials: Materials, log: _Log, outcome: _Outcome) -> TrialResult:
    slot, run, speed, texts = log.slot, log.run, outcome.speed, materials.unlabeled(config)
    use = outcome.vocabulary
    last = log.epochs[-1] if log.epochs else None
    best = max(log.epochs, key=lambda epoch: (_accuracy_or_pearson(epoch), -epoch.epoch), default=None)
    return TrialResult(
        arm=slot.id.arm,
        trial=slot.id.number,
        finalist=finalist_of(slot.id, slot.round),
        violates=slot.violates,
        limited_form=slot.form,
        limited_latency_ms_p50=slot.form_costs.get("latency_ms_p50"),
        limited_size_mb=slot.form_costs.get("size_mb"),
        attempt=slot.attempt,
        status=outcome.status,
        error=outcome.error,
        **validated(last),
        best_epoch=best.epoch if best else None,
        best_val_accuracy=best.val_accuracy if best else None,
        epochs=len(log.epochs),
        steps=last.step if last else 0,
        parameters=outcome.parameters,
        size_mb=outcome.size_mb,
        latency_ms_p50=speed.latency_ms_p50 if speed else None,
        latency_ms_p95=speed.latency_ms_p95 if speed else None,
        rows_per_second=speed.rows_per_second if speed else None,
        train_seconds=sum(epoch.train_seconds for epoch in log.epochs),
        evaluate_seconds=sum(epoch.evaluate_seconds for epoch in log.epochs),
        seconds=time.perf_counter() - outcome.started,
        initial_weights_sha256=materials.initial_weights_sha256(config),
        teacher_weights_sha256=materials.teacher_sha256(config),
        data_sha256=materials.data(config).sha256(),
        unlabeled_sha256=texts.sha256 if texts else None,
        unlabeled_rows=len(texts) if texts else 0,
        unlabeled_dropped=texts.dropped if texts else {},
        environment=machine.environment(config.device),
        started_at=outcome.started_at,
        run_id=run.run_id,
        run_url=run.url,
        run_missing=run.missing,
        micro_batches=outcome.micro_batches,
        steps_again=log.steps_again(),
        weights_sha256=outcome.weights_sha256,
        config=plain_values(asdict(config)),
        truncated_rows=outcome.truncated_rows,
        shortcuts=outcome.shortcuts,
        vocabulary_pieces=use.pieces if use else None,
        vocabulary_whole=use.whole if use else None,
        val_unknown_share=use.validation.unknown_share if use else None,
        val_recut_share=use.validation.recut_share if use else None,
        test_unknown_share=use.test.unknown_share if use and use.test else None,
        test_recut_share=use.test.recut_share if use and use.test else None,
    )


def _accuracy_or_pearson(epoch: EpochMetrics) -> float:
    """Return an epoch's accuracy, or for regression Pearson's correlation."""
    found = epoch.val_pearson if epoch.val_accuracy is None else epoch.val_accuracy
    assert found is not None
    return found
