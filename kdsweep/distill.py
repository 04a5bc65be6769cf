"""The training loop: `distill_epoch`, `evaluate`, and `distill`, which alternates them.

The student sees each batch with the teacher's cached logits of the same rows. A teacher is fine-tuned by this same loop,
with alpha 0. Shapes: B batch, C classes, N rows.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from kdsweep.config import TrialConfig
from kdsweep.errors import NonFiniteLoss
from kdsweep.losses import distillation_loss, hard_loss
from kdsweep.models import compact_vocabulary, restore_vocabulary
from kdsweep.records import EpochMetrics, StepMetrics
from kdsweep.shortcuts import shortcuts
from kdsweep.tokens import Tokens, evaluation_batches, training_batches

READ_EVERY = 10
"""Steps whose losses stay on the device before they are read together: reading one by one would wait for each step."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """One split as a model meets it, on the device: tokens, classes [N] and the teacher's logits [N, C]."""

    tokens: Tokens
    labels: Tensor
    teacher_logits: Tensor

    def take(self, rows: np.ndarray) -> "Rows":
        """The named rows, in that order."""
        index = torch.from_numpy(rows)
        return Rows(tokens=self.tokens.take(rows), labels=self.labels[index], teacher_logits=self.teacher_logits[index])

    def renumbered(self, pieces: Tensor) -> "Rows":
        """The same rows in the ids of a compact vocabulary."""
        return replace(self, tokens=self.tokens.renumbered(pieces))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A model on a split, in float32: accuracy and agreement with the teacher in [0, 1], mean cross-entropy, logits [N, C]."""

    accuracy: float
    agreement: float
    loss: float
    logits: Tensor
    seconds: float

    def predictions(self) -> np.ndarray:
        """The class of every row, int64 [N]."""
        predicted: np.ndarray = self.logits.argmax(dim=-1).cpu().numpy()
        return predicted


def distill(
    student: nn.Module,
    train: Rows,
    validation: Rows,
    config: TrialConfig,
    *,
    on_steps: Callable[[Sequence[StepMetrics]], None],
    on_epoch: Callable[[EpochMetrics], bool],
) -> tuple[list[EpochMetrics], Evaluation]:
    """Train `student` in place for `config.epochs`, or until `on_epoch` says stop; its metrics, and the last evaluation.

    Raises NonFiniteLoss at the first step whose loss is nan or inf.
    """
    vocabulary = compact_vocabulary(student, [train.tokens, validation.tokens])
    train, validation = train.renumbered(vocabulary.pieces), validation.renumbered(vocabulary.pieces)
    optimizer, schedule = _optimizer_and_schedule(student, config, steps=config.epochs * steps_per_epoch(train, config))
    history: list[EpochMetrics] = []
    evaluation = None
    with shortcuts(student) if config.precision == "bf16" and config.device == "cpu" else nullcontext():
        for epoch in range(1, config.epochs + 1):
            started = time.perf_counter()
            step, losses = distill_epoch(student, train, optimizer, schedule, config, epoch=epoch, on_steps=on_steps)
            train_seconds = time.perf_counter() - started
            evaluation = evaluate(student, validation)
            if not np.isfinite(evaluation.loss):  # the last update can break the weights after its loss was finite
                raise NonFiniteLoss(step, losses[1].item(), evaluation.loss)
            history.append(_epoch_metrics(epoch, step, losses, evaluation, train_seconds))
            if on_epoch(history[-1]):
                break
    assert evaluation is not None
    restore_vocabulary(student, vocabulary, decay=_weight_decay_so_far(schedule, config))
    return history, evaluation


def distill_epoch(
    student: nn.Module,
    rows: Rows,
    optimizer: Optimizer,
    schedule: LambdaLR,
    config: TrialConfig,
    *,
    epoch: int,
    on_steps: Callable[[Sequence[StepMetrics]], None],
) -> tuple[int, Tensor]:
    """One pass over `rows`; the last step's number, and the mean L_total, L_soft and L_hard over rows, float64 [3]."""
    torch.manual_seed(
        config.seed * 1_000_003 + epoch
    )  # dropout: an epoch's randomness does not hang on the ones before
    student.train()
    device = rows.labels.device
    step = (epoch - 1) * steps_per_epoch(rows, config)
    unread: list[tuple[int, float, Tensor]] = []
    losses, seen = torch.zeros(3, dtype=torch.float64), 0

    def read() -> None:
        nonlocal losses, seen
        values = torch.stack([parts for *_, parts in unread]).cpu().double()
        for (size, _, _), value in zip(unread, values, strict=True):
            losses, seen = losses + size * value, seen + size
        on_steps(_step_metrics(values, [rate for _, rate, _ in unread], last=step, epoch=epoch))
        unread.clear()

    for batch in training_batches(rows.tokens, batch_size=config.batch_size, seed=config.seed, epoch=epoch):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16"):
            student_logits = student(**batch.inputs).logits
        loss = distillation_loss(
            student_logits,
            rows.teacher_logits[batch.rows],
            rows.labels[batch.rows],
            temperature=config.temperature,
            alpha=config.alpha,
        )
        loss.total.backward()
        nn.utils.clip_grad_norm_(student.parameters(), config.max_grad_norm)
        optimizer.step()
        unread.append((len(batch.rows), float(schedule.get_last_lr()[0]), torch.stack(loss).detach()))
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if len(unread) == READ_EVERY:
            read()
    if unread:
        read()
    return step, losses / seen


