"""The teacher and the best students class by class, from the predictions on disk."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdsweep.analysis.classes import ClassScore, Confusion, class_scores, confusions, worst_first
from kdsweep.analysis.finalists import Finals, SplitName, titled
from kdsweep.analysis.formats import plural
from kdsweep.analysis.leaderboard import Row, best
from kdsweep.analysis.metrics import confusion
from kdsweep.config.sweep import ARM_NAMES, ARMS, Arm
from kdsweep.records import layout, reading
from kdsweep.records.whole_sweep import SweepRecords

FEW_CLASSES = 12
"""Classes up to which all are shown, and a confusion matrix is drawn."""
WORST = 10
"""Classes and confused pairs that are shown of more."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One model's predictions, class by class."""

    name: str
    """`teacher`, or as `distilled 7`."""
    arm: Arm | None
    """None for the teacher, like `trial`."""
    trial: int | None
    seeds: tuple[int, ...]
    """Fresh seeds of a finalist, whose predictions are pooled; empty for a single model."""
    counts: np.ndarray
    """Rows of class i (first axis) named j, int [C, C], summed over the seeds."""

    @property
    def models(self) -> int:
        """How many models the counts are of."""
        return max(1, len(self.seeds))

    def scores(self) -> tuple[ClassScore, ...]:
        """Of every class, pooled over the seeds."""
        return class_scores(self.counts)

    def confused(self) -> tuple[Confusion, ...]:
        """Every confused pair, the most rows first."""
        return confusions(self.counts)


@dataclass(frozen=True, kw_only=True)
class ByClass:
    """The teacher beside the best student of each arm, on the same rows."""

    split: SplitName
    names: tuple[str, ...]
    """Of the classes, in the order of their numbers."""
    rows: tuple[int, ...]
    """Of each class."""
    judged: tuple[Judged, ...]
    """The teacher, if its predictions are here, then the students, the one to ship first; at least one student."""

    @property
    def chosen(self) -> Judged:
        """The student to ship, or the other arm's where its predictions are not here."""
        return next(each for each in self.judged if each.arm is not None)

    @property
    def few(self) -> bool:
        """Whether all classes are shown."""
        return len(self.names) <= FEW_CLASSES

    def shown(self) -> list[int]:
        """The classes that the report shows: all in their order where they are few, else the worst of the student to ship."""
        return list(range(len(self.names))) if self.few else worst_first(self.chosen.scores())[:WORST]

    def said(self) -> str:
        """What the scores are of, in words."""
        pooled = [f"{each.name} over {plural(len(each.seeds), 'seed')}" for each in self.judged if each.seeds]
        which = f"the {len(self.names)} classes"
        if not self.few:
            which = f"the {len(self.shown())} of {len(self.names)} classes with the lowest F1 of {self.chosen.name} (all: leaderboard.json)"
        seeds = f"; pooled: {' and '.join(pooled)}" if pooled else ""
        return f"Precision, recall and F1 in % on the {sum(self.rows):,} {self.split} rows, of {which}{seeds}."


def read_by_class(found: SweepRecords, finals: Finals | None, rows: Sequence[Row]) -> ByClass | None:
    """The best of each arm (of the finalists once there are any), and the teacher; None where no student's predictions are here."""
    split: SplitName = finals.split if finals else "validation"
    labels = (reading.read_test_labels if split == "test" else reading.read_validation_labels)(*found.folders)
    if labels is None or found.teacher is None:
        return None
    classes = len(found.teacher.label_names)
    reader = _Reader(labels, classes, split)
    students = _finalists(reader, finals) if finals else _searched(reader, rows)
    if not students:
        return None
    return ByClass(
        split=split,
        names=found.teacher.label_names,
        rows=tuple(np.bincount(labels, minlength=classes).tolist()),
        judged=(*_teacher(reader, found.folders), *students),
    )


class _Reader:
    """Counts predictions of a split against its labels."""

    def __init__(self, labels: np.ndarray, classes: int, split: SplitName) -> None:
        self._labels, self._classes = labels, classes
        self._read = reading.read_test_predictions if split == "test" else reading.read_predictions

    def counts(self, folder: Path) -> np.ndarray | None:
        """Of the model in `folder`; None where its predictions are not here, or are of other rows."""
        predictions = self._read(folder)
        if predictions is None or predictions.shape != self._labels.shape:
            return None
        return confusion(predictions, self._labels, self._classes)


def _teacher(reader: _Reader, folders: Iterable[Path]) -> list[Judged]:
    known = [counts for folder in folders if (counts := reader.counts(layout.teacher_folder(folder))) is not None]
    return [Judged(name="teacher", arm=None, trial=None, seeds=(), counts=known[0])] if known else []


def _finalists(reader: _Reader, finals: Finals) -> list[Judged]:
    """The best of each arm, the one to ship first."""
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
    """The best trial of each arm, the better one first."""
    judged = []
    for row in sorted((row for arm in ARMS if (row := best(rows, arm))), key=lambda row: row.rank or 0):
        if (counts := reader.counts(row.trial.folder)) is not None:
            name, trial = f"{ARM_NAMES[row.arm]} {row.trial.trial}", row.trial.trial
            judged.append(Judged(name=name, arm=row.arm, trial=trial, seeds=(), counts=counts))
    return judged


def by_class_json(by: ByClass) -> dict[str, Any]:
    """The scores of every class and every confused pair, as leaderboard.json has them."""
    return {"split": by.split, "models": [_judged_json(by, each) for each in by.judged]}


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
