"""The command `kdsweep`: what each module does, as it is typed; and commands whose reader goes away."""

import subprocess
import sys
from pathlib import Path

import pytest
from makers import make_full

from kdsweep import __main__ as console
from kdsweep.report import main as report
from kdsweep.system.process import UNREAD

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the installed script is started."""
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/kdsweep"])


@pytest.mark.slow
def test_a_command_does_what_its_module_does(tmp_path: Path, capsys: Captured) -> None:
    make_full(tmp_path / "s")
    assert console.main(["report", str(tmp_path / "s")]) == report([str(tmp_path / "s")]) == 0
    said = capsys.readouterr().out
    half = len(said) // 2
    assert "distilled" in said and said[:half] == said[half:]
    assert console.main(["report", str(tmp_path / "none")]) == report([str(tmp_path / "none")]) == 2


@pytest.mark.parametrize("name", console.COMMANDS)
def test_usage_names_the_command_as_it_was_typed(name: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    for argv, shown in (("/usr/local/bin/kdsweep", "kdsweep"), ("/a/kdsweep/__main__.py", "python -m kdsweep")):
        monkeypatch.setattr(sys, "argv", [argv])
        with pytest.raises(SystemExit) as ended:
            console.main([name, "--help"])
        assert ended.value.code == 0 and capsys.readouterr().out.startswith(f"usage: {shown} {name} ")


def test_alone_it_shows_every_command_and_a_typo_gets_the_nearest(capsys: Captured) -> None:
    assert console.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(any(line.startswith(f"  kdsweep {name} ") for line in lines) for name in console.COMMANDS)
    assert console.main(["reprot", "results/T_alpha"]) == 2
    assert capsys.readouterr().err == "kdsweep has no command 'reprot'; did you mean 'report'?\n"


def unread(*line: str) -> tuple[int, str]:
    """The exit code of a command that nobody reads, and its standard error."""
    with subprocess.Popen(
        [sys.executable, *line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        return process.wait(60), process.stderr.read()


@pytest.mark.slow
def test_a_command_whose_reader_goes_away_ends_without_a_word(tmp_path: Path) -> None:
    make_full(tmp_path / "s")
    assert unread("-m", "kdsweep.report", str(tmp_path / "s")) == (UNREAD, "")
    assert unread("-m", "kdsweep", "run", "--help")[1] == "", (
        "argparse itself overlooks it where output is not buffered"
    )


def test_a_pipe_of_another_kind_that_breaks_is_still_a_bug() -> None:
    program = """
from kdsweep.system.process import ends_with_its_reader
@ends_with_its_reader
def command():
    raise BrokenPipeError("a worker's")
command()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.endswith("BrokenPipeError: a worker's\n")
