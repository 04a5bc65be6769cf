"""Give the rows of a student the numbers that its teacher's file has for them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kdsweep.config.tasks import TaskName
from kdsweep.training.data.splits import Split
from kdsweep.training.data.tokens import TEACHER_LOGITS, Rows, Tokens
from kdsweep.training.tasks import label_tensor
from kdsweep.training.teacher_file import TeacherFile


def rows_of_file(file: TeacherFile, split: Split, tokens: Tokens, device: str, task: TaskName = "single_label") -> Rows:
    """Return the rows of a split, `tokens` being the student's, with the logits that `file` has for them; `taught` is None where it has
    them for all."""
    found = file.outputs(split)
    labels, logits = label_tensor(split.labels).to(device), torch.from_numpy(found.logits).to(device)
    taught = None if found.taught.all() else found.taught
    return Rows(tokens=tokens, labels=labels, targets={TEACHER_LOGITS: logits}, taught=taught, task=task)


def targets_of_file(file: TeacherFile, splits: Sequence[Split], device: str) -> dict[str, Tensor]:
    """Return the targets that `file` has for the rows of several splits, one after another."""
    logits = np.concatenate([file.outputs(split).logits for split in splits])
    return {TEACHER_LOGITS: torch.from_numpy(logits).to(device)}
