"""What a study of 1,000 finished trials costs the next one: taking and telling, against a study of 20, in one process.

python tests/benchmarks/bench_study.py
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna

from kdsweep.results import missing_result
from kdsweep.study import Studies
from kdsweep.sweep_config import Axis, StudyConfig, SweepConfig

TIMED = 10


def milliseconds(action: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - started)


def measure(finished: int) -> dict[str, float]:
    """Medians over the trials after `finished` ones, in milliseconds."""
    axes = {"temperature": Axis(low=1.0, high=16.0, log=True), "alpha": Axis(low=0.0, high=1.0)}
    fixed = {"train_file": "rows.csv", "teacher": "bert", "teacher_epochs": 1}
    sweep = SweepConfig(name="s", fixed=fixed, search=axes, study=StudyConfig(trials=2000, controls=0))
    with tempfile.TemporaryDirectory() as folder:
        studies = Studies(sweep, Path(folder))
        distributions = {
            "temperature": optuna.distributions.FloatDistribution(1.0, 16.0, log=True),
            "alpha": optuna.distributions.FloatDistribution(0.0, 1.0),
        }
        study = studies._studies["distilled"]
        for number in range(finished):
            share = number / finished
            point = {"temperature": 1.0 + 15 * share, "alpha": share}
            made = optuna.create_trial(params=point, distributions=distributions, value=0.5 + share / 4)
            study.add_trial(made)
        taken, told, looked = [], [], []

        def run() -> None:
            assignment = studies.take()
            assert assignment is not None
            taken.append(time.perf_counter())
            result = missing_result("distilled", assignment.trial, status="complete", error="", attempt=1)
            studies.finish(assignment, replace(result, val_accuracy=0.7), {})

        for _ in range(TIMED):
            started = time.perf_counter()
            run()
            told.append(1000 * (time.perf_counter() - taken[-1]))
            taken[-1] = 1000 * (taken[-1] - started)
            looked.append(milliseconds(lambda: (studies.is_open(), studies.is_done())))
    return {"take": statistics.median(taken), "tell": statistics.median(told), "look": statistics.median(looked)}


def main() -> int:
    """Print both sides and the ratio."""
    few, many = measure(20), measure(1000)
    print(f"{'milliseconds':24}{'20 trials':>12}{'1,000 trials':>14}{'ratio':>8}")
    for name, meaning in (("take", "take the next trial"), ("tell", "tell its end"), ("look", "the supervisor's look")):
        print(f"{meaning:24}{few[name]:12.1f}{many[name]:14.1f}{many[name] / few[name]:8.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
