"""Run one worker: prepare, then take a trial, run it and report how it ended, until none is left."""

import gc
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kdsweep.config.arms import Stage
from kdsweep.config.lengths import evaluations_of, lengthened, unit_of
from kdsweep.config.sweep import Resolved, SweepConfig
from kdsweep.config.trial import TrialConfig
from kdsweep.engine.dead_workers import record_failed
from kdsweep.engine.duplicates import answered_duplicate
from kdsweep.engine.events import Epoch, Send, Step, TrialEnded, TrialStarted
from kdsweep.engine.limits import Limits, MeasureForm, no_exporter
from kdsweep.engine.messages import Messages, TrackedRuns
from kdsweep.engine.preparation import Preparation
from kdsweep.engine.teacher_folds import help_with_folds
from kdsweep.engine.trial_configs import TrialConfigs
from kdsweep.errors import Interrupted, Superseded
from kdsweep.records.layout import TrialId, results_root, teacher_folder, trial_folder, worker_lock
from kdsweep.records.reading import packed_trial, read_trial
from kdsweep.records.schema import EpochMetrics, StepMetrics, TrialResult
from kdsweep.records.writing import TrialFolder, drop_students, start_sweep
from kdsweep.search.assignment import Assignment
from kdsweep.search.finalists_queue import best_of_each_first
from kdsweep.search.studies import Studies
from kdsweep.system.files import Lock
from kdsweep.system.process import StopRequest
from kdsweep.tracking.names import trial_label
from kdsweep.training.checkpoints import Checkpointing
from kdsweep.training.data.progress import NO_PROGRESS
from kdsweep.training.fast import machine
from kdsweep.training.final_test import open_teacher_test
from kdsweep.training.objective import Objective, objective_of
from kdsweep.training.shared import Materials
from kdsweep.training.state import total_steps
from kdsweep.training.trial import Slot, Watch, run_trial

WAIT_SECONDS = 0.5
"""Time between two checks whether a trial can start."""
RunTrial = Callable[..., TrialResult]
"""Runs one trial as `run_trial` does, with its parameters."""
FORWARD_SHARE = 1 / 3
"""About what a forward pass takes of a step with the same rows: the estimate of a trial's seconds needs no more."""


