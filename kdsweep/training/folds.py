"""Fine-tune a teacher for each fold of the training rows, so that every labelled row is taught by one that has not seen it.

Each of the K teachers is fine-tuned without one stratified fold. A labelled training row gets the logits of the one that has not seen it
(cross-fitting: a teacher is over-confident on the rows that it was fine-tuned on; Dao et al. 2021, arXiv:2104.09732), and every other row
the mean of the K teachers' probabilities: an ensemble for the same price. Each teacher has its own place in the cache and its own
checkpoints, so several processes fine-tune different folds side by side.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from kdsweep.config.trial import TrialConfig
from kdsweep.errors import AssetError, DataError
from kdsweep.records.teacher_schema import TeacherEpoch
from kdsweep.training.data.numbering import strata
from kdsweep.training.data.splits import Data, Key
from kdsweep.training.data.tokens import Tokens
from kdsweep.training.fine_tuning import FineTuning, Made, fine_tuning, kept_epochs
from kdsweep.training.models import freeze
from kdsweep.training.teacher import Member, Teacher, TeacherWatch


def fold_of_rows(data: Data, config: TrialConfig) -> np.ndarray:
    """Return the fold of each training row, int64 [N], from 0 to `teacher_folds` - 1.

    Rows with the same text (pair) lie in one fold. Texts are shuffled by `split_seed`, as every cut of the rows is, and dealt out class by
    class (of labels and numbers, stratum by stratum): the folds' numbers of texts differ by one at most, in all and in each class. Raises
    DataError where a class or label has fewer texts than there are folds.
    """
    number: dict[Key, int] = {}
    text_of = np.array([number.setdefault(key, len(number)) for key in data.train.plain_keys()], dtype=np.int64)
    _, first = np.unique(text_of, return_index=True)
    labels, classes = data.train.labels[first], strata(data.train.labels[first])
    _check_texts(_texts_of(labels, data), data, config.teacher_folds)
    shuffled = np.random.default_rng(config.split_seed).permutation(len(first))
    order = shuffled[np.argsort(classes[shuffled], kind="stable")]
    fold_of_text = np.empty(len(first), dtype=np.int64)
    fold_of_text[order] = np.arange(len(order)) % config.teacher_folds
    folds: np.ndarray = fold_of_text[text_of]
    return folds


def _texts_of(labels: np.ndarray, data: Data) -> np.ndarray:
    """Return how many of the texts have each class or label, int64 [C], given their labels; of numbers, how many texts there are [1]."""
    if data.task == "single_label":
        return np.bincount(labels, minlength=len(data.label_names))
    return labels.sum(axis=0, dtype=np.int64) if data.task == "multi_label" else np.array([len(labels)])


def _check_texts(texts: np.ndarray, data: Data, folds: int) -> None:
    """Check that every fold can hold a text of every class or label, given the number of `texts` of each. Raises DataError where it cannot."""
    smallest = int(texts.argmin())
    if texts[smallest] >= folds:
        return
    if data.task == "regression":
        raise DataError(
            f"teacher_folds <= training texts must hold, but got {folds} and {texts[smallest]} texts; lower teacher_folds"
        )
    kind, kinds = ("class", "classes") if data.task == "single_label" else ("label", "labels")
    raise DataError(
        f"teacher_folds <= training texts of every {kind} must hold, but got {folds} and {texts[smallest]} of "
        f"{data.label_names[smallest]!r}; lower teacher_folds, or name the {kinds} to keep: label_names"
    )


def prepare_folds(config: TrialConfig, data: Data, tokens: Mapping[str, Tokens], watch: TeacherWatch) -> Teacher:
    """Return the teachers of all folds as one ensemble, each fine-tuned first or taken from the cache; its `model` is the first fold's.

    Folds that other processes fine-tune at the moment are waited for at the end, and taken over from one that dies. Computes with the
    CPU threads that torch is set to. Raises DataError where a class has fewer texts than there are folds.
    """
    fold_of = fold_of_rows(data, config)
    each = tunings(fine_tuning(config, data, tokens), fold_of, config.teacher_folds)
    found = fine_tune_folds(each, watch, wait=False)
    found |= fine_tune_folds({fold: tuning for fold, tuning in each.items() if fold not in found}, watch, wait=True)
    made = [found[fold][0] for fold in each]
    loads: list[Callable[[], nn.Module]] = []
    for tuning, one in zip(each.values(), made, strict=True):
        loads.append(functools.partial(_load, tuning, one))
    model = loads[0]()
    loads[0] = lambda: model
    return Teacher(
        model=model,
        pretrained=each[0].pretrained,
        columns=each[0].columns,
        task=data.task,
        weights_sha256=hashlib.sha256("".join(one.weights_sha256 for one in made).encode()).hexdigest(),
        epochs=_mean_epochs([one.epochs for one in made]),
        fine_tuned_seconds=sum(one.seconds for one in made),
        from_cache=all(from_cache for _, from_cache in found.values()),
        kept_epochs=kept_epochs(made),
        ensemble=tuple(
            Member(weights_sha256=one.weights_sha256, load=load) for one, load in zip(made, loads, strict=True)
        ),
        fold_of=fold_of,
    )


def help_with_folds(config: TrialConfig, data: Data, tokens: Mapping[str, Tokens], watch: TeacherWatch) -> None:
    """Fine-tune the teachers of those folds that no other process fine-tunes, one after the other, into the cache."""
    each = tunings(fine_tuning(config, data, tokens), fold_of_rows(data, config), config.teacher_folds)
    fine_tune_folds(each, watch, wait=False)


def tunings(whole: FineTuning, fold_of: np.ndarray, folds: int) -> dict[int, FineTuning]:
    """Return, by fold, the fine-tuning of the teacher that does not see it."""
    return {fold: dataclasses.replace(whole, left_out=np.flatnonzero(fold_of == fold)) for fold in range(folds)}


def fine_tune_folds(each: Mapping[int, FineTuning], watch: TeacherWatch, *, wait: bool) -> dict[int, tuple[Made, bool]]:
    """Fine-tune the teachers of the folds that no other process holds, or with `wait` of all, unless the cache has them.

    Returns by fold how its teacher was made, and whether the cache had it. One model at a time is in memory.
    """
    found = {}
    for fold, tuning in each.items():
        with tuning.lock() as lock:
            if lock.take(wait=wait):
                result = tuning.result(watch.of_fold(fold, tuning.rows()))
                found[fold] = (result.made, result.from_cache)
    return found


def _load(tuning: FineTuning, made: Made) -> nn.Module:
    """Load the teacher of a fold from the cache, frozen. Raises AssetError where it is no longer there."""
    cached = tuning.cached()
    if cached is None or cached[1].weights_sha256 != made.weights_sha256:
        raise AssetError(
            f"the cache must keep {tuning.folder()} while a sweep runs, but its teacher is gone or another; the same command makes it again"
        )
    return freeze(cached[0].to(tuning.config.device))


def _mean_epochs(members: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[TeacherEpoch, ...]:
    """Return the means over the members of each epoch's losses and metrics, with the first member's steps and the sum of the seconds."""
    return tuple(_mean_epoch([TeacherEpoch(**epoch) for epoch in epochs]) for epochs in zip(*members, strict=True))


def _mean_epoch(epochs: Sequence[TeacherEpoch]) -> TeacherEpoch:
    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]  # all or none: they are of one task
        return float(np.mean(known)) if known else None

    return dataclasses.replace(
        epochs[0],
        L_hard=float(np.mean([epoch.L_hard for epoch in epochs])),
        val_accuracy=mean([epoch.val_accuracy for epoch in epochs]),
        val_loss=float(np.mean([epoch.val_loss for epoch in epochs])),
        train_seconds=sum(epoch.train_seconds for epoch in epochs),
        val_example_f1=mean([epoch.val_example_f1 for epoch in epochs]),
        val_pearson=mean([epoch.val_pearson for epoch in epochs]),
    )
