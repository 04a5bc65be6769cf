"""Make what the trials of a sweep share on first use, and keep it: rows, tokens, teacher, logits, initial students.

Nothing is loaded twice in a process, whichever fields are searched: every material is kept under the fields on which it depends. Of the
initial students only those used last are kept.
"""

import copy
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from kdsweep.config.roles import Role, Trait, having
from kdsweep.config.trial import FROM_TEACHER, TrialConfig
from kdsweep.config.trial_fields import ROLES, TEXT_FIELDS, decided_by, decided_without_texts
from kdsweep.training.data.splits import Data, SplitName, load_data
from kdsweep.training.data.tokens import Rows, Tokens
from kdsweep.training.data.unlabeled import Unlabeled, load_unlabeled
from kdsweep.training.evaluation import Speed, measure_speed
from kdsweep.training.fast import machine
from kdsweep.training.file_rows import rows_of_file, targets_of_file
from kdsweep.training.fine_tuning import prepare_teacher
from kdsweep.training.folds import help_with_folds, prepare_folds
from kdsweep.training.initial_students import InitialStudent, InitialStudents
from kdsweep.training.joined import joined, joined_targets
from kdsweep.training.models import load_classifier, model_config, size_mb
from kdsweep.training.online import OnlineTeacher
from kdsweep.training.reader import Reader, reader
from kdsweep.training.students import reads_segments, student_source
from kdsweep.training.tasks import balanced_weights, label_tensor
from kdsweep.training.teacher import UNWATCHED, Teacher, TeacherWatch, teacher_address
from kdsweep.training.teacher_file import TeacherFile, read_teacher_file
from kdsweep.training.teacher_logits import teacher_targets
from kdsweep.training.teacher_quality import Quality, seen_quality

SPEED_FIELDS = sorted(having(TrialConfig, Trait.SPEED), key=lambda name: -min(ROLES[name], Role.STUDENT_TOKENS))
"""Fields on which the student's speed depends: the student's, the teacher's, the tokens', in the order that sweeps have in their records."""

RowsName = SplitName | Literal["unlabeled"]
Progress = Callable[[str, int, int], None]
"""Gets what is made of the texts without labels, of how many it is made, and how many there are."""
NO_PROGRESS: Progress = lambda what, done, texts: None

Made = TypeVar("Made")


