"""The audit finds every gap between W&B's runs and the records, planted in real files, and none where there is none."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import wandb
from samples import EPOCH, STEP, TEACHER_EPOCH, result_of, write_teacher, write_trial
from servers import WandbServer

from kdsweep import report
from kdsweep.config.arms import Arm
from kdsweep.config.sweep import TrackingConfig
from kdsweep.config.sweep_file import load_sweep
from kdsweep.config.trial import TrialConfig
from kdsweep.engine.worker_loop import Worker
from kdsweep.records.layout import TrialId, teacher_folder, trial_folder
from kdsweep.records.reading import read_sweep
from kdsweep.records.schema import Attempt, TrialResult
from kdsweep.records.teacher_schema import TeacherResult
from kdsweep.records.writing import TrialFolder, keep_sweep_key, start_sweep, write_sweep
from kdsweep.system.process import StopRequest
from kdsweep.tracking.audit import Audit, audit, audit_text
from kdsweep.tracking.names import RunLabel, teacher_label, trial_label
from kdsweep.tracking.wandb_tracker import Mode, WandbTracker, stop_client

KEY = "k3x9qz"
TEACHER, FIRST, SECOND, CONTROL = (f"{place}-{KEY}" for place in ("teacher", "d0-a1", "d0-a2", "f0-a1"))
STEPS = [replace(STEP, step=step, L_soft=0.1 * step) for step in range(1, 5)]
LAST = replace(EPOCH, step=4)


def track_trial(
    folder: Path, config: TrialConfig, arm: Arm, *, attempt: int = 1, finished: bool = True, mode: Mode = "offline"
) -> None:
    """A trial's record and its W&B run; an attempt that is not finished was stopped before its second step."""
    record = TrialFolder(trial_folder(folder, TrialId(arm, 0)))
    record.start(config)
    record.add_attempt(Attempt(attempt=attempt, owner="me", from_step=0, steps_again=0, started_at="x"))
    sweep = read_sweep(folder)
    assert sweep is not None
    label = trial_label(sweep, KEY, config, TrialId(arm, 0), attempt)
    with WandbTracker(folder, "tiny", TrackingConfig(), mode).run(label, asdict(config)) as run:
        run.log_steps(STEPS if finished else STEPS[:1])
        if finished:
            result = result_of(arm, 0, attempt=attempt, run_id=label.run_id, best_epoch=None)
            record.add_steps(STEPS)
            record.add_epoch(LAST)
            run.log_epoch(LAST)
            run.summarise(result.summary())
            record.finish(result)


@pytest.fixture
def swept(tmp_path: Path, tiny_config: Callable[..., TrialConfig], tiny_sweep_file: Any) -> Path:
    """A teacher, a distilled trial in its second attempt and a control, each with its W&B run."""
    folder, config = tmp_path / "results" / "tiny", tiny_config(student_layers=(0, 2))
    sweep = load_sweep(tiny_sweep_file(tracking={"mode": "offline"}))
    write_sweep(folder, sweep)
    keep_sweep_key(folder, KEY)
    result = write_teacher(folder, config, run_id=TEACHER, size_mb=0.1 + 0.2)
    label = teacher_label(sweep, KEY)
    with WandbTracker(folder, "tiny", TrackingConfig(), "offline").run(label, asdict(config)) as run:
        run.log_epoch(replace(TEACHER_EPOCH, epoch=1, step=2, val_accuracy=0.9, val_loss=0.4, train_seconds=1.0))
        run.summarise(result.summary())
    track_trial(folder, config, "distilled", attempt=1, finished=False)
    track_trial(folder, config, "distilled", attempt=2)
    track_trial(folder, config, "fine_tuned")
    stop_client()  # at times it closes a run's file after finish() has returned
    return folder


def run_folder(folder: Path, run_id: str) -> Path:
    (path,) = (folder / "wandb").glob(f"offline-run-*-{run_id}")
    return path


