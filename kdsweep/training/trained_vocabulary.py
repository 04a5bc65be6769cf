"""Give a student the word pieces of its training texts alone: a smaller tokenizer, proved on these texts, and a smaller embedding table."""

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from kdsweep.errors import ModelError
from kdsweep.training.data.fewer_pieces import cut_tokenizer
from kdsweep.training.data.splits import Split
from kdsweep.training.data.tokenizing import tokenize
from kdsweep.training.data.tokens import Tokens, load_tokenizer
from kdsweep.training.models import model_config
from kdsweep.training.reader import Reader

ROWS_AT_ONCE = 20_000
"""Rows whose tokens are compared, or tokenised whole, at a time."""
NO_LIMIT = 10**9
"""A max_length that cuts nothing."""
_WAY_OUT = "say student_vocabulary: full"


@dataclass(frozen=True, kw_only=True)
class TrainedVocabulary:
    """Holds the pieces that a student keeps of a whole tokenizer's, and the tokenizer of these alone."""

    tokenizer: PreTrainedTokenizerBase
    """As it is saved beside the student."""
    reader: Reader
    """Reads texts for the student, with a copy of it."""
    pieces: Tensor
    """By the id in the smaller tokenizer, the piece's id in the whole one, int64 [K]."""
    whole: int
    """Pieces in the table of the model that has them all."""

    @property
    def numbers(self) -> Tensor:
        """Return, by the id in the whole tokenizer, that in the smaller one, int64; -1 for a piece that is dropped."""
        numbers = torch.full((self.whole,), -1, dtype=torch.int64)
        numbers[self.pieces] = torch.arange(len(self.pieces))
        return numbers


def trained_vocabulary(found: Reader, texts: Sequence[tuple[Split, Tokens]], *, max_length: int) -> TrainedVocabulary:
    """Return the vocabulary of the pieces in `texts`, each a split with its tokens by `found`; of rows that `max_length` cut, in the whole text.

    Raises ModelError for a tokenizer that cannot be made smaller.
    """
    tokenizer = load_tokenizer(
        found.address, found.revision
    )  # as it is on disk: the reader's has the limits of its last call
    used = {piece for split, tokens in texts for piece in _pieces(found, split, tokens, max_length)}
    used |= {id_ for _, id_ in _special_ids(model_config(found.address, found.revision)) if id_ < found.pieces}
    used |= set(range(found.first_position))  # where positions are numbered from the padding, its id must stay
    try:
        cut = cut_tokenizer(tokenizer, used)
    except ModelError as error:
        raise ModelError(f"student_vocabulary: trained, {found.address!r}: {error}; {_WAY_OUT}") from error
    pieces = torch.tensor(cut.pieces)
    if (highest := int(pieces.max())) >= found.pieces:
        raise ModelError(
            f"student_vocabulary: trained needs a model that knows every token of its tokenizer, but {found.address!r} has {found.pieces:,} "
            f"pieces and a token with id {highest}; {_WAY_OUT}"
        )
    if not torch.equal(pieces[: found.first_position], torch.arange(found.first_position)):
        raise ModelError(
            f"student_vocabulary: trained needs every id up to the padding's, {found.first_position - 1}, from which this model numbers its "
            f"positions, but the tokenizer of {found.address!r} has no piece for some of them; {_WAY_OUT}"
        )
    kept = hashlib.sha256(pieces.numpy().tobytes()).hexdigest()
    own = replace(found, tokenizer=copy.deepcopy(cut.tokenizer), pieces=len(pieces), kept=kept)
    return TrainedVocabulary(tokenizer=cut.tokenizer, reader=own, pieces=pieces, whole=found.pieces)


def _pieces(found: Reader, split: Split, tokens: Tokens, max_length: int) -> set[int]:
    """Return the ids of all pieces of a split's texts, also of what is cut off: the last word that is left may need it."""
    used = set(tokens.pieces.tolist())
    cut = np.flatnonzero(tokens.lengths == max_length) if tokens.truncated_rows else np.empty(0, dtype=np.int64)
    for first in range(0, len(cut), ROWS_AT_ONCE):
        part = split.take(cut[first : first + ROWS_AT_ONCE])
        used |= set(tokenize(part, found.tokenizer, max_length=NO_LIMIT, segments=False).pieces.tolist())
    return used


