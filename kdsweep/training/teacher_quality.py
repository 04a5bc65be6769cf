"""Measure how good the teacher is on rows that it was fine-tuned on and on rows that it has not seen: what it has memorised."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kdsweep.analysis import metrics
from kdsweep.training.data.tokens import Rows
from kdsweep.training.teacher import Teacher
from kdsweep.training.teacher_logits import member_logits


class Quality(NamedTuple):
    """Holds metrics of logits at T = 1: the share of rows whose class is right, mean cross-entropy in nats, expected calibration error."""

    accuracy: float
    loss: float
    ece: float


def quality(logits: Tensor, labels: Tensor) -> Quality:
    """Compute the metrics of logits [N, C] and classes [N]."""
    given, classes = logits.cpu().numpy(), labels.cpu().numpy()
    return Quality(
        accuracy=metrics.accuracy(given.argmax(axis=1), classes),
        loss=metrics.nll(given, classes),
        ece=metrics.expected_calibration_error(given, classes),
    )


def seen_quality(teacher: Teacher, train: Rows) -> Quality:
    """Return the teacher's metrics on the labelled training rows `train` that it was fine-tuned on; means over the members of an ensemble,
    each on its own rows. Their logits come from the cache, which has them since the rows were taught."""
    if teacher.fold_of is None:
        return quality(train.teacher_logits, train.labels)
    found = []
    for fold, member in enumerate(teacher.members):
        seen = torch.from_numpy(teacher.fold_of != fold).to(train.labels.device)
        found.append(quality(member_logits(teacher, member, train.tokens)[seen], train.labels[seen]))
    return Quality(*np.mean(found, axis=0).tolist())


def out_of_fold_quality(teacher: Teacher, train: Rows) -> Quality | None:
    """Return the metrics on the same rows, each judged by the member that has not seen it; None for a teacher without folds."""
    return quality(train.teacher_logits, train.labels) if teacher.fold_of is not None else None
