"""A process: the request to stop, its end when its parent or its reader is gone, its name, and imports that stay for as long as it lives."""

import functools
import gc
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import ParamSpec
from uuid import uuid4

from kdsweep.errors import Interrupted

Arguments = ParamSpec("Arguments")
UNREAD = 128 + signal.SIGPIPE
"""The exit code of a command whose reader went away, as a shell shows it."""


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


def ends_with_its_reader(command: Callable[Arguments, int]) -> Callable[Arguments, int]:
    """Let a command end without a word where whoever reads its output went away, as `head` does after ten lines."""

    @functools.wraps(command)
    def quiet(*arguments: Arguments.args, **keywords: Arguments.kwargs) -> int:
        try:
            try:
                return command(*arguments, **keywords)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:
            if not _is_unread():
                raise
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())  # what is left to say, at the end of the process
            return UNREAD

    return quiet


def _is_unread() -> bool:
    """Whether standard output is a pipe whose other end is closed."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


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
