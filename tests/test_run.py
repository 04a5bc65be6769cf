"""The command line, the worker process and its supervision, on a tiny model: what a user meets."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from searches import run_next, sweep_of

import kdsweep
from kdsweep.config.axis import Axis
from kdsweep.config.sweep import StudyConfig, SweepConfig
from kdsweep.config.sweep_file import load_sweep
from kdsweep.engine.display import SweepDisplay
from kdsweep.engine.supervisor import Supervisor
from kdsweep.engine.sweep import forget_refused, too_many
from kdsweep.engine.worker_process import WorkerProcess, WorkerStarter
from kdsweep.errors import ResultsError
from kdsweep.records.layout import TrialId, trial_folder
from kdsweep.records.reading import read_sweep, read_sweep_key
from kdsweep.records.whole_sweep import read_records
from kdsweep.records.writing import TrialFolder, start_sweep
from kdsweep.search.studies import Studies
from kdsweep.system.hardware import SPIN_COUNT

WriteSweep = Callable[..., Path]
Done = subprocess.CompletedProcess[str]
Say = Callable[..., Done]


def command(module: str, *arguments: object, **environment: str) -> Done:
    """Run one of kdsweep's commands as its user does."""
    line = [sys.executable, "-m", f"kdsweep.{module}", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, env={**os.environ, **environment})


@pytest.fixture
def called(capsys: pytest.CaptureFixture[str]) -> Say:
    """`called("run", path)`: what `command` gives, without the second that a process takes."""

    def call(module: str, *arguments: object) -> Done:
        line = [*map(str, arguments)]
        try:
            code = import_module(f"kdsweep.{module}").main(line)
        except SystemExit as end:  # argparse, after its help
            code = end.code
        said = capsys.readouterr()
        return subprocess.CompletedProcess(line, code, said.out, said.err)

    return call


@pytest.mark.parametrize(
    ("study", "workers", "said"),
    [
        ({}, 6, None),
        ({}, 8, "study.lag=3 keeps"),
        ({"controls": 0}, 4, "study.lag=3 keeps"),
        ({"lag": 0}, 3, "study.lag: 0 lets 2 trials"),
        ({"lag": None}, 99, None),
    ],
)
def test_workers_that_the_search_lets_wait_are_told(study: dict[str, Any], workers: int, said: str | None) -> None:
    fixed = {"train_file": "rows.csv", "teacher": "bert", "teacher_epochs": 1}
    sweep = SweepConfig(
        name="s",
        fixed=fixed,
        search={"alpha": Axis(low=0, high=1), "learning_rate": Axis(low=1e-5, high=1e-3)},
        study=StudyConfig(**study),
    )
    told = too_many(sweep, workers)
    assert told is None if said is None else told and said in told


def test_a_worker_that_comes_too_late_for_a_trial_is_sent_home(memory: Path) -> None:
    sweep = sweep_of(trials=1)
    studies, display = Studies(sweep, memory), SweepDisplay(Console(quiet=True), sweep, dict.fromkeys(sweep.stages, 0))
    starter = WorkerStarter(memory, workers=2, devices=[])
    supervisor = Supervisor(sweep, memory, studies, display, workers=2, starter=starter)
    line = [sys.executable, "-c", "import time; time.sleep(60)"]
    late, busy = (WorkerProcess(place=place, owner=f"w{place}", process=subprocess.Popen(line)) for place in range(2))
    busy.has_had_a_trial = True
    supervisor._workers.update({worker.owner: worker for worker in (late, busy)})
    try:
        supervisor._look()
        assert late.process.poll() is None  # a trial is left, or might be put back
        run_next(studies, "distilled", lambda *_: 0.5)
        supervisor._look()
        assert late.process.wait(10) == -signal.SIGTERM
        assert busy.process.poll() is None  # it records, and ends by itself
    finally:
        supervisor._kill()


