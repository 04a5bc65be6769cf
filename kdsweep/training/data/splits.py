"""Load the splits of a trial: `load_data` reads a hub dataset or files into splits with one numbering of classes. Shapes: N rows."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import Literal

import numpy as np

from kdsweep.config.tasks import TaskName
from kdsweep.config.trial import TrialConfig
from kdsweep.errors import DataError, listed
from kdsweep.training.data.numbering import check_differ, found_names, label_array, strata
from kdsweep.training.data.progress import NOBODY
from kdsweep.training.data.rows import RawRows, raw_rows, source

SplitName = Literal["train", "validation", "test"]
Key = str | tuple[str, ...]
"""What a row is known by in a teacher's file: its id, or its text, or its pair of texts."""
ROWS_AT_ONCE = 20_000
"""Rows that are tokenised at a time: a tokenizer takes about 3 KB of memory for each."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Holds N rows: texts, second texts of pairs or None, and labels: classes int64 [N] as indices into the label names, labels uint8 [N, C],
    1 where a row has one, or numbers float32 [N]."""

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: np.ndarray
    ids: tuple[str, ...] | None = None
    """Each row's id; None without an id_column."""

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: np.ndarray) -> "Split":
        """Return the rows with the numbers `rows`, in that order."""
        numbers = rows.tolist()
        chosen: Callable[[tuple[str, ...]], tuple[str, ...]] = lambda column: tuple(map(column.__getitem__, numbers))
        pairs = chosen(self.pairs) if self.pairs is not None else None
        ids = chosen(self.ids) if self.ids is not None else None
        return Split(texts=chosen(self.texts), pairs=pairs, labels=self.labels[rows], ids=ids)

    def part(self, first: int, stop: int) -> "Split":
        """Return the rows `first` to `stop` - 1."""
        pairs = self.pairs[first:stop] if self.pairs is not None else None
        ids = self.ids[first:stop] if self.ids is not None else None
        return Split(texts=self.texts[first:stop], pairs=pairs, labels=self.labels[first:stop], ids=ids)

    def row_keys(self) -> list[tuple[str, str]]:
        """Return each row's exact text or pair of texts; rows with equal keys are duplicates."""
        return list(zip(self.texts, self.pairs or ("",) * len(self), strict=True))

    def plain_keys(self) -> Sequence[Key]:
        """Return each row's exact text or pair of texts, as `row_keys` does, but single texts as they are: no object a row."""
        return self.texts if self.pairs is None else self.row_keys()

    def parts(self) -> Iterator["Split"]:
        """Yield the rows in their order, `ROWS_AT_ONCE` at a time."""
        return (self.part(first, first + ROWS_AT_ONCE) for first in range(0, len(self), ROWS_AT_ONCE))

    @cached_property
    def texts_sha256(self) -> str:
        """Return the SHA-256 of the texts, in order."""
        digest = hashlib.sha256()
        for text, pair in zip(self.texts, self.pairs or repeat(""), strict=False):
            digest.update(f"{len(text)} {len(pair)} {text}{pair}".encode())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Data:
    """Holds the rows of a trial: train, validation (which the search uses) and test (used at the end alone, or None)."""

    train: Split
    validation: Split
    test: Split | None
    label_names: tuple[str, ...]
    duplicates_dropped: int
    """How many rows were removed from train (or validation) because their text is also in validation or test (in test)."""
    empty_texts_dropped: int = 0
    """How many rows were left out because a text of theirs is empty."""
    conflicting_texts: int = 0
    """How many texts (pairs) have two labels or more in the rows as read, before limits and before duplicates are dropped."""
    task: TaskName = "single_label"
    """What the rows' labels ask of a model."""
    rest: Split | None = None
    """The training rows that `train_limit` leaves out, with their labels; None where it leaves out none."""
    all_ids: frozenset[str] = frozenset()
    """The ids of all rows as read, of those left out too; empty without an id_column."""

    def splits(self) -> tuple[SplitName, ...]:
        """Return the names of the splits that there are."""
        return ("train", "validation") if self.test is None else ("train", "validation", "test")

    def sizes(self) -> dict[str, int]:
        """Count the rows of each split that there is."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: len(split) for name, split in splits.items() if split is not None}

    def split(self, name: SplitName) -> Split:
        """Return the split `name`. Raises DataError where there is none."""
        found: Split | None = getattr(self, name)
        if found is None:
            raise DataError(f"a {name} split must be named, but there is none (test_file, test_split or test_fraction)")
        return found

    def sha256(self) -> str:
        """Return the SHA-256 of the label names, and of every text and label of every split, in order; with another task than single_label,
        of its name too."""
        return self._sha256

    @cached_property
    def _sha256(self) -> str:
        digest = hashlib.sha256(repr(self.label_names).encode())
        if self.task != "single_label":
            digest.update(self.task.encode())
        for split in (self.train, self.validation, self.test):
            if split is not None:
                digest.update(split.texts_sha256.encode() + split.labels.tobytes())
        return digest.hexdigest()

    def majority_accuracy(self) -> float:
        """Compute the validation accuracy of always predicting the commonest training class."""
        commonest = np.bincount(self.train.labels, minlength=len(self.label_names)).argmax()
        return float((self.validation.labels == commonest).mean())


# Splits --------------------------------------------------------------------------------------------------------------


def load_data(config: TrialConfig, on_rows: Callable[[int], None] = NOBODY) -> Data:
    """Load the splits that `config` names, and cut the others from train; `on_rows` gets the number of rows read so far, of each file.

    Raises DataError for what is missing, empty, hidden or mislabelled.
    """
    raw = {"train": raw_rows(config, "train", on_rows=on_rows)}
    task = raw["train"].labels.task
    raw |= {split: raw_rows(config, split, task, on_rows) for split in ("validation", "test") if source(config, split)}
    names = _label_names(config, raw)
    splits = {split: _numbered(rows, names, split) for split, rows in raw.items()}
    check_differ(splits["train"].labels, names, task, "training rows")
    train, validation, test = _cut(config, splits["train"], splits.get("validation"), splits.get("test"))
    if test is not None:
        validation, dropped_validation = _without(validation, test)
        train, dropped_test = _without(train, test)
    else:
        dropped_validation = dropped_test = 0
    train, dropped = _without(train, validation)
    train, rest = _limited(train, config.train_limit, config.split_seed)
    data = Data(
        train=train,
        rest=rest,
        validation=_limited(validation, config.validation_limit, config.split_seed)[0],
        test=test,
        label_names=tuple(names),
        task=task,
        duplicates_dropped=dropped + dropped_validation + dropped_test,
        empty_texts_dropped=sum(rows.empty_dropped for rows in raw.values()),
        conflicting_texts=_conflicting(splits.values()),
        all_ids=frozenset().union(*(rows.all_ids for rows in raw.values())),
    )
    _check_left(config, data, splits.values())
    return data


def _label_names(config: TrialConfig, raw: Mapping[str, RawRows]) -> Sequence[str]:
    """Return the names of the classes or labels, in order; of numbers, the name of their column. Raises DataError where there are fewer
    than two, and where a split holds empty texts."""
    train = raw["train"]
    names = config.label_columns or config.label_names or train.declared or found_names(train.labels)
    if train.labels.task == "regression":
        names = (config.label_column,)
    elif not names:
        empty = f"the lists of all {len(train.texts):,} training rows are empty"
        raise DataError(f"a row must have one label or more, but {empty}; name another label_column")
    elif len(names) < 2:
        kind = "classes" if train.labels.task == "single_label" else "labels"
        raise DataError(f"a classifier needs two {kind} or more, but the training rows hold {list(names)}")
    if complaints := [rows.complaint for rows in raw.values() if rows.complaint]:
        told = "; ".join(complaints)
        raise DataError(
            f"every text must be a non-empty string, but {told}. drop_empty_texts: true leaves such rows out"
        )
    return names


def _numbered(rows: RawRows, names: Sequence[str], split: str) -> Split:
    """Return the rows with their labels as numbers: indices into `names`, 0 and 1 for each of them, or the numbers themselves. Raises
    DataError for a label that is not among `names`."""
    return Split(
        texts=tuple(rows.texts),
        pairs=tuple(rows.pairs) if rows.pairs else None,
        labels=label_array(rows.labels, names, split),
        ids=tuple(rows.ids) if rows.ids else None,
    )


def _conflicting(splits: Iterable[Split]) -> int:
    """Count the texts (pairs) that have two labels or more in `splits`."""
    first: dict[object, object] = {}
    conflicting = set()
    for split in splits:
        labels = split.labels.tolist()
        labelled = zip(split.plain_keys(), map(tuple, labels) if split.labels.ndim == 2 else labels, strict=True)
        conflicting |= {key for key, label in labelled if first.setdefault(key, label) != label}
    return len(conflicting)


def _check_left(config: TrialConfig, data: Data, splits: Iterable[Split]) -> None:
    """Check that rows are left after duplicates and limits. Raises DataError where train or validation is empty, where train lacks a class
    that is in `splits` (as they were read) or in `label_names`, or any label, and where the numbers of a split do not differ."""
    for name, split in (("training", data.train), ("validation", data.validation), ("test", data.test)):
        if split is not None and len(split) == 0:
            raise DataError(f"no {name} row is left after the duplicates were dropped")
        if split is not None and data.task != "single_label":  # one class of a few validation rows is enough to rank by
            check_differ(split.labels, data.label_names, data.task, f"{name} rows that are left")
    if lacking := _lacking(config, data, splits):
        kind, kinds = ("class", "classes") if data.task == "single_label" else ("label", "labels")
        raise DataError(
            f"every {kind} must have training rows, but none of the {len(data.train):,} that are left is of {listed(lacking)}: duplicates, "
            f"splits cut from training and train_limit ({config.train_limit}) are taken off. Raise the limit, or name the {kinds} to keep: "
            f"{'label_columns' if config.label_columns else 'label_names'}"
        )


def _lacking(config: TrialConfig, data: Data, splits: Iterable[Split]) -> list[str]:
    """Return the classes that no training row has, though they are in `splits` or named; all labels that no training row has."""
    if data.task == "regression":
        return []
    if data.task == "multi_label":
        return [name for name, rows in zip(data.label_names, data.train.labels.T, strict=True) if not rows.any()]
    wanted = {label for split in splits for label in np.unique(split.labels).tolist()}
    wanted |= set(range(len(config.label_names)))
    return [data.label_names[label] for label in sorted(wanted - set(data.train.labels.tolist()))]


def stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """Return the numbers of all rows in a random order [N] of which every beginning holds the classes, or strata, in about their overall
    shares."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    totals, strata_of = np.bincount(labels), labels[shuffled]
    by_stratum = np.argsort(strata_of, kind="stable")
    seen = np.empty(len(labels), dtype=np.int64)
    seen[by_stratum] = np.arange(len(labels)) - np.repeat(np.cumsum(totals) - totals, totals)
    shares = (seen + 0.5) / totals[strata_of]
    order: np.ndarray = shuffled[np.argsort(shares, kind="stable")]
    return order


