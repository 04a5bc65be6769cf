"""Run one worker process, which reports what happens to its parent or on this terminal.

`python -m kdsweep.run` starts its own workers. By itself, `python -m kdsweep.worker sweeps/T_alpha.yaml study.storage=postgresql+psycopg://…`
joins a sweep from any host: for sbatch, submitit or ssh. SIGTERM checkpoints the running trial, which another worker continues.
"""

import argparse
import functools
import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from signal import SIG_IGN, SIGINT, signal
from typing import TYPE_CHECKING, get_args

from kdsweep.config.forms import OnnxForm
from kdsweep.config.shipped_sweeps import find_sweep
from kdsweep.config.sweep import Resolved, SweepConfig
from kdsweep.config.sweep_file import load_sweep
from kdsweep.config.trial import TrialConfig
from kdsweep.engine.events import Crash, Event, Problem, Send, encode
from kdsweep.errors import ConfigError, Interrupted, KDSweepError
from kdsweep.shipping.extra import EXPORTING, need
from kdsweep.system.hardware import bound_spinning
from kdsweep.system.process import StopRequest, ends_with_its_reader, for_good, new_owner, stop_with_parent

if TYPE_CHECKING:
    from kdsweep.engine.limits import MeasureForm
    from kdsweep.training.shared import Materials


def _measured_form(sweep: SweepConfig) -> "MeasureForm":
    """Return what measures exported students. Raises ShippingError where the constraints mean them and the extra `export` is missing."""
    if sweep.study.constraints.onnx_form is not None:
        need(*EXPORTING)

    def measure(materials: "Materials", config: TrialConfig, form: OnnxForm) -> dict[str, float]:
        from kdsweep.shipping.form_cost import form_cost

        return form_cost(materials, config, form)

    return measure


# Under a supervisor --------------------------------------------------------------------------------------------------


def pipe_to(descriptor: int) -> Send:
    """Return a function that writes events as JSON lines to the pipe `descriptor`; it raises Interrupted where nobody reads the pipe."""
    pipe = os.fdopen(descriptor, "w", encoding="utf-8")
    os.set_inheritable(descriptor, False)

    def send(event: Event) -> None:
        try:
            print(encode(event), file=pipe, flush=True)
        except BrokenPipeError:
            raise Interrupted("the parent process is gone") from None

    return send


def _supervised(
    sweep: SweepConfig,
    options: argparse.Namespace,
    stop: StopRequest,
    more: Callable[[str], argparse.Namespace],
) -> int:
    """Run trials (or fine-tune teachers of folds alone), report events to a parent process and stop with it; return the exit code.

    A worker that was started ahead gets its last arguments as a line of JSON on standard input; `more` returns the options with them.
    """
    send, lines = pipe_to(options.events), queue.SimpleQueue[str]()
    signal(SIGINT, SIG_IGN)  # Ctrl-C reaches the parent, which decides
    threading.Thread(target=stop_with_parent, args=(lines.put,), daemon=True).start()
    try:
        measure_form = _measured_form(sweep)
        with for_good():
            from kdsweep.engine.worker_loop import run_worker
        stop.check()  # with its parent gone, it would wait for arguments for ever
        told = more(lines.get()) if options.ahead else options
        mode: Resolved | None = told.tracking
        run_worker(sweep, told.owner, send, stop, mode, folds_alone=told.folds_alone, measure_form=measure_form)
    except Interrupted:
        return 130
    except KDSweepError as error:
        send(Problem(str(error)))
        return 2
    except Exception:
        send(Crash(traceback.format_exc()))
        raise
    return 0


def _alone(sweep: SweepConfig, owner: str, stop: StopRequest) -> int:
    """Run trials and show events on this terminal; return the exit code. Raises ConfigError without a shared storage."""
    if sweep.study.storage is None:
        raise ConfigError(
            "a worker by itself needs study.storage=postgresql+psycopg://host/database, but the sweep's storage is null (an "
            "SQLite file): on one machine, python -m kdsweep.run starts the workers"
        )
    signal(SIGINT, lambda number, frame: stop.ask())
    measure_form = _measured_form(sweep)
    try:
        with for_good():
            from rich.console import Console  # a worker under a supervisor shows nothing

            from kdsweep.engine.display import SweepDisplay
            from kdsweep.engine.worker_loop import run_worker
        with SweepDisplay(Console(), sweep, dict.fromkeys(sweep.stages, 0)) as display:
            run_worker(sweep, owner, display.show, stop, measure_form=measure_form)
    except Interrupted:
        print("Stopped; the running trial is checkpointed and goes on wherever it is taken next.", file=sys.stderr)
        return 130
    return 0


EPILOG = """\
example: python -m kdsweep.worker sweeps/T_alpha.yaml study.storage=postgresql+psycopg://db.example.org/sweeps

Start as many as there are devices, on any host that reaches the database; each runs trials until none is left to take.
SIGTERM (what Slurm sends before its time limit) checkpoints the running trial and puts it back: another worker continues
it, from the checkpoint where it sees the same results folder, else from the start. The password comes from PGPASSWORD or
~/.pgpass. exit codes: 0 nothing left to take, 1 a bug, 2 a problem that the message explains, 130 stopped
"""


def command_line(prog: str) -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Run trials of a sweep that several hosts share.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="the sweep file, the same on every host, or the name of a shipped one")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override any key of the file")
    parser.add_argument("--events", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--tracking", choices=get_args(Resolved), help=argparse.SUPPRESS)
    parser.add_argument("--folds-alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--ahead", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--owner", default=new_owner(), help=argparse.SUPPRESS)
    return parser


def with_more(given: Sequence[str], line: str) -> argparse.Namespace:
    """Return the options that were `given`, with those that the parent adds later, as a line of JSON."""
    return command_line("kdsweep.worker").parse_intermixed_args([*given, *json.loads(line)])


@ends_with_its_reader
def main(arguments: Sequence[str] | None = None, *, prog: str = "python -m kdsweep.worker") -> int:
    """Run the command line; return the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = command_line(prog).parse_intermixed_args(given)
    bound_spinning()
    stop = StopRequest()
    stop.listen()
    try:
        sweep = load_sweep(find_sweep(options.file), options.overrides)
        if options.events is not None:
            return _supervised(sweep, options, stop, functools.partial(with_more, given))
        return _alone(sweep, options.owner, stop)
    except KDSweepError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