@pytest.mark.slow
def test_a_trial_that_runs_when_the_target_is_reached_is_checkpointed_not_waited_for(
    tiny_sweep_file: WriteSweep, tmp_path: Path
) -> None:
    short, endless = ({"epochs": epochs, "learning_rate": 1e-3} for epochs in (1, 100_000))
    sections = {"fixed": {"temperature": 2.0, "alpha": 0.5, "epochs": None}, "finalists": {"top": 0}}
    space = {"epochs": {"choices": [1, 100_000]}, "temperature": None, "alpha": None}
    study = {"trials": 2, "controls": 0, "target": 0.3}
    path = tiny_sweep_file(**sections, search=space, study=study, enqueue=[endless, short])
    done = command("run", path, "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert "study.target (0.3) is reached" in done.stdout + done.stderr
    folder = tmp_path / "results" / "tiny"
    (ended,) = [row for row in read_records(folder).trials if row.result]
    assert ended.result is not None and ended.result.trial == 1
    assert list((folder / "trials" / "0000" / "checkpoints").iterdir())  # and a higher target goes on from there


@pytest.mark.slow
def test_a_sweep_runs_reports_and_does_nothing_when_done(tiny_sweep_file: WriteSweep, tmp_path: Path) -> None:
    path = tiny_sweep_file(tracking={"mode": "offline"})
    secret = "planted-secret-0451"
    first = command("run", path, KDSWEEP_TEST_TOKEN=secret, WANDB_NOTES="")
    assert first.returncode == 0, first.stderr
    folder = tmp_path / "results" / "tiny"
    made = {row.folder.relative_to(folder).as_posix() for row in read_records(folder).trials}
    assert made == {"trials/0000", "trials/0001", "controls/0000"}
    assert "val_accuracy" in first.stdout and "report.html" in first.stdout
    runs = {found.name.split("-", 3)[-1] for found in (folder / "wandb").glob("offline-run-*")}
    assert runs == {f"{name}-{read_sweep_key(folder)}" for name in ("teacher", "d0-a1", "d1-a1", "f0-a1")}
    leaked = [found for found in folder.rglob("*") if found.is_file() and secret.encode() in found.read_bytes()]
    assert leaked == []

    results = {found: found.read_bytes() for found in folder.rglob("result.json")}
    again = command("run", path)
    assert again.returncode == 0 and "all trials are done" in again.stdout
    assert {found: found.read_bytes() for found in folder.rglob("result.json")} == results

    changed = command("run", path, "fixed.epochs=1")
    assert (
        changed.returncode == 2 and "fixed.epochs: 2, now 1" in changed.stderr and "--fork NEW_NAME" in changed.stderr
    )


@pytest.mark.slow
def test_a_finished_sweep_grows_and_its_best_trial_reproduces(
    tiny_sweep_file: WriteSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    path = tiny_sweep_file()
    folder = tmp_path / "results" / "tiny"
    first = command("run", path, OMP_DISPLAY_ENV="verbose")
    assert first.returncode == 0, first.stderr
    assert f"GOMP_SPINCOUNT = '{SPIN_COUNT}'" in (folder / "worker.log").read_text(encoding="utf-8")
    grown = command("run", path, "study.trials=3")
    assert grown.returncode == 0, grown.stderr
    assert len([row for row in read_records(folder).trials if row.arm == "distilled"]) == 3
    receipt = command("reproduce", folder, OMP_DISPLAY_ENV="verbose")
    assert receipt.returncode == 0 and "identical" in receipt.stdout, receipt.stdout + receipt.stderr
    assert f"GOMP_SPINCOUNT = '{SPIN_COUNT}'" in receipt.stderr


@pytest.mark.slow
def test_a_student_loads_with_plain_transformers_and_has_the_recorded_accuracy(
    tiny_sweep_file: WriteSweep, tmp_path: Path, tiny_rows: list[tuple[str, str]]
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from kdsweep.training.data.splits import load_data

    done = command("run", tiny_sweep_file(study={"trials": 1, "controls": 0}))
    assert done.returncode == 0, done.stderr
    (row,) = read_records(tmp_path / "results" / "tiny").trials
    student = AutoModelForSequenceClassification.from_pretrained(row.folder / "student")
    tokenizer = AutoTokenizer.from_pretrained(row.folder / "student")
    validation = load_data(row.config).validation
    tokens = tokenizer(list(validation.texts), padding=True, return_tensors="pt")
    predicted = student(tokens["input_ids"], tokens["attention_mask"]).logits.argmax(-1).numpy()
    assert row.result is not None
    assert (predicted == validation.labels).mean() == row.result.val_accuracy
    assert student.config.id2label == {0: "negative", 1: "positive"}


@pytest.mark.slow
def test_a_killed_sweep_leaves_no_process_and_continues_to_the_same_leaderboard(
    tiny_sweep_file: WriteSweep, tmp_path: Path
) -> None:
    path = tiny_sweep_file(study={"trials": 3, "controls": 1}, fixed={"epochs": 6})
    undisturbed = command("run", path, "name=undisturbed")
    assert undisturbed.returncode == 0, undisturbed.stderr
    process = subprocess.Popen([sys.executable, "-m", "kdsweep.run", path], stdout=subprocess.PIPE, text=True)
    steps = tmp_path / "results" / "tiny" / "trials" / "0000" / "steps.jsonl"
    deadline = time.monotonic() + 60
    while not steps.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if process.stdout:
        process.stdout.close()
    deadline = time.monotonic() + 20
    while _workers_of(path.parent) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _workers_of(path.parent) == []
    resumed = command("run", path)
    assert resumed.returncode == 0, resumed.stderr

    def ranking(name: str) -> list[tuple[object, ...]]:
        rows = json.loads((tmp_path / "results" / name / "leaderboard.json").read_text())["trials"]
        return [(row["arm"], row["trial"], row["val_accuracy"], row["temperature"], row["alpha"]) for row in rows]

    assert ranking("tiny") == ranking("undisturbed")


@pytest.mark.slow
def test_ctrl_c_stops_in_order_with_exit_code_130_and_the_same_command_continues(
    tiny_sweep_file: WriteSweep, tmp_path: Path
) -> None:
    path = tiny_sweep_file(study={"trials": 2, "controls": 0}, fixed={"epochs": 300})
    process = subprocess.Popen([sys.executable, "-m", "kdsweep.run", path], stderr=subprocess.PIPE, text=True)
    steps = tmp_path / "results" / "tiny" / "trials" / "0000" / "steps.jsonl"
    deadline = time.monotonic() + 60
    while not steps.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130 and "nothing is lost" in said and "Traceback" not in said
    assert _workers_of(path.parent) == []
    resumed = command("run", path)
    assert resumed.returncode == 0, resumed.stderr
    rows = read_records(tmp_path / "results" / "tiny").trials
    assert [(row.trial, row.result.status if row.result else None) for row in rows] == [
        (0, "complete"),
        (1, "complete"),
    ]
    assert rows[0].result is not None and rows[0].result.attempt == 2


def _workers_of(folder: Path) -> list[str]:
    """Command lines of living workers on results below `folder`."""
    lines = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = process.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        lines += [line] if "kdsweep.worker" in line and str(folder) in line else []
    return lines


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("study.trails=3", "did you mean 'trials'"),
        ("search.alpha.high=2", "0 <= alpha <= 1"),
        ("search.temperature.low=0", "log axis starts above 0"),
        ("name=../elsewhere", "name must be"),
        ("study.storage=postgresql+psycopg://user:planted-0451@host/db", "must not hold a password"),
    ],
)
def test_a_bad_file_gives_one_message_and_exit_code_2(
    tiny_sweep_file: WriteSweep, override: str, message: str, tmp_path: Path, called: Say
) -> None:
    refused(called("run", tiny_sweep_file(), override), message, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("fixed.train_file=missing.csv", "must exist"),
        ("fixed.label_column=labels", "'labels' is missing"),
        ("fixed.label_names=[negative,maybe]", "training rows must hold two classes"),
        ("fixed.batch_size=500", "batch_size <= training rows"),
        ("fixed.teacher=missing/teacher", "sequence classifier"),
    ],
)
def test_bad_rows_or_models_give_one_message_and_exit_code_2(
    tiny_sweep_file: WriteSweep, override: str, message: str, tmp_path: Path
) -> None:
    refused(command("run", tiny_sweep_file(study={"trials": 1, "controls": 0}), override), message, tmp_path)


