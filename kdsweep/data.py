"""Rows and splits: `load_data` turns a hub name or files into splits whose classes are numbered alike. Shapes: N rows."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import datasets
import numpy as np
from datasets.exceptions import DatasetGenerationError
from huggingface_hub import hf_hub_download

from kdsweep.assets import local_path
from kdsweep.config import TrialConfig
from kdsweep.errors import DataError, listed

datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # it calls out even for local files
datasets.utils.logging.disable_progress_bar()

_KINDS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}
_COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst", ".zip")


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


# Rows ----------------------------------------------------------------------------------------------------------------


class RawRows(NamedTuple):
    """One split as read: texts, pairs or None, and each row's class by name."""

    texts: list[str]
    pairs: list[str] | None
    names: list[str]
    declared: tuple[str, ...]
    """The classes that the dataset itself declares, in its order; empty where it declares none."""


def load_data(config: TrialConfig) -> Data:
    """The splits that `config` names. Raises DataError for whatever is missing, empty, hidden or mislabelled."""
    raw = {split: _raw_rows(config, split) for split in ("train", "validation", "test") if _source(config, split)}
    names = config.label_names or raw["train"].declared or _in_order(set(raw["train"].names))
    if len(names) < 2:
        raise DataError(f"a classifier needs two classes or more, but the training rows hold {list(names)}")
    splits = {split: _numbered(rows, names, split) for split, rows in raw.items()}
    if len(set(splits["train"].labels.tolist())) < 2:
        raise DataError(f"the training rows must hold two classes or more of {list(names)}, but hold one")
    train, validation, test = _cut(config, splits["train"], splits.get("validation"), splits.get("test"))
    if test is not None:
        validation, dropped_validation = _without(validation, test)
        train, dropped_test = _without(train, test)
    else:
        dropped_validation = dropped_test = 0
    train, dropped = _without(train, validation)
    train = _limited(train, config.train_limit, config.split_seed)
    validation = _limited(validation, config.validation_limit, config.split_seed)
    total = dropped + dropped_validation + dropped_test
    data = Data(train=train, validation=validation, test=test, label_names=tuple(names), duplicates_dropped=total)
    for name, split in (("training", train), ("validation", validation)):
        if len(split) == 0:
            raise DataError(f"no {name} row is left after the duplicates were dropped")
    return data


def _source(config: TrialConfig, split: str) -> str | None:
    """Where a split comes from: a hub dataset's split name or a file's address."""
    source: str | None = getattr(config, f"{split}_split" if config.dataset else f"{split}_file")
    return source


def _raw_rows(config: TrialConfig, split: str) -> RawRows:
    source = _source(config, split)
    assert source is not None
    table = _hub_table(config, source) if config.dataset else _file_table(source)
    where = f"{config.dataset} ({source})" if config.dataset else source
    wanted = [name for name in (config.text_column, config.text_pair_column, config.label_column) if name]
    missing = [name for name in wanted if name not in table.column_names]
    if missing:
        columns = ", ".join(table.column_names)
        raise DataError(
            f"{where} must have the columns {', '.join(wanted)}, but has {columns}: {missing[0]!r} is missing"
        )
    if len(table) == 0:
        raise DataError(f"{where} must hold rows, but is empty")
    declared, names = _class_names(table.features[config.label_column], table[config.label_column][:], where)
    keep = set(config.label_names) or set(names)
    rows = [row for row, name in enumerate(names) if name in keep]
    if not rows:
        raise DataError(
            f"{where} must hold rows of {listed(config.label_names)}, but its classes are {listed(_in_order(set(names)))}"
        )
    texts = _texts(table[config.text_column][:], rows, f"{where}, column {config.text_column}")
    pair = config.text_pair_column
    pairs = _texts(table[pair][:], rows, f"{where}, column {pair}") if pair else None
    return RawRows(texts, pairs, [names[row] for row in rows], declared)


def _hub_table(config: TrialConfig, split: str) -> Any:
    try:
        return datasets.load_dataset(
            config.dataset, config.dataset_config, split=split, revision=config.dataset_revision
        )
    except (OSError, ValueError, DatasetGenerationError) as error:
        raise DataError(_unreachable(config, split, error)) from error


