"""Record the teacher like a trial, once, before the first: its epochs, what it is worth, and the rows that all trials use."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdsweep.analysis.tasks import predicted
from kdsweep.config.tasks import TaskName
from kdsweep.config.trial import TrialConfig
from kdsweep.errors import TrialFailed
from kdsweep.records.reading import read_teacher
from kdsweep.records.teacher_schema import OTHER_TASKS, TeacherEpoch, TeacherResult
from kdsweep.records.writing import TrialFolder
from kdsweep.tracking.tracker import Run
from kdsweep.training.constant_answers import majority_accuracy, majority_scores
from kdsweep.training.data.splits import Data
from kdsweep.training.evaluation import measured
from kdsweep.training.fast import machine
from kdsweep.training.fine_tuning import refused
from kdsweep.training.losses import hard_loss
from kdsweep.training.models import parameter_count, size_mb
from kdsweep.training.shared import Materials
from kdsweep.training.teacher import TeacherWatch, teacher_address, teacher_trial
from kdsweep.training.teacher_quality import out_of_fold_quality


def recorded_teacher(
    config: TrialConfig, folder: Path, materials: Materials, watch: TeacherWatch
) -> TeacherResult | None:
    """Return the teacher's record in `folder` where its weights and rows are those of `config`; None where it must be recorded (again)."""
    found = read_teacher(folder)
    if found is None or found.data_sha256 != materials.data(config).sha256():
        return None
    machine.set_up(int(config.threads))
    if found.weights_sha256 != materials.teacher_sha256(config, watch):
        return None
    if config.teacher_file:
        return found
    materials.teacher_rows(config)
    return replace(found, from_cache=materials.teacher(config).from_cache)


def run_teacher(
    config: TrialConfig, folder: TrialFolder, materials: Materials, run: Run, watch: TeacherWatch
) -> TeacherResult:
    """Fine-tune the teacher or take it from the cache, compute its logits, and record it like a trial.

    Raises PreflightError where its fine-tuning fails.
    """
    folder.start(teacher_trial(config))
    machine.set_up(int(config.threads))

    told: list[TeacherEpoch] = []

    def on_epoch(epoch: TeacherEpoch) -> None:
        told.append(epoch)
        folder.add_epoch(epoch)
        run.log_epoch(epoch)
        watch.on_epoch(epoch)

    try:
        teacher = materials.teacher(config, replace(watch, on_epoch=on_epoch))
    except TrialFailed as failure:
        raise refused(failure) from failure
    for epoch in teacher.epochs[len(told) :]:  # those that the cache has of a teacher fine-tuned before
        on_epoch(epoch)
    started = time.perf_counter()
    materials.teacher_rows(config)
    result = _result(config, materials, run, logits_seconds=time.perf_counter() - started)
    _, validation = materials.teacher_rows(config)
    folder.write_predictions(predicted(validation.teacher_logits.cpu().numpy(), validation.task))
    write_rows(folder, materials.data(config))
    folder.finish(result)
    run.summarise(result.summary())
    return result


def write_rows(folder: TrialFolder, data: Data) -> None:
    """Write the labels of the validation and test rows into the teacher's folder, where all readers look for them."""
    folder.write_labels(data.validation.labels)
    if data.test is not None:
        folder.write_test_labels(data.test.labels)


def _result(config: TrialConfig, materials: Materials, run: Run, *, logits_seconds: float) -> TeacherResult:
    teacher, speed = materials.teacher(config), materials.teacher_speed(config)
    train, validation = materials.teacher_rows(config)
    found = measured(validation.teacher_logits, validation)
    loss = found["loss"]
    if validation.task == "single_label":  # in float32, as every record has it
        loss = hard_loss(validation.teacher_logits, validation.labels).item()
    seen, unseen = materials.teacher_on_seen_rows(config), out_of_fold_quality(teacher, train)
    return replace(
        unmeasured(teacher_address(config), config, materials, run),
        val_accuracy=found["accuracy"],
        val_loss=loss,
        val_ece=found["ece"],
        **other_metrics(found, validation.task),
        parameters=parameter_count(teacher.model),
        size_mb=size_mb(teacher.model),
        latency_ms_p50=speed.latency_ms_p50,
        latency_ms_p95=speed.latency_ms_p95,
        rows_per_second=speed.rows_per_second,
        fine_tuned_seconds=teacher.fine_tuned_seconds,
        logits_seconds=logits_seconds,
        from_cache=teacher.from_cache,
        folds=len(teacher.members),
        kept_epochs=teacher.kept_epochs,
        train_accuracy=seen.accuracy,
        train_loss=seen.loss,
        train_ece=seen.ece,
        out_of_fold_accuracy=unseen.accuracy if unseen else None,
        out_of_fold_loss=unseen.loss if unseen else None,
        out_of_fold_ece=unseen.ece if unseen else None,
    )


def other_metrics(found: Mapping[str, float | None], task: TaskName) -> dict[str, Any]:
    """Return the metrics that a teacher's record holds for multi_label and regression, from all that were measured; none for single_label."""
    return {} if task == "single_label" else {name: found[name.removeprefix("val_")] for name in OTHER_TASKS}


def unmeasured(address: str, config: TrialConfig, materials: Materials, run: Run) -> TeacherResult:
    """Return what the record of any teacher holds, a model or a file: its hash, the rows, the machine, the W&B run; all else is empty."""
    data = materials.data(config)
    return TeacherResult(
        teacher=address,
        val_accuracy=None,
        val_loss=None,
        majority_accuracy=majority_accuracy(data),
        majority_scores={} if data.task == "single_label" else majority_scores(data, data.validation.labels),
        task=data.task,
        parameters=None,
        size_mb=None,
        latency_ms_p50=None,
        rows_per_second=None,
        weights_sha256=materials.teacher_sha256(config),
        data_sha256=data.sha256(),
        label_names=data.label_names,
        train_rows=len(data.train),
        validation_rows=len(data.validation),
        test_rows=len(data.test) if data.test else 0,
        duplicates_dropped=data.duplicates_dropped,
        fine_tuned_seconds=0.0,
        logits_seconds=0.0,
        from_cache=False,
        environment=machine.environment(config.device),
        run_id=run.run_id,
        empty_texts_dropped=data.empty_texts_dropped,
        conflicting_texts=data.conflicting_texts,
        truncated_rows=materials.truncated_rows(config),
        run_url=run.url,
        run_missing=run.missing,
    )
