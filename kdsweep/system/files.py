"""Write files that a crash cannot damage: replaced whole (write, fsync, rename) or appended by lines; and lock files.

A full disk or a missing permission becomes one ResultsError that names the path; nothing half-written is ever read. A lock ends
with the process that holds it.
"""

import dataclasses
import fcntl
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kdsweep.errors import ResultsError


def disk_said(error: Exception) -> str | None:
    """Return the operating system's message of an error; None for an error of another kind."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return (
        str(error) if "(os error " in str(error) else None
    )  # safetensors and tokenizers are Rust: their errors are no OSError


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Run the block with errors of the operating system raised as a ResultsError that names `path`."""
    try:
        yield
    except Exception as error:
        if (said := disk_said(error)) is None:
            raise
        raise ResultsError(
            f"{path} must be writable, but: {said}; nothing else was changed, and the same command continues once it is"
        ) from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file whole: readers see the old content or the new one. Raises ResultsError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    with naming(path):
        try:
            with draft.open("wb") as file:
                file.write(content.encode("utf-8") if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def write_json(path: Path, content: object) -> None:
    """Replace a JSON file whole. Raises ValueError for nan and inf, ResultsError where the disk fails."""
    write_atomically(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_array(path: Path, array: np.ndarray) -> None:
    """Replace a `.npy` file whole. Raises ResultsError."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_atomically(path, buffer.getvalue())


def read_array(path: Path) -> np.ndarray | None:
    """Read a `.npy` file; return None where there is none. Raises ResultsError for a file that is torn."""
    if not path.exists():
        return None
    try:
        array: np.ndarray = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ResultsError(f"{path} must be a whole .npy file, but: {error}; move its folder away") from error
    return array


def append_lines(path: Path, lines: Iterable[Any]) -> None:
    """Append dataclasses as JSON lines, all or none, and wait until they are on disk. Raises ResultsError."""
    content = _as_lines(lines).encode("utf-8")
    with naming(path), path.open("ab", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            left = memoryview(content)
            while left:  # a full disk may take a part of a write, and raises at the next
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), size)
            raise


@contextmanager
def drafting(folder: Path) -> Iterator[Path]:
    """Run the block with a new folder to write into, which replaces `folder` where the block ends without error. Raises ResultsError."""
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        with naming(folder):
            draft.mkdir()
            yield draft
            if folder.exists():
                shutil.rmtree(folder)
            draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def replace_lines(path: Path, lines: Iterable[Any]) -> None:
    """Replace a file by these dataclasses as JSON lines, whole or not at all. Raises ResultsError."""
    write_atomically(path, _as_lines(lines))


def _as_lines(lines: Iterable[Any]) -> str:
    return "".join(json.dumps(dataclasses.asdict(line), allow_nan=False) + "\n" for line in lines)


class Lines(NamedTuple):
    """Holds the whole lines of a JSON lines file, and the numbers of the others."""

    whole: list[dict[str, Any]]
    torn: list[int]
    """Numbers, from 1, of the ended lines that are no JSON object."""
    unfinished: int | None
    """Number of a last line without a line end, which a process was cut off from writing or writes now; None for no such line."""


def sifted_lines(path: Path) -> Lines:
    """Read a JSON lines file, and separate whole lines from torn ones; a missing file has neither."""
    if not path.exists():
        return Lines([], [], None)
    *ended, rest = path.read_bytes().decode("utf-8", errors="replace").split("\n")
    parsed = [_parsed(line) for line in ended]
    torn = [number for number, line in enumerate(parsed, start=1) if line is None]
    return Lines([line for line in parsed if line is not None], torn, len(ended) + 1 if rest else None)


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        content = json.loads(line)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return every whole line of a JSON lines file, without an unfinished last one. Raises ResultsError with a torn line's number."""
    lines = sifted_lines(path)
    if lines.torn:
        raise ResultsError(f"{path}, line {lines.torn[0]} must be a JSON object, but is torn; remove that line")
    return lines.whole


# Locks ---------------------------------------------------------------------------------------------------------------


class Lock:
    """Locks a file exclusively; the operating system releases the lock when the process that holds it ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def take(self, *, wait: bool = False) -> bool:
        """Take the lock, and return whether this object holds it now; with `wait`, wait for it. Raises ResultsError."""
        with naming(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(file)
            return False
        except BaseException:
            os.close(file)
            raise
        self._file = file
        return True

    def give_back(self) -> None:
        """Release the lock where this object holds it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def is_held(self) -> bool:
        """Return whether any process or object holds the lock, this one included; for a moment, it takes a free lock to see."""
        other = Lock(self._path)
        free = self._path.exists() and other.take()
        other.give_back()
        return self._path.exists() and not free


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Run the block under the lock of `path`, once any other process has released it. Raises ResultsError where it cannot be opened."""
    lock = Lock(path)
    lock.take(wait=True)
    try:
        yield
    finally:
        lock.give_back()


def shown_path(folder: Path) -> str:
    """Return `folder` relative to the working directory if it is below it, so that a shared report names no home directory."""
    resolved = folder.resolve()
    return resolved.relative_to(Path.cwd()).as_posix() if resolved.is_relative_to(Path.cwd()) else str(folder)
