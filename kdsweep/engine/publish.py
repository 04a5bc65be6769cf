"""Publish the verdict to W&B once the finalists are done: in a run of its own, and each finalist's rank in that finalist's run.

Only on request are the best student (`tracking.log_model`) and the texts on which teacher and finalists disagree (`tracking.log_texts`)
sent too: both are the user's data.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kdsweep.analysis.finalists import TEST_MEANS, Finalist, Finals, finals_json, third_arm_json
from kdsweep.analysis.shipped import best_run
from kdsweep.analysis.tasks import ROW_SCORES
from kdsweep.config.sweep import Resolved
from kdsweep.engine.pages import show_pages
from kdsweep.records import layout, reading, writing
from kdsweep.records.schema import ToldVerdict
from kdsweep.records.whole_sweep import SweepRecords
from kdsweep.reporting.build import Report
from kdsweep.tracking.artifacts import exported_model, trained_model
from kdsweep.tracking.names import RunLabel, verdict_label
from kdsweep.tracking.open import open_tracker, resolved_mode
from kdsweep.tracking.tracker import Run, Tracker
from kdsweep.training.data.splits import Split, load_data

MOST_TEXTS = 10_000
"""Most rows in the table of disagreements: W&B's own limit for a table that its page shows."""
DISAGREEMENTS = ("finalist", "seed", "row", "text", "class", "teacher", "student")


def publish(
    report: Report,
    finals: Finals,
    key: str,
    mode: Resolved | None,
    say: Callable[[str], None],
    *,
    again: bool = False,
) -> bool:
    """Send the verdict of a finished sweep to W&B, unless W&B has it already, and with `tracking.workspace` update view and report.

    A verdict that changed gets another run. `key` is the sweep's key, with which the ids of its runs end; `mode` is how W&B is reached
    (None: not known, its server is asked); `say` shows the user a message. With `again`, what runs and pages lack is added even where
    the verdict was sent before, as for runs that were synced since. Returns whether W&B has everything that the sweep file asks for.
    """
    found, summary = report.records, _as_json(verdict_summary(report, finals))
    told, tracking = reading.read_verdict(found.folder), found.sweep.tracking
    is_new = told is None or told.summary != summary
    wants_pages = tracking.workspace and (is_new or again or reading.read_pages(found.folder) is None)
    if not (is_new or wants_pages or again):
        return True
    tracker = open_tracker(found.folder, found.sweep.name, tracking, mode or resolved_mode(tracking)[0], say)
    number = told.number if told else 0
    if is_new:
        number += 1
        if not _send_verdict(tracker, report, finals, verdict_label(found.sweep, key, number), say):
            return False
    is_online = tracker.mode == "online"
    if wants_pages and not is_online:
        say(
            f"tracking.workspace: W&B is not online; after wandb sync, python -m kdsweep.publish {report.folder} does it"
        )
    pages = show_pages(report, finals, say) if wants_pages and is_online else None
    for row in finals.rows:
        for ran in row.runs:
            if ran.result and ran.result.run_id:
                tracker.amend(ran.result.run_id, finalist_summary(finals, row), pages)
    if pages:
        tracker.amend(verdict_label(found.sweep, key, number).run_id, {}, pages)
    if is_new:
        writing.write_verdict(found.folder, ToldVerdict(number=number, summary=summary))
    return tracker.mode == "online" and (pages is not None or not wants_pages)


def _send_verdict(
    tracker: Tracker, report: Report, finals: Finals, label: RunLabel, say: Callable[[str], None]
) -> bool:
    """Send the verdict in a run of its own; return False where W&B could open none, so that the next call sends it."""
    found, tracking = report.records, report.records.sweep.tracking
    with tracker.run(label, _as_json(found.sweep.identity())) as run:
        run.summarise(_as_json(verdict_summary(report, finals)))
        run.log_table("finalists", *_finalists(finals))
        if tracking.log_model:
            _log_student(run, report, say)
        if tracking.log_texts and found.teacher is not None and found.teacher.lacks(finals.split):
            say(
                f"tracking.log_texts: the teacher's file lacks {finals.split} rows, so nobody knows on which it disagrees"
            )
        elif tracking.log_texts:
            run.log_table("disagreements", DISAGREEMENTS, disagreements(found, finals))
    if run.missing:
        say(f"W&B has no run of the verdict ({run.missing}): the report has it, and the same command tells it again")
    return run.run_id is not None


def verdict_summary(report: Report, finals: Finals) -> dict[str, Any]:
    """Return the summary of the verdict's run: the verdict, the distillation ratio, every finalist's rank and score on the test split.

    difference, its interval and detectable_difference are in the unit of a row's score, which `score` names where it is not the accuracy.
    """
    verdict, ratio = report.verdict, finals.ratio
    said = {
        "headline": report.headline,
        "score": ROW_SCORES[finals.task] if finals.task != "single_label" else None,
        "pearson_difference": finals.pearson and finals.pearson.value,
        "verdict": verdict and verdict.word,
        "split": verdict and verdict.split,
        "provisional": verdict and verdict.provisional,
        "difference": verdict and verdict.difference,
        "difference_low": verdict and verdict.low,
        "difference_high": verdict and verdict.high,
        "p_value": verdict and verdict.p_value,
        "distillation_ratio": ratio and ratio.value,
        "distillation_ratio_low": ratio and ratio.low,
        "distillation_ratio_high": ratio and ratio.high,
        "shrinkage": finals.shrinkage and finals.shrinkage.value,
        "detectable_difference": finals.detectable,
        "ship": report.shipped and report.shipped.folder.name,
        **third_arm_json(report.records.sweep.arms, finals),
        "rank": {_name(row): row.rank for row in finals.rows},
        **{f"test_{name}": _means(finals, name) for name in dict.fromkeys((_first_metric(finals), "accuracy"))},
    }
    return {name: value for name, value in said.items() if value not in (None, {})}