def tear(folder: Path, run_id: str) -> None:
    """End the file inside the summary, after which comes the last step's row with the epoch's metrics."""
    path = run_folder(folder, run_id) / f"run-{run_id}.wandb"
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"rows_per_second")])


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


def gaps(done: Audit) -> list[tuple[str, str]]:
    return [(finding.run_id, gap) for finding in done.findings for gap in finding.gaps]


def test_a_torn_line_of_a_record_is_a_gap_without_any_run_too(
    tmp_path: Path, tiny_config: Callable[..., TrialConfig], tiny_sweep_file: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "results" / "tiny"
    write_sweep(folder, load_sweep(tiny_sweep_file()))
    write_teacher(folder, tiny_config())
    trial = write_trial(folder, tiny_config(), "distilled", 0).path
    assert gaps(audit(folder)) == []
    for path in (trial / "steps.jsonl", teacher_folder(folder) / "epochs.jsonl"):
        path.write_bytes(b'{"step": 1, "epo\n' + path.read_bytes())
    assert report.main([str(folder), "--audit"]) == 2
    told = capsys.readouterr().out.splitlines()
    assert told[:2] == [
        "no run (teacher): epochs.jsonl, line 1 of the record is torn: what it held is lost here",
        "no run (distilled trial 0): steps.jsonl, line 1 of the record is torn: what it held is lost here",
    ]
    assert told[-1] == "0 runs, 2 gaps"


@pytest.mark.slow
def test_a_whole_sweep_has_no_gap_and_spare_attempts_are_named(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(swept), "--audit"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"spare attempts: {FIRST}",
        "4 runs, all rows accounted for",
    ]
    assert not (swept / "report.html").exists()


@pytest.mark.slow
def test_a_torn_run_is_a_gap_with_what_it_lost(swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tear(swept, CONTROL)
    assert report.main([str(swept), "--audit"]) == 2
    captured = capsys.readouterr()
    told = captured.out.splitlines()
    assert f"{CONTROL} (fine-tuned trial 0): torn: reached the end of an incomplete .wandb file" in told[0]
    assert told[1:4] == [f"{told[0].split(':')[0]}: {what} missing" for what in ("summary", "step 4", "epoch 1")]
    assert "the report reads them alone" in told[-2] and told[-1] == "4 runs, 4 gaps"
    assert "Traceback" not in captured.err


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"W", b"no W&B file at all"])
def test_a_run_without_a_readable_byte_is_a_gap(content: bytes, swept: Path) -> None:
    (run_folder(swept, TEACHER) / f"run-{TEACHER}.wandb").write_bytes(content)
    assert gaps(audit(swept))[0][1].startswith("torn: ")


@pytest.mark.slow
def test_a_torn_spare_attempt_is_no_gap_and_an_attempt_before_fills_what_the_last_lost(swept: Path) -> None:
    spare = run_folder(swept, FIRST) / f"run-{FIRST}.wandb"
    spare.write_bytes(spare.read_bytes()[:-50])
    assert gaps(audit(swept)) == []
    shutil.copy(run_folder(swept, SECOND) / f"run-{SECOND}.wandb", spare)
    tear(swept, SECOND)
    kinds = [gap.split(":")[0] for _, gap in gaps(audit(swept))]
    assert kinds == ["torn", "summary missing"]


@pytest.mark.slow
def test_a_run_that_is_gone_is_a_gap_of_its_record(swept: Path) -> None:
    shutil.rmtree(run_folder(swept, SECOND))
    (run_folder(swept, TEACHER) / f"run-{TEACHER}.wandb").unlink()
    found = gaps(audit(swept))
    assert (TEACHER, f"torn: run-{TEACHER}.wandb is gone") in found
    ((_, nowhere),) = [item for item in found if item[0] == SECOND]
    assert nowhere.startswith("the run is nowhere on disk") and nowhere.endswith("the record has everything")


