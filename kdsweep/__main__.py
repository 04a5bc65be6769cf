"""List the commands of kdsweep, or run one: `kdsweep run …`, `python -m kdsweep run …`."""

import sys
import textwrap
from collections.abc import Sequence
from importlib import import_module

from kdsweep import __version__
from kdsweep.config.shipped_sweeps import shipped_sweeps
from kdsweep.config.yaml import did_you_mean
from kdsweep.system.process import ends_with_its_reader

COMMANDS = {
    "run": ("SWEEP", "run a sweep, or continue it where it stopped"),
    "report": ("FOLDER", "rank a sweep's trials again, from its records alone"),
    "publish": ("FOLDER", "show a sweep in W&B: its view and its report"),
    "reproduce": ("FOLDER", "run a trial again from its saved config, and compare"),
    "export": ("FOLDER", "export the student to ship as ONNX and int8, and judge each form"),
    "predict": ("FOLDER", "ask an exported student for the classes of texts"),
    "worker": ("SWEEP", "join a sweep that several hosts share"),
    "schema": ("", "print the JSON Schema of a sweep file, for editors"),
}
"""Every command, a module with a `main` of arguments and prog: what it takes, and what it does."""
WIDTH = 120
"""Most characters of a line of the overview."""


@ends_with_its_reader
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` name, or print the overview; return the exit code."""
    asked = list(sys.argv[1:] if arguments is None else arguments)
    if asked and asked[0] in COMMANDS:
        code: int = import_module(f"kdsweep.{asked[0]}").main(asked[1:], prog=f"{_typed()} {asked[0]}")
        return code
    if asked and asked[0] not in ("-h", "--help", "--version"):
        print(f"{_typed()} has no command {asked[0]!r}{did_you_mean(asked[0], COMMANDS)}", file=sys.stderr)
        return 2
    print(f"kdsweep {__version__}" if asked == ["--version"] else overview())
    return 0


def _typed() -> str:
    """Return how kdsweep was started, as one types it: `kdsweep` or `python -m kdsweep`."""
    return "python -m kdsweep" if sys.argv[0].endswith("__main__.py") else "kdsweep"


def overview() -> str:
    """Return the overview: every command on a line, and what it takes."""
    lines = [f"  {f'{_typed()} {name} {takes}':35}  {does}" for name, (takes, does) in COMMANDS.items()]
    return "\n".join(
        [
            f"kdsweep {__version__}: sweeps of classical knowledge distillation for text classifiers",
            "",
            *lines,
            "",
            *textwrap.wrap(f"SWEEP is a file, or the name of a shipped one: {', '.join(shipped_sweeps())}.", WIDTH),
            "FOLDER is a results folder, such as results/T_alpha. Each command explains itself with --help, and can also be",
            "started as a module: python -m kdsweep.run. From Python: import kdsweep; help(kdsweep).",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
