"""Render the report's page: self-contained (plotly.js is inlined once), every text from data escaped, nothing fetched."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.resources import files
from typing import Any

import jinja2

from kdsweep.analysis.exports import to_ship
from kdsweep.analysis.finalists import Finals, titled
from kdsweep.analysis.formats import clipped, compact, milliseconds, number, percent
from kdsweep.analysis.leaderboard import Row
from kdsweep.analysis.score import majority_score, score_text, teacher_score
from kdsweep.analysis.shipped import best_run
from kdsweep.analysis.shipped_form import FORM_NAMES, at_one_thread, times_teacher
from kdsweep.config.arms import ARM_NAMES
from kdsweep.records.reading import read_test
from kdsweep.records.schema import TrialResult
from kdsweep.reporting.build import Report
from kdsweep.reporting.figures import cost, curves, importances, parallel, search_map, style
from kdsweep.reporting.figures.confusion import confusion_matrices
from kdsweep.reporting.figures.forms import form_fronts
from kdsweep.reporting.figures.labels import f1_by_label
from kdsweep.reporting.figures.predictions import predicted_against_label
from kdsweep.reporting.forms import caption, teacher_beside
from kdsweep.reporting.markdown import (
    confused_said,
    confused_table,
    export_tables,
    finalists_table,
    in_percent,
    verdicts_table,
)
from kdsweep.reporting.memorised import SEEN_CAPTION, memorised, seen_table
from kdsweep.reporting.task_words import BY_CLASS, CLASS, ONE_ANSWER_CARD, SECTION, board_metrics
from kdsweep.reporting.work import PATIENCE_CAPTION, patience_table, work_caption, work_table

MOST_ROWS = 2000
"""Rows of a table of trials: with more a page takes seconds to open; leaderboard.csv has them all."""


def render_html(report: Report) -> str:
    """Return the report as one HTML page."""
    found, task = report.records, report.task
    drawn = {
        "search": search_map.search_maps(found),
        "curves": curves.learning_curves(found),
        "cost": cost.score_versus_cost(found),
        "budget": (curves.budget_curves(found),),
        "calibration": () if task == "regression" else (cost.calibration(_calibrated(report), task),),
        "confusion": confusion_matrices(report.by_class) if task == "single_label" else (),
        "labels": f1_by_label(report.by_class) if task == "multi_label" else (),
        "predictions": predicted_against_label(report.numbers) if task == "regression" else (),
        "importances": (importances.parameter_importances(found),),
        "parallel": (parallel.parallel_coordinates(found),),
        "forms": _form_fronts(report),
    }
    ranked = [row for row in report.rows if row.rank is not None]
    shown = report.rows[:MOST_ROWS]
    return _template().render(
        report=report,
        rows=shown,
        rows_left=len(report.rows) - len(shown),
        others_left=max(0, sum(row.rank is None for row in report.rows) - MOST_ROWS),
        thinned=thinned_said(report),
        ranked=ranked,
        others=[row for row in report.rows if row.rank is None][:MOST_ROWS],
        verdict=report.verdict,
        finalists=finalists_table(report, report.finals) if report.finals else [],
        verdicts=verdicts_table(report.finals) if report.finals else [],
        confused=confused_table(report.by_class) if report.by_class else [],
        confused_said=confused_said(report.by_class) if report.by_class else "",
        patience=patience_table(report.patience, found.sweep.study.metric) if report.patience else [],
        patience_caption=PATIENCE_CAPTION,
        work=work_table(report.work) if report.work else [],
        work_caption=work_caption(report.work),
        finalist_runs=_finalist_runs(report.finals),
        forms=export_tables(report),
        forms_caption=caption(task),
        form_names=FORM_NAMES,
        exported_arms={each.export.arm: ARM_NAMES[each.export.arm] for each in report.exports},
        export=_shipped_export(report),
        statuses=dict.fromkeys(row.status for row in shown),
        one_size=len({row.trial.result.parameters for row in ranked if row.trial.result}) == 1,
        seen=seen_table(found.teacher),
        seen_caption=SEEN_CAPTION,
        memorised=memorised(found.teacher),
        drawn=drawn,
        metric=found.sweep.study.metric,
        task=task,
        board=board_metrics(task, found.sweep.study.metric),
        words={
            "by_class": BY_CLASS[task],
            "class": CLASS[task],
            "section": SECTION[task],
            "one_answer": ONE_ANSWER_CARD[task],
        },
        teacher_score=teacher_score(found),
        majority_score=majority_score(found),
        arm_names={arm: ARM_NAMES[arm] for arm in found.sweep.arms},
        whisker=partial(_whisker, _scale(ranked)),
        css=_beside("page.css"),
        js=_beside("page.js"),
        plotly_js=style.plotly_js(),
    )


def thinned_said(report: Report) -> str:
    """Return how many trials the figures draw, in a sentence; empty where they draw all."""
    most = max(Counter(trial.arm for trial in report.records.trials).values(), default=0)
    if most <= style.MOST_TRIALS:
        return ""
    best = style.MOST_TRIALS // 4
    return f"Of more than {style.MOST_TRIALS:,} trials of an arm, its best {best:,} are drawn, and others evenly spread over the rest."


def _calibrated(report: Report) -> dict[str, tuple[tuple[float, float, int], ...]]:
    """Return the reliability bins of each arm's best confirmed student on the test split, by the student's name."""
    best = [report.finals.best(arm) for arm in report.records.sweep.arms] if report.finals else []
    runs = [(row, best_run(row.runs, report.records.sweep)) for row in best if row]
    tested = [(row, test) for row, run in runs if (test := read_test(run.folder))]
    return {titled(row): test.reliability for row, test in tested}


def _form_fronts(report: Report) -> tuple[style.Figure, ...]:
    if not report.exports:
        return ()
    known = report.records.teacher, report.teacher_test
    return form_fronts(report.exports, teacher_beside(report.exports[0].export, *known))


def _shipped_export(report: Report) -> dict[str, Any] | None:
    """Return what the cards say of the form to ship: its name, and its speed and size beside the teacher's; None without an export."""
    exported = to_ship(report.exports)
    if exported is None:
        return None
    export, form = exported.export, exported.form
    own, teachers = at_one_thread(form.speed), at_one_thread(export.teacher_speed)
    ms = [milliseconds(each.latency_ms_p50) if each else None for each in (own, teachers)]
    return {
        "form": FORM_NAMES[form.form],
        "times": times_teacher(export, form),
        "ms": ms[0],
        "teacher_ms": ms[1],
        "mb": form.size_mb,
        "teacher_mb": export.teacher_size_mb,
    }


