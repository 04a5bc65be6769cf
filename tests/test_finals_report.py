"""What the report says of finalists: planted right and wrong rows, and the words that follow from them."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_report import make_full, make_trial, page_of

from kdsweep.contents import build_report
from kdsweep.finalists import _word, read_finals
from kdsweep.finals import compare_finalists
from kdsweep.gathered import read_records
from kdsweep.records import TrialFolder, read_trial, teacher_folder, trial_folder
from kdsweep.report import write_report
from kdsweep.report_text import render_markdown, terminal_text
from kdsweep.results import Finalist, FinalTest, TrialResult
from kdsweep.sweep_config import Arm, SweepConfig

TEST_ROWS = 4000
METRICS: dict[str, Any] = {"macro_f1": 0.7, "mcc": 0.6, "loss": 0.5, "ece": 0.1, "agreement": 0.9, "kl": 0.2}


def test_of(accuracy: float, rows: int, day: int = 1) -> FinalTest:
    return FinalTest(
        accuracy=accuracy, **METRICS, reliability=((0.9, 0.8, rows),), rows=rows, opened_at=f"2026-01-0{day}"
    )


test_of.__test__ = False  # type: ignore[attr-defined]


def make_teacher_tested(folder: Path, share: float) -> None:
    """Every test label is 1; the teacher is right on the first `share` of the rows."""
    there = TrialFolder(teacher_folder(folder))
    there.write_test_labels(np.ones(TEST_ROWS, np.int64))
    there.write_test(test_of(share, TEST_ROWS), (np.arange(TEST_ROWS) < share * TEST_ROWS).astype(np.int64))


def make_finalist(
    folder: Path,
    sweep: SweepConfig,
    arm: Arm,
    trial: int,
    seed: int,
    share: float,
    *,
    tested: bool = True,
    round_: int = 1,
) -> None:
    """A finalist that is right on about `share` of the rows, a few of them by the seed's luck."""
    rng = np.random.default_rng([seed, trial, arm == "distilled"])
    point = {"temperature": 4.0, "alpha": 0.75, "learning_rate": 2e-4, "batch_size": 32, "seed": seed}
    config = sweep.trial(arm, point)
    there = TrialFolder(trial_folder(folder, arm, trial, seed))
    there.start(config)
    origin = read_trial(trial_folder(folder, arm, trial)).result
    assert origin is not None

    def right(rows: int, share: float) -> np.ndarray:
        found = np.arange(rows) < share * rows
        return np.where(rng.random(rows) < 0.02, ~found, found).astype(np.int64)

    validation = right(200, share - 0.05 * trial)
    there.write_predictions(validation)
    if tested:
        test = right(TEST_ROWS, share)
        there.write_test(test_of(float(test.mean()), TEST_ROWS, round_), test)
    values = {**asdict(origin), "finalist": Finalist(seed=seed, round=round_), "val_accuracy": validation.mean()}
    there.finish(TrialResult(**values))


def make_finals(folder: Path, distilled: float, fine_tuned: float, **options: Any) -> SweepConfig:
    """Two finalists an arm on three seeds."""
    sweep = make_full(folder)
    make_teacher_tested(folder, 0.9)
    for trial in (0, 1):
        for seed in (1, 2, 3):
            make_finalist(folder, sweep, "distilled", trial, seed, distilled - 0.004 * trial, **options)
            make_finalist(folder, sweep, "fine_tuned", trial, seed, fine_tuned - 0.004 * trial, **options)
    return sweep


