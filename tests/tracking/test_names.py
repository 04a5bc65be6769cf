"""No two runs have one id, people and `wandb leet` tell them apart, and an id says which run it is."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kdsweep.config.arms import ARMS, Arm
from kdsweep.config.sweep import LONGEST_TAG, SweepConfig
from kdsweep.config.sweep_file import load_sweep
from kdsweep.config.trial import TrialConfig
from kdsweep.records.layout import TrialId, new_sweep_key
from kdsweep.tracking.names import (
    RunLabel,
    attempt_of,
    export_label,
    export_number,
    is_teacher,
    key_in,
    student_name,
    sweep_facts,
    teacher_label,
    trial_label,
    verdict_label,
    verdict_number,
)

KEY = "k3x9qz"
Config = Callable[..., TrialConfig]


@pytest.fixture
def sweep(tiny_sweep_file: Callable[..., Path]) -> SweepConfig:
    return load_sweep(tiny_sweep_file())


def labels(sweep: SweepConfig, config: TrialConfig, key: str) -> Iterator[RunLabel]:
    """Of a large sweep."""
    for arm in ARMS:
        for attempt in (1, 2, 3):
            for trial in (0, 1, 7, 17, 71, 100, 999):
                yield from (
                    trial_label(sweep, key, config, TrialId(arm, trial, seed), attempt) for seed in (None, 1, 12)
                )
    yield teacher_label(sweep, key)
    yield from (verdict_label(sweep, key, number) for number in (1, 2, 12))


def test_ids_differ_over_runs_and_sweeps_of_one_name_and_names_within_twenty_letters(
    sweep: SweepConfig, tiny_config: Config
) -> None:
    made = [label for key in (KEY, "abcdef", "123456") for label in labels(sweep, tiny_config(), key)]
    assert len({label.run_id for label in made}) == len(made)
    of_one = list(labels(sweep, tiny_config(), KEY))
    assert len({label.name[:20] for label in of_one}) == len(of_one)
    assert max(len(label.run_id) for label in made) < 30
    assert len({new_sweep_key() for _ in range(1000)}) == 1000


def test_names_read_well(sweep: SweepConfig, tiny_config: Config) -> None:
    named = [trial_label(sweep, KEY, tiny_config(), TrialId("distilled", 7), attempt) for attempt in (1, 2)]
    confirming = (TrialId("distilled", 7, 12), TrialId("fine_tuned", 3, 12))
    named += [trial_label(sweep, KEY, tiny_config(), finalist, 1) for finalist in confirming]
    named.append(verdict_label(sweep, KEY, 2))
    assert [label.name for label in named] == [
        "d7 · T 2 · α 0.5 · lr 1e-3",
        "d7 a2 · T 2 · α 0.5 · lr 1e-3",
        "d7 s12 · T 2 · α 0.5 · lr 1e-3",
        "f3 s12 · lr 1e-3",
        "verdict 2",
    ]
    assert [label.job_type for label in named] == ["trial", "trial", "finalist", "finalist", "verdict"]


def test_the_list_of_wandb_leet_which_shows_three_letters_of_an_id_tells_a_hundred_trials_apart(
    sweep: SweepConfig, tiny_config: Config
) -> None:
    for arm in ARMS:
        shown = {trial_label(sweep, KEY, tiny_config(), TrialId(arm, trial), 1).run_id[:3] for trial in range(100)}
        assert len(shown) == 100 and {text[0] for text in shown} == {arm[0]}


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("seed", [None, 2])
def test_an_id_says_which_attempt_at_which_trial_it_is(
    arm: Arm, seed: int | None, sweep: SweepConfig, tiny_config: Config
) -> None:
    mine = trial_label(sweep, KEY, tiny_config(), TrialId(arm, 7, seed), 3).run_id
    job = (
        {"distilled": "trial", "fine_tuned": "control", "pseudo_labeled": "pseudo_label"}[arm]
        if seed is None
        else f"finalist-{arm}"
    )
    old = f"tiny-{job}-0007" + ("" if seed is None else f"-seed{seed}") + "-a3"
    for run_id in (mine, old):
        assert attempt_of(run_id, "tiny", TrialId(arm, 7, seed)) == 3
        others = [(ARMS[arm == ARMS[0]], 7, seed), (arm, 77, seed), (arm, 7, 5), (arm, 0, seed)]
        assert {attempt_of(run_id, "tiny", TrialId(*place)) for place in others} == {None}
        assert not is_teacher(run_id, "tiny") and verdict_number(run_id, "tiny") is None
    assert (key_in(mine), key_in(old)) == (KEY, None)


def test_the_ids_of_teacher_and_verdict_are_known_with_and_without_key(sweep: SweepConfig) -> None:
    assert is_teacher(teacher_label(sweep, KEY).run_id, "tiny") and is_teacher("tiny-teacher", "tiny")
    assert key_in(teacher_label(sweep, KEY).run_id) == KEY and key_in("tiny-teacher") is None
    for number in (1, 2, 12):
        label = verdict_label(sweep, KEY, number)
        assert verdict_number(label.run_id, "tiny") == number and key_in(label.run_id) == KEY
        exported = export_label(sweep, KEY, number).run_id
        assert export_number(exported) == number and key_in(exported) == KEY
        assert export_number(label.run_id) is None and verdict_number(exported, "tiny") is None
    assert [verdict_number(name, "tiny") for name in ("tiny-verdict", "tiny-verdict-3", "other-verdict")] == [
        1,
        3,
        None,
    ]


def test_facts_to_group_by_stand_beside_the_config_and_in_tags_that_w_and_b_takes(
    tiny_sweep_file: Callable[..., Path], tiny_config: Config
) -> None:
    fixed = {"train_file": None, "dataset": "nyu-mll/glue", "dataset_config": "sst2", "validation_fraction": None}
    sweep = load_sweep(tiny_sweep_file("s" * 64, fixed=fixed, tracking={"mode": "off", "tags": ["t" * 64]}))
    label = trial_label(sweep, KEY, tiny_config(), TrialId("fine_tuned", 7, 12), 1)
    wanted = {"sweep": "s" * 64, "sweep_key": KEY, "arm": "fine_tuned", "trial": 7}
    wanted |= {"student_name": "from_teacher 2 layers", "data_name": "nyu-mll/glue sst2"}
    assert label.facts == wanted and not set(label.facts) & set(vars(tiny_config()))
    assert label.tags[1:] == ("fine-tuned", "trial 7", "from_teacher 2 layers", "nyu-mll/glue sst2")
    assert all(1 <= len(tag) <= LONGEST_TAG for tag in label.tags) and label.tags[0].startswith("sss")


def test_students_and_rows_have_short_names(sweep: SweepConfig, tiny_config: Config) -> None:
    assert student_name(tiny_config(student_layers=(0, 2))) == "from_teacher layers 0,2"
    assert student_name(tiny_config(student_layers="last:2")) == "from_teacher last 2 layers"
    assert student_name(tiny_config(student="distilbert-base-uncased")) == "distilbert-base-uncased"
    assert student_name(tiny_config(student="wheel:gt-minilm==0.1.0/gt_minilm/model#sha256=ab")) == "gt_minilm/model"
    file = Path(sweep.fixed["train_file"])
    assert sweep_facts(sweep, KEY)["data_name"] == f"{file.parent.name}/{file.name}"
