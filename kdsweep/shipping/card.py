"""Write the model card of an exported student, README.md in its folder: what it is, what it is worth, how it loads.

Numbers come from the records and from analysis/, words from reporting/ where it has them. No text of the data and no path of this machine.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from kdsweep import __version__
from kdsweep.analysis.formats import compact, enumerated, number, percent, plural, signed
from kdsweep.analysis.shipped_form import judged, judged_split, shipped_form
from kdsweep.config.arms import ARM_NAMES
from kdsweep.config.trial import FROM_TEACHER
from kdsweep.config.yaml import to_yaml
from kdsweep.records.export_schema import Export, FormRecord, FormSpeed
from kdsweep.records.reading import TrialRow
from kdsweep.records.whole_sweep import SweepRecords
from kdsweep.reporting.answers import ALPHA
from kdsweep.reporting.tables import markdown_prose, markdown_tables, markdown_text
from kdsweep.shipping.card_metadata import metadata
from kdsweep.shipping.card_results import results
from kdsweep.shipping.snippets import loading
from kdsweep.shipping.sources import body_field, rows_field, shown_config, shown_place

CLASSES_SHOWN = 12
L_SOFT = {
    "kl": "L_soft = T² · KL(teacher's softmax at T ‖ student's softmax at T), summed over classes, mean over rows",
    "mse": "L_soft = half the squared difference of centred logits, mean over classes and rows (KL's limit for large T)",
}


def model_card(export: Export, found: SweepRecords, run: TrialRow) -> str:
    """Return the text of README.md for the exported student of `run`."""
    parts = [
        metadata(export, found, run),
        f"# {markdown_text(found.sweep.name)}: {ARM_NAMES[run.arm]} student {run.trial}",
        *_prose(_what(export, found, run), _ships(export)),
        "## Forms",
        markdown_tables(_forms_table(export), keys=1),
        *_prose(_forms_said(export)),
        "## How to load it",
        *loading(export),
        "## What it is worth",
        *results(found, run),
        "## Recipe",
        *_prose(_rows(found, run), _student(run), _loss(found, run), _training(run)),
        f"As config, fields that differ from the defaults of kdsweep {__version__}:",
        f"```yaml\n{to_yaml(shown_config(run.config)).rstrip()}\n```",
        "## What was not measured",
        *_prose(_not_measured(export, run)),
    ]
    return "\n\n".join(parts) + "\n"


def upload_command(folder: Path) -> str:
    """Return the command that puts an exported folder on the Hub, for the user to complete and to run."""
    return f"hf upload USER/{folder.name} {shlex.quote(str(folder))} . --private"


def _prose(*paragraphs: str) -> list[str]:
    return [markdown_prose(text) for text in paragraphs if text]


# What it is ----------------------------------------------------------------------------------------------------------


def _what(export: Export, found: SweepRecords, run: TrialRow) -> str:
    names = found.teacher.label_names if found.teacher else ()
    shown = ", ".join(f"`{name}`" for name in names[:CLASSES_SHOWN])
    more = f" and {len(names) - CLASSES_SHOWN} more" if len(names) > CLASSES_SHOWN else ""
    what = "pairs of texts" if export.text_pair_column else "texts"
    size = f", {run.result.parameters:,} parameters" if run.result and run.result.parameters else ""
    seed = f" with seed {run.finalist_seed}" if run.finalist_seed is not None else ""
    return (
        f"A classifier of {what} into {plural(len(names), 'class') if len(names) == 1 else f'{len(names)} classes'} ({shown}{more}): "
        f"{ARM_NAMES[run.arm]} trial {run.trial}{seed} of the sweep {markdown_text(found.sweep.name)}, made by kdsweep {__version__}. It reads at most "
        f"{export.max_length} tokens{size}."
    )


def _ships(export: Export) -> str:
    form = shipped_form(export)
    speed = form.at(1)
    fast = f", {number(speed.latency_ms_p50)} ms a row (median, one thread)" if speed else ""
    word = "it is the reference" if form.form == "pytorch" else _verdict(form, export.margin)
    return f"**The form to ship is `{form.file}`**: {number(form.size_mb)} MB{fast}; {word}."


def _verdict(form: FormRecord, margin: float) -> str:
    allowed = f"{100 * margin:g} points"
    said = {
        "no worse": f"no worse than the float32 student by more than {allowed}",
        "worse": f"worse than the float32 student by more than {allowed}",
        "cannot tell": f"these rows cannot tell whether it is worse than the float32 student by more than {allowed}",
    }
    word = judged(form).word
    return said[word] if word else "not compared"


# Its forms -----------------------------------------------------------------------------------------------------------


def _forms_table(export: Export) -> list[list[str]]:
    """Return a table with a line for each form, and the teacher's last: quality beside the float32 student, size, speed."""
    counts = [1] if export.threads_all == 1 else [1, export.threads_all]
    lines = [["form", "file", "MB", "MB in memory", "accuracy", "against float32, points", "verdict", "same label"]]
    lines[0] += ["labels that a batch changes", *(f"ms a row at {plural(n, 'thread')}: median, 95 %" for n in counts)]
    lines[0] += [f"rows a second at {plural(n, 'thread')}" for n in counts]
    for form in export.forms:
        quality = judged(form)
        cells = [form.form, form.file, number(form.size_mb), number(form.resident_mb, 0), percent(quality.accuracy, 2)]
        cells += [_difference(form), quality.word or "–", percent(quality.agreement, 2), f"{quality.batch_dependent:,}"]
        lines.append([*cells, *_speeds(form.speed, counts)])
    if export.teacher_speed:
        lines.append(
            ["teacher", "–", number(export.teacher_size_mb), *["–"] * 6, *_speeds(export.teacher_speed, counts)]
        )
    return lines


