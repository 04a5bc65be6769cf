"""What the trials of a sweep share, each made on first use and kept: rows, tokens, teacher, logits, initial students.

Nothing is loaded twice in a process, whichever fields are searched: every material is kept under the fields it depends on. Initial
students are made again when a sweep asks for many: one for each seed would fill the memory.
"""

import copy
import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from kdsweep.config.roles import Role, Trait, having
from kdsweep.config.trial import FROM_TEACHER, ROLES, TrialConfig, decided_by
from kdsweep.training.data.splits import Data, SplitName, load_data
from kdsweep.training.data.tokens import Rows, Tokens
from kdsweep.training.evaluation import Speed, measure_speed
from kdsweep.training.fast import machine
from kdsweep.training.models import model_config, size_mb, weights_sha256
from kdsweep.training.reader import Reader, check_forward, reader
from kdsweep.training.students import chosen_layers, load_student, student_from_teacher
from kdsweep.training.teacher import UNWATCHED, Teacher, TeacherWatch, prepare_teacher, teacher_targets

STUDENTS_KEPT = 4
"""Initial students in memory, those used last."""

SPEED_FIELDS = sorted(having(TrialConfig, Trait.SPEED), key=lambda name: -min(ROLES[name], Role.STUDENT_TOKENS))
"""What the student's speed depends on: the student's fields, the teacher's, the tokens', as sweeps have them in their records."""

Made = TypeVar("Made")


