"""Refuse labels that seem to mean something else than they would be read as: lists and numbers in texts, vectors of 0 and 1."""

import re
from collections.abc import Collection, Sequence
from typing import Final

from kdsweep.errors import DataError

NUMBER: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
WRITTEN_LIST: Final = re.compile(r"\[\s*(['\"0-9].*)?\]", re.DOTALL)
LISTS_ELSEWHERE: Final = (
    "json lines and parquet hold lists; a csv has label_columns, a column of 0 and 1 for each label"
)
_COMMAS = re.compile(r"[+-]?[0-9]+(, ?[0-9]+)+(\.[0-9]+)?")


def refuse_other_meanings(found: Collection[str], where: str) -> None:
    """Raise DataError where all labels are texts that mean something else: lists as Python writes them, or whole numbers with commas."""
    if found and all(WRITTEN_LIST.fullmatch(name.strip()) for name in found):
        raise DataError(
            f"{where}: labels must be classes, but all are lists that are written as texts, such as {min(found)!r}; {LISTS_ELSEWHERE}. If these "
            "texts are classes, name them: label_names"
        )
    commas = sorted(name for name in found if _COMMAS.fullmatch(name.strip()))
    if commas and all(name in commas or NUMBER.fullmatch(name.strip()) for name in found):
        raise DataError(
            f"{where}: labels must be classes, but got numbers with commas, such as {commas[0]!r}; a number to predict (task: regression) has a "
            f"point, as 1.5 has, and several labels are a list ({LISTS_ELSEWHERE}). If these texts are classes, name them: label_names"
        )


def refuse_vectors(lists: Sequence[Sequence[str]], column: str, where: str) -> None:
    """Raise DataError where all lists hold 0 or 1 for each of the labels, as models want them, instead of the row's labels."""
    length = len(lists[0]) if lists else 0
    if length > 1 and all(len(texts) == length and set(texts) <= {"0", "1"} for texts in lists):
        raise DataError(
            f"{where}: a list in {column} names the labels that its row has, but all {len(lists):,} lists are vectors of {length} zeros and "
            f"ones, such as [{', '.join(lists[0])}]; write the names of the labels, or a column of 0 and 1 for each label (label_columns)"
        )