def _difference(form: FormRecord) -> str:
    quality = judged(form)
    if quality.difference is None or quality.low is None or quality.high is None:
        return "–"
    return f"{signed(quality.difference)} ({signed(quality.low)} to {signed(quality.high)})"


def _speeds(speeds: Sequence[FormSpeed], counts: Sequence[int]) -> list[str]:
    known = {speed.threads: speed for speed in speeds}
    found = [known.get(count) for count in counts]
    times = [f"{number(each.latency_ms_p50)}, {number(each.latency_ms_p95)}" if each else "–" for each in found]
    return [*times, *(number(each.rows_per_second, 0) if each else "–" for each in found)]


def _forms_said(export: Export) -> str:
    """Return what the table of forms counts, on which rows and on which machine, and what was tried beside it."""
    split = judged_split(export)
    opened = (
        f", opened for it on {export.tested_at[:10]}, after the finalists"
        if split == "test" and export.tested_at
        else ""
    )
    provisional = "" if split == "test" else " The student was chosen on these rows, so the verdicts are provisional."
    flags = f" ({', '.join(export.cpu_flags)})" if export.cpu_flags else ""
    sentences = [
        f"Accuracy, label and verdict on the {judged(export.forms[0]).rows:,} {split} rows{opened}, each row alone; intervals are 95 % and paired; "
        f"verdicts are by non-inferiority with a margin of {100 * export.margin:g} points.{provisional}",
        f"Speeds on {export.hardware}{flags}, one row of median length and batches of 32, all in one run; another machine has others.",
        *([export.cpu_note] if export.cpu_note else []),
        *(f"`{form.form}`: {form.batch_cause}." for form in export.forms if form.batch_cause),
        *(f"Tried and not kept: {each}." for each in export.rejected),
        f"With {', '.join(f'{name} {version}' for name, version in export.versions.items())}."
        if export.versions
        else "",
    ]
    return markdown_text(" ".join(sentence.replace("..", ".") for sentence in sentences if sentence))


# Its recipe ----------------------------------------------------------------------------------------------------------


