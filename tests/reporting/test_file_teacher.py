"""A report on students of a file: what cannot be known of such a teacher is said in words, and what can be is there."""

from pathlib import Path
from typing import Any

import pytest
from makers import ROWS, TEST_ROWS, make_finals, make_full, page_of, teacher_of

from kdsweep.records.layout import teacher_folder
from kdsweep.records.teacher_schema import TeacherResult
from kdsweep.records.writing import TrialFolder
from kdsweep.reporting.build import Report, build_report
from kdsweep.reporting.write import write_report

NUMBERS = {"rows": 900, "zeros": 0.25, "one_hot": 0.5, "labeled_rows": 950, "accuracy": 0.9, "loss": 0.4, "ece": 0.05}
COSTS = ("parameters", "size_mb", "latency_ms_p50", "rows_per_second")


def file_teacher(**changes: Any) -> TeacherResult:
    """A file with numbers for most training rows and for few of validation."""
    taught = {"train": 900, "validation": 50, "test": 0}
    facts: dict[str, Any] = {"teacher": "llm.csv", "val_accuracy": None, "val_loss": None, "test_rows": TEST_ROWS}
    return teacher_of(**{**dict.fromkeys(COSTS), **facts, "taught_rows": taught, "numbers": NUMBERS, **changes})


def report_of(folder: Path, teacher: TeacherResult, *, tested: bool = False) -> Report:
    there = TrialFolder(teacher_folder(folder))
    there.finish(teacher)
    for name in () if tested else ("test.json", "test_predictions.npy"):
        (there.path / name).unlink(missing_ok=True)
    return build_report(folder)


@pytest.mark.slow
def test_before_the_finalists_the_answer_says_what_is_not_known(tmp_path: Path) -> None:
    make_full(tmp_path / "s")
    report = report_of(tmp_path / "s", file_teacher())
    assert f"no numbers for {ROWS - 50} of these {ROWS}. Always naming the commonest class gives" in report.answer
    assert "900 of 1,000 train, 50 of 200 validation, 0 of 4,000 test rows; a row without any has L_hard alone" in (
        report.conventions
    )
    facts = dict(report.provenance)
    assert facts["teacher"] == "llm.csv" and facts["rows with the teacher's numbers"].startswith("900 of 1,000 train")
    assert facts["teacher on labelled rows"].endswith(
        "loss 0.400, calibration error 5.0\N{NO-BREAK SPACE}%, on 950 of train and validation"
    )
    assert facts["teacher's hard labels"].startswith("25.0") and "teacher's fine-tuning" not in facts
    assert report.weak_teacher is None and "the teacher:" not in dict(report.questions)["Which student to ship?"]
    write_report(tmp_path / "s")
    page = " ".join(page_of(tmp_path / "s").text.split())
    assert "a file of numbers" in page and "The star is the teacher" not in page


@pytest.mark.slow
@pytest.mark.parametrize("covered", [False, True])
def test_the_gap_to_the_teacher_is_known_where_its_file_has_the_test_rows(covered: bool, tmp_path: Path) -> None:
    make_finals(tmp_path / "s", 0.88, 0.8)
    taught = {"train": 1000, "validation": ROWS, "test": TEST_ROWS if covered else TEST_ROWS - 1}
    report = report_of(tmp_path / "s", file_teacher(taught_rows=taught, val_accuracy=0.9), tested=covered)
    assert report.finals is not None and (report.finals.ratio is not None) is covered
    assert ("of the gap between fine-tuning and the teacher" in report.answer) is covered
    assert ("its file has no numbers for 1 of these 4,000." in report.answer) is not covered
    asked = [each.what for each in report.finals.secondary]
    assert any(what.endswith("against the teacher") for what in asked) is covered
