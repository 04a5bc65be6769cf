"""Check a teacher that is a file before the first trial, and record it. Shapes: N rows, C classes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from kdsweep.config.sweep import StudyConfig
from kdsweep.config.trial import TrialConfig
from kdsweep.errors import DataError
from kdsweep.records.teacher_schema import TeacherResult
from kdsweep.records.writing import TrialFolder
from kdsweep.tracking.tracker import Run
from kdsweep.training.data.splits import Data
from kdsweep.training.fast import machine
from kdsweep.training.preflight import GAP_CLOSED, accepted, standing
from kdsweep.training.shared import Materials
from kdsweep.training.teacher_file import EPSILON
from kdsweep.training.teacher_quality import quality
from kdsweep.training.teacher_record import unmeasured, write_rows
from kdsweep.training.unlike import unlike_labelled

HARD_SHARE = 0.1
"""Share of rows that name one class with probability 1 above which a warning is given: these are labels, which T cannot soften."""
ZEROS_SHARE = 0.5
"""Share of probabilities that are exactly 0 above which a warning is given."""


class Judged(NamedTuple):
    """Holds the logits of the labelled rows of train and validation that have any, float32 [N, C], and their classes [N]."""

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
        folder.write_predictions(materials.validation_rows(config).teacher_logits.argmax(dim=-1).cpu().numpy())
    write_rows(folder, materials.data(config))
    folder.finish(result)
    run.summarise(result.summary())
    return result


def _result(config: TrialConfig, materials: Materials, run: Run) -> TeacherResult:
    file, data = materials.teacher_file(config), materials.data(config)
    validation = materials.validation_rows(config)
    known = quality(validation.teacher_logits, validation.labels) if validation.taught is None else None
    return replace(
        unmeasured(file.address, config, materials, run),
        val_accuracy=known.accuracy if known else None,
        val_loss=known.loss if known else None,
        val_ece=known.ece if known else None,
        taught_rows={name: int(file.outputs(data.split(name)).taught.sum()) for name in data.splits()},
        numbers={
            "rows": len(file.places),
            "zeros": file.zeros,
            "one_hot": file.one_hot,
            **_quality(*judged(config, materials)),
        },
    )


def judged(config: TrialConfig, materials: Materials) -> Judged:
    """Return the file's logits of the labelled rows of train and validation, and the classes of these rows; test stays closed."""
    file, data = materials.teacher_file(config), materials.data(config)
    found = [(file.outputs(split), split.labels) for split in (data.train, data.validation)]
    return Judged(
        logits=np.concatenate([outputs.logits[outputs.taught] for outputs, _ in found]),
        labels=np.concatenate([labels[outputs.taught] for outputs, labels in found]),
    )


def _quality(logits: np.ndarray, labels: np.ndarray) -> Mapping[str, float]:
    """Return accuracy, loss and calibration error on the labelled rows with numbers; of no row, their number alone."""
    known = quality(torch.from_numpy(logits), torch.from_numpy(labels))._asdict() if len(labels) else {}
    return {"labeled_rows": len(labels), **known}


def file_preflight(materials: Materials, config: TrialConfig, study: StudyConfig) -> list[str]:
    """Check, before the first trial, that a file's numbers are worth learning from; return what is odd about them, in words.

    Raises PreflightError for a teacher that is hardly better on the labelled rows than always naming the commonest class, unless
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
    """Describe what is wrong with numbers hardly better than always naming the commonest class, by the rule for a model; None for better ones."""
    score, majority, needed = standing(metric, found.logits.argmax(axis=1), found.labels, data)
    if score >= needed:
        return None
    return (
        f"the numbers of {address} must close {GAP_CLOSED:.0%} of the gap between always naming the commonest class and a perfect {metric} on "
        f"the {len(found.labels):,} labelled rows that have any, but have {100 * score:.2f} against {100 * majority:.2f} "
        f"({100 * needed:.2f} would do): they have nothing to teach. See whether a column's name is that of its class, or name other numbers"
    )
