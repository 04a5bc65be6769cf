"""Check, once before the first trial, that a teacher is worth learning from. Shapes: N rows, C classes."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import torch

from kdsweep.analysis import metrics
from kdsweep.analysis.measured import measured_by_task
from kdsweep.analysis.number_metrics import mean_squared_error
from kdsweep.analysis.tasks import predicted
from kdsweep.config.sweep import StudyConfig
from kdsweep.config.tasks import TaskName
from kdsweep.config.trial import TrialConfig
from kdsweep.errors import NAMES_SHOWN, PreflightError, listed
from kdsweep.training.constant_answers import majority_scores
from kdsweep.training.data.splits import Data
from kdsweep.training.data.tokens import Rows, padded
from kdsweep.training.models import classes_of, is_order_assumed
from kdsweep.training.shared import Materials
from kdsweep.training.teacher import Teacher
from kdsweep.training.unlike import unlike_labelled

GAP_CLOSED = 0.04
"""Share of the gap between always giving one answer and a perfect score that a teacher must close: one below it has nothing to
teach. For two classes of one size that is 2 points; a perfect teacher passes however rare the other classes are."""
ERRORS_LEFT = 2 / 3
"""Share of a teacher's errors that may remain under another order of its classes for that order to be reported; `likelier_order` also
requires that the difference is no chance."""
RUN_TWICE = 8
"""Rows that a teacher reads twice, to see whether it answers the same: what differs by chance, as dropout does, differs in every row."""
ORDER_LEARNED = 0.3
"""Pearson's r from which a teacher that is too weak by R² is said to know the order of the numbers."""

_ALWAYS: Final[dict[TaskName, str]] = {
    "single_label": "naming the commonest class",
    "multi_label": "naming the same labels",
    "regression": "giving the mean",
}
_ASKED: Final[dict[TaskName, str]] = {
    "single_label": "classes",
    "multi_label": "labels",
    "regression": "numbers, in their unit",
}


def preflight(materials: Materials, config: TrialConfig, study: StudyConfig) -> list[str]:
    """Check, before the first trial, that the teacher is worth learning from; return in words a weakness that
    `study.accept_weak_teacher` accepts, and texts without labels that look like another domain.

    Raises PreflightError for a teacher that gives the same rows other logits the second time; and, unless accepted, for one whose
    classes, matched by order alone, seem to be in another order, or that is hardly better than always giving one answer.
    """
    data, teacher = materials.data(config), materials.teacher(config)
    _, validation = materials.teacher_rows(config)
    _check_deterministic(teacher, validation)
    numbered = config.teacher_epochs == 0 and is_order_assumed(teacher.model, data.label_names)
    assumed = numbered and data.task != "regression"
    logits = validation.teacher_logits.cpu().numpy()
    weak = None
    if assumed and data.task == "single_label":
        weak = _other_order(data, logits.argmax(axis=1), classes_of(teacher.model))
    weak = weak or _weakness(data, logits, config, study.metric, assumed)
    notes = [note] if (note := unlike_labelled(materials, config)) else []
    if weak is None:
        return notes
    return [accepted(weak, study), *notes]


def accepted(weak: str, study: StudyConfig) -> str:
    """Return, in words, that a `weak` teacher is taken. Raises PreflightError unless `study.accept_weak_teacher` accepts it."""
    if not study.accept_weak_teacher:
        raise PreflightError(f"{weak}; study.accept_weak_teacher=true takes it as it is")
    return f"as study.accept_weak_teacher wants it, this teacher is taken: {weak}"


def _check_deterministic(teacher: Teacher, validation: Rows) -> None:
    batch = padded(validation.tokens, np.arange(min(RUN_TWICE, len(validation.labels))))
    for member in teacher.members:
        model = member.load()
        with torch.inference_mode():
            first, second = (model(**batch.inputs).logits for _ in range(2))
        if not torch.equal(first, second):
            raise PreflightError(
                "the teacher must be deterministic, but gives the same rows different logits the second time"
            )


class Standing(NamedTuple):
    """Holds a teacher's score, that of always giving one answer, and the score that the teacher needs; `metric` is the score's name."""

    metric: str
    score: float
    majority: float
    needed: float

    def gap(self, task: TaskName) -> str:
        """Return what the teacher must close, in words."""
        return f"{GAP_CLOSED:.0%} of the gap between always {_ALWAYS[task]} and a perfect {self.metric}"

    def numbers(self) -> str:
        """Return the numbers, in words: R² as it is, any other score in percent."""
        if self.metric == "R²":
            return f"{self.score:.3f} against {self.majority:g} ({self.needed:g} would do)"
        return f"{100 * self.score:.2f} against {100 * self.majority:.2f} ({100 * self.needed:.2f} would do)"


