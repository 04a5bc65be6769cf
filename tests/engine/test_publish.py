"""W&B is told the verdict once: in a run of its own, on the finalists' runs, and weights and texts only where the user says so."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import command
from makers import make_finalist, make_finals, make_full, make_teacher_tested
from servers import WandbServer

from kdsweep.config.sweep import Resolved
from kdsweep.config.tasks import TaskName
from kdsweep.config.trial_file import trial_yaml
from kdsweep.engine.publish import answer_said, as_column, differing_rows, publish, verdict_summary
from kdsweep.records.layout import teacher_folder
from kdsweep.records.reading import read_sweep_key, read_trials, read_verdict
from kdsweep.records.whole_sweep import read_records
from kdsweep.records.writing import TrialFolder, keep_sweep_key
from kdsweep.reporting.build import Report, build_report
from kdsweep.reporting.write import write_report
from kdsweep.tracking.audit import audit
from kdsweep.tracking.names import tracked_runs
from kdsweep.tracking.wandb_reader import wandb_records

KEY = "k3x9qz"


def told(report: Report, mode: Resolved) -> list[str]:
    """Publish a report's verdict; what was said meanwhile."""
    said: list[str] = []
    assert report.finals is not None
    publish(report, report.finals, KEY, mode, said.append)
    return said


def with_teachers_config(folder: Path, report: Report) -> Path:
    """What an audit looks at too."""
    config = report.records.trials[0].config
    keep_sweep_key(folder, KEY)
    (teacher_folder(folder) / "config.yaml").write_text(trial_yaml(config), encoding="utf-8")
    return folder


def records_of(folder: Path, run_id: str) -> list[dict[str, Any]]:
    ((_, path),) = [(name, path) for name, path in tracked_runs(folder) if name == run_id]
    records, torn = wandb_records(path)
    assert torn is None
    return records


def summary_of(records: list[dict[str, Any]]) -> dict[str, Any]:
    parts = [record["summary"]["update"] for record in records if record["type"] == "summary"]
    return {name: value for part in parts for name, value in part.items()}


def tables_of(folder: Path, name: str) -> dict[str, Any]:
    (path,) = (folder / "wandb").glob(f"*verdict*/files/media/table/{name}_*.table.json")
    table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return table


@pytest.mark.slow
def test_a_verdict_is_told_once_and_again_when_it_changes(tmp_path: Path) -> None:
    sweep = make_finals(tmp_path / "s", 0.85, 0.80)
    report = write_report(tmp_path / "s")
    assert told(report, "offline") == told(report, "offline") == []
    assert [name for name, _ in tracked_runs(tmp_path / "s")] == [f"verdict-{KEY}"]
    records = records_of(tmp_path / "s", f"verdict-{KEY}")
    summary = summary_of(records)
    assert report.finals and report.finals.primary and report.finals.ratio
    assert summary["verdict"] == "better" and summary["headline"] == report.headline
    assert summary["difference"] == report.finals.primary.difference
    assert summary["distillation_ratio"] == report.finals.ratio.value
    assert summary["rank"] == {f"{row.arm}-{row.trial:04d}": row.rank for row in report.finals.rows}
    (run,) = [record["run"] for record in records if record["type"] == "run"]
    assert (run["job_type"], run["run_group"], run["display_name"]) == ("verdict", sweep.name, "verdict")
    table = tables_of(tmp_path / "s", "finalists")
    assert table["columns"][:3] == ["rank", "arm", "trial"] and len(table["data"]) == 4
    assert not [record for record in records if record.get("artifact", {}).get("type") == "model"]

    make_finals_again(tmp_path / "s", report)
    assert told(write_report(tmp_path / "s"), "offline") == []
    assert [name for name, _ in tracked_runs(tmp_path / "s")] == [f"verdict-{KEY}", f"verdict-2-{KEY}"]
    mine = [
        finding
        for finding in audit(with_teachers_config(tmp_path / "s", report)).findings
        if "verdict" in finding.run_id
    ]
    assert [(finding.note, finding.gaps) for finding in mine] == [("earlier or unfinished verdicts", ()), ("", ())]


def make_finals_again(folder: Path, report: Report) -> None:
    """The search went on, and its best changed."""
    for seed in (1, 2, 3):
        make_finalist(folder, report.records.sweep, "distilled", 0, seed, 0.88)


@pytest.mark.slow
def test_a_verdict_that_w_and_b_lost_is_a_gap(tmp_path: Path) -> None:
    make_finals(tmp_path / "s", 0.85, 0.80)
    report = write_report(tmp_path / "s")
    told(report, "offline")
    ((_, path),) = tracked_runs(tmp_path / "s")
    path.unlink()
    (finding,) = [
        finding
        for finding in audit(with_teachers_config(tmp_path / "s", report)).findings
        if "verdict" in finding.run_id
    ]
    assert any("torn" in gap for gap in finding.gaps)


@pytest.mark.slow
def test_without_finalists_or_tracking_nothing_is_told(tmp_path: Path) -> None:
    make_full(tmp_path / "s")
    assert build_report(tmp_path / "s").finals is None
    make_finals(tmp_path / "t", 0.85, 0.80)
    told(build_report(tmp_path / "t"), "off")
    assert not (tmp_path / "t" / "wandb").exists() and read_verdict(tmp_path / "t") is None