class Materials:
    """Holds the shared materials of one process, each made on first use; `progress` is called while what takes long is made."""

    def __init__(self, progress: Progress = NO_PROGRESS) -> None:
        self._progress = progress
        self._made: dict[tuple[Any, ...], Any] = {}
        self._students = InitialStudents()

    def data(self, config: TrialConfig) -> Data:
        """Return the texts and labels of every split."""
        return self._once("data", config, decided_by(Role.TRAIN_ROWS), lambda: load_data(config))

    def unlabeled(self, config: TrialConfig) -> Unlabeled | None:
        """Return the texts without labels, of those that a teacher's file has numbers for where it is one; None where the config names none.

        Neither data nor teacher depend on them.
        """
        if not config.has_unlabeled:
            return None

        def make() -> Unlabeled:
            teaches = self.teacher_file(config).places.__contains__ if config.teacher_file else None
            return load_unlabeled(config, self.data(config), teaches)

        return self._once("unlabeled", config, (*decided_by(Role.TRAIN_ROWS), *TEXT_FIELDS, "teacher_file"), make)

    def teacher(self, config: TrialConfig, watch: TeacherWatch = UNWATCHED) -> Teacher:
        """Return the frozen teacher; `watch` gets the steps and epochs of its fine-tuning, where it has to be fine-tuned."""

        def make() -> Teacher:
            with machine.threads(int(config.teacher_threads)):
                prepare = prepare_teacher if config.teacher_folds == 1 else prepare_folds
                return prepare(config, self.data(config), self._fine_tuning_tokens(config), watch)

        return self._once("teacher", config, decided_by(Role.TEACHER), make)

    def teacher_file(self, config: TrialConfig) -> TeacherFile:
        """Return the teacher that is a file. Raises DataError where its columns, numbers or ids are not what they must be."""

        def make() -> TeacherFile:
            data = self.data(config)
            file = read_teacher_file(config, data.label_names, data.task)
            file.check_unique([split for split in (data.train, data.validation, data.test) if split is not None])
            return file

        return self._once("teacher_file", config, decided_by(Role.TEACHER), make)

    def teacher_sha256(self, config: TrialConfig, watch: TeacherWatch = UNWATCHED) -> str:
        """Return the SHA-256 of what teaches: of the teacher's weights (`watch` as in `teacher`), or of the numbers in the file in its place."""
        return self.teacher_file(config).sha256 if config.teacher_file else self.teacher(config, watch).weights_sha256

    def help_with_folds(self, config: TrialConfig, watch: TeacherWatch) -> None:
        """Fine-tune the teachers of the folds that no other process fine-tunes, into the cache; once for all configs of one teacher."""

        def help_() -> None:
            with machine.threads(int(config.teacher_threads)):
                help_with_folds(config, self.data(config), self._fine_tuning_tokens(config), watch)

        self._once("folds helped with", config, decided_by(Role.TEACHER), help_)

    def _fine_tuning_tokens(self, config: TrialConfig) -> dict[str, Tokens]:
        """Return what a teacher's fine-tuning reads: the teacher's tokens of train and validation."""
        return {name: self.teacher_tokens(config, name) for name in _splits(test=False)}

    def teacher_tokens(self, config: TrialConfig, name: RowsName) -> Tokens:
        """Return a split's tokens for the teacher, without loading its weights. Raises ModelError where it cannot read them."""
        return self._tokens(config, self._reader(config, teacher_address(config), config.teacher_revision), name)

    def student_tokens(self, config: TrialConfig, name: RowsName) -> Tokens:
        """Return a split's tokens for the student, without loading its weights. Raises ModelError where it cannot read them."""
        source = student_source(config)
        found = self._reader(config, *source)
        if config.student == FROM_TEACHER:
            body = self._kept(("configuration", *source), lambda: model_config(*source))
            found = dataclasses.replace(found, segments=reads_segments(body))
        return self._tokens(config, found, name)

    def online_teacher(self, config: TrialConfig) -> OnlineTeacher:
        """Return the teacher as it runs beside its student in every step of a training."""
        segments = [self.teacher_tokens(config, name).segments for name in trained(config)]
        read = [each.to(torch.int8) for each in segments if each is not None]
        return OnlineTeacher(model=self.teacher(config).model, segments=torch.cat(read) if read else None)

    def student(self, config: TrialConfig) -> nn.Module:
        """Return a fresh student on its device; equal fields give equal initial weights."""
        student: nn.Module = copy.deepcopy(self._initial_student(config).model)
        return student.to(config.device)

    def initial_weights_sha256(self, config: TrialConfig) -> str:
        """Return the SHA-256 of the student's weights at step 0."""
        return self._initial_student(config).weights_sha256

    def rows(self, config: TrialConfig) -> tuple[Rows, Rows]:
        """Return the student's rows for training and validation: its own tokens, and the teacher's logits of the same rows.

        The rows for training end with the texts without labels, where the config names any.
        """
        return self._training_rows(config), self._student_rows(config, "validation")

    def validation_rows(self, config: TrialConfig) -> Rows:
        """Return the student's rows of the validation split, with the teacher's logits."""
        return self._student_rows(config, "validation")

    def test_rows(self, config: TrialConfig) -> Rows | None:
        """Return the student's rows of the test split, with the teacher's logits; None where there is no test split."""
        return None if self.data(config).test is None else self._student_rows(config, "test")

    def teacher_rows(self, config: TrialConfig) -> tuple[Rows, Rows]:
        """Return the teacher's rows of train and validation: its own tokens and logits."""
        return self._teacher_rows(config, "train"), self._teacher_rows(config, "validation")

    def truncated_rows(self, config: TrialConfig, *, texts: bool = False) -> dict[str, int]:
        """Return, for each split and, with `texts`, the texts without labels, the number of rows whose teacher's tokens `max_length` cut.

        Nothing for a teacher that is a file, which reads no tokens.
        """
        if config.teacher_file:
            return {}
        names = (*_splits(test=self.data(config).test is not None), *(_texts(config) if texts else ()))
        return {name: self.teacher_tokens(config, name).truncated_rows for name in names}

    def student_truncated_rows(self, config: TrialConfig, *, test: bool) -> dict[str, int]:
        """Return, for train, validation, the texts without labels and, with `test`, the test split, the number of rows whose student's
        tokens `max_length` cut."""
        names = (*_splits(test=test), *_texts(config))
        return {name: self.student_tokens(config, name).truncated_rows for name in names}

    def speed(self, config: TrialConfig) -> Speed:
        """Return the student's speed, measured once for each architecture, so that trials of one size can be compared."""

        def measure() -> Speed:
            return measure_speed(self.student(config), self.rows(config)[1].tokens)

        return self._once("speed", config, SPEED_FIELDS, measure)

    def size_mb(self, config: TrialConfig) -> float:
        """Return the megabytes (10⁶ bytes) of the student's weights."""
        return size_mb(self._initial_student(config).model)

    def architecture(self, config: TrialConfig) -> str:
        """Return the fields on which the student's speed depends, with their values, as JSON: what a sweep has in its records, where a
        student_body is there only where one is named."""
        idle = () if config.student_body else ("student_body", "student_body_revision")
        return json.dumps({name: getattr(config, name) for name in SPEED_FIELDS if name not in idle})

    def teacher_speed(self, config: TrialConfig) -> Speed:
        """Return the teacher's speed, measured on its validation rows."""
        measure = lambda: measure_speed(self.teacher(config).model, self.teacher_rows(config)[1].tokens)
        return self._once("teacher_speed", config, decided_by(Role.TEACHER), measure)

    def teacher_on_seen_rows(self, config: TrialConfig) -> Quality:
        """Return the teacher's metrics on the training rows that it was fine-tuned on."""
        with machine.threads(int(config.teacher_threads)):
            return seen_quality(self.teacher(config), self.teacher_rows(config)[0])

    def _once(self, kind: str, config: TrialConfig, fields: Sequence[str], make: Callable[[], Made]) -> Made:
        """Return what `make` makes, made once for each value of `fields`."""
        return self._kept((kind, *(getattr(config, name) for name in fields)), make)

    def _kept(self, key: tuple[Any, ...], make: Callable[[], Made]) -> Made:
        if key not in self._made:
            self._made[key] = make()
        made: Made = self._made[key]
        return made

    def _initial_student(self, config: TrialConfig) -> InitialStudent:
        return self._students.of(config, self.data(config), lambda: self._body(config))

    def _body(self, config: TrialConfig) -> nn.Module:
        """Return the model whose layers a from_teacher student copies."""
        if config.student_body is None:
            teacher = self.teacher(config)
            return teacher.pretrained if config.student_init == "pretrained" else teacher.model
        address, revision, data = config.student_body, config.student_body_revision, self.data(config)
        fields = (*decided_by(Role.ROWS), "student_body", "student_body_revision")
        return self._once(
            "body", config, fields, lambda: load_classifier(address, revision, data.label_names, seed=0, task=data.task)
        )

    def _teacher_rows(self, config: TrialConfig, name: SplitName) -> Rows:
        def make() -> Rows:
            tokens, teacher, data = self.teacher_tokens(config, name), self.teacher(config), self.data(config)
            labels = label_tensor(data.split(name).labels).to(config.device)
            with machine.threads(int(config.teacher_threads)):
                targets = teacher_targets(teacher, tokens, own_rows=name == "train")
                return Rows(tokens=tokens, labels=labels, targets=targets, task=data.task)

        return self._once(f"teacher_rows of {name}", config, decided_by(Role.TEACHER), make)

    def _student_rows(self, config: TrialConfig, name: SplitName) -> Rows:
        def make() -> Rows:
            tokens = self.student_tokens(config, name)
            if config.teacher_file:
                data = self.data(config)
                return rows_of_file(self.teacher_file(config), data.split(name), tokens, config.device, data.task)
            return dataclasses.replace(self._teacher_rows(config, name), tokens=tokens)

        return self._once(f"rows of {name}", config, decided_without_texts(Role.STUDENT_TOKENS), make)

    def _training_rows(self, config: TrialConfig) -> Rows:
        """Return the student's rows for training, texts without labels included, each with the weight of its class where classes are weighed."""
        train = self._student_rows(config, "train")
        if not config.has_unlabeled and config.class_weights == "none":
            return train

        def make() -> Rows:
            rows = train
            if config.has_unlabeled:
                texts = self.student_tokens(config, "unlabeled")
                rows = joined(train, texts, self._targets(config), pseudo_labels=config.pseudo_labels)
            if config.class_weights == "none":
                return rows
            return dataclasses.replace(rows, hard_weights=balanced_weights(rows.labels, self.data(config)))

        return self._once("rows for training", config, (*decided_by(Role.STUDENT_TOKENS), "pseudo_labels"), make)

    def _targets(self, config: TrialConfig) -> Mapping[str, Tensor]:
        """Return the teacher's outputs for the rows for training, texts without labels included."""

        def make() -> Mapping[str, Tensor]:
            if config.teacher_file:
                texts = self.unlabeled(config)
                assert texts is not None
                return targets_of_file(self.teacher_file(config), (self.data(config).train, texts.split), config.device)
            train, tokens = self._teacher_rows(config, "train"), self.teacher_tokens(config, "unlabeled")
            told = lambda done: self._progress("the teacher's logits", done, len(tokens.lengths))
            with machine.threads(int(config.teacher_threads)):
                return joined_targets(train, self.teacher(config), tokens, told)

        return self._once("targets for training", config, decided_by(Role.UNLABELED), make)

    def _reader(self, config: TrialConfig, address: str, revision: str | None) -> Reader:
        task = self.data(config).task
        return self._kept(("reader", address, revision, task), lambda: reader(address, revision, task))

    def _tokens(self, config: TrialConfig, found: Reader, name: RowsName) -> Tokens:
        def make() -> Tokens:
            if name != "unlabeled":
                return found.tokens(self.data(config).split(name), max_length=config.max_length).to(config.device)
            texts = self.unlabeled(config)
            assert texts is not None
            told = lambda done: self._progress("tokens", done, len(texts))
            return found.kept_tokens(texts, max_length=config.max_length, on_rows=told).to(config.device)

        segments = found.segments and config.text_pair_column is not None
        kind = f"tokens of {name}, {found.address}, {found.revision}, {segments}"
        fields = (*decided_without_texts(Role.TOKENS), *((*TEXT_FIELDS, "teacher_file") if name == "unlabeled" else ()))
        return self._once(kind, config, fields, make)


def trained(config: TrialConfig) -> tuple[RowsName, ...]:
    """Return the names of the rows for training, in their order."""
    return ("train", *_texts(config))


def _splits(*, test: bool) -> tuple[SplitName, ...]:
    return ("train", "validation", "test") if test else ("train", "validation")


def _texts(config: TrialConfig) -> tuple[RowsName, ...]:
    return ("unlabeled",) if config.has_unlabeled else ()
