"""Rank the trials of a sweep, best first, as rows that every format of the report shares.

leaderboard.json, schema 2, is one object:

    schema    2; larger when a key is removed or changes its meaning, not when one is added
    sweep     name of the sweep
    verdict   the one answer, from the finalists where the distilled and the fine-tuned arm have them, before that from the best trial of each arm:
              headline     the answer in words
              weak_teacher null, or by how much the teacher is worse than students fine-tuned without it (`weak_teacher.WeakTeacher`)
              split        split that all values below come from, test or validation; null, like all below, where no test was possible
              word         better, not better or cannot tell; better of this pair or not better of this pair where `pair`
              provisional  true: chosen and compared on the same rows
              one_seed     true: an arm has a single seed, so the word is cannot tell, whatever p_value says
              pair         true: each arm has a single configuration, so the word is about these two, not about distilling
              distilled, fine_tuned   lists of the folders of the runs compared
              distilled_against_pseudo_labeled, pseudo_labeled_against_fine_tuned   only with a third arm: null before its finalists, else
                           word, rows, difference, low, high, p_value, adjusted_p (Holm, by which word is) and one_seed
              rows         rows compared
              score        the mean score of a row that is compared: accuracy, example_f1 (multi_label) or minus_squared_error (regression)
              baseline_score   that of the baseline
              difference, low, high   of that score, with its 95 % interval: of accuracies and F1 in [-1, 1], of squared errors without bounds
              p_value      two-sided: of the finalists' t test, else of McNemar's exact test (of a paired t test, where scores are not right or wrong)
              counted      what interval and p_value count as random, such as rows, seeds and finalists
    finals    null before the first finalist; else the split that verdicts come from, the primary comparison (the verdict's) and
              the others (word, difference, low, high, p_value, score, …), the finalists with their means on test, by
              `finalists.finals_json`, with `task`, `score`, and for a regression `pearson`, the difference in Pearson's r (value, low,
              high, rows, draws, counted: bootstrap over rows); `teacher`: the teacher's scores on test, null without a test split
    teacher   null before it is measured and for one that is a file; else folds (how many models it is), kept_epochs, and accuracy, loss and
              ece on its own training rows (training), on them out of fold (out_of_fold, with folds alone) and on validation
    work      what each arm's search, then each arm's finalists (finalists: true) were given, by `work.Given`
    patience  null where no finalist was trained longer than in the search; else finalists and arms with the gain in the mean score of a row on the
              validation rows (difference, low, high), by `patience.patience_json`
    classes   null for a regression, and where no student's predictions are on disk; else `task`, `split` and `models`, the teacher
              beside the best student of each arm (the one to ship first), each with
              name, arm, trial, seeds   fresh seeds that are pooled; [] for a trial of the search and for the teacher
              classes      class, rows, precision, recall and f1 of each class, null where it has no rows or is never predicted
              confused     true, predicted, rows (mean over the seeds) and share (of the true class's rows) of each pair of
                           classes that is confused, the most rows first; [] for multi_label, whose classes are labels
    exports   the exported students, that of the run to ship first, each as its export.json holds it (`records/export_schema.Export`), with
              role         to ship, best fine-tuned (beside it), or other: of a run that is neither, or no longer
              ships        the form to ship of this student: pytorch, fp32 or int8
    trials    every trial, ranked ones first, as `columns` returns it; the same as the rows of leaderboard.csv. Where
              `study.constraints` names an exported form, all have `LIMITED`; where a student has a trained vocabulary, all have
              `schema.VOCABULARY`; where a student was exported, all have
              `shipped_form.FORM_COLUMNS`, at one thread and on the split of the form's verdict
"""

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kdsweep.analysis.formats import plural
from kdsweep.analysis.score import best_epoch, score
from kdsweep.analysis.shipped_form import FORM_COLUMNS, form_columns
from kdsweep.analysis.two_students import wilson_interval
from kdsweep.config.arms import ARM_NAMES, Arm
from kdsweep.config.lengths import evaluations_of, unit_of
from kdsweep.config.sweep import SweepConfig
from kdsweep.config.tasks import TaskName
from kdsweep.config.trial import TrialConfig
from kdsweep.records.export_schema import Export
from kdsweep.records.reading import TrialRow
from kdsweep.records.schema import VALIDATED_IN, VOCABULARY
from kdsweep.records.whole_sweep import SweepRecords

SCHEMA = 2
"""Version of the schema of leaderboard.json."""

