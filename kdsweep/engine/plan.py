"""Print the plan of a sweep: what will run, every axis and who searches it, what the finalists can find."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kdsweep.analysis.formats import enumerated, plural
from kdsweep.config.arms import ARM_NAMES
from kdsweep.config.lengths import length_text
from kdsweep.config.sweep import SweepConfig
from kdsweep.config.tasks import TaskName
from kdsweep.engine.planned_search import Warm, warm_start_lines, what_rows_tell_apart
from kdsweep.engine.planned_shortcuts import planned_shortcuts
from kdsweep.engine.planned_verdict import what_they_find


def print_plan(
    console: Console,
    sweep: SweepConfig,
    facts: Mapping[str, str],
    warning: str | None = None,
    rows: int | None = None,
    task: TaskName | None = None,
    warm: Warm | None = None,
    validation_rows: int | None = None,
    train_rows: int | None = None,
) -> None:
    """Print the resolved plan: a `warning`, then what will run, every axis, and `facts`, one line each.

    `rows` is the number of rows that finalists will be compared on; None before data are read, as are `task`, what their labels ask of a
    model, `train_rows` and `validation_rows`. `warm` holds the points of `study.warm_start`; None: they stand in the study alone.
    """
    if warning:
        console.print(escape(warning), style="yellow", soft_wrap=True)
    table = Table(title=f"{sweep.name}: the plan", show_header=False, title_justify="left", box=None, padding=(0, 2))
    table.add_column()
    table.add_column(overflow="fold")
    for name, axis in sweep.search.items():
        arms = [ARM_NAMES[arm] for arm in sweep.arms if name in sweep.axes(arm)]
        also = "" if len(arms) == len(sweep.arms) else f"   ({enumerated(arms)} only)"
        if name == "temperature" and not axis.when and "mse" in sweep.values("soft_loss"):
            also += "   mse has no temperature: search.temperature.when.soft_loss=[kl] searches it under kl alone"
        table.add_row(f"search {name}", escape(axis.text()) + escape(also))
    for name, value in sweep.fixed.items():
        if value is not None:
            table.add_row(f"fixed {name}", escape(shown(value)))
    study = sweep.study
    budgets = " + ".join(f"{sweep.budget(arm)} {ARM_NAMES[arm]}" for arm in sweep.arms)
    table.add_row("trials", f"{budgets} for {study.metric} ({study.sampler}, pruner {study.pruner}, seed {study.seed})")
    if limits := study.constraints.text():
        table.add_row("constraints", f"{limits}: students that break one are not ranked")
    table.add_row("length", f"{length_text(sweep)} each")
    if runs := sweep.finalist_runs():
        seeds = ", ".join(map(str, sweep.finalist_seeds()))
        longer = f", {factor} times as long" if (factor := sweep.finalists.epochs_factor) > 1 else ""
        many = "fresh seeds" if sweep.finalists.seeds > 1 else "a fresh seed"
        table.add_row("finalists", f"{plural(runs, 'run')}: the best {_chosen(sweep)} on {many} ({seeds}){longer}")
        table.add_row("verdict", what_they_find(sweep, rows, task))
    else:
        table.add_row("finalists", "none, so there will be no verdict (finalists.top, finalists.seeds)")
    validation_rows = validation_rows or sweep.fixed.get("validation_limit")
    if told := what_rows_tell_apart(sweep, validation_rows, train_rows, task):
        table.add_row("validation", told)
    if sweep.enqueue:
        table.add_row("tried first", escape("; ".join(shown_params(item) for item in sweep.enqueue)))
    for name, line in warm_start_lines(sweep, warm, shown_params).items():
        table.add_row(name, escape(line))
    if taken := planned_shortcuts(sweep):
        table.add_row("shortcuts", escape(taken))
    for name, value in facts.items():
        table.add_row(name, escape(value))
    console.print(table)


def _chosen(sweep: SweepConfig) -> str:
    """Return how many finalists there will be, in words: `3 of each arm`, or `3 distilled and 1 fine-tuned` where an arm has fewer trials."""
    counts = {arm: min(sweep.finalists.top, sweep.budget(arm)) for arm in sweep.arms}
    if len(set(counts.values())) == 1:
        return f"{counts['distilled']} of each arm"
    return enumerated([f"{count} {ARM_NAMES[arm]}" for arm, count in counts.items() if count])


def shown(value: Any) -> str:
    """Return a value as a short text: a float with three significant digits, a tuple as a list."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(list(value)) if isinstance(value, tuple) else str(value)


def shown_params(params: Mapping[str, Any]) -> str:
    """Return parameters as one line of text."""
    return ", ".join(f"{name} {shown(value)}" for name, value in params.items())