def check_same(address: str, whole: Tokens, own: Tokens, vocabulary: TrainedVocabulary) -> None:
    """Check that the smaller tokenizer cuts every training text as the whole one does. Raises ModelError where it does not."""
    if changed := int(changed_rows(whole, own, vocabulary).sum()):
        raise ModelError(
            f"student_vocabulary: trained needs a tokenizer that cuts the training texts alike without the pieces that they do not use, but "
            f"that of {address!r} cuts {changed:,} of {len(own.lengths):,} otherwise; {_WAY_OUT}"
        )


def changed_rows(whole: Tokens, own: Tokens, vocabulary: TrainedVocabulary) -> np.ndarray:
    """Return which rows the smaller tokenizer cuts otherwise than the whole one, bool [N]."""
    numbers = vocabulary.numbers.numpy()
    changed: np.ndarray = whole.lengths != own.lengths
    for first in range(0, len(changed), ROWS_AT_ONCE):
        stop = min(first + ROWS_AT_ONCE, len(changed))
        alike, before = ~changed[first:stop], whole.part(first, stop)
        theirs = before.ids.cpu().numpy()[np.repeat(alike, before.lengths)]
        ours = own.part(first, stop).ids.cpu().numpy()[np.repeat(alike, own.lengths[first:stop])]
        rows = np.repeat(np.flatnonzero(alike), before.lengths[alike])
        changed[first + rows[numbers[theirs] != ours]] = True
    return changed


def with_fewer_pieces(model: nn.Module, vocabulary: TrainedVocabulary) -> nn.Module:
    """Return `model` with the rows of its embedding table that `vocabulary` keeps, made anew from a config that says so, as from a saved one.

    Raises ModelError for a model with another tensor of as many rows.
    """
    table: nn.Embedding = model.get_input_embeddings()  # type: ignore[operator]
    names = {name for name, each in model.named_parameters(remove_duplicate=False) if each is table.weight}
    config: Any = copy.deepcopy(model.config)
    config.vocab_size = len(vocabulary.pieces)
    numbers = vocabulary.numbers.tolist()
    for name, id_ in _special_ids(config):
        new = numbers[id_] if id_ < len(numbers) else -1
        setattr(config, name, new if new >= 0 else None)
    weights = {
        name: each[vocabulary.pieces.to(each.device)] if name in names else each
        for name, each in model.state_dict().items()
    }
    with torch.random.fork_rng(devices=[]):
        smaller: nn.Module = type(model)(config)
    try:
        smaller.load_state_dict(weights)
    except RuntimeError as error:
        cause = " ".join(str(error).split())[:300]
        raise ModelError(
            f"student_vocabulary: trained needs a model whose pieces are in one table, but a {config.model_type} of {config.vocab_size:,} "
            f"pieces has other shapes: {cause}; {_WAY_OUT}"
        ) from error
    return smaller.train(model.training)


def _special_ids(config: Any) -> list[tuple[str, int]]:
    """Return each setting of a model that is the id of one token, with its name."""
    found = {name: value for name, value in config.to_dict().items() if name.endswith("_token_id")}
    return [(name, value) for name, value in found.items() if isinstance(value, int) and value >= 0]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Holds how a smaller tokenizer reads a split: the share of unknown pieces, and that of texts cut otherwise than by the whole one."""

    unknown_share: float
    recut_share: float


@dataclass(frozen=True, kw_only=True)
class VocabularyUse:
    """Holds how many pieces a student keeps of how many, and how it reads the rows that it is measured on."""

    pieces: int
    whole: int
    validation: Reading
    test: Reading | None
    """None where the test split is not opened."""


def reading(whole: Tokens, own: Tokens, vocabulary: TrainedVocabulary) -> Reading:
    """Return how the smaller tokenizer reads a split, from its tokens by the whole one and by itself."""
    return Reading(unknown_share=own.unknown_share, recut_share=float(changed_rows(whole, own, vocabulary).mean()))
