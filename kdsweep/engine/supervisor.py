"""Start, monitor, restart and stop the worker processes of a sweep, and settle their trials when they die.

A worker sends events as JSON lines on a pipe, and stops by itself when this process ends, for whatever reason.
"""

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO

from kdsweep.config.sweep import Resolved, SweepConfig
from kdsweep.engine.dead_workers import STOP_SECONDS, record_failed
from kdsweep.engine.display import SweepDisplay
from kdsweep.engine.events import (
    Crash,
    Event,
    FoldsBegun,
    Note,
    Offline,
    Phase,
    Prepared,
    Problem,
    TrialEnded,
    TrialStarted,
    decode,
)
from kdsweep.engine.worker_process import WorkerProcess, WorkerStarter
from kdsweep.errors import KDSweepError, ResultsError, Stopped, WorkerCrashed
from kdsweep.search.studies import Studies
from kdsweep.system.hardware import available_cores

LOOK_SECONDS = 2.0
"""Time between two checks for dead hosts and waiting trials."""
IN_ORDER = (0, 2, 130)
"""Exit codes of a worker that ended by itself: nothing left to do, a problem that was reported, a stop."""


class Supervisor:
    """Runs a sweep's trials in `workers` processes until its studies are done; with 0 workers, waits for other hosts."""

    def __init__(
        self,
        sweep: SweepConfig,
        folder: Path,
        studies: Studies,
        display: SweepDisplay,
        *,
        workers: int,
        starter: WorkerStarter,
        on_search_over: Callable[[], None] = lambda: None,
        on_control: Callable[[float], None] = lambda _: None,
        on_idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._sweep, self._folder, self._studies, self._display = sweep, folder, studies, display
        self._wanted, self._starter = workers, starter
        self._on_search_over: Callable[[], None] | None = on_search_over
        self._on_control = on_control
        """Called with the score of every complete fine-tuned trial of the search."""
        self._on_idle: Callable[[], None] | None = on_idle
        """Called once, when the last runs are under way and no worker can take another."""
        self._workers: dict[str, WorkerProcess] = {}
        self._events: queue.Queue[tuple[str, Event | None]] = queue.Queue()
        self._prepared = False
        self.tracking: Resolved | None = None
        """How W&B is reached; None until a worker has found out. Later workers need not wait for its server again."""
        self._deaths_in_a_row = 0
        self._has_lost_a_worker = False
        self._signals: list[int] = []
        self._stop_before = float("inf")

    def run(self) -> None:
        """Run workers until all trials are done or the time is up; when it returns or raises, no worker is left.

        Raises Stopped after SIGINT or SIGTERM (which only the main thread receives), KDSweepError for a problem that a worker reported,
        ResultsError where several workers in a row died, WorkerCrashed for a bug in a worker.
        """
        problem: Exception | None = None
        with self._listening():
            try:
                while self._workers or not self._is_over():
                    self._look()
                    problem = self._hear(problem)
                    if problem:
                        self._stop()
            finally:
                self._kill()
                self._starter.close()
        if problem:
            raise problem
        if self._signals:
            raise Stopped(self._signals[0], killed=len(self._signals) > 1)

    # Events -----------------------------------------------------------------------------------------------------------

    def _hear(self, problem: Exception | None) -> Exception | None:
        """Handle workers' events for at most `LOOK_SECONDS`; return the first problem, None where there is none."""
        until = time.monotonic() + LOOK_SECONDS
        while (left := until - time.monotonic()) > 0:
            try:
                owner, event = self._events.get(timeout=min(left, 0.2))
            except queue.Empty:
                if self._signals:
                    break
                continue
            if event is None:
                ended = self._ended(self._workers.pop(owner))
                return problem or ended
            self._take_in(self._workers[owner], event)
        return problem

    def _take_in(self, worker: WorkerProcess, event: Event) -> None:
        match event:
            case Problem(message):
                worker.problem = KDSweepError(message)
            case Crash(traceback):
                worker.problem = WorkerCrashed(traceback)
            case Offline():
                told, self.tracking = self.tracking == "offline", "offline"
                if told:
                    return
            case FoldsBegun(folds=folds):
                self._share_folds(folds)
            case Prepared():
                first, self._prepared = not self._prepared, True
                self.tracking = self.tracking or event.plan.tracking
                if not first:
                    return
            case TrialStarted():
                worker.has_had_a_trial = True
                worker.searching = event.id.seed is None
            case TrialEnded():
                worker.has_run_a_trial, worker.searching = True, False
        self._display.show(event, worker.place)
        if isinstance(event, TrialEnded) and event.id.stage == "fine_tuned" and event.status == "complete":
            assert event.score is not None
            self._on_control(event.score)

    def _ended(self, worker: WorkerProcess) -> Exception | None:
        """Settle the trials of a worker that ended; return the problem that stops the sweep, None where the sweep continues."""
        code = worker.process.wait()
        self._display.forget(worker.place)
        died = code not in IN_ORDER and worker.problem is None and not worker.dismissed
        mine = lambda owner: (
            owner == worker.owner or (owner is None and not self._workers and self._sweep.study.storage is None)
        )
        settled = self._studies.settle(mine, blame=died and not self._signals)
        record_failed(self._sweep, self._folder, settled)
        if not died or self._signals:
            if (
                not worker.folds_alone
            ):  # one that finds no fold free shows nothing of the first worker, which may die each time
                self._deaths_in_a_row = 0
            return worker.problem
        self._has_lost_a_worker = True
        self._deaths_in_a_row = 1 if worker.has_run_a_trial else self._deaths_in_a_row + 1
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        what = ", ".join(f"trial {each.id.number}" for each in settled if not each.failed)
        again = f"{what} is tried again" if what else "no trial was running"
        self._display.show(Note(f"a worker died ({how}); {again}"))
        if self._deaths_in_a_row < self._sweep.study.max_attempts + len(settled):
            return None
        return ResultsError(
            f"a worker must live, but {self._deaths_in_a_row} in a row died, the last by {how}; "
            f"{self._folder / 'worker.log'} has its last words. The same command continues"
        )

    # Regular checks ---------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Check what no event reports: the time limit of a stop, dead hosts, the end of the search, missing workers."""
        if self._stopping():
            if time.monotonic() > self._stop_before or len(self._signals) > 1:
                self._kill()
            return
        if self._sweep.study.storage is not None:
            record_failed(self._sweep, self._folder, self._studies.settle_stale())
            self._display.progress({stage: self._studies.finished(stage) for stage in self._sweep.stages})
        elif self._has_lost_a_worker:  # perhaps as it took a trial, before it stored its name: others wait for that
            record_failed(self._sweep, self._folder, self._studies.settle_nameless())
        if self._on_search_over and self._studies.search_is_over():
            self._on_search_over()
            self._on_search_over = None
        if self._workers and self._studies.target_reached():  # the search's running trials are no longer needed
            self._dismiss(lambda worker: worker.searching)
        if self._workers and self._studies.is_complete():  # workers that had a trial end by themselves
            self._dismiss(lambda worker: not worker.has_had_a_trial)
        wanted = self._wanted if self._prepared else min(1, self._wanted)
        places = set(range(wanted)) - {worker.place for worker in self._workers.values()}
        if (places or wanted == 1) and self._studies.is_open():
            for place in sorted(places):
                self._start(place)
        elif (places or wanted == 1) and self._workers and self._on_idle:
            self._on_idle()
            self._on_idle = None

    def _is_over(self) -> bool:
        """Return whether a supervisor without running workers has nothing to wait for."""
        return self._stopping() or self._studies.is_done()

    def _stopping(self) -> bool:
        return bool(self._signals) or self._stop_before < float("inf")

    # Processes --------------------------------------------------------------------------------------------------------

    def _share_folds(self, folds: int) -> None:
        """Start workers that fine-tune teachers of folds beside the first worker, and end when none is free."""
        taken = {worker.place for worker in self._workers.values()}
        if not self._prepared and not self._stopping():
            for place in sorted(set(range(1, min(self._wanted, folds))) - taken):
                self._start(place, folds_alone=True)

    def _start(self, place: int, *, folds_alone: bool = False) -> None:
        arguments = ["--tracking", self.tracking] if self.tracking and self._prepared else []
        arguments += ["--folds-alone"] if folds_alone else []
        if not self._prepared and not folds_alone:
            self._display.show(Phase("starting a worker (it imports torch and transformers)"))
        worker = self._starter.start(place, arguments)
        worker.folds_alone = folds_alone
        self._workers[worker.owner] = worker
        events = os.fdopen(worker.events, encoding="utf-8")
        threading.Thread(target=self._listen, args=(worker.owner, events), daemon=True).start()
        if self._stopping():  # a signal came while this one was being started, and ended the others only
            worker.process.terminate()
        elif not self._prepared:
            self._start_others_ahead()

    def _start_others_ahead(self) -> None:
        """Start workers for which there are trials, and cores, while the first prepares the sweep: their imports are done when it is."""
        trials = sum(self._studies.remaining(arm) for arm in self._sweep.arms)
        for place in range(1, min(self._wanted, trials, available_cores())):
            if place not in {worker.place for worker in self._workers.values()}:
                self._starter.start_ahead(place)

    def _listen(self, owner: str, pipe: IO[str]) -> None:
        with pipe:
            for line in pipe:
                try:
                    self._events.put((owner, decode(line)))
                except ValueError:  # an incomplete line of a worker that was killed while it wrote
                    break
        self._events.put((owner, None))

    def _stop(self) -> None:
        """Ask every worker to checkpoint and end."""
        if self._stop_before == float("inf"):
            self._stop_before = time.monotonic() + STOP_SECONDS
            for worker in self._workers.values():
                worker.process.terminate()

    def _dismiss(self, who: Callable[[WorkerProcess], bool]) -> None:
        """End the workers for which `who` is true; a trial that one runs is checkpointed and put back."""
        for worker in self._workers.values():
            if who(worker) and not worker.dismissed:
                worker.dismissed = True
                worker.process.terminate()

    def _kill(self) -> None:
        for worker in self._workers.values():
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Run the block with signal handlers, in the main thread only: the first SIGINT or SIGTERM stops in order, the second at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def heard(number: int, _: FrameType | None) -> None:
            self._signals.append(number)
            if len(self._signals) == 1:
                print("\nStopping: running trials are checkpointed first (once more: stop at once) …", file=sys.stderr)
                self._stop()
            else:
                self._kill()

        before = {number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not installed from Python