RowStatus = Literal["complete", "infeasible", "pruned", "failed", "duplicate", "unfinished"]
LIMITED = ("limited_form", "limited_latency_ms_p50", "limited_size_mb")
"""Fields of `TrialResult` that the leaderboard has where `study.constraints` names an exported form: what students cost in it."""
UNRANKED: tuple[RowStatus, ...] = ("infeasible", "pruned", "failed", "duplicate", "unfinished")
"""Statuses of the rows below the ranked ones, in this order."""

MEASURED: dict[TaskName, tuple[str, ...]] = {
    task: (
        *("parameters", "size_mb", "latency_ms_p50", "latency_ms_p95", "rows_per_second", "train_seconds", "seconds"),
        *(name for name in metrics if name != "val_accuracy"),
        *("best_epoch", "best_val_accuracy", "epochs", "attempt", "run_id", "run_url"),
    )
    for task, metrics in VALIDATED_IN.items()
}
"""Fields of `TrialResult` that the leaderboard shows under their own names, after the searched ones, by task."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Holds one trial with its place on the leaderboard."""

    rank: int | None
    """From 1, over all arms; None for a trial that is not complete."""
    status: RowStatus
    reason: str | None
    """Why it failed, was pruned, is infeasible or has no end yet; None for a complete trial."""
    searched: Mapping[str, Any]
    """The searched fields, with the values that the trial ran with; None where the condition of a field's axis does not hold."""
    score: float | None
    """`study.metric`, by which trials are ranked; None for a trial without a result, or that finished no epoch."""
    best_epoch: int | None
    """The epoch with the best `study.metric`; None for a trial without a result, or that finished no epoch."""
    val_accuracy: float | None
    interval: tuple[float, float] | None
    """95 % interval of val_accuracy; None where it or the number of validation rows is not known."""
    folder: str
    """The trial's folder, relative to the results folder; `../…` for a trial in another host's."""
    trial: TrialRow
    task: TaskName = "single_label"
    export: Export | None = None
    """The export of its student, or of one of its finalists': the latest."""

    @property
    def arm(self) -> Arm:
        """Return the trial's arm."""
        return self.trial.arm

    @property
    def config(self) -> TrialConfig:
        """Return the trial's config."""
        return self.trial.config


@dataclass(frozen=True, kw_only=True)
class ArmProgress:
    """Counts an arm's trials by status, beside its budget."""

    arm: Arm
    budget: int
    counts: Counter[str]
    """Number of trials by status: complete, infeasible, pruned, failed, duplicate, unfinished."""

    def text(self) -> str:
        """Describe the progress in words, such as `10 of 12 distilled trials complete, 2 pruned`."""
        others = [f"{self.counts[kind]} {kind}" for kind in UNRANKED if self.counts[kind]]
        first = f"{self.counts['complete']} of {self.budget} {ARM_NAMES[self.arm]} trials complete"
        return ", ".join([first, *others])


def leaderboard(records: SweepRecords) -> tuple[Row, ...]:
    """Return all arms' trials as rows: the ranked ones, then the others."""
    rows = records.teacher.validation_rows if records.teacher else 0
    latest = {(each.arm, each.trial): each for each in sorted(records.exports, key=lambda each: each.made_at)}
    others = [trial for kind in UNRANKED for trial in records.trials if status(trial) == kind]
    placed = [*enumerate(ranked(records.trials, records.sweep), start=1), *((None, trial) for trial in others)]
    return tuple(_row(rank, trial, records, rows, latest.get((trial.arm, trial.trial))) for rank, trial in placed)


def ranked(trials: Iterable[TrialRow], sweep: SweepConfig) -> list[TrialRow]:
    """Return the complete ones of `trials`, best first: by `study.metric`, then fewer parameters, then lower trial number."""
    return sorted(complete(trials), key=lambda trial: (-score(trial, sweep), parameters(trial), trial.trial))


def status(trial: TrialRow) -> RowStatus:
    """Return how a trial ended; `infeasible` where its student breaks a constraint, `unfinished` where it has no result yet."""
    if trial.result is None:
        return "unfinished"
    return "infeasible" if trial.result.status == "complete" and trial.result.violates else trial.result.status


def complete(trials: Iterable[TrialRow]) -> list[TrialRow]:
    """Return the trials that ran to their end and break no constraint."""
    return [trial for trial in trials if status(trial) == "complete"]


def parameters(trial: TrialRow) -> int:
    """Return how many parameters a trial's student has; 0 where its record has no number."""
    return trial.result.parameters or 0 if trial.result else 0


