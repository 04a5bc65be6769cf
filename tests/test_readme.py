"""The README tells the truth about files and commands."""

import re
from pathlib import Path

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