def standing(metric: str, logits: np.ndarray, labels: np.ndarray, data: Data) -> Standing:
    """Return where a teacher with `logits` [N, C] for rows with `labels` [N, …] stands, by `metric`; of regression, by R² whatever the metric.

    It needs m + GAP_CLOSED (1 - m), where m is the `metric` of always giving one answer, the best that the training labels suggest. R² is
    1 - squared error / that of always giving the training labels' mean, for which it is 0: students learn the teacher's own numbers, so a
    teacher that is only correlated with the labels, in another unit, does not do.
    """
    majority = majority_scores(data, labels)
    if data.task == "regression":
        error = mean_squared_error(predicted(logits, "regression"), labels)
        least = np.finfo(np.float64).tiny  # labels that all are the mean
        return Standing("R²", 1 - error / max(majority["val_loss"], least), 0.0, GAP_CLOSED)
    score = measured_by_task(logits, labels, data.task)[metric.removeprefix("val_")]
    assert score is not None, "preparation checks that the task has the metric"
    return Standing(metric, score, majority[metric], majority[metric] + GAP_CLOSED * (1 - majority[metric]))


def _weakness(data: Data, logits: np.ndarray, config: TrialConfig, metric: str, assumed: bool) -> str | None:
    """Describe what is wrong with a teacher that is hardly better than always giving one answer; return None for a better one.

    `assumed`: its classes are matched with the dataset's by order alone.
    """
    stands = standing(metric, logits, data.validation.labels, data)
    if stands.score >= stands.needed:
        return None
    order = (
        "; or see whether its classes are in another order than label_names, which nothing but the order matches "
        f"(now {listed(data.label_names)})"
    )
    return (
        f"the teacher must close {stands.gap(data.task)} on validation, but has {stands.numbers()}: it has nothing to teach. "
        f"Train it first or longer (teacher_epochs, now {config.teacher_epochs}), or name a teacher fine-tuned for these "
        f"{_ASKED[data.task]}{order if assumed else ''}{_order_alone(data, logits, config) if data.task == 'regression' else ''}"
    )


def _order_alone(data: Data, logits: np.ndarray, config: TrialConfig) -> str:
    """Return, in words, that a weak teacher of numbers has learned their order but not their size; empty where it has not."""
    labels = data.validation.labels
    correlation = measured_by_task(logits, labels, "regression")["pearson"]
    if correlation is None or correlation < ORDER_LEARNED:
        return ""
    size = f"on validation their mean is {labels.mean():.3g} and their standard deviation {labels.std():.2g}"
    remedy = (
        f"which it learns faster where they are about 1 ({size})"
        if config.teacher_epochs
        else f"or another unit ({size})"
    )
    return f". Its Pearson's r is {correlation:.2f}: it knows the numbers' order and not their size, {remedy}"


def _other_order(data: Data, predicted: np.ndarray, classes: Sequence[str]) -> str | None:
    """Describe what is wrong with a teacher that would be right much more often with its `classes` in another order; return None where
    there is no such order."""
    labels, names = data.validation.labels, data.label_names
    order = likelier_order(predicted, labels, len(names))
    if order is None:
        return None
    before, after = (100 * metrics.accuracy(named, labels) for named in (predicted, order[predicted]))
    meant = [names[place] for place in order]
    if classes[0].startswith("LABEL_"):
        moved = [f"{new} in place of {old}" for new, old in zip(meant, names, strict=True) if new != old]
        remedy = f"name that order in label_names: {listed(meant if len(meant) <= NAMES_SHOWN else moved)}"
    else:
        pairs = [f"{mine} is {theirs}" for mine, theirs in zip(meant, classes, strict=True)]
        remedy = f"give the dataset's classes the model's names: {listed(pairs)}"
    return (
        f"the teacher's classes and the dataset's are matched by their order alone, {listed(classes)} being {listed(names)}, which must be "
        f"right, but gives an accuracy of {before:.1f} on validation, and another order {after:.1f}; {remedy}"
    )


def likelier_order(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray | None:
    """Return, for each class that a teacher predicts, the class that it seems to mean, int [C]. Predictions and labels are int [N].

    Classes are paired one to one, greedily, the pair with the most rows in common first. Returns None where the new order leaves more than
    `ERRORS_LEFT` of the errors, changes nothing, or gains less than two standard errors: g - l < 2 sqrt(g + l), for g rows newly right
    and l newly wrong.
    """
    counts = 2 * metrics.confusion(predicted, labels, classes)
    counts = counts + np.eye(classes, dtype=int)  # among equal counts, the present order first
    order, taken = np.full(classes, -1), np.zeros(classes, dtype=bool)
    for cell in np.argsort(-counts, axis=None, kind="stable"):
        label, column = divmod(int(cell), classes)
        if order[column] < 0 and not taken[label]:
            order[column], taken[label] = label, True
    right, other = predicted == labels, order[predicted] == labels
    gains, losses = int((other & ~right).sum()), int((right & ~other).sum())
    clear = gains - losses >= 2 * (gains + losses) ** 0.5 > 0
    return order if clear and (~other).sum() <= ERRORS_LEFT * (~right).sum() else None
