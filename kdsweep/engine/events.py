"""What a worker tells whoever shows its sweep: one dataclass for each kind of event, and the JSON lines that carry them between processes."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, get_args, get_type_hints

from kdsweep.config.sweep import Resolved
from kdsweep.records.layout import TrialId
from kdsweep.records.schema import EpochMetrics, Status, StepMetrics, TeacherResult


@dataclass(frozen=True)
class Phase:
    """The worker begins a part of its preparation."""

    text: str


@dataclass(frozen=True)
class Note:
    """Something that the user should read, for which nothing stops."""

    text: str


@dataclass(frozen=True)
class Offline:
    """W&B's server does not answer: this worker's runs stay on disk."""

    text: str


@dataclass(frozen=True, kw_only=True)
class TeacherStep:
    """The teacher's fine-tuning has done a step."""

    step: int
    steps: int
    """Of the whole fine-tuning."""
    L_hard: float


@dataclass(frozen=True, kw_only=True)
class TeacherEpoch:
    """The teacher's fine-tuning has done an epoch."""

    epoch: int
    val_accuracy: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is shown of this machine and its rows before the first trial."""

    max_length: str
    device: str
    precision: str
    threads: int
    tracking: Resolved
    tracking_why: str
    seconds_per_trial: float
    """As estimated."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Rows, teacher and every check are done; trials can start."""

    teacher: TeacherResult
    plan: Plan


@dataclass(frozen=True, kw_only=True)
class TrialStarted:
    """The worker has taken a trial."""

    id: TrialId
    attempt: int
    params: Mapping[str, Any]
    """What was sampled, and a finalist's seed."""
    epochs: int


@dataclass(frozen=True, kw_only=True)
class Step:
    """The running trial has done a step."""

    losses: StepMetrics
    steps: int
    """Of the whole training."""


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """The running trial has done an epoch."""

    metrics: EpochMetrics


@dataclass(frozen=True, kw_only=True)
class TrialEnded:
    """The running trial has ended."""

    id: TrialId
    status: Status
    error: str | None
    score: float | None
    """By the study's metric; None where no epoch was finished."""
    violates: tuple[str, ...]
    """Constraints that its student breaks."""
    seconds: float


@dataclass(frozen=True)
class Problem:
    """The worker ends for a problem that the user can solve."""

    message: str


@dataclass(frozen=True)
class Crash:
    """The worker ends for a bug."""

    traceback: str


Event = (
    Phase
    | Note
    | Offline
    | TeacherStep
    | TeacherEpoch
    | Prepared
    | TrialStarted
    | Step
    | Epoch
    | TrialEnded
    | Problem
    | Crash
)
Send = Callable[[Event], None]
"""Tells whoever shows the sweep what happens."""
KINDS: dict[str, type[Event]] = {kind.__name__: kind for kind in get_args(Event)}


def encode(event: Event) -> str:
    """Return an event as one line of JSON, without its end."""
    return json.dumps({"event": type(event).__name__, **asdict(event)})


def decode(line: str) -> Event:
    """Return the event that `encode` made the line of; lists come back as tuples. Raises ValueError for half a line."""
    fields = json.loads(line)
    event: Event = _built(KINDS[fields.pop("event")], fields)
    return event


def _built(kind: Any, fields: Mapping[str, Any]) -> Any:
    hints = get_type_hints(kind)
    return kind(**{name: _revived(hints[name], value) for name, value in fields.items()})


def _revived(hint: Any, value: Any) -> Any:
    if is_dataclass(hint):
        return _built(hint, value)
    if isinstance(value, dict):
        return {name: _revived(None, item) for name, item in value.items()}
    return tuple(value) if isinstance(value, list) else value
