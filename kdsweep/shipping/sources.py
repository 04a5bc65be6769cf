"""Name a trial's data and models to strangers: hub names and `wheel:` addresses in full, nothing of where files lie on this machine."""

import dataclasses
import re
from pathlib import Path
from typing import Any

from kdsweep.config.trial import FROM_TEACHER, TrialConfig
from kdsweep.config.trial_fields import PATH_FIELDS, REVISIONS, TRIAL_DEFAULTS
from kdsweep.config.yaml import plain_values
from kdsweep.system.wheels import PREFIX

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_FILE_KINDS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
}
FILE_FIELDS = ("train_file", "validation_file", "test_file", "unlabeled_file", "teacher_file")


def hub_name(config: TrialConfig, field: str) -> str | None:
    """Return the hub name that `field` holds; None for a local path, a `wheel:` address, from_teacher and null.

    A name has a commit beside it: the trial resolved it, and a local path has none.
    """
    value = getattr(config, field)
    commit = getattr(config, REVISIONS[field]) if field in REVISIONS else None
    if not value or value == FROM_TEACHER or commit in (None, "auto"):
        return None
    return str(value) if _HUB_NAME.fullmatch(value) else None


def shown_place(config: TrialConfig, field: str) -> str:
    """Return what `field` names, in words: the hub name in code, the file in its wheel, or that it is a local one."""
    value = str(getattr(config, field))
    if hub_name(config, field):
        return f"`{value}`"
    if value.startswith(PREFIX):
        package, _, path = value.removeprefix(PREFIX).partition("#")[0].partition("/")
        return f"`{path}` of the package `{package}`"
    return "a local file" if field in FILE_FIELDS else "a local model"


def shown_config(config: TrialConfig) -> dict[str, Any]:
    """Return the fields of `config` that differ from their defaults, as YAML holds them; local places are left out, and said to be."""
    values = plain_values(dataclasses.asdict(config))
    defaults = plain_values(TRIAL_DEFAULTS)
    commits = {name for name in REVISIONS.values() if values[name] is None}  # of what is not on the hub
    kept = {name: value for name, value in values.items() if value != defaults[name] and name not in commits}
    return {name: _hidden(config, name) if name in PATH_FIELDS else value for name, value in kept.items()}


def _hidden(config: TrialConfig, field: str) -> Any:
    value = getattr(config, field)
    is_public = value == FROM_TEACHER or value is None or value.startswith(PREFIX) or hub_name(config, field)
    return value if is_public else f"({shown_place(config, field)})"


def body_field(config: TrialConfig) -> str:
    """Return the field that names the model whose weights the student began with."""
    if config.student != FROM_TEACHER:
        return "student"
    return "student_body" if config.student_body else "teacher"


def rows_field(config: TrialConfig) -> str:
    """Return the field that names the labelled rows."""
    return "dataset" if config.dataset else "train_file"


def dataset_type(config: TrialConfig) -> str:
    """Return what the hub's metadata call the kind of the rows: a hub dataset's name, or the kind of a file."""
    name = hub_name(config, "dataset")
    suffixes = [suffix.lower() for suffix in Path(str(config.train_file).partition("#")[0]).suffixes]
    return name or next((_FILE_KINDS[suffix] for suffix in reversed(suffixes) if suffix in _FILE_KINDS), "text")
