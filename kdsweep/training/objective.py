"""Define what a student is trained for: a loss in named parts, from its outputs and the targets of a batch.

An `Objective` lists which of the student's outputs its loss reads, so that the training loop takes no shortcut that leaves them out.
Shapes: B batch, C classes, L tokens, H hidden size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Literal, Protocol

from torch import Tensor

from kdsweep.config.tasks import TaskName
from kdsweep.config.trial import TrialConfig
from kdsweep.records.schema import StepMetrics
from kdsweep.training.data.tokens import TEACHER_LOGITS, Rows
from kdsweep.training.fast.families import RELATIONS
from kdsweep.training.losses import distillation_loss, moves, scheduled
from kdsweep.training.relations import relation_loss

TOTAL = "L_total"
"""The part whose gradient trains the student."""
RECORDED = tuple(field.name for field in fields(StepMetrics) if field.name.startswith("L_"))
"""Losses that the record has a column for."""
SCHEDULED = ("temperature", "alpha")
"""Values that may follow a schedule, and are then parts too: the record has a column of the steps for each."""
OUTPUTS = frozenset({"hidden_states", RELATIONS})
"""A model's outputs beside its logits. `hidden_states`: its embeddings and each layer's output, [B, L, H] each, first to last; `relations`:
its last layer's queries, keys and values by name, [B, L, H] each."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Holds what a loss is computed from, for the rows of a batch or of a piece of it."""

    student: Mapping[str, Any]
    """The student's outputs by transformers' names: `logits` [B, C] and those in `Objective.student_outputs`."""
    teacher: Mapping[str, Any]
    """The outputs of the teacher, run on the same tokens, that are in `Objective.teacher_outputs`; empty where it has none."""
    targets: Mapping[str, Tensor]
    """The rows' targets, each [B, …]."""
    labels: Tensor
    """Classes, int64 [B], -1 where a row has none; those of the other tasks are in `training/tasks.py`."""
    mask: Tensor
    """1 for a token, 0 for padding, [B, L]."""
    weights: Mapping[str, Tensor]
    """Each row's weight in a loss part, by the part's name, float32 [B], with mean 1 over the whole batch (but for class_weights, which L_hard's
    have as a factor): 0 for a row that the part does not count. A part that is missing here weighs all rows alike."""
    progress: Tensor
    """(step - 1) / (steps - 1) of the whole training, in [0, 1], 0-d float32."""
    task: TaskName = "single_label"
    """What the labels ask of a model."""


