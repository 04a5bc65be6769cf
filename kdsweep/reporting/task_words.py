"""Say in the words of each task how much better models are, what tables show of them, and what one answer to every row gives."""

import math
from collections.abc import Sequence
from typing import Final, Protocol

from kdsweep.analysis.finalists import TEST_MEANS, Finalist
from kdsweep.analysis.formats import number, percent
from kdsweep.analysis.score import is_share, row_number, row_unit
from kdsweep.analysis.tasks import RowScore
from kdsweep.config.tasks import TaskName
from kdsweep.records.schema import FinalTest

OF_THE_TEACHER: Final = ("agreement", "kl")
"""Metrics that compare with the teacher, which therefore has none."""
BOARD: Final[dict[TaskName, tuple[str, ...]]] = {
    "single_label": ("val_accuracy",),
    "multi_label": ("val_example_f1", "val_accuracy"),
    "regression": ("val_pearson", "val_spearman", "val_rmse"),
}
"""Metrics on the validation rows that the leaderboard shows after `study.metric`, by task."""
ONE_ANSWER: Final[dict[TaskName, str]] = {
    "single_label": "always naming the commonest class",
    "multi_label": "always naming the same labels",
    "regression": "always naming the mean",
}
"""What a model does that has learnt nothing, by task; `score.majority_score` is what it gives."""
ONE_ANSWER_CARD: Final[dict[TaskName, tuple[str, str]]] = {
    "single_label": ("Majority class", "always the commonest class"),
    "multi_label": ("Same labels", "always the same labels"),
    "regression": ("Mean", "always the mean"),
}
"""The title of its card on the page, and the line below."""
HARD_LABELS: Final[dict[TaskName, str]] = {
    "single_label": "hard labels",
    "multi_label": "hard labels",
    "regression": "numbers as labels",
}
"""What the pseudo-labeled arm learns from texts without labels, by task."""


class Difference(Protocol):
    """Holds a difference of two mean row scores, with its interval and what the score is."""

    @property
    def difference(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def score(self) -> RowScore: ...


# Differences ---------------------------------------------------------------------------------------------------------


def made(found: Difference, *, several: bool = False, unit: str | None = None) -> str:
    """Return by how much one side is better, as a verb and what goes with it: `makes +1.2 points`, `lowers the squared error by 0.123`.

    With `several` the verb is a plural's. `unit` is said in place of the score's own.
    """
    plural = "" if several else "s"
    if found.score == "minus_squared_error":
        verb = "lower" if found.difference >= 0 else "raise"
        return f"{verb}{plural} the squared error by {_magnitudes(found)[0]}"
    return f"make{plural} {row_number(found.score, found.difference, sign=True)} {unit or row_unit(found.score)}"


def gained(found: Difference, *, unit: str | None = None) -> str:
    """Return by how much one side is better, as a noun: `+1.2 points`, `a squared error lower by 0.123`."""
    if found.score == "minus_squared_error":
        return f"a squared error {'lower' if found.difference >= 0 else 'higher'} by {_magnitudes(found)[0]}"
    return f"{row_number(found.score, found.difference, sign=True)} {unit or row_unit(found.score)}"


def ends(found: Difference) -> str:
    """Return the interval that goes with `made`: `+0.4 to +2.0`; of squared errors of how far they are lower, or where `made` says so, higher."""
    if found.score == "minus_squared_error":
        return " to ".join(_magnitudes(found)[1:])
    return " to ".join(signed_numbers(found)[1:])


def share_of(found: Difference, baseline: float | None) -> str:
    """Return which share of the baseline's squared error a difference is, as the beginning of a bracket: `8 % of it; `; empty for other scores."""
    if found.score != "minus_squared_error" or not baseline:
        return ""
    return f"{percent(abs(found.difference / baseline), 0)} of it; "


def signed_numbers(found: Difference) -> list[str]:
    """Return difference, low and high with their signs, as a table shows them: more is better, also of squared errors."""
    values = (found.difference, found.low, found.high)
    if found.score == "minus_squared_error":
        return _alike(values, sign="+")
    return [row_number(found.score, value, sign=True) for value in values]


def _magnitudes(found: Difference) -> list[str]:
    """Return a difference of squared errors without its sign, and the ends of its interval seen in the same direction."""
    way = 1 if found.difference >= 0 else -1
    low, high = sorted((way * found.low, way * found.high))
    return _alike((abs(found.difference), low, high))


def _alike(values: Sequence[float], sign: str = "") -> list[str]:
    """Write numbers with as many decimals each as give the largest of them three digits."""
    largest = max(map(abs, values))
    decimals = max(0, 2 - math.floor(math.log10(largest))) if 0 < largest < math.inf else 2
    return [f"{value:{sign}.{decimals}f}".replace("-", "−") for value in values]


def heading(score: RowScore) -> str:
    """Return the heading of a table's column of differences of one kind."""
    return "lower squared error" if score == "minus_squared_error" else row_unit(score)


def compared_by(score: RowScore) -> str:
    """Return by what a comparison is, where its table has several kinds: `, by F1`; empty for accuracies, which stand alone, and where it is said."""
    return {"example_f1": ", by F1", "minus_squared_error": ", by squared error"}.get(score, "")


BY_CLASS: Final[dict[TaskName, str]] = {
    "single_label": "Class by class",
    "multi_label": "Label by label",
    "regression": "Predicted against label",
}
"""The heading of what is said of single classes, labels or rows."""
CLASS: Final[dict[TaskName, str]] = {"single_label": "class", "multi_label": "label", "regression": "label"}
LABELS_SAID: Final[dict[TaskName, str]] = {"single_label": "classes", "multi_label": "labels", "regression": "label"}
"""What the names of a task's labels are called; a regression has one, that of the number."""
SECTION: Final[dict[TaskName, str]] = {"single_label": "Classes", "multi_label": "Labels", "regression": "Predictions"}
"""The word for that part in the page's navigation."""


def correlation(value: float, *, sign: bool = False) -> str:
    """Write a correlation, or a difference of two, to three digits."""
    return f"{value:{'+' if sign else ''}.3f}".replace("-", "−")


# Tables --------------------------------------------------------------------------------------------------------------


def board_metrics(task: TaskName, metric: str) -> tuple[str, ...]:
    """Return the metrics that the leaderboard shows, `study.metric` first."""
    return tuple(dict.fromkeys((metric, *BOARD[task])))


def test_heading(task: TaskName, name: str) -> str:
    """Return the heading of a metric of the test split; the accuracy of several labels is that of all of a row's."""
    return "test subset accuracy" if (task, name) == ("multi_label", "accuracy") else f"test {name}"


def test_cells(task: TaskName, of: Finalist | FinalTest | None) -> list[str]:
    """Return a finalist's means on the test split, or the teacher's test, as the cells of `finalists.TEST_MEANS`; dashes for what is not known."""
    first, *others = TEST_MEANS[task]
    digits = 2 if is_share(first) else 3
    known = [_value(of, name) for name in others]
    said = percent(_value(of, first), digits) if is_share(first) else number(_value(of, first), digits)
    return [said, *(number(value, 3) for value in known)]


def _value(of: Finalist | FinalTest | None, name: str) -> float | None:
    if of is None:
        return None
    if isinstance(of, Finalist):
        return of.mean(name)
    value: float | None = None if name in OF_THE_TEACHER else getattr(of, name)
    return value
