"""W&B: every step and the whole config in an offline run, one contract for every tracker, and no trial lost to it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import wandb
from commands import command, config_of, inspected, processes, started, steps_of, wait_for
from samples import TEACHER_EPOCH
from servers import SmallDisk, WandbServer

from kdsweep.config.sweep import LONGEST_TAG, TrackingConfig
from kdsweep.config.sweep_file import NOT_IN_NAMES, _tracking_problems
from kdsweep.config.trial import FIELD_TYPES, TrialConfig
from kdsweep.errors import ConfigError
from kdsweep.records.layout import TrialId
from kdsweep.records.reading import read_steps, read_sweep_key
from kdsweep.records.schema import STEP_METRICS, EpochMetrics, Pages, StepMetrics
from kdsweep.records.whole_sweep import read_records
from kdsweep.records.writing import TrialFolder, write_pages
from kdsweep.tracking import wandb_tracker
from kdsweep.tracking.names import RunLabel
from kdsweep.tracking.open import open_tracker, resolved_mode
from kdsweep.tracking.tracker import NullTracker, Tracker
from kdsweep.tracking.wandb_tracker import WandbTracker, stop_client
from kdsweep.training.shared import Materials
from kdsweep.training.trial import Slot, Watch, run_trial

Config = Callable[..., TrialConfig]
WANDB = [str(Path(sys.executable).parent / "wandb")]


def labelled(run_id: str, **facts: Any) -> RunLabel:
    """A trial's label with that id."""
    return RunLabel(run_id=run_id, name=run_id, job_type="trial", facts=facts)


