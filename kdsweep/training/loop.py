"""The training loop: `distill_epoch`, `evaluate`, and `distill`, which alternates them.

The student sees each batch with the teacher's cached logits of the same rows. A teacher is fine-tuned by this same loop,
with alpha 0. Shapes: B batch, C classes, N rows.
"""

import functools
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from kdsweep.analysis import metrics
from kdsweep.config.trial import TrialConfig
from kdsweep.errors import DoesNotFit, NonFiniteLoss
from kdsweep.records.schema import VALIDATED, EpochMetrics, StepMetrics
from kdsweep.training.checkpoints import NOT_KEPT, Checkpoints
from kdsweep.training.data.tokens import Batch, Tokens, evaluation_batches, split_batch, training_batches
from kdsweep.training.fast import machine
from kdsweep.training.fast.cuda_graphs import Graphs, own_stream, recording
from kdsweep.training.fast.shortcuts import is_known, shortcuts, weights_in_bfloat16
from kdsweep.training.fast.team import ALONE, Team
from kdsweep.training.losses import distillation_loss
from kdsweep.training.models import compact_vocabulary, restore_vocabulary
from kdsweep.training.readout import Readout, Taken


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
    """A model on a split, run in float32: logits [N, C], and what they are worth at T = 1 (see `metrics` for each)."""

    accuracy: float
    macro_f1: float
    mcc: float
    loss: float
    """Mean cross-entropy in nats."""
    ece: float
    agreement: float
    kl: float
    logits: Tensor
    seconds: float

    def predictions(self) -> np.ndarray:
        """The class of every row, int64 [N]."""
        predicted: np.ndarray = self.logits.argmax(dim=-1).cpu().numpy()
        return predicted


