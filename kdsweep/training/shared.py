"""Make what the trials of a sweep share on first use, and keep it: rows, tokens, teacher, logits, initial students.

Nothing is loaded twice in a process, whichever fields are searched: every material is kept under the fields on which it depends. Of the
initial students only those used last are kept.
"""

import copy
import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kdsweep.config.roles import Role
from kdsweep.config.trial import TrialConfig
from kdsweep.config.trial_fields import decided_by, decided_for_student
from kdsweep.training.architecture import speed_fields
from kdsweep.training.data.progress import NO_PROGRESS, Progress
from kdsweep.training.data.splits import SplitName
from kdsweep.training.data.tokens import Rows, Tokens
from kdsweep.training.evaluation import Speed, measure_speed
from kdsweep.training.fast import machine
from kdsweep.training.file_rows import rows_of_file, targets_of_file
from kdsweep.training.fine_tuning import prepare_teacher
from kdsweep.training.folds import help_with_folds, prepare_folds
from kdsweep.training.initial_students import InitialStudent, InitialStudents
from kdsweep.training.joined import joined, joined_targets
from kdsweep.training.models import load_classifier, size_mb
from kdsweep.training.online import OnlineTeacher
from kdsweep.training.tasks import balanced_weights, label_tensor
from kdsweep.training.teacher import UNWATCHED, Teacher, TeacherWatch
from kdsweep.training.teacher_logits import teacher_targets
from kdsweep.training.teacher_quality import Quality, seen_quality
from kdsweep.training.teacher_speed import teacher_speed
from kdsweep.training.texts import Texts, splits_read, trained


class Materials(Texts):
    """Holds the shared materials of one process, each made on first use; `progress` is called while what takes long is made."""

    def __init__(self, progress: Progress = NO_PROGRESS) -> None:
        """Begin with nothing made."""
        super().__init__(progress)
        self._students = InitialStudents()

    def teacher(self, config: TrialConfig, watch: TeacherWatch = UNWATCHED) -> Teacher:
        """Return the frozen teacher; `watch` gets the steps and epochs of its fine-tuning, where it has to be fine-tuned."""

        def make() -> Teacher:
            with machine.threads(int(config.teacher_threads)):
                prepare = prepare_teacher if config.teacher_folds == 1 else prepare_folds
                return prepare(config, self.data(config), self._fine_tuning_tokens(config), watch)

        return self._once("teacher", config, decided_by(Role.TEACHER), make)

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
        return {name: self.teacher_tokens(config, name) for name in splits_read(test=False)}

    def online_teacher(self, config: TrialConfig) -> OnlineTeacher:
        """Return the teacher as it runs beside its student in every step of a training."""
        segments = [self.teacher_tokens(config, name).segments for name in trained(config)]
        read = [each.to(torch.int8) for each in segments if each is not None]
        vocabulary = self.student_vocabulary(config)
        return OnlineTeacher(
            model=self.teacher(config).model,
            segments=torch.cat(read) if read else None,
            pieces=vocabulary.pieces.to(config.device) if vocabulary else None,
        )

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

    def speed(self, config: TrialConfig) -> Speed:
        """Return the student's speed, measured once for each architecture, so that trials of one size can be compared."""

        def measure() -> Speed:
            return measure_speed(self.student(config), self.rows(config)[1].tokens)

        return self._once("speed", config, speed_fields(config), measure)

    def size_mb(self, config: TrialConfig) -> float:
        """Return the megabytes (10⁶ bytes) of the student's weights."""
        return size_mb(self._initial_student(config).model)

    def teacher_speed(self, config: TrialConfig) -> Speed:
        """Return the teacher's speed on its validation rows, as it was measured once on this machine."""
        measure = lambda: teacher_speed(self.teacher(config), self.teacher_rows(config)[1].tokens)
        return self._once("teacher_speed", config, decided_by(Role.TEACHER), measure)

    def teacher_on_seen_rows(self, config: TrialConfig) -> Quality:
        """Return the teacher's metrics on the training rows that it was fine-tuned on."""
        with machine.threads(int(config.teacher_threads)):
            return seen_quality(self.teacher(config), self.teacher_rows(config)[0])

    def _initial_student(self, config: TrialConfig) -> InitialStudent:
        vocabulary = self.student_vocabulary(config)
        return self._students.of(config, self.data(config), lambda: self._body(config), vocabulary)

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
                on_rows = self._told("the teacher's logits", len(tokens.lengths))
                targets = teacher_targets(teacher, tokens, own_rows=name == "train", on_rows=on_rows)
                return Rows(tokens=tokens, labels=labels, targets=targets, task=data.task)

        return self._once(f"teacher_rows of {name}", config, decided_by(Role.TEACHER), make)

    def _student_rows(self, config: TrialConfig, name: SplitName) -> Rows:
        def make() -> Rows:
            tokens = self.student_tokens(config, name)
            if config.teacher_file:
                data = self.data(config)
                return rows_of_file(self.teacher_file(config), data.split(name), tokens, config.device, data.task)
            return dataclasses.replace(self._teacher_rows(config, name), tokens=tokens)

        return self._once(f"rows of {name}", config, decided_for_student(config, Role.STUDENT_TOKENS), make)

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
            told = self._told("the teacher's logits", len(tokens.lengths), "texts")
            with machine.threads(int(config.teacher_threads)):
                return joined_targets(train, self.teacher(config), tokens, told)

        return self._once("targets for training", config, decided_by(Role.UNLABELED), make)
