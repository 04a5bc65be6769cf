"""Check what a model can read, from its configuration and tokenizer, before weights are loaded and time is spent on training."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase

from kdsweep.config.tasks import TaskName
from kdsweep.errors import ModelError
from kdsweep.training.data.kept_tokens import kept_tokens
from kdsweep.training.data.progress import NOBODY
from kdsweep.training.data.splits import Split
from kdsweep.training.data.tokenizing import tokenize
from kdsweep.training.data.tokens import Tokens, load_tokenizer, padded
from kdsweep.training.fast import machine
from kdsweep.training.models import check_task, model_config, unreadable

SMALLEST_TOKENIZER = 0.5
"""Least size of a tokenizer, as a share of the pieces in its model's table: the tables of published models are padded by a few percent
at most, and a tokenizer that lies beside the wrong model, or that is empty, is much smaller."""
KEPT_ROWS = 50_000
"""Rows of a split from which its tokens are kept in the cache: below, a process tokenises them anew within seconds."""
MOST_UNKNOWN = 0.5
"""Largest share of the texts' word pieces that a tokenizer may not know: above it, a model reads hardly anything of the texts."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Holds a model's tokenizer, and which tokens the model accepts."""

    address: str
    revision: str | None
    tokenizer: PreTrainedTokenizerBase
    pieces: int
    """Word pieces in the model's table of embeddings."""
    longest: int | None
    """Most tokens that a row may have; None: no limit."""
    segments: bool
    """Whether the model tells the two texts of a pair apart by token type ids."""
    pads_left: bool
    """Whether padding comes before a row's tokens, because the model answers from the last token."""
    first_position: int = 0
    """The number of a row's first position: above 0 in models that number positions from the padding's id + 1."""
    kept: str = ""
    """SHA-256 of the pieces that are left of the tokenizer's; empty where all are."""

    def tokens(self, split: Split, *, max_length: int, on_rows: Callable[[int], None] = NOBODY) -> Tokens:
        """Tokenise `split` for the model, many rows once: from `KEPT_ROWS` on, their tokens are kept in the cache, memory-mapped.

        `on_rows` gets the number of rows tokenised so far. Raises ModelError for ids beyond the model's table, rows too long for it, too many
        unknown pieces.
        """
        kept = len(split) >= KEPT_ROWS
        tokens = (self.kept_tokens if kept else self._tokens)(split, max_length=max_length, on_rows=on_rows)
        if tokens.unknown_share > MOST_UNKNOWN:
            raise ModelError(
                f"{self.address!r}: the tokenizer must know at least {1 - MOST_UNKNOWN:.0%} of the texts' word pieces, but "
                f"{tokens.unknown_share:.0%} are {self.tokenizer.unk_token} to it; {self._way_out()}"
            )
        return tokens

    def _way_out(self) -> str:
        if self.kept:
            return "it has the pieces of the training texts alone: train on more texts, labelled or not, or say student_vocabulary: full"
        return "name a model of the texts' language, or put the model's own tokenizer beside its weights"

    def kept_tokens(self, split: Split, *, max_length: int, on_rows: Callable[[int], None]) -> Tokens:
        """Tokenise texts, with labels or without, for the model, once: their tokens are kept in the cache, memory-mapped.

        `on_rows` gets the number of texts tokenised so far. Raises ModelError for ids beyond the model's table and rows too long for it.
        """
        tokens = kept_tokens(
            split,
            self.tokenizer,
            max_length=max_length,
            segments=self.segments and split.pairs is not None,
            pads_left=self.pads_left,
            on_rows=on_rows,
        )
        self._check(tokens, max_length)
        return tokens

    def _tokens(self, split: Split, *, max_length: int, on_rows: Callable[[int], None]) -> Tokens:
        tokens = tokenize(
            split,
            self.tokenizer,
            max_length=max_length,
            segments=self.segments and split.pairs is not None,
            pads_left=self.pads_left,
            on_rows=on_rows,
        )
        self._check(tokens, max_length)
        return tokens

    def _check(self, tokens: Tokens, max_length: int) -> None:
        """Check that the model can read the tokens. Raises ModelError where it cannot."""
        highest, longest = int(tokens.ids.max()), int(tokens.lengths.max())
        if highest >= self.pieces:
            raise ModelError(
                f"{self.address!r}: the tokenizer gives id {highest}, but the model knows {self.pieces} pieces"
            )
        if self.longest is not None and longest > self.longest:
            raise ModelError(
                f"max_length <= {self.longest} (what {self.address!r} reads) must hold, but got {max_length}, and a row of "
                f"{longest} tokens"
            )


