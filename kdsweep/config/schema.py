"""Derive the JSON Schema of a sweep file, by which an editor completes keys, explains them and underlines what `load_sweep` would refuse.

Its sources are the classes that hold a sweep: types, defaults, ranges, and the docstring under every field. Rules between several
fields (exactly one of dataset and train_file, no field both fixed and searched) are checked by `load_sweep` alone.
"""

import ast
import inspect
import json
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal

from kdsweep.config.arms import Arm
from kdsweep.config.axis import Axis
from kdsweep.config.forms import ExportConfig
from kdsweep.config.roles import Pattern, Range, beside
from kdsweep.config.sweep import FinalistsConfig, StudyConfig, SweepConfig, TrackingConfig
from kdsweep.config.sweep_file import LONGEST_NAME
from kdsweep.config.trial import TrialConfig
from kdsweep.config.trial_fields import NUMBERS, UNSEARCHABLE
from kdsweep.config.yaml import plain_values

Schema = dict[str, Any]

REFERENCE = r"\$\{[^{}:]+\}"
"""Matches a reference to the value of another key, such as `${fixed.epochs}`; resolvers, which have a colon, are refused."""
JSON_TYPES = {int: "integer", float: "number", bool: "boolean", str: "string", type(None): "null"}


def schema_text() -> str:
    """Return the schema of a sweep file as JSON text, as it is printed and as sweeps/schema.json holds it."""
    return json.dumps(sweep_schema(), indent=1, ensure_ascii=False) + "\n"


def sweep_schema() -> Schema:
    """Return the schema of a whole sweep file: JSON Schema, draft 2020-12."""
    described = docs(SweepConfig)
    trial = trial_properties()
    searched = {name: body for name, body in trial.items() if name not in UNSEARCHABLE}
    axes = {name: _axis(name, body) for name, body in searched.items()}
    point = {name: _plain(body) for name, body in searched.items()}
    properties: dict[str, Schema] = {
        "name": _name(),
        "study": _section(StudyConfig),
        "fixed": _mapping({name: _or_null(body) for name, body in trial.items()}),
        "search": _mapping(axes) | {"minProperties": 1},
        "enqueue": {"type": ["array", "null"], "items": _mapping(point), "default": []},
        "finalists": _section(FinalistsConfig),
        "tracking": _section(TrackingConfig),
        "export": _section(ExportConfig),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A kdsweep sweep",
        **_mapping({name: {"description": described.get(name, ""), **body} for name, body in properties.items()}),
        "required": ["name", "fixed", "search"],
        "anyOf": [_named(name, under) for name in ("teacher", "teacher_file") for under in ("fixed", "search")],
        "$defs": {"when": _when(trial)},
    }


def trial_properties() -> dict[str, Schema]:
    """Return each field of a trial as a schema property: its type, range, default and description."""
    return _properties(TrialConfig)


