"""Fine-tune a teacher once, where the config asks for it.

It is kept in the cache by content: under the hash of the weights it starts from, the rows, their tokens and its recipe, with the kind of
device, and on a CPU its threads, which decide the last bits; its logits too (`teacher_logits`). A trial's T, alpha and batch size are part
of neither key. What the environment decides (versions of torch and transformers, the processor) is in the record but in no key: hosts that
share a cache share its teacher.
"""

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from kdsweep.config.trial import RECIPE_VERSION, TrialConfig
from kdsweep.config.trial_fields import TRIAL_DEFAULTS
from kdsweep.errors import ModelError, PreflightError, TrialFailed
from kdsweep.records.schema import EpochMetrics
from kdsweep.records.teacher_schema import TeacherEpoch
from kdsweep.system.files import Lock
from kdsweep.system.wheels import cache_root
from kdsweep.training.cache import arithmetic, scratch_folder
from kdsweep.training.data.splits import Data, SplitName
from kdsweep.training.data.tokens import TEACHER_LOGITS, Rows, Tokens, load_tokenizer
from kdsweep.training.loop import distill
from kdsweep.training.models import computation, freeze, label_columns, load_classifier, weights_sha256
from kdsweep.training.reader import check_forward
from kdsweep.training.state import Training
from kdsweep.training.tasks import balanced_weights, first_outputs, label_tensor
from kdsweep.training.teacher import (
    TEACHER_KEY,
    TEACHER_RECIPE,
    TEACHERS_ALONE,
    Teacher,
    TeacherWatch,
    teacher_address,
    teacher_trial,
)


@dataclass(frozen=True)
class Made:
    """Holds the content of `made.json`, which is written last, beside a cached teacher's weights."""

    weights_sha256: str
    seconds: float = 0.0
    epochs: Sequence[dict[str, Any]] = ()
    kept_epoch: int | None = None
    """The epoch whose weights these are, where that with the lowest validation loss is kept."""


def prepare_teacher(
    config: TrialConfig,
    data: Data,
    tokens: Mapping[str, Tokens],
    watch: TeacherWatch,
) -> Teacher:
    """Return the teacher that `config` names, frozen on its device; with `teacher_epochs` > 0, fine-tuned first or taken from the cache.

    `tokens` are the teacher's own, of train and validation. Computes with the CPU threads that torch is set to.
    """
    tuning = fine_tuning(config, data, tokens)
    if config.teacher_epochs == 0:
        made = Made(weights_sha256(tuning.pretrained))
        found = FineTuned(tuning.pretrained, made, from_cache=False)
    else:
        with tuning.lock() as lock:  # a second process waits, and finds it made
            lock.take(wait=True)
            found = tuning.result(watch)
    return Teacher(
        model=freeze(found.model.to(config.device)),
        pretrained=tuning.pretrained,
        columns=tuning.columns,
        weights_sha256=found.made.weights_sha256,
        task=data.task,
        epochs=tuple(TeacherEpoch(**epoch) for epoch in found.made.epochs),
        fine_tuned_seconds=found.made.seconds,
        from_cache=found.from_cache,
        kept_epochs=kept_epochs([found.made]),
    )


def kept_epochs(made: Iterable[Made]) -> tuple[int, ...]:
    """Return the epoch that each model was kept from; empty where that is the last anyway."""
    return tuple(one.kept_epoch for one in made if one.kept_epoch is not None)


class FineTuned(NamedTuple):
    """Holds a fine-tuned model, its record, and whether it was found in the cache."""

    model: nn.Module
    made: Made
    from_cache: bool


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """Describes the fine-tuning of one model in full; the hash of the description is its place in the cache."""

    config: TrialConfig
    data: Data
    tokens: Mapping[str, Tokens]
    pretrained: nn.Module
    columns: tuple[int, ...]
    left_out: np.ndarray | None = None
    """Numbers of the training rows that the model never sees; None: it sees all of them."""

    @cached_property
    def key(self) -> str:
        """Return the SHA-256 of everything but the environment that decides the fine-tuned weights to the last bit.

        It names the teacher's folder in the cache, and identifies its checkpoints.
        """
        trial = teacher_trial(self.config)
        recipe = [getattr(trial, name) for name in TEACHER_KEY]
        model = (weights_sha256(self.pretrained), computation(self.pretrained), list(self.columns))
        rows = (self.data.sha256(), [self.tokens[name].sha256() for name in ("train", "validation")])
        own = {name: getattr(self.config, name) for name in TEACHERS_ALONE}
        others: list[Any] = [{name: value for name, value in own.items() if value != TRIAL_DEFAULTS[name]}]
        others += [] if self.left_out is None else [hashlib.sha256(self.left_out.tobytes()).hexdigest()]
        parts = [model, rows, recipe, sorted(TEACHER_RECIPE.items()), arithmetic(trial.device), RECIPE_VERSION]
        return hashlib.sha256(json.dumps([*parts, *(part for part in others if part)]).encode()).hexdigest()

    def rows(self) -> int:
        """Return how many training rows the model sees."""
        return len(self.data.train) - (0 if self.left_out is None else len(self.left_out))

    def folder(self) -> Path:
        """Return the folder of the fine-tuned model in the cache."""
        return cache_root() / "teachers" / self.key

    @contextmanager
    def lock(self) -> Iterator[Lock]:
        """Run the block with the lock that whoever fine-tunes this model holds; the block may take it, and its end gives it back."""
        lock = Lock(cache_root() / "locks" / f"{self.key}.lock")
        try:
            yield lock
        finally:
            lock.give_back()

    def result(self, watch: TeacherWatch) -> FineTuned:
        """Return the fine-tuned model: from the cache, or fine-tuned now. Whoever calls this holds the lock."""
        folder = self.folder()
        cached = self.cached()
        from_cache = cached is not None
        if cached is None:
            _fine_tune(self, folder, watch)
            cached = self.cached()
            assert cached is not None
        return FineTuned(*cached, from_cache)

    def cached(self) -> tuple[nn.Module, Made] | None:
        """Read the cached model; return None where there is none or its weights are not those that were written."""
        folder = self.folder()
        try:
            made = Made(**json.loads((folder / "made.json").read_text(encoding="utf-8")))
            model = load_classifier(str(folder), None, self.data.label_names, seed=0, task=self.data.task)
        except (OSError, ValueError, TypeError, ModelError):
            return None
        return (model, made) if weights_sha256(model) == made.weights_sha256 else None