class Loss(Protocol):
    """Computes, as a pure function, the named loss parts of a batch, `L_total` among them: each 0-d, and a mean of weighted rows.

    Where a batch is cut into pieces, or shared by several processes, the parts of each piece are weighed by its rows. A GPU may run the
    function as part of a recorded CUDA graph: it must not read a tensor's values on the host.
    """

    def __call__(self, batch: Inputs, /) -> Mapping[str, Tensor]:
        """Return the loss parts of a batch."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Holds a loss, the names of its parts, and what it reads of student and rows."""

    loss: Loss
    parts: Sequence[str] = ("L_soft", "L_hard")
    """Names of the loss's parts beside `L_total`, each with a column in `StepMetrics`, a loss in `EpochMetrics` too."""
    student_outputs: frozenset[str] = frozenset()
    """Names from `OUTPUTS` that the loss reads of the student beside the logits; it gets no others."""
    teacher_outputs: frozenset[str] = frozenset()
    """Names from `OUTPUTS` that the loss reads of the teacher, which then runs on every batch, frozen; it gets no others."""
    targets: frozenset[str] = frozenset()
    """Names from `Rows.targets` that the loss reads; it gets no others."""

    def __post_init__(self) -> None:
        """Check the names. Raises ValueError for parts that the record has no column for, and for outputs that no student has."""
        if unrecorded := {TOTAL, *self.parts} - {*RECORDED, *SCHEDULED}:
            columns = [*RECORDED, *SCHEDULED]
            raise ValueError(
                f"an objective's parts must be among {columns}, the columns of records/schema.py, but got {sorted(unrecorded)}"
            )
        for of, names in (("student", self.student_outputs), ("teacher", self.teacher_outputs)):
            if unknown := names - OUTPUTS:
                raise ValueError(f"{of}_outputs must be among {sorted(OUTPUTS)}, but got {sorted(unknown)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the loss parts in the order of a step's losses: the total first."""
        return (TOTAL, *self.parts)

    def named(self, losses: Sequence[float]) -> dict[str, float]:
        """Return a step's losses and scheduled values by their column in the record; 0 for a loss that this objective does not have."""
        return {**dict.fromkeys(RECORDED, 0.0), **dict(zip(self.names, losses, strict=True))}

    def check(self, rows: Rows) -> None:
        """Check that `rows` have every target of the objective. Raises ValueError where one is missing."""
        if missing := self.targets - rows.targets.keys():
            raise ValueError(
                f"an objective's targets must be among the rows', {sorted(rows.targets)}, but got {sorted(missing)}"
            )


def objective_of(config: TrialConfig) -> Objective:
    """Return the objective of `config`: alpha L_soft + (1 - alpha) L_hard from logits alone, and relation_weight L_relation where that is above 0.

    Which losses these are, the task of each batch decides.
    """
    loss = partial(
        _distillation,
        temperature=config.temperature,
        temperature_end=config.temperature_end,
        alpha=config.alpha,
        alpha_end=config.alpha_end,
        soft_loss=config.soft_loss,
        label_smoothing=config.label_smoothing,
    )
    moving = {
        "temperature": config.soft_loss == "kl" and moves(config.temperature, config.temperature_end),
        "alpha": moves(config.alpha, config.alpha_end),
    }
    parts = ("L_soft", "L_hard", *(name for name in SCHEDULED if moving[name]))
    objective = Objective(loss=loss, parts=parts, targets=frozenset({TEACHER_LOGITS}))
    return _with_relations(objective, config) if config.relation_weight > 0 else objective


def _with_relations(objective: Objective, config: TrialConfig) -> Objective:
    """Return `objective` with relation_weight L_relation added to its total."""
    weight, heads = config.relation_weight, config.relation_heads
    return replace(
        objective,
        loss=partial(_related, objective.loss, relation_weight=weight, relation_heads=heads),
        parts=(*objective.parts, "L_relation"),
        student_outputs=objective.student_outputs | {RELATIONS},
        teacher_outputs=objective.teacher_outputs | {RELATIONS},
    )


def _related(of_logits: Loss, batch: Inputs, *, relation_weight: float, relation_heads: int) -> dict[str, Tensor]:
    parts = of_logits(batch)
    relation = relation_loss(
        batch.student[RELATIONS],
        batch.teacher[RELATIONS],
        batch.mask,
        heads=relation_heads,
        weights=batch.weights.get("L_relation"),
    )
    return {**parts, TOTAL: parts[TOTAL] + relation_weight * relation, "L_relation": relation}


def _distillation(
    batch: Inputs,
    *,
    temperature: float,
    temperature_end: float | None,
    alpha: float,
    alpha_end: float | None,
    soft_loss: Literal["kl", "mse"],
    label_smoothing: float,
) -> dict[str, Tensor]:
    now = {
        "temperature": scheduled(temperature, temperature_end, batch.progress),
        "alpha": scheduled(alpha, alpha_end, batch.progress),
    }
    parts = distillation_loss(
        batch.student["logits"],
        batch.targets[TEACHER_LOGITS],
        batch.labels,
        temperature=now["temperature"],
        alpha=now["alpha"],
        soft_loss=soft_loss,
        label_smoothing=label_smoothing,
        soft_weights=batch.weights.get("L_soft"),
        hard_weights=batch.weights.get("L_hard"),
        task=batch.task,
    )
    moved = {name: value for name, value in now.items() if isinstance(value, Tensor)}
    return {TOTAL: parts.total, "L_soft": parts.soft, "L_hard": parts.hard, **moved}
