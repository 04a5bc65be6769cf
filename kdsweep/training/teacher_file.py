"""Read a teacher that is a file: its outputs for texts or ids, checked, and joined to the rows of a split.

The outputs of a class stand in a column `prob_CLASS` (probabilities, of an LLM, an ensemble or an API) or `logit_CLASS`. A probability p
becomes the logit log(p + EPSILON), p being divided by the row's sum first; of multi_label, where every label has a probability of its own,
log(p / (1 - p)). From there on temperature and losses are as for a model. The output of a regression stands in a column `prediction`.
Shapes: C classes or labels, 1 for a regression, N rows of a split, R rows of the file that have numbers.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from kdsweep.config.tasks import TaskName
from kdsweep.config.trial import TrialConfig
from kdsweep.errors import DataError, listed
from kdsweep.training.data.rows import file_table
from kdsweep.training.data.splits import Key, Split
from kdsweep.training.data.tables import Table, as_text
from kdsweep.training.teacher_columns import Kind, class_columns, number_column

EPSILON = 1e-12
"""Added to every probability, so that a zero has a logarithm: -27.6; of multi_label, the least distance of one from 0 and 1."""
SUM_TOLERANCE = 0.01
"""How far the probabilities of a row may add up from 1, beside what rounding explains: half of the last digit for each class, where all
numbers of the file are rounded to 1, 2, 3 or 4 digits."""
ABOVE_ONE = 1e-6
"""How far a probability may lie above 1, as float32 can."""


class Outputs(NamedTuple):
    """Holds a teacher's outputs for a split."""

    logits: np.ndarray
    """Float32 [N, C] in the dataset's class order; zeros in a row without numbers."""
    taught: np.ndarray
    """Bool [N]: whether the row has numbers."""


@dataclass(frozen=True, kw_only=True)
class TeacherFile:
    """Holds the outputs of a teacher that is a file, by the key of their row."""

    address: str
    kind: Kind
    by_id: bool
    """Whether rows are joined by `id_column`; otherwise by their text (pair)."""
    places: Mapping[Key, int]
    """For the key of each row, its place in `logits`."""
    logits: np.ndarray
    """Float32 [R, C], in the dataset's class order."""
    zeros: float
    """Share of the probabilities that are exactly 0."""
    one_hot: float
    """Share of the rows that name one class with probability 1; of multi_label, that have no other probabilities than 0 and 1."""
    sha256: str
    """SHA-256 of keys and logits, in whatever order the file has them; in the records it stands where a model's weights have theirs."""

    def outputs(self, split: Split) -> Outputs:
        """Return the outputs for the rows of `split`."""
        keys = self.keys(split)
        places = np.array([self.places.get(key, -1) for key in keys], dtype=np.int64)
        taught = places >= 0
        logits = np.zeros((len(split), self.logits.shape[1]), dtype=np.float32)
        logits[taught] = self.logits[places[taught]]
        return Outputs(logits, taught)

    def keys(self, split: Split) -> Sequence[Key]:
        """Return the key of each row of `split`, under which `places` may have it."""
        if self.by_id:
            assert split.ids is not None, "an id_column is read with the rows"
            return split.ids
        return split.texts if split.pairs is None else split.row_keys()

    def check_unique(self, splits: Iterable[Split]) -> None:
        """Check that an id of the file is that of one row of all `splits` at most. Raises DataError where one is of two."""
        counts = Counter(key for split in splits for key in self.keys(split)) if self.by_id else Counter[Key]()
        doubled = [str(key) for key, count in counts.items() if count > 1 and key in self.places]
        if doubled:
            raise DataError(
                f"{self.address}: an id must be that of one row, but {len(doubled):,} are of two or more: {listed(doubled)}"
            )

    def check_ids(self, known: Collection[Key]) -> None:
        """Check that every id of the file is among the `known`, those of all rows as read. Raises DataError where one is not."""
        unknown = [str(key) for key in self.places if key not in known] if self.by_id else []
        if unknown:
            raise DataError(
                f"{self.address}: every id must be that of a row, but {len(unknown):,} of {len(self.places):,} are of none: "
                f"{listed(unknown)}; name the file that holds them, or leave them out"
            )


