"""Compare the teacher and the best students class by class, or label by label, from the predictions on disk."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdsweep.analysis.classes import ClassScore, Confusion, class_scores, confusions, label_counts, worst_first
from kdsweep.analysis.finalists import Finals, SplitName, titled
from kdsweep.analysis.formats import enumerated, plural
from kdsweep.analysis.leaderboard import Row, best
from kdsweep.analysis.metrics import confusion
from kdsweep.config.arms import ARM_NAMES, ARMS, Arm
from kdsweep.config.tasks import TaskName
from kdsweep.records import layout, reading
from kdsweep.records.whole_sweep import SweepRecords

FEW_CLASSES = 12
"""Number of classes up to which all are shown, and a confusion matrix is drawn."""
WORST = 10
"""How many classes, and confused pairs, are shown where there are more classes than `FEW_CLASSES`."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Holds the confusion counts of one model, or of one finalist over its seeds."""

    name: str
    """`teacher`, or arm and trial, such as `distilled 7`."""
    arm: Arm | None
    """None for the teacher."""
    trial: int | None
    """None for the teacher."""
    seeds: tuple[int, ...]
    """Fresh seeds of a finalist, whose predictions are pooled; empty for a single model."""
    counts: np.ndarray
    """Rows of class i (first axis) that are predicted as class j, int [C, C], summed over the seeds; of labels `classes.label_counts`."""

    @property
    def models(self) -> int:
        """Return how many models `counts` is summed over."""
        return max(1, len(self.seeds))

    def scores(self) -> tuple[ClassScore, ...]:
        """Return the scores of every class, pooled over the seeds."""
        return class_scores(self.counts)

    def confused(self) -> tuple[Confusion, ...]:
        """Return every pair of classes that is confused, the most rows first."""
        return confusions(self.counts)


@dataclass(frozen=True, kw_only=True)
class ByClass:
    """Holds the confusion counts of the teacher and of the best student of each arm, on the same rows."""

    split: SplitName
    names: tuple[str, ...]
    """Names of the classes, in the order of their numbers."""
    rows: tuple[int, ...]
    """Number of rows of each class, or with each label."""
    size: int
    """Number of rows; of labels less than the sum of `rows` where some have several."""
    task: TaskName
    judged: tuple[Judged, ...]
    """The teacher, if its predictions are on disk, then the students, the one to ship first; at least one student."""

    @property
    def chosen(self) -> Judged:
        """Return the student to ship, or another arm's best where the predictions of the one to ship are not on disk."""
        return next(each for each in self.judged if each.arm is not None)

    @property
    def few(self) -> bool:
        """Return whether there are so few classes that all are shown."""
        return len(self.names) <= FEW_CLASSES

    def shown(self) -> list[int]:
        """Return the classes that the report shows: all in their order where they are few, else those with the lowest F1 of `chosen`."""
        return list(range(len(self.names))) if self.few else worst_first(self.chosen.scores())[:WORST]

    def said(self) -> str:
        """Describe in one sentence which rows, classes and seeds the scores are of."""
        pooled = [f"{each.name} over {plural(len(each.seeds), 'seed')}" for each in self.judged if each.seeds]
        kind = "labels" if self.task == "multi_label" else "classes"
        which = f"the {len(self.names)} {kind}"
        if not self.few:
            which = f"the {len(self.shown())} of {len(self.names)} {kind} with the lowest F1 of {self.chosen.name} (all: leaderboard.json)"
        seeds = f"; pooled: {enumerated(pooled)}" if pooled else ""
        return f"Precision, recall and F1 in % on the {self.size:,} {self.split} rows, of {which}{seeds}."


