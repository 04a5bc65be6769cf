"""Measure a model on a split, and how fast it is. Shapes: C classes, N rows."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from kdsweep.analysis.measured import measured_by_task
from kdsweep.analysis.tasks import predicted
from kdsweep.config.tasks import TaskName
from kdsweep.training.data.tokens import EVALUATION_ROWS, Batch, Rows, Tokens, evaluation_batches, padded
from kdsweep.training.fast.shortcuts import shortcuts
from kdsweep.training.fast.team import ALONE, Team
from kdsweep.training.tasks import label_array

LATENCY_PASSES = 30
THROUGHPUT_PASSES = 3
"""Timed forward passes, after one that warms up: of one row (their median and 95th percentile are kept), of a batch (their median)."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Holds a model's float32 logits [N, C] of a split, and their metrics at T = 1, as `EpochMetrics` has them: None for what the task lacks."""

    accuracy: float | None
    macro_f1: float | None
    mcc: float | None
    loss: float
    """The task's: mean cross-entropy in nats, or mean squared error."""
    ece: float | None
    agreement: float | None
    kl: float | None
    """Both None where the teacher's logits are not known for every row."""
    micro_f1: float | None
    example_f1: float | None
    map: float | None
    pearson: float | None
    spearman: float | None
    rmse: float | None
    logits: Tensor
    seconds: float
    task: TaskName = "single_label"

    def predictions(self) -> np.ndarray:
        """Return what is predicted for every row, as `analysis/tasks.py` has it: of single_label the class, int64 [N]."""
        return predicted(self.logits.cpu().numpy(), self.task)


def evaluate(model: nn.Module, rows: Rows, team: Team = ALONE) -> Evaluation:
    """Evaluate `model` on every row without dropout, in float32, so that the numbers are those of the weights that are saved."""
    model.eval()
    started = time.perf_counter()
    logits = all_logits(model, rows.tokens, classes=rows.teacher_logits.shape[1], team=team)
    found = measured(logits, rows)
    return Evaluation(**found, logits=logits, seconds=time.perf_counter() - started, task=rows.task)


def measured(logits: Tensor, rows: Rows) -> dict[str, Any]:
    """Compute the metrics of `Evaluation` for a model's logits [N, C]; loss and kl are nan where a logit is nan or +inf."""
    mine, teachers = (tensor.cpu().numpy() for tensor in (logits, rows.teacher_logits))
    labels = label_array(rows.labels, rows.task)
    taught = rows.taught is None or bool(rows.taught.all())
    return measured_by_task(mine, labels, rows.task, teachers if taught else None)


def all_logits(
    model: nn.Module,
    tokens: Tokens,
    *,
    classes: int,
    team: Team = ALONE,
    begin: Callable[[Tensor], int] = lambda logits: 0,
    on_batch: Callable[[Tensor, int], None] = lambda logits, rows: None,
) -> Tensor:
    """Compute the model's logits of every row, float32 [N, C], in row order; each process of a team runs every `size`-th batch.

    `begin` gets logits of zeros to fill in what an earlier process had, and returns of how many rows that is, in the order of
    `evaluation_batches`; `on_batch` gets the logits so far, and of how many rows they are.
    """
    logits, rows = torch.zeros(len(tokens.lengths), classes, device=tokens.ids.device), 0
    begun = begin(logits)
    with torch.inference_mode(), shortcuts(model):
        for batch in itertools.islice(evaluation_batches(tokens), team.rank, None, team.size):
            rows += len(batch.rows)
            if rows > begun:
                logits[batch.rows] = model(**batch.inputs).logits.float()
                on_batch(logits, rows)
    team.sum(logits)
    return logits


class Speed(NamedTuple):
    """Holds the speed of a warm float32 forward pass: milliseconds of one row (median, 95th percentile), rows a second in a batch."""

    latency_ms_p50: float
    latency_ms_p95: float
    rows_per_second: float


def measure_speed(model: nn.Module, tokens: Tokens) -> Speed:
    """Time `model` on one row of median length, and on a batch of up to `EVALUATION_ROWS` rows around it in order of length."""
    model.eval()
    by_length = np.argsort(tokens.lengths, kind="stable")
    middle = len(by_length) // 2
    batch = by_length[max(0, middle - EVALUATION_ROWS // 2) :][:EVALUATION_ROWS]
    single = 1000 * _seconds(model, padded(tokens, by_length[middle : middle + 1]), LATENCY_PASSES)
    many = float(np.median(_seconds(model, padded(tokens, batch), THROUGHPUT_PASSES)))
    middle_ms, slow_ms = (float(value) for value in np.percentile(single, [50, 95]))
    return Speed(latency_ms_p50=middle_ms, latency_ms_p95=slow_ms, rows_per_second=len(batch) / many)


def _seconds(model: nn.Module, batch: Batch, passes: int) -> np.ndarray:
    """Return the seconds of each of `passes` forward passes, logits copied to the host included, after one that is not counted."""
    times = []
    with torch.inference_mode():
        for _ in range(passes + 1):
            started = time.perf_counter()
            model(**batch.inputs).logits.cpu()
            times.append(time.perf_counter() - started)
    return np.array(times[1:])