def _rows(found: SweepRecords, run: TrialRow) -> str:
    config, teacher = run.config, found.teacher
    sizes = {name: rows for name, rows in teacher.sizes().items() if rows} if teacher else {}
    counted = enumerated([f"{rows:,} for {name}" for name, rows in sizes.items()])
    more = (
        f", and {run.result.unlabeled_rows:,} texts without labels" if run.result and run.result.unlabeled_rows else ""
    )
    return f"**Rows**: {shown_place(config, rows_field(config))}: {counted}{more}. A text stands in one split alone."


def _student(run: TrialRow) -> str:
    config = run.config
    source = shown_place(config, body_field(config))
    if config.student != FROM_TEACHER:
        return f"**Student**: it started from {source}."
    layers = config.student_layers
    which = f"{layers} layers" if isinstance(layers, int) else f"layers {', '.join(map(str, layers))}"
    when = "before" if config.student_init == "pretrained" else "after"
    of_teacher = f", as they were {when} the teacher's fine-tuning" if body_field(config) == "teacher" else ""
    return f"**Student**: a DistilBERT that started from {which} of {source}{of_teacher}."


def _loss(found: SweepRecords, run: TrialRow) -> str:
    config = run.config
    smoothed = f", with label_smoothing {config.label_smoothing:g}" if config.label_smoothing else ""
    if run.arm == "fine_tuned":
        return f"**Loss**: cross-entropy of the labels{smoothed}; no teacher. In kdsweep's convention {ALPHA}"
    if run.arm == "pseudo_labeled":
        return (
            f"**Loss**: cross-entropy{smoothed}, where a text without a label has the class that the teacher predicts as its label. In kdsweep's "
            f"convention {ALPHA}"
        )
    ends = [
        f"{sign} = {compact(start)}{'' if end is None else f' at the first step, {compact(end)} at the last'}"
        for sign, start, end in (
            ("α", config.alpha, config.alpha_end),
            ("T", config.temperature, config.temperature_end),
        )
    ]
    relation = f" + {config.relation_weight:g} · L_relation (MiniLMv2's relations)" if config.relation_weight else ""
    return (
        f"**Loss**: L = α · L_soft + (1 − α) · L_hard{relation} with {' and '.join(ends)}. {L_SOFT[config.soft_loss]}; L_hard = cross-entropy of "
        f"the labels{smoothed}. {ALPHA[0].upper()}{ALPHA[1:]} {_teacher(found, run)}"
    )


def _teacher(found: SweepRecords, run: TrialRow) -> str:
    config = run.config
    if config.teacher_file is not None:
        return f"The teacher is a file of its outputs: {shown_place(config, 'teacher_file')}."
    tuned = (
        f", fine-tuned on the same rows for {plural(config.teacher_epochs, 'epoch')}" if config.teacher_epochs else ""
    )
    folds = f", in {config.teacher_folds} folds" if config.teacher_folds > 1 else ""
    size = f", {found.teacher.parameters:,} parameters" if found.teacher and found.teacher.parameters else ""
    return f"The teacher is {shown_place(config, 'teacher')}{size}{tuned}{folds}."


def _training(run: TrialRow) -> str:
    config = run.config
    length = plural(config.epochs, "epoch") if config.max_steps is None else f"{config.max_steps:,} steps"
    return (
        f"**Training**: {length} of {config.batch_size} rows a step, AdamW with a peak learning rate of {compact(config.learning_rate)} "
        f"(warm-up {percent(config.warmup_ratio, 0)} of the steps, then linear to zero), {config.precision}, seed {config.seed}. The last "
        "epoch's student is kept."
    )


def _not_measured(export: Export, run: TrialRow) -> str:
    rows = "labels, texts and languages other than those of the rows above"
    tested = "" if judged_split(export) == "test" else " There was no test split for its forms."
    return (
        f"Anything but these rows: {rows}; fairness between groups of people; resistance to hostile texts; texts longer than {export.max_length} "
        "tokens, which are cut; other processors, GPUs, and services under load. Probabilities are the model's own (T = 1): the calibration error "
        f"says how far to trust them.{tested}"
    )
