"""Render the report as text: Markdown for a pull request, and a summary for the terminal."""

import textwrap
from collections.abc import Sequence
from typing import Any

from kdsweep.analysis.by_class import WORST, ByClass, Judged
from kdsweep.analysis.finalists import TEST_MEANS, Finals, titled
from kdsweep.analysis.formats import clipped, compact, number, percent, small
from kdsweep.analysis.score import score_text, teacher_score
from kdsweep.analysis.secondary import of_arms
from kdsweep.config.arms import ARM_NAMES, PRIMARY
from kdsweep.reporting.build import Report
from kdsweep.reporting.forms import caption, forms_table, forms_title, measured_said, teacher_beside
from kdsweep.reporting.memorised import memorised, seen_line, seen_table
from kdsweep.reporting.tables import (
    TERMINAL_WIDTH,
    first_columns,
    markdown_prose,
    markdown_table,
    markdown_tables,
    markdown_text,
    terminal_table,
    terminal_tables,
)
from kdsweep.reporting.task_words import (
    BY_CLASS,
    CLASS,
    board_metrics,
    compared_by,
    correlation,
    signed_numbers,
    test_cells,
    test_heading,
)
from kdsweep.reporting.work import PATIENCE_CAPTION, patience_table, work_caption, work_table


def _shown(value: Any) -> str:
    """Return a searched value as a table shows it: a long path is cut (leaderboard.csv has all of it)."""
    return clipped(compact(value))


def _ranked_table(report: Report) -> list[list[str]]:
    """Return the ranked rows as a table: `study.metric`, then the task's other metrics; the interval is of the accuracy."""
    shown = board_metrics(report.task, report.records.sweep.study.metric)
    of_shares = "val_accuracy" in shown
    interval_of = "95 % interval" if report.task == "single_label" else "val_accuracy, 95 % interval"
    header = ["rank", "arm", "trial", *shown, *report.searched, *[interval_of] * of_shares]
    lines = [[*header, "parameters", "ms a row", *["agreement"] * of_shares, "seconds"]]
    for row in report.rows:
        result = row.trial.result
        if row.rank is None or result is None:
            continue
        interval = f"{percent(row.interval[0])} to {percent(row.interval[1])}" if row.interval else "–"
        cells = [str(row.rank), ARM_NAMES[row.arm], str(row.trial.trial)]
        cells += [score_text(name, getattr(result, name), 2) for name in shown]
        cells += [*map(_shown, row.searched.values()), *[interval] * of_shares]
        cells += [f"{result.parameters:,}", number(result.latency_ms_p50)]
        lines.append([*cells, *[percent(result.val_agreement)] * of_shares, number(result.seconds)])
    return lines


# Finalists -----------------------------------------------------------------------------------------------------------


def finalists_table(report: Report, finals: Finals) -> list[list[str]]:
    """Return the finalists as a table: the score in the search, then means over the fresh seeds; the last row is the teacher's."""
    task = report.task
    lines = [["rank", "finalist", "search", "confirmed", *finals.rows[0].searched, "seeds"]]
    lines[0] += [test_heading(task, name) for name in TEST_MEANS[task]]
    metric = report.records.sweep.study.metric
    for row in finals.rows:
        scores = [score_text(metric, value, 2) for value in (row.search_score, row.confirmed_score)]
        cells = [str(row.rank), titled(row), *scores]
        cells += [*map(_shown, row.searched.values()), f"{len(row.runs)} of {row.wanted}"]
        lines.append([*cells, *test_cells(task, row)])
    if report.records.teacher:
        confirmed = score_text(metric, teacher_score(report.records), 2)
        cells = ["–", "teacher", "–", confirmed, *("–" for _ in finals.rows[0].searched), "–"]
        lines.append([*cells, *test_cells(task, report.teacher_test)])
    return lines


