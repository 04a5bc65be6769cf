"""A sweep that cannot be lost: killed, cut off, suspended, filled up, and run by several workers and hosts."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from commands import command, processes, ranking, started, steps_of, wait_for
from kill_storm import storm_between
from servers import Postgres, Proxy, SmallDisk
from tiny import write_tiny_teacher

from kdsweep import report
from kdsweep.records.layout import study_path
from kdsweep.records.whole_sweep import read_records

WriteSweep = Callable[..., Path]

pytestmark = pytest.mark.slow

LONG = {"batch_size": 1, "epochs": 40}
"""A trial of some ten seconds."""


def states(storage: str, name: str = "tiny", arm: str = "distilled") -> list[str]:
    """Of an arm's trials, in order of their numbers."""
    opened = optuna.storages.RDBStorage(storage)
    trials = optuna.load_study(study_name=f"{name}-{arm}", storage=opened).get_trials(deepcopy=False)
    opened.engine.dispose()
    assert [trial.number for trial in trials] == list(range(len(trials)))
    return [trial.state.name for trial in trials]


def test_ten_kills_lose_nothing_on_sqlite(tmp_path: Path) -> None:
    teacher, rows = write_tiny_teacher(tmp_path)
    storm = storm_between(tmp_path, teacher, rows, kills=10, trials=6, epochs=10, storage=None, seed=1)
    assert storm.kills == 10 and storm.is_clean(), storm.text()


def test_ten_kills_lose_nothing_on_postgresql(tmp_path: Path, postgres: Postgres) -> None:
    teacher, rows = write_tiny_teacher(tmp_path)
    storm = storm_between(tmp_path, teacher, rows, kills=10, trials=6, epochs=10, storage=postgres.url, seed=2)
    assert storm.kills == 10 and storm.is_clean(), storm.text()


def test_two_workers_share_a_sweep_with_the_leaderboard_of_one_and_another_run_is_refused(
    tiny_sweep_file: WriteSweep, tmp_path: Path
) -> None:
    study = {"trials": 6, "controls": 3, "pruner": "median"}
    sweep = {"study": study, "fixed": {"epochs": 20}, "finalists": {"top": 1, "seeds": 1}}
    path = tiny_sweep_file(**sweep)
    with started("run", path, "--workers", "2") as process:
        wait_for(lambda: len(list((tmp_path / "results" / "tiny" / "trials").glob("*"))) >= 2)
        second = command("run", path)
        assert second.returncode == 2 and f"process {process.pid} works on it" in second.stderr
        said, _ = process.communicate()
        assert process.returncode == 0, said
    assert command("run", tiny_sweep_file("alone", **sweep)).returncode == 0
    assert ranking(tmp_path / "results", "tiny") == ranking(tmp_path / "results", "alone")
    owners = {
        (row.folder / "attempts.jsonl").read_text().split('"owner"')[1]
        for row in read_records(tmp_path / "results" / "tiny").trials
    }
    assert len(owners) >= 2


def test_a_worker_that_is_killed_is_replaced_and_its_trial_continued(
    tiny_sweep_file: WriteSweep, tmp_path: Path
) -> None:
    path = tiny_sweep_file(study={"trials": 1, "controls": 0, "checkpoint_seconds": 0.1}, fixed=LONG)
    trial = tmp_path / "results" / "tiny" / "trials" / "0000"
    with started("run", path) as process:
        wait_for(lambda: steps_of(trial) > 300)
        (worker,) = [pid for pid, line in processes(tmp_path / "results").items() if "kdsweep.worker" in line]
        os.kill(worker, signal.SIGKILL)
        said, _ = process.communicate()
    assert process.returncode == 0 and "a worker died (SIGKILL); trial 0 is tried again" in said
    (row,) = read_records(tmp_path / "results" / "tiny").trials
    attempts = [json.loads(line) for line in (row.folder / "attempts.jsonl").read_text().splitlines()]
    assert row.result is not None and row.result.attempt == 2
    assert attempts[1]["from_step"] > 0 and attempts[1]["steps_again"] < 300


