"""Measure how fast a teacher is, once on a machine, and keep that in the cache beside its logits.

The key is the hash of its weights, how the model computes, the tokens, and what a record says of the machine, versions and threads included:
a second sweep of the same teacher need not wait for 35 of its forward passes again. Where other work slowed them down, remove `speeds` from the
cache: the next sweep measures anew.
"""

import hashlib
import json
from pathlib import Path

from kdsweep.system.wheels import cache_root
from kdsweep.training.cache import scratch_folder
from kdsweep.training.data.tokens import Tokens
from kdsweep.training.evaluation import Speed, measure_speed
from kdsweep.training.fast import machine
from kdsweep.training.models import computation
from kdsweep.training.teacher import Teacher


def teacher_speed(teacher: Teacher, tokens: Tokens) -> Speed:
    """Return the speed of the teacher on `tokens`, as `measure_speed` has it: from the cache, or measured and cached. A torn entry is measured
    again."""
    device = tokens.ids.device.type
    parts = [teacher.weights_sha256, computation(teacher.model), tokens.sha256(), machine.environment(device)]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    path = cache_root() / "speeds" / f"{key}.json"
    kept = _read(path)
    if kept is not None:
        return kept
    speed = measure_speed(teacher.model, tokens)
    with scratch_folder(path.parent) as scratch:
        (scratch / path.name).write_text(json.dumps(speed._asdict()), encoding="utf-8")
        (scratch / path.name).replace(path)
    return speed


def _read(path: Path) -> Speed | None:
    """Read a kept speed; return None where there is none, or it is torn."""
    try:
        return Speed(**{name: float(value) for name, value in json.loads(path.read_text(encoding="utf-8")).items()})
    except (OSError, ValueError, TypeError, AttributeError):
        return None
