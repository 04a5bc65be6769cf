"""A sweep that starts from the best of earlier ones: which points, fitted how, and read once."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from makers import make_sweep, make_trial
from searches import AXES, Point, run_next, sweep_of

from kdsweep.config.arms import Arm
from kdsweep.config.axis import Axis
from kdsweep.config.sweep import SweepConfig, sweep_yaml
from kdsweep.config.sweep_file import load_sweep
from kdsweep.errors import ResultsError
from kdsweep.search.studies import Studies
from kdsweep.search.warm_start import fitted, warm_points

POINT = {"temperature": 4.0, "alpha": 0.75, "learning_rate": 2e-4, "batch_size": 32}


def earlier(folder: Path, *trials: tuple[Arm, float, dict[str, Any]], **changes: Any) -> str:
    """A sweep's folder with these trials: arm, accuracy, and what is not as in POINT."""
    sweep = make_sweep(folder)
    for number, (arm, accuracy, other) in enumerate(trials):
        make_trial(folder, sweep, arm, number, {**POINT, **other}, accuracy, **changes)
    return str(folder)


def test_the_best_of_each_sweep_come_first_distinct_and_fitted(tmp_path: Path) -> None:
    one = earlier(
        tmp_path / "one",
        ("distilled", 0.7, {"alpha": 0.1}),
        ("distilled", 0.9, {"learning_rate": 0.5, "temperature": 32.0}),
        ("distilled", 0.8, {"learning_rate": 0.4, "temperature": 99.0}),  # the same, once fitted
        ("fine_tuned", 0.95, {"learning_rate": 1e-4, "batch_size": 48}),
    )
    two = earlier(tmp_path / "two", ("distilled", 0.2, {"alpha": 0.3}))
    sweep = sweep_of(warm_start=(one, two), startup_trials=3)
    assert warm_points(sweep, "distilled") == [
        {"temperature": 16.0, "alpha": 0.75, "learning_rate": 1e-3, "batch_size": 32},
        {**POINT, "alpha": 0.3},
        {**POINT, "alpha": 0.1},
    ]
    assert warm_points(sweep, "fine_tuned") == [{"learning_rate": 1e-4}], "48 is no choice, and is sampled"
    assert len(warm_points(replace(sweep, study=replace(sweep.study, startup_trials=1)), "distilled")) == 1


def test_a_trial_that_failed_or_breaks_a_constraint_is_no_start(tmp_path: Path) -> None:
    broken = earlier(tmp_path / "one", ("distilled", 0.9, {}), violates=("size_mb 70 > 60",))
    failed = earlier(tmp_path / "two", ("distilled", 0.9, {}), status="failed", error="nan")
    assert warm_points(sweep_of(warm_start=(broken, failed)), "distilled") == []


@pytest.mark.parametrize(
    ("axis", "value", "expected"),
    [
        (Axis(low=1.0, high=5.0, step=2.0), 3.9, 3.0),
        (Axis(low=1.0, high=5.0), 7, 5.0),
        (Axis(choices=(1.0, 2.0)), 2.0, 2.0),
        (Axis(choices=(1.0, 2.0)), 3.0, None),
        (Axis(low=1.0, high=5.0), "auto", None),
    ],
)
def test_a_value_is_fitted_into_an_axis(axis: Axis, value: Any, expected: Any) -> None:
    assert fitted("temperature", axis, value) == expected


def tried(folder: Path, sweep: SweepConfig, count: int) -> list[Point]:
    seen: list[Point] = []
    for _ in range(count):
        run_next(Studies(sweep, folder), "distilled", lambda _, point: seen.append(point) or point["alpha"])
    return seen


@pytest.mark.slow
def test_a_study_tries_them_after_the_queue_and_never_reads_the_folder_again(tmp_path: Path) -> None:
    one = earlier(tmp_path / "one", ("distilled", 0.9, {}), ("distilled", 0.8, {"alpha": 0.2}))
    (tmp_path / "now").mkdir()
    sweep = sweep_of(
        AXES, [{"alpha": 1.0, **{name: POINT[name] for name in POINT if name != "alpha"}}], warm_start=(one,)
    )
    first = tried(tmp_path / "now", sweep, 1)
    shutil.rmtree(one)
    assert first + tried(tmp_path / "now", sweep, 2) == [{**POINT, "alpha": 1.0}, POINT, {**POINT, "alpha": 0.2}]
    with pytest.raises(ResultsError, match="was made by another sweep file"):
        Studies(replace(sweep, study=replace(sweep.study, warm_start=())), tmp_path / "now")


def test_a_folder_without_a_sweep_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"holds sweep\.yaml, but .*nothing does not"):
        Studies(sweep_of(warm_start=(str(tmp_path / "nothing"),)), tmp_path)


def test_it_is_part_of_a_sweep_that_has_it_alone(tmp_path: Path) -> None:
    sweep = sweep_of()
    assert "study.warm_start" not in sweep.identity()
    warm = replace(sweep, study=replace(sweep.study, warm_start=("results/a",)))
    assert warm.identity()["study.warm_start"] == ("results/a",)
    (tmp_path / "sweep.yaml").write_text(sweep_yaml(warm), encoding="utf-8")
    assert load_sweep(tmp_path / "sweep.yaml").study.warm_start == ("results/a",)