def test_a_trial_whose_worker_always_dies_fails_and_the_sweep_goes_on(
    tiny_sweep_file: WriteSweep, tmp_path: Path
) -> None:
    path = tiny_sweep_file(study={"trials": 2, "controls": 0, "max_attempts": 2}, fixed=LONG)
    trials = tmp_path / "results" / "tiny" / "trials"
    with started("run", path) as process:
        for attempt in (1, 2):
            lines = lambda: (
                (trials / "0000" / "attempts.jsonl").read_text().count("\n")
                if (trials / "0000" / "attempts.jsonl").exists()
                else 0
            )
            wait_for(lambda: lines() == attempt)  # noqa: B023
            (worker,) = [pid for pid, line in processes(tmp_path / "results").items() if "kdsweep.worker" in line]
            os.kill(worker, signal.SIGKILL)
        said, _ = process.communicate()
    assert process.returncode == 0, said
    assert states(f"sqlite:///{study_path(tmp_path / 'results' / 'tiny')}") == ["FAIL", "COMPLETE"]
    rows = read_records(tmp_path / "results" / "tiny").trials
    assert [row.result.status for row in rows if row.result] == ["failed", "complete"]
    assert rows[0].result is not None and "died with this one 2 times" in str(rows[0].result.error)


@pytest.mark.parametrize(("signals", "code"), [([signal.SIGTERM], 143), ([signal.SIGINT, signal.SIGINT], 137)])
def test_a_signal_checkpoints_and_a_second_one_stops_at_once(
    signals: list[signal.Signals], code: int, tiny_sweep_file: WriteSweep, tmp_path: Path
) -> None:
    path = tiny_sweep_file(study={"trials": 1, "controls": 0}, fixed=LONG)
    trial = tmp_path / "results" / "tiny" / "trials" / "0000"
    with started("run", path) as process:
        wait_for(lambda: steps_of(trial) > 300)
        if len(signals) > 1:  # a worker that does not answer
            (worker,) = [pid for pid, line in processes(tmp_path / "results").items() if "kdsweep.worker" in line]
            os.kill(worker, signal.SIGSTOP)
        for number in signals:
            process.send_signal(number)
            time.sleep(0.5)  # two at once would be one
        said, _ = process.communicate(timeout=30)
    assert process.returncode == code and "Traceback" not in said and "nothing is lost" in said
    assert processes(tmp_path / "results") == {}
    assert command("run", path).returncode == 0
    attempts = [json.loads(line) for line in (trial / "attempts.jsonl").read_text().splitlines()]
    if code == 143:
        assert attempts[1]["from_step"] > 0 and attempts[1]["steps_again"] == 0


def test_the_time_limit_stops_in_order_and_the_same_command_goes_on(
    tiny_sweep_file: WriteSweep, tmp_path: Path
) -> None:
    path = tiny_sweep_file(study={"trials": 1, "controls": 0}, fixed={"batch_size": 1, "epochs": 100})
    first = command("run", path, "study.timeout_minutes=0.2")
    assert first.returncode == 0 and "study.timeout_minutes (0.2) is up" in first.stdout
    assert read_records(tmp_path / "results" / "tiny").trials[0].result is None
    again = command("run", path, "study.timeout_minutes=0.2")  # of the whole study, not of a run
    assert again.returncode == 0 and "study.timeout_minutes (0.2) is up" in again.stdout
    trial = tmp_path / "results" / "tiny" / "trials" / "0000"
    assert len((trial / "attempts.jsonl").read_text().splitlines()) == 1
    second = command("run", path, "study.timeout_minutes=null")
    assert second.returncode == 0
    assert json.loads((trial / "attempts.jsonl").read_text().splitlines()[1])["steps_again"] == 0
    assert read_records(tmp_path / "results" / "tiny").trials[0].result is not None


def test_a_target_ends_the_sweep(tiny_sweep_file: WriteSweep, tmp_path: Path) -> None:
    done = command("run", tiny_sweep_file(study={"trials": 5, "controls": 5, "target": 0.5}))
    assert done.returncode == 0, done.stderr
    assert len(read_records(tmp_path / "results" / "tiny").trials) == 1
    assert (
        "study.target (0.5) is reached"
        in command("run", tiny_sweep_file(study={"trials": 5, "controls": 5, "target": 0.5})).stdout
    )