def read_teacher_file(config: TrialConfig, label_names: Sequence[str], task: TaskName = "single_label") -> TeacherFile:
    """Read and check the teacher that `config` names as a file, its outputs being those of `task`.

    Raises DataError for a class without a column or with two, for an unknown class, for numbers that are no probabilities, and for a
    text or an id that has two sets of numbers.
    """
    where = config.teacher_file
    assert where is not None
    by = [config.id_column] if config.id_column else [config.text_column, config.text_pair_column]
    joined = [name for name in by if name]
    named: dict[Kind, list[str]] = {}

    def wanted(found: Sequence[str]) -> list[str]:
        if not found:
            raise DataError(f"{where} must hold the teacher's outputs, but is empty")
        others = [name for name in found if name not in joined]
        kind, columns = (
            number_column(others, where) if task == "regression" else class_columns(others, label_names, where)
        )
        named[kind] = columns
        return [*joined, *columns]

    table = file_table(config, where, wanted)
    ((kind, columns),) = named.items()
    numbers = np.stack([_numbers(table, name, where) for name in columns], axis=1)
    rows = _rows_with_numbers(table, numbers, where)
    keys = _table_keys(table, rows, joined, where)
    named_rows = [place for place, key in enumerate(keys) if _is_named(key)]
    if config.id_column and len(named_rows) < len(rows):
        blank = np.delete(rows, named_rows).tolist()
        raise DataError(f"{where}: every row must have an id in {config.id_column}, but not so {table.named(blank)}")
    rows, keys = rows[named_rows], [keys[place] for place in named_rows]
    numbers = numbers[rows]
    logits = numbers
    if kind == "prob":
        to_logits = _of_independent if task == "multi_label" else _of_probabilities
        logits = to_logits(table, rows, numbers, where)
    places = _places(table, rows, keys, numbers, where)
    return TeacherFile(
        address=where,
        kind=kind,
        by_id=config.id_column is not None,
        places=places,
        logits=logits.astype(np.float32),
        zeros=float((numbers == 0).mean()) if kind == "prob" else 0.0,
        one_hot=_hard_share(numbers, task) if kind == "prob" else 0.0,
        sha256=_sha256(places, logits.astype(np.float32)),
    )


# Numbers -------------------------------------------------------------------------------------------------------------


def _numbers(table: Table, column: str, where: str) -> np.ndarray:
    """Return a column as float64, nan for a gap. Raises DataError for a cell that is no number."""
    cells = table.columns[column]
    try:
        return np.array(cells, dtype=np.float64)
    except (ValueError, TypeError):
        return np.array([_number(table, row, cell, f"{where}, column {column}") for row, cell in enumerate(cells)])


def _number(table: Table, row: int, cell: Any, where: str) -> float:
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return float("nan")
    try:
        return float(cell)
    except (ValueError, TypeError) as error:
        raise DataError(f"{where} must hold numbers, but in {table.named([row])} {cell!r}") from error


def _rows_with_numbers(table: Table, numbers: np.ndarray, where: str) -> np.ndarray:
    """Return the places of the rows that have a number of each class. Raises DataError where some of a row's are missing or infinite."""
    finite, gaps = np.isfinite(numbers), np.isnan(numbers).all(axis=1)
    _refuse(table, ~finite.all(axis=1) & ~gaps, f"{where}: a row's numbers must be finite, or all of them left empty")
    rows = np.flatnonzero(~gaps)
    if not len(rows):
        raise DataError(f"{where} must hold the teacher's outputs, but no row has any")
    return rows


def _of_probabilities(table: Table, rows: np.ndarray, numbers: np.ndarray, where: str) -> np.ndarray:
    """Return the logits of probabilities, log(p + EPSILON). Raises DataError where a row holds none: below 0, above 1, or with another sum."""
    _check_range(table, rows, numbers, where)
    sums = numbers.sum(axis=1)
    digits = _digits(numbers)
    rounding = 0.0 if digits is None else numbers.shape[1] * 0.5 * 10.0**-digits
    rule = f"a row's probabilities must add up to 1, within {SUM_TOLERANCE + rounding:g}"
    rule += f" (as {numbers.shape[1]} numbers of {digits} digits can)" if digits else ""
    _check(table, rows, (np.abs(sums - 1) > SUM_TOLERANCE + rounding) | (sums <= 0), f"{where}: {rule}", sums)
    logits: np.ndarray = np.log(numbers / sums[:, None] + EPSILON)
    return logits


