"""The report says in which form to ship: in words, in tables, in figures, in its files and in Python; without an export it is as before."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from exports import an_export, speeds
from makers import final_test, make_finals, page_of

from kdsweep.analysis.exports import Exported, Role
from kdsweep.analysis.shipped import shipped
from kdsweep.analysis.shipped_form import shipped_form
from kdsweep.config.forms import Constraints
from kdsweep.config.sweep import FinalistsConfig
from kdsweep.records.export_schema import Export
from kdsweep.records.layout import TrialId, export_folder, run_name
from kdsweep.records.whole_sweep import read_records
from kdsweep.records.writing import write_export, write_sweep
from kdsweep.reporting.build import build_report
from kdsweep.reporting.figures.forms import form_fronts
from kdsweep.reporting.forms import (
    caption,
    form_said,
    forms_table,
    forms_title,
    limits_said,
    measured_said,
    passed_over,
    teacher_beside,
)
from kdsweep.reporting.markdown import render_markdown, terminal_text
from kdsweep.reporting.write import write_report
from kdsweep.results import Results

WHICH = "Which student to ship?"
WHICH_FORM = "Which student to ship, and in which form?"


def placed(export: Export, role: Role = "to ship") -> Exported:
    return Exported(export=export, role=role, form=shipped_form(export))


def with_word(word: Any, **changes: Any) -> Export:
    """An export whose int8 has this word on test."""
    *others, int8 = an_export().forms
    assert int8.test is not None
    return an_export(forms=(*others, replace(int8, test=replace(int8.test, word=word))), **changes)


def plant(folder: Path, trial: TrialId, **changes: Any) -> Path:
    """The export of a run of the sweep in `folder`."""
    there = export_folder(folder, trial)
    there.mkdir(parents=True)
    write_export(there, an_export(run=run_name(trial), arm=trial.arm, trial=trial.number, seed=trial.seed, **changes))
    return there


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A confirmed sweep without an export, for tests that only read; the student to ship is on disk."""
    folder = tmp_path_factory.mktemp("results") / "s"
    write_sweep(folder, replace(make_finals(folder, 0.8, 0.77), finalists=FinalistsConfig(top=2, seeds=3)))
    run = shipped(read_records(folder))
    assert run is not None
    (run.folder / "student").mkdir()
    return folder


