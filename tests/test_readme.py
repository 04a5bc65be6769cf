"""The README tells the truth about files and commands."""

import re
import shlex
from pathlib import Path

import pytest

from kdsweep.sweep_file import load_sweep

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_file_tree_names_every_module() -> None:
    modules = {path.name for path in (ROOT / "kdsweep").iterdir() if path.suffix in (".py", ".j2")} - {"__init__.py"}
    assert {name for name in modules if name not in README} == set()


def test_every_sweep_file_and_picture_it_names_exists() -> None:
    named = set(re.findall(r"sweeps/\w+\.yaml", README)) | set(re.findall(r"\((results/[\w.]+)\)", README))
    assert named and all((ROOT / name).exists() for name in named)


def test_ci_runs_the_readmes_test_command() -> None:
    assert ".venv/bin/python -m pytest\n" in README
    assert '/bin/python" -m pytest\n' in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    """Arguments of every kdsweep.run command in the README's code blocks, without comments and options."""
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL))
    lines = [shlex.split(line, comments=True) for line in blocks.splitlines() if "-m kdsweep.run sweeps/" in line]
    return [[word for word in line[line.index("kdsweep.run") + 1 :] if word != "--dry-run"] for line in lines]


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_every_run_command_loads_with_its_overrides(arguments: list[str]) -> None:
    file, *overrides = arguments
    load_sweep(ROOT / file, overrides)


def test_the_full_size_overrides_load() -> None:
    (line,) = [line for line in README.splitlines() if line.startswith("`study.trials=50")]
    sweep = load_sweep(ROOT / "sweeps" / "T_alpha.yaml", line.strip("`.").split())
    assert sweep.fixed["train_limit"] is None and sweep.study.trials == 50
