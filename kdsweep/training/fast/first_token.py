"""Compute a last layer's output for the first token alone, [B, 1, H], from all tokens' input: all that a classifier of the first token reads.

Each function takes a layer and the layer's own arguments, and returns what the layer returns; with `projected`, from every token's query,
key and value, where a loss reads those. Shapes: B batch, L tokens, H width, D width of a head.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdsweep.training.fast.families import Layer

Bias = Callable[[Tensor], Tensor]
"""Computes what is added to the first token's scores, [B, heads, L], from its queries [B, heads, D]."""


def first_token_of(layer: Layer) -> Callable[..., Any]:
    """Return the function that computes a `layer`'s first token."""
    known: dict[Layer, Callable[..., Any]] = {
        "bert": _bert,
        "distilbert": _distilbert,
        "mpnet": _mpnet,
        "deberta-v2": _deberta,
        "modernbert": _modernbert,
    }
    return known[layer]


def _distilbert(
    layer: Any, hidden: Tensor, attention_mask: Tensor | None = None, *, projected: bool = False, **_: Any
) -> Tensor:
    own, first = layer.attention, hidden[:, :1]
    attends = _first_attends_projected if projected else _first_attends
    mixed = attends(hidden, (own.q_lin, own.k_lin, own.v_lin), own.n_heads, own.dropout, attention_mask)
    attended = layer.sa_layer_norm(own.out_lin(mixed) + first)
    output: Tensor = layer.output_layer_norm(layer.ffn(attended) + attended)
    return output


def _bert(
    layer: Any, hidden: Tensor, attention_mask: Tensor | None = None, *_: Any, projected: bool = False, **__: Any
) -> Tensor:
    own = layer.attention.self
    projections = own.query, own.key, own.value
    attends = _first_attends_projected if projected else _first_attends
    mixed = attends(hidden, projections, own.num_attention_heads, own.dropout, attention_mask)
    output: Tensor = layer.feed_forward_chunk(layer.attention.output(mixed, hidden[:, :1]))
    return output


def _mpnet(
    layer: Any,
    hidden: Tensor,
    attention_mask: Tensor | None = None,
    position_bias: Tensor | None = None,
    *,
    projected: bool = False,
    **_: Any,
) -> tuple[Tensor]:
    """Compute a layer with a bias [B, heads, L, L] of the tokens' distance."""
    outside = layer.attention
    own = outside.attn
    bias = None if position_bias is None else (lambda _, added=position_bias[:, :, 0]: added)
    attends = _first_attends_projected if projected else _first_attends
    mixed = attends(hidden, (own.q, own.k, own.v), own.num_attention_heads, own.dropout, attention_mask, bias=bias)
    attended = outside.LayerNorm(outside.dropout(own.o(mixed)) + hidden[:, :1])
    return (layer.output(layer.intermediate(attended), attended),)


