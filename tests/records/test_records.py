"""What lies on disk: whole or absent, and what was cut off says so."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import EPOCH, STEP, result_of, write_teacher, write_trial

from kdsweep.config.arms import PRIMARY
from kdsweep.config.sweep_file import load_sweep
from kdsweep.config.trial import FIELD_TYPES, TrialConfig
from kdsweep.config.trial_file import read_trial_config
from kdsweep.config.yaml import plain_values
from kdsweep.errors import ConfigError, ResultsError
from kdsweep.records.layout import TrialId, results_root, trial_folder
from kdsweep.records.reading import (
    read_predictions,
    read_steps,
    read_sweep,
    read_trial,
    read_trials,
    read_validation_labels,
    torn_lines,
)
from kdsweep.records.schema import (
    VALIDATED_IN,
    Attempt,
    StepMetrics,
)
from kdsweep.records.whole_sweep import read_records
from kdsweep.records.writing import TrialFolder, drop_students, write_sweep
from kdsweep.system.files import write_atomically, write_json

Config = Callable[..., TrialConfig]


def test_a_trial_comes_back_bit_for_bit(tmp_path: Path, tiny_config: Config) -> None:
    config = tiny_config(student_layers=(0, 2), learning_rate=0.1 + 0.2)
    written = write_trial(tmp_path, config, "fine_tuned", 7)
    written.write_predictions(np.array([1, 0, 1]))
    assert written.path == tmp_path / "controls" / "0007"
    row = read_trial(written.path)
    assert (row.arm, row.trial, row.config, row.epochs) == ("fine_tuned", 7, config, (EPOCH,))
    assert row.result == result_of("fine_tuned", 7)
    assert row.has_student()
    assert read_steps(written.path) == [STEP]
    predictions = read_predictions(written.path)
    assert predictions is not None and predictions.tolist() == [1, 0, 1] and predictions.dtype == np.int64


def test_a_config_that_says_otherwise_than_what_ran_is_an_edit_of_that_field_alone(
    tmp_path: Path, tiny_config: Config
) -> None:
    ran = plain_values(dataclasses.asdict(tiny_config()))
    row = read_trial(write_trial(tmp_path, tiny_config(), "distilled", 0).path)
    edits = lambda **said: dataclasses.replace(row, result=result_of("distilled", 0, config={**ran, **said})).edits()
    assert edits() == []
    for name in FIELD_TYPES:
        assert [edit.split(", now ")[0] for edit in edits(**{name: "other"})] == [f"{name}: other"]


def test_a_reproduction_must_give_all_but_the_clock() -> None:
    measured = set(EPOCH.measured())
    assert measured == {"epoch", "step", "L_soft", "L_hard", "L_total", "L_relation", *VALIDATED_IN["single_label"]}


def test_w_and_b_gets_the_loss_on_relations_where_there_is_one_and_older_steps_have_none() -> None:
    older = {"step": 1, "epoch": 1, "L_soft": 0.5, "L_hard": 0.25, "L_total": 0.375, "learning_rate": 1e-4}
    assert StepMetrics(**older).logged() == older
    assert StepMetrics(**older, L_relation=0.75).logged() == {**older, "L_relation": 0.75}


def test_wandbs_summary_has_no_name_of_the_history_which_would_overwrite_it() -> None:
    assert not set(result_of("distilled", 0).summary()) & set(dataclasses.asdict(EPOCH))
    assert {"best_val_accuracy", "seconds", "steps", "status"} <= set(result_of("distilled", 0).summary())


def test_a_failed_write_leaves_the_old_text_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    write_atomically(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResultsError, match=f"{path} must be writable, but: No space left on device"):
        write_atomically(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    write_atomically(path, "newer ü")
    assert path.read_text(encoding="utf-8") == "newer ü"
    assert [found.name for found in tmp_path.iterdir() if found.name.endswith("json")] == ["result.json"]


def test_numbers_that_json_does_not_know_are_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"loss": 1.0})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"loss": float("nan")})
    assert json.loads(path.read_text()) == {"loss": 1.0}


def test_a_folder_without_result_is_unfinished_and_keeps_what_was_done(tmp_path: Path, tiny_config: Config) -> None:
    folder = TrialFolder(trial_folder(tmp_path, TrialId("distilled", 0)))
    folder.start(tiny_config())
    folder.add_epoch(EPOCH)
    (row,) = read_trials(tmp_path, "distilled")
    assert row.result is None and row.epochs == (EPOCH,) and not row.has_student()


def test_the_unfinished_last_line_of_a_cut_off_trial_is_left_out(tmp_path: Path, tiny_config: Config) -> None:
    folder = TrialFolder(trial_folder(tmp_path, TrialId("distilled", 0)))
    folder.start(tiny_config())
    folder.add_steps([STEP, dataclasses.replace(STEP, step=2)])
    folder.add_epoch(EPOCH)
    for name in ("steps.jsonl", "epochs.jsonl"):
        with (folder.path / name).open("a") as file:
            file.write('{"step": 3, "epo')
    assert [step.step for step in read_steps(folder.path)] == [1, 2]
    assert read_trial(folder.path).epochs == (EPOCH,)


def test_torn_lines_are_named_and_left_out_and_a_half_written_last_one_only_once_the_trial_is_over(
    tmp_path: Path, tiny_config: Config
) -> None:
    folder = TrialFolder(trial_folder(tmp_path, TrialId("distilled", 0)))
    folder.start(tiny_config())
    folder.add_steps([dataclasses.replace(STEP, step=step) for step in range(1, 4)])
    folder.add_epoch(EPOCH)
    path = folder.path / "steps.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines) + b'{"step": 4, "epo')
    assert torn_lines(folder.path) == []
    path.write_bytes(lines[0] + lines[1][:40] + b"\n" + lines[2] + b'{"step": 4, "epo')
    assert torn_lines(folder.path) == ["steps.jsonl, line 2"]
    with pytest.raises(ResultsError, match=f"{path}, line 2 must be a JSON object, but is torn"):
        folder.cut_back(step=3, epochs=1)  # a trial that goes on does not lose it quietly
    (folder.path / "epochs.jsonl").write_bytes(b"\0" * 64 + b"\n")
    folder.finish(result_of("distilled", 0))
    assert torn_lines(folder.path) == ["steps.jsonl, line 2", "steps.jsonl, line 4", "epochs.jsonl, line 1"]
    assert [step.step for step in read_steps(folder.path)] == [1, 3] and read_trial(folder.path).epochs == ()


def test_what_an_older_version_left_cut_off_is_continued(tmp_path: Path, tiny_config: Config) -> None:
    folder = TrialFolder(tmp_path / "trials" / "0000")
    folder.start(tiny_config())
    written = folder.path / "config.yaml"
    before = written.read_text(encoding="utf-8").replace("csv_delimiter: null\n", "")  # which it did not know
    written.write_text(before, encoding="utf-8")
    folder.checkpoints.mkdir()
    folder.start(tiny_config())
    assert folder.checkpoints.exists() and folder.config_text() == before
    for other in (before.replace("epochs: 2", "epochs: 3"), before + "newer: 1\n"):
        folder.checkpoints.mkdir(exist_ok=True)
        written.write_text(other, encoding="utf-8")
        folder.start(tiny_config())
        assert not folder.checkpoints.exists()


def test_an_attempt_begins_with_an_empty_folder(tmp_path: Path, tiny_config: Config) -> None:
    folder = write_trial(tmp_path, tiny_config(), "distilled", 0)
    folder.start(tiny_config(alpha=0.25))
    assert [path.name for path in folder.path.iterdir()] == ["config.yaml"]
    assert read_trial_config(folder.path / "config.yaml").alpha == 0.25
    assert read_steps(folder.path) == [] and read_predictions(folder.path) is None


@pytest.mark.parametrize("text", ['{"arm": "distil', "", "[1]", '{"arm": "distilled"}', '{"unknown": 1}', "null"])
def test_a_torn_result_is_named_with_the_way_out(text: str, tmp_path: Path, tiny_config: Config) -> None:
    folder = write_trial(tmp_path, tiny_config(), "distilled", 3)
    path = folder.path / "result.json"
    path.write_text(text)
    with pytest.raises(ResultsError, match=f"{path} must be a TrialResult .*move it away"):
        read_trial(folder.path)


def test_a_torn_config_is_named(tmp_path: Path, tiny_config: Config) -> None:
    folder = write_trial(tmp_path, tiny_config(), "distilled", 3)
    (folder.path / "config.yaml").write_text("teacher: [")
    with pytest.raises(ConfigError, match=str(folder.path)):
        read_trial(folder.path)


@pytest.mark.parametrize("name", ["trials/abc", "elsewhere/0001", "trials", "trials/0009"])
def test_a_folder_that_is_no_trial_is_refused(name: str, tmp_path: Path, tiny_config: Config) -> None:
    write_trial(tmp_path, tiny_config(), "distilled", 1)
    with pytest.raises(ResultsError, match="a trial's folder reads results/NAME/trials/0007"):
        read_trial(tmp_path / name)


def test_results_that_cannot_be_written_are_named(tmp_path: Path, tiny_config: Config, tiny_sweep_file: Any) -> None:
    blocked = tmp_path / "a_file"
    blocked.touch()
    with pytest.raises(ResultsError, match=f"{blocked}.* must be writable, but: Not a directory"):
        TrialFolder(trial_folder(blocked, TrialId("distilled", 0))).start(tiny_config())
    with pytest.raises(ResultsError, match=f"{blocked} must be writable, but: File exists"):
        write_sweep(blocked, load_sweep(tiny_sweep_file()))
    with pytest.raises(ResultsError, match="gone.* must be writable, but: No such file"):
        TrialFolder(tmp_path / "gone").add_steps([STEP])


def test_dropped_students_are_gone_and_every_record_stays(tmp_path: Path, tiny_config: Config) -> None:
    for trial in range(3):
        write_trial(tmp_path, tiny_config(), "distilled", trial)
        write_trial(tmp_path, tiny_config(), "fine_tuned", trial)
    drop_students(trial_folder(tmp_path, TrialId("distilled", trial)) for trial in (0, 2, 7))
    rows = read_trials(tmp_path, "distilled")
    assert [row.trial for row in rows if row.has_student()] == [1]
    assert all(row.result for row in rows) and len(rows) == 3
    assert all(row.has_student() for row in read_trials(tmp_path, "fine_tuned"))


def test_a_sweeps_records_come_back_by_arm_and_number(
    tmp_path: Path, tiny_config: Config, tiny_sweep_file: Any
) -> None:
    sweep = load_sweep(tiny_sweep_file())
    folder = tmp_path / "results" / "tiny"
    assert read_sweep(folder) is None
    write_sweep(folder, sweep)
    for arm in PRIMARY:
        for trial in (10, 2, 0):
            write_trial(folder, tiny_config(), arm, trial)
    (folder / "trials" / "0011").mkdir()  # made, and cut off before its config
    found = read_records(folder)
    assert found.sweep == sweep and found.teacher is None
    assert [(row.arm, row.trial) for row in found.trials] == [(arm, trial) for arm in PRIMARY for trial in (0, 2, 10)]


def test_the_teachers_record_comes_back(tmp_path: Path, tiny_config: Config, tiny_sweep_file: Any) -> None:
    folder = tmp_path / "results" / "tiny"
    write_sweep(folder, load_sweep(tiny_sweep_file()))
    assert read_validation_labels(folder) is None and read_records(folder).teacher is None
    assert write_teacher(folder, tiny_config()) == read_records(folder).teacher
    labels = read_validation_labels(folder)
    assert labels is not None and labels.tolist() == [0, 1, 1]


# Several hosts' folders ----------------------------------------------------------------------------------------------


@pytest.fixture
def hosts(tmp_path: Path, tiny_sweep_file: Any) -> tuple[Path, Path]:
    """Two folders of one sweep, without trials."""
    for name in ("here", "there"):
        write_sweep(tmp_path / name, load_sweep(tiny_sweep_file()))
    return tmp_path / "here", tmp_path / "there"


def test_another_hosts_folder_adds_trials_that_are_missing_or_unfinished_here(
    hosts: tuple[Path, Path], tiny_config: Config
) -> None:
    here, there = hosts
    write_trial(here, tiny_config(), "distilled", 0)
    TrialFolder(trial_folder(here, TrialId("distilled", 1))).start(tiny_config())
    write_trial(there, tiny_config(), "distilled", 1, attempt=2)
    write_trial(there, tiny_config(), "fine_tuned", 3)
    TrialFolder(trial_folder(there, TrialId("distilled", 0))).start(tiny_config())
    found = read_records(here, there)
    assert [(row.arm, row.trial, row.folder.parent.parent) for row in found.trials] == [
        ("distilled", 0, here),
        ("distilled", 1, there),
        ("fine_tuned", 3, there),
    ]
    assert all(row.result for row in found.trials)
    assert (found.folder, found.others, found.folders, found.spares) == (here, (there,), (here, there), ())
    assert [row.folder for row in read_records(here, here / ".." / "here").trials] == [
        row.folder for row in read_records(here).trials
    ]


def test_of_a_trial_known_from_the_study_the_folder_counts_where_it_ran(
    hosts: tuple[Path, Path], tiny_config: Config
) -> None:
    here, there = hosts
    ran = write_trial(there, tiny_config(), "distilled", 0, attempt=2)
    ran.add_attempt(Attempt(attempt=2, owner="b", from_step=0, steps_again=0, started_at="x"))
    known = write_trial(here, tiny_config(), "distilled", 0, attempt=2)
    known.add_attempt(Attempt(attempt=1, owner="a", from_step=0, steps_again=0, started_at="x"))  # cut off
    found = read_records(here, there)
    assert [row.folder for row in found.trials] == [ran.path] and found.spares == ()


def test_a_trial_finished_twice_counts_once_and_another_result_is_named_as_spare(
    hosts: tuple[Path, Path], tiny_config: Config
) -> None:
    here, there = hosts
    write_trial(here, tiny_config(), "distilled", 0, seconds=1.0)
    write_trial(there, tiny_config(), "distilled", 0, seconds=2.0, attempt=2, rows_per_second=9.0)
    write_trial(here, tiny_config(), "distilled", 1, val_accuracy=0.5)
    spare = write_trial(there, tiny_config(), "distilled", 1, val_accuracy=0.75, attempt=2)
    found = read_records(here, there)
    assert [row.folder.parent.parent for row in found.trials] == [here, here]
    assert found.spares == (spare.path,)


def test_another_sweeps_folder_is_refused_with_what_differs(
    tmp_path: Path, hosts: tuple[Path, Path], tiny_sweep_file: Any
) -> None:
    other = tmp_path / "other"
    write_sweep(other, load_sweep(tiny_sweep_file(fixed={"epochs": 1}, study={"trials": 9})))
    with pytest.raises(
        ResultsError, match=f"{other} has another one than {hosts[0]}:\n  fixed.epochs: 2, there 1\n"
    ) as caught:
        read_records(*hosts, other)
    assert "absolute paths" in str(caught.value) and "trials" not in str(caught.value).split("\n")[1]
    write_sweep(other, load_sweep(tiny_sweep_file(name="fork")))
    with pytest.raises(ResultsError, match="  name: tiny, there fork"):
        read_records(hosts[0], other)
    with pytest.raises(ResultsError, match="holds sweep.yaml, but .*missing does not"):
        read_records(hosts[0], tmp_path / "missing")


@pytest.mark.parametrize(
    ("field", "line"), [("weights_sha256", "teacher weights: w, there x"), ("data_sha256", "rows: d, there x")]
)
def test_a_folder_whose_trials_met_another_teacher_or_other_rows_is_refused(
    field: str, line: str, hosts: tuple[Path, Path], tiny_config: Config
) -> None:
    here, there = hosts
    result = write_teacher(there, tiny_config(), **{field: "x"})
    assert read_records(here, there).teacher == result  # a host that trains nothing has no teacher of its own
    labels = read_validation_labels(here, there)
    assert labels is not None and labels.tolist() == [0, 1, 1]
    write_teacher(here, tiny_config())
    with pytest.raises(ResultsError, match=line):
        read_records(here, there)


def test_a_folder_without_results_is_refused_with_those_beside_it(tmp_path: Path, tiny_sweep_file: Any) -> None:
    with pytest.raises(ResultsError, match="holds sweep.yaml, but .*; no results in"):
        read_records(tmp_path / "missing")
    write_sweep(tmp_path / "mine", load_sweep(tiny_sweep_file()))
    with pytest.raises(ResultsError, match="beside it: mine"):
        read_records(tmp_path / "missing")


def test_the_results_root_is_the_environments_or_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert results_root() == tmp_path / "results"
    monkeypatch.delenv("KDSWEEP_RESULTS")
    monkeypatch.chdir(tmp_path)
    assert results_root() == tmp_path / "results"
