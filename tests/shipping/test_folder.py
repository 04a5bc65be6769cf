"""Exported students on disk: a folder is replaced in one step, at whatever moment its process is killed, and copied whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kdsweep.errors import ResultsError, ShippingError
from kdsweep.shipping import folder as folders
from kdsweep.shipping.folder import alone, copy_export, exchanged, replacing, weights_file_sha256

KILLED_AT = """
import os, signal, sys
from pathlib import Path
from kdsweep.shipping import folder as folders

left = int(sys.argv[2])
if sys.argv[3] == "no":
    folders.exchanged = lambda one, other: False

def count(event, arguments):
    global left
    if event in ("open", "os.mkdir", "os.rename", "os.rmdir", "os.remove", "shutil.rmtree", "ctypes.dlsym", "ctypes.call_function"):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

folder = Path(sys.argv[1])
sys.addaudithook(count)
with folders.replacing(folder) as draft:
    for name in ("one", "two"):
        (draft / name).write_text("new")
"""


def make(folder: Path, content: str) -> None:
    folder.mkdir(parents=True)
    for name in ("one", "two"):
        (folder / name).write_text(content)


def content(folder: Path) -> list[str]:
    return [path.read_text() for path in sorted(folder.iterdir())]


def make_export(folder: Path) -> Path:
    make(folder, "export")
    (folder / "export.json").write_text(json.dumps({"student_sha256": "ab"}))
    return folder


@pytest.mark.parametrize("exchanges", [True, False])
def test_the_new_folder_replaces_the_old_one_and_nothing_is_left(
    exchanges: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchanges:
        monkeypatch.setattr(folders, "exchanged", lambda one, other: False)
    for text in ("first", "second"):
        with replacing(tmp_path / "exports" / "run") as draft:
            (draft / "file").write_text(text)
        assert content(tmp_path / "exports" / "run") == [text]
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "exports" / "run") as draft:
        (draft / "file").write_text("third")
        raise ZeroDivisionError
    assert content(tmp_path / "exports" / "run") == ["second"]
    assert [path.name for path in (tmp_path / "exports").iterdir()] == ["run"]


def test_two_folders_change_places_in_one_step(tmp_path: Path) -> None:
    make(tmp_path / "one", "1")
    make(tmp_path / "other", "2")
    assert exchanged(tmp_path / "one", tmp_path / "other") and not exchanged(tmp_path / "one", tmp_path / "none")
    assert (content(tmp_path / "one"), content(tmp_path / "other")) == (["2", "2"], ["1", "1"])


@pytest.mark.slow
@pytest.mark.parametrize("exchanges", ["yes", "no"])
def test_killed_at_any_moment_the_old_folder_is_there_or_the_new_one(exchanges: str, tmp_path: Path) -> None:
    """Before every file that is opened, made, renamed or removed; without an exchange the next export puts the old one back."""
    seen, moment = set(), 0
    while True:
        folder = tmp_path / str(moment) / "run"
        make(folder, "old")
        line = [sys.executable, "-c", KILLED_AT, str(folder), str(moment), exchanges]
        code = subprocess.run(line, check=False).returncode
        if exchanges == "yes":
            seen.add(tuple(content(folder)))
        with pytest.raises(KeyError), replacing(folder):
            raise KeyError("what was there before is there again")
        assert content(folder) in (["old", "old"], ["new", "new"])
        assert [path.name for path in folder.parent.iterdir()] == ["run"]
        if code == 0:
            break
        assert code == -9
        moment += 1
    assert moment > 8 and (exchanges == "no" or seen == {("old", "old"), ("new", "new")})


def test_one_export_of_a_sweep_runs_at_a_time(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(ResultsError, match="one export of a sweep runs at a time"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass


def test_what_a_killed_export_left_is_gone_before_the_next_one(tmp_path: Path) -> None:
    exports = tmp_path / "exports"
    for name in (".a.draft", ".b.old", "b", ".c.old"):
        make(exports / name, name)
    with alone(tmp_path):
        assert {path.name: content(path)[0] for path in exports.iterdir()} == {"b": "b", "c": ".c.old"}


def test_a_full_disk_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "exports" / "run"
    make(folder, "old")

    def full(one: Path, other: Path) -> bool:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(folders, "exchanged", full)
    with pytest.raises(ResultsError, match="run must be writable, but: No space left"), replacing(folder):
        pass
    assert content(folder) == ["old", "old"] and list(folder.parent.iterdir()) == [folder]


def test_an_export_is_copied_whole_to_a_new_an_empty_or_an_exported_folder(tmp_path: Path) -> None:
    export = make_export(tmp_path / "export")
    (tmp_path / "empty").mkdir()
    make_export(tmp_path / "before")
    (tmp_path / "before" / "old").write_text("an older export's")
    for name in ("deep/new", "empty", "before"):
        there = copy_export(export, tmp_path / name)
        assert there == tmp_path / name and content(there) == content(export)
    assert copy_export(export, export) == export and content(export)[1:] == ["export", "export"]


def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path) -> None:
    export = make_export(tmp_path / "export")
    make(tmp_path / "home", "mine")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "export.json").write_text('{"schema_version": 1}')  # as transformers.exporters writes one
    (tmp_path / "file").write_text("mine")
    for name in ("home", "theirs", "file", "export/inside"):
        with pytest.raises(ShippingError, match="--to names a new folder, an empty one, or one with an exported"):
            copy_export(export, tmp_path / name)
    assert content(tmp_path / "home") == ["mine", "mine"] and (tmp_path / "file").read_text() == "mine"


def test_a_students_hash_is_that_of_its_file_of_weights(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert weights_file_sha256(tmp_path) == "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"
