"""Show a running sweep in the terminal: live progress, one line for each finished trial.

Live progress appears on a terminal and in a notebook only; a log file has the lines, and a few more about the progress of long trainings.
"""

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kdsweep.analysis.formats import TWO_LABELS, duration, plural, taught
from kdsweep.config.arms import ARM_NAMES, ARMS, Arm, Stage
from kdsweep.config.sweep import SweepConfig
from kdsweep.config.tasks import METRICS, TaskName
from kdsweep.engine.events import (
    Epoch,
    Event,
    Note,
    Offline,
    Phase,
    Prepared,
    RowsDone,
    Step,
    TeacherEpoch,
    TeacherStep,
    TrialEnded,
    TrialStarted,
)
from kdsweep.engine.notebook import NotebookLive
from kdsweep.engine.pace import Pace
from kdsweep.engine.plan import print_plan, shown_params
from kdsweep.engine.planned_search import Warm
from kdsweep.records.teacher_schema import TeacherResult

ONE_ANSWER: dict[TaskName, str] = {
    "single_label": "majority class",
    "multi_label": "the same labels for all",
    "regression": "the mean for all",
}
"""What gives the score beside the teacher's, by task."""
NAMES: dict[Stage, str] = {**{arm: ARM_NAMES[arm] for arm in ARMS}, "finalists": "finalists"}


def _oddities(teacher: TeacherResult) -> str:
    """Return how many rows had an empty text and how many texts have two labels or more, in words; empty where there are none."""
    empty, conflicting = teacher.empty_texts_dropped, teacher.conflicting_texts
    said = [f"{plural(empty, 'row')} with an empty text left out"] if empty else []
    said += [f"{plural(conflicting, 'text')} with {TWO_LABELS[teacher.task]}"] if conflicting else []
    return "".join(f"; {each}" for each in said)


def _teacher(teacher: TeacherResult) -> str:
    """Return how good the teacher is, in words; of one that is a file, for which rows it has numbers too."""
    metric = METRICS[teacher.task][0]
    score, constant = getattr(teacher, metric), teacher.majority_scores.get(metric, teacher.majority_accuracy)
    majority = f" ({ONE_ANSWER[teacher.task]} {constant:.4f})" if constant is not None else ""
    if not teacher.is_file:
        source = "from the cache" if teacher.from_cache else "ready"
        return f"{source}: {metric} {score:.4f}{majority}"
    said = f"the numbers of {teacher.teacher.partition('#')[0]} for {taught(teacher)}"
    known = teacher.numbers
    on = f"on {known['labeled_rows']:,} labelled rows" if "loss" in known else ""
    if "accuracy" in known:
        name = "subset accuracy" if teacher.task == "multi_label" else "accuracy"
        said += f"; {name} {known['accuracy']:.4f}, calibration error {known['ece']:.3f} {on}"
        said += majority if teacher.task == "single_label" else ""
    elif on:
        said += f"; mean squared error {known['loss']:.4f} {on}"
    return said


