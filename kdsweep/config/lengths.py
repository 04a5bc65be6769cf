"""Say how long trials train, in epochs or in steps: one trial, and those of a sweep; find lengths that are given but not read."""

import dataclasses
from typing import Any

from kdsweep.config.arms import ARM_NAMES, Arm
from kdsweep.config.sweep import SweepConfig
from kdsweep.config.trial import TrialConfig
from kdsweep.config.trial_fields import TRIAL_DEFAULTS


def evaluations_of(config: TrialConfig) -> int:
    """Return how often a whole training with `config` evaluates its student: after every epoch, with `max_steps` `evaluations` times."""
    return config.epochs if config.max_steps is None else config.evaluations


def unit_of(config: TrialConfig) -> str:
    """Return what `config` calls the part of a training that ends with an evaluation: `epoch`, with `max_steps` `evaluation`."""
    return "epoch" if config.max_steps is None else "evaluation"


def length_of(config: TrialConfig) -> int:
    """Return how long a whole training with `config` is: its steps with `max_steps`, else its epochs."""
    return config.epochs if config.max_steps is None else config.max_steps


def lengthened(config: TrialConfig, factor: int) -> TrialConfig:
    """Return `config` for a training `factor` times as long, evaluated after as many steps as before, so that curves compare."""
    if config.max_steps is None:
        return dataclasses.replace(config, epochs=factor * config.epochs)
    return dataclasses.replace(config, max_steps=factor * config.max_steps, evaluations=factor * config.evaluations)


def most_evaluations(sweep: SweepConfig) -> int:
    """Return how many evaluations the longest trial of the search has."""
    named = [
        (arm, "epochs" if steps is None else "evaluations")
        for arm in sweep.arms
        for steps in _values(sweep, arm, "max_steps")
    ]
    return max(int(count) for arm, name in named for count in _values(sweep, arm, name))


def least_rows_trained(sweep: SweepConfig, train_rows: int) -> int:
    """Return how many rows, counted as often as it takes them, the shortest trial of the search trains on."""
    counts = []
    for arm in sweep.arms:
        for steps in _values(sweep, arm, "max_steps"):
            name, each = ("epochs", train_rows) if steps is None else ("batch_size", steps)
            counts.append(each * min(int(value) for value in _values(sweep, arm, name)))
    return min(counts)


def length_text(sweep: SweepConfig) -> str:
    """Write how long a trial of the search trains: `3 epochs`, or `3,750 steps, evaluated 4 times`; arm by arm where they differ."""
    texts = {arm: _text(sweep, arm) for arm in sweep.arms if sweep.budget(arm)}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"{ARM_NAMES[arm]}: {text}" for arm, text in texts.items())


def _text(sweep: SweepConfig, arm: Arm) -> str:
    steps = _values(sweep, arm, "max_steps")
    by_steps, said = [each for each in steps if each is not None], []
    if len(by_steps) < len(steps):
        said.append(_count(_values(sweep, arm, "epochs"), "epoch"))
    if by_steps:
        times = _count(_values(sweep, arm, "evaluations"), "time")
        said.append(f"{_count(by_steps, 'step')}, evaluated {times}")
    return " or ".join(said)


def _count(values: list[int], what: str) -> str:
    """Write a number of `what`, or the ends of several: `3 epochs`, `1 to 4 epochs`."""
    ends = f"{values[0]:,}" if len(values) == 1 else f"{min(values):,} to {max(values):,}"
    return f"{ends} {what}{'s' * (max(values) != 1)}"


def _values(sweep: SweepConfig, arm: Arm, name: str) -> list[Any]:
    """Return every value, or the ends of the interval, that trials of `arm` take of the field `name`; its fixed value or default too, where
    the condition of its axis may not hold."""
    axes, other = sweep.axes(arm), sweep.fixed.get(name, TRIAL_DEFAULTS[name])
    if name not in axes:
        return [other]
    is_open = any(field in axes for field in axes[name].when)
    return list(dict.fromkeys((*axes[name].ends(), *((other,) if is_open else ()))))


def few_steps_problems(sweep: SweepConfig) -> list[str]:
    """List the arms in which a trial may be sampled with fewer `max_steps` than `evaluations`, where both are searched."""
    problems = []
    for arm in sweep.arms:
        if not {"max_steps", "evaluations"} <= set(sweep.axes(arm)):
            continue
        fewest = min(steps for steps in _values(sweep, arm, "max_steps") if steps is not None)
        most = max(_values(sweep, arm, "evaluations"))
        if fewest < most:
            problems.append(
                f"search.max_steps and search.evaluations: every trial has max_steps >= evaluations, but a {ARM_NAMES[arm]} one may get "
                f"max_steps {fewest} with evaluations {most}; search fewer evaluations, or more steps"
            )
    return problems


def unread_problems(sweep: SweepConfig) -> list[str]:
    """List the lengths of a trial that are given but not read: `epochs` beside `max_steps`, and `evaluations` without it."""
    steps = {arm: set(_values(sweep, arm, "max_steps")) for arm in sweep.arms}
    unread = {
        "epochs": ("where max_steps is set", [arm for arm in sweep.arms if None not in steps[arm]]),
        "evaluations": ("where max_steps is null", [arm for arm in sweep.arms if steps[arm] == {None}]),
    }
    problems = []
    for name, (when, arms) in unread.items():
        searched = any(name in sweep.axes(arm) for arm in arms)
        if searched or (name in sweep.fixed and arms == list(sweep.arms)):
            given = f"{'search' if searched else 'fixed'}.{name}"
            problems.append(
                f"{name} is not read {when}, but {given} is given; remove one of them (on the command line, {given}=null)"
            )
    return problems
