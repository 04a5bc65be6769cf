"""Read the labels of a split, once it is clear what they ask of a model: a class, a list of labels, or a number a row. Shapes: C labels, N rows."""

import math
import re
from collections import Counter
from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from kdsweep.config.tasks import TaskName, stated_task
from kdsweep.config.trial import TrialConfig
from kdsweep.errors import DataError, listed
from kdsweep.training.data.mistaken_labels import (
    LISTS_ELSEWHERE,
    NUMBER,
    WRITTEN_LIST,
    refuse_other_meanings,
    refuse_vectors,
)
from kdsweep.training.data.tables import Table, as_text

HIDDEN = "-1"
"""The class, or the number, of rows whose label is not published."""

Label = str | tuple[str, ...] | float
"""A row's class, the names of its labels, or its number."""

_WHOLE = re.compile(r"([+-]?[0-9]+)(\.0+)?")
_FRACTION = re.compile(r"\.[0-9]*[1-9]|[eE]-")
_INTEGER = re.compile(r"-?[0-9]{1,18}")
LARGEST_NUMBER = 1e18
"""The largest number that a regression takes: its square, and a sum of squares over many rows, are finite as 32-bit floats."""
_ONES = {"1": True, "true": True, "0": False, "false": False}


class Labels(NamedTuple):
    """Holds what the labels of a split ask of a model, and the label of each row."""

    task: TaskName
    values: Sequence[Label]


def label_columns(config: TrialConfig) -> tuple[str, ...]:
    """Return the columns that hold the labels."""
    return config.label_columns or (config.label_column,)


def read_labels(table: Table, config: TrialConfig, where: str, task: TaskName | None) -> Labels:
    """Read the label of every row of a table that messages call `where`; a `task` of None is what the labels themselves say.

    Raises DataError for labels that are missing, hidden, of several kinds, or not what the task wants.
    """
    task = task or _found_task(table, config, where)
    if task == "multi_label":
        lists = _of_columns if config.label_columns else _of_lists
        return Labels(task, lists(table, config, where))
    if task == "regression":
        return Labels(task, _numbers(table, config.label_column, where))
    return Labels(task, _classes(table, config.label_column, config.label_names, where))


def _found_task(table: Table, config: TrialConfig, where: str) -> TaskName:
    """Return what the labels say of themselves: lists are multi_label, floats of the hub and numbers with fractions regression."""
    stated, column = stated_task(vars(config)), config.label_column
    if stated:
        return stated
    values = table.columns[column]
    lists = [row for row, value in enumerate(values) if isinstance(value, list)]
    plain = [row for row, value in enumerate(values) if not (value is None or isinstance(value, list))]
    if lists and plain:
        raise DataError(
            f"{where}: the labels in {column} must be all lists or none, but {len(lists):,} are ({table.named(lists)}) and {len(plain):,} are "
            f"not ({table.named(plain)}, such as {values[plain[0]]!r}); write one label as a list of one"
        )
    if lists:
        return "multi_label"
    if config.label_names or column in table.declared:
        return "single_label"
    if column in table.floats:
        return "regression"
    _check_one_kind(table, column, where)
    try:
        texts = {as_text(value) for value in values}
    except TypeError:
        return "single_label"
    return "regression" if _are_measurements({text for text in texts if text and text.strip()}) else "single_label"


def _check_one_kind(table: Table, column: str, where: str) -> None:
    """Check that labels are not numbers with fractions here and words there. Raises DataError where they are, as json and parquet tell; the
    cells of a csv are texts."""
    values = table.columns[column]
    numbers = [row for row, value in enumerate(values) if isinstance(value, float) and value % 1 > 0]
    words = [row for row, value in enumerate(values) if isinstance(value, str) and not NUMBER.fullmatch(value.strip())]
    if numbers and words:
        raise DataError(
            f"{where}: the labels in {column} must be of one kind, but {len(numbers):,} are numbers with a fraction ({table.named(numbers)}) and "
            f"{len(words):,} are words ({table.named(words)}, such as {values[words[0]]!r}); mend these rows, or say fixed.task: single_label "
            "where all are classes"
        )


def _refuse(table: Table, rows: Sequence[int], where: str, rule: str, cells: Sequence[Any]) -> None:
    """Raise DataError where there are `rows` that break a rule with their `cells`."""
    if rows:
        raise DataError(
            f"{where}: {rule}, but {len(rows):,} of {len(table):,} rows break this ({table.named(rows)}), such as {cells[rows[0]]!r}"
        )