@pytest.mark.slow
def test_a_trial_of_another_host_is_accounted_for_by_that_hosts_folder(swept: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(swept, other, symlinks=True)
    for path in (run_folder(swept, CONTROL), trial_folder(other, TrialId("distilled", 0))):
        shutil.rmtree(path)
    for name in ("steps.jsonl", "attempts.jsonl"):  # what comes out of the study has neither
        (trial_folder(swept, TrialId("fine_tuned", 0)) / name).unlink()
    ((run_id, gap),) = gaps(audit(swept))
    assert run_id == CONTROL and "ran on another host, whose folder can be named too" in gap
    assert gaps(audit(swept, other)) == []


@pytest.mark.slow
def test_a_step_that_differs_and_one_that_the_record_lacks_are_named(swept: Path) -> None:
    steps = trial_folder(swept, TrialId("distilled", 0)) / "steps.jsonl"
    edit(steps, '"L_soft": 0.2,', '"L_soft": 0.25,')
    lines = steps.read_text().splitlines(keepends=True)
    steps.write_text("".join(lines[:2] + lines[3:]))
    assert gaps(audit(swept)) == [
        (SECOND, "the record lacks step 3, which the run has"),
        (SECOND, "L_soft of step 2 is 0.2, 0.25 in steps.jsonl"),
    ]


@pytest.mark.slow
def test_steps_and_epochs_that_the_run_lacks_are_named(swept: Path) -> None:
    record = TrialFolder(trial_folder(swept, TrialId("fine_tuned", 0)))
    record.add_steps([replace(STEP, step=step) for step in (5, 6, 8)])
    record.add_epoch(replace(EPOCH, epoch=2, step=8))
    TrialFolder(teacher_folder(swept)).add_epoch(replace(TEACHER_EPOCH, epoch=2, step=4))
    assert gaps(audit(swept)) == [
        (TEACHER, "epoch 2 missing"),
        (CONTROL, "steps 5-6, 8 missing"),
        (CONTROL, "epoch 2 missing"),
    ]


@pytest.mark.slow
def test_an_epoch_a_config_and_a_summary_that_differ_are_named(swept: Path) -> None:
    there = trial_folder(swept, TrialId("distilled", 0))
    edit(there / "epochs.jsonl", '"val_accuracy": 0.7,', '"val_accuracy": 0.8,')
    edit(there / "config.yaml", "weight_decay: 0.01\n", "weight_decay: 0.02\n")
    edit(there / "result.json", '"best_epoch": null', '"best_epoch": 1')
    edit(there / "result.json", '"rows_per_second": 0,', '"rows_per_second": 5,')
    assert gaps(audit(swept)) == [
        (SECOND, "config: weight_decay is 0.01, 0.02 in the record"),
        (SECOND, "summary: best_epoch missing"),
        (SECOND, "summary: rows_per_second is 0, 5 in the record"),
        (SECOND, "val_accuracy of epoch 1 is 0.7, 0.8 in epochs.jsonl"),
    ]


@pytest.mark.slow
def test_a_run_whose_folder_name_was_taken_is_known_by_its_file(swept: Path) -> None:
    path = run_folder(swept, TEACHER)
    path.rename(path.with_name(path.name + "-1"))
    assert audit_text(audit(swept)).endswith("4 runs, all rows accounted for")


@pytest.mark.slow
def test_a_run_that_no_record_knows_is_named_and_an_unfinished_trial_is_not_compared(swept: Path) -> None:
    shutil.rmtree(trial_folder(swept, TrialId("distilled", 0)))
    (trial_folder(swept, TrialId("fine_tuned", 0)) / "result.json").unlink()
    done = audit(swept)
    unknown = "no record knows this run: its trial's folder is gone, or never was here"
    assert gaps(done) == [(FIRST, unknown), (SECOND, unknown)]
    assert f"unfinished, not compared: {CONTROL}" in audit_text(done).splitlines()


@pytest.mark.slow
def test_runs_of_another_sweep_of_that_name_are_no_attempts_of_this_one(swept: Path) -> None:
    path = run_folder(swept, FIRST)
    (path / f"run-{FIRST}.wandb").rename(path / "run-d0-a1-123456.wandb")
    assert gaps(audit(swept)) == [
        ("d0-a1-123456", "no record knows this run: its trial's folder is gone, or never was here")
    ]


@pytest.mark.slow
def test_a_folder_from_before_runs_had_a_key_has_no_gap(swept: Path, tiny_config: Callable[..., TrialConfig]) -> None:
    shutil.rmtree(swept / "wandb")
    shutil.rmtree(trial_folder(swept, TrialId("distilled", 0)))
    (swept / "sweep_key").unlink()
    teacher = teacher_folder(swept) / "result.json"
    edit(teacher, f'"{TEACHER}"', '"tiny-teacher"')
    trial = trial_folder(swept, TrialId("fine_tuned", 0)) / "result.json"
    edit(trial, f'"{CONTROL}"', '"tiny-control-0000-a2"')
    runs = {"tiny-teacher": teacher, "tiny-control-0000-a2": trial, "tiny-control-0000-a1": None}
    tracker = WandbTracker(swept, "tiny", TrackingConfig(), "offline")
    for name, record in runs.items():
        label = RunLabel(run_id=name, name=name, job_type="trial", facts={})
        config = asdict(tiny_config(student_layers=(0, 2)))
        del config["devices_per_trial"]  # as if the field were younger than the run
        with tracker.run(label, config) as run:
            if record == teacher:
                run.log_epoch(
                    replace(TEACHER_EPOCH, epoch=1, step=2, val_accuracy=0.9, val_loss=0.4, train_seconds=1.0)
                )
                run.summarise(TeacherResult(**json.loads(teacher.read_text())).summary())
            if record == trial:
                run.log_steps(STEPS)
                run.log_epoch(LAST)
                run.summarise(TrialResult(**json.loads(trial.read_text())).summary())
    assert audit_text(audit(swept)).splitlines() == [
        "spare attempts: tiny-control-0000-a1",
        "3 runs, all rows accounted for",
    ]


@pytest.mark.slow
def test_what_a_worker_leaves_has_no_gap(tiny_sweep_file: Any, tiny_body: Path, tmp_path: Path) -> None:
    fixed = {"teacher": str(tiny_body), "teacher_epochs": 6, "teacher_learning_rate": 3e-3, "teacher_batch_size": 8}
    sweep = load_sweep(tiny_sweep_file(fixed=fixed, study={"trials": 1}, tracking={"mode": "offline"}))
    folder = start_sweep(tmp_path / "results" / "tiny", sweep)
    worker = Worker(sweep, folder, "me", lambda event, **fields: None, StopRequest())
    worker.prepare()
    worker.work()
    assert audit_text(audit(folder)) == "3 runs, all rows accounted for"


@pytest.mark.slow
def test_an_online_run_is_read_from_its_log_on_disk(
    wandb_server: WandbServer, tiny_config: Callable[..., TrialConfig], tiny_sweep_file: Any, tmp_path: Path
) -> None:
    write_sweep(tmp_path / "tiny", load_sweep(tiny_sweep_file(tracking={"mode": "online"})))
    wandb.teardown()  # a client that ran before knows another server
    track_trial(tmp_path / "tiny", tiny_config(), "fine_tuned", mode="online")
    wandb.teardown()  # while it lives, the log of an online run is up to 15 seconds behind
    assert wandb_server.requests > 0 and list((tmp_path / "tiny" / "wandb").glob("run-*"))
    assert audit_text(audit(tmp_path / "tiny")) == "1 run, all rows accounted for"


@pytest.mark.slow
def test_without_tracking_there_is_nothing_to_account_for(swept: Path) -> None:
    shutil.rmtree(swept / "wandb")
    for path in swept.rglob("result.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"run_id": None}))
    assert audit_text(audit(swept)) == "0 runs, all rows accounted for"


def test_a_folder_that_is_no_sweep_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(tmp_path / "nothing"), "--audit"]) == 2
    said = capsys.readouterr().err
    assert "holds sweep.yaml" in said and "Traceback" not in said
