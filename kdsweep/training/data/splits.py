"""Rows and splits: `load_data` turns a hub name or files into splits whose classes are numbered alike. Shapes: N rows."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kdsweep.config.trial import TrialConfig
from kdsweep.errors import DataError, listed
from kdsweep.training.data.rows import RawRows, in_order, raw_rows, source

SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True, kw_only=True)
class Split:
    """N rows: texts, second texts of pairs or None, and classes [N] as indices into the label names."""

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: np.ndarray) -> "Split":
        """The named rows, in that order."""
        texts = tuple(self.texts[row] for row in rows)
        pairs = tuple(self.pairs[row] for row in rows) if self.pairs is not None else None
        return Split(texts=texts, pairs=pairs, labels=self.labels[rows])

    def row_keys(self) -> list[tuple[str, str]]:
        """What makes a row a duplicate of another: its exact text or pair of texts."""
        return list(zip(self.texts, self.pairs or ("",) * len(self), strict=True))


@dataclass(frozen=True, kw_only=True)
class Data:
    """The rows of a trial: train, validation (the search sees it) and test (opened at the end, or None)."""

    train: Split
    validation: Split
    test: Split | None
    label_names: tuple[str, ...]
    duplicates_dropped: int
    """Rows taken out of train (or validation) because the same text stands in a split that is ranked on."""
    empty_texts_dropped: int = 0
    """Rows of the files that were left out because a text of theirs is empty."""
    conflicting_texts: int = 0
    """Texts (pairs) that stand in the files with two labels or more, before limits and before duplicates are dropped."""

    def sizes(self) -> dict[str, int]:
        """Rows of each split that there is."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: len(split) for name, split in splits.items() if split is not None}

    def split(self, name: SplitName) -> Split:
        """The split of that name. Raises DataError where there is none."""
        found: Split | None = getattr(self, name)
        if found is None:
            raise DataError(f"a {name} split must be named, but there is none (test_file, test_split or test_fraction)")
        return found

    def sha256(self) -> str:
        """Of every text and label, in order."""
        digest = hashlib.sha256(repr(self.label_names).encode())
        for split in (self.train, self.validation, self.test):
            if split is not None:
                digest.update(texts_sha256(split).encode() + split.labels.tobytes())
        return digest.hexdigest()

    def majority_accuracy(self) -> float:
        """Validation accuracy of always naming the commonest training class."""
        commonest = np.bincount(self.train.labels, minlength=len(self.label_names)).argmax()
        return float((self.validation.labels == commonest).mean())


def texts_sha256(split: Split) -> str:
    """Of a split's texts, in order."""
    digest = hashlib.sha256()
    for text, pair in split.row_keys():
        digest.update(f"{len(text)} {len(pair)} {text}{pair}".encode())
    return digest.hexdigest()


# Splits --------------------------------------------------------------------------------------------------------------


def load_data(config: TrialConfig) -> Data:
    """The splits that `config` names. Raises DataError for whatever is missing, empty, hidden or mislabelled."""
    raw = {split: raw_rows(config, split) for split in ("train", "validation", "test") if source(config, split)}
    names = _label_names(config, raw)
    splits = {split: _numbered(rows, names, split) for split, rows in raw.items()}
    if len(set(splits["train"].labels.tolist())) < 2:
        raise DataError(f"the training rows must hold two classes or more of {listed(names)}, but hold one")
    train, validation, test = _cut(config, splits["train"], splits.get("validation"), splits.get("test"))
    if test is not None:
        validation, dropped_validation = _without(validation, test)
        train, dropped_test = _without(train, test)
    else:
        dropped_validation = dropped_test = 0
    train, dropped = _without(train, validation)
    data = Data(
        train=_limited(train, config.train_limit, config.split_seed),
        validation=_limited(validation, config.validation_limit, config.split_seed),
        test=test,
        label_names=tuple(names),
        duplicates_dropped=dropped + dropped_validation + dropped_test,
        empty_texts_dropped=sum(rows.empty_dropped for rows in raw.values()),
        conflicting_texts=_conflicting(splits.values()),
    )
    _check_left(config, data, splits.values())
    return data


