"""Compute a teacher's logits once, and keep them in the cache by content.

The key is the hash of the weights that gave them, how the model computes, the tokens, the class order, the kind of device and, on a CPU,
its threads. Shapes: C classes, N rows.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path

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

    A cache entry that is torn or of another shape is computed again. Raises ModelError where a logit is not finite.
    """
    path = cache_root() / "logits" / f"{_logits_key(teacher, member, tokens)}.safetensors"
    shape = (len(tokens.lengths), len(teacher.columns))
    device = tokens.ids.device
    cached = _read_logits(path, shape)
    if cached is not None:
        return cached.to(device)
    model = member.load()
    classes = int(model.config.num_labels)  # type: ignore[union-attr, arg-type]
    logits = all_logits(model, tokens, classes=classes, on_rows=on_rows)[:, list(teacher.columns)].contiguous()
    bad = int((~logits.isfinite()).any(dim=-1).sum())
    if bad:
        raise ModelError(f"the teacher's logits must be finite, but {bad} of {shape[0]} rows hold nan or inf")
    _write_logits(path, logits.cpu())
    return logits


def _logits_key(teacher: Teacher, member: Member, tokens: Tokens) -> str:
    """Return the key of a member's logits; all members compute alike, so that none is loaded for it."""
    parts = [member.weights_sha256, computation(teacher.model), teacher.columns, tokens.sha256()]
    return hashlib.sha256(json.dumps([*parts, arithmetic(tokens.ids.device.type)]).encode()).hexdigest()


def _read_logits(path: Path, shape: tuple[int, int]) -> Tensor | None:
    """Read cached logits, float32 of `shape`; return None for no entry, a torn one, one of another shape, or one whose bytes do not match
    their hash."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            logits: Tensor = file.get_tensor("logits")
            expected = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        return None
    intact = tuple(logits.shape) == shape and logits.dtype == torch.float32 and _sha256(logits) == expected
    return logits if intact else None


def _write_logits(path: Path, logits: Tensor) -> None:
    with scratch_folder(path.parent) as scratch:
        safetensors.torch.save_file({"logits": logits}, scratch / path.name, metadata={"sha256": _sha256(logits)})
        (scratch / path.name).replace(path)


def _sha256(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
