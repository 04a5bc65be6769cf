"""Define the notes in a field's annotation: what the field decides, what else it is, and which values it takes.

`TrialConfig` annotates every field, such as `alpha: Annotated[float, Role.TRAINING, Range(least=0, most=1)] = 0.5`. The keys of shared
materials and of the teacher's cache, the searchable fields, the paths and the JSON Schema of a sweep file are derived from these notes.
"""

import enum
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar


class Role(enum.IntEnum):
    """Names the first thing that a field decides; every later member is made from it, and so depends on the field too."""

    ROWS = enum.auto()
    """The rows that a trial is ranked on; equal in all trials of a sweep, which could not be compared otherwise."""
    TRAIN_ROWS = enum.auto()
    """Which of the remaining rows are trained on."""
    TOKENS = enum.auto()
    """The tokens of the rows, and the device that holds them."""
    TEACHER = enum.auto()
    """The teacher's weights, and its logits for the rows."""
    UNLABELED = enum.auto()
    """Which texts without labels are trained on, and their tokens."""
    STUDENT_TOKENS = enum.auto()
    """The tokens that the student reads, with the teacher's logits."""
    STUDENT = enum.auto()
    """The student's initial weights."""
    TRAINING = enum.auto()
    """The student's training, of which trials share nothing."""


class Trait(enum.Flag):
    """Marks further properties of a field, apart from its role."""

    PATH = enum.auto()
    """Names data or weights: a hub name, a local path or a `wheel:` address. The field of this name plus `_revision` holds the commit on the hub."""
    SPEED = enum.auto()
    """Decides how fast the trained student predicts."""
    MACHINE = enum.auto()
    """Decides where trials run; equal in all trials of a sweep."""
    FREE = enum.auto()
    """May change during a sweep, whose results remain comparable."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """Limits the numbers that a field takes; null, texts and lists are not limited."""

    above: float | None = None
    least: float | None = None
    most: float | None = None

    def holds(self, value: float) -> bool:
        """Return whether `value` lies in the range."""
        low = (self.above is None or value > self.above) and (self.least is None or value >= self.least)
        return low and (self.most is None or value <= self.most)

    def rule(self, name: str) -> str:
        """Return the range of the field `name` as a rule: `temperature > 0`, `0 <= alpha <= 1`."""
        low, sign = (self.least, "=") if self.above is None else (self.above, "")
        return f"{name} >{sign} {low:g}" if self.most is None else f"{low:g} <{sign} {name} <= {self.most:g}"


POSITIVE = Range(above=0)
NOT_NEGATIVE = Range(least=0)
SHARE = Range(least=0, most=1)


@dataclass(frozen=True)
class Pattern:
    """Limits the texts that a field takes."""

    regex: str
    """Matches the whole text; in a syntax that JSON Schema reads too."""
    rule: str
    """What `regex` allows in words, written after the field's name."""


Note = TypeVar("Note", Role, Trait, Range, Pattern)


def beside(kind: type, note: type[Note]) -> dict[str, Note]:
    """Return the notes of the type `note` in the annotations of `kind`, by the field's name. Raises TypeError where a field has two."""
    found: dict[str, Note] = {}
    for name, hint in _hints(kind).items():
        notes = [item for item in getattr(hint, "__metadata__", ()) if isinstance(item, note)]
        if len(notes) > 1:
            raise TypeError(f"{kind.__name__}.{name} must have one {note.__name__} at most, but has {notes}")
        if notes:
            found[name] = notes[0]
    return found


@cache
def _hints(kind: type[object]) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def roles(kind: type) -> dict[str, Role]:
    """Return the role of every field of `kind`. Raises TypeError for a field without one."""
    found = beside(kind, Role)
    missing = [name for name in _hints(kind) if name not in found]
    if missing:
        raise TypeError(f"every field of {kind.__name__} must have a role beside its type, but {missing} have none")
    return found


def having(kind: type, trait: Trait) -> tuple[str, ...]:
    """Return the fields of `kind` with the trait `trait`, in their order."""
    return tuple(name for name, traits in beside(kind, Trait).items() if trait in traits)


def broken_rules(config: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield each range and pattern that a field of `config` breaks, and the value given."""
    kind: type = type(config)
    for name, numbers in _ranges(kind).items():
        value = getattr(config, name)
        if isinstance(value, int | float) and not numbers.holds(value):
            yield numbers.rule(prefix + name), str(value)
    for name, texts in _patterns(kind).items():
        value = getattr(config, name)
        if isinstance(value, str) and not re.fullmatch(texts.regex, value):
            yield f"{prefix}{name} {texts.rule}", repr(value)


@cache
def _ranges(kind: type[object]) -> dict[str, Range]:
    return beside(kind, Range)


@cache
def _patterns(kind: type[object]) -> dict[str, Pattern]:
    return beside(kind, Pattern)
