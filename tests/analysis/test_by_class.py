"""The report says how the teacher and the best students do on each class, and what they confuse."""

import json
from pathlib import Path

import numpy as np
import pytest
from makers import TEST_ROWS, make_finals, make_sweep, make_teacher, make_trial, page_of

from kdsweep.analysis.by_class import WORST
from kdsweep.config.arms import Arm
from kdsweep.records.layout import TrialId, teacher_folder, trial_folder
from kdsweep.records.writing import TrialFolder
from kdsweep.reporting.build import build_report
from kdsweep.reporting.figures.confusion import confusion_matrices
from kdsweep.reporting.markdown import render_markdown
from kdsweep.reporting.write import write_report

POINT = {"temperature": 4.0, "alpha": 0.75, "learning_rate": 2e-4, "batch_size": 32}
LABELS = [0, 0, 0, 0, 1, 1, 2, 2]
PREDICTED: dict[Arm, list[int]] = {"distilled": [0, 0, 0, 1, 1, 1, 1, 2], "fine_tuned": [0, 0, 1, 1, 1, 1, 1, 1]}
BAD = "<b>|&amp;"


def make_classes(folder: Path, names: tuple[str, ...], labels: list[int], predicted: dict[Arm, list[int]]) -> None:
    """A sweep with one trial an arm that predicted so; the teacher is always right."""
    sweep = make_sweep(folder)
    make_teacher(folder, label_names=names, validation_rows=len(labels))
    teacher = TrialFolder(teacher_folder(folder))
    teacher.write_labels(np.array(labels))
    teacher.write_predictions(np.array(labels))
    for arm, classes in predicted.items():
        make_trial(folder, sweep, arm, 0, POINT, float(np.mean(np.array(classes) == labels)))
        TrialFolder(trial_folder(folder, TrialId(arm, 0))).write_predictions(np.array(classes))


@pytest.mark.slow
def test_the_search_is_judged_class_by_class_on_validation_with_the_teacher_beside_it(tmp_path: Path) -> None:
    make_classes(tmp_path / "s", ("joy", BAD, "fear"), LABELS, PREDICTED)
    write_report(tmp_path / "s")
    found = json.loads((tmp_path / "s" / "leaderboard.json").read_text(encoding="utf-8"))["classes"]
    teacher, distilled, tuned = found["models"]
    assert found["split"] == "validation"
    assert [(each["name"], each["arm"], each["trial"], each["seeds"]) for each in found["models"]] == [
        ("teacher", None, None, []),
        ("distilled 0", "distilled", 0, []),
        ("fine-tuned 0", "fine_tuned", 0, []),
    ]
    assert all(each["f1"] == 1 for each in teacher["classes"]) and teacher["confused"] == []
    assert distilled["classes"] == [
        {"class": "joy", "rows": 4, "precision": 1.0, "recall": 0.75, "f1": 6 / 7},
        {"class": BAD, "rows": 2, "precision": 0.5, "recall": 1.0, "f1": 4 / 6},
        {"class": "fear", "rows": 2, "precision": 1.0, "recall": 0.5, "f1": 2 / 3},
    ]
    assert tuned["classes"][2] == {"class": "fear", "rows": 2, "precision": None, "recall": 0.0, "f1": 0.0}
    assert tuned["confused"][0] == {"true": "joy", "predicted": BAD, "rows": 2, "share": 0.5}


@pytest.mark.slow
def test_page_and_markdown_show_every_one_of_few_classes_and_the_confused_pairs(tmp_path: Path) -> None:
    make_classes(tmp_path / "s", ("joy", BAD, "fear"), LABELS, PREDICTED)
    text = render_markdown(write_report(tmp_path / "s"))
    assert "| joy " in text and "| 100.0 / 75.0 / 85.7 " in text and "| – / 0.0 / 0.0 " in text
    assert "| 1 (50.0 %) " in text and "&lt;b>\\|&amp;amp;" in text
    page = page_of(tmp_path / "s")
    shown = " ".join(page.text.replace("\N{NO-BREAK SPACE}", " ").split())
    assert "Precision, recall and F1 in % on the 8 validation rows, of the 3 classes." in shown
    assert "85.7" in shown and BAD in shown and "b" not in [tag for tag, _ in page.tags]
    assert "distilled 0: 75.0 % of the validation rows are named right; most often joy is named" in shown


