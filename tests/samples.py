"""One record of each kind, and the smallest things that several tests take."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from kdsweep.config.arms import Arm
from kdsweep.config.trial import TrialConfig
from kdsweep.records.layout import TrialId, teacher_folder, trial_folder
from kdsweep.records.schema import EpochMetrics, StepMetrics, TrialResult
from kdsweep.records.teacher_schema import TeacherEpoch, TeacherResult
from kdsweep.records.writing import TrialFolder

CSV = "text,label\nfine,good\n"
"""The rows in the wheel of the fixture `wheel`."""

STEP = StepMetrics(step=1, epoch=1, L_soft=0.1 + 0.2, L_hard=1e-300, L_total=2 / 3, learning_rate=5e-324)
EPOCH = EpochMetrics(
    epoch=1,
    step=5,
    L_soft=0.1 + 0.2,
    L_hard=1 / 3,
    L_total=2 / 3,
    val_accuracy=0.7,
    val_loss=0.5,
    val_agreement=0.9,
    val_macro_f1=0.6,
    val_mcc=0.5,
    val_ece=0.25,
    val_kl=0.125,
    train_seconds=1.5,
    evaluate_seconds=0.5,
)
TEACHER_EPOCH = TeacherEpoch(epoch=1, step=1, L_hard=0.5, val_accuracy=0.75, val_loss=0.6, train_seconds=1.0)


def result_of(arm: Arm, trial: int, **changes: Any) -> TrialResult:
    """A complete trial's result."""
    numbers = {field.name: 0 for field in dataclasses.fields(TrialResult)}
    texts = dict.fromkeys(("initial_weights_sha256", "teacher_weights_sha256", "data_sha256", "started_at"), "x")
    facts: dict[str, Any] = {"arm": arm, "trial": trial, "attempt": 1, "status": "complete", "error": None}
    facts |= {"environment": {"torch": "2"}, "run_id": None, "val_accuracy": 0.1 + 0.2, "finalist": None}
    return TrialResult(**{**numbers, **texts, **facts, **changes})


def write_trial(folder: Path, config: TrialConfig, arm: Arm, trial: int, **changes: Any) -> TrialFolder:
    """A finished trial with a student."""
    made = TrialFolder(trial_folder(folder, TrialId(arm, trial)))
    made.start(config)
    made.add_steps([STEP])
    made.add_epoch(EPOCH)
    made.student.mkdir()
    (made.student / "model.safetensors").write_text("weights")
    made.finish(result_of(arm, trial, **changes))
    return made


def write_teacher(folder: Path, config: TrialConfig, **changes: Any) -> TeacherResult:
    """A finished teacher."""
    numbers: dict[str, Any] = {field.name: 0 for field in dataclasses.fields(TeacherResult)}
    facts = {"teacher": "bert", "label_names": ("no", "yes"), "environment": {}, "run_id": None, "from_cache": True}
    result = TeacherResult(**{**numbers, **facts, "weights_sha256": "w", "data_sha256": "d", **changes})
    teacher = TrialFolder(teacher_folder(folder))
    teacher.start(config)
    teacher.add_epoch(TeacherEpoch(epoch=1, step=2, L_hard=0.5, val_accuracy=0.9, val_loss=0.4, train_seconds=1.0))
    teacher.write_labels(np.array([0, 1, 1]))
    teacher.finish(result)
    return result


def finalist(accuracy: float, seeds: int, rows: int = 400, seed: int = 0, sd: float = 0.0) -> np.ndarray:
    """Students that share hard and easy rows (row noise from generator 99) and differ by their own noise."""
    rng, shared = np.random.default_rng(seed), np.random.default_rng(99).random(rows)
    lines = accuracy + sd * rng.standard_normal((seeds, 1))
    return 0.8 * shared + 0.2 * rng.random((seeds, rows)) < lines