def docs(kind: type) -> dict[str, str]:
    """Return the docstring under each field of the class `kind`, on one line, read from the source."""
    (tree,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(tree, ast.ClassDef)
    return {
        field.target.id: " ".join(str(after.value.value).split())
        for field, after in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
    }


# Sections ------------------------------------------------------------------------------------------------------------


def _mapping(properties: Mapping[str, Schema]) -> Schema:
    return {"type": "object", "additionalProperties": False, "properties": dict(properties)}


def _section(kind: Any) -> Schema:
    """Return the schema of a section: a mapping, or null for its defaults or, where it can be switched off, for off."""
    return {"description": " ".join((inspect.getdoc(kind) or "").split()), **_or_null(_mapping(_properties(kind)))}


def _properties(kind: type) -> dict[str, Schema]:
    said, ranges, patterns, hints = docs(kind), beside(kind, Range), beside(kind, Pattern), typing.get_type_hints(kind)
    found: dict[str, Schema] = {}
    for item in fields(kind):
        name, hint = item.name, hints[item.name]
        default = {} if item.default is MISSING else plain_values({"default": item.default})
        body = _section(hint) if is_dataclass(hint) else _value(hint, ranges.get(name), patterns.get(name))
        found[name] = {"description": said.get(name, ""), **default, **body}
    return found


def _name() -> Schema:
    """Return the schema of a sweep's name: text as it is written, so that 2024 and true are names too; references may be parts of it."""
    part = "[A-Za-z0-9._-]"
    short = {"if": {"type": "string", "not": {"pattern": REFERENCE}}, "then": {"maxLength": LONGEST_NAME}}
    pattern = f"^([A-Za-z0-9]|{REFERENCE})({part}|{REFERENCE})*$"
    return {"type": ["string", "number", "boolean"], "pattern": pattern, "minimum": 0, **short}


def _named(name: str, under: str) -> Schema:
    return {"required": [under], "properties": {under: {"required": [name]}}}


# Values --------------------------------------------------------------------------------------------------------------


def _value(hint: Any, numbers: Range | None = None, texts: Pattern | None = None) -> Schema:
    """Return the schema of a value of type `hint` or of a reference to one; `numbers` and `texts` limit its numbers and texts."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    members = typing.get_args(hint) if union else (hint,)
    literals = [word for member in members if typing.get_origin(member) is Literal for word in typing.get_args(member)]
    lists = [member for member in members if typing.get_origin(member) is tuple]
    plain = [JSON_TYPES[member] for member in members if member in JSON_TYPES]
    if literals and not plain:  # as a list, which an editor can offer; YAML 1.1 reads a bare off as false
        choices = literals + [False] * ("off" in literals)
        return {"anyOf": [{"enum": choices}, {"type": "string", "pattern": f"^{REFERENCE}$"}]}
    body: Schema = {"type": list(dict.fromkeys([*plain, *(["array"] if lists else []), "string"]))}
    if lists:
        body["items"] = _value(typing.get_args(lists[0])[0])
    if numbers:
        body |= _limits(numbers)
    if str in members and texts is None:
        return body | {"minLength": 1}
    patterns = [*map(re.escape, literals), *([texts.regex] if texts else []), REFERENCE]
    return body | {"pattern": f"^({'|'.join(patterns)})$"}


def _limits(numbers: Range) -> Schema:
    named = {"exclusiveMinimum": numbers.above, "minimum": numbers.least, "maximum": numbers.most}
    return {key: value for key, value in named.items() if value is not None}


def _or_null(body: Schema) -> Schema:
    if "anyOf" in body:
        return body | {"anyOf": [*body["anyOf"], {"type": "null"}]}
    kinds = body["type"] if isinstance(body["type"], list) else [body["type"]]
    return body | {"type": list(dict.fromkeys([*kinds, "null"]))}


def _or_reference(mapping: Schema) -> Schema:
    """Take a mapping, or the reference to another one."""
    return mapping | {"type": ["object", "string"], "pattern": f"^{REFERENCE}$"}


def _plain(body: Schema) -> Schema:
    return {key: value for key, value in body.items() if key != "default"}


# Axes ----------------------------------------------------------------------------------------------------------------


def _when(trial: Mapping[str, Schema]) -> Schema:
    """Return the schema of an axis's condition: lists of values by the names of other fields."""
    values = {
        name: {k: v for k, v in body.items() if k not in ("default", "description")} for name, body in trial.items()
    }
    lists = {name: {"type": ["array", "string"], "minItems": 1, "items": body} for name, body in values.items()}
    return _or_null(_or_reference(_mapping(lists)))


def _axis(name: str, field: Schema) -> Schema:
    """Return the schema of an axis of the field `name`: choices, or for a number an interval as well."""
    said, value = docs(Axis), {key: item for key, item in field.items() if key not in ("default", "description")}
    choices = {"type": ["array", "string", "null"], "minItems": 1, "uniqueItems": True, "items": value}
    about = {"description": field["description"]}
    limits = {
        "arms": {"description": said["arms"], **_or_null(_value(tuple[Arm, ...])), "uniqueItems": True},
        "when": {"description": said["when"], "$ref": "#/$defs/when"},
    }
    if name not in NUMBERS:
        only = {"choices": {"description": said["choices"], **choices, "type": ["array", "string"]}, **limits}
        return about | _or_null(_or_reference(_mapping(only) | {"required": ["choices"]}))
    step = _value(NUMBERS[name] | None, Range(above=0))
    parts = {
        "low": _or_null(value),
        "high": _or_null(value),
        "log": _value(bool | None),
        "step": step,
        "choices": choices,
    }
    listed = {"properties": {"choices": {"type": ["array", "string"]}}, "required": ["choices"]}
    nothing = {key: {"enum": [None, False]} for key in ("low", "high", "log", "step")}
    ends = {"required": ["low", "high"], "properties": dict.fromkeys(("low", "high"), {"not": {"type": "null"}})}
    axis = _mapping({key: {"description": said[key], **part} for key, part in (parts | limits).items()})
    return about | _or_null(_or_reference(axis)) | {"if": listed, "then": {"properties": nothing}, "else": ends}
