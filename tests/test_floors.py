"""The house: who may import whom, and which third party belongs to which module."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from test_report import make_full

PACKAGE = Path(__file__).parent.parent / "kdsweep"

FLOORS = [
    {"errors"},
    {
        "shipped",
        "stopping",
        "config",
        "assets",
        "losses",
        "metrics",
        "verdicts",
        "machine",
        "files",
        "hardware",
        "imports",
        "owners",
        "tables",
        "text_tables",
    },
    {"rows"},
    {"classes", "sweep_config", "data", "checkpoints", "finals", "tuning", "shortcuts", "readout"},
    {"sweep_file", "space", "tokens", "standings", "results", "words"},
    {"records", "run_labels"},
    {"gathered", "devices", "graphs", "runs"},
    {"models", "wandb_runs", "leaderboard"},
    {"figures", "finalists", "advice", "weak_teacher", "distill", "tracking", "reader"},
    {"answer", "by_class"},
    {"questions"},
    {"study_figures", "search_figures", "class_figures", "teacher", "sampler", "storage", "display", "audit"},
    {"contents", "materials", "clock"},
    {"report_text"},
    {"page"},
    {"report", "publish"},
    {"assignment"},
    {"study"},
    {"prepare", "trial", "supervisor"},
    {"worker_loop", "sweep", "reproduce", "follower"},
    {"run", "worker", "__main__"},
]
THIRD_PARTIES = {
    "accelerate": {"devices"},
    "wandb": {"wandb_runs"},
    "omegaconf": {"config"},
    "optuna": {"study", "assignment", "clock", "storage", "sampler", "space", "worker_loop", "study_figures"},
    "datasets": {"rows"},
    "pyarrow": {"tables"},
    "transformers": {"models", "tokens", "shortcuts", "reader"},
    "plotly": {"figures", "search_figures", "study_figures", "class_figures"},
    "jinja2": {"page"},
    "scipy": {"verdicts", "finals", "standings", "tuning"},
    "safetensors": {"models", "teacher"},
    "rich": {"audit", "display", "run", "sweep", "worker", "reproduce"},
}


@cache
def imports(module: str) -> set[str]:
    """Every module that `module` imports anywhere in it: `kdsweep.x` as `x`, others by their first name."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            own = node.module == "kdsweep"
            names = [f"kdsweep.{alias.name}" for alias in node.names] if own else [node.module or ""]
        found |= {name.split(".")[1] if name.startswith("kdsweep.") else name.split(".")[0] for name in names}
    return found


MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def test_every_module_has_a_floor() -> None:
    assert sorted(name for floor in FLOORS for name in floor) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_lower_floors(module: str) -> None:
    level = next(number for number, floor in enumerate(FLOORS) if module in floor)
    above = {name for floor in FLOORS[level:] for name in floor}
    assert imports(module) & above == set()


@pytest.mark.parametrize("party", THIRD_PARTIES)
def test_a_third_party_stays_in_its_room(party: str) -> None:
    assert {module for module in MODULES if party in imports(module)} <= THIRD_PARTIES[party]


WITHOUT_TORCH = """
import sys
from importlib import import_module
from pathlib import Path

def check(what):
    if found := {"torch", "transformers", "wandb", "datasets"} & set(sys.modules):
        sys.exit(f"{what} imports {found}")

for module in ("config", "sweep_config", "records", "audit", "report", "sweep", "run", "reproduce", "worker"):
    import_module(f"kdsweep.{module}")
    check(module)
import_module("kdsweep.report").write_report(Path(sys.argv[1]))
check("writing a report")
"""


@pytest.mark.parametrize("command", ["run", "worker", "__main__"])
def test_a_commands_module_imports_no_large_library(command: str) -> None:
    large = {"torch", "transformers", "datasets", "scipy", "optuna", "wandb"}
    asked = f"import sys, kdsweep.{command}; print({large} & {{*sys.modules}})"
    assert subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_neither_the_light_modules_nor_a_report_being_written_import_torch(tmp_path: Path) -> None:
    make_full(tmp_path / "s")
    command = [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path / "s")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
