"""Compute `study.metric`, which ranks a sweep's trials, of a trial, of the teacher and of a model that learnt nothing; write it in words.

Verdicts rest on another number, the mean score of a row: its own unit and words, by task, are at the end.
"""

from typing import Final

from kdsweep.analysis import metrics
from kdsweep.analysis.formats import percent
from kdsweep.analysis.tasks import RowScore
from kdsweep.config.sweep import SweepConfig
from kdsweep.config.tasks import TaskName
from kdsweep.records import layout, reading
from kdsweep.records.reading import TrialRow
from kdsweep.records.whole_sweep import SweepRecords


def score(trial: TrialRow, sweep: SweepConfig) -> float:
    """Return `study.metric` of a trial with a result; 0 where it finished no epoch."""
    return getattr(trial.result, sweep.study.metric) or 0.0


def best_epoch(trial: TrialRow, sweep: SweepConfig) -> int | None:
    """Return the epoch of `trial` with the best `study.metric`, the first of equal ones; None before the first epoch."""
    metric = sweep.study.metric
    best = max(trial.epochs, key=lambda each: (getattr(each, metric), -each.epoch), default=None)
    return best.epoch if best else None


def teacher_score(found: SweepRecords) -> float | None:
    """Return the teacher's `study.metric` on the validation rows; None where it is not measured yet, or not on this disk.

    What the teacher's record holds is read from there; another metric of single_label is computed from its predictions.
    """
    metric = found.sweep.study.metric
    recorded: float | None = getattr(found.teacher, metric, None)
    if (
        recorded is not None
        or found.teacher is None
        or metric == "val_accuracy"
        or found.teacher.task != "single_label"
    ):
        return recorded
    labels = reading.read_validation_labels(*found.folders)
    known = (reading.read_predictions(layout.teacher_folder(folder)) for folder in found.folders)
    predictions = next((each for each in known if each is not None), None)
    if labels is None or predictions is None or labels.shape != predictions.shape:
        return None
    return metrics.measure(metric, len(found.teacher.label_names))(predictions, labels)


def majority_score(found: SweepRecords) -> float | None:
    """Return `study.metric` of a model that gives one answer to every row; None before the teacher is measured.

    single_label: the commonest training class. Where a share p of the rows is of that class, its precision is p and its recall 1:
    its F1 is 2 p / (1 + p), the mean over C classes a C-th of that. Matthews' correlation of a single predicted class is 0.
    The teacher's record holds it for the other tasks.
    """
    if found.teacher is None:
        return None
    metric, share = found.sweep.study.metric, found.teacher.majority_accuracy
    if found.teacher.task != "single_label" or share is None:
        return found.teacher.majority_scores.get(metric)
    scores = {
        "val_accuracy": share,
        "val_macro_f1": 2 * share / (1 + share) / len(found.teacher.label_names),
        "val_mcc": 0.0,
    }
    return scores[metric]


# A metric in words ---------------------------------------------------------------------------------------------------

NUMBERS: Final = ("mcc", "pearson", "spearman", "rmse", "loss", "kl")
"""How the names of metrics end that are numbers; every other metric is a share, shown in percent."""


def is_share(metric: str) -> bool:
    """Return whether a metric is a share in [0, 1], which is shown in percent, and not a correlation or an error."""
    return not metric.endswith(NUMBERS)


def scale(metric: str) -> float:
    """Return the factor by which a figure multiplies a metric: 100 for a share, which is shown in percent, 1 for a correlation."""
    return 100.0 if is_share(metric) else 1.0


def score_title(metric: str) -> str:
    """Return the title of a figure's axis for a metric: `val_accuracy, %`, `val_mcc`."""
    return f"{metric}, %" if is_share(metric) else metric


def score_text(metric: str, value: float | None, digits: int = 1) -> str:
    """Write a metric's value: a share in percent, a correlation as a number with two digits more; a dash for None."""
    if value is None or is_share(metric):
        return percent(value, digits)
    return f"{value:.{digits + 2}f}".replace("-", "−")


def named_score(metric: str, value: float | None, digits: int = 1, *, task: TaskName = "single_label") -> str:
    """Write a metric's value for a sentence: an accuracy as `87.5 %` alone, another metric with its name, such as `a val_mcc of 0.751`.

    The accuracy of multi_label asks for all labels of a row: `a subset accuracy of 41.2 %`.
    """
    said = score_text(metric, value, digits)
    if metric.endswith("accuracy"):
        return f"a subset accuracy of {said}" if task == "multi_label" else said
    if metric in ("pearson", "spearman"):
        return f"a {metric.capitalize()} correlation of {said}"
    return f"{'an' if metric in ('mcc', 'rmse', 'example_f1') else 'a'} {metric} of {said}"


def difference_text(metric: str, value: float) -> str:
    """Write a difference of two scores, with a sign only if negative: `1.2 points` of a share, `0.012` of a correlation."""
    said = f"{100 * value:.1f} points" if is_share(metric) else f"{value:.3f}"
    return said.replace("-", "−")


# The score of a row, on which verdicts rest --------------------------------------------------------------------------

ROW_SCORE_NAMES: Final[dict[RowScore, str]] = {
    "accuracy": "accuracy",
    "subset_accuracy": "subset accuracy",
    "example_f1": "example F1",
    "minus_squared_error": "squared error",
}
"""What the mean score of a row is called in sentences; of regression the error is named, and less of it is better."""


def row_scale(score: RowScore) -> float:
    """Return the factor by which a figure multiplies a difference of mean row scores: 100 for points, 1 for squared errors."""
    return 1.0 if score == "minus_squared_error" else 100.0


def row_unit(score: RowScore) -> str:
    """Return what a difference of mean row scores, times `row_scale`, is counted in: `points`, `points of F1`, `of squared error`."""
    units: dict[RowScore, str] = {
        "subset_accuracy": "points of subset accuracy",
        "example_f1": "points of F1",
        "minus_squared_error": "of squared error",
    }
    return units.get(score, "points")


def row_number(score: RowScore, value: float, *, sign: bool = False) -> str:
    """Write a difference of mean row scores without its unit, as the end of an interval: `1.2` points, `0.012` of squared error."""
    plus = "+" if sign else ""
    said = f"{value:{plus}.3g}" if score == "minus_squared_error" else f"{100 * value:{plus}.1f}"
    return said.replace("-", "−")


def row_difference_text(score: RowScore, value: float, *, baseline: float | None = None) -> str:
    """Write a difference of mean row scores with its unit.

    `1.2 points`, `−0.4 points of F1`; of regression how far the squared error is lower (or higher), with the share of the baseline's
    where its mean row score is given (`FinalComparison.baseline_score`): `squared error lower by 0.123 (8 % of it)`.
    """
    if score != "minus_squared_error":
        return f"{row_number(score, value)} {row_unit(score)}"
    share = f" ({100 * abs(value / baseline):.0f}\N{NO-BREAK SPACE}% of it)" if baseline else ""
    return f"squared error {'higher' if value < 0 else 'lower'} by {row_number(score, abs(value))}{share}"