def _refuse_missing(table: Table, rows: Sequence[int], where: str) -> None:
    if rows:
        raise DataError(f"{where}: every row must have a label, but {len(rows):,} have none ({table.named(rows)})")


def _refuse_hidden(hidden: int, rows: int, where: str, way_out: str = "name another split") -> None:
    raise DataError(
        f"{where}: the labels of {hidden:,} of {rows:,} rows are hidden ({HIDDEN}), so nothing can be measured on them; {way_out}"
    )


# Classes -------------------------------------------------------------------------------------------------------------


def _classes(table: Table, column: str, chosen: Collection[str], where: str) -> list[str]:
    """Return each row's class by name. Raises DataError for missing and hidden classes, for lists and for measurements."""
    values, declared = table.columns[column], table.declared.get(column, ())
    try:
        texts = [as_text(value) for value in values]
    except TypeError as error:
        if not any(isinstance(value, list) for value in values):
            raise DataError(f"{where}: task: single_label has one class a row in {column}, but {error}") from error
        raise DataError(
            f"{where}: task: single_label has one class a row, but got a multi-label row: {error}; lists of labels are task: multi_label"
        ) from error
    _refuse_missing(table, [row for row, text in enumerate(texts) if not text or not text.strip()], where)
    counts = Counter(text for text in texts if text)
    spelled = _spelled(counts, declared, chosen, where)
    names = [spelled[text] for text in texts if text]
    hidden = sum(count for text, count in counts.items() if spelled[text] == HIDDEN)
    if hidden == len(names):
        _refuse_hidden(hidden, len(names), where)
    if hidden and declared and not chosen:
        _refuse_hidden(hidden, len(names), where, "name the classes to keep: label_names")
    return names


def _spelled(found: Collection[str], declared: Sequence[str], chosen: Collection[str], where: str) -> dict[str, str]:
    """Map each label found in a split to its class's name: a declared class's name, a whole number without `.0`, any other label unchanged.

    Raises DataError for labels for which the dataset declares no class, and where the labels are measurements.
    """
    if declared:
        meant = {**{str(number): name for number, name in enumerate(declared)}, HIDDEN: HIDDEN}
        unknown = sorted(set(found) - set(meant))
        if unknown:
            raise DataError(
                f"{where}: labels must be numbers of the classes {listed(declared)}, but got {listed(in_order(unknown))}"
            )
        return meant
    if all(_WHOLE.fullmatch(name) for name in found):
        named = {_whole(name): name for name in chosen}
        if len(named) == len(chosen):  # else the user distinguishes 1 and 1.0
            return {name: named.get(_whole(name), _whole(name)) for name in found}
    if not set(chosen) & set(found) and _are_measurements(found):  # unless the user spells them so, such as 0.5
        raise DataError(
            f"{where}: labels must be classes (texts or whole numbers), but got "
            f"{next(name for name in found if _FRACTION.search(name))}; numbers to predict are task: regression. If these numbers are classes, "
            "name them: label_names"
        )
    if not set(chosen) & set(found):
        refuse_other_meanings(found, where)
    return {name: name for name in found}


def _are_measurements(found: Collection[str]) -> bool:
    """Return whether all labels are numbers, and some with a fraction."""
    return any(_FRACTION.search(name) for name in found) and all(NUMBER.fullmatch(name.strip()) for name in found)


def _whole(name: str) -> str:
    """Remove the `.0` that pandas writes behind a whole number where a column has gaps; return any other name unchanged."""
    found = _WHOLE.fullmatch(name)
    return found[1] if found else name


def in_order(names: Collection[str]) -> tuple[str, ...]:
    """Sort class names: by size where all are whole numbers, otherwise by letter."""
    whole = all(_INTEGER.fullmatch(name) for name in names)
    return tuple(sorted(names, key=lambda name: (int(name), name))) if whole else tuple(sorted(names))


# Lists of labels -----------------------------------------------------------------------------------------------------