def _file_table(address: str) -> Any:
    path = Path(local_path(address)).expanduser()
    if not path.is_file():
        raise DataError(f"a data file must exist, but {address!r} does not (looked at {path.absolute()})")
    suffixes = [suffix for suffix in path.suffixes if suffix not in _COMPRESSIONS]
    kind = _KINDS.get(suffixes[-1]) if suffixes else None
    if kind is None:
        known = ", ".join(_KINDS)
        raise DataError(f"a data file ends in one of {known} (compressed or not), but got {path.name!r}")
    if path.stat().st_size == 0:
        raise DataError(f"{address} must hold rows, but is empty")
    # "NA" and "null" are texts like any other; pandas would read them as missing
    options = {"keep_default_na": False, "sep": "\t" if suffixes[-1] == ".tsv" else ","} if kind == "csv" else {}
    try:
        return datasets.load_dataset(kind, data_files=str(path), split="train", **options)
    except (OSError, ValueError, DatasetGenerationError) as error:
        cause = error.__cause__ or error
        raise DataError(f"{address} must be readable as {kind}, but: {' '.join(str(cause).split())}") from error


def _class_names(feature: Any, values: Sequence[Any], where: str) -> tuple[tuple[str, ...], list[str]]:
    """Each row's class by name. Raises DataError for missing, hidden (-1) and multi-label classes."""
    declared = tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else ()
    odd = next((value for value in values if not isinstance(value, str | int) or value == ""), None)
    if isinstance(odd, list | dict):
        raise DataError(f"{where}: one class a row is supported, but got the multi-label {odd!r}")
    if isinstance(odd, float):
        raise DataError(
            f"{where}: labels must be classes (texts or whole numbers), but got {odd!r}; regression is not supported"
        )
    if odd is not None or any(value is None or value == "" for value in values):
        raise DataError(f"{where}: every row must have a label, but one has {odd!r}")
    if any(value == -1 for value in values):
        raise DataError(
            f"{where}: the labels of this split are hidden (-1), so nothing can be measured on it; name another split"
        )
    if declared:
        return declared, [declared[value] for value in values]
    return (), [str(value) for value in values]


def _texts(values: Sequence[Any], rows: Sequence[int], where: str) -> list[str]:
    texts = [values[row] for row in rows]
    for row, text in zip(rows, texts, strict=True):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{where}: every text must be a non-empty string, but row {row} holds {text!r}")
    return texts


def _in_order(names: set[str]) -> tuple[str, ...]:
    """Numbers by size, names by letter."""
    whole = all(name.lstrip("-").isdigit() for name in names)
    return tuple(sorted(names, key=int)) if whole else tuple(sorted(names))


def _numbered(rows: RawRows, names: Sequence[str], split: str) -> Split:
    index = {name: number for number, name in enumerate(names)}
    unseen = _in_order(set(rows.names) - set(index))
    if unseen:
        raise DataError(
            f"every class of the {split} rows must occur in training ({listed(names)}), but got {listed(unseen)}"
        )
    labels = np.array([index[name] for name in rows.names], dtype=np.int64)
    return Split(texts=tuple(rows.texts), pairs=tuple(rows.pairs) if rows.pairs else None, labels=labels)


def resolved_dataset_revision(config: TrialConfig) -> str | None:
    """The commit that a hub dataset means today; None for files. Raises DataError."""
    if config.dataset is None or Path(config.dataset).exists():
        return None
    try:  # every repository has this file, and the hub's cache a folder a commit
        return Path(hf_hub_download(config.dataset, ".gitattributes", repo_type="dataset")).parent.name
    except (OSError, ValueError) as error:
        raise DataError(_unreachable(config, config.train_split, error)) from error


def _unreachable(config: TrialConfig, split: str, error: Exception) -> str:
    return (
        f"dataset {config.dataset!r} (config {config.dataset_config}, split {split!r}) could not be loaded: {error}\n"
        "Check the name, split and network; or name local files: train_file, validation_file, test_file"
    )


# Splits --------------------------------------------------------------------------------------------------------------


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