def _first_metric(finals: Finals) -> str:
    """Return the metric that leads in the task: accuracy, example_f1, pearson."""
    return TEST_MEANS[finals.task][0]


def _means(finals: Finals, name: str) -> dict[str, float]:
    """Return a metric's mean on the test split for each finalist that was measured there."""
    return {_name(row): mean for row in finals.rows if (mean := row.mean(name)) is not None}


def finalist_summary(finals: Finals, row: Finalist) -> dict[str, Any]:
    """Return what is added to the summary of a finalist's run when all finalists are done."""
    ratio = finals.ratio.value if finals.ratio else None
    said = {"rank": row.rank, "verdict": finals.primary and finals.primary.word, "distillation_ratio": ratio}
    said |= {"search_score": row.search_score, "confirmed_score": row.confirmed_score}
    return {name: value for name, value in said.items() if value is not None}


def disagreements(found: SweepRecords, finals: Finals) -> list[list[Any]]:
    """Return the rows of the verdict's split that a finalist's best run and the teacher answer differently, in the columns `DISAGREEMENTS`.

    Of a regression, whose numbers always differ, those that differ most come first.
    """
    assert found.teacher is not None, "it came before every finalist"
    names, of_teacher = found.teacher.label_names, _predictions(found, finals, None)
    split = load_data(finals.rows[0].runs[0].config).split(finals.split)
    lines: list[list[Any]] = []
    for row in finals.rows:
        run = best_run(row.runs, found.sweep)
        mine = _predictions(found, finals, run)
        if mine is None or of_teacher is None or mine.shape != of_teacher.shape:
            continue
        for index in differing_rows(mine, of_teacher).tolist():
            answers = (answer_said(each[index], names) for each in (split.labels, of_teacher, mine))
            lines.append([_name(row), run.finalist_seed, index, _text(split, index), *answers])
    return lines[:MOST_TEXTS]


def differing_rows(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the rows that are answered differently; of numbers, the largest difference first."""
    if np.issubdtype(one.dtype, np.floating):
        gaps = np.abs(one - other)
        return np.asarray([row for row in np.argsort(-gaps, kind="stable") if gaps[row] > 0], np.int64)
    differs = one != other
    return np.flatnonzero(differs if differs.ndim == 1 else differs.any(axis=1))


def answer_said(answer: Any, names: Sequence[str]) -> Any:
    """Return a label or a prediction as the table shows it: the name of a class, the names of labels, a number."""
    if np.ndim(answer):
        return ", ".join(name for name, there in zip(names, answer, strict=True) if there) or "none"
    return float(answer) if np.issubdtype(np.asarray(answer).dtype, np.floating) else names[int(answer)]


def _finalists(finals: Finals) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows of the finalists' table: rank, scores, searched fields and the means on the test split."""
    rows = finals_json(finals)["finalists"]
    flat = [
        {name: value for name, value in row.items() if name not in ("seeds", "run_urls", "test")}
        | {f"test_{name}": value for name, value in row["test"].items()}
        for row in rows
    ]
    columns = {name: as_column([row[name] for row in flat]) for name in flat[0]}
    return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]


def as_column(values: Sequence[Any]) -> list[Any]:
    """Return a column's values in one type, as W&B's tables need it: where only some are lists or texts, as of layers, all but None become text."""
    kinds = {(isinstance(value, list | tuple), isinstance(value, str)) for value in values if value is not None}
    return [value if value is None else str(value) for value in values] if len(kinds) > 1 else list(values)


def _log_student(run: Run, report: Report, say: Callable[[str], None]) -> None:
    """Send the student that the report recommends to W&B, if it is on this disk."""
    best, sweep = report.shipped, report.records.sweep
    assert best is not None and best.result is not None, "a finalist is complete"
    exports = {export.run: export for export in reading.read_exports(report.records.folder)}
    if export := exports.get(layout.run_name(best.id)):
        run.log_model(exported_model(sweep, layout.exports_folder(report.records.folder) / export.run, export))
        return
    if not best.has_student():
        say(f"tracking.log_model: the student of {best.folder.name} is not on this disk, so W&B does not get it")
        return
    run.log_model(trained_model(sweep, best.folder, best.result.summary()))


def _predictions(found: SweepRecords, finals: Finals, run: reading.TrialRow | None) -> np.ndarray | None:
    """Return the predictions of `run` (None: of the teacher) on the verdict's split; None where they are not on disk."""
    read = reading.read_test_predictions if finals.split == "test" else reading.read_predictions
    return read(run.folder if run else layout.teacher_folder(found.folder))


def _text(split: Split, index: int) -> str:
    return split.texts[index] if split.pairs is None else f"{split.texts[index]}\n{split.pairs[index]}"


def _name(row: Finalist) -> str:
    return f"{row.arm}-{row.trial:04d}"


def _as_json(values: Any) -> Any:
    """Return `values` as JSON gives them back: lists for tuples, texts for keys."""
    return json.loads(json.dumps(values))
