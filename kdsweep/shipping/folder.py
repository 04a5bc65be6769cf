"""Keep exported students on disk: a folder appears whole, is replaced whole, and is copied whole.

A process killed at any moment leaves the old folder or the new one. The operating system exchanges the two in one step; on a file
system that cannot, the old one is renamed first, and the next export puts it back where the new one did not follow.
"""

import ctypes
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdsweep.errors import ResultsError, ShippingError
from kdsweep.records.layout import EXPORT_FILE, exports_folder, locks_folder
from kdsweep.system.files import Lock, naming

WEIGHTS = "model.safetensors"
EXCHANGE = 2
"""RENAME_EXCHANGE of Linux and RENAME_SWAP of macOS."""
HERE = -100
"""AT_FDCWD: paths relative to the working directory."""


@contextmanager
def alone(sweep_folder: Path) -> Iterator[None]:
    """Run the block as the only export of a sweep, without what a killed one left. Raises ResultsError where another one runs."""
    lock = Lock(locks_folder(sweep_folder) / "export.lock")
    if not lock.take():
        raise ResultsError(
            f"one export of a sweep runs at a time, but another one works on {sweep_folder}; wait until it has ended: what it "
            "has made is not made again"
        )
    try:
        for left in exports_folder(sweep_folder).glob(".*.*"):
            _settle(left.with_name(left.stem.removeprefix(".")))
        yield
    finally:
        lock.give_back()


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Run the block with a new folder to fill, which replaces `folder` in one step where the block ends without error.

    Raises ResultsError where the disk cannot be written; `folder` is then what it was.
    """
    draft, old = _beside(folder, "draft"), _beside(folder, "old")
    with naming(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _settle(folder)
        draft.mkdir()
    try:
        yield draft
        with naming(folder):
            _to_disk(draft)
            if not folder.exists():
                draft.rename(folder)
            elif not exchanged(draft, folder):
                folder.rename(old)
                draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)


def _beside(folder: Path, what: str) -> Path:
    return folder.with_name(f".{folder.name}.{what}")


def _settle(folder: Path) -> None:
    """Remove what a killed process left beside `folder`; the old folder comes back where the new one is not there."""
    draft, old = _beside(folder, "draft"), _beside(folder, "old")
    shutil.rmtree(draft, ignore_errors=True)
    if old.exists() and not folder.exists():
        old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _to_disk(folder: Path) -> None:
    """Wait until every file of `folder` is on disk, so that a name never outlives a power cut that its content did not."""
    for path in (folder, *folder.rglob("*")):
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def exchanged(one: Path, other: Path) -> bool:
    """Exchange two folders in one step, and return whether operating system and file system can."""
    library, paths = ctypes.CDLL(None, use_errno=True), (os.fsencode(one), os.fsencode(other))
    if sys.platform == "darwin":
        return bool(library.renamex_np(*paths, EXCHANGE) == 0)
    if not hasattr(library, "renameat2"):
        return False
    return bool(library.renameat2(HERE, paths[0], HERE, paths[1], EXCHANGE) == 0)


def copy_student(student: Path, to: Path) -> None:
    """Copy the files of a student, as the trial saved it, into the folder `to`."""
    for file in sorted(student.iterdir()):
        if file.is_file():
            shutil.copyfile(file, to / file.name)


def weights_file_sha256(folder: Path) -> str:
    """Compute the SHA-256 of a student's file of weights, by which its export is made again or not."""
    with (folder / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_export(export: Path, to: Path) -> Path:
    """Copy an exported student's folder to `to`, whole or not at all, and return where it lies.

    Raises ShippingError for a folder that holds anything else than an exported student.
    """
    to = to.expanduser().resolve()
    if to == export.resolve():
        return to
    is_free = not to.exists() or is_export(to) or (to.is_dir() and not any(to.iterdir()))
    if not is_free or to.is_relative_to(export.resolve()):
        raise ShippingError(
            f"--to names a new folder, an empty one, or one with an exported student to replace, but got {to}, which is none of them"
        )
    with replacing(to) as draft, naming(to):
        shutil.copytree(export, draft, dirs_exist_ok=True)
    return to


def is_export(folder: Path) -> bool:
    """Return whether a folder holds an exported student, whole."""
    try:
        return "student_sha256" in json.loads((folder / EXPORT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False