def _deberta(
    layer: Any,
    hidden: Tensor,
    attention_mask: Tensor,
    *,
    relative_pos: Tensor | None = None,
    rel_embeddings: Tensor | None = None,
    projected: bool = False,
    **_: Any,
) -> tuple[Tensor, None]:
    """Compute a layer of DeBERTa-v2 and v3, whose scores also compare contents with distances (`c2p`) and distances with contents (`p2c`)."""
    own = layer.attention.self
    projections = own.query_proj, own.key_proj, own.value_proj
    terms = 1 + sum(kind in own.pos_att_type for kind in ("c2p", "p2c"))
    scale = (own.query_proj.out_features // own.num_attention_heads * terms) ** -0.5
    lowest = torch.finfo(hidden.dtype).min
    mask = torch.zeros_like(attention_mask[:, :, :1], dtype=hidden.dtype).masked_fill(
        ~attention_mask[:, :, :1].bool(), lowest
    )
    bias = None
    if own.relative_attention and relative_pos is not None and rel_embeddings is not None:
        bias = partial(_distances, own, hidden, relative_pos, own.pos_dropout(rel_embeddings), scale)
    attends = _first_attends_projected if projected else _first_attends
    mixed = attends(hidden, projections, own.num_attention_heads, own.dropout, mask, bias=bias, scale=scale)
    attended = layer.attention.output(mixed, hidden[:, :1])
    return layer.output(layer.intermediate(attended), attended), None


def _distances(own: Any, hidden: Tensor, relative: Tensor, embeddings: Tensor, scale: float, asking: Tensor) -> Tensor:
    """Compute DeBERTa's scores of contents with distances for the first token, [B, heads, L], from its queries `asking` [B, heads, D].

    `relative` [1, L, L] has the tokens' distances, of which the first token's are needed, and `embeddings` [2 · span, H] their vectors. A key
    need not be computed here either: pᵀ(K h) = (Kᵀp)ᵀ h.
    """
    span, heads = own.pos_ebd_size, own.num_attention_heads

    def placed(project: Any, places: Tensor) -> Tensor:
        rows = embeddings[(places + span).clamp(0, 2 * span - 1)]
        projected: Tensor = project(rows).unflatten(-1, (heads, -1)).transpose(0, 1)  # [heads, L, D]
        return projected

    scores = torch.zeros((), dtype=asking.dtype, device=asking.device)
    if "c2p" in own.pos_att_type:
        keys = placed(own.key_proj if own.share_att_key else own.pos_key_proj, relative[0, 0])
        scores = scores + (asking.transpose(0, 1) @ keys.transpose(1, 2)).transpose(0, 1)
    if "p2c" in own.pos_att_type:
        queries = placed(own.query_proj if own.share_att_key else own.pos_query_proj, -relative[0, :, 0])
        asked = (queries @ _by_head(own.key_proj.weight, heads)).transpose(0, 1)  # [L, heads, H]
        constant = (queries @ _by_head(own.key_proj.bias, heads).unsqueeze(-1)).squeeze(-1)  # [heads, L]
        scores = scores + (asked @ hidden.permute(1, 2, 0)).permute(2, 1, 0) + constant
    return scores * scale


def _modernbert(
    layer: Any,
    hidden: Tensor,
    attention_mask: Tensor | None = None,
    position_embeddings: tuple[Tensor, Tensor] | None = None,
    **_: Any,
) -> Tensor:
    """Compute a layer of ModernBERT. Its keys are computed, since each is turned by its place; values are not."""
    assert position_embeddings is not None
    own, normed, width = layer.attn, layer.attn_norm(hidden), hidden.shape[-1]
    heads = width // own.head_dim
    weights = own.Wqkv.weight.split(width)
    biases = (None, None, None) if own.Wqkv.bias is None else own.Wqkv.bias.split(width)

    def turned(tokens: Tensor, part: int) -> Tensor:
        split = functional.linear(tokens, weights[part], biases[part]).unflatten(-1, (heads, -1)).transpose(1, 2)
        cos, sin = (table[:, None, : tokens.shape[1]] for table in position_embeddings)
        left, right = split.float().chunk(2, dim=-1)
        rotated: Tensor = split.float() * cos + torch.cat((-right, left), dim=-1) * sin
        return rotated.to(split.dtype)

    scores = (turned(normed[:, :1], 0) @ turned(normed, 1).transpose(2, 3)).squeeze(2) * own.head_dim**-0.5
    shares = _masked(scores, attention_mask).softmax(dim=-1, dtype=torch.float32).to(scores.dtype)
    shares = functional.dropout(shares, own.attention_dropout, layer.training)
    bias = None if biases[2] is None else _by_head(biases[2], heads)
    attended = hidden[:, :1] + own.out_drop(own.Wo(_mixed(shares, normed, _by_head(weights[2], heads), bias)))
    output: Tensor = attended + layer.mlp(layer.mlp_norm(attended))
    return output


def _first_attends(
    hidden: Tensor,
    projections: tuple[Any, Any, Any],
    heads: int,
    dropout: nn.Dropout,
    attention_mask: Tensor | None,
    *,
    bias: Bias | None = None,
    scale: float | None = None,
) -> Tensor:
    """Compute the first token's attention over all tokens, [B, 1, H]; `projections` are those to queries, keys and values.

    With one query, no token's key or value needs to be computed: qᵀ(K h) = (Kᵀq)ᵀ h and Σ a (V h) = V Σ a h, for each head.
    """
    query, key, value = projections
    asking = query(hidden[:, 0]).unflatten(-1, (heads, -1)).transpose(0, 1)  # [heads, B, D]
    asked = (asking @ _by_head(key.weight, heads)).transpose(0, 1)  # [B, heads, H]
    constant = asking @ _by_head(key.bias, heads).unsqueeze(-1)  # [heads, B, 1]
    scores = (asked @ hidden.transpose(1, 2) + constant.transpose(0, 1)) * (scale or asking.shape[-1] ** -0.5)
    if bias is not None:
        scores = scores + bias(asking.transpose(0, 1))
    shares = dropout(_masked(scores, attention_mask).softmax(dim=-1))  # [B, heads, L]
    return _mixed(shares, hidden, _by_head(value.weight, heads), _by_head(value.bias, heads))


def _first_attends_projected(
    hidden: Tensor,
    projections: tuple[Any, Any, Any],
    heads: int,
    dropout: nn.Dropout,
    attention_mask: Tensor | None,
    *,
    bias: Bias | None = None,
    scale: float | None = None,
) -> Tensor:
    """Compute what `_first_attends` does from every token's query, key and value, where a loss reads those."""
    query, key, value = (project(hidden).unflatten(-1, (heads, -1)).transpose(1, 2) for project in projections)
    scores = (query[:, :, :1] @ key.transpose(2, 3)).squeeze(2) * (scale or query.shape[-1] ** -0.5)  # [B, heads, L]
    if bias is not None:
        scores = scores + bias(query[:, :, 0])
    shares = dropout(_masked(scores, attention_mask).softmax(dim=-1))
    mixed: Tensor = (shares.unsqueeze(2) @ value).transpose(1, 2)  # [B, 1, heads, D]
    return mixed.flatten(2)


def _by_head(weight: Tensor, heads: int) -> Tensor:
    """Return a projection's weight as [heads, D, H], its bias as [heads, D]."""
    split: Tensor = weight.unflatten(0, (heads, -1))
    return split


def _mixed(shares: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the values of all tokens, mixed by their `shares` [B, heads, L]: [B, 1, H]."""
    gathered = (shares @ hidden).transpose(0, 1) @ weight.transpose(1, 2)  # [heads, B, D]
    mixed = gathered.transpose(0, 1)
    if bias is not None:
        mixed = mixed + shares.sum(dim=-1, keepdim=True) * bias
    return mixed.flatten(1).unsqueeze(1)


def _masked(scores: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Return the first token's scores [B, heads, L] with padding at -inf, or as far down as the model's own mask has it."""
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        return scores.masked_fill(~attention_mask[:, 0, :1], -torch.inf)
    return scores if attention_mask is None else scores + attention_mask[:, 0, :1]
