"""Write the model card of an exported student, README.md in its folder: what it is, what it is worth, how it loads.

Numbers come from the records and from analysis/, words from reporting/ where it has them. No text of the data and no path of this machine.
"""

import shlex
from dataclasses import replace
from pathlib import Path

from kdsweep import __version__
from kdsweep.analysis.exports import Exported, exported_name, placed_exports
from kdsweep.analysis.shipped_form import FORM_NAMES, judged_split
from kdsweep.config.tasks import TaskName
from kdsweep.config.yaml import to_yaml
from kdsweep.records.export_schema import Export
from kdsweep.records.layout import teacher_folder
from kdsweep.records.reading import TrialRow, read_test
from kdsweep.records.schema import FinalTest
from kdsweep.records.whole_sweep import SweepRecords
from kdsweep.reporting.forms import (
    form_said,
    forms_table,
    forms_title,
    measured_said,
    passed_over,
    teacher_beside,
)
from kdsweep.reporting.tables import markdown_prose, markdown_table, markdown_text
from kdsweep.shipping.card_metadata import metadata
from kdsweep.shipping.card_recipe import recipe
from kdsweep.shipping.card_results import results
from kdsweep.shipping.snippets import loading
from kdsweep.shipping.sources import shown_config

CLASSES_SHOWN = 12
OF_FLOAT32 = "that of the float32 student on the same rows"
COUNTED: dict[TaskName, str] = {
    "single_label": (
        f"Points and their 95 % interval: accuracy minus {OF_FLOAT32}. Same label: rows with the float32 student's label. Batch-dependent: rows "
        "whose label in a batch of 32 is another than alone."
    ),
    "multi_label": (
        f"Points and their 95 % interval: example F1 (the F1 of a row's labels, mean over rows) minus {OF_FLOAT32}. Same labels: single "
        "decisions that are the float32 student's. Batch-dependent: rows any of whose labels in a batch of 32 is decided otherwise than alone."
    ),
    "regression": (
        f"Points and their 95 % interval: hundredths of R² (1 minus the squared error over the labels' variance), minus {OF_FLOAT32}. Largest "
        "change: of one number, from the float32 student's. Batch-dependent: rows whose number in a batch of 32 is another than alone by more "
        "than a hundredth of the labels' standard deviation."
    ),
}
TIMES = "Times: one row, then rows a second in batches of 32, on one thread unless a column says otherwise; teacher and forms in turns, in one run."


def model_card(export: Export, found: SweepRecords, run: TrialRow) -> str:
    """Return the text of README.md for the exported student of `run`."""
    exported = placed_exports(replace(found, exports=(export,)))[0]
    parts = [
        metadata(export, found, run),
        f"# {markdown_text(found.sweep.name)}: {exported_name(export)}",
        *_prose(_what(export, found, run), _ships(exported, found)),
        "## How to load it",
        *loading(export),
        "## Its forms",
        *_forms(exported, found),
        "## What it is worth",
        *results(found, run),
        "## Recipe",
        *_prose(*recipe(found, run)),
        f"As config, the fields that differ from the defaults of kdsweep {__version__}:",
        f"```yaml\n{to_yaml(shown_config(run.config)).rstrip()}\n```",
        "## What was not measured",
        *_prose(_not_measured(export)),
    ]
    return "\n\n".join(parts) + "\n"


def upload_command(folder: Path) -> str:
    """Return the command that puts an exported folder on the Hub, for the user to complete and to run."""
    return f"hf upload USER/{folder.name} {shlex.quote(str(folder))} . --private"


def _prose(*paragraphs: str) -> list[str]:
    return [markdown_prose(text) for text in paragraphs if text]


# What it is ----------------------------------------------------------------------------------------------------------


def _what(export: Export, found: SweepRecords, run: TrialRow) -> str:
    parameters = f" of {run.result.parameters:,} parameters" if run.result and run.result.parameters else ""
    made = {
        "distilled": "distilled",
        "fine_tuned": "fine-tuned without a teacher",
        "pseudo_labeled": "trained on a teacher's labels too",
    }
    kind = "model" if export.task == "regression" else "classifier"
    return (
        f"A {kind}{parameters} that {_does(export, found)}, {made[run.arm]}. It is one run of the "
        f"sweep {markdown_text(found.sweep.name)} of kdsweep, and reads at most {export.max_length} tokens: what is longer is cut."
    )


def _does(export: Export, found: SweepRecords) -> str:
    """Return what the student does with texts, as a verb and what goes with it."""
    names = found.teacher.label_names if found.teacher else ()
    plain = [name.replace("`", "'") for name in names[:CLASSES_SHOWN]]
    shown = ", ".join(f"`{name}`" for name in plain)
    more = f" and {len(names) - CLASSES_SHOWN} more" if len(names) > CLASSES_SHOWN else ""
    what = "pairs of texts" if export.text_pair_column else "texts"
    if export.task == "regression":
        return f"gives {what} a number ({shown})"
    if export.task == "multi_label":
        return f"gives {what} any of {len(names)} labels ({shown}{more}), each of a probability above 0.5"
    return f"sorts {what} into {len(names)} classes ({shown}{more})"


def _ships(exported: Exported, found: SweepRecords) -> str:
    """Return which form to ship, and why faster ones do not."""
    models = found.teacher.folds if found.teacher else 1
    said = f"**The form to ship is `{exported.form.file}`**: {form_said(exported, models)}. {passed_over(exported)}"
    return said.strip()


# Its forms -----------------------------------------------------------------------------------------------------------


def _forms(exported: Exported, found: SweepRecords) -> list[str]:
    """Return the card's table of forms, what it counts, and where they were measured."""
    export = exported.export
    table = forms_table(exported, teacher_beside(export, found.teacher, _teacher_test(found)))
    half = table[0].index("rows a second") + 1
    opened = (
        f" The test split was opened for them on {export.tested_at[:10]}, after the finalists."
        if export.tested_at
        else ""
    )
    files = ", ".join(f"`{form.file}` ({FORM_NAMES[form.form]})" for form in export.forms)
    versions = ", ".join(f"{name} {version}" for name, version in export.versions.items())
    made = f" Made with {versions}." if versions else ""
    return [
        *_prose(f"{files}. {forms_title(exported)}{opened}"),
        markdown_table([line[:half] for line in table]),
        markdown_table([[line[0], *line[half:]] for line in table]),
        *_prose(
            f"{COUNTED[export.task]} {TIMES}",
            f"{markdown_text(measured_said(export))} Another machine has other times.{made}",
        ),
    ]


def _teacher_test(found: SweepRecords) -> FinalTest | None:
    tests = (read_test(teacher_folder(folder)) for folder in found.folders)
    return next((test for test in tests if test is not None), None)


def _not_measured(export: Export) -> str:
    rows = "labels, texts and languages other than those of the rows above"
    trusted = "Probabilities are the model's own (T = 1): the calibration error says how far to trust them."
    if export.task == "regression":
        trusted = "It does not say how sure it is of a number."
    tested = "" if judged_split(export) == "test" else " Its forms were not measured on a test split."
    return (
        f"Anything but these rows: {rows}; fairness between groups of people; resistance to hostile texts; texts longer than {export.max_length} "
        f"tokens, which are cut; other processors, GPUs, and services under load. {trusted}{tested}"
    )
