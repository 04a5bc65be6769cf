"""Hold the tokens of a split for one model, and cut them into batches.

`tokenizing` makes the tokens; `training_batches` and `evaluation_batches` cut padded batches of rows of about one length.
Shapes: B batch, N rows, L tokens.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from huggingface_hub import try_to_load_from_cache
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from kdsweep.config.tasks import TaskName
from kdsweep.errors import ModelError
from kdsweep.system.wheels import local_path

WINDOW_BATCHES = 16
"""Batches of rows that are sorted by length together: enough for little padding (7 % of it at 16 rows a batch), few enough to
mix classes of different length. On CLINC150 50 batches cost 1.5 points of accuracy against no sorting, 16 none."""
EVALUATION_ROWS = 128
"""Rows of a batch without gradients."""
GPU_WIDTH = 8
"""On a GPU a batch is padded to a multiple of it: attention's kernels are faster then, and few shapes make few graphs (`fast/cuda_graphs`)."""
TEACHER_LOGITS = "teacher_logits"
"""The name of the target that every split has."""
IDS_AT_ONCE = 2**20
"""Ids that are widened to 64 bits at a time."""

_WHOLE_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tiktoken.model", "tekken.json")
"""Files of which each holds a whole tokenizer, of any class."""
_SAVE_IT = "Save the tokenizer that the model was trained with beside its weights: AutoTokenizer.from_pretrained(…).save_pretrained(…)"


def load_tokenizer(address: str, revision: str | None) -> PreTrainedTokenizerBase:
    """Load the tokenizer beside a model's weights. Raises ModelError where it cannot be read, or none of its files is there."""
    path = local_path(address)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            path, revision=revision, trust_remote_code=False
        )
    except Exception as error:  # for a torn file the tokenizers library raises no class of its own
        cause = " ".join(str(error).split())[:400]
        raise ModelError(f"{address!r} must hold a tokenizer, but: {cause}\n{_SAVE_IT}") from error
    own = [name for kind, name in tokenizer.vocab_files_names.items() if kind != "tokenizer_file"]
    if own and not _holds(path, revision, own):
        raise ModelError(
            f"{address!r} must hold a tokenizer, but has neither {_WHOLE_TOKENIZERS[0]} nor {' or '.join(own)}\n{_SAVE_IT}"
        )
    return tokenizer


def _holds(path: str, revision: str | None, own: Sequence[str]) -> bool:
    """Return whether a file of a tokenizer is there: without any, transformers makes an empty one, to which every word is unknown."""

    def exists(name: str) -> bool:
        if Path(path).is_dir():
            return (Path(path) / name).is_file()
        return isinstance(try_to_load_from_cache(path, name, revision=revision), str)  # where from_pretrained put it

    return any(map(exists, (*_WHOLE_TOKENIZERS, *own)))


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Holds a split's tokens end to end, on the device: ids and segments [sum of lengths], each row's start in them and its length [N].

    Ids are int32 and segments int8, perhaps memory-mapped; batches and parts hold them as int64.
    """

    ids: Tensor
    segments: Tensor | None
    starts: Tensor
    lengths: np.ndarray
    pad_id: int
    truncated_rows: int = 0
    """How many rows of the whole split were cut to `max_length`."""
    pads_left: bool = False
    """Whether a row is padded on its left: for a model that reads its answer from the last place."""
    unknown_share: float = 0.0
    """Share of unknown word pieces in all of the rows as they were tokenized, special ones not counted."""

    def to(self, device: str) -> "Tokens":
        """Copy the tokens to `device`; lengths stay on the host, so that a batch's width is known without a synchronisation."""
        segments = self.segments.to(device) if self.segments is not None else None
        return replace(self, ids=self.ids.to(device), segments=segments, starts=self.starts.to(device))

    def take(self, rows: np.ndarray) -> "Tokens":
        """Return the rows with the numbers `rows`, in that order; the ids and segments of all rows are kept."""
        return replace(self, starts=self.starts[torch.from_numpy(rows)], lengths=self.lengths[rows])

    def part(self, first: int, stop: int) -> "Tokens":
        """Return the rows `first` to `stop` - 1 of tokens of a whole split, with their ids alone."""
        lengths, begin = self.lengths[first:stop], int(self.starts[first])
        end = begin + int(lengths.sum())
        segments = self.segments[begin:end] if self.segments is not None else None
        starts = self.starts[first:stop] - begin
        segments = segments.long() if segments is not None else None
        return replace(self, ids=self.ids[begin:end].long(), segments=segments, starts=starts, lengths=lengths)

    @cached_property
    def pieces(self) -> Tensor:
        """Return the distinct ids of all rows, sorted, int64."""
        used = torch.zeros(int(self.ids.max()) + 1, dtype=torch.bool, device=self.ids.device)
        for part in self.ids.split(IDS_AT_ONCE):
            used[part.long()] = True
        return used.nonzero()[:, 0]

    def sha256(self) -> str:
        """Return the SHA-256 of ids, segments, starts and padding, all as int64: of all that a model computes with, for tokens of a whole split."""
        digest = hashlib.sha256(f"{self.pad_id} {self.pads_left}".encode())
        for tensor in (self.ids, self.segments, self.starts):
            if tensor is None:
                digest.update(b"-")
                continue
            for part in tensor.split(IDS_AT_ONCE):
                digest.update(part.long().cpu().numpy().data)
        return digest.hexdigest()


