"""Convert axes to Optuna's distributions, and sampled values back to typed values."""

import json
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from kdsweep.config.axis import Axis
from kdsweep.config.trial_fields import NUMBERS


def distribution(name: str, axis: Axis) -> BaseDistribution:
    """Return the distribution that Optuna samples for the field `name`. Choices that are lists become JSON text: Optuna warns on lists."""
    if axis.choices:
        return CategoricalDistribution([encode(choice) for choice in axis.choices])
    assert axis.low is not None and axis.high is not None
    if NUMBERS[name] is int:
        step = 1 if axis.step is None else int(axis.step)
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=step)
    return FloatDistribution(axis.low, axis.high, log=axis.log, step=axis.step)


def encode(value: Any) -> Any:
    """Return a field's value as Optuna stores it: a tuple as JSON text."""
    return json.dumps(list(value)) if isinstance(value, tuple) else value


def decode(axis: Axis, stored: Any) -> Any:
    """Return the field's value of what Optuna stored: the inverse of `encode`."""
    return {encode(choice): choice for choice in axis.choices}[stored] if axis.choices else stored


def suggest(trial: optuna.trial.Trial, name: str, axis: Axis) -> Any:
    """Ask a trial for its value of the field `name`."""
    match distribution(name, axis):
        case FloatDistribution() as wanted:
            return trial.suggest_float(name, wanted.low, wanted.high, step=wanted.step, log=wanted.log)
        case IntDistribution() as wanted:
            return trial.suggest_int(name, wanted.low, wanted.high, step=wanted.step, log=wanted.log)
        case CategoricalDistribution() as wanted:
            return decode(axis, trial.suggest_categorical(name, wanted.choices))
    raise AssertionError(axis)
