"""What the plan says a search starts from, and what its validation rows tell apart."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers import make_sweep, make_trial
from rich.console import Console
from searches import AXES, sweep_of

from kdsweep.analysis.planned_power import NEAR, SEED_SD, ranked_rightly
from kdsweep.config.sweep import SweepConfig, sweep_yaml
from kdsweep.engine.plan import print_plan
from kdsweep.engine.planned_search import planned_warm_start, what_rows_tell_apart
from kdsweep.errors import ResultsError
from kdsweep.run import main
from kdsweep.search.studies import Studies

POINT = {"temperature": 4.0, "alpha": 0.75, "learning_rate": 2e-4, "batch_size": 32}


def plan_of(sweep: SweepConfig, **facts: Any) -> str:
    print_plan(Console(file=(file := io.StringIO()), width=400), sweep, {}, **facts)
    return file.getvalue()


def warm_sweep(folder: Path) -> SweepConfig:
    earlier = make_sweep(folder / "one")
    for number, alpha in enumerate((0.25, 0.75)):
        make_trial(folder / "one", earlier, "distilled", number, {**POINT, "alpha": alpha}, 0.8 + alpha / 10)
    return replace(sweep_of(AXES, [{"alpha": 1.0}], controls=2, warm_start=(str(folder / "one"),)))


def test_the_plan_names_what_the_warm_start_tries(tmp_path: Path) -> None:
    sweep = warm_sweep(tmp_path)
    said = " ".join(plan_of(sweep, warm=planned_warm_start(sweep, tmp_path / "new")).split())
    best, second = (f"temperature 4, alpha {alpha}, learning_rate 0.0002, batch_size 32" for alpha in (0.75, 0.25))
    assert f"warm start distilled {best}; {second}, after those tried first" in said
    assert "warm start fine-tuned the earlier sweeps have no trial of this arm" in said
    assert "warm start" not in plan_of(replace(sweep, study=replace(sweep.study, warm_start=())))


def test_a_start_says_what_its_study_holds_and_a_dry_run_that_it_does(tmp_path: Path) -> None:
    sweep, folder = warm_sweep(tmp_path), tmp_path / "now"
    folder.mkdir()
    assert Studies(sweep, folder).warm_start == {
        "distilled": [POINT, {**POINT, "alpha": 0.25}],
        "fine_tuned": [],
    }
    (folder / "sweep.yaml").write_text(sweep_yaml(sweep), encoding="utf-8")
    (tmp_path / "one").rename(tmp_path / "gone")
    assert "one when it first started" in plan_of(sweep, warm=planned_warm_start(sweep, folder))
    with pytest.raises(ResultsError, match="one"):
        planned_warm_start(sweep, tmp_path / "new")


def test_a_dry_run_names_the_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KDSWEEP_RESULTS", str(tmp_path))
    (file := tmp_path / "s.yaml").write_text(sweep_yaml(warm_sweep(tmp_path)), encoding="utf-8")
    assert main([str(file), "--dry-run"]) == 0
    assert "warm start distilled" in capsys.readouterr().out


def test_the_better_of_two_students_scores_higher_as_often_as_it_is_said() -> None:
    rng, rows, draws = np.random.default_rng(0), 800, 100_000
    true = ranked_rightly(rows) + SEED_SD * np.diff(rng.standard_normal((draws, 2)), axis=1)[:, 0]
    won = rng.binomial(rows, NEAR / 2 + true / 2)  # rows that the better student alone has right
    lost = rng.binomial(rows, np.clip(NEAR / 2 - true / 2, 0, 1))
    assert np.mean(won > lost) + np.mean(won == lost) / 2 == pytest.approx(0.95, abs=0.005)


def test_rows_are_told_for_accuracies_alone() -> None:
    sweep = replace(sweep_of(), fixed={**sweep_of().fixed, "validation_limit": 800})
    said = " ".join(plan_of(sweep).split())
    assert f"validation 800 rows: of two students that truly differ by {100 * ranked_rightly(800):.1f} points" in said
    other_metric = replace(sweep, study=replace(sweep.study, metric="val_macro_f1"))
    assert what_rows_tell_apart(other_metric, 800) is None
    assert what_rows_tell_apart(sweep, 800, task="multi_label") is None
    assert what_rows_tell_apart(sweep, 800, task="regression") is None
    assert what_rows_tell_apart(sweep_of(), None) is None
    assert "validation" not in plan_of(sweep_of())


@pytest.mark.parametrize(
    ("limit", "rows", "train_rows", "advised"),
    [
        (800, 800, 9000, True),
        (800, 800, 1600, False),  # twice the rows take 17 % more time
        (800, 700, 9000, False),  # there are no more rows
        (None, 800, 9000, False),
    ],
)
def test_more_rows_are_advised_where_they_cost_little(
    limit: int | None, rows: int, train_rows: int, advised: bool
) -> None:
    sweep = replace(sweep_of(), fixed={**sweep_of().fixed, "epochs": 2, "validation_limit": limit})
    said = what_rows_tell_apart(sweep, rows, train_rows)
    assert said is not None and ("fixed.validation_limit=1600" in said) == advised
    assert not advised or "1.2 points apart for about 3 % more time a trial" in said


def test_steps_count_the_rows_that_they_take() -> None:
    fixed = {**sweep_of().fixed, "max_steps": 1000, "evaluations": 4, "validation_limit": 800}
    assert "about 7 % more time" in str(what_rows_tell_apart(replace(sweep_of(), fixed=fixed), 800, 10))
    longer = replace(sweep_of(), fixed={**fixed, "max_steps": 100_000})
    assert "for under 1 % more time" in str(what_rows_tell_apart(longer, 800, 10))