def test_a_duplicate_of_a_finite_space_is_answered_from_the_record(tiny_sweep_file: WriteSweep, tmp_path: Path) -> None:
    search = {"alpha": {"choices": [0.0, 1.0]}}
    fixed = {"learning_rate": 1e-3, "epochs": 3}
    path = tiny_sweep_file(search=None, study={"trials": 6, "controls": 0, "lag": 0}, fixed=fixed)
    content = path.read_text().replace("search: null", f"search: {json.dumps(search)}")
    path.write_text(content)
    done = command("run", path)
    assert done.returncode == 0, done.stderr
    results = [row.result for row in read_records(tmp_path / "results" / "tiny").trials if row.result]
    assert [result.status for result in results].count("complete") == 2
    duplicates = [result for result in results if result.status == "duplicate"]
    assert len(duplicates) == 4 and "the same configuration as trial" in str(duplicates[0].error)


def test_a_full_disk_is_told_by_the_path_and_the_same_command_continues(
    tiny_sweep_file: WriteSweep, tmp_path: Path, small_disk: Callable[[int], SmallDisk]
) -> None:
    path = tiny_sweep_file(study={"trials": 2, "controls": 0, "checkpoint_seconds": 0.1}, fixed=LONG)
    assert command("run", path).returncode == 0
    disk = small_disk(30)
    where = {"KDSWEEP_RESULTS": str(disk.path)}
    with started("run", path, **where) as process:
        wait_for(lambda: steps_of(disk.path / "tiny" / "trials" / "0000") > 300)
        disk.fill()
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 2 and "must be" in said and str(disk.path) in said and "Traceback" not in said, said
    full = command("run", path, **where)
    assert full.returncode == 2 and str(disk.path) in full.stderr + full.stdout and "Traceback" not in full.stderr, (
        full.stderr
    )
    disk.free()
    again = command("run", path, **where)
    assert again.returncode == 0, again.stderr
    assert ranking(disk.path, "tiny") == ranking(tmp_path / "results", "tiny")


