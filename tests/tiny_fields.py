"""What the tiny config and the tiny sweep share."""

from pathlib import Path
from typing import Any

MACHINE: dict[str, Any] = {"device": "cpu", "precision": "fp32", "teacher_threads": 1, "threads": 1}
MACHINE |= {"dataset_revision": None, "teacher_revision": None, "student_revision": None}


def tiny_fields(teacher: Path, rows: Path) -> dict[str, Any]:
    """The fields that the tiny config and the tiny sweep share."""
    return {
        "train_file": str(rows),
        "validation_fraction": 0.25,
        "max_length": 16,
        "teacher": str(teacher),
        "student_layers": 2,
        "student_init": "finetuned",
        "learning_rate": 1e-3,
        "batch_size": 16,
        "epochs": 2,
    }
