"""What the plan says a choice of finalists and seeds can find."""

from dataclasses import replace

import pytest
from searches import sweep_of

from kdsweep.config.sweep import FinalistsConfig, StudyConfig
from kdsweep.engine.planned_verdict import what_they_find


@pytest.mark.parametrize(
    ("trials", "controls", "top", "seeds", "said"),
    [
        (
            24,
            24,
            10,
            1,
            "finds a true difference of 0.9 points on 3,000 test rows with a chance of 80 % where finalists",
        ),
        (24, 24, 3, 3, "(0.3 points), 3.2 points where they differ much (0.75)"),
        (
            24,
            24,
            1,
            3,
            "between these two configurations alone; whether distilling helps takes several of each arm to say",
        ),
        (24, 24, 1, 1, "a single run of an arm gives no verdict: finalists.top, finalists.seeds"),
        (24, 1, 9, 1, "a single run of an arm gives no verdict: finalists.top, finalists.seeds"),
        (24, 0, 9, 1, "an arm has none, so there will be no verdict"),
    ],
)
def test_before_data_are_read_it_is_said_for_3000_rows(
    trials: int, controls: int, top: int, seeds: int, said: str
) -> None:
    study = StudyConfig(trials=trials, controls=controls)
    sweep = replace(sweep_of(), study=study, finalists=FinalistsConfig(top=top, seeds=seeds))
    assert said in what_they_find(sweep)


def test_once_rows_are_known_it_is_said_for_them() -> None:
    sweep = replace(sweep_of(), study=StudyConfig(trials=24), finalists=FinalistsConfig(top=10, seeds=1))
    assert "a true difference of 1.8 points on these 400 rows" in what_they_find(sweep, 400)


def test_what_is_found_is_said_in_the_unit_of_the_task() -> None:
    sweep = replace(sweep_of(), study=StudyConfig(trials=24), finalists=FinalistsConfig(top=10, seeds=1))
    assert "a true difference of 1.8 points of F1, if F1 varies" in what_they_find(sweep, 400, "multi_label")
    stated = replace(sweep, fixed={**sweep.fixed, "task": "regression"})
    assert what_they_find(stated) == what_they_find(sweep, 400, "regression")
    assert "squared errors" in what_they_find(stated) and "points" not in what_they_find(stated)
