"""Choose the columns of a file that is a teacher: those of the classes or labels, or that of a number."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from kdsweep.errors import DataError, listed
from kdsweep.training.data.tables import check_columns

PREDICTION = "prediction"
"""The column with the output of a regression."""

Kind = Literal["prob", "logit", "number"]


def number_column(found: Sequence[str], where: str) -> tuple[Kind, list[str]]:
    """Return what the column of a regression's outputs holds, and its name. Raises DataError where there is none."""
    check_columns([PREDICTION], found, where, hint=": it holds the teacher's number for each row")
    return "number", [PREDICTION]


def class_columns(found: Sequence[str], label_names: Sequence[str], where: str) -> tuple[Kind, list[str]]:
    """Choose from the columns `found` those of the classes, in the order of `label_names`; return what they hold, and their names.

    Raises DataError where there are none or both kinds, and for a class that is missing, unknown or doubled.
    """
    kinds: tuple[Kind, ...] = ("prob", "logit")
    columns = {kind: [name for name in found if name.startswith(f"{kind}_")] for kind in kinds}
    given = [kind for kind in kinds if columns[kind]]
    if len(given) != 1:
        what = f"both, such as {columns['prob'][0]} and {columns['logit'][0]}" if given else f"only {listed(found)}"
        raise DataError(
            f"{where} must have a column prob_CLASS of each class, or a column logit_CLASS of each, but has {what}"
        )
    (kind,) = given
    classes = [name.removeprefix(f"{kind}_") for name in columns[kind]]
    missing = [name for name in label_names if name not in classes]
    unknown = [name for name in dict.fromkeys(classes) if name not in label_names]
    doubled = [name for name, count in Counter(classes).items() if count > 1]
    problems = [f"{listed(names)} {said}" for names, said in ((missing, "missing"), (doubled, "doubled")) if names]
    problems += [f"{listed(unknown)} unknown{_meant(unknown, missing)}"] if unknown else []
    if problems:
        raise DataError(
            f"{where} must have one column {kind}_CLASS of each class of the dataset, {listed(label_names)}, but of the classes are "
            f"{', '.join(problems)}"
        )
    return kind, [f"{kind}_{name}" for name in label_names]


def _meant(unknown: Sequence[str], missing: Sequence[str]) -> str:
    """Return a hint for a message where an unknown class is a missing one but for case and blanks; otherwise an empty text."""
    plain = {name.strip().casefold(): name for name in missing}
    pairs = [(name, plain[name.strip().casefold()]) for name in unknown if name.strip().casefold() in plain]
    return f"; did you mean {', '.join(f'{right!r} by {wrong!r}' for wrong, right in pairs[:3])}?" if pairs else ""