def _cut(
    config: TrialConfig, train: Split, validation: Split | None, test: Split | None
) -> tuple[Split, Split, Split | None]:
    """Cut a test split (with `test_fraction`) and a validation split from train where they are None, stratified by label."""
    if validation is not None and (test is not None or not config.test_fraction):
        return train, validation, test
    order = stratified_order(strata(train.labels), config.split_seed)
    start = 0
    if test is None and config.test_fraction:
        count = max(1, round(config.test_fraction * len(train)))
        test, start = train.take(np.sort(order[:count])), count
    if validation is None:
        count = max(1, round(config.validation_fraction * len(train)))
        validation, start = train.take(np.sort(order[start : start + count])), start + count
    return train.take(np.sort(order[start:])), validation, test


def _without(split: Split, other: Split) -> tuple[Split, int]:
    """Remove the rows of `split` whose text is also in `other`; return the rest, and how many rows were removed."""
    taken = set(other.plain_keys())
    stays = np.fromiter((key not in taken for key in split.plain_keys()), dtype=bool, count=len(split))
    rows = np.flatnonzero(stays)
    return (split, 0) if len(rows) == len(split) else (split.take(rows), len(split) - len(rows))


def _limited(split: Split, limit: int | None, seed: int) -> tuple[Split, Split | None]:
    """Return at most `limit` rows of `split`, stratified by label, and the others; None where there are no others."""
    if limit is None or limit >= len(split):
        return split, None
    order = stratified_order(strata(split.labels), seed)
    return split.take(np.sort(order[:limit])), split.take(np.sort(order[limit:]))