@pytest.fixture(scope="module")
def finals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which distilling is better, for tests that only read."""
    folder = tmp_path_factory.mktemp("finals") / "s"
    make_finals(folder, 0.85, 0.80)
    return folder


@pytest.fixture
def copied(finals: Path, tmp_path: Path) -> Path:
    """The same for a test that changes it."""
    return shutil.copytree(finals, tmp_path / "s")


@pytest.mark.parametrize(
    ("distilled", "fine_tuned", "word", "opening"),
    [
        (0.85, 0.80, "better", "Distilling beat plain fine-tuning on the test rows"),
        (0.80, 0.85, "not better", "Distilling did not beat plain fine-tuning on the test rows"),
        (0.80, 0.80, "cannot tell", "These test rows cannot tell"),
    ],
)
def test_the_verdict_comes_from_the_test_split(
    distilled: float, fine_tuned: float, word: str, opening: str, tmp_path: Path
) -> None:
    make_finals(tmp_path / "s", distilled, fine_tuned)
    report = build_report(tmp_path / "s")
    assert report.finals is not None and report.finals.primary is not None
    assert (report.finals.primary.word, report.finals.split, report.finals.primary.rows) == (word, "test", TEST_ROWS)
    assert report.headline.startswith(opening)
    assert abs(report.finals.primary.difference - (distilled - fine_tuned)) < 0.01
    text = render_markdown(report)
    assert "## Finalists" in text and "(primary)" in text and "against the teacher" in text
    told = " ".join(answer for _, answer in report.questions)
    assert "finds a true difference of" in told and "for this one teacher" in told and "Provisional" not in told
    assert "opened once, on 2026-01-01" in told
    assert "finalists/" in terminal_text(report)  # the commands name the confirmed student


def test_the_teacher_stands_among_the_finalists_with_its_test_score(finals: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finals, tmp_path / "s")
    report = write_report(folder)
    for text in (terminal_text(report), render_markdown(report)):
        lines = [
            [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "| teacher" in line
        ]
        assert lines[0][:4] == ["–", "teacher", "–", "88.00 %"] and "90.00 %" in lines[1]
    page = " ".join(page_of(folder).text.replace("\N{NO-BREAK SPACE}", " ").split())
    assert "–teacher–88.00 %–––––90.00 %0.7000.6000.5000.100––" in page
    board = json.loads((folder / "leaderboard.json").read_text(encoding="utf-8"))
    expected = {"accuracy": 0.9, **{name: METRICS[name] for name in ("macro_f1", "mcc", "loss", "ece")}}
    assert board["finals"]["teacher"] == expected


def test_a_small_p_value_is_escaped_in_html_alone(finals: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finals, tmp_path / "s")
    report = write_report(folder)
    texts = [terminal_text(report), (folder / "leaderboard.json").read_text(encoding="utf-8")]
    texts += [(folder / "report.md").read_text(encoding="utf-8"), page_of(folder).text]
    assert all("< 0.001 (Holm)" in text for text in (texts[0], *texts[2:]))
    assert not [text for text in texts if "&lt;" in text or "&amp;" in text]


def test_the_command_that_loads_the_student_is_at_the_end_or_is_not_promised(copied: Path) -> None:
    promise = "The command that loads it stands at the end."
    report = build_report(copied)
    assert promise not in terminal_text(report) and "Its student is not on this disk." in terminal_text(report)
    run = report.finals and report.finals.chosen.best_run("val_accuracy")
    assert run
    TrialFolder(run.folder).student.mkdir()
    report = build_report(copied)
    for text in (terminal_text(report), render_markdown(report)):
        end = text.split("\n\n")[-3:]
        assert promise in text and "Load the student" in "".join(end)
        assert text.rstrip().rstrip("`").rstrip().endswith("/student')")


def test_without_a_test_split_verdicts_are_provisional(tmp_path: Path) -> None:
    make_finals(tmp_path / "s", 0.85, 0.70, tested=False)
    report = write_report(tmp_path / "s")
    assert report.finals is not None and report.finals.primary is not None
    assert (report.finals.split, report.finals.primary.rows) == ("validation", 200)
    assert "Provisional: there is no test split" in render_markdown(report)


def test_the_chosen_one_is_the_best_on_validation_over_fresh_seeds_whatever_test_says(finals: Path) -> None:
    found = read_finals(read_records(finals))
    assert found is not None
    assert (found.chosen.arm, found.chosen.trial) == ("distilled", 0)
    assert [row.rank for row in found.rows] == sorted(row.rank for row in found.rows) and found.rows[0].rank == 1
    assert all(len(row.runs) == 3 for row in found.rows)


def test_the_ratio_to_the_teacher_is_a_share_of_the_gap_or_undefined(copied: Path) -> None:
    report = write_report(copied)
    assert report.finals is not None and report.finals.ratio is not None
    assert report.finals.ratio.low < 0.43 < report.finals.ratio.high and "of the gap between" in report.answer
    make_teacher_tested(copied, 0.79)  # no clear gap to the fine-tuned students
    report = build_report(copied)
    assert report.finals is not None and report.finals.ratio is None and "is undefined" in report.answer


def test_a_secondary_word_that_the_correction_takes_back_is_taken_back_on_both_sides() -> None:
    rng = np.random.default_rng(0)
    right = rng.random((3, 4000)) < 0.8
    worse = right & (rng.random((3, 4000)) > 0.2)
    for one, other, word in ((right, worse, "better"), (worse, right, "not better")):
        comparison = compare_finalists(one, other)
        assert (comparison.word, _word(comparison, 0.049), _word(comparison, 0.051)) == (word, word, "cannot tell")


def test_a_second_round_is_said(copied: Path) -> None:
    sweep = read_records(copied).sweep
    point = {"temperature": 2.0, "alpha": 0.5, "learning_rate": 1e-4, "batch_size": 32}
    make_trial(copied, sweep, "distilled", 7, point, 0.9)
    make_finalist(copied, sweep, "distilled", 7, 1, 0.86, round_=2)
    report = build_report(copied)
    assert report.finals is not None and len(report.finals.opened) == 2
    assert "The test split was opened 2 times" in render_markdown(report)


def test_half_of_the_finalists_give_a_report_that_says_what_is_to_come(tmp_path: Path) -> None:
    sweep = make_full(tmp_path / "s")
    make_teacher_tested(tmp_path / "s", 0.9)
    make_finalist(tmp_path / "s", sweep, "distilled", 0, 1, 0.85)
    report = write_report(tmp_path / "s")
    assert report.finals is not None and report.finals.primary is None and report.finals.unfinished == 17
    assert "17 runs of finalists are still to come" in render_markdown(report)
