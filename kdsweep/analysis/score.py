"""Compute `study.metric`, which ranks a sweep's trials, of a trial, of the teacher and of always naming one class; write it in words."""

from kdsweep.analysis import metrics
from kdsweep.analysis.formats import percent
from kdsweep.config.sweep import SweepConfig
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

    The accuracy is read from the teacher's record; another metric is computed from its predictions.
    """
    metric = found.sweep.study.metric
    if found.teacher is None or metric == "val_accuracy":
        return found.teacher.val_accuracy if found.teacher else None
    labels = reading.read_validation_labels(*found.folders)
    known = (reading.read_predictions(layout.teacher_folder(folder)) for folder in found.folders)
    predictions = next((each for each in known if each is not None), None)
    if labels is None or predictions is None or labels.shape != predictions.shape:
        return None
    return metrics.measure(metric, len(found.teacher.label_names))(predictions, labels)


def majority_score(found: SweepRecords) -> float | None:
    """Return `study.metric` of always naming the commonest training class; None before the teacher is measured.

    Where a share p of the rows is of that class, its precision is p and its recall 1: its F1 is 2 p / (1 + p), the mean over
    C classes a C-th of that. Matthews' correlation of a single predicted class is 0.
    """
    if found.teacher is None:
        return None
    share = found.teacher.majority_accuracy
    scores = {
        "val_accuracy": share,
        "val_macro_f1": 2 * share / (1 + share) / len(found.teacher.label_names),
        "val_mcc": 0.0,
    }
    return scores[found.sweep.study.metric]


def scale(metric: str) -> float:
    """Return the factor by which a figure multiplies a metric: 100 for a share, which is shown in percent, 1 for a correlation."""
    return 1.0 if metric.endswith("mcc") else 100.0


def score_title(metric: str) -> str:
    """Return the title of a figure's axis for a metric: `val_accuracy, %`, `val_mcc`."""
    return metric if metric.endswith("mcc") else f"{metric}, %"


def score_text(metric: str, value: float | None, digits: int = 1) -> str:
    """Write a metric's value: a share in percent, a correlation as a number with two digits more; a dash for None."""
    if value is None or not metric.endswith("mcc"):
        return percent(value, digits)
    return f"{value:.{digits + 2}f}".replace("-", "−")


def named_score(metric: str, value: float | None, digits: int = 1) -> str:
    """Write a metric's value for a sentence: an accuracy as `87.5 %` alone, another metric with its name, such as `a val_mcc of 0.751`."""
    said = score_text(metric, value, digits)
    return said if metric.endswith("accuracy") else f"{'an' if metric == 'mcc' else 'a'} {metric} of {said}"


def difference_text(metric: str, value: float) -> str:
    """Write a difference of two scores, with a sign only if negative: `1.2 points` of a share, `0.012` of a correlation."""
    said = f"{value:.3f}" if metric.endswith("mcc") else f"{100 * value:.1f} points"
    return said.replace("-", "−")
