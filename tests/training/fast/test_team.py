"""A trial over several devices: the same result as on one, the same bits again, and no process that outlives the others."""

import importlib.util
import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from kdsweep.config.trial import TrialConfig
from kdsweep.errors import ConfigError, Interrupted
from kdsweep.records.layout import TrialId
from kdsweep.records.reading import TrialRow, read_trial
from kdsweep.records.writing import TrialFolder
from kdsweep.system.process import StopRequest
from kdsweep.tracking.tracker import NullRun
from kdsweep.training.checkpoints import Checkpointing
from kdsweep.training.data.tokens import Batch, load_tokenizer
from kdsweep.training.fast import team
from kdsweep.training.fast.team import ALONE, Team, check_devices
from kdsweep.training.models import weights_sha256
from kdsweep.training.resolve import resolve
from kdsweep.training.shared import Materials
from kdsweep.training.trial import Slot, Watch, run_trial

Config = Callable[..., TrialConfig]


def run(config: TrialConfig, folder: Path, stop_at: int | None = None) -> TrialRow:
    """A trial, asked to stop when so many steps have been told; Interrupted where it was."""
    stop, told = StopRequest(), itertools.count(1)

    def on_steps(steps: Any) -> None:
        stop.requested |= stop_at is not None and any(next(told) == stop_at for _ in steps)

    watch = Watch(on_steps=on_steps, on_epoch=lambda _: False)
    keep = Checkpointing(every_seconds=1e9, stop=stop)
    run_trial(config, Slot(id=TrialId("distilled", 0)), TrialFolder(folder, "me"), Materials(), NullRun(), watch, keep)
    return read_trial(folder)


@pytest.fixture
def steady_config(tiny_config: Config, tmp_path: Path) -> Config:
    """Like `tiny_config`, but the student has no dropout, whose random places no two processes could share."""
    student: Any = Materials().student(tiny_config())
    for name in ("dropout", "attention_dropout", "seq_classif_dropout"):
        setattr(student.config, name, 0.0)
    student.save_pretrained(tmp_path / "steady")
    load_tokenizer(tiny_config().teacher, None).save_pretrained(tmp_path / "steady")
    return lambda **changes: tiny_config(student=str(tmp_path / "steady"), **changes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch_size", "relation_weight"), [(16, 0.0), (5, 0.0), (71, 0.0), (5, 2.0)]
)  # even shares; uneven ones and a last batch of 2; a last batch of 1: one has no row; each runs the teacher on its rows
def test_two_processes_train_what_one_trains(
    batch_size: int, relation_weight: float, steady_config: Config, tmp_path: Path
) -> None:
    config = steady_config(batch_size=batch_size, relation_weight=relation_weight, relation_heads=4)
    one = run(config, tmp_path / "one" / "trials" / "0000")
    two = run(replace(config, devices_per_trial=2), tmp_path / "two" / "trials" / "0000")
    assert len(one.epochs) == len(two.epochs) == 2
    assert all((epoch.L_relation > 0) == (relation_weight > 0) for epoch in one.epochs)
    for alone, shared in zip(one.epochs, two.epochs, strict=True):
        assert shared.measured() == pytest.approx(alone.measured(), rel=1e-4, abs=1e-5)
    for row in (one, two):
        saved = AutoModelForSequenceClassification.from_pretrained(row.folder / "student")
        assert row.result is not None and row.result.weights_sha256 == weights_sha256(saved)
    weights = [load_file(row.folder / "student" / "model.safetensors") for row in (one, two)]
    before = Materials().student(config).state_dict()
    without_gradient = {name for name in weights[0] if name.endswith("k_lin.bias")}  # AdamW makes steps of its rounding
    without_gradient -= {"distilbert.transformer.layer.1.attention.k_lin.bias"} if relation_weight else set()
    for name, tensor in weights[0].items():
        if name in without_gradient:
            continue
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-3, atol=2e-5)
    moved = [(weights[0][name] - before[name]).abs().max().item() for name in weights[0]]
    assert max(moved) > 100 * 2e-5  # so the tolerance above means something


@pytest.mark.slow
def test_a_shared_trial_has_the_same_bits_again_and_after_a_stop(tiny_config: Config, tmp_path: Path) -> None:
    config = tiny_config(devices_per_trial=2, epochs=3)
    whole = run(config, tmp_path / "whole" / "trials" / "0000")
    cut = tmp_path / "cut" / "trials" / "0000"
    with pytest.raises(Interrupted):
        run(config, cut, stop_at=10)  # of 15; read in tens
    assert (cut / "checkpoints").exists()
    again = run(config, cut)
    assert again.result is not None and again.result.steps_again == 0
    assert [epoch.measured() for epoch in again.epochs] == [epoch.measured() for epoch in whole.epochs]
    students = [(row.folder / "student" / "model.safetensors").read_bytes() for row in (whole, again)]
    assert students[0] == students[1]


