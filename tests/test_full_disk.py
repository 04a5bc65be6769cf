"""A disk that fills up at any write: one message with the path, nothing half-written, and the same thing again gives the right result."""

import json
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from commands import command, ranking, started, steps_of, wait_for
from samples import CSV
from servers import SmallDisk, no_more_than
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kdsweep.config.trial import TrialConfig
from kdsweep.errors import AssetError, KDSweepError, ResultsError
from kdsweep.records.layout import TrialId, study_path
from kdsweep.records.whole_sweep import read_records
from kdsweep.records.writing import TrialFolder
from kdsweep.system.files import append_lines, drafting, naming, read_lines
from kdsweep.system.process import StopRequest
from kdsweep.system.wheels import cache_root, local_path
from kdsweep.tracking.tracker import NullRun
from kdsweep.training.checkpoints import Checkpointing
from kdsweep.training.shared import Materials
from kdsweep.training.trial import Slot, Watch, run_trial, save_student

MakeDisk = Callable[[int], SmallDisk]
Config = Callable[..., TrialConfig]


@dataclass(frozen=True)
class Line:
    text: str


def test_an_append_that_does_not_fit_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    append_lines(path, [Line("a" * 1000)])
    with no_more_than(1500), pytest.raises(ResultsError, match="steps.jsonl must be writable"):
        append_lines(path, [Line("b" * 300), Line("c" * 1000)])
    assert path.read_bytes().count(b"\n") == 1 and read_lines(path) == [{"text": "a" * 1000}]
    append_lines(path, [Line("d")])
    assert read_lines(path) == [{"text": "a" * 1000}, {"text": "d"}]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "trial" / "student"
    folder.parent.mkdir()
    for text in ("first", "second"):
        with drafting(folder) as draft:
            (draft / "model").write_text(text)
    with pytest.raises(ResultsError, match="student must be writable"), drafting(folder) as draft:
        (draft / "model").write_text("third")
        raise OSError(28, os.strerror(28))
    assert (folder / "model").read_text() == "second" and list(folder.parent.iterdir()) == [folder]


def test_a_rust_librarys_error_is_known_by_its_number_and_a_bug_stays_one(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="No space left"), naming(tmp_path):
        raise Exception("No space left on device (os error 28)")  # what tokenizers raises
    with pytest.raises(ZeroDivisionError), naming(tmp_path):
        raise ZeroDivisionError


# On a real disk ------------------------------------------------------------------------------------------------------


def refused(disk: SmallDisk, leave: int, again: Callable[[], object]) -> object:
    """Do something on a full disk: one message names a path there. And again with space: what that gives."""
    disk.fill(leave)
    with pytest.raises(KDSweepError) as caught:
        again()
    assert str(disk.path) in str(caught.value) and "No space left" in str(caught.value), caught.value
    disk.free()
    return again()


@pytest.mark.slow
@pytest.mark.parametrize("leave", [0, 4096, 16384])
def test_a_checkpoint(leave: int, small_disk: MakeDisk) -> None:
    disk = small_disk(2)
    checkpoints = Checkpointing(every_seconds=0, stop=StopRequest()).of(disk.path / "checkpoints", "this")
    checkpoints.save({"weights": torch.zeros(9999)}, step=1)
    refused(disk, leave, lambda: checkpoints.save({"weights": torch.ones(9999)}, step=2))
    found = checkpoints.latest("cpu")
    assert found is not None and found["weights"].sum() == 9999
    assert len(list((disk.path / "checkpoints").iterdir())) == 2


@pytest.mark.slow
def test_an_append(small_disk: MakeDisk) -> None:
    disk = small_disk(1)
    path = disk.path / "steps.jsonl"
    append_lines(path, [Line("a" * 3000)])
    refused(disk, 4096, lambda: append_lines(path, [Line("b" * 9000)]))
    assert [len(line["text"]) for line in read_lines(path)] == [3000, 9000]


@pytest.mark.slow
@pytest.mark.parametrize("leave", [0, 4096, 8192, 65536, 131072])
def test_a_student(leave: int, tiny_config: Config, small_disk: MakeDisk) -> None:
    disk, materials, config = small_disk(2), Materials(), tiny_config()
    student, tokenizer = materials.student(config), materials.student_tokenizer(config)
    path = disk.path / "student"
    disk.fill(leave)
    try:
        save_student(student, tokenizer, path)
    except ResultsError as error:
        assert str(path) in str(error) and "No space left" in str(error)
        assert not path.exists() and [found.name for found in disk.path.iterdir()] == ["filler"]
    disk.free()
    assert save_student(student, tokenizer, path) > 0
    loaded = AutoModelForSequenceClassification.from_pretrained(path)
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in student.state_dict().items())
    assert len(AutoTokenizer.from_pretrained(path)) > 0


