"""Compute a teacher's logits once, and keep them in the cache by content.

The key is the hash of the weights that gave them, how the model computes, the tokens, the class order, the kind of device and, on a CPU,
its threads. Shapes: C classes, N rows.
"""

import hashlib
import json
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from kdsweep.errors import ModelError
from kdsweep.system.wheels import cache_root
from kdsweep.training.data.tokens import TEACHER_LOGITS, Tokens
from kdsweep.training.evaluation import all_logits
from kdsweep.training.models import computation
from kdsweep.training.teacher import Teacher, arithmetic, scratch_folder


def teacher_targets(teacher: Teacher, tokens: Tokens) -> dict[str, Tensor]:
    """Return the students' targets of every row, by name, each [N, …]: the teacher's logits, computed once for each split, and cached."""
    return {TEACHER_LOGITS: teacher_logits(teacher, tokens)}


def teacher_logits(teacher: Teacher, tokens: Tokens) -> Tensor:
    """Return the teacher's logits of every row in the dataset's class order, float32 [N, C]: from the cache, or computed and cached.

    A cache entry that is torn or of another shape is computed again. Raises ModelError where a logit is not finite.
    """
    path = cache_root() / "logits" / f"{_logits_key(teacher, tokens)}.safetensors"
    shape = (len(tokens.lengths), len(teacher.columns))
    device = tokens.ids.device
    cached = _read_logits(path, shape)
    if cached is not None:
        return cached.to(device)
    classes = int(teacher.model.config.num_labels)  # type: ignore[union-attr, arg-type]
    logits = all_logits(teacher.model, tokens, classes=classes)[:, list(teacher.columns)].contiguous()
    bad = int((~logits.isfinite()).any(dim=-1).sum())
    if bad:
        raise ModelError(f"the teacher's logits must be finite, but {bad} of {shape[0]} rows hold nan or inf")
    _write_logits(path, logits.cpu())
    return logits


def _logits_key(teacher: Teacher, tokens: Tokens) -> str:
    parts = [teacher.weights_sha256, computation(teacher.model), teacher.columns, tokens.sha256()]
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
