"""Write how an exported student was trained, for its model card: rows, teacher, student, loss and training in words."""

import json

from kdsweep.analysis.formats import compact, enumerated, percent, plural
from kdsweep.config.layers import Layers, place_and_count
from kdsweep.config.tasks import TaskName
from kdsweep.config.trial import FROM_TEACHER, TrialConfig
from kdsweep.records.reading import TrialRow
from kdsweep.records.whole_sweep import SweepRecords
from kdsweep.reporting.answers import ALPHA
from kdsweep.shipping.sources import body_field, rows_field, shown_place

L_SOFT: dict[TaskName, dict[str, str]] = {
    "single_label": {
        "kl": "L_soft = T² · KL(p_T ‖ q_T), of the teacher's and the student's softmax at temperature T, summed over classes, mean over rows",
        "mse": "L_soft = half the squared difference of centred logits, mean over classes and rows, which is KL's limit for large T",
    },
    "multi_label": {
        "kl": "L_soft = T² · KL(p_T ‖ q_T), of the teacher's and the student's sigmoid at temperature T, summed over labels, mean over rows",
        "mse": "L_soft = an eighth of the squared difference of logits, summed over labels, mean over rows, which is KL's limit for large T",
    },
    "regression": dict.fromkeys(
        ("kl", "mse"), "L_soft = the squared difference from the teacher's number, mean over rows"
    ),
}
L_HARD: dict[TaskName, str] = {
    "single_label": "cross-entropy of the labels",
    "multi_label": "binary cross-entropy of the labels, mean over labels",
    "regression": "the squared error",
}
PSEUDO: dict[TaskName, str] = {
    "single_label": "the class that the teacher predicts",
    "multi_label": "what the teacher decides",
    "regression": "the teacher's number",
}
"""What a text without a label learns in the pseudo-labeled arm."""


def recipe(found: SweepRecords, run: TrialRow) -> tuple[str, ...]:
    """Return the recipe of a run, a paragraph each for rows, teacher (where it had a part), student, loss and training."""
    teacher = () if run.arm == "fine_tuned" and not _starts_from_teacher(run.config) else (_teacher(found, run.config),)
    task = found.teacher.task if found.teacher else "single_label"
    return (_rows(found, run), *teacher, _student(run), _loss(run, task), _training(run.config))


def _rows(found: SweepRecords, run: TrialRow) -> str:
    sizes = found.teacher.sizes() if found.teacher else {}
    counted = enumerated([f"{rows:,} for {name}" for name, rows in sizes.items() if rows])
    texts = run.result.unlabeled_rows if run.result else 0
    more = f", and {texts:,} texts without labels for training" if texts else ""
    place = shown_place(run.config, rows_field(run.config))
    return f"**Rows**: {place}, {counted}{more}. The same text is never in two splits."


def _starts_from_teacher(config: TrialConfig) -> bool:
    return body_field(config) == "teacher"


def _teacher(found: SweepRecords, config: TrialConfig) -> str:
    if config.teacher_file is not None:
        return f"**Teacher**: a file of its outputs, {shown_place(config, 'teacher_file')}."
    size = f", {found.teacher.parameters:,} parameters" if found.teacher and found.teacher.parameters else ""
    tuned = (
        f", fine-tuned on the training rows for {plural(config.teacher_epochs, 'epoch')}"
        if config.teacher_epochs
        else ""
    )
    folds = f", {config.teacher_folds} models, each without a fold of them" if config.teacher_folds > 1 else ""
    return f"**Teacher**: {shown_place(config, 'teacher')}{size}{tuned}{folds}."


def _student(run: TrialRow) -> str:
    config = run.config
    source = shown_place(config, body_field(config))
    if config.student != FROM_TEACHER:
        return f"**Student**: it started from {source}.{_pieces(run)}"
    when = "before" if config.student_init == "pretrained" else "after"
    of_teacher = f", the teacher as it was {when} its fine-tuning" if _starts_from_teacher(config) else ""
    return f"**Student**: a {_family(run)} that started from {_layers(config.student_layers)} of {source}{of_teacher}.{_pieces(run)}"


def _pieces(run: TrialRow) -> str:
    """Return that a student has fewer word pieces than its tokenizer had, as a sentence after a space; nothing for one that has them all."""
    known = run.result
    if known is None or known.vocabulary_pieces is None or known.vocabulary_whole is None:
        return ""
    split, recut = ("test", known.test_recut_share)
    if recut is None:
        split, recut = ("validation", known.val_recut_share)
    return (
        f" Of the {known.vocabulary_whole:,} word pieces of its tokenizer it has the {known.vocabulary_pieces:,} that its training texts use: "
        f"it cuts {percent(recut, 2)} of the {split} texts otherwise than the whole one."
    )


def _layers(layers: Layers) -> str:
    """Return the layers that were copied, in words."""
    if isinstance(layers, tuple):
        return f"layers {', '.join(map(str, layers))} (from 0)"
    place, count = place_and_count(layers)
    return plural(count, "layer") if place == "spread" else f"the {place} {plural(count, 'layer')}"


def _family(run: TrialRow) -> str:
    """Return what a student from the layers of another model is, by its config.json; where that is not there, what BERT's layers become."""
    try:
        kind = json.loads((run.folder / "student" / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, LookupError, TypeError):
        kind = "distilbert"
    return "DistilBERT" if kind == "distilbert" else f"model of the family `{kind}`"


def _loss(run: TrialRow, task: TaskName) -> str:
    config, hard = run.config, L_HARD[task]
    smoothed = f" with label_smoothing {config.label_smoothing:g}" if config.label_smoothing else ""
    smoothed += ", each class weighing the same" if config.class_weights == "balanced" else ""
    if run.arm == "fine_tuned":
        return f"**Loss**: {hard}{smoothed}, without any teacher. In kdsweep {ALPHA}"
    if run.arm == "pseudo_labeled":
        labelled = f"where the label of a text without one is {PSEUDO[task]}"
        return f"**Loss**: {hard.removesuffix(' of the labels')}{smoothed}, {labelled}. In kdsweep {ALPHA}"
    relation = f" + {config.relation_weight:g} · L_relation" if config.relation_weight else ""
    named = (
        "; L_relation is MiniLMv2's, on the self-attention relations of the last layers"
        if config.relation_weight
        else ""
    )
    values = [_course("alpha", config.alpha, config.alpha_end)]
    if config.soft_loss == "kl" and task != "regression":  # T has no effect on mse
        values.append(_course("T", config.temperature, config.temperature_end))
    return (
        f"**Loss**: L = alpha · L_soft + (1 − alpha) · L_hard{relation} with {' and '.join(values)}. {L_SOFT[task][config.soft_loss]}; L_hard = "
        f"{hard}{smoothed}{named}. In kdsweep {ALPHA}"
    )


def _course(name: str, start: float, end: float | None) -> str:
    """Return the value of alpha or T, or its course from the first step to the last."""
    return f"{name} = {compact(start)}" + ("" if end is None else f", at the last step {compact(end)}")


def _training(config: TrialConfig) -> str:
    length = plural(config.epochs, "epoch") if config.max_steps is None else f"{config.max_steps:,} steps"
    return (
        f"**Training**: {length}, {config.batch_size} rows a step, AdamW with a peak learning rate of {compact(config.learning_rate)} (warm-up "
        f"for {percent(config.warmup_ratio, 0)} of the steps, then linear to zero), {config.precision}, seed {config.seed}; the last weights, "
        "not the best."
    )
