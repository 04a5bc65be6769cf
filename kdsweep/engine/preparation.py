"""Prepare a worker for its first trial: rows, teacher, logits and every check, before any trial is trained."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kdsweep.config.sweep import SweepConfig
from kdsweep.config.task_problems import task_notes, task_problems
from kdsweep.config.trial import TrialConfig
from kdsweep.engine.events import FoldsBegun, Phase, Plan, Prepared, TeacherStep, teacher_epoch
from kdsweep.engine.limits import Limits
from kdsweep.engine.messages import Messages, TrackedRuns
from kdsweep.engine.teacher_folds import fold_watches, take_free_folds
from kdsweep.engine.trial_configs import TrialConfigs
from kdsweep.errors import ConfigError
from kdsweep.records import teacher_schema as records
from kdsweep.records.layout import locks_folder, teacher_folder
from kdsweep.records.schema import StepMetrics
from kdsweep.records.teacher_schema import TeacherResult
from kdsweep.records.writing import TrialFolder
from kdsweep.search.agreements import Agreements
from kdsweep.system.files import Lock
from kdsweep.tracking.names import teacher_label
from kdsweep.training.checkpoints import Checkpointing
from kdsweep.training.data.splits import SplitName
from kdsweep.training.fast.team import check_devices
from kdsweep.training.file_preflight import check_join, file_preflight, record_file
from kdsweep.training.input_checks import check_inputs, kept_pieces, truncation
from kdsweep.training.preflight import preflight
from kdsweep.training.shared import Materials
from kdsweep.training.teacher import TeacherWatch, teacher_trial
from kdsweep.training.teacher_record import recorded_teacher, run_teacher


class Preparation:
    """Prepares a worker for its first trial; the first worker of a run (`is_first`) checks more, and reports what is ready."""

    def __init__(
        self,
        sweep: SweepConfig,
        folder: Path,
        agreements: Agreements,
        materials: Materials,
        messages: Messages,
        tracked: TrackedRuns,
        limits: Limits,
        *,
        sweep_key: str,
        checkpointing: Checkpointing,
        is_first: bool,
    ) -> None:
        self._sweep, self._folder, self._agreements, self._materials = sweep, folder, agreements, materials
        self._messages, self._tracked, self._sweep_key = messages, tracked, sweep_key
        self._limits, self._checkpointing, self._is_first = limits, checkpointing, is_first

    def run(self, configs: TrialConfigs) -> None:
        """Prepare all that the sweep's trials can need. Raises KDSweepError where a trial could not run."""
        self._phase("reading the rows")
        corners = configs.corners()
        has_texts = any(corner.has_unlabeled for corner in corners)
        check_devices(corners[0])
        if has_texts:
            self._materials.data(corners[0])
            self._phase("reading the texts without labels")
        if self._is_first:
            self._check_inputs(corners)
        rows = f"{len(self._materials.data(corners[0]).train):,} rows"
        self._phase(
            f"reading the teacher's numbers for {rows}"
            if corners[0].teacher_file
            else f"preparing the teacher on {rows}"
        )
        teacher = self._teacher(corners[0])
        if self._sweep.finalist_runs():  # computes the test rows' logits only: nothing reads them before a finalist
            self._materials.test_rows(corners[0])
        facts = {"teacher weights": teacher.weights_sha256, "rows": teacher.data_sha256}
        if (texts := self._materials.unlabeled(corners[0])) is not None:
            facts["texts without labels"] = texts.sha256
        self._agreements.agree(facts)
        if has_texts:
            self._phase("preparing the texts without labels")
            for corner in corners:
                self._materials.rows(corner)
        self._phase("checking teacher, rows and students")
        for corner in corners:
            self._materials.rows(corner)
            self._materials.initial_weights_sha256(corner)
        if self._is_first:
            self._check_forms(corners)
            for corner in {self._materials.teacher_sha256(corner): corner for corner in reversed(corners)}.values():
                check = file_preflight if corner.teacher_file else preflight
                for note in check(self._materials, corner, self._sweep.study):
                    self._messages.note(note)
            self._messages.send(Prepared(teacher=teacher, plan=self._plan(corners)))

    def _check_inputs(self, corners: list[TrialConfig]) -> None:
        """Check everything that can be refused before the teacher is fine-tuned."""
        task = self._materials.data(corners[0]).task
        if problems := task_problems(self._sweep, task):
            raise ConfigError(problems)
        for note in task_notes(self._sweep, task):
            self._messages.note(note)
        splits: list[SplitName] = ["train", "validation"]
        if self._sweep.finalist_runs() and self._materials.data(corners[0]).test is not None:
            splits.append("test")
        largest = max(self._sweep.values("batch_size"))
        for note in check_inputs(self._materials, corners, largest_batch=largest, splits=splits):
            self._messages.note(note)
        for line in kept_pieces(self._materials, corners):
            self._messages.note(line)
        check_join(self._materials, corners)

    def _check_forms(self, corners: list[TrialConfig]) -> None:
        """Measure every size of student in the exported form that the constraints mean, so that one that cannot be exported is refused."""
        if self._limits.form is not None:
            self._phase(f"exporting the untrained students, to measure them as {self._limits.form}")
            for corner in corners:
                self._limits.costs(corner)

    def _teacher(self, config: TrialConfig) -> TeacherResult:
        def on_steps(steps: Sequence[StepMetrics]) -> None:
            trial, rows = teacher_trial(config), len(self._materials.data(config).train)
            last, total = steps[-1], trial.epochs * -(-rows // trial.batch_size)
            self._messages.send(TeacherStep(step=last.step, steps=total, L_hard=last.L_hard))

        def on_epoch(epoch: records.TeacherEpoch) -> None:
            if config.teacher_folds == 1:  # those of folds are sent as they end
                self._messages.send(teacher_epoch(epoch))

        watch = TeacherWatch(
            on_steps=on_steps,
            on_epoch=on_epoch,
            checkpointing=self._checkpointing,
            on_fold=fold_watches(config, self._messages.send, self._checkpointing, self._folds_begun(config)),
        )
        folder = teacher_folder(self._folder)
        if known := recorded_teacher(config, folder, self._materials, watch):
            return known  # without the lock, under which many workers would load the teacher one after the other
        with self._recording(config, watch):
            known = recorded_teacher(config, folder, self._materials, watch)
            return known or self._record_teacher(config, folder, watch)

    @contextmanager
    def _recording(self, config: TrialConfig, watch: TeacherWatch) -> Iterator[None]:
        """Run the block while no other worker records the teacher; one that waits for another, as workers that nobody supervises do, takes
        a share of the folds first."""
        lock = Lock(locks_folder(self._folder) / "teacher.lock")
        if not lock.take():
            self._phase("waiting for the teacher, which another worker prepares")
            if config.teacher_folds > 1:
                take_free_folds(self._materials, config, watch)
            lock.take(wait=True)
        try:
            yield
        finally:
            lock.give_back()

    def _record_teacher(self, config: TrialConfig, folder: Path, watch: TeacherWatch) -> TeacherResult:
        if self._agreements.has_agreed():  # checked here, so that a refused teacher leaves no record
            met = self._materials.teacher_sha256(config, watch)
            self._agreements.agree({"teacher weights": met, "rows": self._materials.data(config).sha256()})
        label = teacher_label(self._sweep, self._sweep_key)
        with self._tracked.run(label, teacher_trial(config)) as run:
            if config.teacher_file:
                return record_file(config, TrialFolder(folder), self._materials, run)
            return run_teacher(config, TrialFolder(folder), self._materials, run, watch)

    def _folds_begun(self, config: TrialConfig) -> Callable[[], None]:
        """Return a function that asks for help at its first call, where this is the first worker."""
        asked = not self._is_first

        def ask() -> None:
            nonlocal asked
            if not asked:
                self._messages.send(FoldsBegun(folds=config.teacher_folds))
            asked = True

        return ask

    def _plan(self, corners: list[TrialConfig]) -> Plan:
        """Return what is shown before the first trial; send a note where `max_length` cuts many rows."""
        weight = max(corner.relation_weight for corner in corners)
        config, (cuts, warned) = corners[0], truncation(self._materials, corners)
        for line in warned:
            self._messages.note(
                f"max_length {line}: what stands behind is not read; raise max_length, if the model reads more"
            )
        return Plan(
            max_length="; ".join(cuts),
            device=config.device,
            precision=config.precision,
            threads=int(config.threads),
            tracking=self._tracked.mode,
            tracking_why=self._tracked.why,
            teacher_runs=weight > 0,
            unlabeled=self._texts(corners),
        )

    def _texts(self, corners: list[TrialConfig]) -> str:
        """Return how many texts without labels there are at most, in words; empty without any."""
        found = [texts for texts in map(self._materials.unlabeled, corners) if texts is not None]
        return max(found, key=len).described() if found else ""

    def _phase(self, text: str) -> None:
        if self._is_first:
            self._messages.send(Phase(text))
