"""The README tells the truth about files and commands."""

import re
import shlex
from pathlib import Path

import pytest

from kdsweep.config.sweep_file import load_sweep

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PLAN = (ROOT / "kdsweep" / "README.md").read_text(encoding="utf-8")


def files_named() -> list[str]:
    """Return the paths in kdsweep/README.md's list of files, from the depths of its lines."""
    (block,) = re.findall(r"```\nkdsweep/\n(.*?)^```", PLAN, flags=re.DOTALL | re.MULTILINE)
    folders, found = [""], []
    for line in block.splitlines():
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        del folders[depth:]
        if name.endswith("/"):
            folders.append(folders[-1] + name)
        else:
            found.append(folders[-1] + name)
    return found


def test_the_file_tree_names_every_file_of_the_package_and_no_other() -> None:
    package, endings = ROOT / "kdsweep", (".py", ".j2", ".css", ".js")
    files = [path.relative_to(package).as_posix() for path in package.rglob("*") if path.suffix in endings]
    assert len(files) > 60
    assert sorted(files_named()) == sorted(name for name in files if not name.endswith("__init__.py"))


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
