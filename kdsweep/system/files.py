"""Files that survive whatever happens: replaced whole (write, fsync, rename) or appended by lines, and locks that die with their holder.

A full disk or a missing permission becomes one ResultsError that names the path; nothing half-written is ever read.
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
    """What the operating system said, where an error tells of it; None for any other error."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return (
        str(error) if "(os error " in str(error) else None
    )  # safetensors and tokenizers are Rust: theirs are no OSError


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Inside the block, an error of the operating system becomes a ResultsError that names `path`."""
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
    """Replace a JSON file whole; nan and inf are refused."""
    write_atomically(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_array(path: Path, array: np.ndarray) -> None:
    """Replace a `.npy` file whole."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_atomically(path, buffer.getvalue())


def read_array(path: Path) -> np.ndarray | None:
    """None for no file. Raises ResultsError for one that is torn."""
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
            while left:  # the last bytes of a disk are taken, and the next write says why no more are
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), size)
            raise


@contextmanager
def drafting(folder: Path) -> Iterator[Path]:
    """A new folder to write into, which takes the place of `folder` once the block ends well. Raises ResultsError."""
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
    """The same, in place of what was there."""
    write_atomically(path, _as_lines(lines))


def _as_lines(lines: Iterable[Any]) -> str:
    return "".join(json.dumps(dataclasses.asdict(line), allow_nan=False) + "\n" for line in lines)


class Lines(NamedTuple):
    """What a file of JSON lines holds."""

    whole: list[dict[str, Any]]
    torn: list[int]
    """Numbers, from 1, of the lines that are no JSON object."""
    unfinished: int | None
    """Number of a last line without its end: of a process that was cut off, or that writes it now."""


def sifted_lines(path: Path) -> Lines:
    """Tell whole lines from torn ones; no file has none of either."""
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
    """Every whole line; an unfinished last one, of a process that was cut off, is left out. Raises ResultsError with the line."""
    lines = sifted_lines(path)
    if lines.torn:
        raise ResultsError(f"{path}, line {lines.torn[0]} must be a JSON object, but is torn; remove that line")
    return lines.whole


# Locks ---------------------------------------------------------------------------------------------------------------


class Lock:
    """An exclusive lock on a file: the operating system gives it back when its holder ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def take(self, *, wait: bool = False) -> bool:
        """Whether the lock is ours now; with `wait`, once it is."""
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
        """Harmless where it is not ours."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def is_held(self) -> bool:
        """Whether somebody holds it, this object apart."""
        other = Lock(self._path)
        free = self._path.exists() and other.take()
        other.give_back()
        return self._path.exists() and not free


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Inside the block, no other process is in a block of the same `path`: one that comes second waits."""
    lock = Lock(path)
    lock.take(wait=True)
    try:
        yield
    finally:
        lock.give_back()
