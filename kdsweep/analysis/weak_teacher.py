"""Test whether the teacher is worse than students that were fine-tuned without it: then it has nothing to teach.

The best fine-tuned student is compared with the teacher by `study.metric` on the validation rows. If both were equally good,
it would not matter which of them predicted what, so their predictions are swapped at random, row by row: p is the share of
swaps that put the student as far ahead (for accuracy McNemar's test, up to chance; valid for any metric of predictions). The best
of n students is ahead by luck n times as easily, so p is multiplied by n (Bonferroni), and by 2 for two sides. Mean average
precision is not a metric of predictions: the one that its task has by default stands in for it.
Where predictions are not on disk, accuracies are compared by their standard errors; another metric is not compared.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np

from kdsweep.analysis.formats import compact
from kdsweep.analysis.leaderboard import ranked
from kdsweep.analysis.measured import measure_by_task
from kdsweep.analysis.metrics import Measure
from kdsweep.analysis.score import score, score_text
from kdsweep.config.sweep import SweepConfig
from kdsweep.config.tasks import METRICS, TaskName
from kdsweep.records import reading
from kdsweep.records.layout import teacher_folder
from kdsweep.records.reading import TrialRow

LEVEL = 0.05
"""Two-sided p below which the teacher is called worse."""
LEAST_SWAPS = 2000


@dataclass(frozen=True, kw_only=True)
class WeakTeacher:
    """Describes a teacher that is worse than the best of the students fine-tuned without it, by more than chance."""

    metric: str
    teacher: float
    student: float
    trial: int
    """Number of that student's trial in the fine-tuned arm."""
    p_value: float
    """Two-sided p-value, times the number of students of which the student is the best."""
    teacher_epochs: int
    teacher_learning_rate: float
    is_file: bool = False
    """Whether the teacher is a file of numbers, and no model."""

    def text(self) -> str:
        """Write what was found and what to do, without a full stop."""
        name = "" if self.metric == "val_accuracy" else f"{self.metric} "
        teacher, student = (name + score_text(self.metric, value) for value in (self.teacher, self.student))
        way = (
            f"train it longer (teacher_epochs, now {self.teacher_epochs}) or at another rate (teacher_learning_rate, now "
            f"{compact(self.teacher_learning_rate)})"
        )
        if self.is_file:
            way = "name other numbers (teacher_file)"
        elif self.teacher_epochs == 0:
            way = "name a better one, or fine-tune it on these rows (teacher_epochs, now 0)"
        return (
            f"The teacher is worse than students fine-tuned without it ({teacher} against {student} on "
            f"validation): {way}, in a new sweep (--fork NEW_NAME)"
        )


def read_weak_teacher(sweep_folder: Path, sweep: SweepConfig) -> WeakTeacher | None:
    """Run `weak_teacher` on the records of one results folder; None also where the folder is empty or holds another sweep."""
    before = reading.read_sweep(sweep_folder)
    if before is None or before.identity() != sweep.identity():
        return None
    return weak_teacher(sweep, [sweep_folder], reading.read_trials(sweep_folder, "fine_tuned"))


def weak_teacher(sweep: SweepConfig, folders: Sequence[Path], trials: Iterable[TrialRow]) -> WeakTeacher | None:
    """Return the teacher of `folders` if the best complete fine-tuned one of `trials` is better; None if not, or not known yet."""
    controls = ranked((trial for trial in trials if trial.arm == "fine_tuned"), sweep)
    if not controls:
        return None
    best = controls[0]
    scores = _paired(sweep, folders, best, len(controls)) or _unpaired(sweep, folders, best)
    if scores is None or min(1.0, 2 * scores[2] * len(controls)) >= LEVEL:
        return None
    return WeakTeacher(
        metric=_metric(sweep, _task(folders)),
        teacher=scores[0],
        student=scores[1],
        trial=best.trial,
        p_value=2 * scores[2] * len(controls),
        teacher_epochs=sweep.values("teacher_epochs")[0],
        teacher_learning_rate=sweep.values("teacher_learning_rate")[0],
        is_file=sweep.values("teacher_file")[0] is not None,
    )


def _task(folders: Sequence[Path]) -> TaskName:
    known = (reading.read_teacher(teacher_folder(folder)) for folder in folders)
    return next((teacher.task for teacher in known if teacher), "single_label")


def _metric(sweep: SweepConfig, task: TaskName) -> str:
    """Return the metric by which student and teacher are compared: `study.metric` where it is one of predictions."""
    return METRICS[task][0] if sweep.study.metric == "val_map" else sweep.study.metric


def _paired(
    sweep: SweepConfig, folders: Sequence[Path], best: TrialRow, controls: int
) -> tuple[float, float, float] | None:
    """Return the teacher's score, the student's and the one-sided p by swaps; None where predictions or labels are not on disk."""
    labels, mine = reading.read_validation_labels(*folders), reading.read_predictions(best.folder)
    known = (reading.read_predictions(teacher_folder(folder)) for folder in folders)
    teacher = next((found for found in known if found is not None), None)
    if labels is None or mine is None or teacher is None or not labels.shape == mine.shape == teacher.shape:
        return None
    task = _task(folders)
    classes = 1 + int(max(labels.max(), mine.max(), teacher.max())) if task == "single_label" else 1
    measure = measure_by_task(_metric(sweep, task), classes, task)
    p_value = swap_test(mine, teacher, labels, measure, swaps=max(LEAST_SWAPS, 80 * controls))
    return measure(teacher, labels), measure(mine, labels), p_value


def _unpaired(sweep: SweepConfig, folders: Sequence[Path], best: TrialRow) -> tuple[float, float, float] | None:
    """Return the teacher's accuracy, the student's and the one-sided p by their standard errors; None for another metric or no record."""
    known = (reading.read_teacher(teacher_folder(folder)) for folder in folders)
    teacher = next((found for found in known if found is not None), None)
    if teacher is None or sweep.study.metric != "val_accuracy" or not teacher.validation_rows:
        return None
    if teacher.val_accuracy is None:  # a file without numbers for some validation rows
        return None
    scores = (teacher.val_accuracy, score(best, sweep))
    error = math.sqrt((sum(p * (1 - p) for p in scores) + 1 / teacher.validation_rows) / teacher.validation_rows)
    return *scores, 1 - NormalDist().cdf((scores[1] - scores[0]) / error)


def swap_test(one: np.ndarray, other: np.ndarray, labels: np.ndarray, measure: Measure, *, swaps: int) -> float:
    """Compute the one-sided p of `one` being no better than `other`, predictions [N] or [N, C].

    It is the share of random swaps that put `one` as far ahead.
    """
    ahead = measure(one, labels) - measure(other, labels)
    if ahead <= 0:
        return 1.0
    draw, as_far = np.random.default_rng(0), 0
    differ = np.flatnonzero((one != other).reshape(len(one), -1).any(axis=1))
    for _ in range(swaps):
        swapped = differ[draw.random(differ.size) < 0.5]
        first, second = one.copy(), other.copy()
        first[swapped], second[swapped] = other[swapped], one[swapped]
        as_far += measure(first, labels) - measure(second, labels) >= ahead - 1e-12
    return (1 + as_far) / (1 + swaps)
