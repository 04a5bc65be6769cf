"""Measure what a form is worth on one split, beside the float32 student. Shapes: N rows, B rows of a batch, C classes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdsweep.analysis import metrics
from kdsweep.analysis.non_inferiority import compare_forms
from kdsweep.records.export_schema import FormQuality
from kdsweep.shipping.speed import BATCH_ROWS

Classify = Callable[[np.ndarray], np.ndarray]
"""Returns the logits [B, C] of the rows with these numbers [B], as one batch."""

NEAR = 1000
"""How many times the rounding seen so far is looked for, where a row's class could be another one."""
COPIED = 64
"""Most rows whose dependence on their batch is looked into."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Holds what a form answers to the N rows of a split."""

    alone: np.ndarray
    """The logits of every row, each a batch of its own, [N, C]."""
    in_batches: np.ndarray
    """The class of every row, in batches of `BATCH_ROWS` in the split's order, [N]."""

    def dependent(self) -> np.ndarray:
        """Return the numbers of the rows whose class is another one in the batch."""
        return np.flatnonzero(self.alone.argmax(axis=1) != self.in_batches)

    def alike(self, reference: np.ndarray) -> float:
        """Return the share of rows that have the class of the logits `reference` [N, C] both alone and in a batch."""
        theirs = reference.argmax(axis=1)
        return float(np.mean((self.alone.argmax(axis=1) == theirs) & (self.in_batches == theirs)))


def answers(classify: Classify, rows: int, on_rows: Callable[[int], None]) -> Answers:
    """Let a form answer all rows, alone and in batches; `on_rows` gets the number of rows done."""
    alone, together = [], []
    for batch in np.split(np.arange(rows), range(BATCH_ROWS, rows, BATCH_ROWS)):
        alone += [classify(batch[place : place + 1]) for place in range(len(batch))]
        together.append(classify(batch).argmax(axis=1))
        on_rows(int(batch[-1]) + 1)
    return Answers(alone=np.concatenate(alone), in_batches=np.concatenate(together))


def near_answers(classify: Classify, reference: np.ndarray, on_rows: Callable[[int], None]) -> Answers:
    """Let a form in float32 answer all rows in batches, and alone those that can have another class there: it gave the logits `reference`
    [N, C] in other batches, and a row's two largest must be nearer than `NEAR` times what the largest logit moved by between the two."""
    batches = np.split(np.arange(len(reference)), range(BATCH_ROWS, len(reference), BATCH_ROWS))
    together = []
    for batch in batches:
        together.append(classify(batch))
        on_rows(int(batch[-1]) + 1)
    moved = float(np.abs(np.concatenate(together) - reference).max())
    alone = reference.copy()
    ordered = np.sort(reference, axis=1)
    for row in np.flatnonzero(ordered[:, -1] - ordered[:, -2] <= NEAR * moved):
        alone[row] = classify(np.array([row]))[0]
    return Answers(alone=alone, in_batches=np.concatenate(together).argmax(axis=1))


def form_quality(
    logits: np.ndarray, reference: np.ndarray, labels: np.ndarray, *, batch_dependent: int, margin: float | None
) -> FormQuality:
    """Return what a form with these logits [N, C] is worth, `reference` being the float32 PyTorch student's.

    With a margin (None for that student itself) its accuracy is compared with the reference's.
    """
    mine, theirs = logits.argmax(axis=1), reference.argmax(axis=1)
    told: dict[str, Any] = {}
    if margin is not None:
        found = compare_forms(mine == labels, theirs == labels, margin=margin)
        told = {"difference": found.difference, "low": found.low, "high": found.high, "word": found.word}
    return FormQuality(
        rows=len(labels),
        accuracy=metrics.accuracy(mine, labels),
        loss=metrics.nll(logits, labels),
        ece=metrics.expected_calibration_error(logits, labels),
        agreement=metrics.agreement(mine, theirs),
        largest_logit_difference=float(np.abs(logits - reference).max()),
        batch_dependent=batch_dependent,
        **told,
    )


def batch_cause(classify: Classify, found: Answers, *, dynamic: bool) -> str | None:
    """Return why rows have another class in a batch than alone, as a sentence; None where none has.

    Rows are run in a batch of copies of themselves: where that gives the class that they have alone, their neighbours are the cause,
    not the size of the batch.
    """
    rows = found.dependent()[:COPIED]
    if not len(rows):
        return None
    alone = found.alone.argmax(axis=1)
    kept = sum(bool((classify(np.repeat(row, BATCH_ROWS)).argmax(axis=1) == alone[row]).all()) for row in rows)
    tried = (
        f"among {BATCH_ROWS} copies of themselves {kept} of {len(rows)} such rows have the label that they have alone"
    )
    if dynamic:
        return (
            "Dynamic quantisation takes one scale for all activations of a batch, padding included, so that a row is rounded by the "
            f"largest values of its neighbours: {tried}"
        )
    return f"Sums are taken in another order in a batch, and round where two classes are all but equal: {tried}"
