"""Start a sweep's worker processes, and some ahead: those import torch and transformers while there is nothing for them to do yet, and wait.

A worker sends events as JSON lines on a pipe, and stops by itself when standard input ends, as it does with this process. On the same standard
input, one that was started ahead gets its last arguments.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from kdsweep.system.files import naming
from kdsweep.system.hardware import available_cores
from kdsweep.system.process import new_owner


@dataclass(eq=False)
class WorkerProcess:
    """Holds what the supervisor knows of one worker."""

    place: int
    """Number of the worker among those that run side by side; chooses the device."""
    owner: str
    process: "subprocess.Popen[bytes]"
    events: int = -1
    """The end of its pipe to read events from."""
    folds_alone: bool = False
    """Whether it fine-tunes teachers of folds alone, beside the first worker."""
    has_had_a_trial: bool = False
    has_run_a_trial: bool = False
    searching: bool = False
    """Whether it runs a trial of the search, not a finalist."""
    dismissed: bool = False
    """Whether it was asked to end because nothing is left for it to do."""
    problem: Exception | None = field(default=None)
    """The problem that it reported before it ended."""


class WorkerStarter:
    """Starts the workers of the sweep in `folder`, each with its own device and its share of the cores."""

    def __init__(self, folder: Path, *, workers: int, devices: list[str]) -> None:
        self._folder, self._workers, self._devices = folder, workers, devices
        self._ahead: dict[int, WorkerProcess] = {}

    def start_ahead(self, place: int) -> None:
        """Start a worker that imports what all need, and then waits until `start` is called for its place."""
        if place not in self._ahead:
            self._ahead[place] = self._started(place, ["--ahead"])

    def start(self, place: int, arguments: Sequence[str]) -> WorkerProcess:
        """Return a worker that runs with `arguments`: the one that was started ahead, where there is one."""
        worker = self._ahead.pop(place, None)
        if worker is None:
            return self._started(place, arguments)
        assert worker.process.stdin is not None
        with suppress(BrokenPipeError):  # it has died: the end of its events says so, as that of any other worker
            worker.process.stdin.write(json.dumps(list(arguments)).encode() + b"\n")
            worker.process.stdin.flush()
        return worker

    def close(self) -> None:
        """End the workers that were started ahead and never needed; they hold nothing."""
        while self._ahead:
            _, worker = self._ahead.popitem()
            worker.process.kill()
            worker.process.communicate()  # closes its standard input, and waits
            os.close(worker.events)

    def _started(self, place: int, arguments: Sequence[str]) -> WorkerProcess:
        reading, writing = os.pipe()
        owner = new_owner()
        command = [sys.executable, "-m", "kdsweep.worker", str(self._folder / "sweep.yaml")]
        command += ["--events", str(writing), "--owner", owner, *arguments]
        path = self._folder / "worker.log"
        with naming(path), path.open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment(place),
                pass_fds=(writing,),
                start_new_session=True,  # Ctrl-C reaches this process alone, which then stops the workers in order
            )
        os.close(writing)
        return WorkerProcess(place=place, owner=owner, process=process, events=reading)

    def _environment(self, place: int) -> dict[str, str]:
        """Return a worker's environment: its own device and its share of the cores (threads that wait for each other cost a factor of 20)."""
        threads = str(max(1, available_cores() // max(1, self._workers)))
        device = {"CUDA_VISIBLE_DEVICES": self._devices[place % len(self._devices)]} if self._devices else {}
        shares = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "true"}
        return {**os.environ, **shares, **device}
