"""A compact vocabulary while a model trains: only the word pieces that its rows hold."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kdsweep.training.data.tokens import Tokens


class Vocabulary(NamedTuple):
    """A model's whole embedding table [V, H], set aside while it trains on the rows `pieces` [K] of it."""

    table: nn.Embedding
    pieces: Tensor


def compact_vocabulary(model: nn.Module, splits: Sequence[Tokens]) -> Vocabulary:
    """Let `model` train on the word pieces that `splits` hold: all others get no gradient, yet cost every optimizer step.

    Exact: `restore_vocabulary` puts the trained rows back. Pieces up to the padding keep their numbers, because some
    models know the padding by its number.
    """
    table: nn.Embedding = model.get_input_embeddings()  # type: ignore[operator]
    first = torch.arange(splits[0].pad_id + 1, device=table.weight.device)
    pieces = torch.cat([first, *(tokens.ids for tokens in splits)]).unique()
    rows = table.weight.detach()[pieces].clone()
    small = nn.Embedding.from_pretrained(rows, freeze=False, padding_idx=table.padding_idx)
    model.set_input_embeddings(small)  # type: ignore[operator]
    return Vocabulary(table, pieces)


def restore_vocabulary(model: nn.Module, vocabulary: Vocabulary, *, decay: float) -> None:
    """Put the trained rows back into the whole table, whose other rows only weight decay would have changed: times `decay`."""
    trained: nn.Embedding = model.get_input_embeddings()  # type: ignore[operator]
    with torch.no_grad():
        vocabulary.table.weight.mul_(decay)
        vocabulary.table.weight[vocabulary.pieces] = trained.weight
    model.set_input_embeddings(vocabulary.table)  # type: ignore[operator]
