"""Define the encoders whose parts have known names: those a from_teacher student copies, and those the shortcuts compute differently.

A model of any other family can be trained too, without the shortcuts that need these names.
Shapes: B batch, L tokens, H width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import BertForSequenceClassification, DistilBertForSequenceClassification

from kdsweep.system.libraries import lacks

RELATIONS = "relations"
"""The name of this output of a model: the queries, keys and values of all tokens in its last layer."""


def _distilbert_first_token(
    layer: Any, hidden: Tensor, attention_mask: Tensor | None = None, *, projected: bool = False, **_: Any
) -> Tensor:
    """Compute the first token's output of a DistilBERT layer, [B, 1, H], from all tokens' input [B, L, H]."""
    own, first = layer.attention, hidden[:, :1]
    attends = _first_attends_projected if projected else _first_attends
    mixed = attends(hidden, (own.q_lin, own.k_lin, own.v_lin), own.n_heads, own.dropout, attention_mask)
    attended = layer.sa_layer_norm(own.out_lin(mixed) + first)
    output: Tensor = layer.output_layer_norm(layer.ffn(attended) + attended)
    return output


def _bert_first_token(
    layer: Any, hidden: Tensor, attention_mask: Tensor | None = None, *_: Any, projected: bool = False, **__: Any
) -> Tensor:
    """Compute the first token's output of a BERT layer, [B, 1, H], from all tokens' input [B, L, H]."""
    own = layer.attention.self
    projections = own.query, own.key, own.value
    attends = _first_attends_projected if projected else _first_attends
    mixed = attends(hidden, projections, own.num_attention_heads, own.dropout, attention_mask)
    output: Tensor = layer.feed_forward_chunk(layer.attention.output(mixed, hidden[:, :1]))
    return output


def _first_attends(
    hidden: Tensor, projections: tuple[Any, Any, Any], heads: int, dropout: nn.Dropout, attention_mask: Tensor | None
) -> Tensor:
    """Compute the first token's attention over all tokens, [B, 1, H]; `projections` are those to queries, keys and values.

    With one query, no token's key or value needs to be computed: qᵀ(K h) = (Kᵀq)ᵀ h and Σ a (V h) = V Σ a h, for each head.
    """
    query, key, value = projections

    def by_head(weight: Tensor) -> Tensor:
        split: Tensor = weight.unflatten(0, (heads, -1))  # [heads, H / heads, H], of a bias [heads, H / heads]
        return split

    asking = query(hidden[:, 0]).unflatten(-1, (heads, -1)).transpose(0, 1)  # [heads, B, H / heads]
    asked = (asking @ by_head(key.weight)).transpose(0, 1)  # [B, heads, H]
    constant = asking @ by_head(key.bias).unsqueeze(-1)  # [heads, B, 1]
    scores = (asked @ hidden.transpose(1, 2) + constant.transpose(0, 1)) * asking.shape[-1] ** -0.5  # [B, heads, L]
    shares = dropout(_masked(scores, attention_mask).softmax(dim=-1))
    gathered = (shares @ hidden).transpose(0, 1) @ by_head(value.weight).transpose(1, 2)  # [heads, B, H / heads]
    mixed: Tensor = gathered.transpose(0, 1) + shares.sum(dim=-1, keepdim=True) * by_head(value.bias)
    return mixed.flatten(1).unsqueeze(1)


def _first_attends_projected(
    hidden: Tensor, projections: tuple[Any, Any, Any], heads: int, dropout: nn.Dropout, attention_mask: Tensor | None
) -> Tensor:
    """Compute what `_first_attends` does from every token's query, key and value, where a loss reads those."""
    query, key, value = (project(hidden).unflatten(-1, (heads, -1)).transpose(1, 2) for project in projections)
    scores = (query[:, :, :1] @ key.transpose(2, 3)).squeeze(2) * query.shape[-1] ** -0.5  # [B, heads, L]
    shares = dropout(_masked(scores, attention_mask).softmax(dim=-1))
    mixed: Tensor = (shares.unsqueeze(2) @ value).transpose(1, 2)  # [B, 1, heads, H / heads]
    return mixed.flatten(2)


def _masked(scores: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Return the first token's scores [B, heads, L] with padding at -inf, or as far down as the model's own mask has it."""
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        return scores.masked_fill(~attention_mask[:, 0, :1], -torch.inf)
    return scores if attention_mask is None else scores + attention_mask[:, 0, :1]


class LayerNames(NamedTuple):
    """Names the modules of a layer that have weights, each relative to the layer."""

    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    inner: str
    outer: str
    output_norm: str


@dataclass(frozen=True, kw_only=True)
class Family:
    """Describes one of transformers' encoders as a sequence classifier."""

    classifier: type[nn.Module]
    embeddings: str
    layers: str
    """Paths of the embeddings and of the list of layers in the classifier."""
    names: LayerNames
    first_token: Callable[..., Tensor]
    """Computes a layer's output for the first token alone, [B, 1, H], from the layer and the layer's own arguments; `projected`: from
    every token's queries, keys and values."""

    def last_layer(self, model: nn.Module) -> nn.Module:
        """Return the last layer of `model`, a classifier of this family. Raises LibraryError where transformers names the layer's parts otherwise."""
        try:
            *_, last = model.get_submodule(self.layers).children()
            for name in self.names:
                last.get_submodule(name)
        except AttributeError as error:
            part = f"{self.classifier.__name__}'s {self.layers} with {', '.join(self.names)}"
            raise lacks("transformers", part, "a last layer that computes its first token alone") from error
        return last


BERT = Family(
    classifier=BertForSequenceClassification,
    embeddings="bert.embeddings",
    layers="bert.encoder.layer",
    names=LayerNames(
        query="attention.self.query",
        key="attention.self.key",
        value="attention.self.value",
        attention_output="attention.output.dense",
        attention_norm="attention.output.LayerNorm",
        inner="intermediate.dense",
        outer="output.dense",
        output_norm="output.LayerNorm",
    ),
    first_token=_bert_first_token,
)
DISTILBERT = Family(
    classifier=DistilBertForSequenceClassification,
    embeddings="distilbert.embeddings",
    layers="distilbert.transformer.layer",
    names=LayerNames(
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attention_output="attention.out_lin",
        attention_norm="sa_layer_norm",
        inner="ffn.lin1",
        outer="ffn.lin2",
        output_norm="output_layer_norm",
    ),
    first_token=_distilbert_first_token,
)
KNOWN_TYPES = tuple(family.classifier.config_class.model_type for family in (BERT, DISTILBERT))  # type: ignore[attr-defined]
"""transformers' names of the families."""


def family_of(model: nn.Module) -> Family | None:
    """Return the family of a classifier; None for an unknown one, and for a decoder, which classifies by its last token."""
    if getattr(model.config, "is_decoder", False):
        return None
    return next((family for family in (BERT, DISTILBERT) if isinstance(model, family.classifier)), None)
