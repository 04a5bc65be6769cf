"""The whole command: a sweep's students exported by a process of its own, which is killed and started again."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import command, started, wait_for

from kdsweep.records.reading import read_exports

Hashes = dict[str, str]


def hashes(folder: Path) -> Hashes:
    """The content of every file by its path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def kill_once(folder: Path, holds: Callable[[Path], bool], *arguments: object) -> None:
    """Export, and kill -9 the process once `holds` is true of its unfinished folder."""
    draft = folder.with_name(f".{folder.name}.draft")
    with started("export", *arguments) as process:
        wait_for(lambda: holds(draft), 300)
        os.kill(process.pid, 9)
        process.communicate()


@pytest.mark.slow
def test_an_export_is_whole_however_often_its_process_is_killed(
    tiny_sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    fixed = {"test_fraction": 0.25, "max_steps": 6, "evaluations": 1, "epochs": None}
    file = tiny_sweep_file(fixed=fixed, finalists={"top": 1, "seeds": 1})
    assert command("run", file).returncode == 0
    sweep, copy = tmp_path / "results" / "tiny", tmp_path / "handed on"
    name = json.loads((sweep / "leaderboard.json").read_text())
    assert name["verdict"]
    runs = sorted(path.name for path in (sweep / "finalists").iterdir())
    folders = [sweep / "exports" / run for run in runs]

    def draft_of_any(_: Path) -> bool:
        return any((sweep / "exports").glob(".*.draft/onnx/model.onnx"))

    kill_once(folders[0], draft_of_any, sweep)
    assert not any(folder.exists() for folder in folders)

    with started("export", sweep, "--to", copy) as process:
        wait_for(lambda: any((sweep / "exports").glob(".*.draft")), 120)
        second = command("export", sweep)
        assert second.returncode == 2 and "one export of a sweep runs at a time" in second.stderr
        said = process.communicate()[0]
    assert process.returncode == 0, said
    assert f"Next:\n  python -m kdsweep.predict {os.path.relpath(copy)!r} texts.txt" in said and "hf upload" in said
    exports = {export.run: export for export in read_exports(sweep)}
    assert sorted(exports) == runs == sorted(path.name for path in (sweep / "exports").iterdir())
    first, before = said.partition(",")[0], {run: hashes(sweep / "exports" / run) for run in runs}
    assert hashes(copy) == before[first]
    assert set(before[first]) >= {"config.json", "model.safetensors", "tokenizer.json", "README.md", "export.json"}
    assert [file for file in sorted(before[first]) if "onnx" in file] == ["onnx/model.onnx", "onnx/model_int8.onnx"]
    assert all(export.tested_at and len(export.rejected) == 1 for export in exports.values())
    assert "exports/" in (sweep / "leaderboard.csv").read_text()

    again = command("export", sweep)
    assert again.returncode == 0 and again.stdout.count("exported already") == 2
    folder = sweep / "exports" / first
    kill_once(folder, lambda draft: (draft / "README.md").exists(), sweep, "--again")
    assert {run: hashes(sweep / "exports" / run) for run in runs} == before
    assert command("export", sweep, first, "--again", "--forms", "int8").returncode == 0
    after = hashes(folder)
    assert sorted(path.name for path in (sweep / "exports").iterdir()) == runs and "onnx/model.onnx" not in after
    same = ("model.safetensors", "onnx/model_int8.onnx", "config.json")
    assert {file: after[file] for file in same} == {file: before[first][file] for file in same}