class Materials:
    """The shared materials of one process."""

    def __init__(self) -> None:
        self._made: dict[tuple[Any, ...], Any] = {}
        self._students: list[tuple[Any, ...]] = []
        """Keys of the initial students, the last used last."""

    def data(self, config: TrialConfig) -> Data:
        """The rows of every split."""
        return self._once("data", config, decided_by(Role.TRAIN_ROWS), lambda: load_data(config))

    def teacher(self, config: TrialConfig, watch: TeacherWatch = UNWATCHED) -> Teacher:
        """The frozen teacher; `watch` sees it being fine-tuned, if it has to be."""

        def make() -> Teacher:
            tokens = {name: self.teacher_tokens(config, name) for name in ("train", "validation")}
            with machine.threads(int(config.teacher_threads)):
                return prepare_teacher(config, self.data(config), tokens, watch)

        return self._once("teacher", config, decided_by(Role.TEACHER), make)

    def teacher_tokens(self, config: TrialConfig, name: SplitName) -> Tokens:
        """A split as the teacher reads it. Raises ModelError where it cannot; like the student's, without its weights."""
        return self._tokens(config, self._reader(config.teacher, config.teacher_revision), name)

    def student_tokens(self, config: TrialConfig, name: SplitName) -> Tokens:
        """A split as the student reads it."""
        found = self._reader(*student_source(config))
        if config.student == FROM_TEACHER:
            found = dataclasses.replace(found, segments=False)  # which a DistilBERT has none for
        return self._tokens(config, found, name)

    def check_student(self, config: TrialConfig) -> None:
        """Raises ModelError for a student that cannot be made or used, as far as that can be known before there is a teacher."""
        if config.student == FROM_TEACHER:
            chosen_layers(model_config(config.teacher, config.teacher_revision), config.student_layers)
        else:
            check_forward(self.student(config), self.student_tokens(config, "train"), config.student)

    def student(self, config: TrialConfig) -> nn.Module:
        """A fresh student on its device: the same initial weights for the same fields, every time."""
        student: nn.Module = copy.deepcopy(self._initial_student(config)[0])
        return student.to(config.device)

    def initial_weights_sha256(self, config: TrialConfig) -> str:
        """Of the student at step 0."""
        return self._initial_student(config)[1]

    def rows(self, config: TrialConfig) -> tuple[Rows, Rows]:
        """Train and validation as the student meets them: its own tokens, and the teacher's logits of the same rows."""
        return self._student_rows(config, "train"), self._student_rows(config, "validation")

    def test_rows(self, config: TrialConfig) -> Rows | None:
        """Test as the student meets it, with the teacher's logits; None where there is no such split."""
        return None if self.data(config).test is None else self._student_rows(config, "test")

    def teacher_rows(self, config: TrialConfig) -> tuple[Rows, Rows]:
        """Train and validation as the teacher met them, with its logits."""
        return self._teacher_rows(config, "train"), self._teacher_rows(config, "validation")

    def teacher_test_rows(self, config: TrialConfig) -> Rows | None:
        """Test as the teacher meets it, with its logits; None where there is no such split."""
        return None if self.data(config).test is None else self._teacher_rows(config, "test")

    def truncated_rows(self, config: TrialConfig) -> dict[str, int]:
        """Rows of each split of which `max_length` cut the teacher's tokens."""
        names = _splits(test=self.data(config).test is not None)
        return {name: self.teacher_tokens(config, name).truncated_rows for name in names}

    def student_truncated_rows(self, config: TrialConfig, *, test: bool) -> dict[str, int]:
        """Rows of train, validation and, where it is opened, `test`, of which `max_length` cut the student's tokens."""
        return {name: self.student_tokens(config, name).truncated_rows for name in _splits(test=test)}

    def speed(self, config: TrialConfig) -> Speed:
        """Of the student: measured once for each architecture, so that trials of one size can be compared."""

        def measure() -> Speed:
            return measure_speed(self.student(config), self.rows(config)[1].tokens)

        return self._once("speed", config, SPEED_FIELDS, measure)

    def size_mb(self, config: TrialConfig) -> float:
        """Megabytes of the student's weights."""
        return size_mb(self._initial_student(config)[0])

    def architecture(self, config: TrialConfig) -> str:
        """What the student's speed depends on, in one line."""
        return json.dumps({name: getattr(config, name) for name in SPEED_FIELDS})

    def teacher_speed(self, config: TrialConfig) -> Speed:
        """Of the teacher, on the same validation rows."""
        measure = lambda: measure_speed(self.teacher(config).model, self.teacher_rows(config)[1].tokens)
        return self._once("teacher_speed", config, decided_by(Role.TEACHER), measure)

    def _once(self, kind: str, config: TrialConfig, fields: Sequence[str], make: Callable[[], Made]) -> Made:
        key = self._key(kind, config, fields)
        if key not in self._made:
            self._made[key] = make()
        made: Made = self._made[key]
        return made

    @staticmethod
    def _key(kind: str, config: TrialConfig, fields: Sequence[str]) -> tuple[Any, ...]:
        return (kind, *(getattr(config, name) for name in fields))

    def _initial_student(self, config: TrialConfig) -> tuple[nn.Module, str]:
        def make() -> tuple[nn.Module, str]:
            student = self._make_student(config)
            return student, weights_sha256(student)

        made = self._once("student", config, decided_by(Role.STUDENT), make)
        mine = self._key("student", config, decided_by(Role.STUDENT))
        self._students = [*(key for key in self._students if key != mine), mine]
        while len(self._students) > STUDENTS_KEPT:
            del self._made[self._students.pop(0)]
        return made

    def _make_student(self, config: TrialConfig) -> nn.Module:
        names = self.data(config).label_names
        if config.student != FROM_TEACHER:
            return load_student(config.student, config.student_revision, names, seed=config.seed)
        teacher = self.teacher(config)
        source = teacher.pretrained if config.student_init == "pretrained" else teacher.model
        return student_from_teacher(source, config.student_layers, names, seed=config.seed)

    def _teacher_rows(self, config: TrialConfig, name: SplitName) -> Rows:
        def make() -> Rows:
            tokens, teacher = self.teacher_tokens(config, name), self.teacher(config)
            labels = torch.from_numpy(self.data(config).split(name).labels).to(config.device)
            with machine.threads(int(config.teacher_threads)):
                return Rows(tokens=tokens, labels=labels, targets=teacher_targets(teacher, tokens))

        return self._once(f"teacher_rows of {name}", config, decided_by(Role.TEACHER), make)

    def _student_rows(self, config: TrialConfig, name: SplitName) -> Rows:
        def make() -> Rows:
            return dataclasses.replace(self._teacher_rows(config, name), tokens=self.student_tokens(config, name))

        return self._once(f"rows of {name}", config, decided_by(Role.STUDENT_TOKENS), make)

    def _reader(self, address: str, revision: str | None) -> Reader:
        key = ("reader", address, revision)
        if key not in self._made:
            self._made[key] = reader(address, revision)
        found: Reader = self._made[key]
        return found

    def _tokens(self, config: TrialConfig, found: Reader, name: SplitName) -> Tokens:
        split = self.data(config).split(name)
        make = lambda: found.tokens(split, max_length=config.max_length).to(config.device)
        segments = found.segments and split.pairs is not None
        kind = f"tokens of {name}, {found.address}, {found.revision}, {segments}"
        return self._once(kind, config, decided_by(Role.TOKENS), make)


def _splits(*, test: bool) -> tuple[SplitName, ...]:
    return ("train", "validation", "test") if test else ("train", "validation")


def student_source(config: TrialConfig) -> tuple[str, str | None]:
    """Where the student's tokenizer lies, and its revision: a from_teacher student reads the teacher's tokens."""
    if config.student == FROM_TEACHER:
        return config.teacher, config.teacher_revision
    return config.student, config.student_revision