class Worker:
    """Runs trials of one sweep, one after the other, in one process, each by `run_one`; `make_objective` chooses what their students are
    trained for, and `measure_form` measures exported students where `study.constraints` means them."""

    def __init__(
        self,
        sweep: SweepConfig,
        folder: Path,
        owner: str,
        send: Send,
        stop: StopRequest,
        mode: Resolved | None = None,
        *,
        make_objective: Callable[[TrialConfig], Objective] = objective_of,
        measure_form: MeasureForm = no_exporter,
        run_one: RunTrial = run_trial,
    ) -> None:
        self._sweep, self._folder, self._owner, self._send, self._stop = sweep, folder, owner, send, stop
        self._make_objective, self._run_one = make_objective, run_one
        self._messages = Messages(send, stop)
        self._materials = Materials(self._messages.rows_done if mode is None else NO_PROGRESS)
        self._checkpointing = Checkpointing(every_seconds=sweep.study.checkpoint_seconds, stop=stop)
        self._tracked = TrackedRuns(sweep, folder, self._messages, mode)
        self._studies = Studies(sweep, folder, owner, self._messages.note)
        self._sweep_key = self._studies.agreements.sweep_key() if self._tracked.mode != "off" else ""
        self._limits = Limits(sweep, self._studies.agreements, self._materials, measure_form)
        self._configs = TrialConfigs(sweep, folder, self._studies.agreements)
        self._dropped: set[TrialId] = set()
        """Runs whose students this worker has removed: of ten thousand trials one looks at the latest only."""
        self._is_first = mode is None
        """Whether no worker of this run has prepared the sweep before."""

    def run(self) -> None:
        """Prepare, then run trials; the time counts towards `study.timeout_minutes`."""
        with self._studies.clock.going(self._messages.note):
            self.prepare()
            self.work()

    def prepare(self) -> None:
        """Prepare rows, teacher and logits and run every check, before any trial is trained."""
        preparation = Preparation(
            self._sweep,
            self._folder,
            self._studies.agreements,
            self._materials,
            self._messages,
            self._tracked,
            self._limits,
            sweep_key=self._sweep_key,
            checkpointing=self._checkpointing,
            is_first=self._is_first,
        )
        preparation.run(self._configs)

    def work(self) -> None:
        """Run trials until there is none to take."""
        ended: Stage | None = None
        while (assignment := self._take(ended)) is not None:
            try:
                with self._studies.alive(assignment):
                    self._run(assignment)
            except Superseded:
                self._messages.note(
                    f"trial {assignment.id.number} was taken over while this worker did not answer; on to the next"
                )
            except BaseException:
                self._studies.put_back(assignment)
                raise
            ended = assignment.id.stage
            gc.collect()
            machine.free_memory()

    def _drop_students(self, stage: Stage) -> None:
        """Remove the students of each arm's runs ranked below `study.keep_students`; of finalists, the best of each configuration rank first."""
        for arm in self._sweep.arms:
            others = best_of_each_first(self._studies.ranked(stage, arm))[self._sweep.study.keep_students :]
            drop_students(trial_folder(self._folder, trial) for trial in others if trial not in self._dropped)
            self._dropped.update(others)

    def _take(self, ended: Stage | None) -> Assignment | None:
        """Return the next trial, None where none is left to take; wait while the trials left depend on running ones.

        First removes the students that a trial of the stage that has just `ended` displaced: one look at the studies serves both.
        """
        look_at = time.monotonic()
        while True:
            with (
                self._stop.deferred(),
                self._studies.one_look(),
            ):  # no stop between taking a trial and recording its owner
                if ended:
                    self._drop_students(ended)
                    ended = None
                assignment = self._studies.take()
                is_over = assignment is None and not self._studies.is_open()
            if self._stop.requested:
                if assignment:
                    self._studies.put_back(assignment)
                raise Interrupted("SIGTERM")
            if assignment or is_over:
                return assignment
            if self._sweep.study.storage is not None and time.monotonic() >= look_at:
                # the trial waited for may run on a host that is gone
                record_failed(self._sweep, self._folder, self._studies.settle_stale())
                look_at = time.monotonic() + self._sweep.study.heartbeat_seconds / 2
            time.sleep(WAIT_SECONDS)

    def _run(self, assignment: Assignment) -> None:
        trial = assignment.id
        of_search = self._configs.of(trial.arm, assignment.params)
        config = lengthened(of_search, self._sweep.length_factor(trial.stage))
        costs = self._limits.costs(config)
        assignment.constrain(costs.excess)
        slot = Slot(
            id=trial,
            round=assignment.round,
            attempt=assignment.attempt,
            owner=self._owner,
            violates=costs.violates,
            form=costs.form,
            form_costs=costs.values if costs.form else {},
        )
        asked = [name for name, axis in self._sweep.search.items() if axis.applies(vars(of_search))]
        names = [*asked, *(["seed"] if trial.seed is not None else [])]
        params = {name: getattr(config, name) for name in names}
        self._send(
            TrialStarted(
                id=trial, attempt=slot.attempt, params=params, evaluations=evaluations_of(config), unit=unit_of(config)
            )
        )
        path = trial_folder(self._folder, trial)
        result = self._recorded(path, config) or answered_duplicate(
            self._studies, assignment, TrialFolder(path), config, metric=self._sweep.study.metric
        )
        if result is None:
            result = self._train(assignment, TrialFolder(path, f"{self._owner} attempt {slot.attempt}"), config, slot)
        if result.status != "duplicate":
            mine = self._studies.finish(assignment, result, packed_trial(path))
            if not mine:
                self._messages.note(
                    f"trial {trial.number} was told by another attempt; this one stays in {path} as a spare"
                )
        ended = TrialEnded(
            id=trial,
            status=result.status,
            error=result.error,
            score=getattr(result, self._sweep.study.metric),
            violates=slot.violates,
            seconds=result.seconds,
        )
        self._send(ended)

    def _recorded(self, path: Path, config: TrialConfig) -> TrialResult | None:
        """Return the result of an earlier attempt that was killed before the study had it, so that it is not run again; None without one.

        A duplicate has none of its own: it is answered once more.
        """
        there = read_trial(path) if (path / "config.yaml").exists() else None
        if there is None or there.result is None or there.config != config or there.result.status == "duplicate":
            return None
        TrialFolder(path).tidy()
        return there.result

    def _train(self, assignment: Assignment, folder: TrialFolder, config: TrialConfig, slot: Slot) -> TrialResult:
        metric = self._sweep.study.metric

        def on_epoch(epoch: EpochMetrics) -> bool:
            self._send(Epoch(metrics=epoch))
            assignment.report(getattr(epoch, metric), epoch.epoch)
            return epoch.epoch < evaluations_of(config) and assignment.should_prune()

        def on_steps(steps: Sequence[StepMetrics]) -> None:
            train, validation = self._materials.rows(config)
            evaluated = evaluations_of(config) * len(validation.labels)
            whole, evaluations = total_steps(train, config), FORWARD_SHARE * evaluated / config.batch_size
            self._send(Step(losses=steps[-1], steps=whole, evaluation_steps=evaluations))

        watch = Watch(
            on_steps=on_steps,
            on_epoch=on_epoch,
            on_kept=lambda epoch: assignment.report(getattr(epoch, metric), epoch.epoch),
        )
        if slot.id.seed is not None:
            open_teacher_test(config, self._materials, TrialFolder(teacher_folder(self._folder)))
        task = self._materials.data(config).task
        label = trial_label(self._sweep, self._sweep_key, config, slot.id, slot.attempt, task)
        with self._tracked.run(label, config) as run:
            return self._run_one(
                config,
                slot,
                folder,
                self._materials,
                run,
                watch,
                self._checkpointing,
                make_objective=self._make_objective,
            )


def run_worker(
    sweep: SweepConfig,
    owner: str,
    send: Send,
    stop: StopRequest,
    mode: Resolved | None = None,
    *,
    folds_alone: bool = False,
    measure_form: MeasureForm = no_exporter,
    run_one: RunTrial = run_trial,
) -> None:
    """Join the sweep's study and run trials until there is none to take; with `folds_alone`, fine-tune teachers of folds while one is free.

    `mode` is how W&B is reached (None: no earlier worker has prepared the sweep and found out); `measure_form` and `run_one` as in
    `Worker`. Raises KDSweepError for a problem that the user can solve, Interrupted where this process is asked to stop.
    """
    folder = start_sweep(results_root() / sweep.name, sweep)
    alive = Lock(worker_lock(folder, owner))
    alive.take()  # released by the system when this process ends, so that others notice
    if folds_alone:
        help_with_folds(sweep, folder, owner, send, stop)
    else:
        Worker(sweep, folder, owner, send, stop, mode, measure_form=measure_form, run_one=run_one).run()
    worker_lock(folder, owner).unlink()
