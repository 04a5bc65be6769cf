"""Reduce a model's vocabulary while it trains to the word pieces in its rows. Shapes: H width, K pieces kept, V whole vocabulary."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kdsweep.training.data.tokens import Tokens


class Vocabulary(NamedTuple):
    """Holds a model's whole embedding table [V, H], while the model trains on its rows `pieces` [K]."""

    table: nn.Embedding
    pieces: Tensor


class _Compact(nn.Embedding):
    """Looks up the kept rows of a table by the whole table's ids: the model reads the ids that it knows, its padding and others among them."""

    places: Tensor
    """Each piece's row; -1, which to look up is an error, for a piece that has none."""

    def __init__(self, table: nn.Embedding, pieces: Tensor) -> None:
        places = torch.full((table.num_embeddings,), -1, device=pieces.device)
        places[pieces] = torch.arange(len(pieces), device=pieces.device)
        padding = None if table.padding_idx is None else int(places[table.padding_idx])
        rows = table.weight.detach()[pieces].clone()
        super().__init__(len(pieces), table.embedding_dim, padding_idx=padding, _weight=rows)
        self.weight.requires_grad_(table.weight.requires_grad)
        self.register_buffer("places", places, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """Look up the rows of `input`, ids of the whole table."""
        return super().forward(self.places[input])


def why_whole_vocabulary(model: nn.Module) -> str | None:
    """Return why a model trains with its whole vocabulary; None where `compact_vocabulary` reduces it exactly."""
    try:
        table: Any = model.get_input_embeddings()  # type: ignore[operator]
    except NotImplementedError:
        return "transformers does not say which module embeds its word pieces"
    if type(table) is not nn.Embedding or table.max_norm is not None or table.sparse or table.scale_grad_by_freq:
        return f"its word pieces are embedded by more than a table of rows ({type(table).__name__})"
    names = [name for name, weight in model.named_parameters(remove_duplicate=False) if weight is table.weight]
    return None if len(names) == 1 else f"its table of word pieces is read at other places too: {', '.join(names)}"


def compact_vocabulary(model: nn.Module, splits: Sequence[Tokens]) -> Vocabulary:
    """Reduce `model`'s embedding table to the word pieces in `splits` and the padding, and return the whole one.

    The other pieces get no gradient, yet take time in every optimizer step. Training is exact: `restore_vocabulary` puts the trained rows
    back.
    """
    table: nn.Embedding = model.get_input_embeddings()  # type: ignore[operator]
    paddings = {splits[0].pad_id, getattr(model.config, "pad_token_id", None), table.padding_idx}
    known = [number for number in paddings if number is not None and 0 <= number < table.num_embeddings]
    always = torch.tensor(known, dtype=torch.int64, device=table.weight.device)
    pieces = torch.cat([always, *(tokens.pieces for tokens in splits)]).unique()
    model.set_input_embeddings(_Compact(table, pieces))  # type: ignore[operator]
    return Vocabulary(table, pieces)


def restore_vocabulary(model: nn.Module, vocabulary: Vocabulary, *, decay: float) -> None:
    """Put the trained rows back into the whole table; multiply its other rows by `decay`, as weight decay alone would have changed them."""
    trained: nn.Embedding = model.get_input_embeddings()  # type: ignore[operator]
    with torch.no_grad():
        vocabulary.table.weight.mul_(decay)
        vocabulary.table.weight[vocabulary.pieces] = trained.weight
    model.set_input_embeddings(vocabulary.table)  # type: ignore[operator]
