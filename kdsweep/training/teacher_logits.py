"""Compute a teacher's logits once, and keep them in the cache by content.

The key is the hash of the weights that gave them, how the model computes, the tokens, the class order, the kind of device and, on a CPU,
its threads. Shapes: C classes, N rows.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional

from kdsweep.errors import ModelError
from kdsweep.system.wheels import cache_root
from kdsweep.training.cache import arithmetic, scratch_folder
from kdsweep.training.data.progress import NOBODY
from kdsweep.training.data.tokens import TEACHER_LOGITS, Tokens
from kdsweep.training.evaluation import all_logits
from kdsweep.training.models import computation
from kdsweep.training.teacher import Member, Teacher

KEPT_SECONDS = 60.0
"""Seconds between two times that logits are kept while they are computed."""


def teacher_targets(
    teacher: Teacher, tokens: Tokens, *, own_rows: bool = False, on_rows: Callable[[int], None] = NOBODY
) -> dict[str, Tensor]:
    """Return the students' targets of every row, by name, each [N, …]: the teacher's logits, computed once for each split, and cached.

    `own_rows`: the tokens are those of the labelled training rows, on which the teacher was fine-tuned; each then gets the logits of the
    member of an ensemble that has not seen it. `on_rows` gets the number of rows so far, by each member.
    """
    logits = out_of_fold_logits if own_rows else teacher_logits
    return {TEACHER_LOGITS: logits(teacher, tokens, on_rows)}


def teacher_logits(teacher: Teacher, tokens: Tokens, on_rows: Callable[[int], None] = NOBODY) -> Tensor:
    """Return the teacher's logits of every row in the dataset's class order, float32 [N, C]; those of an ensemble are the logits of the mean of
    its members' probabilities, of regression the mean of their numbers."""
    if len(teacher.members) == 1:
        return member_logits(teacher, teacher.members[0], tokens, on_rows)
    members = (member_logits(teacher, member, tokens, on_rows) for member in teacher.members)
    if teacher.task == "regression":
        return torch.stack([each.double() for each in members]).mean(dim=0).float()
    return log_mean_probability(members) if teacher.task == "single_label" else logit_of_mean_probability(members)


def out_of_fold_logits(teacher: Teacher, tokens: Tokens, on_rows: Callable[[int], None] = NOBODY) -> Tensor:
    """Return logits of the labelled training rows, float32 [N, C], each row's from the member of the ensemble that has not seen it; of a
    teacher without folds, its own."""
    if teacher.fold_of is None:
        return teacher_logits(teacher, tokens, on_rows)
    logits = torch.empty(len(tokens.lengths), len(teacher.columns), device=tokens.ids.device)
    for fold, member in enumerate(teacher.members):
        unseen = torch.from_numpy(teacher.fold_of == fold).to(logits.device)
        logits[unseen] = member_logits(teacher, member, tokens, on_rows)[unseen]
    return logits


def log_mean_probability(logits: Iterable[Tensor]) -> Tensor:
    """Return the logarithm of the mean of the members' probabilities, float32 [N, C], from the logits [N, C] of one after the other.

    Sums of logarithms in float64: finite for all finite logits, where the mean itself may underflow to zero.
    """
    total, members = torch.tensor(-math.inf, dtype=torch.float64), 0
    for each in logits:
        total = torch.logaddexp(total.to(each.device), torch.log_softmax(each.double(), dim=-1))
        members += 1
    return (total - math.log(members)).float()


def logit_of_mean_probability(logits: Iterable[Tensor]) -> Tensor:
    """Return log(p / (1 - p)) of the mean p of the members' probabilities of each label, float32 [N, C], from their logits [N, C]; finite for all
    finite logits."""
    there, absent = torch.tensor(-math.inf, dtype=torch.float64), torch.tensor(-math.inf, dtype=torch.float64)
    for each in logits:
        there = torch.logaddexp(there.to(each.device), functional.logsigmoid(each.double()))
        absent = torch.logaddexp(absent.to(each.device), functional.logsigmoid(-each.double()))
    return (there - absent).float()


