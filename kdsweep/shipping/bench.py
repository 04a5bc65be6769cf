"""Run every form of one student on the same rows: what each answers, and how fast, in turns with the teacher. Shapes: N rows."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from kdsweep.records.export_schema import FormQuality, FormSpeed
from kdsweep.shipping.quality import Classify, answers, batch_cause, form_quality, near_answers
from kdsweep.shipping.same_answer import same_answer
from kdsweep.shipping.session import OnnxClassifier
from kdsweep.shipping.speed import Pass, middle_rows, timed
from kdsweep.shipping.student import JudgedSplit, Student, check_tokens
from kdsweep.system.hardware import available_cores
from kdsweep.training.data.tokens import Tokens, padded
from kdsweep.training.fast import machine
from kdsweep.training.models import load_classifier
from kdsweep.training.shared import Materials
from kdsweep.training.teacher import teacher_address

PYTORCH, TEACHER = "pytorch", "teacher"
"""Names beside those of the ONNX models."""
TOLD_ROWS = 1000
"""Progress is told about so often, in rows."""

Tell = Callable[[str], None]
"""Gets one line of progress."""


class Judged(NamedTuple):
    """Holds what a form is worth on a split, and why rows depend on their batch; None where none does."""

    quality: FormQuality
    cause: str | None
    alike: float
    """How like the float32 student's its answers are, both alone and in a batch: `SameAnswer.likeness`."""


class Bench:
    """Holds a student in PyTorch and its ONNX models by name, and measures them; `dynamic` names one whose activations are scaled anew for
    every batch."""

    def __init__(self, student: Student, files: Mapping[str, str], tell: Tell) -> None:
        """Load the ONNX models `files`, relative to the student's folder, on all cores. Raises ShippingError for one that is not whole."""
        self._student, self._files, self._tell = student, files, tell
        self._onnx = {name: self._loaded(name, available_cores()) for name in files}

    def judged(self, split: JudgedSplit, names: Sequence[str], *, margin: float) -> dict[str, Judged]:
        """Return what each of the forms `names` is worth on a split. Raises ShippingError where the ONNX forms read other tokens than PyTorch."""
        check_tokens(next(iter(self._onnx.values())), split)
        return {name: self._judged(split, name, margin) for name in names}

    def _judged(self, split: JudgedSplit, name: str, margin: float) -> Judged:
        classify = self._classify(split, name)
        told = lambda rows: self._tell_rows(split, name, rows)
        mine, rule = name == PYTORCH, same_answer(split.task, split.labels)
        found = (
            near_answers(classify, split.reference, told, rule) if mine else answers(classify, len(split), told, rule)
        )
        quality = form_quality(
            split.reference if mine else found.alone,
            split.reference,
            split.labels,
            batch_dependent=len(found.dependent()),
            margin=None if mine else margin,
            task=split.task,
        )
        cause = batch_cause(classify, found, dynamic=name == "dynamic", float32=name in (PYTORCH, "fp32"))
        return Judged(quality, cause, found.alike(split.reference))

    def _classify(self, split: JudgedSplit, name: str) -> Classify:
        if name == PYTORCH:
            return self._student.classify(split.tokens)
        model = self._onnx[name]
        encoded = model.encode(split.texts)
        return lambda rows: model.run(model.inputs([encoded[row] for row in rows]))

    def _tell_rows(self, split: JudgedSplit, name: str, rows: int) -> None:
        if rows % TOLD_ROWS < 32 or rows == len(split):
            self._tell(f"{split.name}, {name}: {rows:,} of {len(split):,} rows")

    def speed(
        self, split: JudgedSplit, teacher: "TeacherModel | None"
    ) -> tuple[dict[str, tuple[FormSpeed, ...]], float]:
        """Return the speed of every form, and of the teacher where it is a model, at one thread and at all cores, measured in turns on the
        same rows of the split: those of median length to the student. Return too the share of the core that others took meanwhile."""
        one, many = middle_rows(split.tokens.lengths)
        found: dict[str, list[FormSpeed]] = {}
        taken = 0.0
        for threads in sorted({1, available_cores()}):
            models = {PYTORCH: _torch_passes(self._student.model, split.tokens, one, many)}
            models |= {name: _onnx_passes(self._loaded(name, threads), split, one, many) for name in self._files}
            models |= {TEACHER: _torch_passes(teacher.model, teacher.tokens, one, many)} if teacher else {}
            with machine.threads(threads):
                times = timed(models, threads=threads, batch_rows=len(many), on_round=self._on_round(models, threads))
            taken = max(taken, times.taken)
            for name, each in times.speeds.items():
                found.setdefault(name, []).append(each)
        return {name: tuple(each) for name, each in found.items()}, taken

    def _on_round(self, names: Collection[str], threads: int) -> Callable[[int, int], None]:
        what = f"speed of {', '.join(names)}, in turns, threads: {threads}"
        return lambda done, of: self._tell(f"{what}: round {done} of {of}")

    def _loaded(self, name: str, threads: int) -> OnnxClassifier:
        student = self._student
        return OnnxClassifier(
            student.folder, name, threads, max_length=student.config.max_length, file=self._files[name]
        )


class TeacherModel(NamedTuple):
    """Holds a model of the teacher's size, and its tokens of the validation rows, on the CPU."""

    model: nn.Module
    tokens: Tokens


def teacher_model(student: Student, materials: Materials) -> TeacherModel | None:
    """Load the teacher as its fine-tuning starts, which is as fast as what it ends with; None where the teacher is a file."""
    config = student.config
    if config.teacher_file:
        return None
    address, data = teacher_address(config), student.data
    model = load_classifier(address, config.teacher_revision, data.label_names, seed=0, task=data.task).eval()
    return TeacherModel(model, materials.teacher_tokens(config, "validation"))


def _torch_passes(model: nn.Module, tokens: Tokens, one: int, many: np.ndarray) -> tuple[Pass, Pass]:
    return _torch_pass(model, tokens, np.array([one])), _torch_pass(model, tokens, many)


def _torch_pass(model: nn.Module, tokens: Tokens, rows: np.ndarray) -> Pass:
    inputs = padded(tokens, rows).inputs

    def run() -> object:
        with torch.inference_mode():
            return model(**inputs).logits.numpy()

    return run


def _onnx_passes(model: OnnxClassifier, split: JudgedSplit, one: int, many: np.ndarray) -> tuple[Pass, Pass]:
    single, batch = (model.inputs(model.encode([split.texts[row] for row in rows])) for rows in ([one], many))
    return lambda: model.run(single), lambda: model.run(batch)