def verdicts_table(finals: Finals) -> list[list[str]]:
    """Return the primary and the secondary comparisons as a table."""
    first = finals.primary
    asked = [(f"{of_arms(*PRIMARY, first)} (primary)", first, None)] if first else []
    unit = "better by" if finals.task == "regression" else "points"
    lines = [["comparison", unit, "95 % interval", "p", "verdict"]]
    for what, found, corrected in [*asked, *((each.what, each.comparison, each) for each in finals.secondary)]:
        difference, low, high = signed_numbers(found)
        p_value = small(found.p_value) if corrected is None else f"{small(corrected.adjusted_p)} (Holm)"
        word = found.word if corrected is None else corrected.word
        lines.append([what + compared_by(found.score), difference, f"{low} to {high}", p_value, word])
    if first and finals.pearson:
        numbers = [
            correlation(value, sign=True) for value in (finals.pearson.value, finals.pearson.low, finals.pearson.high)
        ]
        interval = f"{numbers[1]} to {numbers[2]}"
        lines.insert(
            2, [f"{of_arms(*PRIMARY, first)}, by Pearson's r", numbers[0], interval, "–", finals.pearson.counted]
        )
    return lines


def export_tables(report: Report) -> list[tuple[str, list[list[str]], str]]:
    """Return a title, a table of forms and what else was measured, for each export."""
    known = report.records.teacher, report.teacher_test
    return [
        (forms_title(each), forms_table(each, teacher_beside(each.export, *known)), measured_said(each.export))
        for each in report.exports
    ]


NO_VERDICT = "No comparison is possible yet."

# Classes -------------------------------------------------------------------------------------------------------------


def classes_table(by: ByClass) -> list[list[str]]:
    """Return a table with a line for each class: its rows, then each model's precision, recall and F1 in one cell."""
    scores = [each.scores() for each in by.judged]
    lines = [[CLASS[by.task], "rows", *(each.name for each in by.judged)]]
    for place in by.shown():
        cells = [" / ".join(in_percent(v) for v in (s.precision, s.recall, s.f1)) for s in (s[place] for s in scores)]
        lines.append([clipped(by.names[place]), f"{by.rows[place]:,}", *cells])
    return lines


def in_percent(share: float | None) -> str:
    """Return a share in percent without the percent sign, which the table's heading has; a dash for None."""
    return number(None if share is None else 100 * share)


def confused_table(by: ByClass) -> list[list[str]]:
    """Return a table of the class pairs that `by.chosen` confuses most: rows, as a mean over the seeds, and their share of the class."""
    lines = [["class", "rows", "named", *(each.name for each in by.judged)]]
    for pair in by.chosen.confused()[:WORST]:
        cells = [_confused(each, pair.true, pair.predicted) for each in by.judged]
        names = clipped(by.names[pair.true]), f"{by.rows[pair.true]:,}", clipped(by.names[pair.predicted])
        lines.append([*names, *cells])
    return lines


def _confused(each: Judged, true: int, predicted: int) -> str:
    count = int(each.counts[true, predicted])
    return f"{count / each.models:.4g} ({percent(count / int(each.counts[true].sum()))})"


def confused_said(by: ByClass) -> str:
    """Return a sentence that describes the table of confused classes."""
    mean = " (means over the seeds)" if by.chosen.seeds else ""
    return f"What {by.chosen.name} confuses most: rows of a class that are named as another{mean}, and their share of the class."


# Markdown ------------------------------------------------------------------------------------------------------------


def render_markdown(report: Report) -> str:
    """Return the report as Markdown, for a pull request or a README."""
    parts = [
        f"# {markdown_text(report.records.sweep.name)}",
        *_prose(
            f"**{report.headline}.** {markdown_text(report.answer)}",
            *(f"**{question}** {markdown_text(text)}" for question, text in report.questions),
            markdown_text(report.conventions),
            *(f"**Note:** {markdown_text(doubt)}" for doubt in report.doubts),
            "; ".join(arm.text() for arm in report.arms) + ".",
        ),
    ]
    parts += _markdown_forms(report) if report.exports else []
    if report.finals:
        verdicts = verdicts_table(report.finals)
        parts += ["## Finalists", markdown_tables(finalists_table(report, report.finals), keys=2)]
        parts.append(markdown_table(verdicts) if len(verdicts) > 1 else NO_VERDICT)
    if report.patience:
        metric = report.records.sweep.study.metric
        parts += [*_prose(PATIENCE_CAPTION), markdown_tables(patience_table(report.patience, metric), keys=1)]
    table = _ranked_table(report)
    parts += ["## Leaderboard", markdown_tables(table, keys=3) if len(table) > 1 else "No trial is complete yet."]
    if report.work:
        parts += [
            "## What each arm was given",
            *_prose(work_caption(report.work)),
            markdown_tables(work_table(report.work), keys=1),
        ]
    parts += _markdown_classes(report.by_class) if report.by_class else []
    others = [row for row in report.rows if row.rank is None]
    if others:
        reasons = [(f"{ARM_NAMES[row.arm]} {row.trial.trial}, {row.status}", row.reason or "") for row in others]
        parts += ["## Pruned, failed and unfinished trials", _listed(reasons)]
    if report.advice:
        parts += ["## What mattered", _listed([(item.short, item.why) for item in report.advice])]
    seen = seen_table(report.records.teacher)
    parts += ["## Teacher", *_prose(memorised(report.records.teacher)), markdown_table(seen)] if seen else []
    parts += ["## Provenance", _listed(report.provenance), "## Next"]
    parts += [f"{purpose}:\n\n```\n{text}\n```" for purpose, text in report.commands]
    return "\n\n".join(parts) + "\n"


