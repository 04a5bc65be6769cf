"""Say in words what a W&B run is: a short name of the searched values, and notes with the loss's convention."""

from typing import Any
from urllib.parse import quote

from kdsweep.config.arms import ARM_NAMES
from kdsweep.config.sweep import SweepConfig
from kdsweep.config.tasks import TaskName
from kdsweep.config.trial import TrialConfig
from kdsweep.config.trial_fields import PATH_FIELDS
from kdsweep.records.layout import TrialId
from kdsweep.records.schema import Pages

SHORT = {
    "temperature": "T ",
    "temperature_end": "T end ",
    "alpha": "α ",
    "alpha_end": "α end ",
    "learning_rate": "lr ",
    "batch_size": "b",
    "epochs": "e",
    "weight_decay": "wd ",
    "warmup_ratio": "warmup ",
    "label_smoothing": "smoothing ",
    "relation_weight": "relation ",
    "student_layers": "layers ",
}
"""What stands for a field in a run's name; other fields have their own names."""
LONGEST_VALUE, LONGEST_NAME = 24, 100
"""Characters of one value in words, and of a run's name."""
DOT = " · "

LOSS = "L = alpha · L_soft + (1 − alpha) · L_hard"
KL = "L_soft = T² · KL(teacher ‖ student)"
MSE = "L_soft = half the mean squared difference of the centred logits, where T has no effect"
SOFT: dict[TaskName, dict[str, str]] = {
    "single_label": {"kl": KL, "mse": MSE},
    "multi_label": {
        "kl": "L_soft = T² · the sum over labels of KL(teacher ‖ student), each label a yes or no",
        "mse": "L_soft = an eighth of the squared difference of the logits, summed over labels, where T has no effect",
    },
    "regression": dict.fromkeys(
        ("kl", "mse"), "L_soft = the mean squared difference from the teacher's number, where T has no effect"
    ),
}
"""What L_soft is, by task and `soft_loss`."""


def run_name(short: str, sweep: SweepConfig, config: TrialConfig, trial: TrialId) -> str:
    """Return a run's name, its `short` name before the searched values: `d7 · T 2.5 · α 0.2 · lr 3e-4 · b16`."""
    searched = sweep.searched(config)
    values = {name: searched[name] for name in sweep.axes(trial.arm) if searched[name] is not None}
    return _cut(DOT.join([short, *(SHORT.get(name, f"{name} ") + _short(name, values[name]) for name in values)]))


def _short(name: str, value: Any) -> str:
    """Return one value as a run's name shows it: floats to two digits, the last two parts of a path."""
    if isinstance(value, float):
        return short_number(value)
    if name in PATH_FIELDS:
        return last_parts(str(value))[-LONGEST_VALUE:]
    listed = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return listed if len(listed) <= LONGEST_VALUE else f"{listed[: LONGEST_VALUE - 1]}…"


def short_number(value: float) -> str:
    """Return a number to two digits, the shorter of `0.03` and `3e-2`; whole numbers from 100 keep all their digits."""
    digits, power = f"{value:.1e}".split("e")
    plain = f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:.2g}"
    return plain if "e" not in plain and len(plain) <= 4 else min(plain, f"{float(digits):g}e{int(power)}", key=len)


def last_parts(address: str) -> str:
    """Shorten a path or `wheel:` address to its last two parts; a hub name stays as it is."""
    path = address.split("#")[0].removeprefix("wheel:").rstrip("/")
    return "/".join(path.replace("\\", "/").split("/")[-2:])


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"


# Notes ---------------------------------------------------------------------------------------------------------------


def trial_notes(
    sweep: SweepConfig, config: TrialConfig, trial: TrialId, attempt: int, task: TaskName = "single_label"
) -> str:
    """Return the notes of a trial's run: which trial of which sweep it is, and what its losses mean."""
    what = f"{ARM_NAMES[trial.arm].capitalize()} trial {trial.number} of the sweep {sweep.name}"
    if trial.seed is not None:
        what += f" once more, on the fresh seed {trial.seed}: a finalist"
    again = f" Attempt {attempt}." if attempt > 1 else ""
    return f"{what}.{again}\n\n{convention(config, task)}"


def convention(config: TrialConfig, task: TaskName = "single_label") -> str:
    """Return the loss of a trial in words: what alpha weighs, and with which factors the parts are logged."""
    relation = " + relation_weight · L_relation" if config.relation_weight else ""
    soft = SOFT[task][config.soft_loss]
    return (
        f"{LOSS}{relation}. alpha weighs the soft term, so alpha 0 is plain fine-tuning. {soft}; L_soft and L_hard are logged "
        "without alpha's weights."
    )


def teacher_notes(sweep: SweepConfig) -> str:
    """Return the notes of the teacher's run."""
    return f"The teacher of the sweep {sweep.name}, which all its students met."


def verdict_notes(sweep: SweepConfig) -> str:
    """Return the notes of the verdict's run."""
    return (
        f"The verdict of the sweep {sweep.name}: its distilled finalists against its fine-tuned ones, on fresh seeds. The headline "
        "stands in the summary."
    )


def links(pages: Pages | None, project_url: str | None, group: str) -> list[str]:
    """Return the lines of a run's notes that lead to its sweep's runs, its report and the project's view, of those that are known."""
    runs = [f"[All runs of {group}]({project_url}/groups/{quote(group)})"] if project_url else []
    return runs + (report_links(pages) if pages else [])


def report_links(pages: Pages) -> list[str]:
    """Return the lines of a run's notes that lead to the sweep's report and the project's view."""
    return [f"[Report]({pages.report_url})", f"[View]({pages.view_url})"]
