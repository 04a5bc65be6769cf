"""Prepare a sweep, once, before its first trial: check the inputs, record the teacher, estimate a trial's seconds."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from kdsweep.analysis import metrics
from kdsweep.analysis.formats import truncated
from kdsweep.config.lengths import evaluations_of
from kdsweep.config.sweep import StudyConfig
from kdsweep.config.trial import FROM_TEACHER, TrialConfig
from kdsweep.errors import NAMES_SHOWN, DataError, PreflightError, TrialFailed, listed
from kdsweep.records.reading import read_teacher
from kdsweep.records.teacher_schema import TeacherEpoch, TeacherResult
from kdsweep.records.writing import TrialFolder
from kdsweep.tracking.tracker import Run
from kdsweep.training.data.order import labeled_share, steps_per_pass
from kdsweep.training.data.splits import Data, SplitName
from kdsweep.training.data.tokens import Rows, evaluation_batches
from kdsweep.training.fast import machine
from kdsweep.training.fine_tuning import refused
from kdsweep.training.folds import fold_of_rows
from kdsweep.training.loop import distill
from kdsweep.training.losses import hard_loss
from kdsweep.training.models import classes_of, is_order_assumed, parameter_count, size_mb
from kdsweep.training.objective import objective_of
from kdsweep.training.shared import Materials, student_source
from kdsweep.training.state import total_steps
from kdsweep.training.teacher import TeacherWatch, teacher_address, teacher_trial
from kdsweep.training.teacher_quality import out_of_fold_quality, quality
from kdsweep.training.unlike import strange_pieces, unlike_labelled

GAP_CLOSED = 0.04
"""Share of the gap between always naming the commonest class and a perfect score that a teacher must close: one below it has nothing to
teach. For two classes of one size that is 2 points; a perfect teacher passes however rare the other classes are."""
ERRORS_LEFT = 2 / 3
"""Share of a teacher's errors that may remain under another order of its classes for that order to be reported; `likelier_order` also
requires that the difference is no chance."""
UNKNOWN_WARNED = 0.1
"""Share of the texts' word pieces unknown to a tokenizer above which a warning is given."""
TIMED_BATCHES = 4
"""Batches of training rows that `estimated_seconds` times."""
WARNED_SHARE = 0.05
"""Share of a split's rows that `max_length` must cut for a warning."""


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
    result = _teacher_result(config, materials, run, logits_seconds=time.perf_counter() - started)
    _, validation = materials.teacher_rows(config)
    folder.write_predictions(validation.teacher_logits.argmax(dim=-1).cpu().numpy())
    write_rows(folder, materials.data(config))
    folder.finish(result)
    run.summarise(result.summary())
    return result


def write_rows(folder: TrialFolder, data: Data) -> None:
    """Write the classes of the validation and test rows into the teacher's folder, where all readers look for them."""
    folder.write_labels(data.validation.labels)
    if data.test is not None:
        folder.write_test_labels(data.test.labels)


def _teacher_result(config: TrialConfig, materials: Materials, run: Run, *, logits_seconds: float) -> TeacherResult:
    data, teacher, speed = materials.data(config), materials.teacher(config), materials.teacher_speed(config)
    train, validation = materials.teacher_rows(config)
    predicted = validation.teacher_logits.argmax(dim=-1)
    seen, unseen = materials.teacher_on_seen_rows(config), out_of_fold_quality(teacher, train)
    return TeacherResult(
        teacher=teacher_address(config),
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
        folds=len(teacher.members),
        kept_epochs=teacher.kept_epochs,
        val_ece=quality(validation.teacher_logits, validation.labels).ece,
        train_accuracy=seen.accuracy,
        train_loss=seen.loss,
        train_ece=seen.ece,
        out_of_fold_accuracy=unseen.accuracy if unseen else None,
        out_of_fold_loss=unseen.loss if unseen else None,
        out_of_fold_ece=unseen.ece if unseen else None,
    )


