"""A whole sweep whose teacher is a file: what the terminal, the records, W&B, the report and a re-run make of it."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers import page_of
from rich.console import Console

from kdsweep.analysis.receipt import receipt
from kdsweep.config.sweep import SweepConfig
from kdsweep.config.sweep_file import load_sweep
from kdsweep.engine.display import SweepDisplay
from kdsweep.engine.worker_loop import Worker
from kdsweep.errors import ConfigError
from kdsweep.records.layout import TrialId, teacher_folder, trial_folder
from kdsweep.records.reading import read_predictions, read_teacher, read_trial
from kdsweep.records.writing import TrialFolder, start_sweep
from kdsweep.reporting.write import write_report
from kdsweep.reproduce import rerun
from kdsweep.system.process import StopRequest
from kdsweep.tracking.audit import audit

Write = Callable[..., Path]


def ran(sweep: SweepConfig, folder: Path) -> tuple[Path, str]:
    """The results folder of the whole sweep, run in this process, and what the terminal said."""
    start_sweep(folder, sweep)
    console = Console(record=True, width=400, file=io.StringIO())
    display = SweepDisplay(console, sweep, dict.fromkeys(sweep.stages, 0))
    Worker(sweep, folder, "me", display.show, StopRequest()).run()
    write_report(folder)
    return folder, console.export_text()


@pytest.fixture
def sweep_of_file(tiny_sweep_file: Write, tiny_body: Path, tiny_rows: list[tuple[str, str]], write_rows: Write) -> Any:
    """A sweep of one trial an arm and one finalist each, whose teacher is a file with numbers for all rows, or for every second."""

    def make(*, step: int = 1, **sections: Any) -> SweepConfig:
        numbers = [(text, 0.8 + place % 17 / 100, label) for place, (text, label) in enumerate(tiny_rows)]
        sides = ("negative", "positive")
        rows = [
            {"text": text, **{f"prob_{side}": p if side == label else 1 - p for side in sides}}
            for text, p, label in numbers[::step]
        ]
        facts = {"teacher": None, "student_body": str(tiny_body), "student_init": "pretrained", "test_fraction": 0.2}
        fixed = {**facts, "epochs": 1, "teacher_file": str(write_rows("numbers.csv", rows))}
        study = {"trials": 1, "controls": 1}
        parts = {"fixed": fixed, "study": study, "finalists": {"top": 1, "seeds": 2}, **sections}
        return load_sweep(tiny_sweep_file(**parts))

    return make


def test_files_can_be_searched_as_teachers_can_and_what_joins_them_cannot(
    sweep_of_file: Any, tiny_sweep_file: Write, tmp_path: Path
) -> None:
    fixed = dict(sweep_of_file().fixed)
    files = [fixed.pop("teacher_file"), str(tmp_path / "other.csv")]
    sections = {"fixed": {"teacher": None, **fixed}, "search": {"teacher_file": {"choices": files}}}
    sweep = load_sweep(tiny_sweep_file(**sections))
    assert [sweep.trial("distilled", point).teacher_file for point in sweep.corners("distilled")][-1] == files[1]
    own = load_sweep(
        tiny_sweep_file(**sections), ["search.teacher_file=null", "fixed.teacher_file=${fixed.train_file}"]
    )
    assert own.fixed["teacher_file"] == own.fixed["train_file"]
    sections["search"]["id_column"] = {"choices": ["a", "b"]}
    with pytest.raises(ConfigError, match="trials that differ in id_column cannot be ranked"):
        load_sweep(tiny_sweep_file(**sections))


@pytest.mark.slow
def test_what_a_file_without_numbers_for_all_rows_leaves_unknown_is_said_in_words(
    sweep_of_file: Any, tmp_path: Path
) -> None:
    folder, said = ran(sweep_of_file(step=2, tracking={"mode": "offline"}), tmp_path / "results" / "tiny")
    teacher = read_teacher(teacher_folder(folder))
    assert teacher is not None and teacher.lacks("test") and teacher.lacks("validation")
    counts = {"train": teacher.train_rows, "validation": teacher.validation_rows, "test": teacher.test_rows}
    line = ", ".join(f"{teacher.taught_rows[name]} of {rows} {name}" for name, rows in counts.items())
    assert f"numbers.csv for {line}; accuracy 1.0000, calibration error" in said
    done = read_trial(trial_folder(folder, TrialId("distilled", 0)))
    assert done.result is not None and done.result.teacher_weights_sha256 == teacher.weights_sha256
    assert done.result.val_agreement is None and done.result.val_kl is None
    assert receipt(done, rerun(done, TrialFolder(tmp_path / "again" / "trials" / "0000"), lambda _: None)).verdict == (
        "identical"
    )
    assert audit(folder).gaps() == 0
    report, page = (folder / "report.md").read_text(encoding="utf-8"), page_of(folder).text
    unknown = f"for its file has no numbers for {teacher.test_rows - teacher.taught_rows['test']} of these {teacher.test_rows}."
    for text in (report, page):
        told = " ".join(text.split())
        assert unknown in told and f"The teacher is a file with numbers for {line} rows" in told
        assert "of the gap between fine-tuning and the teacher" not in told and "against the teacher" not in told
        assert "Students start from the layers of" in told
    board = json.loads((folder / "leaderboard.json").read_text(encoding="utf-8"))
    assert board["finals"]["teacher"] is None and board["finals"]["distillation_ratio"] is None
    assert [row["val_kl"] for row in board["trials"]] == [None, None]
    assert all(each["name"] != "teacher" for each in board["classes"]["models"])


@pytest.mark.slow
def test_a_file_with_numbers_for_all_rows_is_measured_as_a_model_is(sweep_of_file: Any, tmp_path: Path) -> None:
    folder, said = ran(sweep_of_file(), tmp_path / "results" / "tiny")
    teacher = read_teacher(teacher_folder(folder))
    assert teacher is not None and teacher.val_accuracy == 1.0 and "of the numbers" not in said
    known = read_predictions(teacher_folder(folder))
    assert known is not None and np.bincount(known).sum() == teacher.validation_rows
    done = read_trial(trial_folder(folder, TrialId("distilled", 0)))
    assert done.result is not None and done.result.val_kl is not None and done.result.val_agreement is not None
    board = json.loads((folder / "leaderboard.json").read_text(encoding="utf-8"))
    assert board["finals"]["teacher"]["accuracy"] == 1.0
    assert any(each["what"].endswith("against the teacher") for each in board["finals"]["secondary"])
    assert any(each["name"] == "teacher" for each in board["classes"]["models"])
    assert "no numbers for" not in (folder / "report.md").read_text(encoding="utf-8")
