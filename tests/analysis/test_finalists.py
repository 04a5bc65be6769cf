"""What the report says of finalists: planted right and wrong rows, and the words that follow from them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers import METRICS, TEST_ROWS, make_finalist, make_finals, make_full, make_teacher_tested, make_trial, page_of

from kdsweep.analysis.read_finals import read_finals
from kdsweep.analysis.secondary import Asked, adjusted
from kdsweep.analysis.two_arms import compare_finalists
from kdsweep.config.sweep import FinalistsConfig
from kdsweep.engine.publish import finalist_summary, verdict_summary
from kdsweep.records.layout import TrialId, trial_folder
from kdsweep.records.schema import Finalist, missing_result
from kdsweep.records.whole_sweep import read_records
from kdsweep.records.writing import TrialFolder, write_sweep
from kdsweep.reporting.build import build_report
from kdsweep.reporting.markdown import finalists_table, render_markdown, terminal_text, verdicts_table
from kdsweep.reporting.write import write_report


def board_of(folder: Path) -> dict[str, Any]:
    """leaderboard.json of a report that is written now."""
    write_report(folder)
    board: dict[str, Any] = json.loads((folder / "leaderboard.json").read_text(encoding="utf-8"))
    return board


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_small_p_value_is_escaped_in_html_alone(finals: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finals, tmp_path / "s")
    report = write_report(folder)
    texts = [terminal_text(report), (folder / "leaderboard.json").read_text(encoding="utf-8")]
    texts += [(folder / "report.md").read_text(encoding="utf-8"), page_of(folder).text]
    assert all("< 0.001 (Holm)" in text for text in (texts[0], *texts[2:]))
    assert not [text for text in texts if "&lt;" in text or "&amp;" in text]


@pytest.mark.slow
def test_the_command_that_loads_the_student_is_at_the_end_or_is_not_promised(copied: Path) -> None:
    promise = "The command that loads it stands at the end."
    report = build_report(copied)
    assert promise not in terminal_text(report) and "Its student is not on this disk." in terminal_text(report)
    run = report.shipped
    assert run
    TrialFolder(run.folder).student.mkdir()
    report = build_report(copied)
    for text in (terminal_text(report), render_markdown(report)):
        end = text.split("\n\n")[-3:]
        assert promise in text and "Load the student" in "".join(end)
        assert text.rstrip().rstrip("`").rstrip().endswith("/student')")


@pytest.mark.slow
def test_without_a_test_split_verdicts_are_provisional(tmp_path: Path) -> None:
    make_finals(tmp_path / "s", 0.85, 0.70, tested=False)
    report = write_report(tmp_path / "s")
    assert report.finals is not None and report.finals.primary is not None
    assert (report.finals.split, report.finals.primary.rows) == ("validation", 200)
    assert "Provisional: there is no test split" in render_markdown(report)


@pytest.mark.slow
@pytest.mark.parametrize(("tested", "split", "rows"), [(True, "test", TEST_ROWS), (False, "validation", 200)])
def test_one_verdict_of_the_split_it_names_is_what_every_format_repeats(
    tmp_path: Path, tested: bool, split: str, rows: int
) -> None:
    make_finals(tmp_path / "s", 0.85, 0.70, tested=tested)
    board = board_of(tmp_path / "s")
    report = build_report(tmp_path / "s")
    assert report.finals is not None and report.finals.primary is not None
    verdict, primary = board["verdict"], board["finals"]["primary"]
    assert board["schema"] == 2 and verdict["headline"] == report.headline and f"the {split} rows" in report.headline
    assert (verdict["split"], verdict["rows"], verdict["provisional"]) == (split, rows, not tested)
    for key in ("word", "rows", "difference", "low", "high", "p_value", "one_seed", "counted"):
        assert verdict[key] == primary[key]
    assert verdict["distilled"] == [
        f"finalists/distilled-000{trial}-seed{seed}" for trial in (0, 1) for seed in (1, 2, 3)
    ]
    assert len(verdict["fine_tuned"]) == 6 and all((tmp_path / "s" / path).is_dir() for path in verdict["fine_tuned"])
    told = verdict_summary(report, report.finals)
    assert (told["verdict"], told["split"], told["provisional"]) == ("better", split, not tested)
    assert (told["difference"], told["p_value"], told["headline"]) == (
        verdict["difference"],
        verdict["p_value"],
        verdict["headline"],
    )


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [(1,), (1, 2)], ids=["one seed", "of one arm"])
def test_one_seed_an_arm_says_cannot_tell_everywhere_and_why(tmp_path: Path, seeds: tuple[int, ...]) -> None:
    folder = tmp_path / "s"
    sweep = replace(make_full(folder), finalists=FinalistsConfig(top=1, seeds=1))
    write_sweep(folder, sweep)
    make_teacher_tested(folder, 0.9)
    make_finalist(folder, sweep, "distilled", 0, 1, 0.85)
    for seed in seeds:
        make_finalist(folder, sweep, "fine_tuned", 0, seed, 0.5)  # it collapsed
    board, report = board_of(folder), build_report(folder)
    assert report.finals is not None and report.finals.primary is not None and report.finals.primary.p_value < 0.001
    assert report.headline == "A single seed cannot tell whether distilling beats plain fine-tuning"
    assert (board["verdict"]["word"], board["verdict"]["one_seed"]) == ("cannot tell", True)
    assert {each["word"] for each in (board["finals"]["primary"], *board["finals"]["secondary"][:1])} == {"cannot tell"}
    told = verdict_summary(report, report.finals)
    assert (told["verdict"], told["headline"]) == (
        "cannot tell",
        report.headline,
    ) and "detectable_difference" not in told
    assert finalist_summary(report.finals, report.finals.rows[0])["verdict"] == "cannot tell"
    assert [line[-1] for line in verdicts_table(report.finals)[1:3]] == ["cannot tell", "cannot tell"]
    why = "One seed cannot tell luck from recipe, whatever p says: finalists.seeds=3"
    assert why in report.answer and why in dict(report.questions)["How sure is that?"]
    assert board["finals"]["distillation_ratio"] is None and "of the gap" not in report.answer
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert '<span class="pill">cannot tell</span>' in page and ">Distilling beat" not in page


@pytest.mark.slow
def test_the_latest_choice_is_compared_as_many_an_arm_and_the_words_count_right(tmp_path: Path) -> None:
    """finalists.top is 1; the search went on after the first finalists and found a better distilled trial."""
    folder = tmp_path / "s"
    sweep = replace(make_full(folder), finalists=FinalistsConfig(top=1, seeds=2))
    write_sweep(folder, sweep)
    make_teacher_tested(folder, 0.9)
    for seed in (1, 2):
        make_finalist(folder, sweep, "distilled", 0, seed, 0.84)
        make_finalist(folder, sweep, "fine_tuned", 0, seed, 0.80)
    first = build_report(folder)
    assert first.finals is not None and first.finals.earlier == ()
    point = {"temperature": 2.0, "alpha": 0.5, "learning_rate": 1e-4, "batch_size": 32}
    make_trial(folder, sweep, "distilled", 7, point, 0.9)
    waiting = build_report(folder)  # before its first run: the earlier one still stands for its arm
    assert waiting.finals is not None and waiting.finals.primary == first.finals.primary
    assert waiting.finals.unfinished == 2
    for seed in (1, 2):
        make_finalist(folder, sweep, "distilled", 7, seed, 0.86, round_=2)
    board, report = board_of(folder), build_report(folder)
    assert report.finals is not None and report.finals.primary is not None
    primary = report.finals.primary
    assert (primary.finalists, primary.baseline_finalists, primary.seeds, primary.baseline_seeds) == (1, 1, 2, 2)
    assert primary.difference == pytest.approx(0.06, abs=0.01) and report.finals.unfinished == 0
    assert board["verdict"]["distilled"] == ["finalists/distilled-0007-seed1", "finalists/distilled-0007-seed2"]
    shown = {(row["arm"], row["trial"]): row["compared"] for row in board["finals"]["finalists"]}
    assert shown == {("distilled", 7): True, ("distilled", 0): False, ("fine_tuned", 0): True}
    sure = dict(report.questions)["How sure is that?"]
    assert f"A study of {TEST_ROWS:,} rows and 1 finalist an arm on 2 seeds finds" in sure
    assert "The search went on after distilled 0 had run and found better ones: left out of the verdict." in sure
    assert (board["verdict"]["word"], board["verdict"]["pair"]) == ("better of this pair", True)
    assert (
        "Of these two configurations, the distilled one makes" in report.answer and "istilling " not in report.headline
    )
    assert "These two alone do not tell whether distilling helps" in report.answer
    assert verdict_summary(report, report.finals)["verdict"] == "better of this pair"
    assert finalist_summary(report.finals, report.finals.rows[0])["verdict"] == "better of this pair"
    assert verdicts_table(report.finals)[1][0] == "the distilled finalist against the fine-tuned one (primary)"
    seeds = {line[1]: "2 of 2" in line for line in finalists_table(report, report.finals)[1:]}
    assert seeds == {"teacher": False, "distilled 7": True, "distilled 0": True, "fine-tuned 0": True}


@pytest.mark.slow
def test_arms_of_unequal_finalists_and_seeds_are_counted_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    sweep = replace(make_full(folder), finalists=FinalistsConfig(top=2, seeds=3))
    write_sweep(folder, sweep)
    make_teacher_tested(folder, 0.9)
    for trial in (0, 1):
        for seed in (1, 2, 3)[trial:]:
            make_finalist(folder, sweep, "distilled", trial, seed, 0.85)
    for seed in (1, 2, 3):
        make_finalist(folder, sweep, "fine_tuned", 0, seed, 0.80)
    report = build_report(folder)
    sure = dict(report.questions)["How sure is that?"]
    assert "rows and 2 distilled and 1 fine-tuned finalists on 2 to 3 seeds finds" in sure and "an arm" not in sure
    assert "4 runs of finalists are still to come" in sure
    failed = trial_folder(folder, TrialId("fine_tuned", 1, 1))
    TrialFolder(failed).start(sweep.trial("fine_tuned", {"learning_rate": 2e-4, "batch_size": 32, "seed": 1}))
    finalist = Finalist(seed=1, round=1)
    TrialFolder(failed).finish(
        missing_result("fine_tuned", 1, status="failed", error="a nan", attempt=1, finalist=finalist)
    )
    sure = dict(build_report(folder).questions)["How sure is that?"]
    assert "3 runs of finalists are still to come. 1 run of finalists failed." in sure


def test_the_chosen_one_is_the_best_on_validation_over_fresh_seeds_whatever_test_says(finals: Path) -> None:
    found = read_finals(read_records(finals))
    assert found is not None
    assert (found.chosen.arm, found.chosen.trial) == ("distilled", 0)
    assert [row.rank for row in found.rows] == sorted(row.rank for row in found.rows) and found.rows[0].rank == 1
    assert all(len(row.runs) == 3 for row in found.rows)


@pytest.mark.slow
def test_the_ratio_to_the_teacher_is_a_share_of_the_gap_or_undefined(copied: Path) -> None:
    report = write_report(copied)
    assert report.finals is not None and report.finals.ratio is not None
    assert report.finals.ratio.low < 0.43 < report.finals.ratio.high and "of the gap between" in report.answer
    make_teacher_tested(copied, 0.79)  # no clear gap to the fine-tuned students
    report = build_report(copied)
    assert report.finals is not None and report.finals.ratio is None and "is undefined" in report.answer


@pytest.mark.slow
@pytest.mark.parametrize(("fine_tuned", "next_one"), [(0.70, ["distilled 0 against distilled 1"]), (0.84, [])])
def test_the_best_is_held_against_the_next_one_once_and_each_arms_best_against_the_teacher(
    fine_tuned: float, next_one: list[str], tmp_path: Path
) -> None:
    """The next one may be the other arm's best, which it is held against already."""
    make_finals(tmp_path / "s", 0.845, fine_tuned)
    found = read_finals(read_records(tmp_path / "s"))
    assert found is not None and [each.what for each in found.secondary] == [
        "distilled 0 against fine-tuned 0",
        *next_one,
        "distilled 0 against the teacher",
        "fine-tuned 0 against the teacher",
    ]


