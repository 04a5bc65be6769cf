"""A whole sweep: the results folder, the worker process and its supervision, the report at the end. Never imports torch."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rich.console import Console

from kdsweep.assets import PREFIX, local_path
from kdsweep.display import SweepDisplay
from kdsweep.errors import KDSweepError, ResultsError
from kdsweep.records import read_sweep, results_root, write_sweep
from kdsweep.report import terminal_text, write_report
from kdsweep.study import Studies
from kdsweep.sweep_config import ARMS, PATH_FIELDS, SweepConfig, identity_changes

STOP_SECONDS = 10
"""What a worker gets to put its trial back after SIGTERM, before SIGKILL."""


def run_sweep(sweep: SweepConfig, console: Console) -> Path:
    """Run or continue a sweep until both arms have their trials, and write its report; the results folder.

    Raises KDSweepError for a problem that its message lets the user solve, KeyboardInterrupt after Ctrl-C: the same
    command then continues.
    """
    folder = results_root() / sweep.name
    _refuse_other_sweep(folder, sweep)
    write_sweep(folder, sweep)
    studies = Studies(sweep, folder)
    studies.settle()
    if studies.next_arm() is None:
        console.print(f"{sweep.name}: all trials are done; more with study.trials=N")
    else:
        _fetch_assets(sweep)
        finished = {arm: studies.finished(arm) for arm in ARMS}
        with SweepDisplay(console, sweep, finished) as display, _worker(folder) as events:
            for event in events:
                display.show(event)
    print(terminal_text(write_report(folder)))
    return folder


def _refuse_other_sweep(folder: Path, sweep: SweepConfig) -> None:
    before = read_sweep(folder)
    changes = identity_changes(before.identity(), sweep.identity()) if before else []
    if changes:
        raise ResultsError(
            f"{folder} holds the results of another sweep file:\n" + "\n".join(changes) + "\n"
            "Undo the change to continue that sweep, or start a new one beside it with name=NEW_NAME"
        )


def _fetch_assets(sweep: SweepConfig) -> None:
    """Downloads happen here, where pip's progress bar has a terminal; the worker finds them in the cache."""
    addresses = [value for name in PATH_FIELDS for value in sweep.values(name)]
    for address in dict.fromkeys(addresses):
        if isinstance(address, str) and address.startswith(PREFIX):
            local_path(address)


@contextmanager
def _worker(folder: Path) -> Iterator[Iterator[dict[str, Any]]]:
    """A worker process and the events it sends; however the block is left, the worker is gone afterwards."""
    reading, writing = os.pipe()
    threads = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "true",
    }
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "kdsweep.worker", str(folder), str(writing)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment,
            pass_fds=(writing,),
            start_new_session=True,  # Ctrl-C reaches this process alone, which then stops the worker in order
        )
    os.close(writing)
    try:
        with os.fdopen(reading, encoding="utf-8") as pipe:
            yield _events(pipe, process, folder)
    finally:
        _stop(process)


def _events(pipe: IO[str], process: "subprocess.Popen[bytes]", folder: Path) -> Iterator[dict[str, Any]]:
    """Every event until the worker ends. Raises KDSweepError for a problem that it reported, ResultsError for its death."""
    for line in pipe:
        event: dict[str, Any] = json.loads(line)
        if event["event"] == "error":
            raise KDSweepError(event["message"])
        if event["event"] == "crash":
            raise WorkerCrashed(event["traceback"])
        yield event
    code = process.wait()
    if code:
        raise ResultsError(
            f"the worker must end with exit code 0, but ended with {code}; {folder / 'worker.log'} has its last words. "
            "The same command continues"
        )


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class WorkerCrashed(Exception):
    """A bug inside the worker, with its traceback."""