@pytest.mark.slow
@pytest.mark.parametrize("leave", [0, 8192, 131072])
def test_the_teacher_and_its_logits(
    leave: int, tiny_config: Config, tiny_body: Path, small_disk: MakeDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = small_disk(2)
    monkeypatch.setenv("KDSWEEP_CACHE", str(disk.path / "cache"))
    config = tiny_config(teacher=str(tiny_body), teacher_epochs=1)
    refused(disk, leave, lambda: Materials().teacher_rows(config))
    with_space = Materials()
    rows, _ = with_space.teacher_rows(config)
    assert with_space.teacher(config).from_cache
    monkeypatch.setenv("KDSWEEP_CACHE", str(disk.path / "other"))
    afresh, _ = Materials().teacher_rows(config)
    assert torch.equal(rows.teacher_logits, afresh.teacher_logits)


@pytest.mark.slow
def test_the_logits_alone(tiny_config: Config, small_disk: MakeDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, config = small_disk(1), tiny_config()
    monkeypatch.setenv("KDSWEEP_CACHE", str(disk.path / "cache"))
    refused(disk, 0, lambda: Materials().teacher_rows(config))
    assert len(list((disk.path / "cache" / "logits").iterdir())) == 2


@pytest.mark.slow
@pytest.mark.parametrize("leave", [0, 4096, 8192])
def test_a_download(
    leave: int,
    wheel: str,  # noqa: F811
    small_disk: MakeDisk,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = small_disk(1)
    monkeypatch.setenv("KDSWEEP_CACHE", str(disk.path / "cache"))
    address = wheel.format(path="some_data/rows.csv")
    disk.fill(leave)
    with pytest.raises(AssetError) as caught:
        local_path(address)
    assert str(disk.path) in str(caught.value) and "No space left" in str(caught.value)
    assert "Traceback" not in str(caught.value) and list(cache_root().rglob("*.whl")) == []
    disk.free()
    assert Path(local_path(address)).read_text() == CSV


@pytest.mark.slow
def test_a_trial_is_raised_not_failed_and_goes_on(tiny_config: Config, small_disk: MakeDisk, tmp_path: Path) -> None:
    disk, config = small_disk(2), tiny_config()
    folder = TrialFolder(disk.path / "tiny" / "trials" / "0000")
    slot, watch = Slot(id=TrialId("distilled", 0)), Watch(on_steps=lambda _: None, on_epoch=lambda _: False)
    result = refused(disk, 65536, lambda: run_trial(config, slot, folder, Materials(), NullRun(), watch))
    elsewhere = TrialFolder(tmp_path / "tiny" / "trials" / "0000")
    undisturbed = run_trial(config, slot, elsewhere, Materials(), NullRun(), watch)
    assert getattr(result, "val_loss", None) == undisturbed.val_loss and not folder.log.exists()
    steps = [(path / "steps.jsonl").read_text() for path in (folder.path, elsewhere.path)]
    assert steps[0] == steps[1]


# A whole sweep -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("leave", "tracking"), [(0, "off"), (20480, "offline"), (204800, "off")])
def test_a_sweep_stops_with_one_message_and_the_same_command_ends_like_one_never_disturbed(
    leave: int, tracking: str, tiny_sweep_file: Callable[..., Path], tmp_path: Path, small_disk: MakeDisk
) -> None:
    study = {"trials": 2, "controls": 1, "checkpoint_seconds": 0.1}
    path = tiny_sweep_file(study=study, fixed={"batch_size": 1, "epochs": 6}, tracking={"mode": tracking})
    assert command("run", path, "tracking.mode=off").returncode == 0
    disk = small_disk(30)
    where = {"KDSWEEP_RESULTS": str(disk.path)}
    with started("run", path, **where) as process:
        wait_for(lambda: steps_of(disk.path / "tiny" / "trials" / "0000") > 100)
        disk.fill(leave)
        said, _ = process.communicate(timeout=90)
    assert process.returncode == 2 and "Traceback" not in said, said
    assert said.count("No space left") + said.count("disk is full") == 1 and str(disk.path) in said, said
    full = command("run", path, **where)
    assert full.returncode == 2 and "Traceback" not in full.stderr + full.stdout, full.stderr
    assert str(disk.path) in full.stderr + full.stdout
    disk.free()
    again = command("run", path, **where)
    assert again.returncode == 0, again.stderr
    assert ranking(disk.path, "tiny") == ranking(tmp_path / "results", "tiny")
    rows = read_records(disk.path / "tiny").trials
    assert [row.result.status for row in rows if row.result] == ["complete"] * 3
    assert all(row.has_student() for row in rows)
    with sqlite3.connect(study_path(disk.path / "tiny")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.slow
def test_a_report(tiny_sweep_file: Callable[..., Path], small_disk: MakeDisk) -> None:
    disk = small_disk(30)
    where = {"KDSWEEP_RESULTS": str(disk.path)}
    assert command("run", tiny_sweep_file(study={"trials": 1, "controls": 1}), **where).returncode == 0
    before = {found.name: found.read_bytes() for found in (disk.path / "tiny").glob("*.*")}
    disk.fill()
    full = command("report", disk.path / "tiny")
    assert full.returncode == 2 and str(disk.path) in full.stderr and "Traceback" not in full.stderr, full.stderr
    assert {found.name: found.read_bytes() for found in (disk.path / "tiny").glob("*.*")} == before
    disk.free()
    assert command("report", disk.path / "tiny").returncode == 0
    assert json.loads((disk.path / "tiny" / "leaderboard.json").read_text())
