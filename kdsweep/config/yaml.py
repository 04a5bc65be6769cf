"""Read and write YAML: read it safely, convert values to the types of fields, and write floats so that they are read back bit for bit."""

import difflib
import functools
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import omegaconf
import yaml
from omegaconf import OmegaConf

from kdsweep.errors import ConfigError


def converted(value: object, hint: Any) -> Any:
    """Return `value` as the type `hint`: whole numbers become floats and lists tuples, nothing else changes. Raises TypeError with the rule."""
    members = _members(hint)
    for member, literals, item in members:
        if value is False and "off" in literals:
            return "off"  # YAML 1.1 reads a bare off as false
        if (
            any(value == literal and isinstance(value, type(literal)) for literal in literals)
            or (member is type(None) and value is None)
            or (member is str and isinstance(value, str) and value)
            or (member is bool and isinstance(value, bool))
            or (member is int and isinstance(value, int) and not isinstance(value, bool))
        ):
            return value
        if member is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        if item is not None and isinstance(value, list | tuple):
            return tuple(converted(each, item) for each in value)
    kinds = [member for member, _, _ in members]
    is_text = str in kinds and int not in kinds
    way_out = ": in quotes it is one" if is_text and isinstance(value, int | float) else ""
    raise TypeError(f"must be {_spoken(kinds)}, but got {value!r}{way_out}")


@functools.cache
def _members(hint: Any) -> tuple[tuple[Any, tuple[Any, ...], Any], ...]:
    """Return each type that `hint` allows, with its literals, and the type of its items where it is a tuple."""
    members = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    origins = [(member, typing.get_origin(member), typing.get_args(member)) for member in members]
    return tuple(
        (member, inside if origin is Literal else (), inside[0] if origin is tuple else None)
        for member, origin, inside in origins
    )


def _spoken(members: Iterable[Any]) -> str:
    words: list[str] = []
    for member in members:
        if typing.get_origin(member) is Literal:
            words += [str(literal) for literal in typing.get_args(member)]
        elif typing.get_origin(member) is tuple:
            item = typing.get_args(member)[0]
            words.append(f"a list of {_spoken([item]) if typing.get_origin(item) is Literal else item.__name__}")
        else:
            names = {
                type(None): "null",
                str: "a text",
                int: "a whole number",
                float: "a finite number",
                bool: "true or false",
            }
            words.append(names[member])
    return " or ".join(words)


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown `name`: the nearest of the `known` names, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


def read_yaml(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a YAML mapping, merge `key.key=value` overrides in and resolve `${key}` references; safe, and without resolvers.

    Raises ConfigError for a missing file, bad YAML, a malformed override or a resolver such as `${oc.env:HOME}`.
    """
    malformed = [item for item in overrides if not (isinstance(item, str) and re.match(r"[\w.\[\]]+=", item))]
    if malformed:
        raise ConfigError(
            f"an override reads key=value, such as study.trials=50, but got {item!r}" for item in malformed
        )
    try:
        loaded = OmegaConf.load(path)
        if not isinstance(loaded, omegaconf.DictConfig):
            raise ConfigError(f"{path} must hold a YAML mapping (key: value), but holds a list")
        merged = OmegaConf.merge(loaded, OmegaConf.from_dotlist(list(overrides))) if overrides else loaded
        _refuse_resolvers(OmegaConf.to_container(merged), str(path))
        content = OmegaConf.to_container(merged, resolve=True)
    except OSError as error:
        raise ConfigError(f"{path} must be a readable YAML file: {error.strerror or error}") from error
    except (yaml.YAMLError, omegaconf.errors.OmegaConfBaseException, TypeError, ValueError) as error:
        what = f"{path} and its overrides" if overrides else str(path)
        raise ConfigError(f"{what} must be valid YAML: {' '.join(str(error).split())}") from error
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def read_recorded_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping that `to_yaml` wrote: as `read_yaml`, but tens of times as fast where there is no `${` in it.

    A thousand trials' files differ in a few lines, so the text is parsed key by key, and each key with its value only once. What is not
    a plain mapping of whole entries is read by `read_yaml`, which says what is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
        first, *places = [found.start() for found in ENTRY.finditer(text)]
        ends = [*places, len(text)]
        entries = [_entry(text[start:end]) for start, end in zip([first, *places], ends, strict=True)]
    except (OSError, ValueError, yaml.YAMLError):
        return read_yaml(path)
    content = {key: [*value] if isinstance(value, list) else value for key, value in entries}
    plain = COMMENTS.fullmatch(text, 0, first) and len(content) == len(entries)
    return content if plain and "${" not in text and not MARKERS.search(text) else read_yaml(path)


ENTRY = re.compile(r"^\w+:(?=\s)", re.MULTILINE)
"""The start of an entry of a mapping that is not inside another one."""
COMMENTS = re.compile(r"(?:#[^\n]*\n|\n)*")
MARKERS = re.compile(r"^(?:---|\.\.\.)", re.MULTILINE)
"""What begins or ends a document of several in one file."""


@functools.cache
def _loader() -> Any:
    """Return OmegaConf's loader, which reads 1e-5 as a number and a date as a text; None where there is none by that name."""
    made = getattr(omegaconf.omegaconf, "get_yaml_loader", None)
    return made() if made else None


@functools.lru_cache(maxsize=4096)
def _entry(text: str) -> tuple[str, Any]:
    """Parse one entry `key: value` of a mapping. Raises ValueError where it is none, or holds more than numbers, texts and lists of them."""
    loader = _loader()
    content = yaml.load(text, Loader=loader) if loader else None
    if not isinstance(content, dict) or len(content) != 1:
        raise ValueError(text)
    ((key, value),) = content.items()
    items = value if isinstance(value, list) else [value]
    if not all(item is None or isinstance(item, str | int | float) for item in items):
        raise ValueError(text)
    return str(key), value


def spelled(key: str, path: Path, overrides: Sequence[str]) -> str | None:
    """Return the value of a top-level `key` as it is written, before YAML makes a number of 007 or 1e5; None where there is no scalar."""
    typed = [item for item in overrides if item.startswith(f"{key}=")]
    text = f"{key}: {typed[-1].partition('=')[2]}" if typed else path.read_text(encoding="utf-8")
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next(
        (value.value for name, value in pairs if name.value == key and isinstance(value, yaml.ScalarNode)), None
    )


def _refuse_resolvers(node: object, path: str) -> None:
    if isinstance(node, dict):
        for key, value in node.items():
            _refuse_resolvers(value, f"{path}: {key}")
    elif isinstance(node, list):
        for value in node:
            _refuse_resolvers(value, path)
    elif isinstance(node, str) and re.search(r"\$\{[^{}]*:", node):
        raise ConfigError(
            f"{path}: resolvers are refused (a shared file must not carry the environment into a tracker), but got {node!r}; write the value itself"
        )


def plain_values(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return `content` as YAML and JSON hold it: tuples become lists."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in content.items()}


def to_yaml(content: Mapping[str, Any]) -> str:
    """Return `content` as YAML; floats are read back bit for bit. Raises ValueError for what YAML or a reference cannot be."""
    try:
        return str(OmegaConf.to_yaml(OmegaConf.create(plain_values(content))))
    except omegaconf.errors.GrammarParseError as error:  # a text such as ${a, which is half a reference
        raise ValueError(str(error)) from error