def check_inputs(
    materials: Materials, corners: Sequence[TrialConfig], *, largest_batch: int, splits: Sequence[SplitName]
) -> list[str]:
    """Check rows, teacher and students before the teacher is fine-tuned; return a warning for each tokenizer with many unknown pieces.

    Raises DataError for fewer training rows than `largest_batch`, and for a class with fewer texts than `teacher_folds`; ModelError for a
    teacher or student that cannot read the rows, or a student that cannot be made.
    """
    unknown: dict[str, float] = {}
    odd: dict[str, None] = {}
    for config in corners:
        rows = len(materials.data(config).train)
        if rows < largest_batch:
            raise DataError(f"batch_size <= training rows must hold, but got {largest_batch} and {rows} rows")
        if config.teacher_folds > 1:
            fold_of_rows(materials.data(config), config)
        readers = {student_source(config)[0]: materials.student_tokens}
        if config.teacher is not None:
            readers = {config.teacher: materials.teacher_tokens, **readers}
        for address, read in readers.items():
            shares = [read(config, name).unknown_share for name in splits]
            unknown[address] = max(unknown.get(address, 0.0), *shares)
            if config.has_unlabeled:
                odd.update(dict.fromkeys(strange_pieces(address, read(config, "unlabeled").unknown_share, max(shares))))
        materials.check_student(config)
    return [
        f"{share:.0%} of the texts' word pieces are unknown to the tokenizer of {address}, which reads all of them alike"
        for address, share in unknown.items()
        if share > UNKNOWN_WARNED
    ] + list(odd)


def preflight(materials: Materials, config: TrialConfig, study: StudyConfig) -> list[str]:
    """Check, before the first trial, that the teacher is worth learning from; return what `study.accept_weak_teacher` accepts, in words.

    Raises PreflightError for a teacher that gives the same rows other logits the second time; and, unless accepted, for one whose
    classes, matched by order alone, seem to be in another order, or that is hardly better than always naming the commonest class.
    """
    data, teacher = materials.data(config), materials.teacher(config)
    _, validation = materials.teacher_rows(config)
    batch = next(evaluation_batches(validation.tokens))
    for member in teacher.members:
        model = member.load()
        with torch.inference_mode():
            first, second = (model(**batch.inputs).logits for _ in range(2))
        if not torch.equal(first, second):
            raise PreflightError(
                "the teacher must be deterministic, but gives the same rows different logits the second time"
            )
    assumed = config.teacher_epochs == 0 and is_order_assumed(teacher.model, data.label_names)
    predicted = validation.teacher_logits.argmax(dim=-1).cpu().numpy()
    weak = (_other_order(data, predicted, classes_of(teacher.model)) if assumed else None) or _weakness(
        data, predicted, config, study.metric, assumed
    )
    notes = [note] if (note := unlike_labelled(materials, config)) else []
    if weak is None:
        return notes
    if not study.accept_weak_teacher:
        raise PreflightError(f"{weak}; study.accept_weak_teacher=true takes it as it is")
    return [f"as study.accept_weak_teacher wants it, this teacher is taken: {weak}", *notes]


def _weakness(data: Data, predicted: np.ndarray, config: TrialConfig, metric: str, assumed: bool) -> str | None:
    """Describe what is wrong with a teacher that is hardly better than always naming the commonest class; return None for a better one.

    A teacher passes with score >= m + GAP_CLOSED (1 - m), where m is the `metric` of always naming the commonest training class, on
    validation. `assumed`: its classes are matched with the dataset's by order alone.
    """
    commonest = np.bincount(data.train.labels).argmax()
    score, majority = (
        _score(metric, named, data) for named in (predicted, np.full_like(data.validation.labels, commonest))
    )
    needed = majority + GAP_CLOSED * (1 - majority)
    if score >= needed:
        return None
    order = (
        "; or see whether its classes are in another order than label_names, which nothing but the order matches "
        f"(now {listed(data.label_names)})"
    )
    return (
        f"the teacher must close {GAP_CLOSED:.0%} of the gap between always naming the commonest class and a perfect {metric} on "
        f"validation, but has {100 * score:.2f} against {100 * majority:.2f} ({100 * needed:.2f} would do): it has nothing to teach. "
        f"Train it first or longer (teacher_epochs, now {config.teacher_epochs}), or name a teacher fine-tuned for these classes"
        f"{order if assumed else ''}"
    )


def _score(metric: str, predicted: np.ndarray, data: Data) -> float:
    return metrics.measure(metric, len(data.label_names))(predicted, data.validation.labels)


def _other_order(data: Data, predicted: np.ndarray, classes: Sequence[str]) -> str | None:
    """Describe what is wrong with a teacher that would be right much more often with its `classes` in another order; return None where
    there is no such order."""
    labels, names = data.validation.labels, data.label_names
    order = likelier_order(predicted, labels, len(names))
    if order is None:
        return None
    before, after = (100 * metrics.accuracy(named, labels) for named in (predicted, order[predicted]))
    meant = [names[place] for place in order]
    if classes[0].startswith("LABEL_"):
        moved = [f"{new} in place of {old}" for new, old in zip(meant, names, strict=True) if new != old]
        remedy = f"name that order in label_names: {listed(meant if len(meant) <= NAMES_SHOWN else moved)}"
    else:
        pairs = [f"{mine} is {theirs}" for mine, theirs in zip(meant, classes, strict=True)]
        remedy = f"give the dataset's classes the model's names: {listed(pairs)}"
    return (
        f"the teacher's classes and the dataset's are matched by their order alone, {listed(classes)} being {listed(names)}, which must be "
        f"right, but gives an accuracy of {before:.1f} on validation, and another order {after:.1f}; {remedy}"
    )


