"""Write and read a trial's `config.yaml`."""

import dataclasses
from pathlib import Path

from kdsweep.config.trial import FIELD_TYPES, TrialConfig
from kdsweep.config.yaml import did_you_mean, read_recorded_yaml, to_yaml
from kdsweep.errors import ConfigError


def trial_yaml(config: TrialConfig) -> str:
    """Return the text of a trial's `config.yaml`."""
    return "# One kdsweep trial, complete: `python -m kdsweep.reproduce` on this folder runs it again.\n" + to_yaml(
        dataclasses.asdict(config)
    )


def read_trial_config(path: Path) -> TrialConfig:
    """Read a trial's config from `path`, a `config.yaml`. Raises ConfigError where a key is unknown or invalid."""
    content = read_recorded_yaml(path)
    unknown = [
        f"{path}: unknown key {name!r}{did_you_mean(name, FIELD_TYPES)}" for name in content if name not in FIELD_TYPES
    ]
    if unknown:
        raise ConfigError(unknown)
    return TrialConfig(**content)