def test_a_confusion_matrix_has_the_shares_of_each_class_and_is_empty_where_nothing_is_confused(tmp_path: Path) -> None:
    make_classes(tmp_path / "s", ("joy", BAD, "fear"), LABELS, PREDICTED)
    teacher, distilled, _ = confusion_matrices(build_report(tmp_path / "s").by_class)
    assert teacher.plot and distilled.plot
    assert [list(line) for line in teacher.plot.data[0].z] == [[100, None, None], [None, 100, None], [None, None, 100]]
    assert [list(line) for line in distilled.plot.data[0].z] == [[75, 25, None], [None, 100, None], [None, 50, 50]]
    assert list(distilled.plot.layout.yaxis.ticktext) == ["joy", "&lt;b&gt;|&amp;amp;", "fear"]
    assert distilled.plot.data[0].text[0][1].endswith("25.0 % of its 4 rows")


def test_of_many_classes_the_worst_ones_are_shown_and_no_matrix(tmp_path: Path) -> None:
    labels = list(range(150)) * 2
    wrong = [(label + 1) % 150 if label < 20 and row < 150 - label else label for row, label in enumerate(labels)]
    make_classes(tmp_path / "s", tuple(f"intent {n}" for n in range(150)), labels, {"distilled": wrong})
    report = write_report(tmp_path / "s")
    assert report.by_class and len(report.by_class.shown()) == WORST
    assert confusion_matrices(report.by_class) == ()
    text = render_markdown(report)
    part = text.split("## Class by class")[1].split("\n## ")[0]
    assert "10 of 150 classes with the lowest F1 of distilled 0" in " ".join(part.split())
    assert len([line for line in part.splitlines() if line.startswith("| intent")]) == 2 * WORST
    listed = json.loads((tmp_path / "s/leaderboard.json").read_text(encoding="utf-8"))["classes"]["models"]
    assert [len(each["classes"]) for each in listed] == [150, 150] and len(listed[1]["confused"]) == 20


@pytest.mark.slow
def test_finalists_are_judged_on_test_their_seeds_pooled_the_one_to_ship_first(tmp_path: Path) -> None:
    make_finals(tmp_path / "s", 0.80, 0.85)
    report = write_report(tmp_path / "s")
    by = report.by_class
    assert by is not None and report.finals is not None and by.split == "test" and by.rows == (0, TEST_ROWS)
    assert [(each.name, each.seeds) for each in by.judged] == [
        ("teacher", ()),
        ("fine-tuned 0", (1, 2, 3)),
        ("distilled 0", (1, 2, 3)),
    ]
    best = report.finals.best("fine_tuned")
    recall = by.chosen.scores()[1].recall
    assert best and recall is not None and abs(recall - (best.mean("accuracy") or 0)) < 1e-12
    assert "pooled: fine-tuned 0 over 3 seeds and distilled 0 over 3 seeds" in by.said()
    pair = json.loads((tmp_path / "s/leaderboard.json").read_text(encoding="utf-8"))["classes"]["models"][1][
        "confused"
    ][0]
    assert abs(pair["rows"] - (1 - recall) * TEST_ROWS) < 1e-6, "a mean over the seeds"


def test_without_any_students_predictions_the_page_says_so(tmp_path: Path) -> None:
    make_classes(tmp_path / "s", ("joy", BAD, "fear"), LABELS, PREDICTED)
    for folder in ("trials", "controls"):
        (tmp_path / "s" / folder / "0000" / "predictions.npy").unlink()
    assert write_report(tmp_path / "s").by_class is None
    assert "No complete student's predictions are on this disk" in page_of(tmp_path / "s").text
    assert json.loads((tmp_path / "s/leaderboard.json").read_text(encoding="utf-8"))["classes"] is None
