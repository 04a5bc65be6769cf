"""Define the conditions of axes: `when: {soft_loss: [kl]}` beside an axis searches its field only in trials where soft_loss is kl.

A condition speaks of the values that the fields have in a trial: sampled, fixed, fixed by the arm, or defaults. Where it does not hold,
the axis's own field has its fixed or default value.
"""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

When = Mapping[str, tuple[Any, ...]]
"""Values of other fields, by name: every one of these fields must have one of its values."""
Point = dict[str, Any]
"""Values of searched fields, by name."""
Applies = Callable[[str, Point], bool]
"""Tells whether the condition of a named axis holds, given a point with the axes before it."""


def holds(when: When, values: Mapping[str, Any]) -> bool:
    """Return whether a condition holds where the fields have these `values`."""
    return all(values[name] in allowed for name, allowed in when.items())


def condition_text(when: When) -> str:
    """Return a condition in words, such as `soft_loss is kl`; values as in a sweep file."""
    plain = lambda value: str(list(value) if isinstance(value, tuple) else value)
    return " and ".join(f"{name} is {' or '.join(map(plain, allowed))}" for name, allowed in when.items())


def in_order(conditions: Mapping[str, When]) -> list[str]:
    """Return the names of axes in their order, but each after those that its condition names; those of a circle are left out."""
    found: list[str] = []
    waiting = list(conditions)
    while ready := [name for name in waiting if not any(other in waiting for other in conditions[name])]:
        found.append(ready[0])
        waiting.remove(ready[0])
    return found


def points(axes: Mapping[str, tuple[Any, ...]], applies: Applies) -> list[Point]:
    """Return every combination of the values of `axes`, the last axis fastest; a point has an axis only where `applies` says so."""
    found: list[Point] = [{}]
    for name, values in axes.items():
        parts = [[{**point, name: v} for v in values] if applies(name, point) else [point] for point in found]
        found = list(itertools.chain.from_iterable(parts))
    return found


def corners(ends: Mapping[str, tuple[Any, ...]], named: Collection[str], applies: Applies) -> list[Point]:
    """Return points that together have all `ends` of every axis that can apply, the others at their first; without conditions, one axis
    after the other is moved from its first end. Conditions speak of the axes in `named`."""
    free = {name: values if name in named else values[:1] for name, values in ends.items()}
    bases = points(free, applies)
    found = bases[:1]
    for name, values in ends.items():
        for end in values:
            able = (base for base in bases if name in base and (name not in named or base[name] == end))
            found += [{**base, name: end} for base in itertools.islice(able, 1)]
    return [point for place, point in enumerate(found) if point not in found[:place]]


def condition_problems(
    conditions: Mapping[str, When], choices: Mapping[str, tuple[Any, ...]], others: Mapping[str, Any]
) -> Iterator[str]:
    """Yield what is wrong with the conditions of axes, given the `choices` of each (empty for an interval), and the values of all
    `others`, the fields that are not searched."""
    for name, when in conditions.items():
        for field, allowed in when.items():
            rule = f"search.{name}.when"
            given = [list(value) if isinstance(value, tuple) else value for value in allowed]
            if field == name:
                yield f"{rule} must name other fields than {name} itself"
            elif "auto" in (*allowed, *choices.get(field, ()), others.get(field)):
                yield f"{rule}: what auto means for {field} is found after the search has chosen, so no condition can name it"
            elif field in choices and not choices[field]:
                yield f"{rule} must name fields that are fixed or have choices, but {field} is searched over an interval"
            elif field in choices and (unknown := [value for value in allowed if value not in choices[field]]):
                listed = [list(value) if isinstance(value, tuple) else value for value in choices[field]]
                yield f"{rule}: {field} must be among its choices {listed}, but got {unknown[0]!r}"
            elif field not in choices and others[field] not in allowed:
                way_out = f"fix {field} to one, or drop the axis (on the command line, search.{name}=null)"
                yield f"{rule}: {field} must be one of {given} in some trial, but is always {others[field]!r}: {way_out}"
    circle = [name for name in conditions if name not in in_order(conditions) and name not in conditions[name]]
    if circle:
        yield f"search: conditions must not go in a circle, but those of {', '.join(circle)} wait for each other"
