"""Numbers as a reader says them."""

from collections.abc import Mapping
from typing import Any


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage that no line break splits; a dash for None."""
    return "–" if value is None else f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%".replace("-", "−")


def compact(value: Any, digits: int = 3) -> str:
    """A config's or record's value in a few characters; a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    return str(list(value)) if isinstance(value, tuple) else str(value)


def number(value: float | None, digits: int = 1) -> str:
    """A number with thousands separated; a dash for None."""
    return "–" if value is None else f"{value:,.{digits}f}"


def small(p_value: float) -> str:
    """A p-value to three digits, as far as they go."""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def p_text(p_value: float) -> str:
    """Say a p-value in a sentence: `p = 0.034`, `p < 0.001`."""
    return f"p {small(p_value)}" if p_value < 0.001 else f"p = {small(p_value)}"


def plural(count: int, what: str) -> str:
    """`3 seeds`."""
    return f"{count} {what}{'s' * (count != 1)}"


def truncated(cut: Mapping[str, int], rows: Mapping[str, int]) -> str:
    """How many rows of each split were cut: `3 of 1,600 train (0.2 %)`; `none`."""
    said = [f"{n:,} of {rows[name]:,} {name} ({percent(n / rows[name])})" for name, n in cut.items() if n]
    return ", ".join(said) or "none"


def duration(seconds: float) -> str:
    """Seconds as a reader says them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def signed(value: float) -> str:
    """A difference of shares in points, with its sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


def points(value: float) -> str:
    """A difference of shares in points."""
    return f"{100 * value:.1f}".replace("-", "−")


def clipped(name: str, most: int = 40) -> str:
    """A name in at most so many letters: its beginning and its end, for names are often alike in one of them."""
    if len(name) <= most:
        return name
    head = most // 2
    return f"{name[:head]}…{name[len(name) - (most - head - 1) :]}"
