"""Run a distillation sweep: `python -m kdsweep.run sweeps/T_alpha.yaml [key=value …]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from kdsweep.config.shipped_sweeps import find_sweep
from kdsweep.config.sweep import SweepConfig
from kdsweep.config.sweep_file import load_sweep
from kdsweep.engine.plan import print_plan
from kdsweep.engine.planned_search import planned_warm_start
from kdsweep.errors import KDSweepError, Stopped
from kdsweep.records.layout import results_root, teacher_folder
from kdsweep.records.reading import read_teacher
from kdsweep.system.process import ends_with_its_reader
from kdsweep.tracking.open import lacks_package

EPILOG = """\
examples:
  python -m kdsweep.run sweeps/T_alpha.yaml                    run it, or continue it where it stopped
  python -m kdsweep.run T_alpha                                the shipped sweep of that name, from anywhere
  python -m kdsweep.run sweeps/T_alpha.yaml --dry-run          show the plan, load nothing
  python -m kdsweep.run sweeps/T_alpha.yaml study.trials=50 fixed.epochs=4 search.alpha.low=0.1 name=longer
  python -m kdsweep.run sweeps/T_alpha.yaml fixed.epochs=null search.epochs.low=1 search.epochs.high=4    search what was fixed
  python -m kdsweep.run sweeps/T_alpha.yaml search.batch_size=null fixed.batch_size=32                    fix what was searched

A sweep trains students on two arms: distilled (all axes) and fine-tuned (alpha 0, the control); where it has texts without
labels on a third one, pseudo-labeled (the same texts with the teacher's hard labels). alpha weighs the SOFT term:
L = alpha * T^2 * KL(teacher_T || student_T) + (1 - alpha) * CE. Results go to results/NAME (KDSWEEP_RESULTS moves it),
downloads and teachers to ~/.cache/kdsweep (KDSWEEP_CACHE moves it). study.trials is a total, so raising it adds trials to a
finished sweep.

Nothing is lost, whatever happens: the same command continues. The first Ctrl-C checkpoints the running trials, the second
stops at once. One run at a time works on a results folder, a second one is refused; with study.storage (PostgreSQL) any
number of hosts join the same sweep by this command or by python -m kdsweep.worker.

exit codes: 0 done, 1 a bug (with its traceback), 2 a problem that the message explains, 130 stopped by Ctrl-C,
143 stopped by SIGTERM, 137 stopped at once by a second signal
"""


@ends_with_its_reader
def main(arguments: Sequence[str] | None = None, *, prog: str = "python -m kdsweep.run") -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Search temperature, alpha and the rest for the best distilled student, against plain fine-tuning.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "file", type=Path, help="a sweep file, such as sweeps/T_alpha.yaml, or the name of a shipped one"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override any key of the file")
    parser.add_argument(
        "--workers",
        type=_workers,
        metavar="N",
        help="processes that train side by side; default: one a CUDA device (or devices_per_trial of them), two on a CPU; 0: only show other hosts",
    )
    parser.add_argument("--fork", metavar="NEW_NAME", help="run a changed file as a new sweep beside the old one")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved plan and every axis, and stop")
    options = parser.parse_intermixed_args(arguments)
    console = Console()
    try:
        renamed = [f"name={options.fork}"] if options.fork else []
        sweep = load_sweep(find_sweep(options.file), [*options.overrides, *renamed])
        if options.dry_run:
            folder = results_root() / sweep.name
            tracking = "; ".join(filter(None, (sweep.tracking.mode, lacks_package(sweep.tracking))))
            where = {"tracking": tracking, "results": str(folder)}
            warm = planned_warm_start(sweep, folder)
            print_plan(console, sweep, where, _warning(folder, sweep), warm=warm)
            return 0
        from kdsweep.engine.sweep import run_sweep  # imports Optuna and the report, which a dry run does not need

        run_sweep(sweep, console, options.workers)
    except KDSweepError as error:
        print(error, file=sys.stderr)
        return 2
    except (Stopped, KeyboardInterrupt) as stopped:
        print("\nStopped; nothing is lost. The same command continues.", file=sys.stderr)
        if isinstance(stopped, Stopped):
            return 137 if stopped.killed else 128 + stopped.number
        return 130
    return 0


def _warning(folder: Path, sweep: SweepConfig) -> str | None:
    """Return the warning about a weak teacher of a sweep that has run already; None without one."""
    if read_teacher(teacher_folder(folder)) is None:
        return None
    from kdsweep.analysis.weak_teacher import (
        read_weak_teacher,  # imports SciPy, which a first run's plan does not need
    )

    found = read_weak_teacher(folder, sweep)
    return f"{found.text()}." if found else None


def _workers(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be auto or a number from 0, but got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