def test_torn_bytes_at_the_end_of_any_file_are_repaired_or_refused_by_name(
    tiny_sweep_file: WriteSweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tiny_sweep_file(study={"trials": 1, "controls": 1})
    assert command("run", path).returncode == 0
    folder = tmp_path / "results" / "tiny"
    before = ranking(tmp_path / "results", "tiny")
    files = [
        found
        for found in folder.rglob("*")
        if found.is_file() and "student" not in found.parts and "locks" not in found.parts
    ]
    refused = []
    for found in files:
        content = found.read_bytes()
        for tail in (b"\0" * 64, b'{"step": 1, "epo'):
            found.write_bytes(content + tail)
            code, said = report.main([str(folder)]), capsys.readouterr()
            assert "Traceback" not in said.err, f"{found}: {said.err}"
            if code == 2:
                assert str(found) in said.err, f"{found}: {said.err}"
                refused.append(found.name)
            else:
                assert code == 0 and ranking(tmp_path / "results", "tiny") == before, found
                assert ("Torn lines" in said.out) == (found.name in ("steps.jsonl", "epochs.jsonl")), found
            if found.name not in ("leaderboard.json", "leaderboard.csv", "report.md", "report.html"):
                found.write_bytes(content)
    assert {"config.yaml", "result.json", "sweep.yaml"} == set(refused)


QUEUE = """
import sys
from pathlib import Path
from kdsweep.records.schema import missing_result
from kdsweep.search.studies import Studies
from kdsweep.config.axis import Axis
from kdsweep.config.sweep import FinalistsConfig, StudyConfig, SweepConfig
from dataclasses import replace

folder, storage, owner = Path(sys.argv[1]), sys.argv[2] or None, sys.argv[3]
queue = tuple({"alpha": number / 256} for number in range(240))
sweep = SweepConfig(
    name="queue", fixed={"train_file": "rows.csv", "teacher": "bert", "teacher_epochs": 1}, search={"alpha": Axis(low=0.0, high=1.0)},
    study=StudyConfig(trials=240, controls=0, sampler="random", pruner="none", lag=None, storage=storage), enqueue=queue,
    finalists=FinalistsConfig(top=0),
)
studies = Studies(sweep, folder, owner)
while (assignment := studies.take()) is not None:
    with (folder / f"{assignment.id.number:04d}-{owner}").open("x") as file:
        file.write(str(assignment.params["alpha"]))
    result = missing_result("distilled", assignment.id.number, status="complete", error="", attempt=1)
    assert studies.finish(assignment, replace(result, val_accuracy=0.5), {})
"""
"""A process that runs queued trials by leaving a file for each."""


@pytest.mark.parametrize("server", [False, True], ids=["sqlite", "postgresql"])
def test_240_queued_trials_run_exactly_once_by_six_workers(
    server: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    storage = request.getfixturevalue("postgres").url if server else ""
    lines = [[sys.executable, "-c", QUEUE, str(tmp_path), storage, str(owner)] for owner in range(6)]
    running = [subprocess.Popen(line) for line in lines]
    assert [process.wait() for process in running] == [0] * 6
    made = sorted(path.name for path in tmp_path.glob("[0-9]*-[0-9]"))
    assert [int(name.split("-")[0]) for name in made] == list(range(240))
    assert sorted(float((tmp_path / name).read_text()) for name in made) == [number / 256 for number in range(240)]
    assert len({name.split("-")[1] for name in made}) > 1


# Several hosts -------------------------------------------------------------------------------------------------------


def test_two_hosts_without_a_shared_folder_share_a_sweep_and_each_reports_all_of_it(
    tiny_sweep_file: WriteSweep, tmp_path: Path, postgres: Postgres
) -> None:
    study = {"trials": 6, "controls": 2, "sampler": "random", "storage": postgres.url, "heartbeat_seconds": 2}
    path = tiny_sweep_file(study=study, fixed={"epochs": 20})
    hosts = [{"KDSWEEP_RESULTS": str(tmp_path / host)} for host in ("a", "b")]
    with started("run", path, **hosts[0]) as first, started("worker", path, **hosts[1]) as second:
        said = [process.communicate(timeout=200)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), said
    rows = read_records(tmp_path / "a" / "tiny").trials
    assert len(rows) == 8 and all(row.result for row in rows)
    made = [
        len([row for row in read_records(tmp_path / host / "tiny").trials if (row.folder / "steps.jsonl").exists()])
        for host in "ab"
    ]
    assert sum(made) == 8 and min(made) >= 1
    assert states(postgres.url) == ["COMPLETE"] * 6


def test_a_database_that_restarts_in_the_middle_of_a_trial_costs_nothing(
    tiny_sweep_file: WriteSweep, tmp_path: Path, postgres: Postgres
) -> None:
    path = tiny_sweep_file(study={"trials": 2, "controls": 0, "storage": postgres.url}, fixed=LONG)
    trial = tmp_path / "results" / "tiny" / "trials" / "0000"
    with started("run", path) as process:
        wait_for(lambda: steps_of(trial) > 200)
        postgres.stop()
        before = steps_of(trial)
        wait_for(lambda: steps_of(trial) > before + 200)  # training goes on
        postgres.start()
        said, _ = process.communicate(timeout=200)
    assert process.returncode == 0 and "the database does not answer" in said, said
    rows = read_records(tmp_path / "results" / "tiny").trials
    assert [row.result.attempt for row in rows if row.result] == [1, 1]
    assert states(postgres.url) == ["COMPLETE"] * 2


def test_a_host_that_is_cut_off_goes_on_and_is_told_later_or_taken_over(
    tiny_sweep_file: WriteSweep, tmp_path: Path, postgres: Postgres
) -> None:
    """Host b reaches the database through a proxy, which is cut for longer than the grace period."""
    study = {"trials": 3, "controls": 0, "sampler": "random", "storage": postgres.url, "heartbeat_seconds": 1}
    path = tiny_sweep_file(study=study, fixed=LONG)
    with Proxy(postgres.port) as proxy:
        beyond = postgres.url.replace(f":{postgres.port}/", f":{proxy.port}/")
        with started("worker", path, f"study.storage={beyond}", KDSWEEP_RESULTS=str(tmp_path / "b")) as far:
            trial = wait_for(lambda: next((tmp_path / "b").glob("tiny/trials/*"), None))
            wait_for(lambda: steps_of(trial) > 100)
            proxy.cut()
            near = command("run", path, KDSWEEP_RESULTS=str(tmp_path / "a"))
            proxy.restore()
            said, _ = far.communicate(timeout=120)
    assert near.returncode == 0, near.stderr
    assert far.returncode == 0 and "the database does not answer" in said, said
    assert states(postgres.url) == ["COMPLETE"] * 3
    assert len(read_records(tmp_path / "a" / "tiny").trials) == 3


def test_a_worker_suspended_past_the_grace_period_lives_on_when_it_wakes(
    tiny_sweep_file: WriteSweep, tmp_path: Path, postgres: Postgres
) -> None:
    study = {"trials": 2, "controls": 0, "sampler": "random", "storage": postgres.url, "heartbeat_seconds": 1}
    path = tiny_sweep_file(study=study, fixed=LONG)
    trial = tmp_path / "results" / "tiny" / "trials" / "0000"
    with started("worker", path) as sleeper:
        wait_for(lambda: steps_of(trial) > 100)
        sleeper.send_signal(signal.SIGSTOP)
        other = command("run", path)  # the same results folder: it takes the trial over
        sleeper.send_signal(signal.SIGCONT)
        said, _ = sleeper.communicate(timeout=120)
    assert other.returncode == 0, other.stderr
    assert sleeper.returncode == 0 and "taken over" in said, said
    assert states(postgres.url) == ["COMPLETE"] * 2
    rows = read_records(tmp_path / "results" / "tiny").trials
    assert [row.result.status for row in rows if row.result] == ["complete"] * 2


def test_a_lone_worker_is_refused_without_a_server_and_stops_in_order_with_one(
    tiny_sweep_file: WriteSweep, tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(
        "WANDB_SERVICE", raising=False
    )  # a client that this process started: the worker is to have its own
    alone = command("worker", tiny_sweep_file())
    assert alone.returncode == 2 and "python -m kdsweep.run starts the workers" in alone.stderr
    study = {"trials": 1, "controls": 0, "storage": postgres.url}
    path = tiny_sweep_file(study=study, fixed=LONG, tracking={"mode": "offline"})
    trial = tmp_path / "results" / "tiny" / "trials" / "0000"
    clients = lambda: [pid for pid, line in processes(tmp_path / "results").items() if "wandb-core" in line]
    with started("worker", path) as process:
        wait_for(lambda: steps_of(trial) > 200 and bool(clients()))
        for pid in (*clients(), process.pid):  # as Slurm does: every process of the job
            os.kill(pid, signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 130 and "goes on wherever it is taken next" in said
    assert "in trouble" not in said, said
    assert states(postgres.url) == ["WAITING"]
    again = command("worker", path)
    assert again.returncode == 0 and "Warning" not in said + again.stdout + again.stderr, again.stderr
    attempts = [json.loads(line) for line in (trial / "attempts.jsonl").read_text().splitlines()]
    assert attempts[1]["from_step"] > 0 and attempts[1]["steps_again"] == 0


def test_the_password_of_a_database_reaches_no_file(
    tiny_sweep_file: WriteSweep, tmp_path: Path, postgres: Postgres
) -> None:
    secret = "planted-password-0451"
    path = tiny_sweep_file(study={"trials": 1, "controls": 0, "storage": postgres.url}, tracking={"mode": "offline"})
    done = command("run", path, PGPASSWORD=secret)
    assert done.returncode == 0, done.stderr
    files = [found for found in tmp_path.rglob("*") if found.is_file()]
    assert [found for found in files if secret.encode() in found.read_bytes()] == []
    gone = command(
        "run", path, "name=other", f"study.storage={postgres.url.replace(str(postgres.port), '1')}", PGPASSWORD=secret
    )
    assert gone.returncode == 2 and "must be a PostgreSQL that answers" in gone.stderr and secret not in gone.stderr
