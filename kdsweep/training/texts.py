"""Make what trials share of texts on first use, and keep it: rows, tokens, the pieces of students. No model is loaded for it."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

from transformers import PreTrainedTokenizerBase

from kdsweep.config.roles import Role
from kdsweep.config.trial import FROM_TEACHER, TrialConfig
from kdsweep.config.trial_fields import TEXT_FIELDS, decided_by, decided_without_texts
from kdsweep.training.data.progress import NO_PROGRESS, Progress, told
from kdsweep.training.data.splits import Data, Split, SplitName, load_data
from kdsweep.training.data.tokens import Tokens, load_tokenizer
from kdsweep.training.data.unlabeled import Unlabeled, load_unlabeled
from kdsweep.training.models import model_config
from kdsweep.training.reader import Reader, reader
from kdsweep.training.students import reads_segments, student_source
from kdsweep.training.teacher import teacher_address
from kdsweep.training.teacher_file import TeacherFile, read_teacher_file
from kdsweep.training.trained_vocabulary import (
    Reading,
    TrainedVocabulary,
    VocabularyUse,
    check_same,
    reading,
    trained_vocabulary,
)

RowsName = SplitName | Literal["unlabeled"]

Made = TypeVar("Made")


class Texts:
    """Holds the rows and tokens of one process, each made on first use; `progress` is called while what takes long is made."""

    def __init__(self, progress: Progress = NO_PROGRESS) -> None:
        """Begin with nothing made."""
        self._progress = progress
        self._made: dict[tuple[Any, ...], Any] = {}

    def data(self, config: TrialConfig) -> Data:
        """Return the texts and labels of every split."""
        return self._once(
            "data", config, decided_by(Role.TRAIN_ROWS), lambda: load_data(config, self._told("read", None))
        )

    def unlabeled(self, config: TrialConfig) -> Unlabeled | None:
        """Return the texts without labels, of those that a teacher's file has numbers for where it is one; None where the config names none.

        Neither data nor teacher depend on them.
        """
        if not config.has_unlabeled:
            return None

        def make() -> Unlabeled:
            teaches = self.teacher_file(config).places.__contains__ if config.teacher_file else None
            return load_unlabeled(config, self.data(config), teaches, self._told("read", None, "texts without labels"))

        return self._once("unlabeled", config, (*decided_by(Role.TRAIN_ROWS), *TEXT_FIELDS, "teacher_file"), make)

    def teacher_file(self, config: TrialConfig) -> TeacherFile:
        """Return the teacher that is a file. Raises DataError where its columns, numbers or ids are not what they must be."""

        def make() -> TeacherFile:
            data = self.data(config)
            file = read_teacher_file(config, data.label_names, data.task)
            file.check_unique([split for split in (data.train, data.validation, data.test) if split is not None])
            return file

        return self._once("teacher_file", config, decided_by(Role.TEACHER), make)

    def teacher_tokens(self, config: TrialConfig, name: RowsName) -> Tokens:
        """Return a split's tokens for the teacher, without loading its weights. Raises ModelError where it cannot read them."""
        return self._tokens(config, self._reader(config, teacher_address(config), config.teacher_revision), name)

    def student_tokens(self, config: TrialConfig, name: RowsName) -> Tokens:
        """Return a split's tokens for the student, without loading its weights. Raises ModelError where it cannot read them."""
        vocabulary = self.student_vocabulary(config)
        return self._tokens(config, vocabulary.reader, name) if vocabulary else self.whole_student_tokens(config, name)

    def whole_student_tokens(self, config: TrialConfig, name: RowsName) -> Tokens:
        """Return a split's tokens by the student's tokenizer with all of its pieces."""
        return self._tokens(config, self._whole_student_reader(config), name)

    def student_vocabulary(self, config: TrialConfig) -> TrainedVocabulary | None:
        """Return what is left of the student's vocabulary, proved on its training texts; None where that is all of it."""
        if config.student_vocabulary == "full":
            return None

        def make() -> TrainedVocabulary:
            found = self._whole_student_reader(config)
            whole = {name: self.whole_student_tokens(config, name) for name in trained(config)}
            texts = [(self._split(config, name), tokens) for name, tokens in whole.items()]
            vocabulary = trained_vocabulary(found, texts, max_length=config.max_length)
            for name, tokens in whole.items():
                check_same(found.address, tokens, self._tokens(config, vocabulary.reader, name), vocabulary)
            return vocabulary

        return self._once("student's vocabulary", config, decided_by(Role.STUDENT_TOKENS), make)

    def student_tokenizer(self, config: TrialConfig) -> PreTrainedTokenizerBase:
        """Return the tokenizer to save beside the student."""
        vocabulary = self.student_vocabulary(config)
        return vocabulary.tokenizer if vocabulary else load_tokenizer(*student_source(config))

    def vocabulary_use(self, config: TrialConfig, *, test: bool) -> VocabularyUse | None:
        """Return what a student with fewer pieces keeps, and how it reads the validation rows and, with `test`, the test rows; None for one
        that has all pieces."""
        vocabulary = self.student_vocabulary(config)
        if vocabulary is None:
            return None

        def read(name: SplitName) -> Reading:
            return reading(self.whole_student_tokens(config, name), self.student_tokens(config, name), vocabulary)

        return VocabularyUse(
            pieces=len(vocabulary.pieces),
            whole=vocabulary.whole,
            validation=read("validation"),
            test=read("test") if test else None,
        )

    def truncated_rows(self, config: TrialConfig, *, texts: bool = False) -> dict[str, int]:
        """Return, for each split and, with `texts`, the texts without labels, the number of rows whose teacher's tokens `max_length` cut.

        Nothing for a teacher that is a file, which reads no tokens.
        """
        if config.teacher_file:
            return {}
        names = (*splits_read(test=self.data(config).test is not None), *(_texts(config) if texts else ()))
        return {name: self.teacher_tokens(config, name).truncated_rows for name in names}

    def student_truncated_rows(self, config: TrialConfig, *, test: bool) -> dict[str, int]:
        """Return, for train, validation, the texts without labels and, with `test`, the test split, the number of rows whose student's
        tokens `max_length` cut."""
        names = (*splits_read(test=test), *_texts(config))
        return {name: self.student_tokens(config, name).truncated_rows for name in names}

    def _whole_student_reader(self, config: TrialConfig) -> Reader:
        source = student_source(config)
        found = self._reader(config, *source)
        if config.student == FROM_TEACHER:
            body = self._kept(("configuration", *source), lambda: model_config(*source))
            found = dataclasses.replace(found, segments=reads_segments(body))
        return found

    def _split(self, config: TrialConfig, name: RowsName) -> Split:
        if name != "unlabeled":
            return self.data(config).split(name)
        texts = self.unlabeled(config)
        assert texts is not None
        return texts.split

    def _reader(self, config: TrialConfig, address: str, revision: str | None) -> Reader:
        task = self.data(config).task
        return self._kept(("reader", address, revision, task), lambda: reader(address, revision, task))

    def _tokens(self, config: TrialConfig, found: Reader, name: RowsName) -> Tokens:
        def make() -> Tokens:
            split = self._split(config, name)
            read = found.kept_tokens if name == "unlabeled" else found.tokens
            on_rows = self._told("tokens", len(split), "texts" if name == "unlabeled" else "rows")
            return read(split, max_length=config.max_length, on_rows=on_rows).to(config.device)

        segments = found.segments and config.text_pair_column is not None
        kind = f"tokens of {name}, {found.address}, {found.revision}, {segments}, {found.kept}"
        fields = (*decided_without_texts(Role.TOKENS), *((*TEXT_FIELDS, "teacher_file") if name == "unlabeled" else ()))
        return self._once(kind, config, fields, make)

    def _told(self, what: str, rows: int | None, unit: str = "rows") -> Callable[[int], None]:
        """Return a function that reports how many rows are done."""
        return told(self._progress, what, rows, unit)

    def _once(self, kind: str, config: TrialConfig, fields: Sequence[str], make: Callable[[], Made]) -> Made:
        """Return what `make` makes, made once for each value of `fields`."""
        return self._kept((kind, *(getattr(config, name) for name in fields)), make)

    def _kept(self, key: tuple[Any, ...], make: Callable[[], Made]) -> Made:
        if key not in self._made:
            self._made[key] = make()
        made: Made = self._made[key]
        return made


def trained(config: TrialConfig) -> tuple[RowsName, ...]:
    """Return the names of the rows for training, in their order."""
    return ("train", *_texts(config))


def splits_read(*, test: bool) -> tuple[SplitName, ...]:
    """Return the names of the splits that models are measured on, with the training rows; `test`: with the test split."""
    return ("train", "validation", "test") if test else ("train", "validation")


def _texts(config: TrialConfig) -> tuple[RowsName, ...]:
    return ("unlabeled",) if config.has_unlabeled else ()