@pytest.mark.slow
def test_finalists_runs_are_given_their_rank_where_w_and_b_has_them(tmp_path: Path, wandb_server: WandbServer) -> None:
    sweep = make_full(tmp_path / "s")
    make_teacher_tested(tmp_path / "s", 0.9)
    for arm, share in (("distilled", 0.85), ("fine_tuned", 0.80)):
        for seed in (1, 2):
            make_finalist(tmp_path / "s", sweep, arm, 0, seed, share)  # type: ignore[arg-type]
    for run in read_trials(tmp_path / "s", "finalists"):
        assert run.result is not None
        TrialFolder(run.folder).finish(replace(run.result, run_id=run.folder.name))
    assert told(write_report(tmp_path / "s"), "online") == []
    amended = [body for body in wandb_server.received if b"UpsertBucket(" in body and b"confirmed_score" in body]
    given = [json.loads(json.loads(body)["variables"]["summaryMetrics"]) for body in amended]
    assert len(given) == 4 and {values["verdict"] for values in given} == {"better of this pair"}
    assert sorted(values["rank"] for values in given) == [1, 1, 1, 1]  # 200 rows tell nobody apart
    asked = b"".join(wandb_server.received).decode()
    assert all(f'"name":"{run.folder.name}"' in asked for run in read_trials(tmp_path / "s", "finalists"))

    wandb_server.break_down()
    make_finals_again(tmp_path / "s", write_report(tmp_path / "s"))
    said = told(write_report(tmp_path / "s"), "online")
    assert len(said) == 1 and "W&B is in trouble" in said[0]  # and the verdict's run is kept offline


@pytest.mark.slow
def test_weights_and_texts_leave_the_machine_only_where_the_file_says_so(
    tiny_sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    sections: dict[str, Any] = {"finalists": {"top": 1, "seeds": 1}, "fixed": {"test_fraction": 0.2, "epochs": 1}}
    path = tiny_sweep_file(**sections, tracking={"mode": "offline", "log_model": True, "log_texts": True})
    done = command("run", path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "tiny"
    records = records_of(folder, f"verdict-{read_sweep_key(folder)}")
    (model,) = [r["artifact"] for r in records if r.get("artifact", {}).get("type") == "model"]
    kept = {entry["path"] for entry in model["manifest"]["contents"]}
    assert {"config.yaml", "student/config.json", "student/model.safetensors", "student/tokenizer.json"} <= kept
    table = tables_of(folder, "disagreements")
    assert table["columns"] == ["finalist", "seed", "row", "text", "class", "teacher", "student"]
    assert all(row[5] != row[6] and row[3] for row in table["data"])
    found = read_records(folder)
    tests = [json.loads((run.folder / "test.json").read_text(encoding="utf-8")) for run in found.finalists]
    assert len(table["data"]) == sum(round(test["rows"] * (1 - test["agreement"])) for test in tests)
    assert not audit(folder).gaps()
    again = command("run", path)
    assert (
        again.returncode == 0
        and len(os.listdir(folder / "wandb")) == len({name for name, _ in tracked_runs(folder)}) + 3
    )
    others = tiny_sweep_file("plain", **sections, tracking={"mode": "offline"})
    assert command("run", others).returncode == 0
    plain = tmp_path / "results" / "plain"
    records = records_of(plain, f"verdict-{read_sweep_key(plain)}")
    assert not [r for r in records if r.get("artifact", {}).get("type") == "model"]
    assert not list((plain / "wandb").glob("*/files/media/table/disagreements*"))


def test_a_column_of_w_and_bs_table_has_one_type_where_layers_are_a_count_a_list_or_a_word() -> None:
    from wandb import Table

    layers = as_column([[0, 2], 2, None, "first:2"])
    assert layers == ["[0, 2]", "2", None, "first:2"] and as_column([2, "first:2"]) == ["2", "first:2"]
    assert as_column([2, 3]) == [2, 3] and as_column([[0, 2], [1, 2]]) == [[0, 2], [1, 2]]
    Table(columns=["student_layers"], data=[[value] for value in layers])
    with pytest.raises(TypeError, match="incompatible types"):
        Table(columns=["student_layers"], data=[[[0, 2]], [2]])


def test_rows_answered_differently_are_shown_as_their_task_answers() -> None:
    classes, labels = np.array([0, 1, 1]), np.array([[0, 1], [1, 1], [0, 0]], np.uint8)
    assert differing_rows(classes, np.array([0, 0, 1])).tolist() == [1]
    assert differing_rows(labels, labels[[0, 1, 1]]).tolist() == [2]
    numbers = np.array([1.0, 2.0, 3.0], np.float32)
    assert differing_rows(numbers, np.array([1.5, 2.0, 9.0], np.float32)).tolist() == [2, 0], "the largest first"
    said = [answer_said(each[2], ("no", "yes")) for each in (classes, labels, numbers)]
    assert said == ["yes", "none", 3.0] and answer_said(labels[1], ("no", "yes")) == "no, yes"


def test_the_verdicts_summary_has_the_tasks_scores(task_reports: dict[TaskName, Report]) -> None:
    for task, name, score in (
        ("multi_label", "example_f1", "example_f1"),
        ("regression", "pearson", "minus_squared_error"),
    ):
        report = task_reports[task]
        assert report.finals is not None
        summary = verdict_summary(report, report.finals)
        assert summary["score"] == score and set(summary[f"test_{name}"]) == set(summary["rank"])
        assert ("pearson_difference" in summary) == (task == "regression") != ("test_accuracy" in summary)
