"""Tell what the teacher has memorised: how good it is on rows that it was fine-tuned on, beside rows that it has not seen."""

from collections.abc import Iterator

from kdsweep.analysis.formats import number, percent
from kdsweep.records.teacher_schema import TeacherResult

SEEN_CAPTION = "The teacher on rows that it was fine-tuned on, and on rows that it has not seen."
LEARNED = "Students learn from its logits of these rows; with teacher_folds, from those of a teacher that has not seen the row."
LEARNED_OUT_OF_FOLD = "Students learn from the logits out of fold."
Measured = tuple[str, float | None, float | None, float | None]
"""Which rows, then accuracy, mean loss on the labels and calibration error on them."""


def _measured(teacher: TeacherResult) -> Iterator[Measured]:
    """Yield what was measured, by its key in leaderboard.json; nothing of a teacher in an older record, or of one that is a file."""
    if teacher.train_loss is None:
        return
    yield "training", teacher.train_accuracy, teacher.train_loss, teacher.train_ece
    if teacher.out_of_fold_loss is not None:
        yield "out_of_fold", teacher.out_of_fold_accuracy, teacher.out_of_fold_loss, teacher.out_of_fold_ece
    yield "validation", teacher.val_accuracy, teacher.val_loss, teacher.val_ece


def seen_table(teacher: TeacherResult | None) -> list[list[str]]:
    """Return the measurements as a table, side by side; empty where there are none. Of a regression, squared errors are all there is."""
    if teacher is None or teacher.train_loss is None:
        return []
    several = teacher.folds > 1
    names = {
        "training": "training rows, each model's own" if several else "training rows",
        "out_of_fold": "training rows, out of fold",
        "validation": "validation rows, all models" if several else "validation rows",
    }
    if teacher.task == "regression":
        return [
            ["teacher on", "mean squared error"],
            *([names[rows], number(loss, 3)] for rows, _, loss, _ in _measured(teacher)),
        ]
    accuracy = "subset accuracy" if teacher.task == "multi_label" else "accuracy"
    lines = [["teacher on", accuracy, "cross-entropy", "calibration error"]]
    for rows, right, loss, ece in _measured(teacher):
        lines.append([names[rows], percent(right, 2), number(loss, 3), percent(ece, 2)])
    return lines


def seen_json(teacher: TeacherResult | None) -> dict[str, object] | None:
    """Return the measurements for leaderboard.json; None where there are none."""
    if teacher is None or teacher.train_loss is None:
        return None
    measured = {
        rows: {"accuracy": accuracy, "loss": loss, "ece": ece} for rows, accuracy, loss, ece in _measured(teacher)
    }
    return {"folds": teacher.folds, "kept_epochs": list(teacher.kept_epochs), **measured}


def memorised(teacher: TeacherResult | None) -> str:
    """Return how much the teacher has memorised of its training rows, in plain sentences; empty where that was not measured."""
    if teacher is None or teacher.train_loss is None:
        return ""
    if teacher.train_accuracy is None:
        return _errors_said(teacher, teacher.train_loss)
    several = teacher.out_of_fold_accuracy is not None
    unseen = teacher.out_of_fold_accuracy if several else teacher.val_accuracy
    if unseen is None:
        return ""
    loss = teacher.out_of_fold_loss if several else teacher.val_loss
    rows = "the same rows out of fold" if several else "validation rows"
    gap, entropies = teacher.train_accuracy - unseen, f"{number(teacher.train_loss, 3)} against {number(loss, 3)}"
    own = "labelled training rows" if teacher.fine_tuned_seconds == 0 else "rows that it was fine-tuned on"
    right, subset = ("has all labels right on", "subset ") if teacher.task == "multi_label" else ("is right on", "")
    both = f"The teacher {right} {percent(teacher.train_accuracy)} of the {own} and on {percent(unseen)} of {rows}"
    if teacher.fine_tuned_seconds == 0:
        said = (
            f"{both} (cross-entropy {entropies}). It came fine-tuned, so which of them it has seen is not known here."
        )
    elif gap > 0:
        said = (
            f"{both} (cross-entropy {entropies}). The difference of {100 * gap:.1f} points is what it has memorised. "
            + (LEARNED_OUT_OF_FOLD if several else LEARNED)
        )
    else:
        said = f"{both} (cross-entropy {entropies}): by its {subset}accuracy it had memorised none of them."
    return f"{said} {ensemble_cost(teacher)}".strip()


def _errors_said(teacher: TeacherResult, error: float) -> str:
    """Return how much a teacher of numbers has memorised of its training rows, by its mean squared errors."""
    several = teacher.out_of_fold_loss is not None
    unseen = teacher.out_of_fold_loss if several else teacher.val_loss
    if unseen is None:
        return ""
    own = "labelled training rows" if teacher.fine_tuned_seconds == 0 else "rows that it was fine-tuned on"
    rows = "the same rows out of fold" if several else "validation rows"
    said = f"The teacher's mean squared error is {number(error, 3)} on the {own} and {number(unseen, 3)} on {rows}"
    if teacher.fine_tuned_seconds == 0:
        said += ". It came fine-tuned, so which of them it has seen is not known here."
    elif error < unseen:
        said += f". The difference is what it has memorised. {LEARNED_OUT_OF_FOLD if several else LEARNED}"
    else:
        said += ": by its error it had memorised none of them."
    return f"{said} {ensemble_cost(teacher)}".strip()


def seen_line(teacher: TeacherResult | None) -> str:
    """Return the accuracies, of a regression the squared errors, in one short line; empty where they were not measured."""
    names = {"training": "its own training rows", "out_of_fold": "these out of fold", "validation": "validation"}
    if teacher is None or teacher.train_loss is None:
        return ""
    if teacher.task == "regression":
        errors = [f"{number(loss, 3)} on {names[rows]}" for rows, _, loss, _ in _measured(teacher)]
        return f"The teacher's mean squared error: {', '.join(errors)}."
    measured = [f"{percent(accuracy)} on {names[rows]}" for rows, accuracy, *_ in _measured(teacher)]
    return f"The teacher{', all labels right' * (teacher.task == 'multi_label')}: {', '.join(measured)}."


def ensemble_cost(teacher: TeacherResult) -> str:
    """Return what an ensemble costs, in words; empty for one model."""
    if teacher.folds == 1:
        return ""
    return (
        f"It is an ensemble of {teacher.folds} models: size, parameters and milliseconds are of one of them, and its answer to a new row "
        f"costs {teacher.folds} passes."
    )
