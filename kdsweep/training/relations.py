"""Compute MiniLMv2's loss on self-attention relations, from the queries, keys and values of two models' last layers.

    R(X) = softmax(X Xᵀ / √d_r)        X one of queries, keys and values, re-split into relation heads of d_r = H / heads
    L_relation = KL(R_teacher || R_student)     summed over the keys; mean over queries, relation heads, the three X, and rows

Padding is neither query nor key. Each model has its own width H, and so its own d_r. Source: Wang et al. 2021, "MiniLMv2: Multi-Head
Self-Attention Relation Distillation for Compressing Pretrained Transformers", Findings of ACL.
Shapes: B batch, L tokens, H width.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kdsweep.errors import ModelError
from kdsweep.training.fast.families import KNOWN_TYPES

NAMES = ("query", "key", "value")
"""What a model's output `relations` holds by name, [B, L, H] each."""
_NOWHERE = -1e9
"""A padded key's score: its share is exactly 0 and its logarithm finite, as 0 times -inf would be nan."""


def relation_loss(
    student: Mapping[str, Tensor],
    teacher: Mapping[str, Tensor],
    mask: Tensor,
    *,
    heads: int,
    weights: Tensor | None = None,
) -> Tensor:
    """Compute L_relation of both models' queries, keys and values, [B, L, H] each, in float32; 0-d. The teacher's get no gradient.

    `mask` [B, L] is 1 for a token and 0 for padding; `weights` [B] weigh the rows in the mean, all alike where None. Raises ValueError
    where `heads` does not divide a width.
    """
    real = mask.to(torch.promote_types(student[NAMES[0]].dtype, torch.float32))
    keys, queries = (1 - real) * _NOWHERE, real / real.sum(dim=1, keepdim=True)
    each = [
        _divergence(
            _log_relation(teacher[name].detach(), keys, heads), _log_relation(student[name], keys, heads), queries
        )
        for name in NAMES
    ]
    rows = torch.stack(each).mean(dim=0)
    return (rows if weights is None else weights * rows).mean()


def _log_relation(projected: Tensor, keys: Tensor, heads: int) -> Tensor:
    """Compute log R [B, heads, L, L] of one of queries, keys and values [B, L, H]; `keys` [B, L] is added to the scores of each key."""
    width = projected.shape[-1]
    if width % heads:
        raise ValueError(f"relation_heads must divide the width {width}, but got {heads}")
    split = projected.to(keys.dtype).unflatten(-1, (heads, -1)).transpose(1, 2)  # [B, heads, L, d_r]
    flat = (split * split.shape[-1] ** -0.25).flatten(0, 1)  # of both factors, which is d_r ** -0.5 of their product
    scores = torch.baddbmm(keys[:, None].expand(-1, heads, -1).flatten(0, 1)[:, None], flat, flat.transpose(1, 2))
    relation: Tensor = scores.log_softmax(dim=-1).unflatten(0, (-1, heads))
    return relation


def _divergence(log_p: Tensor, log_q: Tensor, queries: Tensor) -> Tensor:
    """Compute each row's KL(p || q) [B] from logarithms [B, heads, L, L]: mean over heads, and over queries by their shares [B, L]."""
    each = (log_p.exp() * (log_p - log_q)).sum(dim=-1)  # [B, heads, L]
    return (each.mean(dim=1) * queries).sum(dim=1)


def check_relations(teacher: Any, student: Any, heads: int) -> None:
    """Check that models of these configurations have relations to compare. Raises ModelError where one is of no known family, or where
    `heads` does not divide both widths."""
    for role, config in (("the teacher", teacher), ("the student", student)):
        if config.model_type not in KNOWN_TYPES or getattr(config, "is_decoder", False):
            raise of_no_family(role, config.model_type)
    widths = teacher.hidden_size, student.hidden_size
    common = math.gcd(*widths)
    if common % heads:
        divisors = [number for number in range(1, common + 1) if common % number == 0]
        raise ModelError(
            f"relation_heads must divide the teacher's width {widths[0]} and the student's {widths[1]}, but got {heads}; "
            f"these do: {', '.join(map(str, divisors))}"
        )


def of_no_family(role: str, kind: str) -> ModelError:
    """Return the error for a model whose queries, keys and values no family names; `role`: who it is, `kind`: transformers' name of it."""
    return ModelError(
        f"relation_weight > 0 needs a teacher and a student whose queries, keys and values are known ({', '.join(KNOWN_TYPES)}), but "
        f"{role} is {kind}: name another model, or say relation_weight: 0"
    )