def _row(rank: int | None, trial: TrialRow, records: SweepRecords, rows: int, export: Export | None) -> Row:
    measured = trial.result.val_accuracy if trial.result else None
    return Row(
        rank=rank,
        status=status(trial),
        reason=_reason(trial),
        searched=records.sweep.searched(trial.config),
        score=getattr(trial.result, records.sweep.study.metric, None),
        best_epoch=best_epoch(trial, records.sweep) if trial.result else None,
        val_accuracy=measured,
        interval=wilson_interval(measured, rows) if measured is not None and rows else None,
        folder=_beside(trial.folder, records.folder),
        trial=trial,
        task=records.task,
        export=export,
    )


def _beside(folder: Path, results: Path) -> str:
    inside = (
        folder.is_relative_to(results) and ".." not in folder.parts
    )  # most are, and `relpath` asks the system where it is
    return (folder.relative_to(results) if inside else Path(os.path.relpath(folder, results))).as_posix()


def _reason(trial: TrialRow) -> str | None:
    if trial.result is None:
        done = f"{len(trial.epochs)} of {plural(evaluations_of(trial.config), unit_of(trial.config))}"
        return f"running or cut off, {done} done"
    if trial.result.status == "complete":
        return ", ".join(trial.result.violates) or None
    return trial.result.error or f"no reason was recorded; see {trial.folder.name}/log.txt"


def columns(row: Row) -> dict[str, Any]:
    """Convert a row to one flat record, JSON-ready; a searched field keeps its own name and comes before the measured ones."""
    low, high = row.interval or (None, None)
    known: dict[str, Any] = {"rank": row.rank, "arm": row.arm, "trial": row.trial.trial, "status": row.status}
    known["val_accuracy"] = row.val_accuracy
    known |= row.searched
    for name in MEASURED[row.task]:
        of = row if name == "best_epoch" else row.trial.result  # TrialResult.best_epoch is that of val_accuracy
        known.setdefault(name, getattr(of, name) if of else None)
    return known | {
        "val_accuracy_low": low,
        "val_accuracy_high": high,
        "reason": row.reason,
        "folder": row.folder,
    }


def table(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Convert all rows to flat records, by `columns`, with those of `_limited`, `_vocabulary` and, where a student was exported, `FORM_COLUMNS`."""
    forms, limited = any(row.export for row in rows), (*_limited(rows), *_vocabulary(rows))
    return [
        columns(row)
        | {name: getattr(row.trial.result, name, None) for name in limited}
        | (form_columns(row.export) if forms else {})
        for row in rows
    ]


def _limited(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return `LIMITED` where `study.constraints` meant an exported form in any trial, else nothing."""
    return LIMITED if any(row.trial.result and row.trial.result.limited_form for row in rows) else ()


def _vocabulary(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return `VOCABULARY` where any student has fewer pieces than its tokenizer, else nothing."""
    return VOCABULARY if any(row.trial.result and row.trial.result.vocabulary_pieces for row in rows) else ()


def column_names(searched: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Return the names of the columns of `table` in their order, also where there are no rows."""
    names = ["rank", "arm", "trial", "status", "val_accuracy", *searched]
    task = rows[0].task if rows else "single_label"
    names += [name for name in MEASURED[task] if name not in searched]
    names += ["val_accuracy_low", "val_accuracy_high", "reason", "folder", *_limited(rows), *_vocabulary(rows)]
    return [*names, *FORM_COLUMNS] if any(row.export for row in rows) else names


def leaderboard_json(name: str, rows: Sequence[Row], verdict: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of leaderboard.json without what is added to it later, as this module's docstring describes it."""
    return {"schema": SCHEMA, "sweep": name, "verdict": verdict, "trials": table(rows)}


def leaderboard_csv(rows: Sequence[Row], searched: Sequence[str]) -> str:
    """Write the rows as CSV text with a header, also where there is no row; lists as JSON."""
    text = io.StringIO()
    writer = csv.DictWriter(text, column_names(searched, rows), lineterminator="\n")
    writer.writeheader()
    for record in table(rows):
        writer.writerow({k: json.dumps(list(v)) if isinstance(v, tuple) else v for k, v in record.items()})
    return text.getvalue()


def progress(records: SweepRecords, rows: Sequence[Row]) -> tuple[ArmProgress, ...]:
    """Count each arm's trials by status."""
    counts = {arm: Counter[str](row.status for row in rows if row.arm == arm) for arm in records.sweep.arms}
    return tuple(
        ArmProgress(arm=arm, budget=records.sweep.budget(arm), counts=counts[arm]) for arm in records.sweep.arms
    )


def best(rows: Sequence[Row], arm: Arm) -> Row | None:
    """Return the best complete trial of an arm; None where it has none."""
    return next((row for row in rows if row.rank is not None and row.arm == arm), None)
