"""What the terminal shows while a sweep runs: the plan, live progress, one line a finished trial.

The live part appears on a terminal and in a notebook only; a log file gets the lines, and now and then one about what takes long.
"""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from kdsweep.analysis.formats import duration, plural
from kdsweep.config.sweep import ARM_NAMES, ARMS, Arm, Stage, SweepConfig
from kdsweep.engine.notebook import NotebookLive

NAMES: dict[Stage, str] = {**{arm: ARM_NAMES[arm] for arm in ARMS}, "finalists": "finalists"}

LOG_SECONDS, LOG_SECONDS_AT_MOST, LOG_LINES = 30.0, 300.0, 10
"""A log file hears of a training so many times, but no sooner than half a minute and no later than five after the line before."""


def plan(console: Console, sweep: SweepConfig, facts: Mapping[str, str], warning: str | None = None) -> None:
    """The resolved plan: before it a `warning`, then what will run, every axis, and `facts`, a line each."""
    if warning:
        console.print(escape(warning), style="yellow", soft_wrap=True)
    table = Table(title=f"{sweep.name}: the plan", show_header=False, title_justify="left", box=None, padding=(0, 2))
    table.add_column()
    table.add_column(overflow="fold")
    for name, axis in sweep.search.items():
        also = "" if name in sweep.axes("fine_tuned") else "   (distilled only)"
        table.add_row(f"search {name}", escape(axis.text()) + also)
    for name, value in sweep.fixed.items():
        table.add_row(f"fixed {name}", escape(shown(value)))
    study = sweep.study
    budgets = " + ".join(f"{sweep.budget(arm)} {ARM_NAMES[arm]}" for arm in ARMS)
    table.add_row("trials", f"{budgets} for {study.metric} ({study.sampler}, pruner {study.pruner}, seed {study.seed})")
    if runs := sweep.finalist_runs():
        seeds = ", ".join(map(str, sweep.finalist_seeds()))
        alone = "; one seed gives no verdict (finalists.seeds)" if sweep.finalists.seeds == 1 else ""
        table.add_row("finalists", f"{plural(runs, 'run')}: the best {_chosen(sweep)} on fresh seeds ({seeds}){alone}")
    else:
        table.add_row("finalists", "none, so there will be no verdict (finalists.top, finalists.seeds)")
    if sweep.enqueue:
        table.add_row("tried first", escape("; ".join(shown_params(item) for item in sweep.enqueue)))
    for name, value in facts.items():
        table.add_row(name, escape(value))
    console.print(table)


def _chosen(sweep: SweepConfig) -> str:
    """How many finalists there will be: `3 of each arm`, or `3 distilled and 1 fine-tuned` where an arm has no more trials."""
    counts = {arm: min(sweep.finalists.top, sweep.budget(arm)) for arm in ARMS}
    if len(set(counts.values())) == 1:
        return f"{counts['distilled']} of each arm"
    return " and ".join(f"{count} {ARM_NAMES[arm]}" for arm, count in counts.items() if count)


def _oddities(teacher: Mapping[str, Any]) -> str:
    """What else the reader of the rows met, where it met something."""
    empty, conflicting = teacher["empty_texts_dropped"], teacher["conflicting_texts"]
    said = [f"{plural(empty, 'row')} with an empty text left out"] if empty else []
    said += [f"{plural(conflicting, 'text')} with two labels or more"] if conflicting else []
    return "".join(f"; {each}" for each in said)