@dataclass(kw_only=True)
class Training:
    """A student between two steps: everything that the next step depends on, so that a checkpoint of it gives the same bits on a CPU."""

    student: nn.Module
    optimizer: Optimizer
    schedule: LambdaLR
    epoch: int = 1
    step: int = 0
    team: Team = ALONE
    graphs: Graphs | None = None
    losses: Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))
    """L_total, L_soft and L_hard summed over this epoch's rows so far, float64 [3]."""
    rows_seen: int = 0
    micro_batches: int = 1
    """Pieces that a batch is cut into, because a whole one did not fit in memory."""
    history: list[EpochMetrics] = field(default_factory=list)
    epoch_started: float = field(default_factory=time.perf_counter)

    def state_dict(self) -> dict[str, Any]:
        """For `load_state_dict`, with the random number generators of the CPU and of the student's device."""
        device = self._device()
        plain = {name: getattr(self, name) for name in ("epoch", "step", "losses", "rows_seen", "micro_batches")}
        return {
            **plain,
            "history": [asdict(epoch) for epoch in self.history],
            "epoch_seconds": time.perf_counter() - self.epoch_started,
            "student": self.student.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": {key: value for key, value in self.schedule.state_dict().items() if key != "lr_lambdas"},
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Stand where `state` was taken."""
        for name in ("epoch", "step", "rows_seen", "micro_batches"):
            setattr(self, name, state[name])
        self.losses = state["losses"].cpu()
        self.history = [EpochMetrics(**epoch) for epoch in state["history"]]
        self.epoch_started = time.perf_counter() - state["epoch_seconds"]
        self.student.load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict({**state["schedule"], "lr_lambdas": [None] * len(self.schedule.lr_lambdas)})
        torch.set_rng_state(state["rng"].cpu())
        if state["cuda_rng"] is not None and self._device().type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self._device())

    def _device(self) -> torch.device:
        return next(self.student.parameters()).device

    def next_epoch(self, finished: EpochMetrics) -> None:
        """Close this epoch."""
        self.history.append(finished)
        self.epoch, self.rows_seen, self.losses = self.epoch + 1, 0, torch.zeros(3, dtype=torch.float64)
        self.epoch_started = time.perf_counter()


def distill(
    student: nn.Module,
    train: Rows,
    validation: Rows,
    config: TrialConfig,
    *,
    on_steps: Callable[[Sequence[StepMetrics]], None],
    on_epoch: Callable[[EpochMetrics], bool],
    on_start: Callable[[Training], None] = lambda _: None,
    checkpoints: Checkpoints = NOT_KEPT,
    team: Team = ALONE,
) -> tuple[Training, Evaluation]:
    """Train `student` in place for `config.epochs`, or until `on_epoch` says stop; where it stands then, and the last evaluation.

    Goes on from the newest checkpoint, if there is one; `on_start` sees where training starts. Raises NonFiniteLoss, which names the first step whose
    loss is nan or inf, DoesNotFit for a row too large for the memory, Interrupted after a checkpoint when asked to stop.
    The processes of a `team` each call this with their own copy of student and rows, and end with the same weights.
    """
    vocabulary = compact_vocabulary(student, [train.tokens, validation.tokens])
    train, validation = train.renumbered(vocabulary.pieces), validation.renumbered(vocabulary.pieces)
    optimizer, schedule = _optimizer_and_schedule(student, config, steps=config.epochs * steps_per_epoch(train, config))
    graphs = Graphs(optimizer, config.device) if _can_be_recorded(student, config, team) else None
    training = Training(student=student, optimizer=optimizer, schedule=schedule, team=team, graphs=graphs)
    if (state := checkpoints.latest(config.device)) is not None:
        training.load_state_dict(state)
    on_start(training)
    evaluation = None
    with checkpoints.guarding(), own_stream(config.device):
        while training.epoch <= config.epochs:
            losses = distill_epoch(training, train, config, on_steps=on_steps, checkpoints=checkpoints)
            train_seconds = time.perf_counter() - training.epoch_started
            evaluation = evaluate(student, validation, team)
            if not np.isfinite(evaluation.loss):  # the last update can break the weights after its loss was finite
                raise NonFiniteLoss(training.step, losses[1].item(), evaluation.loss)
            epoch = _epoch_metrics(training, losses, evaluation, train_seconds)
            stop = team.any(on_epoch(epoch))
            training.next_epoch(epoch)
            if stop:
                break
            if team.any(checkpoints.due()) and team.leads:
                checkpoints.save(training.state_dict(), step=training.step)
        evaluation = evaluation or evaluate(student, validation, team)  # cut off between the last epoch and the result
    training.graphs = None  # with their memory
    restore_vocabulary(student, vocabulary, decay=_weight_decay_so_far(schedule, config))
    return training, evaluation


def _can_be_recorded(student: nn.Module, config: TrialConfig, team: Team) -> bool:
    """Whether no step waits for the host: on a GPU, of a model whose forward pass is known, without other processes."""
    return config.device.startswith("cuda") and team.size == 1 and is_known(student)


def distill_epoch(
    training: Training,
    rows: Rows,
    config: TrialConfig,
    *,
    on_steps: Callable[[Sequence[StepMetrics]], None],
    checkpoints: Checkpoints = NOT_KEPT,
) -> Tensor:
    """One pass over `rows`, from where `training` stands in it; the mean L_total, L_soft and L_hard over rows, float64 [3]."""
    student, schedule, team = training.student, training.schedule, training.team
    student.train()
    if training.rows_seen == 0:  # dropout: an epoch's randomness does not hang on the ones before
        torch.manual_seed(config.seed * 1_000_003 + training.epoch)

    def read(steps: Sequence[Taken]) -> None:
        for step in steps:
            training.losses = training.losses + step.rows * torch.tensor(step.losses, dtype=torch.float64)
            training.rows_seen += step.rows
        on_steps([_step_metrics(step, training.epoch) for step in steps])

    update = functools.partial(_update, training, rows, config)
    readout = Readout(read)
    batches = training_batches(rows.tokens, batch_size=config.batch_size, seed=config.seed, epoch=training.epoch)
    done = training.step - (training.epoch - 1) * steps_per_epoch(rows, config)
    with shortcuts(student):
        for batch in itertools.islice(batches, done, None):
            if team.size > 1:  # each process drops places of its own; a checkpoint holds the generators of one alone
                torch.manual_seed((config.seed * 1_000_003 + training.step) * team.size + team.rank)
            graphs = training.graphs if training.micro_batches == 1 else None
            losses = graphs.step(batch, update) if graphs else update(batch)
            training.step += 1
            rate = float(schedule.get_last_lr()[0])
            schedule.step()
            readout.add(Taken(training.step, len(batch.rows), rate, losses))
            due = team.any(checkpoints.due())
            if due:
                readout.finish()
            if due and team.leads:
                checkpoints.save(training.state_dict(), step=training.step)
    readout.finish()
    return training.losses / training.rows_seen


def _update(training: Training, rows: Rows, config: TrialConfig, batch: Batch) -> Tensor:
    """One step of the optimizer; the batch's L_total, L_soft and L_hard [3], on the device."""
    losses = _backward(training, batch, rows, config)
    nn.utils.clip_grad_norm_(training.student.parameters(), config.max_grad_norm)
    training.optimizer.step()
    training.optimizer.zero_grad(set_to_none=True)
    return losses


def _backward(training: Training, batch: Batch, rows: Rows, config: TrialConfig) -> Tensor:
    """Leave the gradient of the batch's mean loss in the student; L_total, L_soft and L_hard [3].

    A batch that does not fit is cut into twice as many pieces, weighed by their rows: the same mean gradient from less memory. The processes
    of a team take a share of it each, weighed in the same way.
    """
    team, mine = training.team, training.team.share(batch)
    while True:
        too_large: RuntimeError | None = None
        losses = torch.zeros(3, device=rows.labels.device)
        try:
            pieces = split_batch(mine, training.micro_batches) if mine else []
            for piece in pieces:
                losses = losses + _backward_piece(training, piece, rows, config, whole=batch)
        except RuntimeError as error:
            if not machine.is_out_of_memory(error) or recording():
                raise
            too_large = error.with_traceback(None)  # whose frames hold the memory
        if not team.any(too_large is not None):
            if team.size > 1:
                team.sum(losses, *_gradients(training.student))
            return losses
        forgot = training.graphs is not None and training.graphs.forget()  # then a whole batch may fit after all
        if training.micro_batches >= len(batch.rows) and not forgot:
            cause = too_large or RuntimeError("out of memory on another device")
            raise DoesNotFit(training.step + 1, batch.inputs["input_ids"].shape[1], cause) from cause
        training.optimizer.zero_grad(set_to_none=True)
        machine.free_memory()
        training.micro_batches *= 1 if forgot else 2


def _gradients(student: nn.Module) -> list[Tensor]:
    """Of every parameter that is trained, zero where this process had no row."""
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return [parameter.grad for parameter in trained if parameter.grad is not None]


def _backward_piece(training: Training, piece: Batch, rows: Rows, config: TrialConfig, *, whole: Batch) -> Tensor:
    """Add the gradient of a piece's share in the mean loss of the `whole` batch; that share of the losses [3]."""
    device, low = rows.labels.device.type, config.precision == "bf16"
    with ExitStack() as stack:
        if low and device == "cuda":
            stack.enter_context(weights_in_bfloat16(training.student))
        with torch.autocast(device, dtype=torch.bfloat16, enabled=low):
            student_logits = training.student(**piece.inputs).logits
        loss = distillation_loss(
            student_logits,
            rows.teacher_logits[piece.rows],
            rows.labels[piece.rows],
            temperature=config.temperature,
            alpha=config.alpha,
        )
        share = len(piece.rows) / len(whole.rows)
        (loss.total if share == 1 else share * loss.total).backward()
    return share * torch.stack(loss).detach()


def evaluate(model: nn.Module, rows: Rows, team: Team = ALONE) -> Evaluation:
    """`model` on every row without dropout, in float32: the numbers are those of the weights that are saved."""
    model.eval()
    started = time.perf_counter()
    logits = all_logits(model, rows.tokens, classes=rows.teacher_logits.shape[1], team=team)
    return Evaluation(**measured(logits, rows), logits=logits, seconds=time.perf_counter() - started)


def measured(logits: Tensor, rows: Rows) -> dict[str, float]:
    """The metrics of `Evaluation` for a model's logits [N, C]; nan where a logit is not finite."""
    mine, teachers, labels = (tensor.cpu().numpy() for tensor in (logits, rows.teacher_logits, rows.labels))
    predicted, classes = mine.argmax(axis=1), mine.shape[1]
    with np.errstate(invalid="ignore"):  # the caller looks at the loss
        return {
            "accuracy": metrics.accuracy(predicted, labels),
            "macro_f1": metrics.macro_f1(predicted, labels, classes),
            "mcc": metrics.matthews(predicted, labels, classes),
            "loss": metrics.nll(mine, labels),
            "ece": metrics.expected_calibration_error(mine, labels),
            "agreement": metrics.agreement(predicted, teachers.argmax(axis=1)),
            "kl": metrics.kl_to_teacher(teachers, mine),
        }


def all_logits(model: nn.Module, tokens: Tokens, *, classes: int, team: Team = ALONE) -> Tensor:
    """The model's logits of every row, float32 [N, C], in row order; the processes of a team take every other batch."""
    logits = torch.zeros(len(tokens.lengths), classes, device=tokens.ids.device)
    with torch.inference_mode(), shortcuts(model):
        for batch in itertools.islice(evaluation_batches(tokens), team.rank, None, team.size):
            logits[batch.rows] = model(**batch.inputs).logits.float()
    team.sum(logits)
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


def _step_metrics(taken: Taken, epoch: int) -> StepMetrics:
    total, soft, hard = taken.losses
    if not np.isfinite([total, soft, hard]).all():
        raise NonFiniteLoss(taken.step, soft, hard)
    return StepMetrics(step=taken.step, epoch=epoch, L_soft=soft, L_hard=hard, L_total=total, learning_rate=taken.rate)


def _epoch_metrics(training: Training, losses: Tensor, evaluation: Evaluation, train_seconds: float) -> EpochMetrics:
    total, soft, hard = losses.tolist()
    return EpochMetrics(
        epoch=training.epoch,
        step=training.step,
        L_soft=soft,
        L_hard=hard,
        L_total=total,
        **{name: getattr(evaluation, name.removeprefix("val_")) for name in VALIDATED},
        train_seconds=train_seconds,
        evaluate_seconds=evaluation.seconds,
    )
