"""Three arms in every format: is it the soft targets, or only more text? A sweep of two arms shows nothing of a third one."""

import json
from pathlib import Path

import pandas
import pytest
from makers import make_finalist, make_finals, make_full, make_teacher_tested, page_of

from kdsweep.analysis.finalists import third_arm_json
from kdsweep.analysis.ranking import holm
from kdsweep.analysis.read_finals import read_finals
from kdsweep.config.arms import ARMS, PRIMARY, THIRD
from kdsweep.engine.publish import verdict_summary
from kdsweep.records.whole_sweep import read_records
from kdsweep.reporting.build import Report
from kdsweep.reporting.figures import style
from kdsweep.reporting.markdown import render_markdown, terminal_text
from kdsweep.reporting.write import write_report
from kdsweep.results import Results

pytestmark = pytest.mark.slow
QUESTION = "Is it the soft targets, or only more text?"


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("three") / "s"
    make_finals(folder, 0.86, 0.80, 0.83)
    return write_report(folder)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("two") / "s"
    make_finals(folder, 0.86, 0.80)
    return write_report(folder)


def test_the_third_arm_is_compared_with_both_others_and_corrected_by_these_two_alone(three: Report) -> None:
    finals = three.finals
    assert (
        finals is not None and finals.primary is not None and finals.primary.difference == pytest.approx(0.06, abs=0.01)
    )
    assert [each.arms for each in finals.secondary][:3] == [*THIRD, None]
    for (arm, baseline), share in zip(THIRD, (0.03, 0.03), strict=True):
        found = finals.between(arm, baseline)
        assert found is not None and found.word == "better" and found.comparison.finalists == 2
        assert found.comparison.difference == pytest.approx(share, abs=0.01)
    assert finals.between("fine_tuned", "pseudo_labeled") is None
    of_arms, others = finals.secondary[:2], finals.secondary[2:]
    for family in (of_arms, others):
        corrected = holm([each.comparison.p_value for each in family])
        assert [each.adjusted_p for each in family] == pytest.approx(corrected)
    whats = [each.what for each in finals.secondary]
    assert whats[:3] == [
        "distilled finalists against pseudo-labeled ones",
        "pseudo-labeled finalists against fine-tuned ones",
        "distilled 0 against fine-tuned 0",
    ]
    assert whats[-3:] == [f"{name} 0 against the teacher" for name in ("distilled", "fine-tuned", "pseudo-labeled")]


def test_words_and_table_answer_what_soft_targets_add_to_more_text(three: Report) -> None:
    answers = dict(three.questions)
    assert (
        "Soft targets are worth more than the teacher's hard labels on the same texts: distilled finalists make +2."
        in (answers[QUESTION])
    )
    assert "More text helps with hard labels alone: pseudo-labeled finalists make +" in answers[QUESTION]
    assert "The best pseudo-labeled configuration, trial 0" in three.answer
    assert three.headline == "Distilling beat plain fine-tuning on the test rows", "the primary comparison stays"
    for text in (render_markdown(three), terminal_text(three)):
        said = " ".join(text.split())
        assert QUESTION in said and "pseudo-labeled 0" in said and "distilled finalists against" in said
        assert "2 of 12 pseudo-labeled trials complete" in said or text == terminal_text(three)


def test_one_configuration_an_arm_is_told_as_a_pair_and_one_seed_cannot_tell(tmp_path: Path) -> None:
    sweep = make_full(tmp_path / "s", unlabeled_file="more.csv")
    make_teacher_tested(tmp_path / "s", 0.9)
    for arm, share in zip(ARMS, (0.86, 0.80, 0.83), strict=True):
        make_finalist(tmp_path / "s", sweep, arm, 0, 1, share)
    assert dict(write_report(tmp_path / "s").questions)[QUESTION].count(": cannot tell.") == 2
    for arm, share in zip(ARMS, (0.86, 0.80, 0.83), strict=True):
        make_finalist(tmp_path / "s", sweep, arm, 0, 2, share)
    report = write_report(tmp_path / "s")
    said = dict(report.questions)[QUESTION]
    assert said.startswith("Of these two configurations alone, the distilled one makes +")
    assert said.count("): better of this pair.") == 2
    assert report.finals is not None
    assert [each.what for each in report.finals.secondary] == [
        "the distilled finalist against the pseudo-labeled one",
        "the pseudo-labeled finalist against the fine-tuned one",
        "distilled 0 against the teacher",
        "fine-tuned 0 against the teacher",
        "pseudo-labeled 0 against the teacher",
    ]


