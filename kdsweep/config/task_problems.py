"""Check a sweep against its task: the metrics that the task has, and the fields that it reads."""

from kdsweep.config.sweep import SweepConfig
from kdsweep.config.tasks import METRICS, TaskName, stated_task

OF_CLASSES = ("temperature", "temperature_end", "soft_loss", "label_smoothing")
"""Fields that a regression does not read: its L_soft and L_hard are squared errors."""


def task_problems(sweep: SweepConfig, task: TaskName) -> list[str]:
    """List what of `sweep` does not go with `task`, which its file states, or which is what the data say."""
    stated = stated_task(sweep.fixed) == task
    name, metrics = ("" if stated else "of these data ") + f"(task: {task})", ", ".join(METRICS[task])
    problems = []
    if sweep.study.metric not in METRICS[task]:
        way_out = "" if stated else f"; fixed.task: {task} takes {METRICS[task][0]} where study.metric is left out"
        problems.append(
            f"study.metric is one that the task {name} has, {metrics}, but got {sweep.study.metric}{way_out}"
        )
    for field in OF_CLASSES if task == "regression" else ():
        for given in (f"{part}.{field}" for part in ("fixed", "search") if field in getattr(sweep, part)):
            problems.append(
                f"{field} is not read in the task {name}, whose losses are squared errors, but {given} is given; remove it (on the command "
                f"line, {given}=null)"
            )
    if task != "single_label" and not stated and any(value != "none" for value in sweep.values("class_weights")):
        problems.append(
            f"class_weights: balanced weighs the classes of task: single_label, but the task {name} has none"
        )
    return problems


def task_notes(sweep: SweepConfig, task: TaskName) -> list[str]:
    """Return what is worth a note about a `task` that the data say: accuracy, where no file names a metric, is a strict one of several labels."""
    if task != "multi_label" or stated_task(sweep.fixed) or sweep.study.metric != "val_accuracy":
        return []
    return [
        "the rows have lists of labels (task: multi_label), and study.metric is val_accuracy: the share of rows with all labels right; "
        f"fixed.task=multi_label ranks by {METRICS[task][0]}"
    ]