@pytest.mark.slow
def test_a_trial_that_fails_by_itself_fails_in_every_process(tiny_config: Config, tmp_path: Path) -> None:
    row = run(tiny_config(devices_per_trial=2, learning_rate=1e30), tmp_path / "trials" / "0000")
    assert row.result is not None and row.result.status == "failed"
    assert "the loss must stay finite" in str(row.result.error)
    assert not followers()


def followers() -> list[int]:
    """Process ids of the trial's other processes."""
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "-m kdsweep.training.follower" in line]


@pytest.mark.slow
def test_a_sweep_goes_on_when_one_of_a_trials_processes_is_killed(
    tiny_sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    study = {"trials": 1, "controls": 0, "pruner": "none"}
    path = tiny_sweep_file(study=study, fixed={"devices_per_trial": 2, "epochs": 60}, finalists={"top": 0})
    line = [sys.executable, "-m", "kdsweep.run", str(path)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(line, **pipes) as process:
        trial, over = tmp_path / "results" / "tiny" / "trials" / "0000", threading.Event()
        while not (trial / "epochs.jsonl").exists() and process.poll() is None:
            over.wait(0.1)
        (follower,) = followers()
        os.kill(follower, signal.SIGKILL)
        said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert "a worker died" in said
    row = read_trial(trial)
    assert row.result is not None and (row.result.status, row.result.attempt) == ("complete", 2)
    assert len(row.epochs) == 60 and not followers()


@pytest.mark.slow
def test_no_process_outlives_a_worker_that_is_killed(tiny_sweep_file: Callable[..., Path], tmp_path: Path) -> None:
    path = tiny_sweep_file(fixed={"devices_per_trial": 2, "epochs": 200})
    with subprocess.Popen([sys.executable, "-m", "kdsweep.run", str(path)], stdout=subprocess.DEVNULL) as process:
        pause = threading.Event()
        while not (tmp_path / "results" / "tiny" / "trials" / "0000" / "epochs.jsonl").exists():
            assert process.poll() is None
            pause.wait(0.1)
        assert followers()
        process.kill()
    for _ in range(600):
        if not followers():
            break
        pause.wait(0.1)
    assert not followers()


def test_alone_a_team_changes_nothing() -> None:
    batch = Batch(torch.arange(3), {"input_ids": torch.zeros(3, 2)})
    numbers = torch.tensor([1.0, 2.0])
    ALONE.sum(numbers)
    assert ALONE.share(batch) == batch and ALONE.leads and numbers.tolist() == [1.0, 2.0]
    assert ALONE.any(True) and not ALONE.any(False)


def test_every_row_of_a_batch_goes_to_one_process() -> None:
    for rows, size in itertools.product((1, 2, 5, 16), (2, 3, 4)):
        batch = Batch(torch.arange(rows), {"input_ids": torch.arange(rows)[:, None]})
        shares = [Team(rank, size).share(batch) for rank in range(size)]
        taken = [row for share in shares if share for row in share.rows.tolist()]
        assert taken == list(range(rows))
        assert all(torch.equal(share.inputs["input_ids"][:, 0], share.rows) for share in shares if share)


def test_what_a_shared_trial_needs_is_said(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ConfigError, match=r"devices_per_trial > 1 goes with device auto, cpu or cuda.*got 2 and cuda:1"
    ):
        tiny_config(devices_per_trial=2, device="cuda:1")
    with pytest.raises(ConfigError, match=r"devices_per_trial > 0 must hold, but got 0"):
        tiny_config(devices_per_trial=0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"devices_per_trial <= 1 \(the CUDA devices that a worker sees\).*got 2"):
        check_devices(tiny_config(devices_per_trial=2, device="cuda"))
    check_devices(tiny_config(device="cuda"))
    monkeypatch.setattr(
        team, "find_spec", lambda name: None if name == "accelerate" else importlib.util.find_spec(name)
    )
    with pytest.raises(
        ConfigError, match=r"needs accelerate, which is not installed, but got 2: pip install accelerate"
    ):
        check_devices(tiny_config(devices_per_trial=2))


def test_the_processes_of_a_trial_share_the_threads(tiny_config: Config) -> None:
    fields = asdict(tiny_config(devices_per_trial=2, threads="auto"))
    assert [resolve(fields, threads=threads).threads for threads in (4, 1)] == [2, 1]
