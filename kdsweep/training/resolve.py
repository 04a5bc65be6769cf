"""Build a trial's configuration, with every `auto` replaced by what it means on this machine."""

from collections.abc import Callable, Mapping
from typing import Any

from kdsweep.config.trial import FROM_TEACHER, TrialConfig
from kdsweep.config.trial_fields import TRIAL_DEFAULTS
from kdsweep.system.hardware import available_cores
from kdsweep.training.data.rows import resolved_dataset_revision
from kdsweep.training.fast import machine
from kdsweep.training.models import resolved_revision


def resolve(
    fields: Mapping[str, Any],
    *,
    threads: int,
    precision_on: Callable[[str], str] = machine.best_precision,
    teacher_threads: Callable[[int | None], int] = lambda named: named or available_cores(),
) -> TrialConfig:
    """Build the trial config of `fields` (from `SweepConfig.fields`), each `auto` replaced by its meaning here; no other place does so.

    `threads` are the CPU threads of one worker, shared by the processes of its trial. `precision_on(device)` returns what an `auto`
    precision means. `teacher_threads(named)` returns how many threads fine-tune the teacher where that field is `auto`; `named` is the
    number in the field `threads`, None where that is `auto` too. Raises ConfigError for values that do not go together, ModelError
    or DataError where the commit of a hub name cannot be looked up.
    """
    given = {**TRIAL_DEFAULTS, **fields}
    device = machine.best_device() if given["device"] == "auto" else given["device"]
    named = None if given["threads"] == "auto" else int(given["threads"])
    meanings: dict[str, Callable[[], Any]] = {
        "device": lambda: device,
        "precision": lambda: precision_on(device),
        "threads": lambda: max(1, threads // given["devices_per_trial"]),
        "teacher_threads": lambda: teacher_threads(named),
        "teacher_revision": lambda: _revision(given["teacher"]),
        "student_revision": lambda: _revision(given["student"]),
        "dataset_revision": lambda: resolved_dataset_revision(
            given["dataset"], given["dataset_config"], given["train_split"]
        ),
    }
    if given["student_body"]:
        meanings["student_body_revision"] = lambda: resolved_revision(given["student_body"])
    found = {name: look_up() for name, look_up in meanings.items() if given[name] == "auto"}
    return TrialConfig(**{**fields, **found})


def _revision(address: str | None) -> str | None:
    return None if address in (None, FROM_TEACHER) else resolved_revision(address)
