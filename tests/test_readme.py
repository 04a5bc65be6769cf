"""README and the pages beside the code tell the truth about files, commands and keys."""

import argparse
import ast
import dataclasses
import importlib
import itertools
import re
import shlex
import typing
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from kdsweep import api
from kdsweep.config.forms import ExportConfig
from kdsweep.config.sweep import FinalistsConfig, StudyConfig, SweepConfig, TrackingConfig
from kdsweep.config.sweep_file import load_sweep
from kdsweep.config.trial import TrialConfig

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PLAN = (ROOT / "kdsweep" / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md"] + sorted(
    page for folder in ("kdsweep", "sweeps", "tests", "results") for page in (ROOT / folder).rglob("README.md")
)
OWN_FILE = "reviews.yaml"
"""What README calls the sweep file that it shows."""
NEW_FILE = "seconds.py"
"""The file that kdsweep/README.md's recipe for a figure adds."""
SECTIONS = {"study": StudyConfig, "fixed": TrialConfig, "search": TrialConfig} | {
    "finalists": FinalistsConfig,
    "tracking": TrackingConfig,
    "export": ExportConfig,
}


def read(page: Path) -> str:
    """Return a page's text."""
    return page.read_text(encoding="utf-8")


def name_of(page: Path) -> str:
    """Return a page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a language in a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", read(page), flags=re.DOTALL | re.MULTILINE)


def spans(page: Path) -> list[str]:
    """Return the inline code of a page, each on one line; code blocks are left out."""
    prose = re.sub(r"^```.*?^```", "", read(page), flags=re.DOTALL | re.MULTILINE)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def shell_lines(page: Path) -> list[str]:
    """Return every command of a page: of its bash blocks, of its indented lines and of its inline code."""
    in_blocks = [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()]
    indented = re.findall(r"^    ((?:python|kdsweep) .*)$", read(page), flags=re.MULTILINE)
    inline = [span for span in spans(page) if re.match(r"(python|kdsweep) ", span)]
    return [part.strip() for line in [*in_blocks, *indented, *inline] for part in line.split("&&")]


def help_lines() -> list[str]:
    """Return every example in the commands' --help, without the words that explain it."""
    texts = [read(path) for path in sorted((ROOT / "kdsweep").glob("*.py"))]
    example = re.compile(r"^(?:  |example: )(python -m kdsweep\.\w+ .*?)(?: {3,}.*)?$", flags=re.MULTILINE)
    return [line for text in texts for line in example.findall(text)]


def kdsweep_commands() -> list[tuple[str, tuple[str, ...]]]:
    """Return every kdsweep command of all pages and of --help, once: its name and its arguments."""
    found = {}
    for line in [*help_lines(), *(line for page in PAGES for line in shell_lines(page))]:
        words = list(itertools.takewhile(lambda word: word not in (">", "|"), shlex.split(line, comments=True)))
        if words[:1] == ["kdsweep"] and len(words) > 1:  # the console command
            found[words[1], tuple(words[2:])] = None
        for place, word in enumerate(words[1:], start=1):
            if words[place - 1] == "-m" and word.startswith("kdsweep."):
                found[word.removeprefix("kdsweep."), tuple(words[place + 1 :])] = None
            elif words[place - 1] == "-m" and word == "kdsweep" and words[place + 1 :]:
                found[words[place + 1], tuple(words[place + 2 :])] = None
    return list(found)


COMMANDS = kdsweep_commands()


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    """Return the sweep file that README shows, written to disk as it stands."""
    text, _ = blocks(ROOT / "README.md", "yaml")
    path = tmp_path / OWN_FILE
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def searched_file(own_file: Path) -> Path:
    """Return that file with the lines of README's second block, which show what else may be searched."""
    own, more = (OmegaConf.create(text) for text in blocks(ROOT / "README.md", "yaml"))
    del own.fixed["epochs"]  # max_steps takes its place
    OmegaConf.save(OmegaConf.merge(own, more), own_file)
    return own_file


# Files ---------------------------------------------------------------------------------------------------------------


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


