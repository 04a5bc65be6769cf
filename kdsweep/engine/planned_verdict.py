"""Say in the plan, before anything runs, what the finalists of a sweep can find."""

from kdsweep.analysis.planned_power import ALIKE, UNLIKE, found_difference
from kdsweep.config.sweep import SweepConfig
from kdsweep.config.tasks import TaskName, stated_task

USUAL_ROWS = 3000
"""Rows for which the plan is computed before data are read."""


def what_they_find(sweep: SweepConfig, rows: int | None = None, task: TaskName | None = None) -> str:
    """Return the true difference that the finalists' verdict finds with a chance of 80 % on `rows` rows, in words.

    Without `rows`, before data are read, it is that on `USUAL_ROWS` rows. Without `task` it is that of the task that the file states, else
    of classes. The F1 of a row is planned as if it were right or wrong; how far squared errors vary is not known before.
    """
    task = task or stated_task(sweep.fixed) or "single_label"
    distilled, fine_tuned = sweep.budget("distilled"), sweep.budget("fine_tuned")
    counts = [min(sweep.finalists.top, budget) for budget in (distilled, fine_tuned)]
    if not all(counts):
        return "an arm has none, so there will be no verdict"
    among, seeds, on = (distilled, fine_tuned), sweep.finalists.seeds, rows or USUAL_ROWS
    little, much = (found_difference(counts, among, seeds=seeds, rows=on, spread=spread) for spread in (ALIKE, UNLIKE))
    if little is None or much is None:
        return "a single run of an arm gives no verdict: finalists.top, finalists.seeds"
    if task == "regression":
        return "rests on squared errors: what it finds depends on how far they vary, and stands in the report"
    unit = "points of F1, if F1 varies as accuracies do," if task == "multi_label" else "points"
    where = f"on {on:,} test rows" if rows is None else f"on these {on:,} rows"
    if max(counts) == 1:
        alone = "whether distilling helps takes several of each arm to say (finalists.top above 1)"
        return f"finds {_points(little, unit)} {where} with a chance of 80 % between these two configurations alone; {alone}"
    return (
        f"finds a true difference of {_points(little, unit)} {where} with a chance of 80 % where finalists of an arm differ little "
        f"({100 * ALIKE:.2g} points), {_points(much, 'points')} where they differ much ({100 * UNLIKE:.2g})"
    )


def _points(difference: float, unit: str) -> str:
    return f"{100 * difference:.1f} {unit}"
