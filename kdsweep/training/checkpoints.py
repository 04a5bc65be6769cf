"""Save and load checkpoints of a training that may be cut off at any moment.

A checkpoint is everything that the next step depends on, so that on a CPU a training continued from it gives the same bits as one
never cut off. Its file name holds the hash of its content: a torn file does not match it, and the checkpoint before it is used.
"""

import hashlib
import io
import math
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from kdsweep.errors import Interrupted
from kdsweep.system.files import naming, write_atomically
from kdsweep.system.process import StopRequest

KEPT = 2
"""Checkpoints kept on disk: the newest, and the one before it in case the newest is torn."""


class Checkpointing:
    """Holds how often trainings save a checkpoint, and the request that stops them."""

    def __init__(self, *, every_seconds: float, stop: StopRequest) -> None:
        self._every_seconds, self._stop = every_seconds, stop

    def of(self, folder: Path, identity: str) -> "Checkpoints":
        """Return the checkpoints in `folder` of the training that `identity` describes in full."""
        return Checkpoints(folder, identity, every_seconds=self._every_seconds, stop=self._stop)


class Checkpoints:
    """Saves and finds one training's checkpoints on disk; without a folder, saves none and finds none."""

    def __init__(self, folder: Path | None, identity: str, *, every_seconds: float, stop: StopRequest) -> None:
        self._folder, self._every_seconds, self._stop = folder, every_seconds, stop
        self._identity = hashlib.sha256(identity.encode()).hexdigest()
        self._saved_at = time.monotonic()

    def latest(self, device: str) -> Mapping[str, Any] | None:
        """Return the newest intact checkpoint with this training's identity, its tensors on `device`; None where there is none."""
        for path in self._paths():
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest()[:32] != path.stem.rsplit("-", 1)[1]:
                continue
            state: dict[str, Any] = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
            if state["identity"] == self._identity:
                return state
        return None

    def due(self) -> bool:
        """Return whether to save a checkpoint now: a stop was requested, or `every_seconds` have passed since the last save."""
        return self._stop.requested or time.monotonic() - self._saved_at >= self._every_seconds

    def save(self, state: Mapping[str, Any], *, step: int) -> None:
        """Write a checkpoint, and delete all but the `KEPT` newest.

        Raises Interrupted, after writing, where a stop was requested; ResultsError where the disk cannot be written.
        """
        if self._folder is None:
            return self.stop_if_asked()
        buffer = io.BytesIO()
        torch.save({**state, "identity": self._identity}, buffer)
        content = buffer.getvalue()
        with naming(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._folder / f"{step:09d}-{hashlib.sha256(content).hexdigest()[:32]}.pt", content)
        for old in self._paths()[KEPT:]:
            old.unlink(missing_ok=True)
        self._saved_at = time.monotonic()
        self.stop_if_asked()

    def stop_if_asked(self) -> None:
        """Check for a request to stop. Raises Interrupted where there is one."""
        if self._stop.requested:
            raise Interrupted("SIGTERM")

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Run the block with SIGTERM only noted, for `due` and `save` to act on, instead of interrupting at once."""
        with self._stop.deferred():
            yield

    def clear(self) -> None:
        """Remove every checkpoint and the folder, because the training is over."""
        if self._folder is None or not self._folder.exists():
            return
        for path in self._folder.glob("*"):
            path.unlink(missing_ok=True)
        self._folder.rmdir()

    def _paths(self) -> list[Path]:
        """Return the paths of the checkpoint files, newest first."""
        if self._folder is None:
            return []
        names = re.compile(r"\d{9,}-[0-9a-f]{32}\.pt")
        found = [path for path in self._folder.glob("*.pt") if names.fullmatch(path.name)]
        return sorted(found, key=lambda path: int(path.name.split("-")[0]), reverse=True)


NO_CHECKPOINTING = Checkpointing(every_seconds=math.inf, stop=StopRequest())
"""For a training that saves no checkpoint on a timer and that no request stops; it still continues from one found in its folder."""
NOT_KEPT = Checkpoints(None, "", every_seconds=math.inf, stop=StopRequest())
