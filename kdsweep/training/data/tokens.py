"""One model's tokens of a split, and the batches cut from them.

`tokenize` makes the tokens; `training_batches` and `evaluation_batches` cut padded batches of rows of about one length.
Shapes: B batch, N rows, L tokens.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from huggingface_hub import try_to_load_from_cache
from torch import Tensor
from transformers import AutoTokenizer, BatchEncoding, PreTrainedTokenizerBase

from kdsweep.errors import ModelError
from kdsweep.system.wheels import local_path
from kdsweep.training.data.splits import Split

WINDOW_BATCHES = 16
"""Batches of rows that are sorted by length together: enough for little padding (7 % of it at 16 rows a batch), few enough to
mix classes of different length. On CLINC150 50 batches cost 1.5 points of accuracy against no sorting, 16 none."""
EVALUATION_ROWS = 128
"""Rows of a batch without gradients."""
GPU_WIDTH = 8
"""On a GPU a batch is padded to a multiple of it: attention's kernels like that, and few shapes make few graphs (`fast/cuda_graphs`)."""
TEACHER_LOGITS = "teacher_logits"
"""The name of the target that every split carries."""


_WHOLE_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tiktoken.model", "tekken.json")
"""Files of which each holds a tokenizer by itself, whatever its class."""
_SAVE_IT = "Save the tokenizer that the model was trained with beside its weights: AutoTokenizer.from_pretrained(…).save_pretrained(…)"


def load_tokenizer(address: str, revision: str | None) -> PreTrainedTokenizerBase:
    """The fast tokenizer beside a model's weights. Raises ModelError where it cannot be read or none of its files is there."""
    path = local_path(address)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            path, revision=revision, trust_remote_code=False
        )
    except Exception as error:  # of a torn file, the tokenizers library raises no kind of its own
        cause = " ".join(str(error).split())[:400]
        raise ModelError(f"{address!r} must hold a tokenizer, but: {cause}\n{_SAVE_IT}") from error
    own = [name for kind, name in tokenizer.vocab_files_names.items() if kind != "tokenizer_file"]
    if own and not _holds(path, revision, own):
        raise ModelError(
            f"{address!r} must hold a tokenizer, but has neither {_WHOLE_TOKENIZERS[0]} nor {' or '.join(own)}\n{_SAVE_IT}"
        )
    return tokenizer


def _holds(path: str, revision: str | None, own: Sequence[str]) -> bool:
    """Whether a file of a tokenizer is there: transformers makes an empty one, to which every word is unknown, of no file at all."""

    def exists(name: str) -> bool:
        if Path(path).is_dir():
            return (Path(path) / name).is_file()
        return isinstance(try_to_load_from_cache(path, name, revision=revision), str)  # where loading it has put them

    return any(map(exists, (*_WHOLE_TOKENIZERS, *own)))


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """A split's tokens end to end, on the device: ids and segments [sum of lengths], where each row starts, and how long it is [N]."""

    ids: Tensor
    segments: Tensor | None
    starts: Tensor
    lengths: np.ndarray
    pad_id: int
    truncated_rows: int = 0
    """Of the whole split: how many `max_length` cut."""
    pads_left: bool = False
    """Whether padding stands before a row: for a model that answers from the last place."""
    unknown_share: float = 0.0
    """Share of the word pieces that the tokenizer does not know, special ones aside, of the rows as they were tokenized."""

    def to(self, device: str) -> "Tokens":
        """The same on another device; lengths stay on the host, so that a batch's width costs no synchronisation."""
        segments = self.segments.to(device) if self.segments is not None else None
        return replace(self, ids=self.ids.to(device), segments=segments, starts=self.starts.to(device))

    def take(self, rows: np.ndarray) -> "Tokens":
        """The named rows, in that order."""
        return replace(self, starts=self.starts[torch.from_numpy(rows)], lengths=self.lengths[rows])

    def renumbered(self, pieces: Tensor) -> "Tokens":
        """The same with every id replaced by its place in `pieces`, which is sorted and holds it."""
        return replace(self, ids=torch.searchsorted(pieces, self.ids))

    def sha256(self) -> str:
        """Of all that a model computes with."""
        digest = hashlib.sha256(f"{self.pad_id} {self.pads_left}".encode())
        for tensor in (self.ids, self.segments, self.starts):
            digest.update(b"-" if tensor is None else tensor.cpu().numpy().tobytes())
        return digest.hexdigest()


def tokenize(
    split: Split, tokenizer: PreTrainedTokenizerBase, *, max_length: int, segments: bool, pads_left: bool = False
) -> Tokens:
    """One model's tokens of a split; with `segments`, the token type ids that tell a BERT the two texts of a pair apart."""
    encoded = tokenizer(
        list(split.texts),
        list(split.pairs) if split.pairs is not None else None,
        truncation=True,
        max_length=max_length,
        return_attention_mask=False,
        return_token_type_ids=segments,
    )
    lengths = np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int64)
    flat = torch.from_numpy(np.concatenate([np.array(ids, dtype=np.int64) for ids in encoded["input_ids"]]))
    types = encoded["token_type_ids"] if segments else None
    return Tokens(
        ids=flat,
        segments=torch.from_numpy(np.concatenate([np.array(row, dtype=np.int64) for row in types])) if types else None,
        starts=torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)[:-1]])),
        lengths=lengths,
        pad_id=int(tokenizer.pad_token_id or 0),
        truncated_rows=_truncated_rows(encoded, split, tokenizer, np.flatnonzero(lengths == max_length), max_length),
        pads_left=pads_left,
        unknown_share=_unknown_share(flat, len(lengths), tokenizer, pairs=split.pairs is not None),
    )