def test_the_readme_shows_every_room() -> None:
    (block,) = re.findall(r"```\nkdsweep/\n(.*?)^sweeps/", README, flags=re.DOTALL | re.MULTILINE)
    shown = sorted(line.split()[0].strip("/") for line in block.splitlines())
    folders = {path.parent for path in (ROOT / "kdsweep").rglob("*.py")} - {ROOT / "kdsweep"}
    assert shown == sorted(folder.name for folder in folders)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_and_every_path_leads_to_a_file(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#\s]+)\)", read(page)) if "://" not in link]
    paths = [
        span for span in spans(page) if re.fullmatch(r"(kdsweep|tests|sweeps)/[\w./]*|[\w/]+/\w+\.(py|yaml|j2)", span)
    ]
    scripts = [word for line in shell_lines(page) for word in re.findall(r"tests/\S+\.py", line)]
    modules = [span for span in spans(page) if re.fullmatch(r"\w+\.(py|j2|css|js)", span) and span != NEW_FILE]
    names = {path.name for folder in ("kdsweep", "tests") for path in (ROOT / folder).rglob("*")}
    assert [link for link in links if not (page.parent / link).exists()] == []
    roots = (ROOT, ROOT / "kdsweep")
    assert [path for path in [*paths, *scripts] if not any((root / path).exists() for root in roots)] == []
    assert [name for name in modules if name not in names] == []


def test_every_page_is_reached_from_the_readme() -> None:
    linked = {(ROOT / link).resolve() for link in re.findall(r"\]\(([\w./]+)\)", README)}
    linked |= {folder / "README.md" for folder in linked if folder.is_dir()}
    assert set(PAGES) - linked - {ROOT / "README.md", ROOT / "results" / "README.md"} == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_line_is_longer_than_150_characters(page: Path) -> None:
    assert [line for line in read(page).splitlines() if len(line) > 150] == []


# Commands ------------------------------------------------------------------------------------------------------------


class Parsed(Exception):
    """Carries what a command's own parser made of its arguments, before the command does anything."""


def parsed(name: str, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """Return what the real parser of `python -m kdsweep.NAME` makes of the arguments. Raises SystemExit for wrong ones."""
    real = {way: getattr(argparse.ArgumentParser, way) for way in ("parse_args", "parse_intermixed_args")}

    def stopping(way: str) -> typing.Callable[..., None]:
        def parse(parser: argparse.ArgumentParser, given: typing.Sequence[str] | None = None) -> None:
            with monkeypatch.context() as context:  # parse_intermixed_args calls others of them
                for each in real:
                    context.setattr(argparse.ArgumentParser, each, real[each])
                raise Parsed(real[way](parser, given))

        return parse

    for way in real:
        monkeypatch.setattr(argparse.ArgumentParser, way, stopping(way))
    with pytest.raises(Parsed) as caught:
        importlib.import_module(f"kdsweep.{name}").main(list(arguments))
    options: argparse.Namespace = caught.value.args[0]
    return options


def test_the_pages_name_every_command() -> None:
    assert {name for name, _ in COMMANDS} >= {"run", "report", "reproduce", "worker", "schema"}
    assert len(COMMANDS) > 20 and len(help_lines()) > 9


@pytest.mark.parametrize(
    ("name", "arguments"), COMMANDS, ids=lambda part: part if isinstance(part, str) else " ".join(part)
)
def test_every_command_is_parsed_and_every_sweep_it_names_loads(
    name: str, arguments: tuple[str, ...], own_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not arguments:  # the bare name of a command, in a sentence
        importlib.import_module(f"kdsweep.{name}")
        return
    options = parsed(name, arguments, monkeypatch)
    if name in ("run", "worker"):
        from kdsweep.config.shipped_sweeps import find_sweep

        file = own_file if str(options.file) == OWN_FILE else ROOT / options.file
        load_sweep(find_sweep(file if file.exists() else options.file), options.overrides)


def test_a_command_with_a_wrong_option_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit):
        parsed("report", ("results/T_alpha", "--no-such-option"), monkeypatch)


def test_ci_runs_the_readmes_test_command() -> None:
    assert ".venv/bin/python -m pytest\n" in README
    assert '/bin/python" -m pytest\n' in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


# Sweep files, keys and Python ----------------------------------------------------------------------------------------


def test_the_sweep_file_that_the_readme_shows_loads_as_it_stands(own_file: Path) -> None:
    sweep = load_sweep(own_file)
    assert isinstance(sweep, SweepConfig) and set(sweep.search) == {
        "temperature",
        "alpha",
        "learning_rate",
        "batch_size",
    }
    assert sweep.fixed["test_fraction"] > 0 and sweep.budget("fine_tuned") == sweep.budget("distilled") == 20


def test_what_else_the_readme_searches_loads_in_that_file(searched_file: Path) -> None:
    sweep = load_sweep(searched_file)
    assert sweep.arms == ("distilled", "fine_tuned", "pseudo_labeled") and sweep.search["max_steps"].arms == (
        "fine_tuned",
    )
    assert sweep.trial("distilled", {"max_steps": 600}).unlabeled_file == "more.csv"


def overrides() -> list[str]:
    """Return the inline code of all pages that overrides keys, such as `study.trials=50 fixed.epochs=4`."""
    return list(
        dict.fromkeys(
            span
            for page in PAGES
            for span in spans(page)
            if re.match(rf"({'|'.join(SECTIONS)})\.\w+", span) and all("=" in word for word in span.split())
        )
    )


@pytest.mark.parametrize("span", overrides())
def test_every_override_in_a_sentence_loads(span: str) -> None:
    load_sweep(ROOT / "sweeps" / "T_alpha.yaml", span.split())


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_key_that_a_page_names_exists(page: Path) -> None:
    keys = [span for span in spans(page) if re.fullmatch(rf"({'|'.join(SECTIONS)})\.\w+", span)]
    known = {f"{section}.{field.name}" for section, kind in SECTIONS.items() for field in dataclasses.fields(kind)}
    assert [key for key in keys if key not in known] == []


def test_the_full_size_overrides_load() -> None:
    ((_, arguments),) = [each for each in COMMANDS if {"fixed.train_limit=null", "name=full"} <= {*each[1]}]
    sweep = load_sweep(ROOT / arguments[0], arguments[1:])
    assert sweep.fixed["train_limit"] is None and sweep.study.trials == 50


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_python_block_is_python(page: Path) -> None:
    for block in blocks(page, "python"):
        ast.parse(block)


def test_every_name_in_the_readmes_python_exists() -> None:
    """What is read of kdsweep, a sweep, its results, a trial and a re-run, by what their classes have."""
    has = {
        "kdsweep": set(api.__all__),
        "results": set(dir(api.Results)),
        "results.best": set(dir(api.Trial)) | {field.name for field in dataclasses.fields(api.Trial)},
        "kdsweep.reproduce(results.best)": {field.name for field in dataclasses.fields(api.Reproduction)},
    }
    (block,) = blocks(ROOT / "README.md", "python")
    read_ = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Attribute)]
    assert {ast.unparse(node.value) for node in read_} == set(has)
    assert [ast.unparse(node) for node in read_ if node.attr not in has[ast.unparse(node.value)]] == []