def test_a_secondary_word_that_the_correction_takes_back_is_taken_back_on_both_sides() -> None:
    rng = np.random.default_rng(0)
    right = rng.random((3, 4000)) < 0.8
    worse = right & (rng.random((3, 4000)) > 0.2)
    for one, other, word in ((right, worse, "better"), (worse, right, "not better")):
        comparison = compare_finalists(one, other)
        stands, falls = (adjusted([Asked("it", replace(comparison, p_value=p))])[0] for p in (0.049, 0.051))
        assert (comparison.word, stands.word, falls.word) == (word, word, "cannot tell")


@pytest.mark.slow
def test_a_second_round_is_said(copied: Path) -> None:
    sweep = read_records(copied).sweep
    point = {"temperature": 2.0, "alpha": 0.5, "learning_rate": 1e-4, "batch_size": 32}
    make_trial(copied, sweep, "distilled", 7, point, 0.9)
    make_finalist(copied, sweep, "distilled", 7, 1, 0.86, round_=2)
    report = build_report(copied)
    assert report.finals is not None and len(report.finals.opened) == 2
    assert "The test split was opened 2 times" in " ".join(render_markdown(report).split())


@pytest.mark.slow
def test_half_of_the_finalists_give_a_report_that_says_what_is_to_come(tmp_path: Path) -> None:
    sweep = make_full(tmp_path / "s")
    make_teacher_tested(tmp_path / "s", 0.9)
    make_finalist(tmp_path / "s", sweep, "distilled", 0, 1, 0.85)
    report = write_report(tmp_path / "s")
    assert report.finals is not None and report.finals.primary is None and report.finals.unfinished == 19
    assert "19 runs of finalists are still to come" in render_markdown(report)


def test_finalists_that_were_switched_off_after_they_ran_wait_for_no_more_seeds(copied: Path) -> None:
    sweep = read_records(copied).sweep
    write_sweep(copied, replace(sweep, finalists=FinalistsConfig(top=0, seeds=9)))
    finals = read_finals(read_records(copied))
    assert finals is not None and finals.unfinished == 0
    assert all(row.wanted == len(row.runs) for row in finals.rows)
