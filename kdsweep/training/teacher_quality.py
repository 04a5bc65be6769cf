"""Measure how good the teacher is on rows that it was fine-tuned on and on rows that it has not seen: what it has memorised."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kdsweep.analysis.measured import measured_by_task
from kdsweep.config.tasks import TaskName
from kdsweep.training.data.tokens import Rows
from kdsweep.training.tasks import label_array
from kdsweep.training.teacher import Teacher
from kdsweep.training.teacher_logits import member_logits


class Quality(NamedTuple):
    """Holds metrics of logits at T = 1: the share of rows whose class (all of whose labels) is right, the task's mean loss, expected
    calibration error. A regression has the loss alone."""

    accuracy: float | None
    loss: float
    ece: float | None


def quality(logits: Tensor, labels: Tensor, task: TaskName = "single_label") -> Quality:
    """Compute the metrics of logits [N, C] and labels as `Rows.labels` holds them."""
    found = measured_by_task(logits.cpu().numpy(), label_array(labels, task), task)
    assert found["loss"] is not None
    return Quality(accuracy=found["accuracy"], loss=found["loss"], ece=found["ece"])


def seen_quality(teacher: Teacher, train: Rows) -> Quality:
    """Return the teacher's metrics on the labelled training rows `train` that it was fine-tuned on; means over the members of an ensemble,
    each on its own rows. Their logits come from the cache, which has them since the rows were taught."""
    if teacher.fold_of is None:
        return quality(train.teacher_logits, train.labels, train.task)
    found = []
    for fold, member in enumerate(teacher.members):
        seen = torch.from_numpy(teacher.fold_of != fold).to(train.labels.device)
        found.append(quality(member_logits(teacher, member, train.tokens)[seen], train.labels[seen], train.task))
    accuracy, loss, ece = np.mean(np.array(found, dtype=np.float64), axis=0).tolist()  # nan where the task has none
    return Quality(accuracy, loss, ece) if found[0].accuracy is not None else Quality(None, loss, None)


def out_of_fold_quality(teacher: Teacher, train: Rows) -> Quality | None:
    """Return the metrics on the same rows, each judged by the member that has not seen it; None for a teacher without folds."""
    return quality(train.teacher_logits, train.labels, train.task) if teacher.fold_of is not None else None