def _label_names(config: TrialConfig, raw: Mapping[str, RawRows]) -> Sequence[str]:
    """The classes, in order. Raises DataError where they are too few, and where a split holds empty texts."""
    names = config.label_names or raw["train"].declared or in_order(set(raw["train"].names))
    if len(names) < 2:
        raise DataError(f"a classifier needs two classes or more, but the training rows hold {list(names)}")
    if complaints := [rows.complaint for rows in raw.values() if rows.complaint]:
        told = "; ".join(complaints)
        raise DataError(
            f"every text must be a non-empty string, but {told}. drop_empty_texts: true leaves such rows out"
        )
    return names


def _numbered(rows: RawRows, names: Sequence[str], split: str) -> Split:
    index = {name: number for number, name in enumerate(names)}
    unseen = set(rows.names) - set(index)
    if unseen:
        raise DataError(
            f"every class of the {split} rows must occur in training ({listed(names)}), but got {listed(in_order(unseen))}"
        )
    labels = np.array([index[name] for name in rows.names], dtype=np.int64)
    return Split(texts=tuple(rows.texts), pairs=tuple(rows.pairs) if rows.pairs else None, labels=labels)


def _conflicting(splits: Iterable[Split]) -> int:
    """How many texts (pairs) stand in the rows with two labels or more."""
    first: dict[object, int] = {}
    conflicting = set()
    for split in splits:
        keys = split.row_keys() if split.pairs else split.texts
        labelled = zip(keys, split.labels.tolist(), strict=True)
        conflicting |= {key for key, label in labelled if first.setdefault(key, label) != label}
    return len(conflicting)


def _check_left(config: TrialConfig, data: Data, splits: Iterable[Split]) -> None:
    """Raises DataError where no row is left, or none of a class that `splits` (as they were read) or `label_names` name."""
    for name, split in (("training", data.train), ("validation", data.validation)):
        if len(split) == 0:
            raise DataError(f"no {name} row is left after the duplicates were dropped")
    wanted = {label for split in splits for label in np.unique(split.labels).tolist()}
    wanted |= set(range(len(config.label_names)))
    lacking = [data.label_names[label] for label in sorted(wanted - set(data.train.labels.tolist()))]
    if lacking:
        raise DataError(
            f"every class must have training rows, but none of the {len(data.train):,} that are left is of {listed(lacking)}: duplicates, "
            f"splits cut from training and train_limit ({config.train_limit}) are taken off. Raise the limit, or name the classes to keep: "
            "label_names"
        )


def stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """Rows in a random order [N] whose every beginning holds the classes in about their overall shares."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    seen: dict[int, int] = {}
    totals = np.bincount(labels)
    shares = np.empty(len(labels))
    for place, row in enumerate(shuffled):
        label = int(labels[row])
        seen[label] = seen.get(label, 0) + 1
        shares[place] = (seen[label] - 0.5) / totals[label]
    order: np.ndarray = shuffled[np.argsort(shares, kind="stable")]
    return order


def _cut(
    config: TrialConfig, train: Split, validation: Split | None, test: Split | None
) -> tuple[Split, Split, Split | None]:
    """Cut the splits that are not named from train, stratified by label."""
    order = stratified_order(train.labels, config.split_seed)
    start = 0
    if test is None and config.test_fraction:
        count = max(1, round(config.test_fraction * len(train)))
        test, start = train.take(np.sort(order[:count])), count
    if validation is None:
        count = max(1, round(config.validation_fraction * len(train)))
        validation, start = train.take(np.sort(order[start : start + count])), start + count
    return train.take(np.sort(order[start:])), validation, test


def _without(split: Split, other: Split) -> tuple[Split, int]:
    """`split` less the rows whose text stands in `other`, and how many those were."""
    taken = set(other.row_keys())
    rows = np.array([row for row, key in enumerate(split.row_keys()) if key not in taken], dtype=np.int64)
    return split.take(rows), len(split) - len(rows)


def _limited(split: Split, limit: int | None, seed: int) -> Split:
    if limit is None or limit >= len(split):
        return split
    return split.take(np.sort(stratified_order(split.labels, seed)[:limit]))
