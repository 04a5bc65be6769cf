"""What a student is trained for: a loss in named parts, from its outputs and the targets of a batch.

The loop is handed an `Objective` and asks it what it reads of the student, so that no shortcut leaves that out.
Shapes: B batch, C classes, N rows, L tokens, H width.
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
"""The part that is trained on."""
RECORDED = tuple(field.name for field in fields(StepMetrics) if field.name.startswith("L_"))
"""Parts that the record has a column for."""
OUTPUTS = frozenset({"hidden_states"})
"""What a student gives beside its logits: its embeddings and each layer's output, [B, L, H] each, first to last."""


class Loss(Protocol):
    """A pure function from a batch to named loss parts, `L_total` among them: each 0-d, and a mean over the batch's rows.

    Where a batch is cut into pieces, or shared by several processes, the parts of each piece are weighed by its rows. A GPU runs it as a
    part of a recorded step: it must not read a tensor's values on the host.
    """

    def __call__(
        self, outputs: Mapping[str, Any], targets: Mapping[str, Tensor], labels: Tensor, mask: Tensor, /
    ) -> Mapping[str, Tensor]:
        """Return the parts for the student's `outputs` by transformers' names, `logits` [B, C] and what the objective names, its `targets`
        [B, …], the classes [B], and a `mask` [B, L] that is 1 where a token is no padding."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A loss, and what it needs of student and rows."""

    loss: Loss
    parts: Sequence[str] = ("L_soft", "L_hard")
    """Names of its parts beside `L_total`, each with a column in `StepMetrics` and `EpochMetrics`."""
    student_outputs: frozenset[str] = frozenset()
    """What it reads of the student beside the logits, of `OUTPUTS`; it is given nothing else."""
    targets: frozenset[str] = frozenset()
    """What it reads of `Rows.targets`; it is given nothing else."""

    def __post_init__(self) -> None:
        """Raises ValueError for parts that nobody records, and for outputs that no student gives."""
        if unrecorded := {TOTAL, *self.parts} - {*RECORDED}:
            raise ValueError(
                f"an objective's parts must be among {[*RECORDED]}, the columns of records/schema.py, but got {sorted(unrecorded)}"
            )
        if unknown := self.student_outputs - OUTPUTS:
            raise ValueError(f"student_outputs must be among {sorted(OUTPUTS)}, but got {sorted(unknown)}")

    @property
    def names(self) -> tuple[str, ...]:
        """The parts in the order of a step's losses: the total first."""
        return (TOTAL, *self.parts)

    def named(self, losses: Sequence[float]) -> dict[str, float]:
        """Return a step's losses by their column in the record; 0 for a part that this objective does not have."""
        return {**dict.fromkeys(RECORDED, 0.0), **dict(zip(self.names, losses, strict=True))}

    def check(self, rows: Rows) -> None:
        """Raises ValueError where `rows` lack one of its targets."""
        if missing := self.targets - rows.targets.keys():
            raise ValueError(
                f"an objective's targets must be among the rows', {sorted(rows.targets)}, but got {sorted(missing)}"
            )


def objective_of(config: TrialConfig) -> Objective:
    """Return what `config` trains a student for: alpha L_soft + (1 - alpha) L_hard, from logits alone."""
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
