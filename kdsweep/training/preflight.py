"""Check, once before the first trial, that a teacher is worth learning from. Shapes: N rows, C classes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from kdsweep.analysis import metrics
from kdsweep.config.sweep import StudyConfig
from kdsweep.config.trial import TrialConfig
from kdsweep.errors import NAMES_SHOWN, PreflightError, listed
from kdsweep.training.data.splits import Data
from kdsweep.training.data.tokens import Rows, evaluation_batches
from kdsweep.training.models import classes_of, is_order_assumed
from kdsweep.training.shared import Materials
from kdsweep.training.teacher import Teacher
from kdsweep.training.unlike import unlike_labelled

GAP_CLOSED = 0.04
"""Share of the gap between always naming the commonest class and a perfect score that a teacher must close: one below it has nothing to
teach. For two classes of one size that is 2 points; a perfect teacher passes however rare the other classes are."""
ERRORS_LEFT = 2 / 3
"""Share of a teacher's errors that may remain under another order of its classes for that order to be reported; `likelier_order` also
requires that the difference is no chance."""


def preflight(materials: Materials, config: TrialConfig, study: StudyConfig) -> list[str]:
    """Check, before the first trial, that the teacher is worth learning from; return in words a weakness that
    `study.accept_weak_teacher` accepts, and texts without labels that look like another domain.

    Raises PreflightError for a teacher that gives the same rows other logits the second time; and, unless accepted, for one whose
    classes, matched by order alone, seem to be in another order, or that is hardly better than always naming the commonest class.
    """
    data, teacher = materials.data(config), materials.teacher(config)
    _, validation = materials.teacher_rows(config)
    _check_deterministic(teacher, validation)
    assumed = config.teacher_epochs == 0 and is_order_assumed(teacher.model, data.label_names)
    predicted = validation.teacher_logits.argmax(dim=-1).cpu().numpy()
    weak = (_other_order(data, predicted, classes_of(teacher.model)) if assumed else None) or _weakness(
        data, predicted, config, study.metric, assumed
    )
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
    batch = next(evaluation_batches(validation.tokens))
    for member in teacher.members:
        model = member.load()
        with torch.inference_mode():
            first, second = (model(**batch.inputs).logits for _ in range(2))
        if not torch.equal(first, second):
            raise PreflightError(
                "the teacher must be deterministic, but gives the same rows different logits the second time"
            )


class Standing(NamedTuple):
    """Holds a teacher's score, that of always naming the commonest class, and the score that the teacher needs."""

    score: float
    majority: float
    needed: float


def standing(metric: str, predicted: np.ndarray, labels: np.ndarray, data: Data) -> Standing:
    """Return where a teacher that predicts `predicted` [N] for rows of the classes `labels` [N] stands, by `metric`.

    It needs m + GAP_CLOSED (1 - m), where m is the `metric` of always naming the commonest training class.
    """
    measure, commonest = metrics.measure(metric, len(data.label_names)), np.bincount(data.train.labels).argmax()
    score, majority = (measure(named, labels) for named in (predicted, np.full_like(labels, commonest)))
    return Standing(score, majority, needed=majority + GAP_CLOSED * (1 - majority))


def _weakness(data: Data, predicted: np.ndarray, config: TrialConfig, metric: str, assumed: bool) -> str | None:
    """Describe what is wrong with a teacher that is hardly better than always naming the commonest class; return None for a better one.

    `assumed`: its classes are matched with the dataset's by order alone.
    """
    score, majority, needed = standing(metric, predicted, data.validation.labels, data)
    if score >= needed:
        return None
    order = (
        "; or see whether its classes are in another order than label_names, which nothing but the order matches "
        f"(now {listed(data.label_names)})"
    )
    return (
        f"the teacher must close {GAP_CLOSED:.0%} of the gap between always naming the commonest class and a perfect {metric} on "
        f"validation, but has {100 * score:.2f} against {100 * majority:.2f} ({100 * needed:.2f} would do): it has nothing to teach. "
        f"Train it first or longer (teacher_epochs, now {config.teacher_epochs}), or name a teacher fine-tuned for these classes"
        f"{order if assumed else ''}"
    )


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
