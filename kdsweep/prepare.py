"""What happens once, before the first trial: every check, the teacher's record, and how long the sweep will take."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from kdsweep import machine
from kdsweep.config import FROM_TEACHER, TrialConfig
from kdsweep.distill import distill
from kdsweep.errors import DataError, PreflightError, TrialFailed
from kdsweep.losses import hard_loss
from kdsweep.materials import Materials
from kdsweep.models import parameter_count, size_mb
from kdsweep.records import TrialFolder, read_teacher
from kdsweep.results import TeacherEpoch, TeacherResult
from kdsweep.runs import Run
from kdsweep.teacher import TeacherWatch, teacher_trial
from kdsweep.tokens import evaluation_batches
from kdsweep.words import truncated

MARGIN_POINTS = 2.0
"""A teacher must beat always naming the commonest class by so many points of accuracy: below it has nothing to teach."""
TIMED_BATCHES = 4
WARNED_SHARE = 0.05
"""Of a split's rows: where `max_length` cuts so many, it is said aloud."""


def recorded_teacher(
    config: TrialConfig, folder: Path, materials: Materials, watch: TeacherWatch
) -> TeacherResult | None:
    """The teacher as the record has it, where it is this one on these rows; None where it has to be recorded (anew)."""
    found = read_teacher(folder)
    if found is None or found.data_sha256 != materials.data(config).sha256():
        return None
    machine.set_up(int(config.threads))
    teacher = materials.teacher(config, watch)
    materials.teacher_rows(config)
    same = found.weights_sha256 == teacher.weights_sha256
    return replace(found, from_cache=teacher.from_cache) if same else None


def run_teacher(
    config: TrialConfig, folder: TrialFolder, materials: Materials, run: Run, watch: TeacherWatch
) -> TeacherResult:
    """Fine-tune the teacher or take it from the cache, compute its logits, and record it like a trial."""
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
        raise PreflightError(f"the teacher's fine-tuning failed: {failure} (here teacher_learning_rate)") from failure
    for epoch in teacher.epochs[len(told) :]:  # of a teacher that was made before
        on_epoch(epoch)
    started = time.perf_counter()
    materials.teacher_rows(config)
    result = _teacher_result(config, materials, run, logits_seconds=time.perf_counter() - started)
    _, validation = materials.teacher_rows(config)
    folder.write_predictions(validation.teacher_logits.argmax(dim=-1).cpu().numpy())
    data = materials.data(config)
    folder.write_labels(data.validation.labels)
    if data.test is not None:
        folder.write_test_labels(data.test.labels)
    folder.finish(result)
    run.summarise(result.summary())
    return result


def _teacher_result(config: TrialConfig, materials: Materials, run: Run, *, logits_seconds: float) -> TeacherResult:
    data, teacher, speed = materials.data(config), materials.teacher(config), materials.teacher_speed(config)
    _, validation = materials.teacher_rows(config)
    predicted = validation.teacher_logits.argmax(dim=-1)
    return TeacherResult(
        teacher=config.teacher,
        val_accuracy=(predicted == validation.labels).double().mean().item(),
        val_loss=hard_loss(validation.teacher_logits, validation.labels).item(),
        majority_accuracy=data.majority_accuracy(),
        parameters=parameter_count(teacher.model),
        size_mb=size_mb(teacher.model),
        latency_ms_p50=speed.latency_ms_p50,
        latency_ms_p95=speed.latency_ms_p95,
        rows_per_second=speed.rows_per_second,
        weights_sha256=teacher.weights_sha256,
        data_sha256=data.sha256(),
        label_names=data.label_names,
        train_rows=len(data.train),
        validation_rows=len(data.validation),
        test_rows=len(data.test) if data.test else 0,
        duplicates_dropped=data.duplicates_dropped,
        fine_tuned_seconds=teacher.fine_tuned_seconds,
        logits_seconds=logits_seconds,
        from_cache=teacher.from_cache,
        environment=machine.environment(config.device),
        run_id=run.run_id,
        empty_texts_dropped=data.empty_texts_dropped,
        conflicting_texts=data.conflicting_texts,
        truncated_rows=materials.truncated_rows(config),
        run_url=run.url,
        run_missing=run.missing,
    )


def preflight(materials: Materials, config: TrialConfig, *, largest_batch: int) -> None:
    """Check, before any trial is paid for, that rows and teacher are worth learning from.

    Raises DataError for fewer rows than a batch; PreflightError for a teacher that gives the same rows other logits the
    second time, or is no better than always naming the commonest class.
    """
    data, teacher = materials.data(config), materials.teacher(config)
    if len(data.train) < largest_batch:
        raise DataError(f"batch_size <= training rows must hold, but got {largest_batch} and {len(data.train)} rows")
    _, validation = materials.teacher_rows(config)
    batch = next(evaluation_batches(validation.tokens))
    with torch.inference_mode():
        first, second = (teacher.model(**batch.inputs).logits for _ in range(2))
    if not torch.equal(first, second):
        raise PreflightError(
            "the teacher must be deterministic, but gives the same rows different logits the second time"
        )
    majority = 100 * data.majority_accuracy()
    accuracy = 100 * (validation.teacher_logits.argmax(dim=-1) == validation.labels).double().mean().item()
    if accuracy < majority + MARGIN_POINTS:
        raise PreflightError(
            f"the teacher must beat always naming the commonest class by {MARGIN_POINTS:g} points on validation, but has "
            f"{accuracy:.1f} against {majority:.1f}: it has nothing to teach. Train it first or longer (teacher_epochs, "
            f"now {config.teacher_epochs}), or name a teacher fine-tuned for these classes"
        )


def truncation(materials: Materials, corners: Sequence[TrialConfig]) -> tuple[list[str], list[str]]:
    """What `max_length` cuts, in words: a line a model and length; and those lines that are worth a warning."""
    several = len({(corner.teacher, corner.student) for corner in corners}) > 1
    named: Callable[[str, str], str] = lambda role, address: (
        f"the {role} {address.partition('#')[0]}" if several else f"the {role}"
    )
    lines: dict[str, bool] = {}
    for corner in corners:
        rows = materials.data(corner).sizes()
        cuts = {named("teacher", corner.teacher): materials.truncated_rows(corner)}
        if corner.student != FROM_TEACHER:
            cuts[named("student", corner.student)] = materials.student_truncated_rows(corner, test=False)
        for who, cut in cuts.items():
            many = any(count >= WARNED_SHARE * rows[name] for name, count in cut.items())
            lines[f"{corner.max_length} cuts {truncated(cut, rows)} for {who}"] = many
    return list(lines), [line for line, many in lines.items() if many]


def estimated_seconds(materials: Materials, config: TrialConfig) -> float:
    """How long one trial of `config` takes here, from a few timed batches of a throwaway student on one device."""
    train, validation = materials.rows(config)
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(train.labels))[: TIMED_BATCHES * config.batch_size]
    held_out = rng.permutation(len(validation.labels))[: len(rows)]
    passes = 3 if config.device.startswith("cuda") else 2  # the last is timed; the second records a GPU's steps
    short = replace(config, epochs=passes, learning_rate=1e-6)  # so small that the timing itself cannot fail
    training, _ = distill(
        materials.student(config),
        train.take(rows),
        validation.take(held_out),
        short,
        on_steps=lambda _: None,
        on_epoch=lambda _: False,
    )
    last = training.history[-1]
    train_seconds = last.train_seconds * len(train.labels) / len(rows)
    evaluate_seconds = last.evaluate_seconds * len(validation.labels) / len(held_out)
    return config.epochs * (train_seconds + evaluate_seconds) / config.devices_per_trial
