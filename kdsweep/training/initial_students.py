"""Make the students that trainings begin with, and keep those used last."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from kdsweep.config.roles import Role
from kdsweep.config.trial import FROM_TEACHER, TrialConfig
from kdsweep.config.trial_fields import decided_for_student
from kdsweep.training.data.splits import Data
from kdsweep.training.models import begin_at, say_task, weights_sha256
from kdsweep.training.students import load_student, student_from_teacher
from kdsweep.training.tasks import first_outputs
from kdsweep.training.trained_vocabulary import TrainedVocabulary, with_fewer_pieces

STUDENTS_KEPT = 4
"""Initial students kept in memory, those used last."""


class InitialStudent(NamedTuple):
    """Holds a student before its first step, and the SHA-256 of its weights."""

    model: nn.Module
    weights_sha256: str


class InitialStudents:
    """Makes initial students, equal ones for equal fields; others than those used last are made again, since one for each seed would fill
    the memory."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Any, ...], InitialStudent] = {}
        """The one used last stands last."""

    def of(
        self,
        config: TrialConfig,
        data: Data,
        body: Callable[[], nn.Module],
        vocabulary: TrainedVocabulary | None = None,
    ) -> InitialStudent:
        """Return the student that a training with `config` begins with; it is to be copied before it is trained.

        `body` returns the model whose layers a from_teacher student copies; `vocabulary`: what the student keeps of its pieces, None: all.
        """
        key = tuple(getattr(config, name) for name in decided_for_student(config, Role.STUDENT))
        found = self._kept.pop(key, None)
        self._kept[key] = found or _made(config, data, body, vocabulary)
        while len(self._kept) > STUDENTS_KEPT:
            del self._kept[next(iter(self._kept))]
        return self._kept[key]


def _made(
    config: TrialConfig, data: Data, body: Callable[[], nn.Module], vocabulary: TrainedVocabulary | None
) -> InitialStudent:
    names, task, start = data.label_names, data.task, first_outputs(data)
    if config.student != FROM_TEACHER:
        student = load_student(config.student, config.student_revision, names, seed=config.seed, task=task, start=start)
    else:
        student = student_from_teacher(body(), config.student_layers, names, seed=config.seed)
        say_task(student, task)
        if start is not None:
            begin_at(student, start)
    if vocabulary is not None:
        student = with_fewer_pieces(student, vocabulary)
    return InitialStudent(student, weights_sha256(student))
