"""Finalists that were trained longer than in the search: the gain, its interval, and the words about it."""

import json
from pathlib import Path

import numpy as np
import pytest
from makers import make_finalist, make_finals, make_full, page_of

from kdsweep.analysis.patience import mean_gain
from kdsweep.analysis.read_finals import read_finals
from kdsweep.analysis.two_arms import compare_finalists
from kdsweep.analysis.variances import row_variance, seed_variance
from kdsweep.config.axis import Axis
from kdsweep.config.lengths import lengthened
from kdsweep.config.trial_file import trial_yaml
from kdsweep.records.reading import read_trials
from kdsweep.records.whole_sweep import read_records
from kdsweep.reporting.build import build_report
from kdsweep.reporting.markdown import render_markdown, terminal_text
from kdsweep.reporting.write import write_report


def test_a_mean_gain_counts_rows_and_the_seeds_of_both_sides() -> None:
    rng = np.random.default_rng(0)
    pairs = [(rng.random((2, 500)) < 0.85, rng.random(500) < 0.8) for _ in range(3)]
    seeds = seed_variance([longer for longer, _ in pairs])
    assert mean_gain(pairs[:1], seeds) == compare_finalists(*pairs[0], seeds=seeds)
    found = mean_gain(pairs, seeds)
    assert found.difference == pytest.approx(np.mean([longer.mean() - searched.mean() for longer, searched in pairs]))
    rows = np.mean([longer.mean(axis=0) - searched for longer, searched in pairs], axis=0)
    shares = (1 / 2 + 1) / 3  # of the variance over seeds: two of each longer configuration, one in the search
    assert found.standard_error**2 == pytest.approx(row_variance(rows) + seeds.main * shares)
    assert found.counted == "rows and seeds"


def test_single_seeds_take_their_variance_from_the_configurations() -> None:
    rng = np.random.default_rng(1)
    pairs = [(rng.random((1, 500)) < 0.85, rng.random(500) < 0.8) for _ in range(9)]
    found = mean_gain(pairs, seed_variance([longer for longer, _ in pairs]))
    gains = [longer.mean() - searched.mean() for longer, searched in pairs]
    assert found.difference == pytest.approx(np.mean(gains)) and 8 <= found.df < 20
    assert found.low < np.mean(gains) - np.std(gains) / 3 and found.high > np.mean(gains) + np.std(gains) / 3


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder whose finalists were trained three times as long."""
    folder = tmp_path_factory.mktemp("longer") / "s"
    make_finals(folder, 0.95, 0.80)
    for run in read_trials(folder, "finalists"):
        (run.folder / "config.yaml").write_text(trial_yaml(lengthened(run.config, 3)), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_the_report_has_a_table_of_what_longer_training_gave(longer: Path) -> None:
    report = build_report(longer)
    assert report.patience is not None and {row.finalist.factor for row in report.patience.rows} == {3.0}
    said = dict(report.questions)["Does patience pay?"]
    assert said.startswith("Trained 3 times as long, on fresh seeds: +")
    assert "points for 2 fine-tuned finalists (95 % interval" in said and "the gain is rather larger" in said
    text = render_markdown(report)
    assert (
        "| distilled 0 " in text
        and "| 3 epochs " in text
        and "| 9 epochs " in text
        and "| distilled, mean of 2 " in text
    )
    assert "Does patience pay?" in terminal_text(report) and "9 epochs" not in terminal_text(report)
    write_report(longer)
    assert "9 epochs" in page_of(longer).text
    board = json.loads((longer / "leaderboard.json").read_text(encoding="utf-8"))
    assert [row["factor"] for row in board["patience"]["finalists"]] == [3.0] * len(report.patience.rows)
    arms = {row["arm"]: row for row in board["patience"]["arms"]}
    assert arms["distilled"]["low"] <= arms["distilled"]["difference"] <= arms["distilled"]["high"]
    assert {row["finalists"] for row in board["work"]} == {False, True} or len(board["work"]) == 2


def test_a_longer_finalist_has_the_searched_values_of_its_trial(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    rate = Axis(low=1e-5, high=1e-3, log=True, when={"epochs": (3,)})
    sweep = make_full(folder, search={"epochs": Axis(choices=(2, 3)), "learning_rate": rate}, epochs=None)
    make_finalist(folder, sweep, "distilled", 0, 1, 0.8)
    (run,) = read_trials(folder, "finalists")
    (run.folder / "config.yaml").write_text(trial_yaml(lengthened(run.config, 2)), encoding="utf-8")
    finals = read_finals(read_records(folder))
    assert finals is not None and finals.rows[0].factor == 2.0
    assert finals.rows[0].searched == {"epochs": 3, "learning_rate": 2e-4}


@pytest.mark.slow
def test_longer_finalists_say_nothing_of_how_the_search_flatters(longer: Path) -> None:
    report = build_report(longer)
    assert report.finals is not None and report.finals.shrinkage is None
    assert "flattered" not in dict(report.questions)["How sure is that?"]
    assert "All finalists were trained 3 times as long as in the search." in report.answer


@pytest.mark.slow
def test_without_longer_finalists_nothing_is_said_of_patience(tmp_path: Path) -> None:
    make_finals(tmp_path / "s", 0.85, 0.80, tested=False)
    report = build_report(tmp_path / "s")
    assert report.patience is None and "Does patience pay?" not in dict(report.questions)
    assert report.finals is not None and report.finals.shrinkage is not None


def test_a_gain_in_squared_error_has_no_bounds() -> None:
    rng = np.random.default_rng(0)
    searched = -40 * np.square(rng.standard_normal((2, 300)))
    pairs = [(0.5 * each + rng.standard_normal((2, 300)), each) for each in searched]
    gain = mean_gain(pairs, seed_variance([longer for longer, _ in pairs]), "minus_squared_error")
    assert gain.score == "minus_squared_error" and 1 < gain.low < 20 < gain.high
    single = mean_gain([(longer[:1], each) for longer, each in pairs], seed_variance([]), "minus_squared_error")
    assert single.difference == pytest.approx(gain.difference, rel=0.1) and single.high > 1
