"""Measure what a form is worth on one split, beside the float32 student. Shapes: N rows, B rows of a batch, C classes."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from kdsweep.analysis.measured import measured_by_task
from kdsweep.analysis.non_inferiority import NonInferiority, compare_forms, compare_scores
from kdsweep.analysis.tasks import predicted, row_scores
from kdsweep.config.tasks import TaskName
from kdsweep.records.export_schema import FormQuality
from kdsweep.shipping.same_answer import SameAnswer
from kdsweep.shipping.speed import BATCH_ROWS

Classify = Callable[[np.ndarray], np.ndarray]
"""Returns the logits [B, C] of the rows with these numbers [B], as one batch."""

NEAR = 1000
"""How many times the rounding seen so far is looked for, where a row's answer could be another one."""
COPIED = 64
"""Most rows whose dependence on their batch is looked into."""


PADDING_READ = 1e-3
"""What a float32 logit may move by between a row alone and in a batch where padding does not count: a hundred times its rounding."""
PLAIN = SameAnswer()
"""How classes are compared."""
NEAR_EVEN: dict[TaskName, str] = {
    "single_label": "where two classes are all but equal",
    "multi_label": "where a label's probability is all but 0.5",
    "regression": "more than elsewhere on these rows",
}
ANSWERS_SAID: dict[TaskName, str] = {"single_label": "label", "multi_label": "labels", "regression": "number"}
"""What a row gets, in words."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Holds what a form answers to the N rows of a split."""

    alone: np.ndarray
    """The logits of every row, each a batch of its own, [N, C]."""
    in_batches: np.ndarray
    """The answer to every row (`analysis/tasks.predicted`: of single_label its class, [N]), in batches of `BATCH_ROWS` in the split's order."""
    rule: SameAnswer = PLAIN

    def dependent(self) -> np.ndarray:
        """Return the numbers of the rows whose answer is another one in the batch."""
        return np.flatnonzero(~self.rule.same(self.rule.answers(self.alone), self.in_batches))

    def alike(self, reference: np.ndarray) -> float:
        """Return how much the answers alone and in a batch are like those of the logits `reference` [N, C]: see `SameAnswer.likeness`."""
        return self.rule.likeness(self.rule.answers(self.alone), self.in_batches, self.rule.answers(reference))


def answers(classify: Classify, rows: int, on_rows: Callable[[int], None], rule: SameAnswer = PLAIN) -> Answers:
    """Let a form answer all rows, alone and in batches; `on_rows` gets the number of rows done."""
    alone, together = [], []
    for batch in np.split(np.arange(rows), range(BATCH_ROWS, rows, BATCH_ROWS)):
        alone += [classify(batch[place : place + 1]) for place in range(len(batch))]
        together.append(rule.answers(classify(batch)))
        on_rows(int(batch[-1]) + 1)
    return Answers(alone=np.concatenate(alone), in_batches=np.concatenate(together), rule=rule)


def near_answers(
    classify: Classify, reference: np.ndarray, on_rows: Callable[[int], None], rule: SameAnswer = PLAIN
) -> Answers:
    """Let a form in float32 answer all rows in batches, and alone those that can have another answer there: it gave the logits `reference`
    [N, C] in other batches, and a row's slack (between classes, that of its two largest) must be at most `NEAR` times what the largest logit
    moved by between the two."""
    batches = np.split(np.arange(len(reference)), range(BATCH_ROWS, len(reference), BATCH_ROWS))
    together = []
    for batch in batches:
        together.append(classify(batch))
        on_rows(int(batch[-1]) + 1)
    in_batches = np.concatenate(together)
    moved = float(np.abs(in_batches - reference).max())
    alone = reference.copy()
    for row in np.flatnonzero(rule.slack(reference) <= NEAR * moved):
        alone[row] = classify(np.array([row]))[0]
    return Answers(alone=alone, in_batches=rule.answers(in_batches), rule=rule)


