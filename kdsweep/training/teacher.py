"""Say what a teacher is, and what its fine-tuning is as a trial; `fine_tuning` does it."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from kdsweep.config.arms import FINE_TUNED
from kdsweep.config.roles import Role
from kdsweep.config.tasks import TaskName
from kdsweep.config.trial import TrialConfig
from kdsweep.config.trial_fields import ROLES
from kdsweep.records.schema import StepMetrics
from kdsweep.records.teacher_schema import TeacherEpoch
from kdsweep.training.checkpoints import NO_CHECKPOINTING, Checkpointing

TEACHER_RECIPE: dict[str, float] = {"warmup_ratio": 0.1, "weight_decay": 0.01, "max_grad_norm": 1.0}
"""Settings of every teacher's fine-tuning, whatever the students' are."""

TEACHER_SETTINGS = {name: f"teacher_{name}" for name in ROLES if f"teacher_{name}" in ROLES}
"""For each field of the trial that fine-tunes the teacher, the teacher's field that sets it: `epochs` from `teacher_epochs`, …"""

_BY_CONTENT = {"teacher", "teacher_revision", "teacher_file", "teacher_threads"}
"""Fields that enter the key of the teacher's cache by their effect: the hash of the weights, and the number of threads."""
_OWN_NAMES = {source: name for name, source in TEACHER_SETTINGS.items()}
_BY_VALUE = [name for name, role in ROLES.items() if role is Role.TEACHER and name not in _BY_CONTENT]
TEACHERS_ALONE = [n for n in _BY_VALUE if n == "class_weights" or (n.startswith("teacher_") and n not in _OWN_NAMES)]
"""Fields of the teacher that set none of the trial's, such as `teacher_folds`, and those newer ones that both share. Each enters the key under
its name, and only where it is not its default, so that the keys of the teachers that were cached before there was such a field stay."""
_OF_THE_TRIAL = {_OWN_NAMES.get(name, name) for name in _BY_VALUE if name not in TEACHERS_ALONE}
TEACHER_KEY = sorted(_OF_THE_TRIAL, key=list(ROLES).index)
"""All other fields with the teacher's role, under their names in the trial that fine-tunes the teacher; their values are in every key."""


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
    task: TaskName = "single_label"
    """What its logits mean."""

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
        student=teacher_address(config),
        student_revision=config.teacher_revision,
        student_body=None,
        student_vocabulary="full",
        **FINE_TUNED,
        label_smoothing=0.0,
        max_steps=None,
        warmup_ratio=TEACHER_RECIPE["warmup_ratio"],
        weight_decay=TEACHER_RECIPE["weight_decay"],
        max_grad_norm=TEACHER_RECIPE["max_grad_norm"],
    )


def teacher_address(config: TrialConfig) -> str:
    """Return where the weights of the teacher are, which must be a model: asked for nothing where it is a file."""
    assert config.teacher is not None, "a teacher_file has no weights"
    return config.teacher
