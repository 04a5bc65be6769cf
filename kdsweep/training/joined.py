"""Join texts without labels to the labelled training rows, with the teacher's outputs for both. Shapes: N rows."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from kdsweep.training.data.kept import end_to_end
from kdsweep.training.data.kept_tokens import joined_tokens
from kdsweep.training.data.tokens import TEACHER_LOGITS, Rows, Tokens
from kdsweep.training.tasks import predicted_labels, without_label
from kdsweep.training.teacher import Teacher
from kdsweep.training.teacher_logits import teacher_targets

PART_ROWS = 8192
"""Texts whose targets are computed and cached at a time: what an interruption loses at most."""


def joined_targets(train: Rows, teacher: Teacher, tokens: Tokens, on_rows: Callable[[int], None]) -> dict[str, Tensor]:
    """Return the targets of the training rows, then those of the texts without labels, of which `tokens` are the teacher's.

    The texts' are computed in parts, each a cache entry of its own; `on_rows` gets the number of texts so far.
    """
    rows, told = len(tokens.lengths), 0

    def pieces() -> Iterator[Mapping[str, Tensor]]:
        nonlocal told
        yield train.targets
        for first in range(0, rows, PART_ROWS):
            yield teacher_targets(teacher, tokens.part(first, first + PART_ROWS))
            if (done := min(first + PART_ROWS, rows)) > told:  # those that are written to a file are read again for it
                told = done
                on_rows(done)

    return end_to_end(pieces)


def joined(train: Rows, texts: Tokens, targets: Mapping[str, Tensor], *, pseudo_labels: bool) -> Rows:
    """Return the rows that a student is trained on: `train`, then `texts`, its own tokens; `targets` are of both.

    With `pseudo_labels`, the label of a text is what the teacher predicts.
    """
    known, extra = len(train.labels), len(texts.lengths)
    labels = without_label(train.labels, extra)
    if pseudo_labels:
        labels = predicted_labels(targets[TEACHER_LOGITS][known:], train.task)
    return replace(
        train,
        tokens=joined_tokens(train.tokens, texts),
        labels=torch.cat([train.labels, labels]),
        targets=targets,
        extra=extra,
        labeled=None if pseudo_labels else np.arange(known + extra) < known,
        taught=None if train.taught is None else np.concatenate([train.taught, np.ones(extra, dtype=bool)]),
    )
