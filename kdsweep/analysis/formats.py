"""Write numbers as words for a reader."""

from collections.abc import Mapping, Sequence
from typing import Any

from kdsweep.config.tasks import TaskName
from kdsweep.records.teacher_schema import TeacherResult


def percent(value: float | None, digits: int = 1) -> str:
    """Write a share as a percentage that no line break splits; a dash for None."""
    return "–" if value is None else f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%".replace("-", "−")


def compact(value: Any, digits: int = 3) -> str:
    """Write a value of a config or record in a few characters; a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    return str(list(value)) if isinstance(value, tuple) else str(value)


def number(value: float | None, digits: int = 1) -> str:
    """Write a number with thousands separated; a dash for None."""
    return "–" if value is None else f"{value:,.{digits}f}"


def milliseconds(value: float) -> str:
    """Write milliseconds with two significant digits at least."""
    return number(value, 1 if value >= 1 else 2)


def small(p_value: float) -> str:
    """Write a p-value to three digits; `< 0.001` below that."""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def p_text(p_value: float) -> str:
    """Write a p-value for a sentence: `p = 0.034`, `p < 0.001`."""
    return f"p {small(p_value)}" if p_value < 0.001 else f"p = {small(p_value)}"


def plural(count: int, what: str) -> str:
    """Write a count with its noun, in the plural unless the count is 1: `3 seeds`."""
    return f"{count} {what}{'s' * (count != 1)}"


def enumerated(words: Sequence[str]) -> str:
    """Write words one after the other: `a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


TWO_LABELS: dict[TaskName, str] = {
    "single_label": "two labels or more",
    "multi_label": "two sets of labels or more",
    "regression": "two numbers or more",
}
"""What texts have that the rows label differently, by task."""
_DROPPED = {
    "empty": "empty",
    "duplicates": "given twice",
    "labelled": "of labelled training rows",
    "held_out": "of validation or test rows",
    "untaught": "without numbers in teacher_file",
}
"""Why texts without labels are left out, by the name of their count."""


def dropped_texts(dropped: Mapping[str, int]) -> str:
    """Write how many texts without labels were left out and why: `3 empty, 5 of validation or test rows`; `none`."""
    return ", ".join(f"{count:,} {_DROPPED[name]}" for name, count in dropped.items() if count) or "none"


def unlabeled(texts: int, dropped: Mapping[str, int]) -> str:
    """Write how many texts without labels there are, and how many were left out: `6,000 texts; left out: 3 empty`."""
    return f"{texts:,} texts; left out: {dropped_texts(dropped)}"


def truncated(cut: Mapping[str, int], rows: Mapping[str, int]) -> str:
    """Write how many rows of each split were cut: `3 of 1,600 train (0.2 %)`; `none`."""
    said = [f"{n:,} of {rows[name]:,} {name} ({percent(n / rows[name])})" for name, n in cut.items() if n]
    return ", ".join(said) or "none"


def taught(teacher: TeacherResult) -> str:
    """Write for how many rows of each split a teacher that is a file has numbers: `720 of 800 train, 0 of 3,200 validation`."""
    rows = teacher.sizes()
    return ", ".join(f"{count:,} of {rows[name]:,} {name}" for name, count in teacher.taught_rows.items())


def duration(seconds: float) -> str:
    """Write a time in seconds, minutes or hours, whichever fits: `12.3 s`, `5 min 0 s`, `3 h 20 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def signed(value: float, digits: int = 1) -> str:
    """Write a difference of shares in points, with its sign."""
    return f"{100 * value:+.{digits}f}".replace("-", "−")


def points(value: float) -> str:
    """Write a difference of shares in points."""
    return f"{100 * value:.1f}".replace("-", "−")


def clipped(name: str, most: int = 40) -> str:
    """Shorten a name to at most `most` letters: its beginning and its end, as names are often alike in one of them."""
    if len(name) <= most:
        return name
    head = most // 2
    return f"{name[:head]}…{name[len(name) - (most - head - 1) :]}"
