"""Stop a process on request or when its parent or reader has ended, name it, and import what stays in memory until its end."""

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
"""The exit code of a command whose output nobody reads any more, as a shell shows it."""


class StopRequest:
    """Answers SIGTERM: raises Interrupted at once, but inside `deferred` only sets `requested`, for the next checkpoint to read."""

    def __init__(self) -> None:
        self.requested = False
        self._deferred = False

    def listen(self) -> None:
        """Answer SIGTERM from now on."""
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        self.ask()

    def ask(self) -> None:
        """Set `requested`, as SIGTERM does. Raises Interrupted outside `deferred`."""
        self.requested = True
        if not self._deferred:
            raise Interrupted("SIGTERM")

    def check(self) -> None:
        """Raise Interrupted where this process has been asked to stop: inside an import, Python may drop what a signal's handler raises."""
        if self.requested:
            raise Interrupted("SIGTERM")

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Run the block without Interrupted on SIGTERM; the block must check `requested` itself, and often."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False


def stop_with_parent(on_line: Callable[[str], None] = lambda _: None) -> None:
    """Wait, in a thread, for the parent to close standard input, as its end does, and then send SIGTERM to this process; `on_line` gets
    every line that the parent writes before."""
    said = b""
    while got := os.read(sys.stdin.fileno(), 4096):  # not sys.stdin: its lock, held at exit, would abort the process
        *lines, said = (said + got).split(b"\n")
        for line in lines:
            on_line(line.decode())
    os.kill(os.getpid(), signal.SIGTERM)


def new_owner() -> str:
    """Return a new name for a worker that this process is or starts: host, process id, eight random hex digits."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"


def is_of_this_host(owner: str) -> bool:
    """Return whether the worker named `owner` runs, or ran, on this machine."""
    return owner.rsplit("-", 2)[0] == socket.gethostname()


def ends_with_its_reader(command: Callable[Arguments, int]) -> Callable[Arguments, int]:
    """Wrap a command so that it ends without a message when its output is no longer read, as by `head` after ten lines; returns `UNREAD` then."""

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
                os.dup2(nowhere.fileno(), sys.stdout.fileno())  # for output that is still unwritten at the end
            return UNREAD

    return quiet


def _is_unread() -> bool:
    """Return whether standard output is a pipe whose other end is closed."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


@contextmanager
def uncollected() -> Iterator[None]:
    """Run the block without garbage collection, where it makes very many objects that stay, such as ten thousand trials.

    Each search through them looks at all that were made before: half of the time of reading them.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def for_good() -> Iterator[None]:
    """Run the block, for imports, without garbage collection, and exclude all objects that exist after it from later collections.

    Torch, transformers and what they import are half a million objects, none of them garbage. A search through them takes a fifth
    of the import's seconds, a quarter of a second after each trial, and two seconds at the end of the process.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
