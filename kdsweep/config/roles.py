"""What stands beside a field of a configuration: what it decides, what else it is, and which values it takes.

`TrialConfig` annotates every field so: `alpha: Annotated[float, Role.TRAINING, Range(least=0, most=1)] = 0.5`. The keys of shared
materials and of the teacher's cache, what may be searched, what is a path and the JSON Schema of a sweep file are derived from that.
"""

import enum
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar


class Role(enum.IntEnum):
    """Names the first thing that a field decides; everything below it is made from that, and so depends on the field too."""

    ROWS = enum.auto()
    """The rows that a trial is ranked on: the same in all trials of a sweep, which could not be compared else."""
    TRAIN_ROWS = enum.auto()
    """Which of the other rows train."""
    TOKENS = enum.auto()
    """The tokens of the rows, and the device that they lie on."""
    TEACHER = enum.auto()
    """The teacher's weights, and its logits of the rows."""
    STUDENT_TOKENS = enum.auto()
    """The tokens that the student reads, beside the teacher's logits."""
    STUDENT = enum.auto()
    """The student's initial weights."""
    TRAINING = enum.auto()
    """The student's training, and nothing that trials share."""


class Trait(enum.Flag):
    """Says what a field is beside its role."""

    PATH = enum.auto()
    """A place: a hub name, a local path or a `wheel:` address. A field of the same name with `_revision` is its commit on the hub."""
    SPEED = enum.auto()
    """Decides how fast the trained student answers."""
    MACHINE = enum.auto()
    """Says where trials run: the same in all trials of a sweep."""
    FREE = enum.auto()
    """May change while a sweep goes on: its results can be compared all the same."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """The numbers that a field takes; null, texts and lists, where it takes them too, are none of its business."""

    above: float | None = None
    least: float | None = None
    most: float | None = None

    def holds(self, value: float) -> bool:
        """Whether `value` lies inside."""
        low = (self.above is None or value > self.above) and (self.least is None or value >= self.least)
        return low and (self.most is None or value <= self.most)

    def rule(self, name: str) -> str:
        """The range in words: `temperature > 0`, `0 <= alpha <= 1`."""
        low, sign = (self.least, "=") if self.above is None else (self.above, "")
        return f"{name} >{sign} {low:g}" if self.most is None else f"{low:g} <{sign} {name} <= {self.most:g}"


POSITIVE = Range(above=0)
NOT_NEGATIVE = Range(least=0)
SHARE = Range(least=0, most=1)


@dataclass(frozen=True)
class Pattern:
    """The texts that a field takes."""

    regex: str
    """Of the whole text; one that JSON Schema can read too."""
    rule: str
    """The same in words, after the field's name."""


Note = TypeVar("Note", Role, Trait, Range, Pattern)


def beside(kind: type, note: type[Note]) -> dict[str, Note]:
    """The notes of one type that stand beside the fields of `kind`, by the field's name. Raises TypeError for two beside one field."""
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
    """The role of every field of `kind`. Raises TypeError for a field without one."""
    found = beside(kind, Role)
    missing = [name for name in _hints(kind) if name not in found]
    if missing:
        raise TypeError(f"every field of {kind.__name__} must have a role beside its type, but {missing} have none")
    return found


def having(kind: type, trait: Trait) -> tuple[str, ...]:
    """The fields of `kind` with a trait, in their order."""
    return tuple(name for name, traits in beside(kind, Trait).items() if trait in traits)


def broken_rules(config: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield each range and pattern beside a field that its value does not keep, and what was given."""
    for name, numbers in beside(type(config), Range).items():
        value = getattr(config, name)
        if isinstance(value, int | float) and not numbers.holds(value):
            yield numbers.rule(prefix + name), str(value)
    for name, texts in beside(type(config), Pattern).items():
        value = getattr(config, name)
        if isinstance(value, str) and not re.fullmatch(texts.regex, value):
            yield f"{prefix}{name} {texts.rule}", repr(value)
