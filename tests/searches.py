"""A search without training: a small sweep, and its trials taken and told as a worker does."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import optuna

from kdsweep.config.axis import Axis
from kdsweep.config.sweep import FinalistsConfig, StudyConfig, SweepConfig
from kdsweep.errors import TrialFailed
from kdsweep.records.schema import Status, missing_result
from kdsweep.search.studies import Assignment, Studies

Point = dict[str, Any]
AXES = {
    "temperature": Axis(low=1.0, high=16.0, log=True),
    "alpha": Axis(low=0.0, high=1.0),
    "learning_rate": Axis(low=1e-5, high=1e-3, log=True),
    "batch_size": Axis(choices=(16, 32, 64)),
}


def sweep_of(search: dict[str, Axis] = AXES, enqueue: Sequence[Point] = (), **study: Any) -> SweepConfig:
    """A sweep of 5 distilled trials and no control."""
    settings = {"trials": 5, "controls": 0, "startup_trials": 2, "pruner": "none", **study}
    fixed = {"train_file": "rows.csv", "teacher": "bert", "teacher_epochs": 1}
    queue, none = tuple(enqueue), FinalistsConfig(top=0)
    return SweepConfig(
        name="s", fixed=fixed, search=search, study=StudyConfig(**settings), enqueue=queue, finalists=none
    )


Objective = Callable[[Assignment, Point], float]


def run_next(studies: Studies, arm: Any, objective: Objective) -> None:
    """Take, run, tell, as the worker does."""
    assignment = studies.take_from(arm)
    assert assignment is not None
    status: Status = "complete"
    accuracy = None
    try:
        accuracy = objective(assignment, dict(assignment.params))
    except TrialFailed:
        status = "failed"
    except optuna.TrialPruned:
        status = "pruned"
    except BaseException:
        studies.put_back(assignment)
        raise
    result = missing_result(arm, assignment.id.number, status=status, error="", attempt=assignment.attempt)
    assert studies.finish(assignment, replace(result, val_accuracy=accuracy), {})
