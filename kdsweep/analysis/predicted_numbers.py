"""Read what the teacher and the best student predict in a regression, beside the labels of the same rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdsweep.analysis.finalists import Finals, SplitName, titled
from kdsweep.analysis.leaderboard import Row
from kdsweep.analysis.shipped import best_run
from kdsweep.config.arms import ARM_NAMES, Arm
from kdsweep.records import layout, reading
from kdsweep.records.whole_sweep import SweepRecords


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """Holds the numbers that one model predicts."""

    name: str
    """`teacher`, or arm and trial with a finalist's seed, such as `distilled 7, seed 1`."""
    arm: Arm | None
    """None for the teacher."""
    numbers: np.ndarray
    """Float [N], in the order of the labels."""

    def rmse(self, labels: np.ndarray) -> float:
        """Return the root of the mean squared error."""
        return float(np.sqrt(np.mean(np.square(self.numbers.astype(np.float64) - labels))))


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """Holds the labels of a regression's rows and what models predict for them."""

    split: SplitName
    label: str
    """The name of the column that holds the labels."""
    labels: np.ndarray
    """Float [N]."""
    models: tuple[Predicted, ...]
    """The student to ship, then the teacher, if its predictions are on disk."""


def read_numbers(found: SweepRecords, finals: Finals | None, rows: Sequence[Row]) -> Numbers | None:
    """Read the predictions of the best student, of the finalists once there are any, and of the teacher.

    None for another task than regression, and where labels or the student's predictions are not on disk.
    """
    if found.teacher is None or found.teacher.task != "regression":
        return None
    split: SplitName = finals.split if finals else "validation"
    labels = (reading.read_test_labels if split == "test" else reading.read_validation_labels)(*found.folders)
    student = _best(found, finals, rows)
    if labels is None or student is None:
        return None
    read = _Reader(labels, split)
    mine = read.predicted(*student)
    teachers = (read.predicted("teacher", None, layout.teacher_folder(there)) for there in found.folders)
    teacher = next((each for each in teachers if each), None)
    models = tuple(each for each in (mine, teacher) if each)
    return Numbers(split=split, label=found.teacher.label_names[0], labels=labels, models=models) if mine else None


class _Reader:
    """Reads the predictions on one split."""

    def __init__(self, labels: np.ndarray, split: SplitName) -> None:
        self._labels = labels
        self._read = reading.read_test_predictions if split == "test" else reading.read_predictions

    def predicted(self, name: str, arm: Arm | None, folder: Path) -> Predicted | None:
        """Return what the model in `folder` predicts; None where that is not on disk, or is of other rows."""
        numbers = self._read(folder)
        if numbers is None or numbers.shape != self._labels.shape:
            return None
        return Predicted(name=name, arm=arm, numbers=numbers)


def _best(found: SweepRecords, finals: Finals | None, rows: Sequence[Row]) -> tuple[str, Arm, Path] | None:
    """Return name, arm and folder of the best finalist's best run, before finalists of the first on the leaderboard."""
    if finals:
        run = best_run(finals.chosen.runs, found.sweep)
        return f"{titled(finals.chosen)}, seed {run.finalist_seed}", run.arm, run.folder
    first = next((row for row in rows if row.rank is not None), None)
    return (f"{ARM_NAMES[first.arm]} {first.trial.trial}", first.arm, first.trial.folder) if first else None