def _of_independent(table: Table, rows: np.ndarray, numbers: np.ndarray, where: str) -> np.ndarray:
    """Return the logits of probabilities of each label by itself, log(p / (1 - p)). Raises DataError where one is below 0 or above 1."""
    _check_range(table, rows, numbers, where)
    inside = numbers.clip(EPSILON, 1 - EPSILON)
    logits: np.ndarray = np.log(inside) - np.log1p(-inside)
    return logits


def _check_range(table: Table, rows: np.ndarray, numbers: np.ndarray, where: str) -> None:
    """Check that probabilities lie in [0, 1]. Raises DataError where one does not."""
    lowest, highest = numbers.min(axis=1), numbers.max(axis=1)
    _check(table, rows, lowest < 0, f"{where}: a probability must not be negative", lowest)
    rule = f"{where}: a probability must not be above 1 (logits stand in columns logit_CLASS)"
    _check(table, rows, highest > 1 + ABOVE_ONE, rule, highest)


def _check(table: Table, rows: np.ndarray, broken: np.ndarray, rule: str, values: np.ndarray) -> None:
    """Check that none of `rows` is `broken`; `values` are what they have. Raises DataError where one is."""
    whole = np.zeros(len(table), dtype=bool)
    whole[rows] = broken
    _refuse(table, whole, rule, f"such as {values[broken][0]:g}" if broken.any() else "")


def _hard_share(numbers: np.ndarray, task: TaskName) -> float:
    """Return the share of rows whose probabilities are hard labels: one class with probability 1, or nothing but 0 and 1."""
    hard = ((numbers == 0) | (numbers == 1)).all(axis=1) if task == "multi_label" else numbers.max(axis=1) == 1
    return float(hard.mean())


def _digits(numbers: np.ndarray) -> int | None:
    """Return the digits behind the point to which all numbers are rounded, 1 to 4; None where they have more, or are whole."""
    for digits in range(5):
        if np.abs(numbers - numbers.round(digits)).max() < 1e-9:
            return digits or None
    return None


def _refuse(table: Table, broken: np.ndarray, rule: str, such: str = "") -> None:
    rows = np.flatnonzero(broken).tolist()
    if rows:
        raise DataError(f"{rule}, but {len(rows):,} break this ({table.named(rows)}){f', {such}' if such else ''}")


# Keys ----------------------------------------------------------------------------------------------------------------


def _table_keys(table: Table, rows: np.ndarray, joined: Sequence[str], where: str) -> list[Key]:
    """Return the key of each of `rows`, made as those of the dataset's rows are. Raises DataError for a cell that is no text."""
    columns = []
    for name in joined:
        cells = table.columns[name]
        try:
            columns.append([as_text(cells[row]) or "" for row in rows.tolist()])
        except TypeError as error:
            raise DataError(f"{where}, column {name}: {error}") from error
    keys: list[Key] = [*columns[0]] if len(columns) == 1 else [*zip(*columns, strict=True)]
    return keys


def _is_named(key: Key) -> bool:
    """Return whether a row can be meant by its key: one with an empty text is none of the dataset's."""
    return all(text.strip() for text in ((key,) if isinstance(key, str) else key))


def _places(table: Table, rows: np.ndarray, keys: Sequence[Key], numbers: np.ndarray, where: str) -> dict[Key, int]:
    """Map each key to the place of its numbers. Raises DataError where a key has two different sets of them."""
    places: dict[Key, int] = {}
    twice = [place for place, key in enumerate(keys) if places.setdefault(key, place) != place]
    differing = [place for place in twice if not np.array_equal(numbers[place], numbers[places[keys[place]]])]
    if differing:
        first = places[keys[differing[0]]], differing[0]
        raise DataError(
            f"{where}: a text (pair) or id must have one set of numbers, but {len(differing):,} have another one before, such as "
            f"{str(keys[differing[0]])[:80]!r} ({table.named([int(rows[place]) for place in first])})"
        )
    return places


def _sha256(places: Mapping[Key, int], logits: np.ndarray) -> str:
    digest = hashlib.sha256()
    for key in sorted(places):
        digest.update(repr(key).encode() + logits[places[key]].tobytes())
    return digest.hexdigest()
