"""Load texts without labels: read, cleaned, and kept apart from the rows that a student is measured on. Shapes: N texts."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from kdsweep.analysis.formats import dropped_texts, unlabeled
from kdsweep.config.trial import TrialConfig
from kdsweep.errors import DataError
from kdsweep.training.data.progress import NOBODY
from kdsweep.training.data.rows import raw_texts
from kdsweep.training.data.splits import Data, Key, Split

_OTHERS = re.compile(r"[\W_]+")
_ASCII_OTHERS = bytes(code for code in range(128) if not chr(code).isalnum())


@dataclass(frozen=True, kw_only=True)
class Unlabeled:
    """Holds N texts (pairs) without labels, in an order that split_seed draws, and how many were left out."""

    split: Split
    """The texts; every label is -1."""
    read: int
    """How many texts there were before any was left out."""
    dropped: Mapping[str, int]
    """How many were left out: `empty` ones, `duplicates` of an earlier one, texts of `labelled` training rows, and of rows `held_out` for
    validation and test; the last two also where only case, spaces and punctuation differ. With a teacher that is a file, also `untaught`
    ones, for which it has no numbers."""
    all_ids: frozenset[str] = frozenset()
    """The ids of all texts as read, of those left out too; empty without an id_column."""

    def __len__(self) -> int:
        return len(self.split)

    def described(self) -> str:
        """Say how many texts there are, and how many were left out and why."""
        return unlabeled(len(self), self.dropped)

    @property
    def sha256(self) -> str:
        """Return the SHA-256 of the texts, in order."""
        return self.split.texts_sha256


def load_unlabeled(
    config: TrialConfig,
    data: Data,
    teaches: Callable[[Key], bool] | None = None,
    on_rows: Callable[[int], None] = NOBODY,
) -> Unlabeled:
    """Load the texts without labels that `config` names: file, split, and what train_limit leaves out of the training rows.

    They are put in an order that `split_seed` draws, and cut to the first `unlabeled_limit`: a larger limit adds texts to those of a
    smaller one. `teaches` tells of a text's id or key whether the teacher, a file, has numbers for it; None: it has them for all. `on_rows`
    gets the number of texts read so far, of each file. Raises
    DataError for a source that is missing or empty, and where no text is left.
    """
    keys, ids = _read(config, data, on_rows)
    kept, dropped = _cleaned(keys, data)
    names = dict(zip(reversed(keys), reversed(ids), strict=True)) if ids else {}  # of equal texts, the first's
    if teaches is not None:
        taught = [key for key in kept if teaches(names.get(key) or (key if len(key) > 1 else key[0]))]
        kept, dropped = taught, {**dropped, "untaught": len(kept) - len(taught)}
    if not kept:
        raise DataError(_none_left(config, len(keys), dropped))
    order = np.random.default_rng(config.split_seed).permutation(len(kept))[: config.unlabeled_limit]
    texts = tuple(kept[row][0] for row in order)
    pairs = tuple(kept[row][1] for row in order) if config.text_pair_column else None
    chosen = tuple(names[kept[row]] for row in order) if names else None
    split = Split(texts=texts, pairs=pairs, labels=np.full(len(texts), -1, dtype=np.int64), ids=chosen)
    return Unlabeled(split=split, read=len(keys), dropped=dropped, all_ids=frozenset(ids))


def _read(config: TrialConfig, data: Data, on_rows: Callable[[int], None]) -> tuple[list[tuple[str, ...]], list[str]]:
    """Return the texts (pairs) of every source, and their ids, if there is an id_column."""
    keys: list[tuple[str, ...]] = []
    ids: list[str] = []
    for name in ("unlabeled_file", "unlabeled_split"):
        if getattr(config, name):
            texts, pairs, own = raw_texts(config, name, on_rows)
            ids += own or []
            keys += zip(texts, pairs, strict=True) if pairs is not None else zip(texts, strict=True)
    if config.unlabeled_rest and data.rest is not None:
        keys += zip(data.rest.texts, *([data.rest.pairs] if data.rest.pairs is not None else []), strict=True)
        ids += data.rest.ids or []
    return keys, ids


def _cleaned(keys: list[tuple[str, ...]], data: Data) -> tuple[list[tuple[str, ...]], dict[str, int]]:
    """Return the texts (pairs) that may train, each once, and how many others there are of each kind."""
    filled = [key for key in keys if all(map(str.strip, key))]
    distinct = list(dict.fromkeys(filled))
    held_out, labelled = _near_keys(data.validation, data.test), _near_keys(data.train)
    kept, seen = [], {"labelled": 0, "held_out": 0}
    for key in distinct:
        near = tuple(map(near_key, key))
        if near in held_out:
            seen["held_out"] += 1
        elif near in labelled:
            seen["labelled"] += 1
        else:
            kept.append(key)
    return kept, {"empty": len(keys) - len(filled), "duplicates": len(filled) - len(distinct), **seen}


def _near_keys(*splits: Split | None) -> set[tuple[str, ...]]:
    """Return the near keys of every row of `splits`."""
    found: set[tuple[str, ...]] = set()
    for split in splits:
        if split is not None:
            columns = (split.texts,) if split.pairs is None else (split.texts, split.pairs)
            found.update(tuple(map(near_key, each)) for each in zip(*columns, strict=True))
    return found


def near_key(text: str) -> str:
    """Return what a text is compared by: its letters and digits alone (Unicode's NFKC), without case; of a text without any, the text."""
    if text.isascii():
        return text.encode("ascii").lower().translate(None, _ASCII_OTHERS).decode("ascii") or text.strip()
    whole = unicodedata.normalize("NFKC", text).casefold()
    return _OTHERS.sub("", unicodedata.normalize("NFKC", whole)) or text.strip()


def _none_left(config: TrialConfig, read: int, dropped: Mapping[str, int]) -> str:
    """Describe why no text is left."""
    if read == 0:
        return (
            f"unlabeled_rest must have training rows that train_limit ({config.train_limit}) leaves out, but it leaves out "
            "none; lower the limit, or name unlabeled_file"
        )
    return (
        f"a text without label must be left once empty ones, duplicates and those of labelled rows are dropped, but of {read:,} all are: "
        f"{dropped_texts(dropped)}; name other texts: unlabeled_file"
    )
