"""Measure a model on a split, and how fast it is. Shapes: C classes, N rows."""

import itertools
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from kdsweep.analysis import metrics
from kdsweep.training.data.tokens import EVALUATION_ROWS, Batch, Rows, Tokens, evaluation_batches, padded
from kdsweep.training.fast.shortcuts import shortcuts
from kdsweep.training.fast.team import ALONE, Team

LATENCY_PASSES = 30
THROUGHPUT_PASSES = 3
"""Timed forward passes, after one that warms up: of one row (their median and 95th percentile are kept), of a batch (their median)."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Holds a model's float32 logits [N, C] of a split, and their metrics at T = 1 (`analysis/metrics.py` defines each)."""

    accuracy: float
    macro_f1: float
    mcc: float
    loss: float
    """Mean cross-entropy in nats."""
    ece: float
    agreement: float | None
    kl: float | None
    """Both None where the teacher's logits are not known for every row."""
    logits: Tensor
    seconds: float

    def predictions(self) -> np.ndarray:
        """Return the predicted class of every row, int64 [N]."""
        predicted: np.ndarray = self.logits.argmax(dim=-1).cpu().numpy()
        return predicted


def evaluate(model: nn.Module, rows: Rows, team: Team = ALONE) -> Evaluation:
    """Evaluate `model` on every row without dropout, in float32, so that the numbers are those of the weights that are saved."""
    model.eval()
    started = time.perf_counter()
    logits = all_logits(model, rows.tokens, classes=rows.teacher_logits.shape[1], team=team)
    return Evaluation(**measured(logits, rows), logits=logits, seconds=time.perf_counter() - started)


def measured(logits: Tensor, rows: Rows) -> dict[str, Any]:
    """Compute the metrics of `Evaluation` for a model's logits [N, C]; loss and kl are nan where a logit is nan or +inf."""
    mine, teachers, labels = (tensor.cpu().numpy() for tensor in (logits, rows.teacher_logits, rows.labels))
    taught = rows.taught is None or bool(rows.taught.all())
    predicted, classes = mine.argmax(axis=1), mine.shape[1]
    with np.errstate(invalid="ignore"):  # the caller checks the loss
        return {
            "accuracy": metrics.accuracy(predicted, labels),
            "macro_f1": metrics.macro_f1(predicted, labels, classes),
            "mcc": metrics.matthews(predicted, labels, classes),
            "loss": metrics.nll(mine, labels),
            "ece": metrics.expected_calibration_error(mine, labels),
            "agreement": metrics.agreement(predicted, teachers.argmax(axis=1)) if taught else None,
            "kl": metrics.kl_to_teacher(teachers, mine) if taught else None,
        }


def all_logits(model: nn.Module, tokens: Tokens, *, classes: int, team: Team = ALONE) -> Tensor:
    """Compute the model's logits of every row, float32 [N, C], in row order; each process of a team runs every `size`-th batch."""
    logits = torch.zeros(len(tokens.lengths), classes, device=tokens.ids.device)
    with torch.inference_mode(), shortcuts(model):
        for batch in itertools.islice(evaluation_batches(tokens), team.rank, None, team.size):
            logits[batch.rows] = model(**batch.inputs).logits.float()
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