def shown(value: Any) -> str:
    """A value in a few characters."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(list(value)) if isinstance(value, tuple) else str(value)


def shown_params(params: Mapping[str, Any]) -> str:
    """Parameters on one line."""
    return ", ".join(f"{name} {shown(value)}" for name, value in params.items())


class Pace:
    """How far a training is and how long it still takes, by the steps seen here: one that goes on from a checkpoint begins in the middle."""

    def __init__(self) -> None:
        self.seconds_left: float | None = None
        """None until two steps told how fast it goes."""
        self._first: tuple[float, int] | None = None
        self._step, self._steps = 0, 1
        self._told_at, self._told_step = time.monotonic(), 0

    def reach(self, step: int, steps: int) -> None:
        """A step of so many is done."""
        now = time.monotonic()
        self._step, self._steps, self._first = step, steps, self._first or (now, step)
        began, before = self._first
        self.seconds_left = (now - began) / (step - before) * (steps - step) if before < step else None

    def is_due(self) -> bool:
        """Whether a log file gets a line now, which then counts as told."""
        now = time.monotonic()
        is_first, far = self._told_step == 0, LOG_LINES * (self._step - self._told_step) >= self._steps
        waited = now - self._told_at
        due = waited >= LOG_SECONDS and (is_first or far or waited >= LOG_SECONDS_AT_MOST) and self._step < self._steps
        if due:
            self._told_at, self._told_step = now, self._step
        return due

    def text(self) -> str:
        """What is left."""
        return f"   about {duration(self.seconds_left)} to go" if self.seconds_left else ""


class SweepDisplay:
    """Live progress of one sweep, fed with its workers' events."""

    def __init__(
        self,
        console: Console,
        sweep: SweepConfig,
        finished: Mapping[Stage, int],
        workers: int = 1,
        warning: str | None = None,
    ) -> None:
        self._console, self._sweep, self._workers, self._warning = console, sweep, workers, warning
        self._bars = Progress(
            TextColumn("{task.description:>10}"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        )
        totals: dict[Stage, int] = {**{arm: sweep.budget(arm) for arm in ARMS}, "finalists": sweep.finalist_runs()}
        self._stages = {
            stage: self._bars.add_task(NAMES[stage], total=total, completed=finished[stage], note="")
            for stage, total in totals.items()
            if total
        }
        self._metric = sweep.study.metric
        self._now = ""
        self._metrics = ""
        self._teacher_pace = Pace()
        self._best: dict[Arm, tuple[float, int]] = {}
        self._trials: dict[int, dict[str, Any]] = {}
        """What each worker runs: the `trial` event, when it started, its metrics as text, the pace of its steps and of its epochs."""
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

    def show(self, event: Mapping[str, Any]) -> None:
        """Take in one event."""
        handlers = {
            "phase": self._phase,
            "note": self._note,
            "offline": self._note,
            "teacher_step": self._teacher_step,
            "teacher_epoch": self._teacher_epoch,
            "prepared": self._prepared,
            "trial": self._trial_started,
            "step": self._step,
            "epoch": self._epoch,
            "done": self._done,
        }
        if event["event"] in handlers:
            handlers[event["event"]](event)
        if isinstance(self._live, NotebookLive):
            self._live.refresh()

    def progress(self, finished: Mapping[Stage, int]) -> None:
        """Trials that ended on other hosts move the bars too."""
        for stage, task in self._stages.items():
            self._bars.update(task, completed=finished[stage])

    def forget(self, worker: int) -> None:
        """A worker is gone."""
        self._trials.pop(worker, None)

    def _phase(self, event: Mapping[str, Any]) -> None:
        self._now, self._metrics, self._teacher_pace = event["text"], "", Pace()
        if not self._is_live:
            self._console.print(f"{event['text']} …")

    def _note(self, event: Mapping[str, Any]) -> None:
        self._console.print(escape(event["text"]), style="yellow", soft_wrap=True)

    def _teacher_step(self, event: Mapping[str, Any]) -> None:
        pace = self._teacher_pace
        pace.reach(event["step"], event["steps"])
        self._metrics = f"step {event['step']}/{event['steps']}   L_hard {event['L_hard']:.3f}{pace.text()}"
        if pace.seconds_left and pace.is_due():
            self._log(f"teacher, {self._metrics}")

    def _teacher_epoch(self, event: Mapping[str, Any]) -> None:
        self._console.print(f"teacher, epoch {event['epoch']}: val_accuracy {event['val_accuracy']:.4f}")

    def _prepared(self, event: Mapping[str, Any]) -> None:
        teacher, facts = event["teacher"], event["plan"]
        source = "from the cache" if teacher["from_cache"] else "ready"
        accuracy, majority = teacher["val_accuracy"], teacher["majority_accuracy"]
        rows = f"{teacher['train_rows']} training, {teacher['validation_rows']} validation, {teacher['test_rows']} test"
        self._expected_seconds = facts["seconds_per_trial"]
        lines = {
            "rows": f"{rows}; {teacher['duplicates_dropped']} duplicates kept from crossing splits{_oddities(teacher)}",
            "max_length": facts["max_length"],
            "teacher": f"{source}: val_accuracy {accuracy:.4f} (majority class {majority:.4f})",
            "machine": f"{facts['device']}, {facts['precision']}, {plural(self._workers, 'worker')} of "
            f"{plural(facts['threads'], 'thread')}",
            "tracking": f"{facts['tracking']} ({facts['tracking_why']})",
            "estimate": f"{duration(self._left())} for {plural(self._open(), 'trial')} of about {facts['seconds_per_trial']:.1f} s",
        }
        plan(self._console, self._sweep, lines, self._warning)

    def _trial_started(self, event: Mapping[str, Any]) -> None:
        self._now = ""
        paces = {"pace": Pace(), "epochs_pace": Pace()}
        self._trials[event["worker"]] = {**event, "started": time.monotonic(), "metrics": "", **paces}

    def _step(self, event: Mapping[str, Any]) -> None:
        trial = self._trials[event["worker"]]
        epoch = f"epoch {event['epoch']}/{trial['epochs']}   step {event['step']}/{event['steps']}"
        trial["metrics"] = f"{epoch}   L_soft {event['L_soft']:.3f}   L_hard {event['L_hard']:.3f}"
        pace: Pace = trial["pace"]
        pace.reach(event["step"], event["steps"])
        if pace.seconds_left and pace.is_due():
            sweep = (
                f", the whole sweep about {duration(max(pace.seconds_left, self._left()))}"
                if self._expected_seconds
                else ""
            )
            self._log(f"{_running(trial)}{pace.text()}{sweep}")

    def _epoch(self, event: Mapping[str, Any]) -> None:
        trial = self._trials[event["worker"]]
        trial["metrics"] = f"epoch {event['epoch']}/{trial['epochs']}   {self._metric} {event[self._metric]:.4f}"
        elapsed = time.monotonic() - trial["started"]
        self._expected_seconds = elapsed * trial["epochs"] / event["epoch"]
        pace: Pace = trial["epochs_pace"]
        pace.reach(event["epoch"], trial["epochs"])
        if pace.is_due():
            self._log(_running(trial))

    def _done(self, event: Mapping[str, Any]) -> None:
        arm: Arm = event["arm"]
        stage: Stage = "finalists" if event["finalist"] else arm
        score = event["score"]
        self._trial_seconds.append(event["seconds"])
        self._bars.advance(self._stages[stage])
        feasible = event["status"] == "complete" and not event["violates"]
        if feasible and stage == arm and score > self._best.get(arm, (0.0, 0))[0]:
            self._best[arm] = (score, event["trial"])
        mark = {"complete": f"{self._metric} {score or 0:.4f}"}.get(event["status"], str(event["error"]).split("\n")[0])
        mark += "".join(f", breaks {each}" for each in event["violates"])
        params = shown_params(self._trials.pop(event["worker"])["params"])
        what = f"{ARM_NAMES[event['arm']]}{', finalist' if event['finalist'] else ''}"
        line = f"{what:>10} {event['trial']:4d}  {mark}  ({params}; {event['seconds']:.1f} s)"
        self._console.print(escape(line), highlight=False, soft_wrap=True)
        for name, (best, trial) in self._best.items():
            self._bars.update(self._stages[name], note=f"best {best:.4f} (trial {trial})")

    def _log(self, text: str) -> None:
        """What the live part shows."""
        if not self._is_live:
            self._console.print(escape(text), highlight=False, soft_wrap=True)

    def _open(self) -> int:
        return sum(int((task.total or 0) - task.completed) for task in self._bars.tasks)

    def _left(self) -> float:
        """Seconds to go: by the mean of the trials timed so far, before them by the first epoch, before it by the plan."""
        timed = self._trial_seconds or [self._expected_seconds]
        return self._open() * sum(timed) / len(timed) / max(1, len(self._trials) or self._workers)

    def _view(self) -> Group:
        left = f"about {duration(self._left())} to go" if self._expected_seconds else ""
        now = [escape(f"{self._now}   {self._metrics}")] if self._now else []
        running = [escape(_running(trial)) for trial in self._trials.values()]
        return Group(self._bars, *now, *running, left)


def _running(trial: Mapping[str, Any]) -> str:
    again = f" (attempt {trial['attempt']})" if trial["attempt"] > 1 else ""
    what = "finalist, " if trial["finalist"] else ""
    return f"{what}{ARM_NAMES[trial['arm']]} trial {trial['trial']}{again}: {shown_params(trial['params'])}   {trial['metrics']}"
