"""The house: rooms on floors, imports downward, third parties in their rooms, and what `python -m` may name."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from makers import make_full

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "kdsweep"
TESTS = ROOT / "tests"

FLOORS = (
    {"commands"},
    {"engine", "shipping"},
    {"reporting", "training"},
    {"reporting.figures", "training.fast"},
    {"training.data"},
    {"analysis", "search", "tracking"},
    {"records"},
    {"config", "system"},
    {"errors"},
)
"""From the top. A room imports from its own files and from lower floors, never from another room of its floor."""

STANDARD = {*sys.stdlib_module_names, "kdsweep"}
THIRD_PARTIES: dict[str, set[str]] = {
    **dict.fromkeys(("torch", "transformers", "safetensors"), {"training", "engine", "shipping"}),
    **dict.fromkeys(("datasets", "accelerate"), {"training", "engine"}),
    **dict.fromkeys(("onnx", "onnxscript", "onnxruntime", "tokenizers"), {"shipping"}),
    "huggingface_hub": {"training", "shipping"},
    "pyarrow": {"training"},
    **dict.fromkeys(("optuna", "sqlalchemy"), {"search", "reporting.figures.importances"}),
    **dict.fromkeys(("wandb", "wandb_workspaces"), {"tracking"}),
    "plotly": {"reporting"},
    "jinja2": {"reporting"},
    "scipy": {"analysis"},
    "omegaconf": {"config"},
    "yaml": {"config"},
    "rich": {"commands", "engine", "tracking.audit"},
    "IPython": {"engine.notebook"},
    "pandas": {"results"},
    "numpy": {
        "commands",
        "engine",
        "shipping",
        "reporting",
        "training",
        "analysis",
        "search",
        "records",
        "system.files",
    },
}
"""Rooms (with the rooms inside them) or single files; a library that is not listed belongs nowhere yet."""

ALLOWED: dict[tuple[str, str], str] = {
    ("engine.worker_process", "worker"): "the supervisor starts the command that a user starts on another host",
    ("training.fast.team", "training.follower"): "the leader of a team starts the others, which train as it does",
}
"""Who may break a rule by what, and why: a module, and the module that it imports, the library, or what it starts as a process."""


@cache
def modules() -> dict[str, Path]:
    """Every module by its name below kdsweep, such as `training.fast.team`; the rooms' empty __init__.py are not among them."""
    paths = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in paths}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def room(module: str) -> str:
    """The room of a module; beside the rooms lie the error tree, a room of its own, and the commands with their api."""
    inside = module.rpartition(".")[0]
    return inside or ("errors" if module == "errors" else "commands")


def floor(module: str) -> int:
    """Counted from the top."""
    return next(number for number, rooms in enumerate(FLOORS) if room(module) in rooms)