def test_no_third_arm_shows_in_a_sweep_of_two(two: Report) -> None:
    assert two.records.sweep.arms == PRIMARY and set(two.bests) == set(PRIMARY)
    folder = two.records.folder
    for name in ("report.md", "leaderboard.json", "leaderboard.csv"):
        assert "pseudo" not in (folder / name).read_text(encoding="utf-8")
    assert "pseudo" not in terminal_text(two) and "pseudo" not in page_of(folder).text
    assert (
        QUESTION not in dict(two.questions) and two.finals and all(each.arms is None for each in two.finals.secondary)
    )
    assert third_arm_json(PRIMARY, two.finals) == {}


def test_json_w_and_b_and_python_have_the_same_numbers(three: Report) -> None:
    assert three.finals is not None
    folder = three.records.folder
    board = json.loads((folder / "leaderboard.json").read_text(encoding="utf-8"))
    summary, table = verdict_summary(three, three.finals), Results(folder).comparisons()
    assert isinstance(table, pandas.DataFrame) and table["primary"].tolist()[:3] == [True, False, False]
    assert table["difference"][0] == board["verdict"]["difference"] and table["word"][0] == board["verdict"]["word"]
    for place, (arm, baseline) in enumerate(THIRD, start=1):
        told = board["verdict"][f"{arm}_against_{baseline}"]
        assert told == summary[f"{arm}_against_{baseline}"] and told["word"] == table["word"][place]
        assert (told["difference"], told["adjusted_p"]) == (table["difference"][place], table["adjusted_p"][place])
        assert board["finals"]["secondary"][place - 1]["arms"] == [arm, baseline]
    assert {row["arm"] for row in board["trials"]} == set(ARMS)


def test_before_the_finalists_the_best_of_three_arms_is_shown_and_the_question_open(tmp_path: Path) -> None:
    make_full(tmp_path / "s", unlabeled_file="more.csv")
    report = write_report(tmp_path / "s")
    assert [arm.arm for arm in report.arms] == list(ARMS) and set(report.bests) == set(ARMS)
    assert "The best of 2 pseudo-labeled trials, trial 0" in report.answer
    assert dict(report.questions)[QUESTION].startswith("It takes finalists of the third arm to say")
    board = json.loads((tmp_path / "s" / "leaderboard.json").read_text(encoding="utf-8"))
    assert all(board["verdict"][f"{arm}_against_{baseline}"] is None for arm, baseline in THIRD)


def test_the_page_draws_and_filters_three_arms_that_colour_dash_and_symbol_tell_apart(three: Report) -> None:
    page = page_of(three.records.folder)
    for words in ("Best pseudo-labeled", "Trials of all arms by", QUESTION):
        assert words in page.text
    classes = [dict(attributes).get("class") for _, attributes in page.tags]
    assert {"arm pseudo_labeled", "line pseudo_labeled", "card pseudo_labeled"} <= set(classes)
    text = (three.records.folder / "report.html").read_text(encoding="utf-8")
    assert text.count('"meta":"pseudo_labeled"') >= 4, "curves, costs and budget"
    for look in (style.COLOURS, style.DASHES, style.SYMBOLS):
        assert set(look) == set(ARMS) and len(set(look.values())) == len(ARMS)


def test_a_third_arm_that_was_given_up_later_leaves_a_report_of_two(tmp_path: Path) -> None:
    make_finals(tmp_path / "s", 0.86, 0.80, 0.83)
    path = tmp_path / "s" / "sweep.yaml"
    path.write_text(
        path.read_text(encoding="utf-8").replace("pseudo_labeled: null", "pseudo_labeled: 0"), encoding="utf-8"
    )
    found = read_records(tmp_path / "s")
    finals = read_finals(found)
    assert found.sweep.arms == PRIMARY and finals is not None
    assert {row.arm for row in (*found.trials, *finals.rows)} == set(PRIMARY)
