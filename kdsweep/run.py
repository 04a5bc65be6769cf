"""Run a distillation sweep: `python -m kdsweep.run sweeps/T_alpha.yaml [key=value …]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from kdsweep import display
from kdsweep.errors import KDSweepError
from kdsweep.records import results_root
from kdsweep.sweep_file import load_sweep

EPILOG = """\
examples:
  python -m kdsweep.run sweeps/T_alpha.yaml                    run it, or continue it where it stopped
  python -m kdsweep.run sweeps/T_alpha.yaml --dry-run          show the plan, load nothing
  python -m kdsweep.run sweeps/T_alpha.yaml study.trials=50 fixed.epochs=4 search.alpha.high=0.9 name=longer

A sweep trains students on two arms: distilled (all axes) and fine-tuned (alpha 0, the control). alpha weighs the SOFT term:
L = alpha * T^2 * KL(teacher_T || student_T) + (1 - alpha) * CE. Results go to results/NAME (KDSWEEP_RESULTS moves it),
downloads and teachers to ~/.cache/kdsweep (KDSWEEP_CACHE moves it). Ctrl-C loses nothing: the same command continues.
study.trials is a total, so raising it adds trials to a finished sweep.

exit codes: 0 done, 1 a bug (with its traceback), 2 a problem that the message explains, 130 stopped by Ctrl-C
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m kdsweep.run",
        description="Search temperature, alpha and the rest for the best distilled student, against plain fine-tuning.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="a sweep file, such as sweeps/T_alpha.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override any key of the file")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved plan and every axis, and stop")
    options = parser.parse_intermixed_args(arguments)
    console = Console()
    try:
        sweep = load_sweep(options.file, options.overrides)
        if options.dry_run:
            where = {"tracking": sweep.tracking.mode, "results": str(results_root() / sweep.name)}
            display.plan(console, sweep, where)
            return 0
        from kdsweep.sweep import run_sweep  # brings Optuna and the report, which a dry run need not wait for

        run_sweep(sweep, console)
    except KDSweepError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped; nothing is lost. The same command continues.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
