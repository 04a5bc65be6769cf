"""Compute the distillation loss of each task. Of single_label, where a row has one class:

    L_soft = T² KL(p_T || q_S)     p_T = softmax(z_T / T), q_S = softmax(z_S / T); summed over classes, mean over rows
           or ½ mean over classes of ((z_S - mean z_S) - (z_T - mean z_T))², its limit for large T; mean over rows
    L_hard = (1 - ε) CE(z_S, y) + ε mean over classes of -log softmax(z_S); mean over rows; ε is label_smoothing
    L      = alpha L_soft + (1 - alpha) L_hard

alpha weighs the SOFT term (much published code lets it weigh the hard one). T² keeps the soft gradient's size about constant as T
grows: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", section 2; its section 2.1 derives the limit of
large T, which Kim et al. 2021, "Comparing Kullback-Leibler Divergence and Mean Squared Error Loss in Knowledge Distillation", compare
with finite T. Smoothed labels: Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision", section 7.

Of multi_label, where each label is there or not, and of regression:

    L_soft = T² KL(p_T || q_S) of Bernoullis, p_T = sigmoid(z_T / T), q_S = sigmoid(z_S / T); summed over labels, mean over rows
           or 1/8 sum over labels of (z_S - z_T)², its limit for large T; mean over rows
    L_hard = binary cross-entropy against (1 - ε) y + ε / 2; mean over labels, mean over rows
    L_soft = (z_S - z_T)²,  L_hard = (z_S - y)²; mean over rows; there is no T, and no ε

T and alpha are numbers, or 0-d tensors on the logits' device where they follow a schedule. With `weights` [B], the mean over rows is the
mean of weight · row's loss. Logits of a lower precision than float32 are converted to it, float64 ones stay.
Shapes: B batch, C classes or labels, of regression 1.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from kdsweep.config.tasks import TaskName

NO_LABEL = -1
"""The label of a row without one: its L_hard is 0, and so is its gradient."""


class LossParts(NamedTuple):
    """Holds the losses of a batch, each 0-d: `soft` includes its factor T² but not alpha, `hard` its smoothing; both are unweighted."""

    total: Tensor
    soft: Tensor
    hard: Tensor


def kl_loss(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float | Tensor, weights: Tensor | None = None
) -> Tensor:
    """Compute T² KL(p_T || q_S) of logits [B, C], summed over classes, mean over rows; 0-d."""
    log_q = functional.log_softmax(_wide(student_logits) / temperature, dim=-1)
    log_p = functional.log_softmax(_wide(teacher_logits) / temperature, dim=-1)
    if weights is None:
        return functional.kl_div(log_q, log_p, reduction="batchmean", log_target=True) * temperature**2
    rows = functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=-1)
    return (weights * rows).mean() * temperature**2


def mse_loss(student_logits: Tensor, teacher_logits: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Compute half the mean over classes of the squared difference of centred logits [B, C], mean over rows; 0-d.

    It is the limit of `kl_loss` for T to infinity: 1/(2C) · sum over classes of (d - mean d)², d = z_S - z_T.
    """
    difference = _wide(student_logits) - _wide(teacher_logits)
    rows = (difference - difference.mean(dim=-1, keepdim=True)).square().mean(dim=-1) / 2
    return rows.mean() if weights is None else (weights * rows).mean()


