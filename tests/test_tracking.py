"""W&B: every step and the whole config in an offline run, one contract for every tracker, and no trial lost to it."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import wandb

from kdsweep.audit import wandb_records
from kdsweep.config import FIELD_TYPES, TrialConfig
from kdsweep.materials import Materials
from kdsweep.records import EpochMetrics, StepMetrics, TeacherEpoch, TrialFolder, read_steps
from kdsweep.sweep_config import TrackingConfig
from kdsweep.tracking import STEP_METRICS, NullTracker, Tracker, WandbTracker, open_tracker, resolved_mode
from kdsweep.trial import Slot, Watch, run_trial

Config = Callable[..., TrialConfig]


def inspected(path: Path) -> list[dict[str, Any]]:
    """Every record of an offline run, by W&B's own reader."""
    records, torn = wandb_records(path)
    assert torn is None
    return records


def config_of(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The run's config."""
    (run,) = [record["run"] for record in records if record["type"] == "run"]
    config: dict[str, Any] = run["config"]["update"]
    return config


def history_of(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The run's rows."""
    return [record["history"]["item"] for record in records if record["type"] == "history"]


def run_file(folder: Path) -> Path:
    (path,) = folder.rglob("*.wandb")
    return path


def test_an_offline_run_holds_every_step_every_epoch_and_the_whole_config(tiny_config: Config, tmp_path: Path) -> None:
    config = tiny_config(student_layers=(0, 2), learning_rate=0.00123456789012345)
    folder = TrialFolder(tmp_path / "trials" / "0000")
    tracker = open_tracker(tmp_path, "group", TrackingConfig(tags=("a", "b")), "offline")
    slot = Slot(arm="distilled", trial=0)
    with tracker.run("tiny-trial-0000-a1", "trial", asdict(config)) as run:
        result = run_trial(
            config, slot, folder, Materials(), run, Watch(on_steps=lambda _: None, on_epoch=lambda _: False)
        )
    assert result.run_id == "tiny-trial-0000-a1"

    records = inspected(run_file(tmp_path))
    tracked = config_of(records)
    expected = json.loads(json.dumps(asdict(config)))
    assert {name: tracked[name] for name in FIELD_TYPES} == expected

    rows = {row["step"]: row for row in history_of(records) if "L_soft" in row}
    steps = read_steps(folder.path)
    assert len(steps) == 10 and sorted(rows) == list(range(1, 11))
    for step in steps:
        for name in STEP_METRICS:
            assert rows[step.step][name] == getattr(step, name), name
    for epoch, last in ((1, 5), (2, 10)):
        assert rows[last]["epoch"] == epoch
        assert {"val_accuracy", "val_loss", "val_agreement"} <= set(rows[last])
    assert rows[10]["val_accuracy"] == result.val_accuracy


STEP = StepMetrics(step=1, epoch=1, L_soft=0.5, L_hard=0.25, L_total=0.375, learning_rate=1e-4)
TEACHER_EPOCH = TeacherEpoch(epoch=1, step=1, L_hard=0.5, val_accuracy=0.75, val_loss=0.6, train_seconds=1.0)
EPOCH = EpochMetrics(
    epoch=1,
    step=1,
    L_soft=0.5,
    L_hard=0.25,
    L_total=0.375,
    val_accuracy=0.75,
    val_loss=0.6,
    val_agreement=0.5,
    train_seconds=1.0,
    evaluate_seconds=0.5,
)


@pytest.fixture(params=["null", "offline"])
def tracker(request: pytest.FixtureRequest, tmp_path: Path) -> Tracker:
    if request.param == "null":
        return open_tracker(tmp_path, "group", TrackingConfig(), "off")
    return open_tracker(tmp_path, "group", TrackingConfig(), "offline")


def test_every_tracker_takes_steps_epochs_and_a_summary_and_closes_whatever_happens(tracker: Tracker) -> None:
    for number, epoch in enumerate((EPOCH, TEACHER_EPOCH)):
        with tracker.run(f"run-{number}", "trial", {"alpha": 0.5, "label_names": ()}) as run:
            assert run.run_id in (None, f"run-{number}")
            run.log_steps([])
            run.log_steps([STEP])
            run.log_epoch(epoch)
            run.summarise({"val_accuracy": 0.75, "error": None})
        assert wandb.run is None
    with pytest.raises(ZeroDivisionError), tracker.run("broken", "trial", {}):
        raise ZeroDivisionError
    assert wandb.run is None
    with tracker.run("after", "trial", {}) as run:
        run.log_steps([STEP])
    assert wandb.run is None


def test_off_writes_nothing(tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    with NullTracker().run("run", "trial", {}) as run:
        run.log_steps([STEP])
    assert sorted(tmp_path.rglob("*")) == before


def test_no_command_line_no_host_and_no_git_go_into_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["kdsweep", "--password=planted-0451"])
    monkeypatch.setenv("SOME_TOKEN", "planted-0452")
    with open_tracker(tmp_path, "group", TrackingConfig(), "offline").run("run", "trial", {"alpha": 0.5}) as run:
        run.log_steps([STEP])
    assert config_of(inspected(run_file(tmp_path)))["alpha"] == 0.5
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"planted" not in path.read_bytes(), path


def test_without_key_a_sweep_is_tracked_offline_and_told_why() -> None:
    assert resolved_mode(TrackingConfig()) == ("offline", "no W&B key is configured")
    assert resolved_mode(TrackingConfig(mode="online"))[0] == "offline"


@pytest.mark.parametrize("mode", ["off", "offline"])
def test_a_mode_that_needs_no_server_asks_none(mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb, "login", lambda **_: pytest.fail("asked a server"))
    assert resolved_mode(TrackingConfig(mode=mode)) == (mode, "as the sweep file says")


def test_a_server_that_refuses_turns_tracking_offline_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> bool:
        raise wandb.errors.AuthenticationError("bad key\n  on two lines")

    monkeypatch.setattr(wandb, "login", refuse)
    assert resolved_mode(TrackingConfig()) == ("offline", "W&B did not let us in: bad key on two lines")


def test_a_server_that_stops_answering_costs_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = wandb.init, []

    def init(**arguments: Any) -> Any:
        asked.append(arguments["mode"])
        if arguments["mode"] == "online":
            raise wandb.errors.CommError("timed out")
        return real(**arguments)

    monkeypatch.setattr(wandb, "init", init)
    tracker = WandbTracker(tmp_path, "group", TrackingConfig(), "online")
    for number in range(2):
        with tracker.run(f"run-{number}", "trial", {}) as run:
            run.log_steps([STEP])
    assert asked == ["online", "offline", "offline"]
    assert tracker.mode == "offline" and len(list(tmp_path.rglob("*.wandb"))) == 2
