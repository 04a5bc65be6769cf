"""Define what a worker sends to the process that shows its sweep: one dataclass for each kind of event, sent as JSON lines."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any, get_args, get_type_hints

from kdsweep.config.sweep import Resolved
from kdsweep.config.tasks import METRICS
from kdsweep.records import teacher_schema
from kdsweep.records.layout import TrialId
from kdsweep.records.schema import EpochMetrics, Status, StepMetrics
from kdsweep.records.teacher_schema import TeacherResult


@dataclass(frozen=True)
class Phase:
    """Reports that the worker begins a part of its preparation."""

    text: str


@dataclass(frozen=True)
class Note:
    """Holds a message that the user should read; the sweep continues."""

    text: str


@dataclass(frozen=True)
class Offline:
    """Reports that W&B's server does not answer: this worker's runs stay on disk."""

    text: str


@dataclass(frozen=True, kw_only=True)
class TeacherStep:
    """Reports the latest step of the teacher's fine-tuning."""

    step: int
    steps: int
    """Number of steps of the whole fine-tuning."""
    L_hard: float
    fold: str = ""
    """Which fold's teacher it is, such as `fold 2 of 5`; empty for the only one."""


@dataclass(frozen=True, kw_only=True)
class TeacherEpoch:
    """Reports an epoch of the teacher's fine-tuning."""

    epoch: int
    score: float
    """The first metric that its task ranks by, on the validation rows."""
    metric: str = "val_accuracy"
    """The name of that metric."""
    fold: str = ""


@dataclass(frozen=True, kw_only=True)
class FoldsBegun:
    """Reports that the first worker fine-tunes a teacher for each of so many folds: other workers can take some."""

    folds: int


@dataclass(frozen=True, kw_only=True)
class RowsDone:
    """Reports how far the rows, or the texts without labels, are prepared."""

    what: str
    """What is made of them: read, their tokens, the teacher's logits."""
    done: int
    rows: int | None
    """How many there are; None while they are read."""
    unit: str
    """What they are called: `rows`, `texts`."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Holds what is shown of this machine and of the rows before the first trial."""

    max_length: str
    device: str
    precision: str
    threads: int
    tracking: Resolved
    tracking_why: str
    teacher_runs: bool = False
    """Whether the teacher runs in every step of some trials."""
    unlabeled: str = ""
    """How many texts without labels there are, and how many were left out; empty without any."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Reports that rows, teacher and every check are done: trials can start."""

    teacher: TeacherResult
    plan: Plan


@dataclass(frozen=True, kw_only=True)
class TrialStarted:
    """Reports that the worker has taken a trial."""

    id: TrialId
    attempt: int
    params: Mapping[str, Any]
    """The searched fields with their values, and a finalist's seed."""
    evaluations: int
    """How often a whole training evaluates the student."""
    unit: str
    """What ends with an evaluation: `epoch`, with `max_steps` `evaluation`."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """Reports the latest step of the running trial."""

    losses: StepMetrics
    steps: int
    """Number of steps of the whole training."""
    evaluation_steps: float = 0.0
    """How many steps the evaluations of the whole training take as long as, roughly."""


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """Reports an epoch of the running trial."""

    metrics: EpochMetrics


@dataclass(frozen=True, kw_only=True)
class TrialEnded:
    """Reports how the running trial ended."""

    id: TrialId
    status: Status
    error: str | None
    score: float | None
    """The value of `study.metric`; None where no epoch was finished."""
    violates: tuple[str, ...]
    """Constraints that the trial's student breaks."""
    seconds: float


@dataclass(frozen=True)
class Problem:
    """Reports that the worker ends because of a problem that the user can solve."""

    message: str


@dataclass(frozen=True)
class Crash:
    """Reports that the worker ends because of a bug."""

    traceback: str


Event = (
    Phase
    | Note
    | Offline
    | TeacherStep
    | TeacherEpoch
    | FoldsBegun
    | RowsDone
    | Prepared
    | TrialStarted
    | Step
    | Epoch
    | TrialEnded
    | Problem
    | Crash
)
Send = Callable[[Event], None]
"""Sends an event to the process that shows the sweep."""
KINDS: dict[str, type[Event]] = {kind.__name__: kind for kind in get_args(Event)}


def teacher_epoch(epoch: teacher_schema.TeacherEpoch, fold: str = "") -> TeacherEpoch:
    """Return the event that reports a recorded epoch of the teacher, with the first metric of its task."""
    measured = {name: getattr(epoch, name, None) for name, *_ in METRICS.values()}
    metric, score = [(name, value) for name, value in measured.items() if value is not None][
        -1
    ]  # others have val_accuracy too
    return TeacherEpoch(epoch=epoch.epoch, score=score, metric=metric, fold=fold)


def encode(event: Event) -> str:
    """Return an event as one line of JSON, without the newline."""
    return json.dumps({"event": type(event).__name__, **asdict(event)})


def decode(line: str) -> Event:
    """Return the event from which `encode` made `line`, with tuples for lists. Raises ValueError for an incomplete line."""
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
