"""Tokenise many texts once: their tokens are kept in the cache by content, memory-mapped, and joined to those of labelled rows."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from kdsweep.training.data.kept import end_to_end, kept
from kdsweep.training.data.splits import Split
from kdsweep.training.data.tokenizing import token_arrays, tokens_of
from kdsweep.training.data.tokens import Tokens


def kept_tokens(
    split: Split,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    segments: bool,
    pads_left: bool,
    on_rows: Callable[[int], None],
) -> Tokens:
    """Return the tokens of `split` like `tokenize`, memory-mapped; `on_rows` gets the number of texts tokenised so far."""
    key = json.dumps([split.texts_sha256, _identity(tokenizer), max_length, segments, pads_left])
    found = kept(
        hashlib.sha256(key.encode()).hexdigest(),
        lambda: token_arrays(split, tokenizer, max_length=max_length, segments=segments, on_rows=on_rows),
    )
    return tokens_of(found, tokenizer, pairs=split.pairs is not None, pads_left=pads_left)


def _identity(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the SHA-256 of all that decides a tokenizer's ids: of what the fast ones compute with; of others' vocabulary and settings."""
    facts: list[object] = [type(tokenizer).__name__, tokenizer.truncation_side, tokenizer.special_tokens_map]
    if tokenizer.is_fast:
        backend = json.loads(tokenizer.backend_tokenizer.to_str())
        facts.append(
            {name: part for name, part in backend.items() if name not in ("truncation", "padding")}
        )  # the last call's
    else:
        facts += [sorted(tokenizer.get_vocab().items()), str(tokenizer)]
    return hashlib.sha256(json.dumps(facts, default=str, sort_keys=True).encode()).hexdigest()


def joined_tokens(first: Tokens, second: Tokens) -> Tokens:
    """Return the rows of `first`, then those of `second`, tokens of two whole splits for one model, in the number format of `second`."""

    def pieces() -> Iterator[dict[str, Tensor]]:
        for tokens in (first, second):
            flat = {"ids": tokens.ids.to(second.ids.dtype)}
            if tokens.segments is not None and second.segments is not None:
                flat["segments"] = tokens.segments.to(second.segments.dtype)
            yield flat

    both = end_to_end(pieces)
    return replace(
        first,
        ids=both["ids"],
        segments=both.get("segments"),
        starts=torch.cat([first.starts, second.starts + len(first.ids)]),
        lengths=np.concatenate([first.lengths, second.lengths]),
        truncated_rows=first.truncated_rows + second.truncated_rows,
    )