def _truncated_rows(
    encoded: BatchEncoding, split: Split, tokenizer: PreTrainedTokenizerBase, full: np.ndarray, max_length: int
) -> int:
    """How many of the `full` rows, as long as a row may be, were longer before; what was cut off lies beside a row's tokens.

    A tokenizer written in Python keeps no such thing: it makes those rows' tokens again.
    """
    if encoded.encodings is not None:
        return sum(bool(encoded.encodings[row].overflowing) for row in full.tolist())
    whole = [tokenizer(text, pair or None)["input_ids"] for text, pair in split.take(full).row_keys()]
    return sum(len(ids) > max_length for ids in whole)


def _unknown_share(ids: Tensor, rows: int, tokenizer: PreTrainedTokenizerBase, *, pairs: bool) -> float:
    """Of all word pieces; 0 where the unknown one is another special token too, as in tokenizers of bytes, which know every text."""
    unknown = tokenizer.unk_token_id
    others = (getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "cls", "sep", "pad", "mask"))
    if unknown is None or unknown in others:
        return 0.0
    pieces = len(ids) - rows * tokenizer.num_special_tokens_to_add(pair=pairs)
    return float((ids == unknown).sum()) / max(1, pieces)


class Batch(NamedTuple):
    """B rows padded to their longest, L (on a GPU a multiple of `GPU_WIDTH`): their rows [B], and what a model takes of them, each [B, L]."""

    rows: Tensor
    inputs: dict[str, Tensor]


def training_batches(tokens: Tokens, *, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
    """Every row once in an order that (seed, epoch, batch_size) decide: shuffled, sorted by length inside windows of
    `WINDOW_BATCHES` batches, cut, and the batches shuffled. The last of a window may be smaller."""
    generator = np.random.default_rng((seed, epoch))
    shuffled = generator.permutation(len(tokens.lengths))
    window = WINDOW_BATCHES * batch_size
    cuts: list[np.ndarray] = []
    for start in range(0, len(shuffled), window):
        rows = shuffled[start : start + window]
        rows = rows[np.argsort(tokens.lengths[rows], kind="stable")]
        cuts += [rows[first : first + batch_size] for first in range(0, len(rows), batch_size)]
    yield from _batches(tokens, [cuts[place] for place in generator.permutation(len(cuts))])


def evaluation_batches(tokens: Tokens) -> Iterator[Batch]:
    """Every row once, shortest first."""
    order = np.argsort(tokens.lengths, kind="stable")
    starts = range(0, len(order), EVALUATION_ROWS)
    yield from _batches(tokens, [order[start : start + EVALUATION_ROWS] for start in starts])


def padded(tokens: Tokens, rows: np.ndarray) -> Batch:
    """The named rows as one batch, gathered on the tokens' device."""
    return next(_batches(tokens, [rows]))


def _batches(tokens: Tokens, cuts: Sequence[np.ndarray]) -> Iterator[Batch]:
    """Each of `cuts` as a batch. Their rows go to the device once for all: a copy for each batch would wait for the step before it."""
    device, longest = tokens.ids.device, int(tokens.lengths.max())
    order, sizes = np.concatenate(cuts), [len(rows) for rows in cuts]
    indexes, owns = (torch.from_numpy(each).to(device).split(sizes) for each in (order, tokens.lengths[order]))
    for rows, index, own in zip(cuts, indexes, owns, strict=True):
        width = int(tokens.lengths[rows].max())
        if device.type == "cuda":
            width = min(-(-width // GPU_WIDTH) * GPU_WIDTH, longest)
        columns = torch.arange(width, device=device)[None, :]
        mask = columns < own[:, None]
        if tokens.pads_left:
            columns = columns - (width - own)[:, None]
            mask = columns >= 0
        places = (tokens.starts[index][:, None] + columns).clamp(0, len(tokens.ids) - 1)
        inputs = {"input_ids": tokens.ids[places].masked_fill(~mask, tokens.pad_id), "attention_mask": mask.long()}
        if tokens.segments is not None:
            inputs["token_type_ids"] = tokens.segments[places].masked_fill(~mask, 0)
        yield Batch(index, inputs)


def split_batch(batch: Batch, pieces: int) -> list[Batch]:
    """The batch as it is, or its rows in at most so many pieces of about one size."""
    if pieces == 1:
        return [batch]
    size = -(-len(batch.rows) // pieces)
    columns = {name: values.split(size) for name, values in batch.inputs.items()}
    return [
        Batch(rows, {name: parts[place] for name, parts in columns.items()})
        for place, rows in enumerate(batch.rows.split(size))
    ]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """One split as a model meets it, on the device: tokens, classes [N], and what the teacher gives for each row."""

    tokens: Tokens
    labels: Tensor
    targets: Mapping[str, Tensor]
    """By name, each [N, …]; `TEACHER_LOGITS` is always among them."""

    @property
    def teacher_logits(self) -> Tensor:
        """The teacher's logits [N, C], in the dataset's class order."""
        return self.targets[TEACHER_LOGITS]

    def take(self, rows: np.ndarray) -> "Rows":
        """The named rows, in that order."""
        index = torch.from_numpy(rows)
        targets = {name: values[index] for name, values in self.targets.items()}
        return Rows(tokens=self.tokens.take(rows), labels=self.labels[index], targets=targets)

    def renumbered(self, pieces: Tensor) -> "Rows":
        """The same rows in the ids of a compact vocabulary."""
        return replace(self, tokens=self.tokens.renumbered(pieces))
