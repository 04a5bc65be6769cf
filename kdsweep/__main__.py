"""`python -m kdsweep`: what there is to run."""

import sys
from collections.abc import Sequence

from kdsweep import __version__
from kdsweep.config.shipped import shipped_sweeps
from kdsweep.config.yaml import did_you_mean

COMMANDS = {
    "run": ("SWEEP", "run a sweep, or continue it where it stopped"),
    "report": ("FOLDER", "rank a sweep's trials again, from its records alone"),
    "reproduce": ("FOLDER", "run a trial again from its saved config, and compare"),
    "worker": ("SWEEP", "join a sweep that several hosts share"),
    "schema": ("", "print the JSON Schema of a sweep file, for editors"),
}
"""Every module that is a command: what it takes, and what it does."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    asked = list(sys.argv[1:] if arguments is None else arguments)
    if asked and asked[0] not in ("-h", "--help", "--version"):
        said = f"; it reads python -m kdsweep.{asked[0]}" if asked[0] in COMMANDS else did_you_mean(asked[0], COMMANDS)
        print(f"python -m kdsweep takes no arguments, but got {asked[0]!r}{said}", file=sys.stderr)
        return 2
    print(f"kdsweep {__version__}" if asked == ["--version"] else overview())
    return 0


def overview() -> str:
    """The commands, a line each, and what they take."""
    lines = [f"  {f'python -m kdsweep.{name} {takes}':35}  {does}" for name, (takes, does) in COMMANDS.items()]
    return "\n".join(
        [
            f"kdsweep {__version__}: sweeps of classical knowledge distillation for text classifiers",
            "",
            *lines,
            "",
            f"SWEEP is a file, or the name of a shipped one: {', '.join(shipped_sweeps())}.",
            "FOLDER is a results folder, such as results/T_alpha. Each command explains itself with --help.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
