"""Checkpoints of a training that may be cut off at any moment.

A checkpoint is everything that the next step depends on, so a training continued from it gives the same bits as one never cut
off. Its file name holds the hash of its content: a torn one is known by it, and the one before it is used.
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
"""Checkpoints on disk: the newest, and the one before it for the case that the newest is torn."""


class Checkpointing:
    """How often trainings are checkpointed, and who may stop them."""

    def __init__(self, *, every_seconds: float, stop: StopRequest) -> None:
        self._every_seconds, self._stop = every_seconds, stop

    def of(self, folder: Path, identity: str) -> "Checkpoints":
        """The checkpoints in `folder` of the training that `identity` names in full."""
        return Checkpoints(folder, identity, every_seconds=self._every_seconds, stop=self._stop)


class Checkpoints:
    """One training's checkpoints on disk; without a folder none is kept, and none found."""

    def __init__(self, folder: Path | None, identity: str, *, every_seconds: float, stop: StopRequest) -> None:
        self._folder, self._every_seconds, self._stop = folder, every_seconds, stop
        self._identity = hashlib.sha256(identity.encode()).hexdigest()
        self._saved_at = time.monotonic()

    def latest(self, device: str) -> Mapping[str, Any] | None:
        """The newest whole checkpoint of this very training, its tensors on `device`; None for no such."""
        for path in self._paths():
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest()[:32] != path.stem.rsplit("-", 1)[1]:
                continue
            state: dict[str, Any] = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
            if state["identity"] == self._identity:
                return state
        return None

    def due(self) -> bool:
        """Whether a checkpoint should be saved after this step."""
        return self._stop.requested or time.monotonic() - self._saved_at >= self._every_seconds

    def save(self, state: Mapping[str, Any], *, step: int) -> None:
        """Write a checkpoint. Raises Interrupted afterwards where somebody asked to stop, ResultsError for a full disk."""
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
        """Raises Interrupted where somebody asked to stop."""
        if self._stop.requested:
            raise Interrupted("SIGTERM")

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Inside the block, a request to stop waits for `due` to be asked."""
        with self._stop.deferred():
            yield

    def clear(self) -> None:
        """Remove all: the training is over."""
        if self._folder is None or not self._folder.exists():
            return
        for path in self._folder.glob("*"):
            path.unlink(missing_ok=True)
        self._folder.rmdir()

    def _paths(self) -> list[Path]:
        """Newest first."""
        if self._folder is None:
            return []
        names = re.compile(r"\d{9,}-[0-9a-f]{32}\.pt")
        found = [path for path in self._folder.glob("*.pt") if names.fullmatch(path.name)]
        return sorted(found, key=lambda path: int(path.name.split("-")[0]), reverse=True)


NO_CHECKPOINTING = Checkpointing(every_seconds=math.inf, stop=StopRequest())
"""For a training that is run again from the start when it is cut off."""
NOT_KEPT = Checkpoints(None, "", every_seconds=math.inf, stop=StopRequest())
