"""Tokenise a split for one model, many rows a part at a time, so that no object stays for a row or a token. Shapes: N rows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BatchEncoding, PreTrainedTokenizerBase

from kdsweep.system.process import uncollected
from kdsweep.training.data.progress import NOBODY
from kdsweep.training.data.splits import Split
from kdsweep.training.data.tokens import Tokens


def tokenize(
    split: Split,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    segments: bool,
    pads_left: bool = False,
    on_rows: Callable[[int], None] = NOBODY,
) -> Tokens:
    """Tokenise a split for one model; with `segments`, also token type ids, by which a BERT distinguishes the two texts of a pair.

    `on_rows` gets the number of rows tokenised so far.
    """
    parts = list(token_arrays(split, tokenizer, max_length=max_length, segments=segments, on_rows=on_rows))
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return tokens_of(arrays, tokenizer, pairs=split.pairs is not None, pads_left=pads_left)


def token_arrays(
    split: Split,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    segments: bool,
    on_rows: Callable[[int], None],
) -> Iterator[dict[str, np.ndarray]]:
    """Tokenise a split, `ROWS_AT_ONCE` rows at a time, and yield what `tokens_of` wants end to end, by name.

    These are the ids, int32, and with `segments` the token type ids, int8, of all rows end to end; each row's length, int32 [N]; and the
    number of rows that were cut [1].
    """
    done = 0
    for part in split.parts():
        with (
            uncollected()
        ):  # a tokenizer makes no cycles, but so many lists that the search for some takes a third of its time
            encoded = tokenizer(
                list(part.texts),
                list(part.pairs) if part.pairs is not None else None,
                truncation=True,
                max_length=max_length,
                return_attention_mask=False,
                return_token_type_ids=segments,
            )
        lengths = np.fromiter(map(len, encoded["input_ids"]), dtype=np.int32, count=len(part))
        cut = _truncated_rows(encoded, part, tokenizer, np.flatnonzero(lengths == max_length), max_length)
        found = {"ids": _flat(encoded["input_ids"], np.int32), "lengths": lengths, "truncated": np.array([cut])}
        yield found | ({"segments": _flat(encoded["token_type_ids"], np.int8)} if segments else {})
        done += len(part)
        on_rows(done)


def _flat(rows: Sequence[Sequence[int]], kind: type[np.signedinteger[Any]]) -> np.ndarray:
    return np.fromiter(chain.from_iterable(rows), dtype=kind, count=sum(map(len, rows)))


def tokens_of(
    arrays: Mapping[str, np.ndarray], tokenizer: PreTrainedTokenizerBase, *, pairs: bool, pads_left: bool
) -> Tokens:
    """Return the tokens of a whole split from what `token_arrays` yields, end to end."""
    ids, lengths = torch.from_numpy(arrays["ids"]), arrays["lengths"].astype(np.int64)
    return Tokens(
        ids=ids,
        segments=torch.from_numpy(arrays["segments"]) if "segments" in arrays else None,
        starts=torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)[:-1]])),
        lengths=lengths,
        pad_id=int(tokenizer.pad_token_id or 0),
        truncated_rows=int(arrays["truncated"].sum()),
        pads_left=pads_left,
        unknown_share=unknown_share(ids, len(lengths), tokenizer, pairs=pairs),
    )


def _truncated_rows(
    encoded: BatchEncoding, split: Split, tokenizer: PreTrainedTokenizerBase, full: np.ndarray, max_length: int
) -> int:
    """Count the rows that were cut, among the rows `full` of `max_length` tokens; a fast tokenizer keeps what it cut off.

    A tokenizer written in Python does not: with one, the rows `full` are tokenised again, without a limit.
    """
    if encoded.encodings is not None:
        return sum(bool(encoded.encodings[row].overflowing) for row in full.tolist())
    whole = [tokenizer(text, pair or None)["input_ids"] for text, pair in split.take(full).row_keys()]
    return sum(len(ids) > max_length for ids in whole)


def unknown_share(ids: Tensor, rows: int, tokenizer: PreTrainedTokenizerBase, *, pairs: bool) -> float:
    """Return the share of unknown word pieces; 0 where the unknown token is another special token too, as in tokenizers of bytes, which can
    encode every text."""
    unknown = tokenizer.unk_token_id
    others = (getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "cls", "sep", "pad", "mask"))
    if unknown is None or unknown in others:
        return 0.0
    pieces = len(ids) - rows * tokenizer.num_special_tokens_to_add(pair=pairs)
    return float((ids == unknown).sum()) / max(1, pieces)
