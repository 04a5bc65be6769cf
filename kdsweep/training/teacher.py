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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from kdsweep.config.roles import Role
from kdsweep.config.sweep import TRIAL_DEFAULTS
from kdsweep.config.trial import RECIPE_VERSION, ROLES, TrialConfig
from kdsweep.errors import ModelError
from kdsweep.records.schema import EpochMetrics, StepMetrics, TeacherEpoch
from kdsweep.system.files import Lock
from kdsweep.system.wheels import cache_root
from kdsweep.training.cache import arithmetic, scratch_folder
from kdsweep.training.checkpoints import NO_CHECKPOINTING, Checkpointing
from kdsweep.training.data.splits import Data, SplitName
from kdsweep.training.data.tokens import TEACHER_LOGITS, Rows, Tokens, load_tokenizer
from kdsweep.training.loop import distill
from kdsweep.training.models import computation, freeze, label_columns, load_classifier, weights_sha256
from kdsweep.training.reader import check_forward
from kdsweep.training.state import Training

TEACHER_RECIPE: dict[str, float] = {"warmup_ratio": 0.1, "weight_decay": 0.01, "max_grad_norm": 1.0}
"""Settings of every teacher's fine-tuning, whatever the students' are."""

TEACHER_SETTINGS = {name: f"teacher_{name}" for name in ROLES if f"teacher_{name}" in ROLES}
"""For each field of the trial that fine-tunes the teacher, the teacher's field that sets it: `epochs` from `teacher_epochs`, …"""

NO_TEXTS: dict[str, Any] = {
    **{name: TRIAL_DEFAULTS[name] for name, role in ROLES.items() if role is Role.UNLABELED},
    "unlabeled_share": None,
    "pseudo_labels": False,
}
"""Fields of a training without texts that have no label."""

_BY_CONTENT = {"teacher", "teacher_revision", "teacher_threads"}
"""Fields that enter the key of the teacher's cache by their effect: the hash of the weights, and the number of threads."""
_OWN_NAMES = {source: name for name, source in TEACHER_SETTINGS.items()}
_BY_VALUE = [name for name, role in ROLES.items() if role is Role.TEACHER and name not in _BY_CONTENT]
TEACHERS_ALONE = [name for name in _BY_VALUE if name.startswith("teacher_") and name not in _OWN_NAMES]
"""Fields of the teacher that set none of the trial's, such as `teacher_folds`. Each enters the key under its name, and only where it is not
its default, so that the keys of the teachers that were cached before there was such a field stay."""
_OF_THE_TRIAL = {_OWN_NAMES.get(name, name) for name in _BY_VALUE if name not in TEACHERS_ALONE}
TEACHER_KEY = sorted(_OF_THE_TRIAL, key=list(ROLES).index)
"""All other fields with the teacher's role, under their names in the trial that fine-tunes the teacher; their values are in every key."""
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(TrialConfig)}


@dataclass(frozen=True, kw_only=True)
class Member:
    """Holds one of a teacher's models, which may lie in the cache until it is needed."""

    weights_sha256: str
    load: Callable[[], nn.Module]
    """Returns the frozen model on its device."""


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Holds a frozen classifier, and how it was made; with `teacher_folds` > 1, an ensemble of such classifiers."""

    model: nn.Module
    """The classifier; of an ensemble, the first fold's."""
    pretrained: nn.Module
    """The model before its fine-tuning here: the same weights where `teacher_epochs` is 0."""
    columns: tuple[int, ...]
    """For each class of the dataset, the logit column of that class."""
    weights_sha256: str
    """Hash of the weights; of an ensemble, of its members' hashes."""
    epochs: tuple[TeacherEpoch, ...]
    """The epochs of its fine-tuning; of an ensemble, means over the members."""
    fine_tuned_seconds: float
    """Seconds of its fine-tuning, of all members together, on whichever host did it; 0 without one."""
    from_cache: bool
    """Whether a teacher fine-tuned before was found in the cache."""
    kept_epochs: tuple[int, ...] = ()
    """For each member the epoch whose weights were kept; empty where `teacher_keep` is last."""
    ensemble: tuple[Member, ...] = ()
    """With folds, the teacher of each; empty for one teacher."""
    fold_of: np.ndarray | None = None
    """With folds, the fold of each training row [N], which is the one member that has not seen it; None for one teacher."""

    @property
    def members(self) -> tuple[Member, ...]:
        """Return all models of the teacher: of one teacher, its only one."""
        return self.ensemble or (Member(weights_sha256=self.weights_sha256, load=lambda: self.model),)