def reader(address: str, revision: str | None, task: TaskName = "single_label") -> Reader:
    """Return what the model at `address` can read. Raises ModelError for a tokenizer that is missing or not the model's own, and for
    a model that is unreadable, of another task than `task`, or without one table of word pieces."""
    config, tokenizer = model_config(address, revision), load_tokenizer(address, revision)
    check_task(config, address, task)
    model = _without_weights(config, address)
    pieces = _table(model, address).num_embeddings
    if len(tokenizer) < SMALLEST_TOKENIZER * pieces:
        raise ModelError(
            f"{address!r}: the tokenizer must have at least {SMALLEST_TOKENIZER:.0%} of the {pieces} pieces that the model knows, "
            f"but has {len(tokenizer)}: it is not the model's own"
        )
    return Reader(
        address=address,
        revision=revision,
        tokenizer=tokenizer,
        pieces=pieces,
        longest=_longest(model),
        segments=getattr(config, "type_vocab_size", 0) > 1,
        pads_left=getattr(config, "summary_type", "first") == "last",  # XLNet
        first_position=_first_position(model),
    )


def check_forward(model: nn.Module, tokens: Tokens, address: str) -> None:
    """Check that a model gives logits of the longest and the shortest row in one batch. Raises ModelError with the error that its code
    raises instead; running out of memory is raised as it is."""
    rows = np.array([tokens.lengths.argmax(), tokens.lengths.argmin()])
    model.eval()
    try:
        with torch.inference_mode():
            model(**padded(tokens, rows).inputs)
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        if isinstance(error, RuntimeError) and machine.is_out_of_memory(error):
            raise
        kind, cause = model.config.model_type, " ".join(str(error).split())[:400]  # type: ignore[union-attr]
        raise ModelError(
            f"{address!r} must give logits of two rows in a batch, but this {kind} says: {cause}; name another model"
        ) from error


def _without_weights(config: Any, address: str) -> nn.Module:
    try:
        with torch.device("meta"):
            model: nn.Module = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(unreadable(address, error)) from error
    return model


def _table(model: nn.Module, address: str) -> nn.Embedding:
    """Return the embedding table of a model's word pieces. Raises ModelError where it has no such nn.Embedding."""
    try:
        table = model.get_input_embeddings()  # type: ignore[operator]
    except NotImplementedError:
        table = None
    if not isinstance(table, nn.Embedding):
        kind = model.config.model_type  # type: ignore[union-attr]
        raise ModelError(
            f"{address!r} must have one table of word pieces (nn.Embedding), but {kind} has none: not supported"
        )
    return table


def _longest(model: nn.Module) -> int | None:
    """Return the most tokens that a model reads; None where it sets no limit (XLNet: -1)."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:
        return None
    return positions - _first_position(model)


def _first_position(model: nn.Module) -> int:
    """Return the number of a row's first position.

    RoBERTa and models derived from it number positions from padding_idx + 1, so that 514 positions read 512 tokens.
    """
    tables = [table for name, table in model.named_modules() if name.endswith("position_embeddings")]
    padding = [getattr(table, "padding_idx", None) for table in tables]
    return max((index + 1 for index in padding if index is not None), default=0)
