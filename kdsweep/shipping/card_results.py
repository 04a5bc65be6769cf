"""Write what an exported student is worth, for its model card: beside the best of the other arms and the teacher, and the sweep's verdicts."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdsweep.analysis.finalists import Finals, SplitName
from kdsweep.analysis.formats import number, percent, plural, signed
from kdsweep.analysis.leaderboard import ranked
from kdsweep.analysis.read_finals import read_finals
from kdsweep.analysis.score import row_difference_text, row_number, row_unit
from kdsweep.analysis.shipped import best_run
from kdsweep.analysis.tasks import ROW_SCORES, row_scores
from kdsweep.analysis.two_arms import compare_finalists
from kdsweep.analysis.two_students import compare_predictions, wilson_interval
from kdsweep.analysis.weak_teacher import weak_teacher
from kdsweep.config.arms import ARM_NAMES, Arm
from kdsweep.config.tasks import TaskName
from kdsweep.records import layout, reading
from kdsweep.records.reading import TrialRow
from kdsweep.records.whole_sweep import SweepRecords
from kdsweep.reporting.answers import headline, initial, verdict_of
from kdsweep.reporting.markdown import verdicts_table
from kdsweep.reporting.tables import markdown_prose, markdown_table

SCORES: dict[TaskName, tuple[str, ...]] = {
    "single_label": ("accuracy", "macro_f1", "mcc", "loss", "ece", "agreement"),
    "multi_label": ("example_f1", "accuracy", "micro_f1", "macro_f1", "map", "loss", "ece", "agreement"),
    "regression": ("pearson", "spearman", "rmse", "loss"),
}
"""Columns of the table by task; the first with its interval where it is a share of rows."""
TITLES: dict[tuple[TaskName, str], str] = {
    ("multi_label", "accuracy"): "subset accuracy",
    ("multi_label", "example_f1"): "example F1",
    ("regression", "loss"): "squared error",
}
"""What a column is called, where that is not the metric's name."""
COMPARED: dict[TaskName, str] = {
    "single_label": "points of accuracy",
    "multi_label": "points, by example F1 where nothing else is said",
    "regression": "how far the squared error is lower, where nothing else is said",
}
COLUMNS_SAID: dict[TaskName, str] = {
    "single_label": (
        "Loss in nats; ece: expected calibration error; agreement: rows with the teacher's label; ahead by: points of accuracy on the same "
        "rows (paired)."
    ),
    "multi_label": (
        "Example F1: the F1 of a row's labels, mean over rows; subset accuracy: rows all of whose labels are right; map: mean average precision; "
        "loss in nats a decision; ece: expected calibration error of all decisions; agreement: decisions that are the teacher's; ahead by: "
        "points of example F1 on the same rows (paired)."
    ),
    "regression": (
        "Pearson's and Spearman's correlation with the labels; rmse: the root of the squared error, in the labels' unit; ahead by: how far the "
        "squared error is lower on the same rows (paired)."
    ),
}


@dataclass(frozen=True, kw_only=True)
class Model:
    """Holds a model of the table: its name there, its folder, and its scores on the split by name."""

    name: str
    folder: Path
    scores: dict[str, float | None]


def results(found: SweepRecords, run: TrialRow) -> list[str]:
    """Return the card's paragraphs and tables on what the student of `run` is worth."""
    finals = read_finals(found)
    split: SplitName = "test" if reading.read_test(run.folder) else "validation"
    parts = [*_prose(_counted(found, split)), markdown_table(_table(found, run, finals, split))]
    parts += _prose(_verdict(found, finals))
    compared = verdicts_table(finals) if finals else []
    if len(compared) > 1:
        seeds = min(len(row.runs) for row in finals.rows) if finals else 0
        said = (
            f"What the sweep compared on {finals.split if finals else split}, over its finalists ({plural(seeds, 'fresh seed')} each): "
            f"{COMPARED[task_of(found)]}. Here seeds and configurations count as random too, where there are several."
        )
        parts += [*_prose(said), markdown_table(compared)]
    return parts


def _prose(*paragraphs: str) -> list[str]:
    return [markdown_prose(text) for text in paragraphs if text]


def _counted(found: SweepRecords, split: SplitName) -> str:
    labels = _labels(found, split)
    rows = f"{len(labels):,} " if labels is not None else ""
    chosen = (
        "The test split was opened after the search, for its finalists."
        if split == "test"
        else "The student was chosen on these rows, which flatters it; there is no test result."
    )
    return (
        f"The float32 student on the {rows}{split} rows. {chosen} Intervals are 95 % and count rows alone as random: another training seed gives "
        f"another student. {COLUMNS_SAID[task_of(found)]}"
    )