@dataclass(frozen=True, kw_only=True)
class TeacherWatch:
    """Holds what a teacher's fine-tuning calls with its steps and epochs, and how it is checkpointed."""

    on_steps: Callable[[Sequence[StepMetrics]], None]
    on_epoch: Callable[[TeacherEpoch], None]
    checkpointing: Checkpointing = NO_CHECKPOINTING
    on_fold: Callable[[int, int], "TeacherWatch"] | None = None
    """Returns the watch of one fold's fine-tuning, from the fold's number and the rows that its teacher sees; None: nobody watches."""

    def of_fold(self, number: int, rows: int) -> "TeacherWatch":
        """Return the watch of the fine-tuning of one fold's teacher, which sees `rows` rows."""
        return (
            self.on_fold(number, rows)
            if self.on_fold
            else dataclasses.replace(UNWATCHED, checkpointing=self.checkpointing)
        )


UNWATCHED = TeacherWatch(on_steps=lambda _: None, on_epoch=lambda _: None)


@dataclass(frozen=True)
class Made:
    """Holds the content of `made.json`, which is written last, beside a cached teacher's weights."""

    weights_sha256: str
    seconds: float = 0.0
    epochs: Sequence[dict[str, Any]] = ()


def teacher_trial(config: TrialConfig) -> TrialConfig:
    """Return the config of the teacher's fine-tuning as a trial: alpha 0, and the teacher's hyperparameters in place of the student's.

    Returns `config` unchanged for a teacher that is not fine-tuned here (`teacher_epochs` 0).
    """
    if config.teacher_epochs == 0:
        return config
    settings = {name: getattr(config, source) for name, source in TEACHER_SETTINGS.items()}
    return dataclasses.replace(
        config,
        **settings,
        student=config.teacher,
        student_revision=config.teacher_revision,
        alpha=0.0,
        temperature=1.0,
        **NO_TEXTS,
        max_steps=None,
        warmup_ratio=TEACHER_RECIPE["warmup_ratio"],
        weight_decay=TEACHER_RECIPE["weight_decay"],
        max_grad_norm=TEACHER_RECIPE["max_grad_norm"],
    )


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
        epochs=tuple(TeacherEpoch(**epoch) for epoch in found.made.epochs),
        fine_tuned_seconds=found.made.seconds,
        from_cache=found.from_cache,
    )


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
        others: list[Any] = [{name: value for name, value in own.items() if value != _DEFAULTS[name]}]
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
            model = load_classifier(str(folder), None, self.data.label_names, seed=0)
        except (OSError, ValueError, TypeError, ModelError):
            return None
        return (model, made) if weights_sha256(model) == made.weights_sha256 else None


def fine_tuning(config: TrialConfig, data: Data, tokens: Mapping[str, Tokens]) -> FineTuning:
    """Load the model that `config` names as the teacher, check that it reads the rows, and describe its fine-tuning on all of them."""
    pretrained = load_classifier(config.teacher, config.teacher_revision, data.label_names, seed=config.teacher_seed)
    columns = label_columns(pretrained.config, data.label_names, config.teacher)
    pretrained = freeze(pretrained.to(config.device))
    check_forward(pretrained, tokens["train"], config.teacher)
    return FineTuning(config=config, data=data, tokens=tokens, pretrained=pretrained, columns=tuple(columns))


def _fine_tune(tuning: FineTuning, folder: Path, watch: TeacherWatch) -> None:
    """Fine-tune the teacher and save it in the cache as `folder`, by rename, so that no half-written teacher is ever used."""
    started = time.perf_counter()
    trial, names = teacher_trial(tuning.config), tuning.data.label_names
    model = load_classifier(trial.student, trial.student_revision, names, seed=trial.seed).to(trial.device)
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
    distill(
        model,
        train,
        validation,
        trial,
        on_start=start,
        on_steps=watch.on_steps,
        on_epoch=record,
        checkpoints=checkpoints,
    )
    made = Made(weights_sha256(model), time.perf_counter() - started, epochs)
    with scratch_folder(folder.parent) as scratch:
        model.save_pretrained(scratch / "teacher")  # type: ignore[operator]
        load_tokenizer(trial.student, trial.student_revision).save_pretrained(scratch / "teacher")
        (scratch / "teacher" / "made.json").write_text(json.dumps(dataclasses.asdict(made)), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        (scratch / "teacher").rename(folder)
    checkpoints.clear()


def _untaught(tuning: FineTuning, name: SplitName, device: str) -> Rows:
    """Return the rows of a split with the model's own columns as classes, and zeros as teacher's logits, which alpha 0 leaves unused."""
    split = tuning.data.split(name)
    labels = torch.tensor(tuning.columns, device=device)[torch.from_numpy(split.labels).to(device)]
    nobody = torch.zeros(len(split), len(tuning.columns), device=device)
    return Rows(tokens=tuning.tokens[name], labels=labels, targets={TEACHER_LOGITS: nobody})
