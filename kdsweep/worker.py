"""One worker process: prepare as its first job, then ask, run a trial, tell, again.

Started by `sweep.py` as `python -m kdsweep.worker RESULTS_FOLDER DESCRIPTOR`. It tells its parent what happens in JSON lines
on that file descriptor, and stops when its standard input ends: then its parent has died. SIGTERM stops it too; the trial
that it was running goes back to the queue.
"""

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import optuna

from kdsweep.config import TrialConfig
from kdsweep.errors import Interrupted, KDSweepError, ResultsError, TrialFailed
from kdsweep.materials import Materials, resolve
from kdsweep.prepare import estimated_seconds, preflight, run_teacher
from kdsweep.records import (
    EpochMetrics,
    TrialFolder,
    TrialResult,
    keep_best_students,
    read_sweep,
    teacher_folder,
    trial_folder,
)
from kdsweep.study import Studies
from kdsweep.sweep_config import Arm, SweepConfig
from kdsweep.teacher import TeacherWatch
from kdsweep.tracking import open_tracker, resolved_mode
from kdsweep.trial import Slot, Watch, run_trial

JOB_TYPES: dict[Arm, str] = {"distilled": "trial", "fine_tuned": "control"}


class Events:
    """The pipe to the parent."""

    def __init__(self, descriptor: int) -> None:
        self._pipe = os.fdopen(descriptor, "w", encoding="utf-8")

    def send(self, event: str, **fields: Any) -> None:
        """One line. Raises Interrupted where nobody reads it any more."""
        try:
            print(json.dumps({"event": event, **fields}), file=self._pipe, flush=True)
        except BrokenPipeError:
            raise Interrupted("the parent process is gone") from None


class Worker:
    """The trials of one sweep, one after the other, in one process."""

    def __init__(self, sweep: SweepConfig, folder: Path, events: Events) -> None:
        self._sweep, self._folder, self._events = sweep, folder, events
        self._threads = int(os.environ["OMP_NUM_THREADS"])
        self._materials = Materials()
        self._mode, self._why = resolved_mode(sweep.tracking)
        say = lambda text: events.send("note", text=text)
        self._tracker = open_tracker(folder, sweep.name, sweep.tracking, self._mode, say)

    def prepare(self) -> None:
        """Rows, teacher, logits and every check, before any trial is paid for."""
        self._events.send("phase", text="reading the rows")
        corners = self._corners()
        rows = len(self._materials.data(corners[0]).train)
        self._events.send("phase", text=f"preparing the teacher on {rows} rows")
        watch = TeacherWatch(
            on_steps=lambda steps: self._events.send("teacher_step", step=steps[-1].step, L_hard=steps[-1].L_hard),
            on_epoch=lambda epoch: self._events.send("teacher_epoch", **asdict(epoch)),
        )
        folder = TrialFolder(teacher_folder(self._folder))
        with self._tracker.run(f"{self._sweep.name}-teacher", "teacher", asdict(corners[0])) as run:
            teacher = run_teacher(corners[0], folder, self._materials, run, watch)
        self._events.send("phase", text="checking teacher, rows and students")
        largest = max(self._sweep.values("batch_size"))
        for corner in corners:
            preflight(self._materials, corner, largest_batch=largest)
            self._materials.rows(corner)
        self._events.send("prepared", teacher=asdict(teacher), plan=self._plan(corners))

    def work(self, studies: Studies) -> None:
        """Run trials until both arms are done."""
        while (arm := studies.next_arm()) is not None:
            studies.run_next(arm, partial(self._objective, arm))
            keep_best_students(self._folder, arm, self._sweep.study.keep_students)
        self._events.send("finished")

    def _objective(self, arm: Arm, trial: optuna.trial.Trial, params: Mapping[str, Any]) -> float:
        config = resolve(self._sweep.trial(arm, params), threads=self._threads)
        slot = Slot(arm=arm, trial=trial.number, attempt=trial.user_attrs["attempt"])
        result = self._run(trial, config, slot)
        if result.status == "failed":
            raise TrialFailed(result.error)
        if result.status == "pruned":
            raise optuna.TrialPruned(result.error)
        assert result.val_accuracy is not None
        return result.val_accuracy

    def _run(self, trial: optuna.trial.Trial, config: TrialConfig, slot: Slot) -> TrialResult:
        params = {name: getattr(config, name) for name in self._sweep.search}
        self._events.send("trial", **asdict(slot), params=params, epochs=config.epochs)

        def on_epoch(epoch: EpochMetrics) -> bool:
            self._events.send("epoch", **epoch.measured())
            trial.report(epoch.val_accuracy, epoch.epoch)
            return epoch.epoch < config.epochs and trial.should_prune()

        watch = Watch(on_steps=lambda steps: self._events.send("step", **asdict(steps[-1])), on_epoch=on_epoch)
        folder = TrialFolder(trial_folder(self._folder, slot.arm, slot.trial))
        name = f"{self._sweep.name}-{JOB_TYPES[slot.arm]}-{slot.trial:04d}-a{slot.attempt}"
        with self._tracker.run(name, JOB_TYPES[slot.arm], asdict(config)) as run:
            result = run_trial(config, slot, folder, self._materials, run, watch)
        how = {"status": result.status, "val_accuracy": result.val_accuracy, "error": result.error}
        self._events.send("done", **asdict(slot), **how, seconds=result.seconds)
        return result

    def _corners(self) -> list[TrialConfig]:
        """Configs that between them need every teacher and student that the sweep can ask for."""
        base = {name: axis.ends()[0] for name, axis in self._sweep.search.items()}
        others = [{**base, name: end} for name, axis in self._sweep.search.items() for end in axis.ends()[1:]]
        made = [resolve(self._sweep.trial("distilled", point), threads=self._threads) for point in (base, *others)]
        return list(dict.fromkeys(made))

    def _plan(self, corners: list[TrialConfig]) -> dict[str, Any]:
        """What the parent shows before the first trial."""
        seconds = [estimated_seconds(self._materials, corner) for corner in (corners[0], corners[-1])]
        config = corners[0]
        return {
            "device": config.device,
            "precision": config.precision,
            "threads": config.threads,
            "tracking": self._mode,
            "tracking_why": self._why,
            "seconds_per_trial": sum(seconds) / len(seconds),
        }


def _stop(_: int, __: FrameType | None) -> None:
    raise Interrupted("SIGTERM")


def _stop_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):  # not sys.stdin: its lock, held at exit, would abort the process
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    """The worker process: 0 when all trials are done, 2 for a problem told to the parent, 130 when stopped."""
    folder, events = Path(sys.argv[1]), Events(int(sys.argv[2]))
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    try:
        sweep = read_sweep(folder)
        if sweep is None:
            raise ResultsError(f"a results folder holds sweep.yaml, but {folder} does not")
        worker = Worker(sweep, folder, events)
        worker.prepare()
        worker.work(Studies(sweep, folder))
    except Interrupted:
        return 130
    except KDSweepError as error:
        events.send("error", message=str(error))
        return 2
    except Exception:
        events.send("crash", traceback=traceback.format_exc())
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
