"""What the package says of itself to pip: every library that it imports, none that it does not, and the systems that it runs on."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PROVIDES = {"wandb-workspaces": "wandb_workspaces", "pyyaml": "yaml", "huggingface-hub": "huggingface_hub"}
"""What a distribution is imported as, where that is not its name."""

BROUGHT = {"IPython"}
"""What a notebook's kernel has, where alone it is imported."""


def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "kdsweep").rglob("*.py")}


def imported(tree: ast.Module) -> set[str]:
    """Full names of all that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def declared() -> dict[str, str]:
    """Of pyproject's own lines, those of the tests apart: a distribution, and the comment after it."""
    lines = PYPROJECT.partition("\ndependencies = [")[2].partition("\ntest = [")[0]
    found = re.findall(r'"([\w-]+)(?:\[\w+\])?[<>=][^"]*"[\],]*(?: # (.*))?$', lines, flags=re.MULTILINE)
    return dict(found)


@pytest.mark.slow
def test_every_library_that_is_imported_is_declared_and_none_else() -> None:
    names = {name.split(".")[0] for tree in trees().values() for name in imported(tree)}
    libraries = names - sys.stdlib_module_names - {"kdsweep", "__future__"} - BROUGHT
    assert len(libraries) > 12
    provided = {PROVIDES.get(name, name): comment for name, comment in declared().items()}
    assert libraries <= provided.keys()
    assert {name for name in provided.keys() - libraries if not provided[name].startswith("not imported: ")} == set()
    assert all(provided.values()), "a line says who needs it"


def test_dependencies_are_in_alphabetical_order() -> None:
    names = list(declared())
    names = names[: names.index("wandb") + 1]
    assert names == sorted(names)


@pytest.mark.slow
def test_nothing_private_of_a_library_is_imported_by_name() -> None:
    names = {name for tree in trees().values() for name in imported(tree) if not name.startswith("kdsweep.")}
    assert {name for name in names if "wandb.sdk" in name or re.search(r"\._[a-z]", name)} == set()


def test_windows_is_told_what_it_needs() -> None:
    line = "import sys; sys.platform = 'win32'; import kdsweep"
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    told = done.stderr.splitlines()[-1]
    assert told.startswith("ImportError: kdsweep runs on Linux and macOS") and "WSL" in told
