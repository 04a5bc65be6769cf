"""Shipped sweeps are found by name, in a clone and once installed, and a file always wins."""

import fnmatch
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from kdsweep.config.shipped_sweeps import find_sweep, shipped_sweeps
from kdsweep.errors import ConfigError

ROOT = Path(__file__).parents[2]
SWEEPS = ROOT / "sweeps"
FILES = {path.relative_to(SWEEPS).with_suffix("").as_posix(): path for path in SWEEPS.rglob("*.yaml")}


def said_of(asked: str) -> str:
    """What `find_sweep` says about a name that it refuses."""
    with pytest.raises(ConfigError) as error:
        find_sweep(Path(asked))
    return str(error.value)


def test_a_name_means_the_shipped_sweep_and_a_file_of_that_name_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(FILES) > 12 and shipped_sweeps() == FILES and find_sweep(Path("T_alpha")) == FILES["T_alpha"]
    (tmp_path / "smoke").mkdir()  # a folder is no sweep
    assert find_sweep(Path("smoke")) == FILES["smoke"]
    assert find_sweep(Path("glue/rte")) == SWEEPS / "glue" / "rte.yaml"
    (tmp_path / "T_alpha").touch()
    assert find_sweep(Path("T_alpha")) == Path("T_alpha")


def test_what_is_neither_file_nor_name_is_told_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "T_alhpa must be a sweep file or the name of a shipped sweep" in said_of("T_alhpa")
    assert "did you mean 'T_alpha'? shipped: T_alpha, clinc150" in said_of("T_alhpa")
    assert "shipped: T_alpha" in said_of("x" * 300) and "did you mean" not in said_of("x" * 300)
    assert "there is none; the shipped one is called by its name, T_alpha" in said_of("sweeps/T_alpha.yaml")
    assert "there is none; the shipped one is called by its name, glue/rte" in said_of("rte")
    (tmp_path / "mine").mkdir()
    assert "mine must be a sweep file, but is a folder" in said_of("mine")


def test_every_file_of_the_package_that_is_no_module_goes_into_the_wheel() -> None:
    """Pages (README.md) excepted: they are read in the clone, and link to each other there."""
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert {"kdsweep", "kdsweep.sweeps"} <= set(setup["packages"]) and setup["package-dir"] == {
        "kdsweep.sweeps": "sweeps"
    }
    for package, folder in (("kdsweep.reporting", ROOT / "kdsweep" / "reporting"), ("kdsweep.sweeps", ROOT / "sweeps")):
        data = [path.name for path in folder.iterdir() if path.is_file() and path.suffix not in (".py", ".md")]
        patterns = setup["package-data"][package]
        assert data and all(any(fnmatch.fnmatch(name, pattern) for pattern in patterns) for name in data)


def test_an_installed_package_has_the_sweeps_inside(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "kdsweep", tmp_path / "site" / "kdsweep", ignore=ignored)
    shutil.copytree(ROOT / "sweeps", tmp_path / "site" / "kdsweep" / "sweeps")
    line = [sys.executable, "-m", "kdsweep.run", "smoke", "--dry-run"]
    here = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(tmp_path / "site")}}
    done = subprocess.run(line, capture_output=True, text=True, check=False, **here)  # type: ignore[call-overload]
    assert done.returncode == 0 and "smoke: the plan" in done.stdout, done.stderr


def test_git_leaves_out_what_building_writes() -> None:
    assert {"build/", "dist/", "*.egg-info/"} <= {*(ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()}