def refused(done: Done, message: str, folder: Path) -> None:
    """One message, exit code 2, no trial started, no secret repeated."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr and "planted" not in done.stdout + done.stderr
    assert not list((folder / "results").rglob("trials"))


@pytest.mark.slow
def test_a_loss_that_is_not_finite_fails_its_trial_and_the_sweep_goes_on(
    tiny_sweep_file: WriteSweep, tmp_path: Path
) -> None:
    search = {"learning_rate": {"choices": [1e-3, 1e30]}}
    done = command("run", tiny_sweep_file(study={"trials": 4, "controls": 0, "sampler": "random"}, search=search))
    assert done.returncode == 0, done.stderr
    rows = read_records(tmp_path / "results" / "tiny").trials
    failed = [row for row in rows if row.result and row.result.status == "failed"]
    assert len(rows) == 4 and 0 < len(failed) < 4
    assert all(row.result and "at step" in str(row.result.error) for row in failed)
    report = (tmp_path / "results" / "tiny" / "report.md").read_text()
    assert "the loss must stay finite" in report


def planned(done: Done, folder: Path) -> None:
    """Every axis, and nothing written."""
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("temperature", "alpha", "learning_rate", "[1, 8] log"))
    assert not (folder / "results").exists()


def test_a_dry_run_shows_every_axis_and_writes_nothing(
    tiny_sweep_file: WriteSweep, tmp_path: Path, called: Say
) -> None:
    planned(called("run", tiny_sweep_file(), "--dry-run"), tmp_path)


def test_a_fork_may_be_called_by_a_number(tiny_sweep_file: WriteSweep, tmp_path: Path, called: Say) -> None:
    done = called("run", tiny_sweep_file(), "--fork", "007", "--dry-run")
    assert done.returncode == 0 and "007: the plan" in done.stdout
    refused(called("run", tiny_sweep_file(), "--fork", "x" * 300), "name must have at most 64 characters", tmp_path)


@pytest.mark.parametrize("command", ["run", "worker"])
def test_a_name_that_no_shipped_sweep_has_gives_one_message_and_exit_code_2(
    command: str, tmp_path: Path, called: Say
) -> None:
    refused(called(command, "T_alhpa"), "did you mean 'T_alpha'? shipped: ", tmp_path)


def test_the_package_itself_prints_every_command_and_the_shipped_sweeps(tmp_path: Path, called: Say) -> None:
    done = called("__main__")
    package = Path(kdsweep.__file__).parent
    commands = {path.stem for path in package.glob("*.py") if 'if __name__ == "__main__":' in path.read_text()}
    for name in commands - {"__main__", "follower"}:  # a follower is started by a worker alone
        assert len([line for line in done.stdout.splitlines() if f"kdsweep {name} " in line]) == 1
    assert done.returncode == 0 and "T_alpha, clinc150" in done.stdout
    assert called("__main__", "--help").stdout == done.stdout
    assert called("__main__", "--version").stdout == f"kdsweep {kdsweep.__version__}\n"
    refused(called("__main__", "rum", "sweeps/T_alpha.yaml"), "did you mean 'run'?", tmp_path)


def taught(done: Done, module: str) -> None:
    """Help with an example."""
    assert done.returncode == 0 and f"python -m kdsweep.{module}" in done.stdout and "example" in done.stdout


@pytest.mark.parametrize("module", ["run", "report", "reproduce"])
def test_help_teaches_with_an_example(module: str, called: Say) -> None:
    taught(called(module, "--help"), module)


@pytest.mark.slow
def test_processes_of_their_own_say_the_same(tiny_sweep_file: WriteSweep, tmp_path: Path) -> None:
    path = tiny_sweep_file()
    taught(command("reproduce", "--help"), "reproduce")
    planned(command("run", path, "--dry-run"), tmp_path)
    refused(command("run", path, "study.trails=3"), "did you mean 'trials'", tmp_path)
    refused(command("report", tmp_path / "nothing", "--audit"), "holds sweep.yaml", tmp_path)


@pytest.mark.parametrize("ran", [False, True], ids=["nothing ran", "a trial began"])
def test_a_file_that_was_refused_before_its_first_trial_can_be_mended_and_run_under_its_name(
    tiny_sweep_file: WriteSweep, memory: Path, ran: bool
) -> None:
    refused = load_sweep(tiny_sweep_file(fixed={"batch_size": 1000}))
    mended = load_sweep(tiny_sweep_file())
    folder = start_sweep(memory / "tiny", refused)
    Studies(refused, folder)
    (folder / "wandb" / "offline-run-20260102_030405-teacher-k3x9qz").mkdir(parents=True)
    if ran:
        config = refused.trial("distilled", {"temperature": 2.0, "alpha": 0.5, "learning_rate": 1e-3})
        TrialFolder(trial_folder(folder, TrialId("distilled", 0))).start(config)
    forget_refused(folder, mended)
    if ran:
        with pytest.raises(ResultsError, match="batch_size: 1000, now 16"):
            start_sweep(folder, mended)
        assert read_sweep(folder) == refused
    else:
        Studies(mended, start_sweep(folder, mended))
        assert read_sweep(folder) == mended and not (folder / "wandb").exists()