def _classifier(address: str, revision: str | None, data: Data, *, seed: int) -> nn.Module:
    """Load the model at `address` as a classifier of the task and labels of `data`; a fresh head begins at `first_outputs`."""
    return load_classifier(address, revision, data.label_names, seed=seed, task=data.task, start=first_outputs(data))


def refused(failure: TrialFailed) -> PreflightError:
    """Return the error that stops a sweep whose teacher's fine-tuning failed."""
    return PreflightError(f"the teacher's fine-tuning failed: {failure} (here teacher_learning_rate)")


def fine_tuning(config: TrialConfig, data: Data, tokens: Mapping[str, Tokens]) -> FineTuning:
    """Load the model that `config` names as the teacher, check that it reads the rows, and describe its fine-tuning on all of them."""
    address = teacher_address(config)
    pretrained = _classifier(address, config.teacher_revision, data, seed=config.teacher_seed)
    columns = label_columns(pretrained.config, data.label_names, address, data.task)
    pretrained = freeze(pretrained.to(config.device))
    check_forward(pretrained, tokens["train"], address)
    return FineTuning(config=config, data=data, tokens=tokens, pretrained=pretrained, columns=tuple(columns))


def _fine_tune(tuning: FineTuning, folder: Path, watch: TeacherWatch) -> None:
    """Fine-tune the teacher and save it in the cache as `folder`, by rename, so that no half-written teacher is ever used."""
    started = time.perf_counter()
    trial = teacher_trial(tuning.config)
    model = _classifier(trial.student, trial.student_revision, tuning.data, seed=trial.seed).to(trial.device)
    train, validation = (_untaught(tuning, name, trial.device) for name in ("train", "validation"))
    if tuning.left_out is not None:
        train = train.take(np.setdiff1d(np.arange(len(train.labels)), tuning.left_out))
    epochs: list[dict[str, Any]] = []

    def record(epoch: EpochMetrics) -> bool:
        epochs.append({field.name: getattr(epoch, field.name) for field in dataclasses.fields(TeacherEpoch)})
        watch.on_epoch(TeacherEpoch(**epochs[-1]))
        return False

    def start(training: Training) -> None:
        for epoch in training.history:
            record(epoch)

    checkpoints = watch.checkpointing.of(cache_root() / "checkpoints" / folder.name, folder.name)
    training, _ = distill(
        model,
        train,
        validation,
        trial,
        on_start=start,
        on_steps=watch.on_steps,
        on_epoch=record,
        checkpoints=checkpoints,
        keep_lowest_loss=tuning.config.teacher_keep == "lowest_loss",
    )
    kept = training.kept.epoch if training.kept else None
    made = Made(weights_sha256(model), time.perf_counter() - started, epochs, kept)
    with scratch_folder(folder.parent) as scratch:
        model.save_pretrained(scratch / "teacher")  # type: ignore[operator]
        load_tokenizer(trial.student, trial.student_revision).save_pretrained(scratch / "teacher")
        (scratch / "teacher" / "made.json").write_text(json.dumps(dataclasses.asdict(made)), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        (scratch / "teacher").rename(folder)
    checkpoints.clear()


def _untaught(tuning: FineTuning, name: SplitName, device: str) -> Rows:
    """Return the rows of a split with labels in the order of the model's own columns, and zeros as teacher's logits, which alpha 0 leaves unused."""
    data, columns = tuning.data, torch.tensor(tuning.columns, device=device)
    given = label_tensor(data.split(name).labels).to(device)
    labels = given
    if data.task == "single_label":
        labels = columns[given]
    elif data.task == "multi_label":
        labels = given[:, columns.argsort()]
    nobody = torch.zeros(len(given), len(columns), device=device)
    return Rows(
        tokens=tuning.tokens[name],
        labels=labels,
        targets={TEACHER_LOGITS: nobody},
        task=data.task,
        hard_weights=balanced_weights(given, data) if tuning.config.class_weights == "balanced" else None,
    )