def hard_loss(
    student_logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Compute the cross-entropy of logits [B, C] against smoothed classes [B], mean over rows; 0-d.

    With `weights`, rows without a label (NO_LABEL) count as 0.
    """
    logits = _wide(student_logits)
    if weights is None:
        return functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    rows = functional.cross_entropy(
        logits, labels, label_smoothing=label_smoothing, ignore_index=NO_LABEL, reduction="none"
    )
    return (weights * rows).mean()


def bernoulli_kl_loss(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float | Tensor, weights: Tensor | None = None
) -> Tensor:
    """Compute T² KL(p_T || q_S) of the Bernoulli of each label, logits [B, C], summed over labels, mean over rows; 0-d."""
    mine, theirs = _wide(student_logits) / temperature, _wide(teacher_logits) / temperature
    there, absent = functional.logsigmoid(theirs), functional.logsigmoid(-theirs)
    kl = there.exp() * (there - functional.logsigmoid(mine)) + absent.exp() * (absent - functional.logsigmoid(-mine))
    return _mean(kl.sum(dim=-1), weights) * temperature**2


def bernoulli_mse_loss(student_logits: Tensor, teacher_logits: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Compute an eighth of the sum over labels of the squared difference of logits [B, C], mean over rows; 0-d.

    It is the limit of `bernoulli_kl_loss` for T to infinity.
    """
    return _mean((_wide(student_logits) - _wide(teacher_logits)).square().sum(dim=-1) / 8, weights)


def binary_hard_loss(
    student_logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Compute the binary cross-entropy of logits [B, C] against smoothed labels [B, C], 0 or 1, mean over labels and rows; 0-d."""
    smoothed = labels * (1 - label_smoothing) + label_smoothing / 2
    losses = functional.binary_cross_entropy_with_logits(_wide(student_logits), smoothed, reduction="none")
    return _mean(losses.mean(dim=-1), weights)


def squared_loss(student_logits: Tensor, wanted: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Compute the squared difference of logits [B, 1] and the numbers `wanted` [B], mean over rows; 0-d. A row that wants nan counts as 0."""
    differences = _wide(student_logits)[:, 0] - wanted
    return _mean(torch.where(wanted.isnan(), 0.0, differences).square(), weights)


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float | Tensor,
    alpha: float | Tensor,
    soft_loss: Literal["kl", "mse"] = "kl",
    label_smoothing: float = 0.0,
    soft_weights: Tensor | None = None,
    hard_weights: Tensor | None = None,
    task: TaskName = "single_label",
) -> LossParts:
    """Compute L = alpha L_soft + (1 - alpha) L_hard, for logits [B, C] and labels of the `task`. No branch on alpha or T; mse does not read T.

    Raises ValueError for logits that are not two [B, C] of one shape.
    """
    if student_logits.ndim != 2 or student_logits.shape != teacher_logits.shape:
        shapes = f"{tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}"
        raise ValueError(f"student and teacher logits must both be [B, C], but got {shapes}")
    if task == "regression":
        soft = squared_loss(student_logits, _wide(teacher_logits)[:, 0], weights=soft_weights)
        hard = squared_loss(student_logits, labels, weights=hard_weights)
    else:
        of_labels = task == "multi_label"
        if soft_loss == "mse":
            mse = bernoulli_mse_loss if of_labels else mse_loss
            soft = mse(student_logits, teacher_logits, weights=soft_weights)
        else:
            kl = bernoulli_kl_loss if of_labels else kl_loss
            soft = kl(student_logits, teacher_logits, temperature=temperature, weights=soft_weights)
        cross_entropy = binary_hard_loss if of_labels else hard_loss
        hard = cross_entropy(student_logits, labels, label_smoothing=label_smoothing, weights=hard_weights)
    return LossParts(total=alpha * soft + (1 - alpha) * hard, soft=soft, hard=hard)


def scheduled(start: float, end: float | None, progress: Tensor) -> float | Tensor:
    """Return a value on its way from `start` at `progress` 0 to `end` at 1, linearly: 0-d, on the device of `progress`, both ends exact.

    Where it does not move (no end, or `start` again) it is `start`, the number itself.
    """
    return (1 - progress) * start + progress * end if end is not None and moves(start, end) else start


def moves(start: float, end: float | None) -> bool:
    """Return whether a value with a schedule from `start` to `end` changes during the training."""
    return end is not None and end != start


def _wide(logits: Tensor) -> Tensor:
    """Return logits in float32 at least."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _mean(rows: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean of the rows' losses [B], each times its weight."""
    return rows.mean() if weights is None else (weights * rows).mean()
