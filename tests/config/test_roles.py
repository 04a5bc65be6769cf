"""What stands beside the fields of a config, and every list that is derived from it: today's lists, spelled out."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from kdsweep.config.roles import NOT_NEGATIVE, POSITIVE, Pattern, Range, Role, Trait, beside, broken_rules, roles
from kdsweep.config.sweep import StudyConfig
from kdsweep.config.trial import FIELD_TYPES, TrialConfig
from kdsweep.config.trial_fields import PATH_FIELDS, REVISIONS, ROLES, UNSEARCHABLE, decided_by

RANKED_ROWS = """
dataset dataset_config dataset_revision train_split validation_split test_split train_file validation_file test_file
validation_fraction test_fraction split_seed text_column text_pair_column label_column label_names id_column validation_limit csv_delimiter
task label_columns encoding drop_empty_texts
"""
MACHINE = "device threads teacher_threads devices_per_trial"
TEACHER = """
teacher teacher_revision teacher_file teacher_threads teacher_epochs teacher_learning_rate teacher_batch_size teacher_seed teacher_folds
teacher_keep precision class_weights
"""
LOSS_AND_TRAINING = """
temperature alpha temperature_end alpha_end soft_loss label_smoothing relation_weight relation_heads unlabeled_share pseudo_labels
learning_rate batch_size epochs max_steps evaluations warmup_ratio weight_decay max_grad_norm devices_per_trial threads
"""
STEPS: list[tuple[Role, str]] = [
    (Role.ROWS, RANKED_ROWS),
    (Role.TRAIN_ROWS, "train_limit"),
    (Role.TOKENS, "max_length device"),
    (Role.TEACHER, TEACHER),
    (Role.UNLABELED, "unlabeled_file unlabeled_split unlabeled_rest unlabeled_limit"),
    (Role.STUDENT_TOKENS, "student student_revision student_body student_body_revision student_vocabulary"),
    (Role.STUDENT, "student_layers student_init seed"),
    (Role.TRAINING, LOSS_AND_TRAINING),
]
"""What every material adds to the fields of the one that it is made from."""


def test_what_is_made_later_depends_on_the_fields_of_all_before() -> None:
    so_far: set[str] = set()
    for role, added in STEPS:
        so_far |= set(added.split())
        assert set(decided_by(role)) == so_far and len(decided_by(role)) == len(so_far)
    assert so_far == set(FIELD_TYPES) == set(ROLES)


def test_what_may_be_searched_and_what_is_a_path() -> None:
    assert sorted(UNSEARCHABLE) == sorted((RANKED_ROWS + MACHINE).split())
    files = ("train_file", "validation_file", "test_file", "unlabeled_file")
    assert ("dataset", *files, "teacher", "teacher_file", "student", "student_body") == PATH_FIELDS
    assert {name: f"{name}_revision" for name in ("dataset", "teacher", "student", "student_body")} == REVISIONS


def test_what_may_change_while_a_sweep_goes_on() -> None:
    free = "trials controls pseudo_labeled storage keep_students target timeout_minutes max_attempts checkpoint_seconds heartbeat_seconds"
    names = {name for name, trait in beside(StudyConfig, Trait).items() if Trait.FREE in trait}
    assert names == {*free.split(), "constraints", "accept_weak_teacher"}


def test_every_auto_is_a_fact_of_the_hub_of_the_machine_or_of_the_rows() -> None:
    automatic = {field.name for field in dataclasses.fields(TrialConfig) if field.default == "auto"}
    machine = {name for name, trait in beside(TrialConfig, Trait).items() if Trait.MACHINE in trait}
    assert automatic == set(REVISIONS.values()) | machine - {"devices_per_trial"} | {"precision", "task"}


def test_a_field_without_a_role_cannot_be_written() -> None:
    @dataclass
    class Forgetful:
        told: Annotated[int, Role.ROWS, POSITIVE]
        forgotten: Annotated[int, POSITIVE]
        plain: str = ""

    with pytest.raises(TypeError, match=r"Forgetful must have a role .* \['forgotten', 'plain'\] have none"):
        roles(Forgetful)

    @dataclass
    class Undecided:
        field: Annotated[int, Role.ROWS, Role.STUDENT]

    with pytest.raises(TypeError, match=r"Undecided\.field must have one Role at most"):
        roles(Undecided)


@pytest.mark.parametrize(
    ("numbers", "rule", "inside", "outside"),
    [
        (POSITIVE, "x > 0", [1e-300, 1], [0, -1]),
        (NOT_NEGATIVE, "x >= 0", [0, 5], [-1e-9]),
        (Range(least=4), "x >= 4", [4], [3.99]),
        (Range(least=0, most=1), "0 <= x <= 1", [0, 1], [-0.01, 1.01]),
        (Range(above=0, most=0.5), "0 < x <= 0.5", [0.5], [0, 0.51]),
    ],
)
def test_a_range_holds_what_its_rule_says(numbers: Range, rule: str, inside: list[float], outside: list[float]) -> None:
    assert numbers.rule("x") == rule
    assert all(map(numbers.holds, inside)) and not any(map(numbers.holds, outside))


def test_ranges_and_patterns_ask_only_the_values_that_they_are_about() -> None:
    @dataclass
    class Mixed:
        threads: Annotated[Any, POSITIVE]
        device: Annotated[str | None, Pattern("cpu|cuda", "is cpu or cuda")] = None

    for fine in (3, "auto", None, (0, 1)):
        assert list(broken_rules(Mixed(fine))) == []
    assert list(broken_rules(Mixed(0, "cpu, or cuda"), "a.")) == [
        ("a.threads > 0", "0"),
        ("a.device is cpu or cuda", "'cpu, or cuda'"),
    ]