@pytest.fixture(scope="module")
def written(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the exports of the run to ship and of the best fine-tuned one, and its report."""
    folder = shutil.copytree(plain, tmp_path_factory.mktemp("written") / "s")
    for trial in ships(folder):
        plant(folder, trial)
    write_report(folder)
    return folder


def ships(folder: Path) -> list[TrialId]:
    """The run to ship, and a fine-tuned one beside it."""
    run = shipped(read_records(folder))
    assert run is not None
    return [run.id, TrialId("fine_tuned", 0, 1)]


def test_the_answer_names_size_time_ratio_and_that_the_form_is_no_worse() -> None:
    assert form_said(placed(an_export())) == (
        "17.8 MB, 2.2 ms a row on one thread (2.7 at the 95th percentile), 9.8 times the teacher's speed, "
        "no worse than the float32 student by more than 0.5 points on 1,000 test rows"
    )
    assert "9.8 times the speed of one of the teacher's 5 models" in form_said(placed(an_export()), models=5)
    assert "teacher" not in form_said(placed(an_export(teacher_speed=(), teacher_size_mb=None)))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (
            "worse",
            "ONNX int8 would take 2.2 ms (9.8 times), but is worse (−0.10 points, 95 % interval −0.40 to +0.20).",
        ),
        ("cannot tell", "but 1,000 test rows cannot tell whether it loses more than 0.5 points (−0.10 points"),
        ("no worse", ""),
    ],
)
def test_a_faster_form_that_does_not_ship_is_named_with_its_reason(word: str, said: str) -> None:
    assert said in passed_over(placed(with_word(word)))
    assert (passed_over(placed(with_word(word))) == "") == (word == "no worse")
    assert "The machine was busy" in passed_over(placed(with_word(word, busy_note="others took 40 % of the core")))


def test_limits_of_a_form_that_does_not_ship_are_said() -> None:
    limits = Constraints(size_mb=20.0, form="int8")
    assert (
        limits_said(placed(with_word("no worse")), limits)
        == limits_said(placed(with_word("worse")), Constraints())
        == ""
    )
    assert limits_said(placed(with_word("worse")), limits) == (
        "study.constraints means ONNX int8, which does not ship: hold 70.1 MB and 6.9 ms against its limits."
    )


def test_the_table_has_the_teacher_and_every_form_with_its_verdict() -> None:
    lines = forms_table(placed(an_export()), 0.9)
    cells = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    assert [line["form"] for line in cells] == [
        "teacher, PyTorch",
        "PyTorch float32",
        "ONNX float32",
        "ONNX int8, to ship",
    ]
    assert [line["verdict"] for line in cells] == ["–", "reference", "no worse", "no worse"]
    expected = {"MB": "17.8", "ms a row": "2.2", "p95": "2.7", "× teacher": "9.8", "rows a second": "1,778"}
    expected |= {"points": "−0.10", "95 % interval": "−0.40 to +0.20", "batch-dependent": "3"}
    assert expected.items() <= cells[3].items() and cells[0]["test accuracy"] == "90.00\N{NO-BREAK SPACE}%"
    assert cells[3]["ms, 2 threads"] == "1.1"
    single = forms_table(placed(an_export(threads_all=1), "other"), None)
    assert "ms, 2 threads" not in single[0] and single[4][0] == "ONNX int8"


def test_what_was_measured_and_not_kept_is_said() -> None:
    note = measured_said(an_export(cpu_note="without VNNI, int8 is slower", busy_note="others took 40 % of the core"))
    for part in (
        "a processor (avx512, vnni)",
        "Without VNNI, int8 is slower. Others took 40 % of the core.",
        "Int8 scales activations",
        "Not kept: static",
    ):
        assert part in note
    assert forms_title(placed(an_export(), "other")).startswith("Distilled 7, seed 1: not the student to ship now.")


@pytest.mark.slow
def test_a_confirmed_sweep_without_export_is_as_before_but_for_the_suggested_command(plain: Path) -> None:
    report = build_report(plain)
    assert report.commands[0][1] == f"python -m kdsweep.export {plain}"
    said = dict(report.questions)
    assert WHICH_FORM not in said and "64.0 MB, 4.0 ms a row" in said[WHICH] and "export" not in said[WHICH]
    assert "In which form?" not in render_markdown(report) and ", to ship" not in terminal_text(report)
    results = Results(plain)
    assert "form" not in results.trials() and results.exports().empty and results._repr_html_().count("<table") == 1


@pytest.mark.slow
def test_no_export_is_suggested_before_the_finalists_are_done_or_without_the_student(
    plain: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(plain, tmp_path / "s")
    (folder / "finalists" / "fine_tuned-0001-seed3" / "result.json").unlink()
    assert "kdsweep.export" not in str(build_report(folder).commands)
    for student in (shutil.copytree(plain, tmp_path / "t") / "finalists").glob("*/student"):
        student.rmdir()
    assert "kdsweep.export" not in str(build_report(tmp_path / "t").commands)


def test_the_answer_the_page_markdown_and_terminal_have_the_forms(written: Path) -> None:
    report = build_report(written)
    said = dict(report.questions)[WHICH_FORM]
    assert ", as ONNX int8: 17.8 MB, 2.2 ms a row on one thread" in said and "64.0 MB" not in said
    assert (
        report.commands[0][1] == f"python -m kdsweep.predict {written}/exports/{report.exports[0].export.run} texts.txt"
    )
    page = page_of(written)
    assert page.headings[1] == "In which form?" and page.inside == []
    assert "a row against 22.0" in page.text and "17.8 MB against 91.0" in page.text
    assert [a["data-figure"] for t, a in page.tags if "data-forms" in str(a.get("data-figure"))] == [
        "data-forms-latency",
        "data-forms-size",
    ]
    links = [a["href"] for t, a in page.tags if t == "a" and a.get("href") == "#forms"]
    assert links == ["#forms"]
    for text in (render_markdown(report), terminal_text(report)):
        assert "ONNX int8, to ship" in text and "no worse" in text
        assert "the best fine-tuned student, beside it" in " ".join(text.split())
    assert all(len(line) <= 100 for line in terminal_text(report).splitlines() if line[:1] == "|")
    assert all(len(line) <= 120 for line in render_markdown(report).splitlines() if line[:1] == "|")


def test_the_files_and_the_data_frame_have_every_form(written: Path) -> None:
    board = json.loads((written / "leaderboard.json").read_text(encoding="utf-8"))
    assert [(each["role"], each["ships"], len(each["forms"])) for each in board["exports"]] == [
        ("to ship", "int8", 3),
        ("best fine-tuned", "int8", 3),
    ]
    with (written / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == list(board["trials"][0]) and {row["form"] for row in read} == {"int8", ""}
    results = Results(written)
    frame = results.exports()
    assert list(frame["form"]) == ["pytorch", "fp32", "int8"] * 2 and list(frame["to_ship"]).index(True) == 2
    assert frame["times_teacher"][2] == pytest.approx(22 / 2.25) and frame["word"][2] == "no worse"
    assert frame["latency_ms_p50_all"][2] == pytest.approx(1.125) and set(frame["split"]) == {"test"}
    assert results._repr_html_().count("<table") == 2


def test_an_export_of_another_run_is_shown_as_such_and_the_next_command_makes_the_right_one(
    plain: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(plain, tmp_path / "s")
    plant(folder, TrialId("distilled", 1, 3))
    report = build_report(folder)
    said = dict(report.questions)[WHICH]
    assert (
        "64.0 MB, 4.0 ms a row" in said and "It has not been exported: what is exported is distilled 1, seed 3." in said
    )
    assert report.commands[0][1] == f"python -m kdsweep.export {folder}"
    text = " ".join(render_markdown(report).split())
    assert "Distilled 1, seed 3: not the student to ship now." in text and "ONNX int8, to ship" not in text


def test_the_figures_show_forms_as_shapes_arms_as_colours_whiskers_margin_and_teacher() -> None:
    beside = placed(an_export(run="fine_tuned-0003-seed1", arm="fine_tuned", trial=3), "best fine-tuned")
    latency, size = form_fronts((placed(an_export()), beside), 0.9)
    assert latency.plot is not None and size.plot is not None
    marks = [trace for trace in latency.plot.data if trace.mode == "markers"]
    assert [mark.marker.symbol for mark in marks] == [*["circle-open", "triangle-up", "square"] * 2, "star"]
    assert [mark.meta for mark in marks[:6]] == [*["distilled"] * 3, *["fine_tuned"] * 3]
    assert [mark.x[0] for mark in marks] == [11.2, 6.9, 2.25, 11.2, 6.9, 2.25, 22.0]
    assert [mark.x[0] for mark in size.plot.data if mark.mode == "markers"][-1] == 91.0
    whisker = marks[2].error_y
    assert whisker.array[0] == pytest.approx(0.3) and whisker.arrayminus[0] == pytest.approx(0.3)
    front, margin = latency.plot.data[:2]
    assert list(front.x) == [2.25, 6.9, 22.0] and list(margin.y) == [86.5, 86.5]
    assert {"int8", "ONNX", "PyTorch", "teacher", "margin"} == {note.text for note in latency.plot.layout.annotations}
    assert "PyTorch, ONNX" in {note.text for note in size.plot.layout.annotations}
    assert "9.8 times the teacher's speed" in marks[2].text[0] and "no worse" in marks[2].text[0]


def test_each_run_of_measurements_has_its_own_teacher_and_a_teacher_that_is_a_file_has_none() -> None:
    other = placed(an_export(run="fine_tuned-0003-seed1", arm="fine_tuned", trial=3, teacher_speed=speeds(23.0)))
    latency, size = form_fronts((placed(an_export()), other), 0.9)
    assert latency.plot is not None and list(latency.plot.data[-1].x) == [22.0, 23.0]
    assert size.plot is not None and list(size.plot.data[-1].x) == [91.0]
    (alone, _) = form_fronts((placed(an_export(teacher_speed=(), teacher_size_mb=None)),), None)
    assert alone.plot is not None and "teacher" not in alone.description


OTHER_TASKS: dict[Any, dict[str, float | None]] = {
    "multi_label": {"accuracy": 0.4, "example_f1": 0.61},
    "regression": {"accuracy": None, "agreement": None, "r2": 0.75, "loss": 0.5, "rmse": 0.707},
}


def of_task(task: Any) -> Exported:
    """The export of a student of another task, judged on the test split."""
    forms = tuple(
        replace(form, test=form.test and replace(form.test, **OTHER_TASKS[task])) for form in an_export().forms
    )
    return placed(an_export(task=task, forms=forms))


@pytest.mark.parametrize(
    ("task", "heading", "score", "like", "points"),
    [
        (
            "multi_label",
            "test example F1",
            "61.00\N{NO-BREAK SPACE}%",
            ("same labels", "99.00\N{NO-BREAK SPACE}%"),
            "points of example F1",
        ),
        ("regression", "test R²", "0.7500", ("largest change", "0.2000"), "points of R²"),
    ],
)
def test_forms_of_other_tasks_are_told_in_their_score(
    task: Any, heading: str, score: str, like: tuple[str, str], points: str
) -> None:
    export = of_task(task)
    test = replace(final_test(0.5, 1000), rmse=1.0, example_f1=0.7)
    beside = teacher_beside(export.export, None, test)
    assert beside == pytest.approx({"multi_label": 0.7, "regression": 0.5}[task]), (
        "a teacher's error of 1 beside a variance of 2"
    )
    lines = forms_table(export, beside)
    int8 = dict(zip(lines[0], lines[4], strict=True))
    assert {heading: score, like[0]: like[1], "points": "−0.10"}.items() <= int8.items()
    assert f"no worse than the float32 student by more than 0.5 {points} on 1,000 test rows" in form_said(export)
    assert f"with a margin of 0.5 {points}." in forms_title(export) and "ccuracy" not in caption(task)
    latency, _ = form_fronts((export,), beside)
    assert (
        latency.plot is not None
        and latency.title == f"{heading.removeprefix('test ')}, over milliseconds a row, one thread"
    )
    scale = 1 if task == "regression" else 100
    marks = [trace for trace in latency.plot.data if trace.mode == "markers"]
    assert beside is not None and marks[3].y[0] == pytest.approx(scale * beside)
    assert marks[2].error_y.array[0] == pytest.approx(scale * 0.003)
    assert latency.plot.data[1].y[0] == pytest.approx(scale * ((0.75 if task == "regression" else 0.61) - 0.005)), (
        "the margin"
    )
    assert f"{heading.removeprefix('test ')} {score}" in marks[2].text[0]


def test_numbers_whose_labels_are_all_equal_have_no_figure() -> None:
    export = of_task("regression")
    forms = tuple(replace(form, test=form.test and replace(form.test, r2=None)) for form in export.export.forms)
    equal = placed(replace(export.export, forms=forms))
    assert form_fronts((equal,), None) == () and forms_table(equal, None)[1][9] == "–"


@pytest.mark.slow
def test_exports_of_several_folders_are_gathered_once_each(plain: Path, written: Path) -> None:
    assert [len(read_records(*folders).exports) for folders in ((plain, written), (written, plain))] == [2, 2]


def test_names_of_near_marks_stand_one_above_the_other() -> None:
    pytorch, fp32, int8 = an_export().forms
    close = an_export(forms=(pytorch, replace(fp32, speed=speeds(4.0)), int8))
    (latency, _) = form_fronts((placed(close),), 0.9)
    assert latency.plot is not None
    lifts = {note.text: note.yshift for note in latency.plot.layout.annotations}
    assert lifts["int8"] == lifts["PyTorch"] == 8 and lifts["ONNX"] == 22
