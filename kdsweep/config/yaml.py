"""Read and write YAML: read it safely, convert values to the types of fields, and write floats so that they are read back bit for bit."""

import difflib
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
    members = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    for member in members:
        literals = typing.get_args(member) if typing.get_origin(member) is Literal else ()
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
        if typing.get_origin(member) is tuple and isinstance(value, list | tuple):
            return tuple(converted(item, typing.get_args(member)[0]) for item in value)
    is_text = str in members and int not in members
    way_out = ": in quotes it is one" if is_text and isinstance(value, int | float) else ""
    raise TypeError(f"must be {_spoken(members)}, but got {value!r}{way_out}")


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
    """Read a YAML mapping that `to_yaml` wrote: as `read_yaml`, but several times as fast where there is no `${` in it."""
    loader = getattr(omegaconf.omegaconf, "get_yaml_loader", None)  # reads 1e-5 as a number and a date as a text
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.load(text, Loader=loader()) if loader and "${" not in text else None
    except (OSError, ValueError, yaml.YAMLError):
        content = None  # `read_yaml` says what is wrong
    return {str(key): value for key, value in content.items()} if isinstance(content, dict) else read_yaml(path)


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
