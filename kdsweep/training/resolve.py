"""Replace every `auto` of a trial's configuration by what it means on this machine."""

import dataclasses
from collections.abc import Callable

from kdsweep.config.trial import FROM_TEACHER, TrialConfig
from kdsweep.system.hardware import available_cores
from kdsweep.training.data.rows import resolved_dataset_revision
from kdsweep.training.fast import machine
from kdsweep.training.models import resolved_revision


def resolve(
    config: TrialConfig,
    *,
    threads: int,
    precision_on: Callable[[str], str] = machine.best_precision,
    teacher_threads: Callable[[int | None], int] = lambda named: named or available_cores(),
) -> TrialConfig:
    """`config` with every `auto` replaced by what it means here: the one place where that happens, before anything runs.

    `precision_on(device)` is what its precision means, `teacher_threads(named)` how many fine-tune the teacher where its own are not
    named, but perhaps a trial's.
    """
    device = machine.best_device() if config.device == "auto" else config.device
    precision = precision_on(device) if config.precision == "auto" else config.precision
    student = FROM_TEACHER if config.student == FROM_TEACHER else config.student
    revisions: dict[str, Callable[[], str | None]] = {
        "teacher_revision": lambda: resolved_revision(config.teacher),
        "student_revision": lambda: None if student == FROM_TEACHER else resolved_revision(student),
        "dataset_revision": lambda: resolved_dataset_revision(config),
    }
    found = {name: look_up() for name, look_up in revisions.items() if getattr(config, name) == "auto"}
    named = None if config.threads == "auto" else int(config.threads)
    machines = {
        "device": device,
        "precision": precision,
        "teacher_threads": teacher_threads(named) if config.teacher_threads == "auto" else config.teacher_threads,
        "threads": max(1, threads // config.devices_per_trial) if config.threads == "auto" else config.threads,
    }
    return dataclasses.replace(config, **machines, **found)  # type: ignore[arg-type]