def history_of(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The run's rows."""
    return [record["history"]["item"] for record in records if record["type"] == "history"]


def run_file(folder: Path) -> Path:
    (path,) = folder.rglob("*.wandb")
    return path


@pytest.mark.slow
def test_an_offline_run_holds_every_step_every_epoch_and_the_whole_config(tiny_config: Config, tmp_path: Path) -> None:
    config = tiny_config(student_layers=(0, 2), learning_rate=0.00123456789012345)
    folder = TrialFolder(tmp_path / "trials" / "0000")
    tracker = open_tracker(tmp_path, "group", TrackingConfig(tags=("a", "b")), "offline")
    slot = Slot(id=TrialId("distilled", 0))
    with tracker.run(labelled("tiny-trial-0000-a1"), asdict(config)) as run:
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
        logged = step.logged()
        assert {name: rows[step.step].get(name) for name in STEP_METRICS} == dict.fromkeys(STEP_METRICS) | {
            name: logged[name] for name in STEP_METRICS if name in logged
        }
        assert "L_relation" not in rows[step.step]  # the trial has none
    for epoch, last in ((1, 5), (2, 10)):
        assert rows[last]["epoch"] == epoch
        assert {"val_accuracy", "val_loss", "val_agreement"} <= set(rows[last])
    assert rows[10]["val_accuracy"] == result.val_accuracy


@pytest.mark.slow
def test_a_run_has_its_name_its_facts_its_tags_and_its_owner(tmp_path: Path) -> None:
    tracking = TrackingConfig(entity="team", project="proj", tags=("mine", "trial 7"))
    pages = Pages(view_url="https://w/view", report_url="https://w/report", report_id="x")
    write_pages(tmp_path, pages)
    facts: dict[str, Any] = {"facts": {"trial": 7}, "tags": ("s", "trial 7"), "notes": "What it is."}
    label = RunLabel(run_id="d7-a1", name="d7 · T 2.5 · α 0.2", job_type="trial", **facts)
    with open_tracker(tmp_path, "s", tracking, "offline").run(label, {"alpha": 0.5}) as run:
        assert (run.run_id, run.url, run.missing) == ("d7-a1", None, None)
    (found,) = [record["run"] for record in inspected(run_file(tmp_path)) if record["type"] == "run"]
    config = found["config"]["update"]
    assert (config["alpha"], config["trial"]) == (0.5, 7)
    assert found["tags"] == ["mine", "trial 7", "s"]
    named = {name: found[name] for name in ("run_id", "display_name", "entity", "project", "run_group", "job_type")}
    wanted = {"run_id": "d7-a1", "display_name": "d7 · T 2.5 · α 0.2", "entity": "team", "project": "proj"}
    assert named == wanted | {"run_group": "s", "job_type": "trial"}
    assert found["notes"] == "What it is.\n\n[Report](https://w/report)\n\n[View](https://w/view)"


@pytest.mark.parametrize("wanted", [True, False])
def test_system_metrics_are_off_unless_they_are_wanted_and_nothing_else_of_the_machine_is_ever_on(wanted: bool) -> None:
    settings = wandb_tracker._settings(system_metrics=wanted)
    assert settings.x_disable_stats is settings.x_disable_machine_info is (not wanted)
    assert settings.x_disable_meta and settings.disable_git and settings.console == "off"
    assert TrackingConfig().system_metrics is False


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [True, False])
def test_a_run_holds_system_metrics_only_where_they_are_wanted(
    wanted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(wandb_tracker.SETTINGS, "x_stats_sampling_interval", 0.5)  # type: ignore[arg-type]
    tracking = TrackingConfig(system_metrics=wanted)
    with open_tracker(tmp_path, "s", tracking, "offline").run(labelled("d7-a1"), {}) as run:
        run.log_steps([STEP])
        time.sleep(2)
    kinds = {record["type"] for record in inspected(run_file(tmp_path))}
    assert ("stats" in kinds) is wanted and "environment" not in kinds


@pytest.mark.parametrize("name", [*(f"a{bad}b" for bad in NOT_IN_NAMES), "p" * 129])
def test_names_that_w_and_b_refuses_are_those_that_a_sweep_file_may_not_say(name: str, tmp_path: Path) -> None:
    with pytest.raises(wandb.errors.UsageError, match="Invalid project name"):
        wandb.Settings(project=name)
    assert _tracking_problems(TrackingConfig(project=name)) and not _tracking_problems(
        TrackingConfig(project="a b.-_ä")
    )
    said: list[str] = []
    tracker = WandbTracker(tmp_path, "group", TrackingConfig(project=name), "offline", said.append)
    with tracker.run(labelled("run"), {}) as run:
        run.log_steps([STEP])
    assert run.run_id is None and "Invalid project name" in run.missing
    assert said == []  # nothing is kept offline; whoever trains says what is missing


@pytest.mark.parametrize("tag", ["", "t" * (LONGEST_TAG + 1)])
def test_tags_that_w_and_b_refuses_are_those_that_a_sweep_file_may_not_say(tag: str) -> None:
    with pytest.raises(ValueError, match="Tags must be between 1 and 64 characters"):
        wandb.Settings(run_tags=(tag,))
    wandb.Settings(run_tags=("t" * LONGEST_TAG,))


def test_a_projects_name_in_the_environment_that_w_and_b_refuses_is_a_problem_of_the_config(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wandb, "setup", lambda: wandb.Settings().update_from_env_vars({"WANDB_PROJECT": "team/p"}))
    with pytest.raises(ConfigError, match="team/p.*tracking.mode=off"):
        resolved_mode(TrackingConfig(mode="offline"))


@pytest.mark.slow
def test_settings_of_w_and_b_that_are_not_valid_stop_the_sweep_with_one_message(
    tiny_sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "somewhere")
    done = command("run", tiny_sweep_file(tracking={"mode": "auto"}))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert (
        "W&B's settings must be valid" in done.stderr
        and "base_url" in done.stderr
        and "tracking.mode=off" in done.stderr
    )
    assert command("run", tiny_sweep_file(tracking={"mode": "off"})).returncode == 0


STEP = StepMetrics(step=1, epoch=1, L_soft=0.5, L_hard=0.25, L_total=0.375, learning_rate=1e-4)
EPOCH = EpochMetrics(
    epoch=1,
    step=1,
    L_soft=0.5,
    L_hard=0.25,
    L_total=0.375,
    val_accuracy=0.75,
    val_loss=0.6,
    val_agreement=0.5,
    val_macro_f1=0.6,
    val_mcc=0.5,
    val_ece=0.25,
    val_kl=0.125,
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
        with tracker.run(labelled(f"run-{number}"), {"alpha": 0.5, "label_names": ()}) as run:
            assert run.run_id in (None, f"run-{number}")
            run.log_steps([])
            run.log_steps([STEP])
            run.log_epoch(epoch)
            run.summarise({"val_accuracy": 0.75, "error": None})
        assert wandb.run is None
    with pytest.raises(ZeroDivisionError), tracker.run(labelled("broken"), {}):
        raise ZeroDivisionError
    assert wandb.run is None
    with tracker.run(labelled("after"), {}) as run:
        run.log_steps([STEP])
    assert wandb.run is None


def test_off_writes_nothing(tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    with NullTracker().run(labelled("run"), {}) as run:
        run.log_steps([STEP])
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_no_command_line_no_host_and_no_git_go_into_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["kdsweep", "--password=planted-0451"])
    monkeypatch.setenv("SOME_TOKEN", "planted-0452")
    with open_tracker(tmp_path, "group", TrackingConfig(), "offline").run(labelled("run"), {"alpha": 0.5}) as run:
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


def test_an_exception_of_the_training_itself_passes_through(tmp_path: Path) -> None:
    said: list[str] = []
    tracker = WandbTracker(tmp_path, "group", TrackingConfig(), "offline", said.append)
    with pytest.raises(OSError, match="the training's own"), tracker.run(labelled("run"), {}):
        raise OSError("the training's own")
    assert said == [] and tracker.mode == "offline"


# Outages -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def impatient(wandb_server: WandbServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A server, and a client of this test's own that waits two seconds for it."""
    monkeypatch.setattr(wandb_tracker, "INIT_SECONDS", 2)
    monkeypatch.setattr(wandb_tracker, "FINISH_SECONDS", 2)
    stop_client()
    yield wandb_server
    stop_client()


def break_down(server: WandbServer) -> None:
    server.break_down()


def stop(server: WandbServer) -> None:
    server.stop()


def kill_client(_: WandbServer) -> None:
    """As the system does where memory runs out."""
    found = subprocess.run(["pgrep", "-P", str(os.getpid()), "wandb-core"], capture_output=True, text=True, check=True)
    for process in found.stdout.split():
        os.kill(int(process), signal.SIGKILL)


def runs_in(folder: Path) -> list[str]:
    """Online runs read run-NAME, offline ones offline-run-NAME."""
    return sorted(re.sub(r"run-\d+_\d+-", "run-", path.name) for path in (folder / "wandb").glob("*run-*_*"))


def three_runs(
    folder: Path, between: Callable[[], object] = lambda: None, inside: Callable[[], object] = lambda: None
) -> list[str]:
    """Runs a, b and c; something happens before b or inside it. What was said."""
    said: list[str] = []
    tracker = WandbTracker(folder, "group", TrackingConfig(), "online", said.append)
    for name in "abc":
        if name == "b":
            between()
        with tracker.run(labelled(name), {"alpha": 0.5}) as run:
            run.log_steps([STEP])
            if name == "b":
                inside()
            run.log_epoch(EPOCH)
            run.summarise({"val_accuracy": 0.75})
        assert wandb.run is None
    return said


def test_a_server_that_answers_takes_every_run_online(impatient: WandbServer, tmp_path: Path) -> None:
    assert three_runs(tmp_path) == []
    assert runs_in(tmp_path) == ["run-a", "run-b", "run-c"]


def test_an_online_run_goes_to_the_named_owner_has_an_address_and_is_amended_there(
    impatient: WandbServer, tmp_path: Path
) -> None:
    said: list[str] = []
    tracker = WandbTracker(tmp_path, "s", TrackingConfig(entity="team", project="proj"), "online", said.append)
    with tracker.run(labelled("a"), {}) as run:
        assert run.url == f"{impatient.url}/team/proj/runs/a"
    tracker.amend("a", {"rank": 1})
    assert said == []
    asked = [json.loads(body)["variables"] for body in impatient.received if b"RunFragment" in body]
    assert {(each["entity"], each["project"], each["name"]) for each in asked} == {("team", "proj", "a")}


@pytest.mark.slow
def test_a_run_that_neither_server_nor_disk_takes_is_missing_and_the_next_one_is_kept(
    impatient: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient.break_down()
    said, init, refused = list[str](), wandb.init, [True]

    def init_on_a_full_disk(**options: Any) -> Any:
        if options["mode"] == "offline" and refused:
            refused.clear()
            raise OSError("no space left")
        return init(**options)

    monkeypatch.setattr(wandb, "init", init_on_a_full_disk)
    tracker = WandbTracker(tmp_path, "group", TrackingConfig(), "online", said.append)
    with tracker.run(labelled("a"), {}) as run:
        assert run.run_id is None and run.missing == "no space left"
    assert said == []
    with tracker.run(labelled("b"), {}) as run:
        assert (run.run_id, run.missing) == ("b", None)
    assert len(said) == 1 and "kept offline" in said[0] and "no space" not in said[0]
    assert runs_in(tmp_path) == ["offline-run-b"]


@pytest.mark.slow
@pytest.mark.parametrize("happens", [break_down, stop])
def test_a_server_that_dies_between_runs_turns_them_offline(
    happens: Callable[[WandbServer], None], impatient: WandbServer, tmp_path: Path
) -> None:
    (said,) = three_runs(tmp_path, between=lambda: happens(impatient))
    assert "W&B is in trouble" in said and "wandb sync" in said and "\n" not in said
    assert runs_in(tmp_path) == ["offline-run-b", "offline-run-c", "run-a"]
    for path in (tmp_path / "wandb").glob("offline-run-*/*.wandb"):
        (row,) = history_of(inspected(path))
        assert row["L_soft"] == STEP.L_soft and row["val_accuracy"] == EPOCH.val_accuracy


@pytest.mark.slow
@pytest.mark.parametrize("happens", [break_down, stop])
def test_a_run_that_the_server_did_not_take_lies_on_disk_and_is_sent_by_wandb_sync(
    happens: Callable[[WandbServer], None], impatient: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (said,) = three_runs(tmp_path, inside=lambda: happens(impatient))
    assert "W&B is in trouble" in said
    assert runs_in(tmp_path) == ["offline-run-b", "offline-run-c", "run-a"]
    server = WandbServer()
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    unsent = sorted(map(str, (tmp_path / "wandb").glob("offline-run-*")))
    done = subprocess.run([*WANDB, "sync", *unsent], capture_output=True, text=True, check=False, cwd=tmp_path)
    server.stop()
    assert done.returncode == 0 and "Syncing 2 run(s)" in done.stderr, done.stderr
    rows = [body for body in server.received if b"wandb-history.jsonl" in body and b"L_soft" in body]
    ends = [body for body in server.received if b'"complete":true' in body]
    assert len(rows) == len(ends) == 2  # an end comes with the rows, or in a request of its own


@pytest.mark.slow
def test_a_client_that_is_killed_costs_no_run(impatient: WandbServer, tmp_path: Path) -> None:
    (said,) = three_runs(tmp_path, inside=lambda: kill_client(impatient))
    assert "W&B is in trouble" in said
    assert runs_in(tmp_path) == ["offline-run-b", "offline-run-c", "run-a"]


@pytest.mark.slow
@pytest.mark.parametrize("happens", [break_down, stop, None], ids=["500", "dead", "hangs"])
def test_a_server_that_is_silent_at_the_start_is_asked_once(
    happens: Callable[[WandbServer], None] | None, impatient: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        if happens:
            happens(impatient)
        else:
            monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        mode, why = resolved_mode(TrackingConfig())
    assert mode == "offline" and "W&B did not let us in" in why and "\n" not in why


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_full_disk_under_wandb_costs_no_run(
    mode: wandb_tracker.Mode, impatient: WandbServer, small_disk: Callable[[int], SmallDisk]
) -> None:
    disk, said = small_disk(4), list[str]()
    tracker = WandbTracker(disk.path, "group", TrackingConfig(), mode, said.append)
    for number in range(3):
        with tracker.run(labelled(f"run-{number}"), {}) as run:
            for step in range(1, 500):
                run.log_steps([replace(STEP, step=step)])
                if number == 1 and step == 100:
                    disk.fill()
            run.summarise({"val_accuracy": 0.75})
    disk.free()
    assert len(said) <= 1  # W&B may lose rows on a full disk and not tell
    with tracker.run(labelled("after"), {}) as run:
        run.log_steps([STEP])
    (path,) = disk.path.glob("wandb/offline-run-*-after/*.wandb")
    assert history_of(inspected(path))[0]["L_soft"] == STEP.L_soft


@pytest.mark.slow
@pytest.mark.parametrize("happens", [break_down, stop])
def test_a_server_that_dies_in_a_sweep_costs_no_trial(
    happens: Callable[[WandbServer], None],
    wandb_server: WandbServer,
    tiny_sweep_file: Callable[..., Path],
    tmp_path: Path,
) -> None:
    fixed = {"batch_size": 1, "epochs": 10}
    path = tiny_sweep_file(study={"trials": 2, "controls": 1}, fixed=fixed, tracking={"mode": "auto"})
    with started("run", path) as process:
        wait_for(lambda: steps_of(tmp_path / "results" / "tiny" / "trials" / "0000") > 100)
        happens(wandb_server)
        said, _ = process.communicate(timeout=180)
    assert process.returncode == 0, said
    assert said.count("W&B is in trouble") == 1 and "wandb sync" in said and "Traceback" not in said, said
    assert "online (the server answered)" in said
    rows = read_records(tmp_path / "results" / "tiny").trials
    assert [row.result.status for row in rows if row.result] == ["complete"] * 3
    offline = [name for name in runs_in(tmp_path / "results" / "tiny") if name.startswith("offline-")]
    key = read_sweep_key(tmp_path / "results" / "tiny")
    assert offline == [f"offline-run-{place}-a1-{key}" for place in ("d0", "d1", "f0")]


@pytest.mark.slow
def test_a_sweep_is_stopped_in_order_while_the_server_is_away(
    wandb_server: WandbServer, tiny_sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    study = {"trials": 1, "controls": 0, "checkpoint_seconds": 600}
    path = tiny_sweep_file(study=study, fixed={"batch_size": 1, "epochs": 40}, tracking={"mode": "auto"})
    trial = tmp_path / "results" / "tiny" / "trials" / "0000"
    with started("run", path) as process:
        wait_for(lambda: steps_of(trial) > 100)
        wandb_server.stop()
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 143 and "nothing is lost" in said, said
    assert "in trouble" not in said, said
    assert command("run", path, "tracking.mode=off").returncode == 0
    attempts = [json.loads(line) for line in (trial / "attempts.jsonl").read_text().splitlines()]
    assert attempts[1]["from_step"] > 0 and attempts[1]["steps_again"] == 0


@pytest.mark.slow
def test_a_worker_that_is_replaced_does_not_ask_a_dead_server_again(
    wandb_server: WandbServer, tiny_sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    wandb_server.stop()
    study, fixed = {"trials": 1, "controls": 0}, {"batch_size": 1, "epochs": 40}
    path = tiny_sweep_file(study=study, fixed=fixed, tracking={"mode": "online"})
    lines = lambda: [line for line in processes(tmp_path / "results").values() if "kdsweep.worker" in line]
    with started("run", path) as process:
        wait_for(lambda: steps_of(tmp_path / "results" / "tiny" / "trials" / "0000") > 100)
        (first,) = lines()
        (worker,) = [pid for pid, line in processes(tmp_path / "results").items() if line == first]
        os.kill(worker, signal.SIGKILL)
        second = wait_for(lambda: next((line for line in lines() if line != first), None))
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "--tracking" not in first and "--tracking offline" in second.replace("\0", " ")
    assert said.count("W&B did not let us in") == 1 and "Traceback" not in said, said
