"""The sweeps of sweeps/glue/, each run on a stand-in: a few rows in the columns, splits and classes that GLUE has on the hub."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from commands import command

from kdsweep.config.shipped_sweeps import shipped_sweeps
from kdsweep.records.whole_sweep import read_records

COLUMNS = {
    "cola": ("sentence",),
    "mnli": ("premise", "hypothesis"),
    "mrpc": ("sentence1", "sentence2"),
    "qnli": ("question", "sentence"),
    "qqp": ("question1", "question2"),
    "rte": ("sentence1", "sentence2"),
    "stsb": ("sentence1", "sentence2"),
}
CLASSES = {
    "cola": ("unacceptable", "acceptable"),
    "mnli": ("entailment", "neutral", "contradiction"),
    "mrpc": ("not_equivalent", "equivalent"),
    "qnli": ("entailment", "not_entailment"),
    "qqp": ("not_duplicate", "duplicate"),
    "rte": ("entailment", "not_entailment"),
}
"""GLUE's classes in its own order; of `stsb` a number from 0 to 5."""


def stand_in(folder: Path, task: str, rows: list[tuple[str, str]]) -> Path:
    """A dataset with the configuration `task`, as the hub lays one out: a card with splits and features, and their rows."""
    held_out = "validation_matched" if task == "mnli" else "validation"
    (folder / task).mkdir(parents=True)
    for split, first in (("train", 0), (held_out, 1)):
        with (folder / task / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for place, (text, label) in enumerate(rows[first::2]):
                texts = (text, rows[place][0])[: len(COLUMNS[task])]
                number = float(label == "positive") * 2.5 + place % 3 if task == "stsb" else int(label == "positive")
                number = 2 if task == "mnli" and place % 3 == 2 else number
                file.write(json.dumps({**dict(zip(COLUMNS[task], texts, strict=True)), "label": number}) + "\n")
    names = "".join(f"          '{place}': {name}\n" for place, name in enumerate(CLASSES.get(task, ())))
    kind = f"      class_label:\n        names:\n{names}" if names else " float32\n"
    features = "".join(f"  - name: {column}\n    dtype: string\n" for column in COLUMNS[task])
    features += f"  - name: label\n    dtype:{kind}" if not names else f"  - name: label\n    dtype:\n{kind}"
    files = "".join(f"  - split: {split}\n    path: {task}/{split}.jsonl\n" for split in ("train", held_out))
    card = f"---\nconfigs:\n- config_name: {task}\n  data_files:\n{files}dataset_info:\n- config_name: {task}\n  features:\n{features}---\n"
    (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


def test_every_sweep_of_glue_has_its_stand_in() -> None:
    assert COLUMNS.keys() == {name.partition("/")[2] for name in shipped_sweeps() if name.startswith("glue/")}


@pytest.mark.slow
@pytest.mark.parametrize("task", COLUMNS)
def test_a_sweep_of_glue_runs_to_its_report(
    task: str, tmp_path: Path, tiny_body: Path, tiny_rows: list[tuple[str, str]]
) -> None:
    said: Callable[..., CompletedProcess[str]] = lambda *more: command(
        "run",
        f"glue/{task}",
        f"fixed.dataset={stand_in_folder}",
        *(f"fixed.{role}={tiny_body}" for role in ("teacher", "student")),
        *("fixed.validation_fraction=0.3", "fixed.max_length=32", "fixed.epochs=1", "fixed.teacher_learning_rate=1e-3"),
        *("search.batch_size.choices=[16]", "study.trials=2", "study.accept_weak_teacher=true", "tracking.mode=off"),
        *("finalists.top=1", "finalists.seeds=1", *more),
    )
    stand_in_folder = stand_in(tmp_path / "glue", task, tiny_rows)
    planned = said("--dry-run")
    assert planned.returncode == 0 and f"{task}: the plan" in planned.stdout, planned.stderr
    done = said()
    assert done.returncode == 0, done.stdout + done.stderr
    found = read_records(tmp_path / "results" / task)
    assert found.teacher is not None and found.teacher.task == ("regression" if task == "stsb" else "single_label")
    assert {row.result.status for row in (*found.trials, *found.finalists) if row.result} == {"complete"}
    assert len(found.trials) == 4 and len(found.finalists) == 2 and (found.folder / "report.html").is_file()
    if task in CLASSES:
        assert found.teacher.label_names == CLASSES[task]