def _finalist_runs(finals: Finals | None) -> list[tuple[str, TrialResult]]:
    """Return the finalists' runs that have a page in W&B, each with its name."""
    runs = [
        (f"{titled(row)} seed {run.finalist_seed}", run.result)
        for row in (finals.rows if finals else ())
        for run in row.runs
    ]
    return [(what, result) for what, result in runs if result and _is_web(result.run_url)]


def _is_web(address: str | None) -> bool:
    """Return whether `address` may become a link: https or http only, so that no `javascript:` comes from a record."""
    return address is not None and address.startswith(("https://", "http://"))


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    filters: dict[str, Callable[..., Any]] = {
        "percent": percent,
        "scored": _scored,
        "compact": compact,
        "number": number,
        "in_percent": in_percent,
        "clipped": clipped,
        "key": _key,
        "millions": _millions,
        "web": _is_web,
    }
    environment.filters |= filters
    return environment.from_string(_beside("page.html.j2"))


def _beside(name: str) -> str:
    """Return the text of a file of this package: the page's template, style or script."""
    return files("kdsweep.reporting").joinpath(name).read_text(encoding="utf-8")


def _key(value: Any) -> str:
    """Return the text by which the page sorts a cell: six significant digits of a float, else the value as text."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _scored(value: float | None, metric: str, digits: int = 1) -> str:
    return score_text(metric, value, digits)


def _millions(value: int) -> str:
    return number(value / 1e6)


def _scale(ranked: Sequence[Row]) -> tuple[float, float]:
    """Return both ends of the scale on which the page draws the intervals."""
    ends = [end for row in ranked for end in row.interval or ()]
    return (min(ends), max(ends)) if ends else (0.0, 1.0)


def _whisker(scale: tuple[float, float], row: Row) -> str:
    """Return CSS variables: where a row's interval starts, how long it is, and the row's accuracy, in percent of `scale`."""
    low, high = row.interval or (0.0, 0.0)
    span = (scale[1] - scale[0]) or 1.0
    start, length = 100 * (low - scale[0]) / span, 100 * (high - low) / span
    return f"--l:{start:.0f}%;--w:{length:.0f}%;--m:{100 * ((row.val_accuracy or 0.0) - scale[0]) / span:.0f}%"
