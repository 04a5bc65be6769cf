"""A worker's work: prepare as its first job, then take a trial, run it, tell how it ended, again."""

import functools
import gc
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from kdsweep.config.sweep import ARMS, Arm, Resolved, Stage, SweepConfig
from kdsweep.config.trial import TrialConfig
from kdsweep.engine.dead_workers import record_failed
from kdsweep.errors import Interrupted, Superseded
from kdsweep.records.layout import results_root, teacher_folder, trial_folder, worker_lock
from kdsweep.records.reading import TrialRow, packed_trial, read_teacher_config, read_test, read_trial
from kdsweep.records.schema import EpochMetrics, TeacherResult, TrialResult, missing_result
from kdsweep.records.writing import TrialFolder, drop_students, start_sweep
from kdsweep.search.assignment import Assignment
from kdsweep.search.studies import Studies
from kdsweep.system.files import Lock
from kdsweep.system.hardware import available_cores
from kdsweep.system.process import StopRequest
from kdsweep.tracking.names import teacher_label, trial_label
from kdsweep.tracking.open import open_tracker, resolved_mode
from kdsweep.tracking.tracker import Run
from kdsweep.training.checkpoints import Checkpointing
from kdsweep.training.data.splits import SplitName
from kdsweep.training.fast import machine
from kdsweep.training.fast.team import check_devices
from kdsweep.training.preflight import (
    check_inputs,
    estimated_seconds,
    preflight,
    recorded_teacher,
    run_teacher,
    truncation,
)
from kdsweep.training.resolve import resolve
from kdsweep.training.shared import Materials
from kdsweep.training.teacher import TeacherWatch, teacher_trial
from kdsweep.training.trial import Slot, Watch, final_test, run_trial

Send = Callable[..., None]
"""`send("epoch", epoch=3, val_accuracy=0.9)`: tells whoever shows the sweep what happens."""
WAIT_SECONDS = 0.5
"""Between two looks at whether a trial can start."""
STOP_TOGETHER_SECONDS = 0.5
"""What lies at most between the signals of one request to stop, as the processes of a job get them."""


