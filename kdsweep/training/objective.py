"""Define what a student is trained for: a loss in named parts, from its outputs and the targets of a batch.

An `Objective` lists which of the student's outputs its loss reads, so that the training loop takes no shortcut that leaves them out.
Shapes: B batch, C classes, L tokens, H hidden size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Protocol

from torch import Tensor

from kdsweep.config.trial import TrialConfig
from kdsweep.records.schema import StepMetrics
from kdsweep.training.data.tokens import TEACHER_LOGITS, Rows
from kdsweep.training.losses import distillation_loss

TOTAL = "L_total"
"""The part whose gradient trains the student."""
RECORDED = tuple(field.name for field in fields(StepMetrics) if field.name.startswith("L_"))
"""Parts that the record has a column for."""
OUTPUTS = frozenset({"hidden_states"})
"""A student's outputs beside its logits. `hidden_states`: its embeddings and each layer's output, [B, L, H] each, first to last."""


class Loss(Protocol):
    """Computes, as a pure function, the named loss parts of a batch, `L_total` among them: each 0-d, and a mean over the batch's rows.

    Where a batch is cut into pieces, or shared by several processes, the parts of each piece are weighed by its rows. A GPU may run the
    function as part of a recorded CUDA graph: it must not read a tensor's values on the host.
    """

    def __call__(
        self, outputs: Mapping[str, Any], targets: Mapping[str, Tensor], labels: Tensor, mask: Tensor, /
    ) -> Mapping[str, Tensor]:
        """Return the loss parts of a batch: of the student's `outputs` by transformers' names, `logits` [B, C] and those in
        `student_outputs`; its `targets`, each [B, …]; its classes `labels` [B]; and a `mask` [B, L], 1 for a token, 0 for padding."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Holds a loss, the names of its parts, and what it reads of student and rows."""

    loss: Loss
    parts: Sequence[str] = ("L_soft", "L_hard")
    """Names of the loss's parts beside `L_total`, each with a column in `StepMetrics` and `EpochMetrics`."""
    student_outputs: frozenset[str] = frozenset()
    """Names from `OUTPUTS` that the loss reads of the student beside the logits; it gets no others."""
    targets: frozenset[str] = frozenset()
    """Names from `Rows.targets` that the loss reads; it gets no others."""

    def __post_init__(self) -> None:
        """Check the names. Raises ValueError for parts that the record has no column for, and for outputs that no student has."""
        if unrecorded := {TOTAL, *self.parts} - {*RECORDED}:
            raise ValueError(
                f"an objective's parts must be among {[*RECORDED]}, the columns of records/schema.py, but got {sorted(unrecorded)}"
            )
        if unknown := self.student_outputs - OUTPUTS:
            raise ValueError(f"student_outputs must be among {sorted(OUTPUTS)}, but got {sorted(unknown)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the loss parts in the order of a step's losses: the total first."""
        return (TOTAL, *self.parts)

    def named(self, losses: Sequence[float]) -> dict[str, float]:
        """Return a step's losses by their column in the record; 0 for a part that this objective does not have."""
        return {**dict.fromkeys(RECORDED, 0.0), **dict(zip(self.names, losses, strict=True))}

    def check(self, rows: Rows) -> None:
        """Check that `rows` have every target of the objective. Raises ValueError where one is missing."""
        if missing := self.targets - rows.targets.keys():
            raise ValueError(
                f"an objective's targets must be among the rows', {sorted(rows.targets)}, but got {sorted(missing)}"
            )


def objective_of(config: TrialConfig) -> Objective:
    """Return the objective of `config`: alpha L_soft + (1 - alpha) L_hard, from logits alone."""
    loss = partial(_distillation, temperature=config.temperature, alpha=config.alpha)
    return Objective(loss=loss, targets=frozenset({TEACHER_LOGITS}))


def _distillation(
    outputs: Mapping[str, Any],
    targets: Mapping[str, Tensor],
    labels: Tensor,
    mask: Tensor,
    *,
    temperature: float,
    alpha: float,
) -> dict[str, Tensor]:
    student, teacher = outputs["logits"], targets[TEACHER_LOGITS]
    parts = distillation_loss(student, teacher, labels, temperature=temperature, alpha=alpha)
    return {TOTAL: parts.total, "L_soft": parts.soft, "L_hard": parts.hard}