def _verdict(found: SweepRecords, finals: Finals | None) -> str:
    """Return whether distilling beat fine-tuning in this sweep, and how its students started; only what finalists confirm."""
    if finals is None or finals.primary is None:
        return "Whether distilling helped has not been confirmed on fresh seeds."
    first = finals.primary
    said = headline(None, None, verdict_of(None, None, None, finals))
    difference, low, high = (
        row_number(first.score, each, sign=True) for each in (first.difference, first.low, first.high)
    )
    by = f"{difference} {row_unit(first.score)}"
    if first.score == "minus_squared_error":
        by = row_difference_text(first.score, first.difference, baseline=first.baseline_score)
    interval = f"{by}, 95 % interval {low} to {high}"
    weak = weak_teacher(found.sweep, found.folders, found.trials)
    warned = " The teacher is worse than students that were fine-tuned without it." if weak else ""
    return f"**{said}** ({interval}): {first.word}.{warned} {initial(found)} All of it holds for this one teacher and these rows."


# The table -----------------------------------------------------------------------------------------------------------


def task_of(found: SweepRecords) -> TaskName:
    """Return the task of a sweep's rows."""
    return found.teacher.task if found.teacher else "single_label"


def _table(found: SweepRecords, run: TrialRow, finals: Finals | None, split: SplitName) -> list[list[str]]:
    task = task_of(found)
    lines = [["model", *(TITLES.get((task, name), name) for name in SCORES[task]), "this student is ahead by"]]
    labels, mine = _labels(found, split), _predictions(run.folder, split)
    for model in _models(found, run, finals, split):
        other = _predictions(model.folder, split)
        ahead = "–" if model.folder == run.folder else _ahead(mine, other, labels, task)
        lines.append([model.name, *_cells(model, labels, task), ahead])
    return lines


def _cells(model: Model, labels: np.ndarray | None, task: TaskName) -> list[str]:
    """Return a model's scores; an accuracy with its interval over the rows, other shares that stand first in percent."""
    first, *others = SCORES[task]
    score = model.scores.get(first)
    said = number(score, 3) if task == "regression" else percent(score, 2)
    if task == "single_label" and score is not None and labels is not None:
        low, high = wilson_interval(score, len(labels))
        said = f"{said} ({100 * low:.1f} to {100 * high:.1f})"
    return [said, *(number(model.scores.get(name), 3) for name in others)]


def _ahead(
    mine: np.ndarray | None, other: np.ndarray | None, labels: np.ndarray | None, task: TaskName = "single_label"
) -> str:
    """Return by how much one model's rows score better than another's, paired, with the interval over rows."""
    if mine is None or other is None or labels is None or not mine.shape == other.shape == labels.shape:
        return "–"
    if task == "single_label":
        found = compare_predictions(mine, other, labels)
        return f"{signed(found.difference)} ({signed(found.low)} to {signed(found.high)})"
    score = ROW_SCORES[task]
    one, two = (row_scores(each, labels, task)[np.newaxis] for each in (mine, other))
    paired = compare_finalists(one, two, given_baseline=True, score=score)
    difference, low, high = (
        row_number(score, value, sign=True) for value in (paired.difference, paired.low, paired.high)
    )
    return f"{difference} ({low} to {high})"


def _models(found: SweepRecords, run: TrialRow, finals: Finals | None, split: SplitName) -> Iterator[Model]:
    """Yield this student, the best of each other arm, and the teacher."""
    yield Model(name="this student", folder=run.folder, scores=_scores(run, split, task_of(found)))
    for arm in found.sweep.arms:
        best = _best(found, finals, arm)
        if arm != run.arm and best:
            seed = f", seed {best.finalist_seed}" if best.finalist_seed is not None else ""
            name = f"best {ARM_NAMES[arm]} (trial {best.trial}{seed})"
            yield Model(name=name, folder=best.folder, scores=_scores(best, split, task_of(found)))
    for there in found.folders:
        folder = layout.teacher_folder(there)
        if found.teacher and reading.read_teacher(folder):
            yield Model(name="teacher", folder=folder, scores=_teacher_scores(found, folder, split))
            return


def _best(found: SweepRecords, finals: Finals | None, arm: Arm) -> TrialRow | None:
    """Return the run of an arm that would ship: of its best finalist, before one is confirmed rank 1 of its search."""
    confirmed = finals.best(arm) if finals else None
    if confirmed:
        return best_run(confirmed.runs, found.sweep)
    return next(iter(ranked((trial for trial in found.trials if trial.arm == arm), found.sweep)), None)


def _scores(run: TrialRow, split: SplitName, task: TaskName) -> dict[str, float | None]:
    if split == "test":
        test = reading.read_test(run.folder)
        return {name: getattr(test, name) if test else None for name in SCORES[task]}
    return {name: getattr(run.result, f"val_{name}") if run.result else None for name in SCORES[task]}


def _teacher_scores(found: SweepRecords, folder: Path, split: SplitName) -> dict[str, float | None]:
    """Return the teacher's scores, without its agreement with itself; on validation rows those that its record holds."""
    known, before = (reading.read_test(folder), "") if split == "test" else (found.teacher, "val_")
    names = (name for name in SCORES[task_of(found)] if name != "agreement")
    return {name: getattr(known, f"{before}{name}", None) for name in names}


def _labels(found: SweepRecords, split: SplitName) -> np.ndarray | None:
    read = reading.read_test_labels if split == "test" else reading.read_validation_labels
    return read(*found.folders)


def _predictions(folder: Path, split: SplitName) -> np.ndarray | None:
    return reading.read_test_predictions(folder) if split == "test" else reading.read_predictions(folder)