def form_quality(
    logits: np.ndarray,
    reference: np.ndarray,
    labels: np.ndarray,
    *,
    batch_dependent: int,
    margin: float | None,
    task: TaskName = "single_label",
) -> FormQuality:
    """Return what a form with these logits [N, C] is worth, `reference` being the float32 PyTorch student's.

    With a margin (None for that student itself) its score is compared with the reference's.
    """
    found = None if margin is None else _compared(logits, reference, labels, margin, task)
    told = {name: getattr(found, name) for name in ("difference", "low", "high", "word")} if found else {}
    measured: dict[str, Any] = measured_by_task(logits, labels, task, reference)
    own = {each.name for each in fields(FormQuality)}
    return FormQuality(
        **{name: value for name, value in measured.items() if name in own},
        rows=len(labels),
        r2=_r2(measured["loss"], labels) if task == "regression" else None,
        largest_logit_difference=float(np.abs(logits - reference).max()),
        batch_dependent=batch_dependent,
        **told,
    )


def _compared(
    logits: np.ndarray, reference: np.ndarray, labels: np.ndarray, margin: float, task: TaskName
) -> NonInferiority | None:
    """Compare a form with the float32 student by the scores of the rows; None for numbers whose labels are all equal, which have no R²."""
    mine, theirs = (row_scores(predicted(each, task), labels, task) for each in (logits, reference))
    if task == "single_label":
        return compare_forms(mine, theirs, margin=margin)
    if task == "multi_label":
        return compare_scores(mine, theirs, margin=margin)
    variance = float(labels.var(dtype=np.float64))
    return compare_scores(mine, theirs, margin=margin, unit=variance) if variance else None


def _r2(squared_error: float, labels: np.ndarray) -> float | None:
    variance = float(labels.var(dtype=np.float64))
    return 1 - squared_error / variance if variance else None


def batch_cause(classify: Classify, found: Answers, *, dynamic: bool, float32: bool = False) -> str | None:
    """Return why rows have another answer in a batch than alone, as a sentence; None where none has.

    Rows are run in a batch of copies of themselves: where that gives the answer that they have alone, their neighbours are the cause,
    not the size of the batch. In `float32` a logit that moves by more than rounding does so because the model reads padding.
    """
    rows, rule = found.dependent()[:COPIED], found.rule
    if not len(rows):
        return None
    alone, kept = rule.answers(found.alone), 0
    for row in rows:
        copies = rule.answers(classify(np.repeat(row, BATCH_ROWS)))
        kept += bool(rule.same(copies, np.repeat(alone[row : row + 1], BATCH_ROWS, axis=0)).all())
    what = ANSWERS_SAID[rule.task]
    tried = (
        f"among {BATCH_ROWS} copies of themselves {kept} of {len(rows)} such rows have the {what} that they have alone"
    )
    if dynamic:
        return (
            "Dynamic quantisation takes one scale for all activations of a batch, padding included, so that a row is rounded by the "
            f"largest values of its neighbours: {tried}"
        )
    if float32 and (moved := _moved(classify, found, rows)) > PADDING_READ:
        return (
            f"This family of models reads the padding of a batch, as convolutions over neighbouring tokens do (logits move by up to {moved:.2g}), "
            f"so that a row's answer depends on the longest row beside it: {tried}"
        )
    return f"Sums are taken in another order in a batch, and round {NEAR_EVEN[rule.task]}: {tried}"


def _moved(classify: Classify, found: Answers, rows: np.ndarray) -> float:
    """Return by how much a logit of these rows moves at most between the row alone and its batch of `answers`."""
    total, most = len(found.alone), 0.0
    for row in rows:
        first = row - row % BATCH_ROWS
        batch = classify(np.arange(first, min(first + BATCH_ROWS, total)))
        most = max(most, float(np.abs(batch[row - first] - found.alone[row]).max()))
    return most