def _bars(console: Console, width: int) -> Progress:
    """Make the bars of the stages, whose names are at most `width` letters long."""
    return Progress(
        TextColumn(f"{{task.description:>{width}}}"),
        BarColumn(bar_width=40),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


class _Running:
    """Holds the trial that a worker runs, and how far it is."""

    def __init__(self, told: TrialStarted) -> None:
        self.told, self.started, self.metrics = told, time.monotonic(), ""
        self.pace, self.evaluations_pace = Pace(), Pace()

    def text(self) -> str:
        """Return the trial, its parameters and its last metrics on one line."""
        told = self.told
        again = f" (attempt {told.attempt})" if told.attempt > 1 else ""
        what = "finalist, " if told.id.stage == "finalists" else ""
        name = f"{what}{ARM_NAMES[told.id.arm]} trial {told.id.number}{again}"
        return f"{name}: {shown_params(told.params)}   {self.metrics}"


class SweepDisplay:
    """Shows live progress of one sweep, from its workers' events."""

    def __init__(
        self,
        console: Console,
        sweep: SweepConfig,
        finished: Mapping[Stage, int],
        workers: int = 1,
        warning: str | None = None,
        warm: Warm | None = None,
    ) -> None:
        self._console, self._sweep, self._workers = console, sweep, workers
        self._warning, self._warm = warning, warm
        self._width = max(len(NAMES[stage]) for stage in sweep.stages)
        self._bars = _bars(console, self._width)
        totals: dict[Stage, int] = {
            **{arm: sweep.budget(arm) for arm in sweep.arms},
            "finalists": sweep.finalist_runs(),
        }
        self._stages = {
            stage: self._bars.add_task(NAMES[stage], total=total, completed=finished[stage], note="")
            for stage, total in totals.items()
            if total
        }
        self._metric = sweep.study.metric
        self._now = ""
        self._metrics = ""
        self._teachers: dict[str, tuple[Pace, str]] = {"": (Pace(), "")}
        """How far each teacher is that is fine-tuned now, by its fold."""
        self._rows_pace = Pace()
        self._making: RowsDone | None = None
        """How far what is made of the rows, or of the texts without labels, is."""
        self._best: dict[Arm, tuple[float, int]] = {}
        self._trials: dict[int, _Running] = {}
        """Keyed by the worker's place."""
        self._trial_seconds: list[float] = []
        self._expected_seconds = 0.0
        self._is_live = console.is_terminal or console.is_jupyter
        self._live: Live | NotebookLive = NotebookLive(self._view)
        if not console.is_jupyter:
            self._live = Live(get_renderable=self._view, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "SweepDisplay":
        if self._is_live and not self._console.quiet:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._live.stop()

    def show(self, event: Event, worker: int = 0) -> None:
        """Show an event of a worker; `worker` is its place among the workers that run side by side."""
        match event:
            case Phase():
                self._phase(event)
            case Note(text) | Offline(text):
                self._console.print(escape(text), style="yellow", soft_wrap=True)
            case TeacherStep():
                self._teacher_step(event)
            case TeacherEpoch():
                of = f" of {event.fold}" if event.fold else ""
                self._console.print(f"teacher{of}, epoch {event.epoch}: {event.metric} {event.score:.4f}")
            case RowsDone():
                self._rows_done(event)
            case Prepared():
                self._prepared(event)
            case TrialStarted():
                self._now = ""
                self._trials[worker] = _Running(event)
            case Step():
                self._step(self._trials[worker], event)
            case Epoch():
                self._epoch(self._trials[worker], event)
            case TrialEnded():
                self._done(self._trials.pop(worker), event)
        if isinstance(self._live, NotebookLive):
            self._live.refresh()

    def progress(self, finished: Mapping[Stage, int]) -> None:
        """Set the bars to the `finished` trials of all hosts."""
        for stage, task in self._stages.items():
            self._bars.update(task, completed=finished[stage])

    def forget(self, worker: int) -> None:
        """Remove the running trial of a worker that has ended."""
        self._trials.pop(worker, None)

    def _phase(self, event: Phase) -> None:
        self._now, self._metrics, self._teachers = event.text, "", {"": (Pace(), "")}
        if not self._is_live:
            self._console.print(f"{event.text} …")

    def _teacher_step(self, event: TeacherStep) -> None:
        pace, _ = self._teachers.get(event.fold, (Pace(), ""))
        pace.reach(event.step, event.steps)
        name = f"{event.fold}: " if event.fold else ""
        line = f"{name}step {event.step}/{event.steps}   L_hard {event.L_hard:.3f}{pace.text()}"
        self._teachers[event.fold] = pace, line
        self._metrics = "   ".join(text for _, text in self._teachers.values() if text)
        if event.fold and event.step == event.steps:
            del self._teachers[event.fold]
        if pace.seconds_left and pace.is_due():
            self._log(f"teacher, {line}")

    def _rows_done(self, event: RowsDone) -> None:
        before, self._making = self._making, event
        if before is None or (before.what, before.unit) != (event.what, event.unit) or event.done < before.done:
            self._rows_pace = Pace()
        pace = self._rows_pace
        pace.reach(event.done, event.rows)
        done = f"{event.what} of {event.done:,}/{event.rows:,}" if event.rows else f"{event.what} {event.done:,}"
        self._metrics = f"{done} {event.unit}{pace.rate()}{pace.text()}"
        if pace.seconds_each and pace.is_due():
            self._log(self._metrics)

    def _prepared(self, event: Prepared) -> None:
        teacher, facts = event.teacher, event.plan
        rows = f"{teacher.train_rows} training, {teacher.validation_rows} validation, {teacher.test_rows} test"
        lines = {
            "rows": f"{rows}; {teacher.duplicates_dropped} duplicates kept from crossing splits{_oddities(teacher)}",
            **({"without labels": facts.unlabeled} if facts.unlabeled else {}),
            "max_length": facts.max_length,
            "teacher": f"{_teacher(teacher)}{'; it runs in every step (relation_weight)' if facts.teacher_runs else ''}",
            "machine": f"{facts.device}, {facts.precision}, {plural(self._workers, 'worker')} of "
            f"{plural(facts.threads, 'thread')}",
            "tracking": f"{facts.tracking} ({facts.tracking_why})",
        }
        compared, searched = teacher.test_rows or teacher.validation_rows, (teacher.validation_rows, teacher.train_rows)
        print_plan(self._console, self._sweep, lines, self._warning, compared, teacher.task, self._warm, *searched)

    def _step(self, trial: "_Running", event: Step) -> None:
        losses = event.losses
        epoch = f"epoch {losses.epoch}/{trial.told.evaluations}   " if trial.told.unit == "epoch" else ""
        relation = f"   L_relation {losses.L_relation:.3f}" if losses.L_relation else ""
        trial.metrics = f"{epoch}step {losses.step}/{event.steps}   L_soft {losses.L_soft:.3f}   L_hard {losses.L_hard:.3f}{relation}"
        pace = trial.pace
        pace.reach(losses.step, event.steps)
        if pace.seconds_each and not self._expected_seconds:
            whole = pace.seconds_each * (event.steps + event.evaluation_steps)
            self._estimate(whole / self._sweep.length_factor(trial.told.id.stage))
        if pace.seconds_left and pace.is_due():
            longest = max(pace.seconds_left, self._left())
            sweep = f", the whole sweep about {duration(longest)}" if self._expected_seconds else ""
            self._log(f"{trial.text()}{pace.text()}{sweep}")

    def _estimate(self, seconds: float) -> None:
        """Show how long the sweep will take where a trial takes `seconds`, as the first steps of the first one suggest, or its first evaluation."""
        self._expected_seconds = seconds
        factor = self._sweep.finalists.epochs_factor
        longer = f", finalists {factor} times that" if factor > 1 and self._sweep.finalist_runs() else ""
        text = (
            f"estimate: {duration(self._left())} for {plural(self._open(), 'trial')} of about {seconds:.1f} s{longer}"
        )
        self._console.print(text, highlight=False, soft_wrap=True)

    def _epoch(self, trial: "_Running", event: Epoch) -> None:
        told, done, of_all = trial.told, event.metrics.epoch, trial.told.evaluations
        trial.metrics = f"{told.unit} {done}/{of_all}   {self._metric} {getattr(event.metrics, self._metric):.4f}"
        seconds = (time.monotonic() - trial.started) * of_all / done / self._sweep.length_factor(told.id.stage)
        if self._expected_seconds or not seconds:
            self._expected_seconds = seconds
        else:  # so short that no twenty steps were taken before
            self._estimate(seconds)
        trial.evaluations_pace.reach(done, of_all)
        if trial.evaluations_pace.is_due():
            self._log(trial.text())

    def _done(self, trial: "_Running", event: TrialEnded) -> None:
        arm, stage, score = event.id.arm, event.id.stage, event.score or 0.0
        self._trial_seconds.append(event.seconds / self._sweep.length_factor(stage))
        self._bars.advance(self._stages[stage])
        complete = event.status == "complete"
        feasible = complete and not event.violates
        if feasible and stage == arm and (arm not in self._best or score > self._best[arm][0]):
            self._best[arm] = (score, event.id.number)
        mark = f"{self._metric} {score:.4f}" if complete else str(event.error).split("\n")[0]
        mark += "".join(f", breaks {each}" for each in event.violates)
        what = f"{ARM_NAMES[arm]}{', finalist' if stage == 'finalists' else ''}"
        line = f"{what:>{self._width}} {event.id.number:4d}  {mark}  ({shown_params(trial.told.params)}; {event.seconds:.1f} s)"
        self._console.print(escape(line), highlight=False, soft_wrap=True)
        for name, (best, number) in self._best.items():
            self._bars.update(self._stages[name], note=f"best {self._metric} {best:.4f} (trial {number})")

    def _log(self, text: str) -> None:
        """Print `text` where there is no live progress, as in a log file."""
        if not self._is_live:
            self._console.print(escape(text), highlight=False, soft_wrap=True)

    def _open(self) -> int:
        return sum(int((task.total or 0) - task.completed) for task in self._bars.tasks)

    def _open_lengths(self) -> int:
        """Return how many trainings are open, one as long as a trial of the search being the unit."""
        tasks = {task.id: task for task in self._bars.tasks}
        open_ = {stage: int((tasks[task].total or 0) - tasks[task].completed) for stage, task in self._stages.items()}
        return sum(count * self._sweep.length_factor(stage) for stage, count in open_.items())

    def _left(self) -> float:
        """Return the seconds left: from the mean of the trials timed so far, before them from the last epoch, before it from the first steps."""
        timed = self._trial_seconds or [self._expected_seconds]
        starting = 0 if self._trial_seconds else min(self._workers, self._open())  # the others begin in a moment
        side_by_side = max(1, starting, len(self._trials) or self._workers)
        return self._open_lengths() * sum(timed) / len(timed) / side_by_side

    def _view(self) -> Group:
        left = f"about {duration(self._left())} to go" if self._expected_seconds else ""
        now = [escape(f"{self._now}   {self._metrics}")] if self._now else []
        running = [escape(trial.text()) for trial in self._trials.values()]
        return Group(self._bars, *now, *running, left)
