"""Compute the distillation loss.

    L_soft = T² KL(p_T || q_S)     p_T = softmax(z_T / T), q_S = softmax(z_S / T); summed over classes, mean over rows
    L_hard = CE(z_S, y)
    L      = alpha L_soft + (1 - alpha) L_hard

alpha weighs the SOFT term (much published code lets it weigh the hard one). T² keeps the soft gradient's size about
constant as T grows: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", section 2.
Shapes: B batch, C classes.
"""

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional


class LossParts(NamedTuple):
    """Holds the losses of a batch, each 0-d: `soft` includes its factor T² but not alpha, `hard` is unweighted."""

    total: Tensor
    soft: Tensor
    hard: Tensor


def soft_loss(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float, weights: Tensor | None = None
) -> Tensor:
    """Compute L_soft = T² KL(p_T || q_S) of logits [B, C], mean over rows, each times its weight [B], in float32; 0-d."""
    log_q = functional.log_softmax(student_logits.float() / temperature, dim=-1)
    log_p = functional.log_softmax(teacher_logits.float() / temperature, dim=-1)
    if weights is None:
        return functional.kl_div(log_q, log_p, reduction="batchmean", log_target=True) * temperature**2
    rows = functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=-1)
    return (weights * rows).mean() * temperature**2


def hard_loss(student_logits: Tensor, labels: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Compute L_hard, the cross-entropy of logits [B, C] against classes [B], mean over rows, each times its weight [B], in float32; 0-d.

    A row of weight 0 may have class -1: it has no label.
    """
    if weights is None:
        return functional.cross_entropy(student_logits.float(), labels)
    return (weights * functional.cross_entropy(student_logits.float(), labels.clamp(min=0), reduction="none")).mean()


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    alpha: float,
    soft_weights: Tensor | None = None,
    hard_weights: Tensor | None = None,
) -> LossParts:
    """Compute L = alpha L_soft + (1 - alpha) L_hard, for logits [B, C] and classes [B]. No branch on alpha or T.

    The weights [B] count each row in its part, with mean 1 over the batch; None: all rows alike.
    Raises ValueError for logits that are not two [B, C] of one shape.
    """
    if student_logits.ndim != 2 or student_logits.shape != teacher_logits.shape:
        shapes = f"{tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}"
        raise ValueError(f"student and teacher logits must both be [B, C], but got {shapes}")
    soft = soft_loss(student_logits, teacher_logits, temperature=temperature, weights=soft_weights)
    hard = hard_loss(student_logits, labels, weights=hard_weights)
    return LossParts(total=alpha * soft + (1 - alpha) * hard, soft=soft, hard=hard)
