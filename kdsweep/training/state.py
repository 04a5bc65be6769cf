"""Hold a student between two steps with its optimizer and schedule, and compute what a step or an epoch records."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from kdsweep.config.lengths import evaluations_of
from kdsweep.config.trial import TrialConfig
from kdsweep.errors import NonFiniteLoss
from kdsweep.records.schema import VALIDATED, EpochMetrics, StepMetrics
from kdsweep.training.data.order import steps_per_pass
from kdsweep.training.data.tokens import Batch, Rows
from kdsweep.training.evaluation import Evaluation
from kdsweep.training.fast.cuda_graphs import Graphs
from kdsweep.training.fast.team import ALONE, Team
from kdsweep.training.objective import RECORDED, Objective
from kdsweep.training.online import OnlineTeacher
from kdsweep.training.readout import Taken


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Holds the student's weights after the epoch with the lowest validation loss so far, on the host."""

    epoch: int
    step: int
    val_loss: float
    weights: Mapping[str, Tensor]


@dataclass(kw_only=True)
class Training:
    """Holds a student between two steps: everything that the next step depends on, so that continuing from a checkpoint of it gives the
    same bits on a CPU as training without a break."""

    student: nn.Module
    objective: Objective
    optimizer: Optimizer
    schedule: LambdaLR
    epoch: int = 1
    step: int = 0
    team: Team = ALONE
    graphs: Graphs | None = None
    teacher: OnlineTeacher | None = None
    """Runs in every step; None where the objective reads nothing of it."""
    known: Mapping[str, Tensor] = field(default_factory=dict)
    """For each loss part that counts some rows alone, 1 for these and 0 for the others, float32 [N], on the device."""
    progress: Tensor = field(init=False)
    """`Inputs.progress` of the step that is taken, on the device."""
    losses: Tensor = field(init=False)
    """The losses in the order of the objective's `names`, summed over their `rows_seen`, float64 [len(names)]."""
    rows_seen: Tensor = field(init=False)
    """This epoch's rows, each as often as it was trained on, whose losses have been read, by part, float64 [len(names)]."""
    micro_batches: int = 1
    """Pieces into which a batch is cut; more than 1 because a whole batch did not fit in memory."""
    history: list[EpochMetrics] = field(default_factory=list)
    kept: Kept | None = None
    """None unless the epoch with the lowest validation loss is kept."""
    shortcuts: Mapping[str, str] = field(default_factory=dict)
    """As in `TrialResult`, once the training is over."""
    epoch_started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        """Set the losses to zero, for the beginning of an epoch."""
        self.losses, self.rows_seen = self._no_losses(), self._no_losses()
        self.progress = torch.zeros((), device=self._device())

    def _no_losses(self) -> Tensor:
        return torch.zeros(len(self.objective.names), dtype=torch.float64)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for `load_state_dict`, with the random number generators of the CPU and of the student's device."""
        device = self._device()
        plain = {name: getattr(self, name) for name in ("epoch", "step", "micro_batches")}
        return {
            **plain,
            "losses": self.losses,
            "rows_seen": self.rows_seen,
            "history": [asdict(epoch) for epoch in self.history],
            "kept": vars(self.kept) if self.kept else None,
            "epoch_seconds": time.perf_counter() - self.epoch_started,
            "student": self.student.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": {key: value for key, value in self.schedule.state_dict().items() if key != "lr_lambdas"},
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the `state` that `state_dict` returned, random number generators included."""
        for name in ("epoch", "step", "micro_batches"):
            setattr(self, name, state[name])
        self.losses = state["losses"].cpu()
        rows_seen = torch.as_tensor(state["rows_seen"], dtype=torch.float64)  # one number in older checkpoints
        self.rows_seen = rows_seen.cpu().expand_as(self.losses).clone()
        self.history = [EpochMetrics(**epoch) for epoch in state["history"]]
        kept = state.get("kept")  # older checkpoints lack it
        self.kept = Kept(**{**kept, "weights": _on_host(kept["weights"])}) if kept else None
        self.epoch_started = time.perf_counter() - state["epoch_seconds"]
        self.student.load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict({**state["schedule"], "lr_lambdas": [None] * len(self.schedule.lr_lambdas)})
        torch.set_rng_state(state["rng"].cpu())
        if state["cuda_rng"] is not None and self._device().type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self._device())

    def _device(self) -> torch.device:
        return next(self.student.parameters()).device

    def keep_lowest_loss(self, finished: EpochMetrics) -> None:
        """Keep a copy of the weights after the `finished` epoch where no earlier one had as low a validation loss."""
        if self.kept is None or finished.val_loss < self.kept.val_loss:
            weights = _on_host(self.student.state_dict())
            self.kept = Kept(epoch=self.epoch, step=self.step, val_loss=finished.val_loss, weights=weights)

    def next_epoch(self, finished: EpochMetrics) -> None:
        """Add the `finished` epoch to the history, and begin the next one."""
        self.history.append(finished)
        self.epoch, self.rows_seen, self.losses = self.epoch + 1, self._no_losses(), self._no_losses()
        self.epoch_started = time.perf_counter()


def _on_host(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().to("cpu", copy=True) for name, value in weights.items()}


def steps_until(epoch: int, rows: Rows, config: TrialConfig) -> int:
    """Return the step after which `epoch` ends: after so many passes over `rows`; with max_steps, which is spread evenly over `evaluations`,
    after so many of these parts."""
    if config.max_steps is None:
        return epoch * steps_per_pass(rows, config)
    return epoch * config.max_steps // config.evaluations


def total_steps(rows: Rows, config: TrialConfig) -> int:
    """Return the number of steps of a whole training on `rows`."""
    return steps_until(evaluations_of(config), rows, config)


def row_counts(batch: Batch, rows: Rows, objective: Objective) -> tuple[int, ...]:
    """Return the number of rows that each of the objective's `names` is a mean over, for a batch of `rows`."""
    masks = rows.known()
    counts = {name: int(mask[batch.numbers].sum()) for name, mask in masks.items()}
    return tuple(counts.get(name, len(batch.rows)) for name in objective.names)


def optimizer_and_schedule(model: nn.Module, config: TrialConfig, *, steps: int) -> tuple[Optimizer, LambdaLR]:
    """Make AdamW, without weight decay on parameters of one dimension (biases, LayerNorm), and its schedule: the learning rate rises
    linearly over the first warmup_ratio · `steps` steps and then falls linearly, to zero after the last step."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = AdamW(groups, lr=config.learning_rate, fused=True)
    warmup = round(config.warmup_ratio * steps)
    return optimizer, LambdaLR(optimizer, lambda step: _rate(step, warmup, steps))


def _rate(step: int, warmup: int, steps: int) -> float:
    """Return the share of the peak learning rate at `step`, counted from 0."""
    return (step + 1) / (warmup + 1) if step < warmup else (steps - step) / max(1, steps - warmup)


def weight_decay_so_far(schedule: LambdaLR, config: TrialConfig, steps: int | None = None) -> float:
    """Compute the share that AdamW's decoupled decay has left of a decayed weight that never had a gradient: the product over the first
    `steps` (None: those so far) of 1 - rate · weight_decay."""
    (share, *_), steps = schedule.lr_lambdas, schedule.last_epoch if steps is None else steps
    rates = config.learning_rate * np.array([share(step) for step in range(steps)])
    return float(np.prod(1 - rates * config.weight_decay))


def step_metrics(taken: Taken, epoch: int, objective: Objective) -> StepMetrics:
    """Return the record of a step. Raises NonFiniteLoss where one of its losses is nan or inf."""
    losses = objective.named(taken.losses)
    if not np.isfinite(taken.losses).all():
        raise NonFiniteLoss(taken.step, {name: losses[name] for name in objective.parts or objective.names})
    counts = dict(zip(objective.names, taken.rows, strict=True))
    return StepMetrics(
        step=taken.step,
        epoch=epoch,
        **losses,
        learning_rate=taken.rate,
        soft_rows=counts.get("L_soft"),
        hard_rows=counts.get("L_hard"),
    )


def epoch_metrics(training: Training, losses: Tensor, evaluation: Evaluation, train_seconds: float) -> EpochMetrics:
    """Return the record of the present epoch: its mean training `losses`, the metrics of its `evaluation`, and the seconds of both."""
    counts = dict(zip(training.objective.names, map(int, training.rows_seen.tolist()), strict=True))
    return EpochMetrics(
        epoch=training.epoch,
        step=training.step,
        **{name: value for name, value in training.objective.named(losses.tolist()).items() if name in RECORDED},
        **{name: getattr(evaluation, name.removeprefix("val_")) for name in VALIDATED},
        train_seconds=train_seconds,
        evaluate_seconds=evaluation.seconds,
        soft_rows=counts.get("L_soft"),
        hard_rows=counts.get("L_hard"),
    )
