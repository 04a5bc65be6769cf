"""Write a sweep's report from its results folder alone: a page, Markdown, and the leaderboard as CSV and JSON."""

from pathlib import Path

from kdsweep.analysis import leaderboard
from kdsweep.analysis.by_class import by_class_json
from kdsweep.analysis.exports import exports_json
from kdsweep.analysis.finalists import TEST_MEANS, finals_json, third_arm_json
from kdsweep.analysis.patience import patience_json
from kdsweep.analysis.work import work_json
from kdsweep.reporting.answers import verdict_json
from kdsweep.reporting.build import Report, build_report
from kdsweep.reporting.markdown import render_markdown
from kdsweep.reporting.memorised import seen_json
from kdsweep.reporting.page import render_html
from kdsweep.reporting.task_words import OF_THE_TEACHER
from kdsweep.system.files import write_atomically, write_json


def write_report(folder: Path, *others: Path) -> Report:
    """Write report.html, report.md, leaderboard.csv and leaderboard.json into `folder`. Raises ResultsError where it holds no sweep."""
    report = build_report(folder, *others)
    verdict = verdict_json(report.headline, report.verdict, report.weak_teacher)
    verdict |= third_arm_json(report.records.sweep.arms, report.finals)
    board = leaderboard.leaderboard_json(report.records.sweep.name, report.rows, verdict)
    board["finals"] = {**finals_json(report.finals), "teacher": _teacher_json(report)} if report.finals else None
    board["teacher"] = seen_json(report.records.teacher)
    board["work"] = work_json(report.work)
    board["patience"] = patience_json(report.patience) if report.patience else None
    board["classes"] = by_class_json(report.by_class) if report.by_class else None
    board["exports"] = exports_json(report.exports)
    write_json(folder / "leaderboard.json", board)
    write_atomically(folder / "leaderboard.csv", leaderboard.leaderboard_csv(report.rows, report.searched))
    write_atomically(folder / "report.md", render_markdown(report))
    write_atomically(folder / "report.html", render_html(report))
    return report


def _teacher_json(report: Report) -> dict[str, float] | None:
    """Return the teacher's scores on the test split, named as the finalists' are; None where it was not tested."""
    test = report.teacher_test
    names = [name for name in TEST_MEANS[report.task] if name not in OF_THE_TEACHER]
    return {name: getattr(test, name) for name in names} if test else None
