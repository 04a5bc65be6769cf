"""What the report says of the teacher on rows that it has seen and on others."""

from pathlib import Path
from typing import Any

import pytest
from makers import make_full, page_of, teacher_of

from kdsweep.records.layout import teacher_folder
from kdsweep.records.writing import TrialFolder
from kdsweep.reporting.build import build_report
from kdsweep.reporting.markdown import render_markdown, terminal_text
from kdsweep.reporting.memorised import memorised, seen_json, seen_line, seen_table
from kdsweep.reporting.write import write_report

SEEN: dict[str, Any] = {"train_accuracy": 0.99, "train_loss": 0.05, "train_ece": 0.01, "val_ece": 0.08}
FOLDS: dict[str, Any] = {"folds": 5, "out_of_fold_accuracy": 0.87, "out_of_fold_loss": 0.4, "out_of_fold_ece": 0.09}


def test_one_teachers_own_rows_stand_beside_validation() -> None:
    teacher = teacher_of(**SEEN)
    assert seen_table(teacher)[1:] == [
        ["training rows", "99.00\N{NO-BREAK SPACE}%", "0.050", "1.00\N{NO-BREAK SPACE}%"],
        ["validation rows", "88.00\N{NO-BREAK SPACE}%", "0.300", "8.00\N{NO-BREAK SPACE}%"],
    ]
    said = memorised(teacher)
    assert "(cross-entropy 0.050 against 0.300). The difference of 11.0 points is what it has memorised." in said
    assert "with teacher_folds, from those of a teacher that has not seen the row" in said and "passes" not in said


def test_folds_stand_between_and_say_what_the_ensemble_costs() -> None:
    teacher = teacher_of(**SEEN, **FOLDS)
    assert [line[0] for line in seen_table(teacher)[1:]] == [
        "training rows, each model's own",
        "training rows, out of fold",
        "validation rows, all models",
    ]
    said = memorised(teacher)
    assert "of the same rows out of fold (cross-entropy 0.050 against 0.400). The difference of 12.0 points" in said
    assert "Students learn from the logits out of fold." in said and said.endswith("costs 5 passes.")
    told = seen_json(teacher)
    assert told is not None and list(told) == ["folds", "kept_epochs", "training", "out_of_fold", "validation"]
    assert told["out_of_fold"] == {"accuracy": 0.87, "loss": 0.4, "ece": 0.09}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_accuracy": 0.87}, "by its accuracy it had memorised none of them"),
        ({"fine_tuned_seconds": 0.0}, "It came fine-tuned, so which of them it has seen is not known here."),
    ],
)
def test_it_says_no_more_than_it_knows(changes: dict[str, Any], words: str) -> None:
    assert words in memorised(teacher_of(**{**SEEN, **changes}))


def test_an_older_record_says_nothing() -> None:
    for teacher in (None, teacher_of()):
        assert (seen_table(teacher), seen_json(teacher), seen_line(teacher), memorised(teacher)) == ([], None, "", "")


@pytest.mark.slow
def test_every_format_shows_it(tmp_path: Path) -> None:
    make_full(tmp_path / "s")
    before = render_markdown(build_report(tmp_path / "s"))
    assert "## Teacher" not in before
    TrialFolder(teacher_folder(tmp_path / "s")).finish(teacher_of(**SEEN, **FOLDS))
    report = write_report(tmp_path / "s")
    assert "## Teacher" in render_markdown(report) and "87.0" in terminal_text(report)
    page = (tmp_path / "s" / "report.html").read_text()
    assert 'id="teacher"' in page and "one of the teacher&#39;s 5 models: " in page and 'href="#teacher"' in page
    assert page_of(tmp_path / "s")
    assert '"out_of_fold"' in (tmp_path / "s" / "leaderboard.json").read_text()
