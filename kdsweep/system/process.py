"""The request to stop that leads to a checkpoint, and the end of a process whose parent is gone."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from kdsweep.errors import Interrupted


class StopRequest:
    """SIGTERM as a request: raises Interrupted at once, or inside `deferred` waits for the next checkpoint."""

    def __init__(self) -> None:
        self.requested = False
        self._deferred = False

    def listen(self) -> None:
        """Answer SIGTERM from here on."""
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        self.ask()

    def ask(self) -> None:
        """What SIGTERM does."""
        self.requested = True
        if not self._deferred:
            raise Interrupted("SIGTERM")

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside the block, somebody looks at `requested` often enough."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False


def stop_with_parent() -> None:
    """For a thread: SIGTERM to this process when its parent, who holds the other end of standard input, is gone."""
    while os.read(sys.stdin.fileno(), 1):  # not sys.stdin: its lock, held at exit, would abort the process
        pass
    os.kill(os.getpid(), signal.SIGTERM)
