"""Reduce a model's vocabulary while it trains to the word pieces in its rows."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kdsweep.training.data.tokens import Tokens


class Vocabulary(NamedTuple):
    """Holds a model's whole embedding table [V, H], while the model trains on its rows `pieces` [K]."""

    table: nn.Embedding
    pieces: Tensor


def compact_vocabulary(model: nn.Module, splits: Sequence[Tokens]) -> Vocabulary:
    """Reduce `model`'s embedding table to the word pieces in `splits`, and return the whole one.

    The other pieces get no gradient, yet take time in every optimizer step. Training is exact: `restore_vocabulary` puts the trained rows
    back. Pieces up to the padding keep their numbers, because some models identify the padding by its number.
    """
    table: nn.Embedding = model.get_input_embeddings()  # type: ignore[operator]
    first = torch.arange(splits[0].pad_id + 1, device=table.weight.device)
    pieces = torch.cat([first, *(tokens.pieces for tokens in splits)]).unique()
    rows = table.weight.detach()[pieces].clone()
    small = nn.Embedding.from_pretrained(rows, freeze=False, padding_idx=table.padding_idx)
    model.set_input_embeddings(small)  # type: ignore[operator]
    return Vocabulary(table, pieces)


def restore_vocabulary(model: nn.Module, vocabulary: Vocabulary, *, decay: float) -> None:
    """Put the trained rows back into the whole table; multiply its other rows by `decay`, as weight decay alone would have changed them."""
    trained: nn.Embedding = model.get_input_embeddings()  # type: ignore[operator]
    with torch.no_grad():
        vocabulary.table.weight.mul_(decay)
        vocabulary.table.weight[vocabulary.pieces] = trained.weight
    model.set_input_embeddings(vocabulary.table)  # type: ignore[operator]