class Worker:
    """The trials of one sweep, one after the other, in one process."""

    def __init__(
        self, sweep: SweepConfig, folder: Path, owner: str, send: Send, stop: StopRequest, mode: Resolved | None = None
    ) -> None:
        self._sweep, self._folder, self._owner, self._send, self._stop = sweep, folder, owner, send, stop
        self._threads = int(os.environ.get("OMP_NUM_THREADS") or available_cores())
        self._materials = Materials()
        self._is_first = mode is None
        """Whether no worker of this run has prepared the sweep before."""
        self._checkpointing = Checkpointing(every_seconds=sweep.study.checkpoint_seconds, stop=stop)
        known = (mode, "as a worker before found") if mode else None
        self._mode, self._why = known or resolved_mode(sweep.tracking)
        self._tracker = open_tracker(folder, sweep.name, sweep.tracking, self._mode, self._say_offline)
        self._studies = Studies(sweep, folder, owner, self._say)
        self._sweep_key = self._studies.agreements.sweep_key() if self._mode != "off" else ""
        agreed = lambda device: self._studies.agreements.agreed_precision(
            machine.hardware(device), lambda: machine.best_precision(device)
        )
        self._precision_on: Callable[[str], str] = functools.cache(agreed)
        self._teacher_threads: Callable[[int | None], int] = functools.cache(self._agreed_teacher_threads)

    def run(self) -> None:
        """Prepare and work, while the sweep's clock goes."""
        with self._studies.clock.going(self._say):
            self.prepare()
            self.work()

    def prepare(self) -> None:
        """Rows, teacher, logits and every check, before any trial is paid for."""
        self._phase("reading the rows")
        corners = self._corners()
        check_devices(corners[0])
        if self._is_first:
            self._check_inputs(corners)
        self._phase(f"preparing the teacher on {len(self._materials.data(corners[0]).train)} rows")
        teacher = self._teacher(corners[0])
        if self._sweep.finalist_runs():  # the test rows' logits alone: nobody looks at them before a finalist does
            self._materials.teacher_test_rows(corners[0])
        self._studies.agreements.agree({"teacher weights": teacher.weights_sha256, "rows": teacher.data_sha256})
        self._phase("checking teacher, rows and students")
        for corner in corners:
            self._materials.rows(corner)
            self._materials.initial_weights_sha256(corner)
        if self._is_first:
            for corner in {id(self._materials.teacher(corner)): corner for corner in corners}.values():
                for note in preflight(self._materials, corner, self._sweep.study):
                    self._say(note)
            self._send("prepared", teacher=asdict(teacher), plan=self._plan(corners))

    def _check_inputs(self, corners: list[TrialConfig]) -> None:
        """Everything that can be refused before the teacher is fine-tuned."""
        splits: list[SplitName] = ["train", "validation"]
        if self._sweep.finalist_runs() and self._materials.data(corners[0]).test is not None:
            splits.append("test")
        largest = max(self._sweep.values("batch_size"))
        for note in check_inputs(self._materials, corners, largest_batch=largest, splits=splits):
            self._say(note)

    def work(self) -> None:
        """Run trials until there is none to take."""
        while (assignment := self._take()) is not None:
            try:
                with self._studies.alive(assignment):
                    self._run(assignment)
            except Superseded:
                self._say(f"trial {assignment.trial} was taken over while this worker did not answer; on to the next")
            except BaseException:
                self._studies.put_back(assignment)
                raise
            self._drop_students(assignment.stage)
            gc.collect()
            machine.free_memory()

    def _drop_students(self, stage: Stage) -> None:
        """Keep the best of an arm's trials, and the best of its finalists."""
        for arm in ARMS:
            ranked = self._studies.ranked(stage, arm)[self._sweep.study.keep_students :]
            seeds = [(who.trial, who.finalist.seed if who.finalist else None) for who, _ in ranked]
            drop_students(trial_folder(self._folder, arm, trial, seed) for trial, seed in seeds)

    def _take(self) -> Assignment | None:
        """The next trial; waits while it hangs on others that run. None where nothing is left to take."""
        while True:
            with self._stop.deferred():  # a trial that is taken has its owner's name on it
                assignment = self._studies.take()
            if self._stop.requested:
                if assignment:
                    self._studies.put_back(assignment)
                raise Interrupted("SIGTERM")
            if assignment or not self._studies.is_open():
                return assignment
            if self._sweep.study.storage is not None:  # what is waited for may run on a host that is gone
                record_failed(self._sweep, self._folder, self._studies.settle_stale())
            time.sleep(WAIT_SECONDS)

    def _run(self, assignment: Assignment) -> None:
        config = self._resolved(assignment.arm, assignment.params)
        place: dict[str, Any] = {name: getattr(assignment, name) for name in ("arm", "trial", "finalist", "attempt")}
        slot = Slot(**place, owner=self._owner, violates=self._violated(assignment, config))
        params = {name: getattr(config, name) for name in (*self._sweep.search, *({"seed"} if slot.finalist else ()))}
        self._send("trial", **asdict(slot), params=params, epochs=config.epochs)
        path = trial_folder(self._folder, slot.arm, slot.trial, slot.finalist.seed if slot.finalist else None)
        result = self._recorded(path, config) or self._duplicate(assignment, path, config, slot)
        if result is None:
            result = self._train(assignment, TrialFolder(path, f"{self._owner} attempt {slot.attempt}"), config, slot)
        if result.status != "duplicate":
            mine = self._studies.finish(assignment, result, packed_trial(path))
            if not mine:
                self._say(f"trial {slot.trial} was told by another attempt; this one stays in {path} as a spare")
        how = {"status": result.status, "error": result.error, "score": getattr(result, self._sweep.study.metric)}
        self._send("done", **asdict(slot), **how, seconds=result.seconds)

    def _violated(self, assignment: Assignment, config: TrialConfig) -> tuple[str, ...]:
        """Tell the search by how much the student breaks each constraint; those that it breaks."""
        limits = self._sweep.study.constraints.limits()
        if not limits:
            return ()
        measure = lambda: self._materials.speed(config).latency_ms_p50
        costs = {"size_mb": self._materials.size_mb(config)}
        if "latency_ms_p50" in limits:
            costs["latency_ms_p50"] = self._studies.agreements.agreed_latency(
                self._materials.architecture(config), measure
            )
        assignment.constrain({name: costs[name] - limit for name, limit in limits.items()})
        return tuple(f"{name} {costs[name]:.3g} > {limit:g}" for name, limit in limits.items() if costs[name] > limit)

    def _recorded(self, path: Path, config: TrialConfig) -> TrialResult | None:
        """The result that an attempt before wrote, but was killed before it told the study: nothing finished is run again."""
        row: TrialRow | None = read_trial(path) if (path / "config.yaml").exists() else None
        if row is None or row.result is None or row.config != config:
            return None
        TrialFolder(path).tidy()
        return row.result

    def _duplicate(self, assignment: Assignment, path: Path, config: TrialConfig, slot: Slot) -> TrialResult | None:
        """The answer from the record to a configuration that has been run; None for a new one."""
        twin = self._studies.twin(assignment)
        if twin is None:
            return None
        why = f"the same configuration as trial {twin.number}, which ended {twin.state.name.lower()}"
        result = missing_result(slot.arm, slot.trial, status="duplicate", error=why, attempt=slot.attempt)
        if twin.state == TrialState.COMPLETE:
            score: dict[str, Any] = {self._sweep.study.metric: twin.value}
            result = replace(result, **score)
        folder = TrialFolder(path)
        folder.start(config)
        folder.finish(result)
        self._studies.finish_like(assignment, twin, result, packed_trial(path))
        return result

    def _train(self, assignment: Assignment, folder: TrialFolder, config: TrialConfig, slot: Slot) -> TrialResult:
        metric = self._sweep.study.metric

        def on_epoch(epoch: EpochMetrics) -> bool:
            self._send("epoch", **epoch.measured())
            assignment.report(getattr(epoch, metric), epoch.epoch)
            return epoch.epoch < config.epochs and assignment.should_prune()

        watch = Watch(
            on_steps=lambda steps: self._send("step", **asdict(steps[-1]), steps=self._steps(config)),
            on_epoch=on_epoch,
            on_kept=lambda epoch: assignment.report(getattr(epoch, metric), epoch.epoch),
        )
        if slot.finalist:
            self._test_teacher(config)
        seed = slot.finalist.seed if slot.finalist else None
        place = (slot.arm, slot.trial, slot.attempt, seed)
        label = trial_label(self._sweep, self._sweep_key, config, *place)
        with self._tracker.run(label, asdict(config)) as run:
            self._say_missing(label.name, run)
            return run_trial(config, slot, folder, self._materials, run, watch, self._checkpointing)

    def _test_teacher(self, config: TrialConfig) -> None:
        """The teacher on the test split, once, when the first finalist opens it."""
        folder, rows = teacher_folder(self._folder), self._materials.teacher_test_rows(config)
        if rows is not None and read_test(folder) is None:
            predicted = rows.teacher_logits.argmax(dim=-1).cpu().numpy()
            TrialFolder(folder).write_test(final_test(rows.teacher_logits, rows), predicted)

    def _teacher(self, config: TrialConfig) -> TeacherResult:
        total = functools.partial(self._steps, teacher_trial(config))
        watch = TeacherWatch(
            on_steps=lambda told: self._send("teacher_step", step=told[-1].step, L_hard=told[-1].L_hard, steps=total()),
            on_epoch=lambda epoch: self._send("teacher_epoch", **asdict(epoch)),
            checkpointing=self._checkpointing,
        )
        folder = teacher_folder(self._folder)
        known = recorded_teacher(config, folder, self._materials, watch)
        if known is not None:
            return known
        if self._studies.has_agreed():  # a teacher that is refused leaves no record
            met = self._materials.teacher(config, watch).weights_sha256
            self._studies.agreements.agree({"teacher weights": met, "rows": self._materials.data(config).sha256()})
        label = teacher_label(self._sweep, self._sweep_key)
        with self._tracker.run(label, asdict(teacher_trial(config))) as run:
            self._say_missing(label.name, run)
            return run_teacher(config, TrialFolder(folder), self._materials, run, watch)

    def _steps(self, config: TrialConfig) -> int:
        """Steps of a whole training."""
        return config.epochs * -(-len(self._materials.data(config).train) // config.batch_size)

    def _corners(self) -> list[TrialConfig]:
        """Configs that between them need every teacher and student that the sweep can ask for."""
        base = {name: axis.ends()[0] for name, axis in self._sweep.search.items()}
        others = [{**base, name: end} for name, axis in self._sweep.search.items() for end in axis.ends()[1:]]
        made = [self._resolved("distilled", point) for point in (base, *others)]
        return list(dict.fromkeys(made))

    def _resolved(self, arm: Arm, params: Mapping[str, Any]) -> TrialConfig:
        """A trial's config without any `auto`."""
        config, threads = self._sweep.trial(arm, params), self._threads
        return resolve(config, threads=threads, precision_on=self._precision_on, teacher_threads=self._teacher_threads)

    def _agreed_teacher_threads(self, named: int | None) -> int:
        """As the record has it, where an older version made the teacher: with all cores, whatever `threads` said."""
        folder = teacher_folder(self._folder)

        def count() -> int:
            if (folder / "config.yaml").exists():
                return int(read_teacher_config(folder).teacher_threads)
            return named or available_cores()

        return self._studies.agreements.agreed_teacher_threads(count)

    def _plan(self, corners: list[TrialConfig]) -> dict[str, Any]:
        """What is shown before the first trial."""
        seconds = [estimated_seconds(self._materials, corner) for corner in (corners[0], corners[-1])]
        config, (cuts, warned) = corners[0], truncation(self._materials, corners)
        for line in warned:
            self._say(f"max_length {line}: what stands behind is not read; raise max_length, if the model reads more")
        return {
            "max_length": "; ".join(cuts),
            "device": config.device,
            "precision": config.precision,
            "threads": config.threads,
            "tracking": self._mode,
            "tracking_why": self._why,
            "seconds_per_trial": sum(seconds) / len(seconds),
        }

    def _phase(self, text: str) -> None:
        if self._is_first:
            self._send("phase", text=text)

    def _say(self, text: str) -> None:
        self._send("note", text=text)

    def _say_offline(self, text: str) -> None:
        """Not where this worker is stopped: Slurm ends W&B's client together with it, perhaps a moment before."""
        time.sleep(STOP_TOGETHER_SECONDS)
        if not self._stop.requested:
            self._send("offline", text=text)

    def _say_missing(self, name: str, run: Run) -> None:
        if run.missing and not self._stop.requested:
            self._say(
                f"W&B has no run of {name} ({run.missing}): the records have every number, there is nothing to sync"
            )


def run_worker(sweep: SweepConfig, owner: str, send: Send, stop: StopRequest, mode: Resolved | None = None) -> None:
    """Join the sweep's study and run trials until there is none to take. Raises KDSweepError, Interrupted.

    `mode` is how W&B is reached, where a worker before has prepared the sweep and found out.
    """
    folder = start_sweep(results_root() / sweep.name, sweep)
    alive = Lock(worker_lock(folder, owner))
    alive.take()  # given back by the system when this process ends, so that others know
    Worker(sweep, folder, owner, send, stop, mode).run()
    worker_lock(folder, owner).unlink()