@cache
def imports(module: str) -> frozenset[str]:
    """Every module that `module` imports anywhere in it: ours by the names above, others by their first name."""
    found = set()
    for node in ast.walk(tree(module)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            inside = [f"{node.module}.{alias.name}".removeprefix("kdsweep.") for alias in node.names]
            names = [f"kdsweep.{name}" if name in modules() else str(node.module) for name in inside]
        for name in names:
            ours = name.startswith("kdsweep.")
            assert not ours or name.removeprefix("kdsweep.") in modules(), (
                f"{module} imports {name}, which is no module"
            )
            found.add(name.removeprefix("kdsweep.") if ours else name.split(".")[0])
    return frozenset(found)


def ours(module: str) -> set[str]:
    return {name for name in imports(module) if name in modules()}


@cache
def started(module: str) -> frozenset[str]:
    """Modules of ours that `module` starts as processes: `[…, "-m", "kdsweep.worker"]`."""
    found = set()
    for node in ast.walk(tree(module)):
        listed = (
            node.elts if isinstance(node, ast.List | ast.Tuple) else node.args if isinstance(node, ast.Call) else []
        )
        words = [getattr(each, "value", None) for each in listed]
        for flag, name in zip(words, words[1:], strict=False):
            if flag == "-m" and isinstance(name, str) and name.startswith("kdsweep."):
                found.add(name.removeprefix("kdsweep."))
    return frozenset(found)


def upward(module: str, name: str) -> bool:
    """Whether `name` stands on the floor of `module` in another room, or above it."""
    return room(module) != room(name) and floor(name) <= floor(module)


def at_home(module: str, party: str) -> bool:
    """Whether a library may be imported there."""
    places = (module, room(module), room(module).split(".")[0])
    return not THIRD_PARTIES.get(party, set()).isdisjoint(places)


def broken() -> dict[tuple[str, str], str]:
    """Every breach of a rule, allowed or not."""
    found = {}
    for module in modules():
        found |= {(module, name): "imports upward" for name in ours(module) if upward(module, name)}
        parties = imports(module) - STANDARD - ours(module)
        found |= {(module, name): "imports a library of another room" for name in parties if not at_home(module, name)}
        found |= {(module, name): "starts what stands above it" for name in started(module) if upward(module, name)}
    return found


def test_every_file_stands_in_a_room_that_has_a_floor() -> None:
    assert len(modules()) >= 70
    rooms = {room(module) for module in modules()}
    assert rooms <= {name for names in FLOORS for name in names}
    assert {path.parent for path in PACKAGE.rglob("*.py")} == {
        PACKAGE,
        *(PACKAGE / name.replace(".", "/") for name in rooms_of_files()),
    }


def rooms_of_files() -> set[str]:
    return {name for module in modules() if "." in module for name in [room(module)]}


def test_a_module_imports_and_starts_only_what_stands_below_it_and_libraries_of_its_room() -> None:
    assert {breach: what for breach, what in broken().items() if breach not in ALLOWED} == {}


def test_an_allowance_that_nobody_needs_is_gone() -> None:
    assert set(ALLOWED) - set(broken()) == set()


def test_no_file_imports_itself_through_others() -> None:
    list(
        TopologicalSorter({module: ours(module) for module in modules()}).static_order()
    )  # CycleError names the circle


def test_a_command_is_imported_by_nobody() -> None:
    commands = {module for module in modules() if room(module) == "commands" and module not in ("api", "results")}
    assert {"run", "worker", "report", "reproduce"} <= commands
    found = {(module, name) for module in modules() for name in ours(module) & commands if module != "api"}
    assert found - set(ALLOWED) == set()
    assert [module for module in modules() if "api" in ours(module)] == [], "kdsweep/__init__.py alone hands it out"
    assert [module for module in modules() if "results" in ours(module)] == ["api"]


def test_a_rooms_init_is_empty() -> None:
    inits = [path for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE]
    assert len(inits) >= 12 and [path for path in inits if path.read_text(encoding="utf-8").strip()] == []


def test_what_python_m_names_is_a_module_that_can_be_run() -> None:
    """Users are told of commands alone; other modules are named where they are started and by themselves."""
    texts = {
        path: path.read_text(encoding="utf-8")
        for path in [*PACKAGE.rglob("*.py"), *ROOT.glob("*.md"), ROOT / ".ci/run"]
    }
    named = [(path, name) for path, text in texts.items() for name in re.findall(r"-m (kdsweep(?:\.[a-z_]\w*)*)", text)]
    started_here = [(path, f"kdsweep.{name}") for module, path in modules().items() for name in started(module)]
    assert len(named) > 20 and len(started_here) >= 2
    for path, name in [*named, *started_here]:
        module = name.removeprefix("kdsweep").removeprefix(".") or "__main__"
        assert module in modules(), f"{path} names {name}"
        assert 'if __name__ == "__main__":' in modules()[module].read_text(encoding="utf-8"), f"{path} names {name}"
    helpers = {name for _, name in started_here}
    for path, name in named:
        inside = room(name.removeprefix("kdsweep.")) if "." in name else "commands"
        assert inside == "commands" or name in helpers, f"{path} names {name}"


def test_the_wheel_has_every_room() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert {"kdsweep", *(f"kdsweep.{name}" for name in rooms_of_files())} <= set(listed["packages"])
    beside = {path.name: path.parent for path in PACKAGE.rglob("*") if path.suffix in (".j2", ".css", ".js")}
    data = listed["package-data"]
    packed = {name: PACKAGE.parent / package.replace(".", "/") for package, names in data.items() for name in names}
    assert len(beside) >= 3 and beside.items() <= packed.items()


def test_every_test_stands_in_the_folder_of_a_room_and_imports_no_other_test() -> None:
    """What tests share lies beside the folders: makers.py, commands.py and their like."""
    tests = [path for path in TESTS.rglob("*.py") if path.name.startswith("test_")]
    folders = {path.parent.relative_to(TESTS).as_posix() for path in tests}
    assert len(tests) > 50 and folders - {"."} <= {name.replace(".", "/") for name in rooms_of_files()}
    found = {path: re.findall(r"^\s*(?:from|import) .*\btest_\w+", path.read_text("utf-8"), re.M) for path in tests}
    assert {path: lines for path, lines in found.items() if lines} == {}


WITHOUT_TORCH = """
import sys
from importlib import import_module
from pathlib import Path

def check(what):
    if found := {"torch", "transformers", "wandb", "datasets"} & set(sys.modules):
        sys.exit(f"{what} imports {found}")

light = ("config.trial", "config.sweep", "records.reading", "tracking.audit", "engine.sweep", "api", "run", "report", "reproduce", "worker")
for module in light:
    import_module(f"kdsweep.{module}")
    check(module)
import_module("kdsweep.reporting.write").write_report(Path(sys.argv[1]))
check("writing a report")
"""


@pytest.mark.parametrize("command", ["run", "worker", "api", "export", "predict", "publish", "__main__"])
def test_a_commands_module_imports_no_large_library(command: str) -> None:
    large = {"torch", "transformers", "datasets", "scipy", "optuna", "wandb", "pandas"}
    asked = f"import sys, kdsweep.{command}; print({large} & {{*sys.modules}})"
    assert subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.slow
def test_neither_the_light_modules_nor_a_report_being_written_import_torch(tmp_path: Path) -> None:
    make_full(tmp_path / "s")
    command = [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path / "s")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_file_imports_scipys_statistics() -> None:
    """They take half a second, a sixth of a report of a thousand trials; scipy.special has what they are made of."""
    wanted = re.compile(r"^\s*(from|import) scipy\.stats|^\s*from scipy import .*\bstats\b", re.MULTILINE)
    assert [path for path in PACKAGE.rglob("*.py") if wanted.search(path.read_text(encoding="utf-8"))] == []