def _markdown_forms(report: Report) -> list[str]:
    parts = ["## In which form?", *_prose(caption(report.task))]
    for title, table, measured in export_tables(report):
        parts += [*_prose(markdown_text(title)), markdown_tables(table, keys=1), *_prose(markdown_text(measured))]
    return parts


def _markdown_classes(by: ByClass) -> list[str]:
    table = markdown_tables(classes_table(by), keys=2)
    parts = [f"## {BY_CLASS[by.task]}", *_prose(markdown_text(by.said())), table]
    confused = confused_table(by)
    if len(confused) > 1:
        parts += [*_prose(markdown_text(confused_said(by))), markdown_tables(confused, keys=3)]
    return parts


def _prose(*paragraphs: str) -> list[str]:
    return [markdown_prose(text) for text in paragraphs]


def _listed(pairs: Sequence[tuple[str, str]]) -> str:
    """Return a Markdown list: an item for each name and its text."""
    return "\n".join(
        markdown_prose(f"- {markdown_text(name)}: {markdown_text(text)}", indent="  ") for name, text in pairs
    )


# Terminal ------------------------------------------------------------------------------------------------------------


def terminal_text(report: Report, most: int = 10) -> str:
    """Return the answer, the `most` best rows, the files written and the next commands; the one that loads the student is last."""
    parts = [f"{report.headline}. {report.answer}"]
    parts += ["\n".join(f"{question} {text}" for question, text in report.questions)]
    parts += [f"Note: {doubt}" for doubt in report.doubts]
    parts += [line] if (line := seen_line(report.records.teacher)) else []
    parts += [f"{title}\n{_fitting_table(table)}" for title, table, _ in export_tables(report)]
    if report.finals:
        verdicts = verdicts_table(report.finals)
        parts.append(terminal_tables(finalists_table(report, report.finals), keys=2))
        parts.append(terminal_table(verdicts) if len(verdicts) > 1 else NO_VERDICT)
    parts += _terminal_board(_ranked_table(report)[: most + 1])
    written = ("report.html", "report.md", "leaderboard.csv", "leaderboard.json")
    parts.append("Written:\n" + "\n".join(f"  {report.folder}/{name}" for name in written))
    shell = [(purpose, text) for purpose, text in report.commands if "\n" not in text]
    parts.append("Next:\n" + "\n".join(f"  {text}    # {purpose}" for purpose, text in shell))
    parts += [f"{purpose}:\n{textwrap.indent(text, '  ')}" for purpose, text in report.commands if "\n" in text]
    return "\n\n".join(parts)


def _terminal_board(table: list[list[str]]) -> list[str]:
    """Return the best rows with the columns that fit, and where the other columns are; empty without rows."""
    if len(table) == 1:
        return []
    return [_fitting_table(table)]


def _fitting_table(table: list[list[str]]) -> str:
    """Return a table with the columns that fit a terminal, and below it the names of the others."""
    fitting, left_out = first_columns(table, keys=4)
    if not left_out:
        return terminal_table(fitting)
    said = f"No room here for {', '.join(left_out)}: see report.html."
    return f"{terminal_table(fitting)}\n{textwrap.fill(said, TERMINAL_WIDTH)}"