def member_logits(teacher: Teacher, member: Member, tokens: Tokens, on_rows: Callable[[int], None] = NOBODY) -> Tensor:
    """Return the logits of every row of one of the teacher's models, float32 [N, C]: from the cache, or computed and cached.

    A cache entry that is torn or of another shape is computed again; what an interruption left is continued, with the same bits. Raises
    ModelError where a logit is not finite.
    """
    path = cache_root() / "logits" / f"{_logits_key(teacher, member, tokens)}.safetensors"
    shape = (len(tokens.lengths), len(teacher.columns))
    device = tokens.ids.device
    cached = _read_logits(path, shape)
    if cached is not None:
        return cached.logits.to(device)
    model = member.load()
    classes = int(model.config.num_labels)  # type: ignore[union-attr, arg-type]
    so_far = _SoFar(path.with_suffix(".part"), on_rows)
    whole = all_logits(model, tokens, classes=classes, begin=so_far.begin, on_batch=so_far.on_batch)
    logits = whole[:, list(teacher.columns)].contiguous()
    bad = int((~logits.isfinite()).any(dim=-1).sum())
    if bad:
        raise ModelError(f"the teacher's logits must be finite, but {bad} of {shape[0]} rows hold nan or inf")
    _write_logits(path, logits.cpu())
    so_far.path.unlink(missing_ok=True)
    return logits


class _SoFar:
    """Keeps logits in a file while they are computed, so that an interruption loses those of the last `KEPT_SECONDS` at most."""

    def __init__(self, path: Path, on_rows: Callable[[int], None]) -> None:
        self.path, self._on_rows = path, on_rows
        self._kept_at = time.monotonic()

    def begin(self, logits: Tensor) -> int:
        """Fill in the logits that are kept; return of how many rows they are."""
        found = _read_logits(self.path, tuple(logits.shape))
        if found is None:
            return 0
        logits.copy_(found.logits)
        return found.rows

    def on_batch(self, logits: Tensor, rows: int) -> None:
        """Keep the logits of the first so many rows, unless some were kept a moment ago; report how many they are."""
        self._on_rows(rows)
        if time.monotonic() - self._kept_at >= KEPT_SECONDS:
            _write_logits(self.path, logits.cpu(), rows)
            self._kept_at = time.monotonic()


def _logits_key(teacher: Teacher, member: Member, tokens: Tokens) -> str:
    """Return the key of a member's logits; all members compute alike, so that none is loaded for it."""
    parts = [member.weights_sha256, computation(teacher.model), teacher.columns, tokens.sha256()]
    return hashlib.sha256(json.dumps([*parts, arithmetic(tokens.ids.device.type)]).encode()).hexdigest()


class _Read(NamedTuple):
    """Holds logits from a file, and of how many rows they are, shortest first; 0 where they are whole."""

    logits: Tensor
    rows: int


def _read_logits(path: Path, shape: tuple[int, ...]) -> _Read | None:
    """Read logits, float32 of `shape`; return None for no file, a torn one, one of another shape, or one whose bytes do not match their
    hash."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            logits: Tensor = file.get_tensor("logits")
            said = file.metadata() or {}
    except (OSError, SafetensorError):
        return None
    intact = tuple(logits.shape) == shape and logits.dtype == torch.float32 and _sha256(logits) == said.get("sha256")
    return _Read(logits, int(said.get("rows", 0))) if intact else None


def _write_logits(path: Path, logits: Tensor, rows: int = 0) -> None:
    """Write logits with their hash; with `rows`, as those of so many rows."""
    said = {"sha256": _sha256(logits), **({"rows": str(rows)} if rows else {})}
    with scratch_folder(path.parent) as scratch:
        safetensors.torch.save_file({"logits": logits}, scratch / path.name, metadata=said)
        (scratch / path.name).replace(path)


def _sha256(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.numpy().reshape(-1).view(np.uint8).data).hexdigest()
