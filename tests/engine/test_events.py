"""Events between a worker and whoever shows its sweep."""

import json
from typing import get_args

import pytest
from makers import make_epoch, teacher_of

from kdsweep.engine.events import (
    Crash,
    Epoch,
    Event,
    FoldsBegun,
    Note,
    Offline,
    Phase,
    Plan,
    Prepared,
    Problem,
    RowsDone,
    Step,
    TeacherEpoch,
    TeacherStep,
    TrialEnded,
    TrialStarted,
    decode,
    encode,
)
from kdsweep.records.layout import TrialId
from kdsweep.records.schema import StepMetrics

PLAN = Plan(
    max_length="64 cuts no row",
    device="cpu",
    precision="fp32",
    threads=2,
    tracking="offline",
    tracking_why="no key",
)
EVENTS: list[Event] = [
    Phase("reading the rows"),
    Note("a note …"),
    Offline("no server"),
    TeacherStep(step=1, steps=10, L_hard=0.7),
    TeacherEpoch(epoch=1, score=0.75),
    RowsDone(what="tokens", done=20_000, rows=1_000_000, unit="rows"),
    RowsDone(what="read", done=20_000, rows=None, unit="rows"),
    FoldsBegun(folds=5),
    Prepared(teacher=teacher_of(truncated_rows={"train": 3}), plan=PLAN),
    TrialStarted(
        id=TrialId("fine_tuned", 3, 12),
        attempt=2,
        params={"student_layers": (0, 2), "seed": 12},
        evaluations=2,
        unit="epoch",
    ),
    Step(losses=StepMetrics(step=1, epoch=1, L_soft=1.0, L_hard=0.5, L_total=0.75, learning_rate=1e-3), steps=9),
    Epoch(metrics=make_epoch(0, 0.8)),
    TrialEnded(
        id=TrialId("distilled", 7), status="complete", error=None, score=0.8, violates=("size_mb 9 > 8",), seconds=2.5
    ),
    Problem("study.storage must be a PostgreSQL"),
    Crash("Traceback (most recent call last):\n  …"),
]


def test_every_kind_of_event_comes_through_a_pipe_as_it_was() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(Event))
    for event in EVENTS:
        line = encode(event)
        assert "\n" not in line
        assert decode(line) == event


def test_half_a_line_is_no_event() -> None:
    """The last words of a worker that was killed while it spoke."""
    line = encode(EVENTS[0])
    assert json.loads(line)["event"] == "Phase"
    for end in range(len(line)):
        with pytest.raises(ValueError, match=r"."):
            decode(line[:end])
