"""Check a teacher that is a file before the first trial, and record it. Shapes: N rows, C classes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from kdsweep.analysis.tasks import predicted
from kdsweep.config.sweep import StudyConfig
from kdsweep.config.tasks import TaskName
from kdsweep.config.trial import TrialConfig
from kdsweep.errors import DataError
from kdsweep.records.teacher_schema import TeacherResult
from kdsweep.records.writing import TrialFolder
from kdsweep.tracking.tracker import Run
from kdsweep.training.data.splits import Data
from kdsweep.training.evaluation import measured
from kdsweep.training.fast import machine
from kdsweep.training.preflight import accepted, standing
from kdsweep.training.shared import Materials
from kdsweep.training.tasks import label_tensor
from kdsweep.training.teacher_file import EPSILON
from kdsweep.training.teacher_quality import quality
from kdsweep.training.teacher_record import other_metrics, unmeasured, write_rows
from kdsweep.training.unlike import unlike_labelled

HARD_SHARE = 0.1
"""Share of rows that name one class with probability 1 above which a warning is given: these are labels, which T cannot soften."""
ZEROS_SHARE = 0.5
"""Share of probabilities that are exactly 0 above which a warning is given."""


class Judged(NamedTuple):
    """Holds the logits of the labelled rows of train and validation that have any, float32 [N, C], and their labels [N, …]."""

    logits: np.ndarray
    labels: np.ndarray


def check_join(materials: Materials, corners: Sequence[TrialConfig]) -> None:
    """Check, for each file that is a teacher of `corners`, that it and the rows have to do with each other.

    Raises DataError where no row for training of any corner has numbers, for an id that no row has, and for one that two have.
    """
    for address in dict.fromkeys(config.teacher_file for config in corners if config.teacher_file):
        mine = [config for config in corners if config.teacher_file == address]
        file, data = materials.teacher_file(mine[0]), materials.data(mine[0])
        known = data.all_ids
        for config in mine:
            if (texts := materials.unlabeled(config)) is not None:
                own = materials.data(config)  # with train_limit searched, a row of one is a text of another
                file.check_unique([*(own.split(name) for name in own.splits()), texts.split])
                known |= texts.all_ids
        file.check_ids(known)
        trained = [materials.rows(config)[0] for config in mine]
        if not any(rows.taught is None or rows.taught.any() for rows in trained):
            raise DataError(
                f"{address} must have numbers for rows that are trained on, but has none for any of {len(trained[0].labels):,}: its first row "
                f"is of {_shown(next(iter(file.places)))}, the first to train on of {_shown(file.keys(data.train)[0])}"
            )


def _shown(key: object) -> str:
    text = repr(key)
    return text if len(text) <= 80 else f"{text[:80]}…"


def record_file(config: TrialConfig, folder: TrialFolder, materials: Materials, run: Run) -> TeacherResult:
    """Record a teacher that is a file as a fine-tuned one is recorded; its predictions only where it has numbers for all of validation."""
    folder.start(config)
    machine.set_up(int(config.threads))
    result = _result(config, materials, run)
    if not result.lacks("validation"):
        rows = materials.validation_rows(config)
        folder.write_predictions(predicted(rows.teacher_logits.cpu().numpy(), rows.task))
    write_rows(folder, materials.data(config))
    folder.finish(result)
    run.summarise(result.summary())
    return result


def _result(config: TrialConfig, materials: Materials, run: Run) -> TeacherResult:
    file, data = materials.teacher_file(config), materials.data(config)
    validation = materials.validation_rows(config)
    known = measured(validation.teacher_logits, validation) if validation.taught is None else None
    return replace(
        unmeasured(file.address, config, materials, run),
        val_accuracy=known["accuracy"] if known else None,
        val_loss=known["loss"] if known else None,
        val_ece=known["ece"] if known else None,
        **(other_metrics(known, data.task) if known else {}),
        taught_rows={name: int(file.outputs(data.split(name)).taught.sum()) for name in data.splits()},
        numbers={
            "rows": len(file.places),
            "zeros": file.zeros,
            "one_hot": file.one_hot,
            **_quality(*judged(config, materials), data.task),
        },
    )


def judged(config: TrialConfig, materials: Materials) -> Judged:
    """Return the file's logits of the labelled rows of train and validation, and the labels of these rows; test stays closed."""
    file, data = materials.teacher_file(config), materials.data(config)
    found = [(file.outputs(split), split.labels) for split in (data.train, data.validation)]
    return Judged(
        logits=np.concatenate([outputs.logits[outputs.taught] for outputs, _ in found]),
        labels=np.concatenate([labels[outputs.taught] for outputs, labels in found]),
    )


def _quality(logits: np.ndarray, labels: np.ndarray, task: TaskName) -> Mapping[str, float]:
    """Return accuracy, loss and calibration error on the labelled rows with numbers, as far as the task has them; of no row, their number
    alone."""
    known = quality(torch.from_numpy(logits), label_tensor(labels), task)._asdict() if len(labels) else {}
    return {"labeled_rows": len(labels), **{name: value for name, value in known.items() if value is not None}}


def file_preflight(materials: Materials, config: TrialConfig, study: StudyConfig) -> list[str]:
    """Check, before the first trial, that a file's numbers are worth learning from; return what is odd about them, in words.

    Raises PreflightError for a teacher that is hardly better on the labelled rows than always giving one answer, unless
    `study.accept_weak_teacher` accepts it.
    """
    file, data, found = materials.teacher_file(config), materials.data(config), judged(config, materials)
    notes = [note] if (note := unlike_labelled(materials, config)) else []
    if file.one_hot >= HARD_SHARE:
        notes.append(
            f"{file.one_hot:.0%} of the rows of {file.address} name one class with probability 1: these are hard labels: T does nothing"
        )
    elif file.zeros >= ZEROS_SHARE:
        notes.append(
            f"{file.zeros:.0%} of the probabilities of {file.address} are exactly 0: the logit of each is log({EPSILON:g})"
        )
    if not len(found.labels):
        return [*notes, f"no labelled row has numbers in {file.address}, so nothing tells how good they are"]
    weak = _weakness(data, found, study.metric, file.address)
    if weak is None:
        return notes
    return [*notes, accepted(weak, study)]


def _weakness(data: Data, found: Judged, metric: str, address: str) -> str | None:
    """Describe what is wrong with numbers hardly better than always giving one answer, by the rule for a model; None for better ones."""
    stands = standing(metric, found.logits, found.labels, data)
    if stands.score >= stands.needed:
        return None
    remedy = {"regression": "See whether they are in the unit of the labels"}.get(
        data.task, "See whether a column's name is that of its class"
    )
    return (
        f"the numbers of {address} must close {stands.gap(data.task)} on the {len(found.labels):,} labelled rows that have any, but have "
        f"{stands.numbers()}: they have nothing to teach. {remedy}, or name other numbers"
    )