def likelier_order(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray | None:
    """Return, for each class that a teacher predicts, the class that it seems to mean, int [C]. Predictions and labels are int [N].

    Classes are paired one to one, greedily, the pair with the most rows in common first. Returns None where the new order leaves more than
    `ERRORS_LEFT` of the errors, changes nothing, or gains less than two standard errors: g - l < 2 sqrt(g + l), for g rows newly right
    and l newly wrong.
    """
    counts = 2 * metrics.confusion(predicted, labels, classes)
    counts = counts + np.eye(classes, dtype=int)  # among equal counts, the present order first
    order, taken = np.full(classes, -1), np.zeros(classes, dtype=bool)
    for cell in np.argsort(-counts, axis=None, kind="stable"):
        label, column = divmod(int(cell), classes)
        if order[column] < 0 and not taken[label]:
            order[column], taken[label] = label, True
    right, other = predicted == labels, order[predicted] == labels
    gains, losses = int((other & ~right).sum()), int((right & ~other).sum())
    clear = gains - losses >= 2 * (gains + losses) ** 0.5 > 0
    return order if clear and (~other).sum() <= ERRORS_LEFT * (~right).sum() else None


def truncation(materials: Materials, corners: Sequence[TrialConfig]) -> tuple[list[str], list[str]]:
    """Return what `max_length` cuts, in words, one line for each model and length; and the lines that are worth a warning."""
    several = len({(corner.teacher, corner.student, corner.student_body) for corner in corners}) > 1
    named: Callable[[str, str], str] = lambda role, address: (
        f"the {role} {address.partition('#')[0]}" if several else f"the {role}"
    )
    lines: dict[str, bool] = {}
    for corner in corners:
        texts = materials.unlabeled(corner)
        rows = {**materials.data(corner).sizes(), "unlabeled": len(texts) if texts else 0}
        cuts = {}
        if corner.teacher is not None:
            cuts[named("teacher", corner.teacher)] = materials.truncated_rows(corner, texts=True)
        if corner.student != FROM_TEACHER or corner.student_body:
            cuts[named("student", student_source(corner)[0])] = materials.student_truncated_rows(corner, test=False)
        for who, cut in cuts.items():
            many = any(count >= WARNED_SHARE * rows[name] for name, count in cut.items())
            lines[f"{corner.max_length} cuts {truncated(cut, rows)} for {who}"] = many
    return list(lines), [line for line, many in lines.items() if many]


def estimated_seconds(materials: Materials, config: TrialConfig) -> float:
    """Estimate the seconds that one trial of `config` takes here, from `TIMED_BATCHES` batches of a throwaway student on one device.

    (steps · seconds of a timed step + evaluations · seconds of an evaluation, scaled from the timed rows to all rows) / devices_per_trial.
    """
    train, validation = materials.rows(config)
    rng = np.random.default_rng(0)
    timed = train.take(_timed_rows(train, config, rng))
    held_out = rng.permutation(len(validation.labels))[: len(timed.labels)]
    passes = 3 if config.device.startswith("cuda") else 2  # the last is timed; on a GPU the second records graphs
    short = replace(config, epochs=passes, max_steps=None, learning_rate=1e-6)  # so small that the loss stays finite
    training, _ = distill(
        materials.student(config),
        timed,
        validation.take(held_out),
        short,
        on_steps=lambda _: None,
        on_epoch=lambda _: False,
        teacher=materials.online_teacher(config) if objective_of(config).teacher_outputs else None,
    )
    last = training.history[-1]
    step_seconds = last.train_seconds / steps_per_pass(timed, config)
    evaluate_seconds = last.evaluate_seconds * len(validation.labels) / len(held_out)
    seconds = total_steps(train, config) * step_seconds + evaluations_of(config) * evaluate_seconds
    return seconds / config.devices_per_trial


def _timed_rows(train: Rows, config: TrialConfig, rng: np.random.Generator) -> np.ndarray:
    """Draw `TIMED_BATCHES` batches of rows, with as many texts without labels as the batches of the training have; such texts last."""
    wanted, known = TIMED_BATCHES * config.batch_size, len(train.labels) - train.extra
    labeled = max(1, round(wanted * labeled_share(train, config))) if train.extra else wanted
    others = known + rng.permutation(train.extra)[: wanted - labeled]
    return np.concatenate([rng.permutation(known)[:labeled], others])
