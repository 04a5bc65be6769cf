"""Tell whether two answers to a row are the same, in each task. Shapes: N rows, C classes or labels."""

from dataclasses import dataclass

import numpy as np

from kdsweep.analysis.tasks import predicted
from kdsweep.config.tasks import TaskName

TOLERANCE = 0.01
"""What two numbers of a regression may differ by and be the same answer, as a share of the labels' standard deviation: an error of that
size costs a ten thousandth of R²."""


@dataclass(frozen=True, kw_only=True)
class SameAnswer:
    """Compares answers: classes, decisions on all labels, or numbers."""

    task: TaskName = "single_label"
    spread: float = 1.0
    """The labels' standard deviation, of regression alone."""

    def answers(self, logits: np.ndarray) -> np.ndarray:
        """Return what logits [N, C] answer: classes [N], decisions [N, C] or numbers [N]."""
        return predicted(logits, self.task)

    def same(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Return whether two answers to each row are the same, bool [N]."""
        if self.task == "regression":
            near: np.ndarray = np.abs(one.astype(np.float64) - other) <= TOLERANCE * self.spread
            return near
        equal: np.ndarray = one == other
        return np.asarray(equal.all(axis=1)) if self.task == "multi_label" else equal

    def slack(self, logits: np.ndarray) -> np.ndarray:
        """Return by how much a row's logits [N, C] may change, two of them against each other, before its answer is another one, [N]."""
        if self.task == "regression":
            return np.full(len(logits), TOLERANCE * self.spread)
        if self.task == "multi_label":
            least: np.ndarray = np.abs(logits).min(axis=1)
            return least
        ordered = np.sort(logits, axis=1)
        gap: np.ndarray = ordered[:, -1] - ordered[:, -2]
        return gap

    def likeness(self, alone: np.ndarray, together: np.ndarray, wanted: np.ndarray) -> float:
        """Return how much two answers to each row, alone and in a batch, are like those `wanted`; the more, the higher.

        Of labels, it is the share of rows with the same ones both times; of numbers, which are all a little different, minus the root
        mean squared difference of both, in standard deviations of the labels.
        """
        if self.task != "regression":
            return float(np.mean(self.same(alone, wanted) & self.same(together, wanted)))
        gaps = np.concatenate([alone, together]).astype(np.float64) - np.tile(wanted, 2)
        return -float(np.sqrt(np.mean(np.square(gaps)))) / (self.spread or 1.0)


def same_answer(task: TaskName, labels: np.ndarray) -> SameAnswer:
    """Return how answers are compared on rows with these labels."""
    return SameAnswer(task=task, spread=float(labels.std(dtype=np.float64)) if task == "regression" else 1.0)
