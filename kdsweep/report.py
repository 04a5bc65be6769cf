"""The report of a sweep, read from its results folder alone: a page, Markdown, and the leaderboard as CSV and JSON.

    python -m kdsweep.report results/T_alpha
    python -m kdsweep.report results/T_alpha /elsewhere/T_alpha      with the trials of a host that shares no folder
    python -m kdsweep.report results/T_alpha --audit                 W&B's runs beside the records

A half-finished sweep has a report too, which says what is missing.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kdsweep.analysis import leaderboard
from kdsweep.analysis.by_class import by_class_json
from kdsweep.analysis.finalists import finals_json
from kdsweep.errors import KDSweepError
from kdsweep.reporting.answers import verdict_json
from kdsweep.reporting.build import Report, build_report
from kdsweep.reporting.markdown import render_markdown, terminal_text
from kdsweep.reporting.page import render_html
from kdsweep.system.files import write_atomically, write_json
from kdsweep.tracking.audit import audit, audit_text


def write_report(folder: Path, *others: Path) -> Report:
    """Write report.html, report.md, leaderboard.csv and leaderboard.json into the first folder. Raises ResultsError."""
    report = build_report(folder, *others)
    verdict = verdict_json(report.headline, report.verdict, report.weak_teacher)
    board = leaderboard.leaderboard_json(report.records.sweep.name, report.rows, verdict)
    board["finals"] = {**finals_json(report.finals), "teacher": _teacher_json(report)} if report.finals else None
    board["classes"] = by_class_json(report.by_class) if report.by_class else None
    write_json(folder / "leaderboard.json", board)
    write_atomically(folder / "leaderboard.csv", leaderboard.leaderboard_csv(report.rows, report.searched))
    write_atomically(folder / "report.md", render_markdown(report))
    write_atomically(folder / "report.html", render_html(report))
    return report


def _teacher_json(report: Report) -> dict[str, float] | None:
    """The teacher on the test split, under the finalists' names; None where there is none."""
    test = report.teacher_test
    return {key: getattr(test, key) for key in ("accuracy", "macro_f1", "mcc", "loss", "ece")} if test else None


EPILOG = """\
examples:
  python -m kdsweep.report results/T_alpha                     the page is results/T_alpha/report.html
  python -m kdsweep.report results/T_alpha /mnt/b/T_alpha      with students and steps of a host that shares no folder
  python -m kdsweep.report results/T_alpha --audit             is every row of the records in W&B's runs on this disk?

Of another host's folder the report takes trials that the first one lacks or has unfinished, and the records, students and
predictions of those that it knows from the study alone. An audit reads every run in results/T_alpha/wandb by W&B's own reader
(half a second each), and names each missing or different step, epoch, config and summary, each run without record and each
record without run; W&B writes an online run's log up to 15 seconds late while its worker lives.

exit codes: 0 done, 2 a problem that the message explains or a gap
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a sweep's report and print its summary; 0, or 2 with a message."""
    parser = argparse.ArgumentParser(
        prog="python -m kdsweep.report",
        description="Rank a sweep's trials and say whether distilling helped; works on a sweep that still runs.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folder", type=Path, help="a sweep's results folder, such as results/T_alpha; the report goes here"
    )
    parser.add_argument(
        "others", type=Path, nargs="*", help="the same sweep's folders on hosts that share no results folder"
    )
    parser.add_argument("--audit", action="store_true", help="compare W&B's runs with the records; writes nothing")
    options = parser.parse_intermixed_args(arguments)
    try:
        if options.audit:
            done = audit(options.folder, *options.others)
            print(audit_text(done))
            return 2 if done.gaps() else 0
        print(terminal_text(write_report(options.folder, *options.others)))
    except KDSweepError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