class Batch(NamedTuple):
    """Holds B rows padded to the longest, L (on a GPU to a multiple of `GPU_WIDTH`): the rows' numbers [B], and a model's inputs, each [B, L]."""

    rows: Tensor
    inputs: dict[str, Tensor]
    numbers: np.ndarray | None = None
    """`rows` on the host; None for a piece of a batch."""


def training_batches(tokens: Tokens, *, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
    """Cut all rows into batches, in an order that `seed`, `epoch`, `batch_size` and the lengths decide: rows are shuffled, sorted by length
    inside windows of `WINDOW_BATCHES` batches, cut, and the batches shuffled. The last batch of the last window may be smaller."""
    generator = np.random.default_rng((seed, epoch))
    shuffled = generator.permutation(len(tokens.lengths))
    window = WINDOW_BATCHES * batch_size
    cuts: list[np.ndarray] = []
    for start in range(0, len(shuffled), window):
        rows = shuffled[start : start + window]
        rows = rows[np.argsort(tokens.lengths[rows], kind="stable")]
        cuts += [rows[first : first + batch_size] for first in range(0, len(rows), batch_size)]
    yield from gathered(tokens, [cuts[place] for place in generator.permutation(len(cuts))])


def evaluation_batches(tokens: Tokens) -> Iterator[Batch]:
    """Cut all rows into batches of `EVALUATION_ROWS`, shortest rows first."""
    order = np.argsort(tokens.lengths, kind="stable")
    starts = range(0, len(order), EVALUATION_ROWS)
    yield from gathered(tokens, [order[start : start + EVALUATION_ROWS] for start in starts])


def padded(tokens: Tokens, rows: np.ndarray) -> Batch:
    """Gather the rows with the numbers `rows` into one batch, on the tokens' device."""
    return next(gathered(tokens, [rows]))


def gathered(tokens: Tokens, cuts: Sequence[np.ndarray]) -> Iterator[Batch]:
    """Gather each of `cuts`, numbers of rows, into a batch. All numbers are copied to the device at once: a copy for each batch would wait for
    the step before it."""
    device, longest = tokens.ids.device, int(tokens.lengths.max())
    order, sizes = np.concatenate(cuts), [len(rows) for rows in cuts]
    indexes, owns = (torch.from_numpy(each).to(device).split(sizes) for each in (order, tokens.lengths[order]))
    for numbers, index, own in zip(cuts, indexes, owns, strict=True):
        width = int(tokens.lengths[numbers].max())
        if device.type == "cuda":
            width = min(-(-width // GPU_WIDTH) * GPU_WIDTH, longest)
        columns = torch.arange(width, device=device)[None, :]
        mask = columns < own[:, None]
        if tokens.pads_left:
            columns = columns - (width - own)[:, None]
            mask = columns >= 0
        places = (tokens.starts[index][:, None] + columns).clamp(0, len(tokens.ids) - 1)
        inputs = {
            "input_ids": tokens.ids[places].long().masked_fill(~mask, tokens.pad_id),
            "attention_mask": mask.long(),
        }
        if tokens.segments is not None:
            inputs["token_type_ids"] = tokens.segments[places].long().masked_fill(~mask, 0)
        yield Batch(index, inputs, numbers)


def split_batch(batch: Batch, pieces: int) -> list[Batch]:
    """Split a batch's rows into at most `pieces` pieces of one size, of which the last may be smaller."""
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
    """Holds one split as a model takes it, on the device: tokens, labels, and the teacher's outputs for each row.

    The rows for training may end with texts that have no label.
    """

    tokens: Tokens
    labels: Tensor
    """Classes, int64 [N], -1 where there is none; those of the other tasks are in `training/tasks.py`."""
    targets: Mapping[str, Tensor]
    """The teacher's outputs by name, each [N, …]; 0 where `taught` is false."""
    extra: int = 0
    """How many rows, the last ones, come from texts without labels."""
    labeled: np.ndarray | None = None
    """Which rows have a label, bool [N], on the host; None: all."""
    taught: np.ndarray | None = None
    """Which rows have the teacher's outputs, bool [N], on the host; None: all."""
    task: TaskName = "single_label"
    """What the labels ask of a model."""
    hard_weights: Tensor | None = None
    """Each row's weight in L_hard by its class, float32 [N]; None: 1."""

    @property
    def teacher_logits(self) -> Tensor:
        """Return the teacher's logits [N, C], in the dataset's class order."""
        return self.targets[TEACHER_LOGITS]

    def take(self, rows: np.ndarray) -> "Rows":
        """Return the rows with the numbers `rows`, in that order; those of texts without labels must come last."""
        index = torch.from_numpy(rows)
        targets = {name: values[index] for name, values in self.targets.items()}
        return Rows(
            tokens=self.tokens.take(rows),
            labels=self.labels[index],
            targets=targets,
            extra=int((rows >= len(self.labels) - self.extra).sum()),
            labeled=None if self.labeled is None else self.labeled[rows],
            taught=None if self.taught is None else self.taught[rows],
            task=self.task,
            hard_weights=None if self.hard_weights is None else self.hard_weights[index],
        )

    def known(self) -> dict[str, np.ndarray]:
        """Return, for each loss part that is a mean over some rows alone, which rows these are, bool [N]."""
        masks = {"L_soft": self.taught, "L_hard": self.labeled}
        return {name: mask for name, mask in masks.items() if mask is not None}
