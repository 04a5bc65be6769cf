"""A run's name says what was searched, short; its notes say which trial it is and what its losses mean."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kdsweep.config.arms import Arm
from kdsweep.config.axis import Axis
from kdsweep.config.sweep import SweepConfig
from kdsweep.config.sweep_file import load_sweep
from kdsweep.config.tasks import METRICS
from kdsweep.config.trial import TrialConfig
from kdsweep.records.layout import TrialId
from kdsweep.records.schema import Pages
from kdsweep.tracking.in_words import LONGEST_NAME, convention, links, run_name, short_number, trial_notes

Config = Callable[..., TrialConfig]


@pytest.fixture
def sweep(tiny_sweep_file: Callable[..., Path]) -> SweepConfig:
    searched = {"batch_size": {"choices": [8, 16]}, "student_layers": {"choices": [2, [0, 1]]}}
    return load_sweep(tiny_sweep_file(fixed={"student_layers": None, "batch_size": None}, search=searched))


def named(sweep: SweepConfig, config: TrialConfig, arm: Arm = "distilled") -> str:
    return run_name("x", sweep, config, TrialId(arm, 7))


def test_a_name_holds_the_searched_values_of_its_arm_and_no_others(sweep: SweepConfig, tiny_config: Config) -> None:
    config = tiny_config(temperature=2.5, alpha=0.2, learning_rate=3e-4, batch_size=16, student_layers=(0, 1))
    assert named(sweep, config) == "x · T 2.5 · α 0.2 · lr 3e-4 · b16 · layers 0,1"
    assert named(sweep, config, "fine_tuned") == "x · lr 3e-4 · b16 · layers 0,1"
    conditional = {**sweep.search, "temperature": replace(sweep.search["temperature"], when={"batch_size": (8,)})}
    assert "T 2.5" not in named(replace(sweep, search=conditional), config)


def test_a_path_is_its_last_two_parts_and_a_long_name_is_cut(sweep: SweepConfig, tiny_config: Config) -> None:
    students = replace(sweep, search={"student": Axis(choices=("/home/me/models/tiny/model", "x"))})
    config = tiny_config(student="/home/me/models/tiny/model", student_layers=6)
    assert named(students, config) == "x · student tiny/model"
    names = ("teacher_batch_size", "teacher_learning_rate", "relation_heads", "max_grad_norm", "max_length", "seed")
    long = replace(sweep, search={name: Axis(choices=(1, 2)) for name in names})
    assert len(named(long, tiny_config())) == LONGEST_NAME and named(long, tiny_config()).endswith("…")


@pytest.mark.parametrize(
    ("value", "said"),
    [(2.5, "2.5"), (3e-4, "3e-4"), (3.24e-4, "3.2e-4"), (0.237, "0.24"), (0.05, "0.05"), (1.0, "1"), (0.0, "0"), (16.0, "16")]
    + [(1e-3, "1e-3"), (250.0, "250"), (1e7, "1e7"), (12.34, "12"), (1e-5, "1e-5"), (-0.5, "-0.5")],
)  # fmt: skip
def test_numbers_are_short(value: float, said: str) -> None:
    assert short_number(value) == said


def test_notes_say_which_trial_it_is_and_the_convention_of_its_loss(sweep: SweepConfig, tiny_config: Config) -> None:
    notes = trial_notes(sweep, tiny_config(), TrialId("distilled", 7, 12), 2)
    assert notes.startswith(
        "Distilled trial 7 of the sweep tiny once more, on the fresh seed 12: a finalist. Attempt 2.\n\n"
    )
    assert "L = alpha · L_soft + (1 − alpha) · L_hard." in notes and "alpha weighs the soft term" in notes
    assert "T² · KL" in notes and "L_relation" not in notes
    other = convention(tiny_config(soft_loss="mse", relation_weight=1.0))
    assert "relation_weight · L_relation" in other and "squared difference" in other and "KL" not in other


def test_the_convention_of_the_soft_loss_is_the_tasks(tiny_config: Config) -> None:
    said = {task: convention(tiny_config(), task) for task in METRICS}
    assert "sum over labels of KL" in said["multi_label"] and "the teacher's number" in said["regression"]
    assert "KL" not in said["regression"] and convention(tiny_config()) == said["single_label"]


def test_notes_lead_to_the_sweeps_runs_report_and_view_where_they_are_known() -> None:
    pages = Pages(view_url="https://w/v", report_url="https://w/r", report_id="x")
    assert links(None, None, "s") == []
    assert links(pages, "https://w/e/p", "a b") == [
        "[All runs of a b](https://w/e/p/groups/a%20b)",
        "[Report](https://w/r)",
        "[View](https://w/v)",
    ]
