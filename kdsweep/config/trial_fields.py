"""Derive what the fields of `TrialConfig` are, by name: defaults, numbers, paths, what depends on which, what is searched."""

import dataclasses

from kdsweep.config.roles import Role, Trait, having, roles
from kdsweep.config.trial import FIELD_TYPES, TrialConfig

NUMBERS: dict[str, type[int] | type[float]] = {
    name: kind for name, hint in FIELD_TYPES.items() for kind in (int, float) if hint in (kind, kind | None)
}
"""The fields that are a number, or a number or null: they can be searched over an interval."""
TRIAL_DEFAULTS = {item.name: item.default for item in dataclasses.fields(TrialConfig)}

ROLES = roles(TrialConfig)
PATH_FIELDS = having(TrialConfig, Trait.PATH)
REVISIONS = {name: f"{name}_revision" for name in PATH_FIELDS if f"{name}_revision" in FIELD_TYPES}
"""Each field that may name something on the hub, and the field that holds its commit."""
TEXT_FIELDS = tuple(name for name, role in ROLES.items() if role is Role.UNLABELED)
"""Fields that decide which texts without labels are trained on."""
UNSEARCHABLE = (*(name for name, role in ROLES.items() if role is Role.ROWS), *having(TrialConfig, Trait.MACHINE))
"""Fields that choose the rows a trial is ranked on, or the machine: trials that differ in them cannot be compared."""


def decided_by(role: Role) -> tuple[str, ...]:
    """Return the fields on which the thing that `role` names depends: those of this role and of all roles before it."""
    return tuple(name for name, first in ROLES.items() if first <= role)


def decided_for_student(config: TrialConfig, role: Role) -> tuple[str, ...]:
    """Return the fields on which a student's tokens or weights depend: on those of texts without labels only where these decide its pieces."""
    return decided_by(role) if config.student_vocabulary == "trained" else decided_without_texts(role)


def decided_without_texts(role: Role) -> tuple[str, ...]:
    """Return the same fields without those of texts without labels, for a thing that has nothing to do with such texts: all arms share it."""
    return tuple(name for name in decided_by(role) if name not in TEXT_FIELDS)