def _of_lists(table: Table, config: TrialConfig, where: str) -> list[tuple[str, ...]]:
    """Return each row's labels by name, each once, from a column of lists. Raises DataError for anything but lists of texts and whole numbers."""
    column, chosen = config.label_column, config.label_names
    values, declared = table.columns[column], table.declared.get(column, ())
    plain = [row for row, value in enumerate(values) if not (value is None or isinstance(value, list))]
    rule = f"task: multi_label wants a list of labels in {column}, or label_columns of 0 and 1 (one class a row is task: single_label)"
    if plain and all(isinstance(values[row], str) and WRITTEN_LIST.fullmatch(values[row].strip()) for row in plain):
        rule = f"task: multi_label wants a list of labels in {column}, and these are texts ({LISTS_ELSEWHERE})"
    _refuse(table, plain, where, rule, values)
    _refuse_missing(table, [row for row, value in enumerate(values) if value is None], where)
    lists: list[list[str]] = []
    for row, value in enumerate(values):
        try:
            texts = [as_text(each) or "" for each in value]
        except TypeError as error:
            raise DataError(
                f"{where}: a label must be a text or a number, but in {table.named([row])} {error}"
            ) from error
        lists.append(texts)
    blank = [row for row, texts in enumerate(lists) if not all(map(str.strip, texts))]
    _refuse(table, blank, where, "every label of a list must be a text or a number", values)
    hidden = sum(HIDDEN in texts for texts in lists)
    if hidden and (declared or all(texts == [HIDDEN] for texts in lists)):
        _refuse_hidden(hidden, len(lists), where)
    if not declared:
        refuse_vectors(lists, column, where)
    spelled = _spelled({text for texts in lists for text in texts}, declared, chosen, where)
    keep = set(chosen or spelled.values())
    return [tuple(dict.fromkeys(name for text in texts if (name := spelled[text]) in keep)) for texts in lists]


def _of_columns(table: Table, config: TrialConfig, where: str) -> list[tuple[str, ...]]:
    """Return each row's labels by name from `label_columns`. Raises DataError for a cell that is neither 0 nor 1."""
    cells = {name: [_whole(_cell(value)) for value in table.columns[name]] for name in config.label_columns}
    if all(cell == HIDDEN for column in cells.values() for cell in column):
        _refuse_hidden(len(table), len(table), where)
    for name, column in cells.items():
        _refuse_missing(table, [row for row, cell in enumerate(column) if not cell], f"{where}, column {name}")
        wrong = [row for row, cell in enumerate(column) if cell not in _ONES]
        rule = f"label_columns hold 0 and 1 (or true and false), so must {name}"
        _refuse(table, wrong, where, rule, table.columns[name])
    rows = zip(*([_ONES[cell] for cell in column] for column in cells.values()), strict=True)
    return [tuple(name for name, there in zip(cells, row, strict=True) if there) for row in rows]


def _cell(value: Any) -> str:
    """Return a cell of 0 and 1 as a text without blanks, in small letters; a list as Python writes it."""
    try:
        return (as_text(value) or "").strip().lower()
    except TypeError:
        return str(value)


# Numbers -------------------------------------------------------------------------------------------------------------


def _numbers(table: Table, column: str, where: str) -> list[float]:
    """Return each row's number. Raises DataError for a cell that is none, for one that is not finite, and for numbers that stand for classes."""
    values = table.columns[column]
    if column in table.declared:
        raise DataError(
            f"{where}: task: regression wants numbers, but those in {column} stand for the classes {listed(table.declared[column])}; leave "
            "fixed.task out, or name another label_column"
        )
    if lists := [row for row, value in enumerate(values) if isinstance(value, list)]:
        rule = f"task: regression wants a number a row in {column} (lists of labels are task: multi_label)"
        _refuse(table, lists, where, rule, values)
    _refuse_missing(table, [row for row, value in enumerate(values) if _is_gap(value)], where)
    numbers = [_number(value) for value in values]
    rule = f"task: regression wants a number in {column} (with a point, such as 3.5; classes are task: single_label)"
    _refuse(table, [row for row, number in enumerate(numbers) if number is None], where, rule, values)
    found = [float(number) for number in numbers if number is not None]
    far = [row for row, number in enumerate(found) if not abs(number) <= LARGEST_NUMBER]
    rule = f"the numbers in {column} must be finite, and {LARGEST_NUMBER:g} in size at most (divide larger ones)"
    _refuse(table, far, where, rule, values)
    if all(number == float(HIDDEN) for number in found):
        _refuse_hidden(len(found), len(found), where)
    return found


def _is_gap(value: Any) -> bool:
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, str) and not value.strip())
    )


def _number(value: Any) -> float | None:
    """Return a cell as a number; None where it is none, such as a text of letters, or true."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal) or "_" in str(value):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None