def evaluate(model: nn.Module, rows: Rows) -> Evaluation:
    """`model` on every row without dropout, in float32: the numbers are those of the weights that are saved."""
    model.eval()
    started = time.perf_counter()
    logits = all_logits(model, rows.tokens, classes=rows.teacher_logits.shape[1])
    predicted = logits.argmax(dim=-1)
    return Evaluation(
        accuracy=(predicted == rows.labels).double().mean().item(),
        agreement=(predicted == rows.teacher_logits.argmax(dim=-1)).double().mean().item(),
        loss=hard_loss(logits, rows.labels).item(),
        logits=logits,
        seconds=time.perf_counter() - started,
    )


def all_logits(model: nn.Module, tokens: Tokens, *, classes: int) -> Tensor:
    """The model's logits of every row, float32 [N, C], in row order."""
    logits = torch.empty(len(tokens.lengths), classes, device=tokens.ids.device)
    with torch.inference_mode():
        for batch in evaluation_batches(tokens):
            logits[batch.rows] = model(**batch.inputs).logits.float()
    return logits


def steps_per_epoch(rows: Rows, config: TrialConfig) -> int:
    """Steps that one pass takes."""
    return -(-len(rows.labels) // config.batch_size)


def _optimizer_and_schedule(model: nn.Module, config: TrialConfig, *, steps: int) -> tuple[Optimizer, LambdaLR]:
    """AdamW without weight decay on biases and LayerNorm; the rate rises over the warm-up and falls linearly to zero."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = AdamW(groups, lr=config.learning_rate, fused=True)
    warmup = round(config.warmup_ratio * steps)
    return optimizer, LambdaLR(optimizer, lambda step: _rate(step, warmup, steps))


def _rate(step: int, warmup: int, steps: int) -> float:
    """The share of the peak learning rate at a step, counted from 0."""
    return (step + 1) / (warmup + 1) if step < warmup else (steps - step) / max(1, steps - warmup)


def _weight_decay_so_far(schedule: LambdaLR, config: TrialConfig) -> float:
    """What AdamW's decoupled decay left of a weight that never had a gradient: the product of 1 - rate · weight_decay."""
    (share, *_), steps = schedule.lr_lambdas, schedule.last_epoch
    rates = config.learning_rate * np.array([share(step) for step in range(steps)])
    return float(np.prod(1 - rates * config.weight_decay))


def _step_metrics(values: Tensor, rates: list[float], *, last: int, epoch: int) -> list[StepMetrics]:
    first = last - len(rates) + 1
    steps = []
    for step, (total, soft, hard), rate in zip(range(first, last + 1), values.tolist(), rates, strict=True):
        if not np.isfinite([total, soft, hard]).all():
            raise NonFiniteLoss(step, soft, hard)
        steps.append(StepMetrics(step=step, epoch=epoch, L_soft=soft, L_hard=hard, L_total=total, learning_rate=rate))
    return steps


def _epoch_metrics(epoch: int, step: int, losses: Tensor, evaluation: Evaluation, train_seconds: float) -> EpochMetrics:
    total, soft, hard = losses.tolist()
    return EpochMetrics(
        epoch=epoch,
        step=step,
        L_soft=soft,
        L_hard=hard,
        L_total=total,
        val_accuracy=evaluation.accuracy,
        val_loss=evaluation.loss,
        val_agreement=evaluation.agreement,
        train_seconds=train_seconds,
        evaluate_seconds=evaluation.seconds,
    )
