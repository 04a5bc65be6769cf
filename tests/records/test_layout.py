"""Names of what lies under results/."""

from pathlib import Path

import pytest

from kdsweep.records.layout import TrialId, trial_folder, trial_in


@pytest.mark.parametrize(
    ("trial", "stage", "name"),
    [
        (TrialId("distilled", 7), "distilled", "trials/0007"),
        (TrialId("fine_tuned", 12345), "fine_tuned", "controls/12345"),
        (TrialId("pseudo_labeled", 2), "pseudo_labeled", "pseudo_labels/0002"),
        (TrialId("pseudo_labeled", 2, 5), "finalists", "finalists/pseudo_labeled-0002-seed5"),
        (TrialId("distilled", 7, 12), "finalists", "finalists/distilled-0007-seed12"),
        (TrialId("fine_tuned", 3, 0), "finalists", "finalists/fine_tuned-0003-seed0"),
    ],
)
def test_a_trials_folder_says_which_trial_it_is(trial: TrialId, stage: str, name: str) -> None:
    assert trial.stage == stage
    assert trial_folder(Path("s"), trial) == Path("s") / name
    assert trial_in(Path("s") / name) == trial


@pytest.mark.parametrize("name", ["teacher", "trials/new", "finalists/0007", "trials/distilled-0007-seed1"])
def test_another_folder_is_no_trials(name: str) -> None:
    assert trial_in(Path("s") / name) is None
