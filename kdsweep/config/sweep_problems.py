"""Check a whole sweep: arms and budgets, real trials at the ends of every axis, enqueued points."""

from kdsweep.config.arms import ARM_NAMES, FIXED_BY
from kdsweep.config.conditions import condition_text
from kdsweep.config.sweep import UNLABELED_SOURCES, SweepConfig
from kdsweep.config.trial_fields import TRIAL_DEFAULTS
from kdsweep.config.yaml import plain_values
from kdsweep.errors import ConfigError

FILES = ("train_file", "validation_file", "test_file", "unlabeled_file", "teacher_file")
"""Fields that may name a csv file."""


def sweep_problems(sweep: SweepConfig) -> list[str]:
    """List what is wrong with a sweep whose sections and axes are in order, each problem as a sentence."""
    return [*_file_problems(sweep), *_arm_problems(sweep), *_trial_problems(sweep), *_queue_problems(sweep)]


def _file_problems(sweep: SweepConfig) -> list[str]:
    """List a delimiter that no trial reads a file with; a trial of the fine-tuned arm may have it beside a dataset, without the texts' file."""
    read = [name for name in FILES if any(sweep.values(name))]
    if read or not any(sweep.values("csv_delimiter")):
        return []
    return [f"a file ({', '.join(FILES)}) is named beside csv_delimiter must hold, but got csv_delimiter alone"]


def _arm_problems(sweep: SweepConfig) -> list[str]:
    """List what is wrong with the arms of axes and with the budget of an arm that the sweep cannot have."""
    problems = []
    if sweep.study.pseudo_labeled and not sweep.has_unlabeled():
        problems.append(
            f"study.pseudo_labeled: the arm needs texts without labels ({', '.join(UNLABELED_SOURCES)}), but there are none; "
            f"null or 0 leaves it out, but got {sweep.study.pseudo_labeled}"
        )
    for key, axis in sweep.search.items():
        lacking = [arm for arm in axis.arms if arm not in sweep.arms]
        fixing = [arm for arm in axis.arms if key in FIXED_BY[arm]]
        searching = [arm for arm in sweep.arms if key in sweep.axes(arm)]
        if lacking:
            problems.append(
                f"search.{key}.arms: the sweep's arms are {', '.join(sweep.arms)}, but got {', '.join(lacking)}"
            )
        elif fixing:
            stays = "; ".join(f"{arm} always has {key} {FIXED_BY[arm][key]}" for arm in fixing)
            problems.append(f"search.{key}.arms: an arm that fixes {key} cannot search it: {stays}")
        elif axis.arms and key in sweep.fixed and all(arm in searching or key in FIXED_BY[arm] for arm in sweep.arms):
            problems.append(f"{key} is both fixed and searched in every arm; remove one")
    return problems


def _trial_problems(sweep: SweepConfig) -> list[str]:
    """List the problems of real configs with the choices or both ends of every axis, so that a bad range is refused before any training."""
    points = {arm: sweep.corners(arm) for arm in sweep.arms}
    problems = [
        f"search.{name} is in no trial, since no trial has {condition_text(axis.when)}; drop the axis, or another condition"
        for name, axis in sweep.search.items()
        if axis.when and not any(name in point for of_arm in points.values() for point in of_arm)
    ]
    for arm, of_arm in points.items():
        for point in of_arm:
            try:
                sweep.trial(arm, point)
            except ConfigError as error:
                of_arm_alone = "" if arm == "distilled" else f", in the {ARM_NAMES[arm]} arm"
                problems += [f"{problem}{of_arm_alone}" for problem in error.problems if problem not in problems]
    return problems


def _queue_problems(sweep: SweepConfig) -> list[str]:
    """List the fields of enqueued points whose condition does not hold there, or not whatever is sampled beside them."""
    problems = []
    for point in sweep.enqueue:
        known, open_ = {**TRIAL_DEFAULTS, **sweep.fixed}, set[str]()
        for name, axis in sweep.axes("distilled").items():
            sampled = sorted(open_ & set(axis.when))
            if name in point and (sampled or not axis.applies(known)):
                rule = f"enqueue: {name} is searched only when {condition_text(axis.when)}, so a point that names it must say so"
                way_out = "on the command line, enqueue=null drops all points"
                problems.append(f"{rule} ({way_out}), but got {plain_values(point)}")
            elif name in point:
                known[name] = point[name]
            elif sampled or axis.applies(known):
                open_.add(name)
    return problems
