"""Find fields of a trial that a sweep gives although its trials do not read them."""

from kdsweep.config.sweep import ARMS, SweepConfig


def unread_problems(sweep: SweepConfig) -> list[str]:
    """List the lengths of a trial that are given but not read: `epochs` beside `max_steps`, and `evaluations` without it."""
    steps = {
        arm: sweep.axes(arm)["max_steps"].ends() if "max_steps" in sweep.axes(arm) else (sweep.fixed.get("max_steps"),)
        for arm in ARMS
    }
    unread = {
        "epochs": ("where max_steps is set", [arm for arm in ARMS if None not in steps[arm]]),
        "evaluations": ("where max_steps is null", [arm for arm in ARMS if set(steps[arm]) == {None}]),
    }
    problems = []
    for name, (when, arms) in unread.items():
        searched = any(name in sweep.axes(arm) for arm in arms)
        if searched or (name in sweep.fixed and arms == list(ARMS)):
            given = f"{'search' if searched else 'fixed'}.{name}"
            problems.append(
                f"{name} is not read {when}, but {given} is given; remove one of them (on the command line, {given}=null)"
            )
    return problems