def read_by_class(found: SweepRecords, finals: Finals | None, rows: Sequence[Row]) -> ByClass | None:
    """Read the teacher's predictions and those of the best student of each arm, of the finalists once there are any.

    None for a regression, and where labels, the teacher's record or every student's predictions are not on disk.
    """
    split: SplitName = finals.split if finals else "validation"
    labels = (reading.read_test_labels if split == "test" else reading.read_validation_labels)(*found.folders)
    if labels is None or found.teacher is None or found.teacher.task == "regression":
        return None
    classes, task = len(found.teacher.label_names), found.teacher.task
    reader = _Reader(labels, classes, split)
    of_labels = task == "multi_label"
    students = _finalists(reader, finals) if finals else _searched(reader, rows)
    if not students:
        return None
    return ByClass(
        split=split,
        names=found.teacher.label_names,
        rows=tuple((labels.sum(axis=0) if of_labels else np.bincount(labels, minlength=classes)).tolist()),
        size=len(labels),
        task=task,
        judged=(*_teacher(reader, found.folders), *students),
    )


class _Reader:
    """Reads predictions on one split and counts them against its labels."""

    def __init__(self, labels: np.ndarray, classes: int, split: SplitName) -> None:
        self._labels, self._classes = labels, classes
        self._read = reading.read_test_predictions if split == "test" else reading.read_predictions

    def counts(self, folder: Path) -> np.ndarray | None:
        """Return the confusion counts of the model in `folder`; None where its predictions are not on disk, or are of other rows."""
        predictions = self._read(folder)
        if predictions is None or predictions.shape != self._labels.shape:
            return None
        if self._labels.ndim == 2:
            return label_counts(predictions, self._labels)
        return confusion(predictions, self._labels, self._classes)


def _teacher(reader: _Reader, folders: Iterable[Path]) -> list[Judged]:
    known = [counts for folder in folders if (counts := reader.counts(layout.teacher_folder(folder))) is not None]
    return [Judged(name="teacher", arm=None, trial=None, seeds=(), counts=known[0])] if known else []


def _finalists(reader: _Reader, finals: Finals) -> list[Judged]:
    """Return the counts of the best finalist of each arm, the one to ship first; an arm without predictions on disk is left out."""
    best_rows = sorted((row for arm in ARMS if (row := finals.best(arm))), key=lambda row: row is not finals.chosen)
    judged = []
    for row in best_rows:
        known = {
            run.finalist_seed or 0: counts for run in row.runs if (counts := reader.counts(run.folder)) is not None
        }
        if known:
            summed = np.sum(list(known.values()), axis=0)
            judged.append(Judged(name=titled(row), arm=row.arm, trial=row.trial, seeds=tuple(known), counts=summed))
    return judged


def _searched(reader: _Reader, rows: Sequence[Row]) -> list[Judged]:
    """Return the counts of the best trial of each arm, the better one first; a trial without predictions on disk is left out."""
    judged = []
    for row in sorted((row for arm in ARMS if (row := best(rows, arm))), key=lambda row: row.rank or 0):
        if (counts := reader.counts(row.trial.folder)) is not None:
            name, trial = f"{ARM_NAMES[row.arm]} {row.trial.trial}", row.trial.trial
            judged.append(Judged(name=name, arm=row.arm, trial=trial, seeds=(), counts=counts))
    return judged


def by_class_json(by: ByClass) -> dict[str, Any]:
    """Return the scores of every class and every confused pair, in the form of leaderboard.json."""
    return {"split": by.split, "task": by.task, "models": [_judged_json(by, each) for each in by.judged]}


def _judged_json(by: ByClass, each: Judged) -> dict[str, Any]:
    named = zip(by.names, by.rows, each.scores(), strict=True)
    return {
        **{key: getattr(each, key) for key in ("name", "arm", "trial")},
        "seeds": list(each.seeds),
        "classes": [{"class": name, "rows": rows, **asdict(score)} for name, rows, score in named],
        "confused": [
            {
                "true": by.names[pair.true],
                "predicted": by.names[pair.predicted],
                "rows": pair.count / each.models,
                "share": pair.share,
            }
            for pair in each.confused()
        ],
    }
