"""A process: the request to stop, its end when its parent is gone, its name, and imports that stay for as long as it lives."""

import gc
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from uuid import uuid4

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


def new_owner() -> str:
    """A name for a worker that this process is or starts."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"


def is_of_this_host(owner: str) -> bool:
    """Whether the owner runs, or ran, on this machine."""
    return owner.rsplit("-", 2)[0] == socket.gethostname()


@contextmanager
def for_good() -> Iterator[None]:
    """Inside the block, import what stays: the garbage collector waits meanwhile, and never looks at it afterwards.

    Torch, transformers and what they import are half a million objects, none of them garbage. Looking through them takes a fifth
    of the import's seconds, a quarter of a second after each trial, and two seconds at the end of the process.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
