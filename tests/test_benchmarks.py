"""The benchmarks that call the training loop themselves go on doing so: nobody runs them between two releases."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kdsweep.config.trial import TrialConfig
from kdsweep.tracking.tracker import NullTracker
from kdsweep.training.loop import distill_epoch
from kdsweep.training.shared import Materials

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import bench_relations
import bench_search
import bench_step
import bench_trial
import record_trials
import surrogate

Config = Callable[..., TrialConfig]


def test_bench_trial_runs_a_trial_and_says_where_its_seconds_go(
    tiny_config: Config, materials: Materials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_trial, "open_tracker", lambda *_: NullTracker())
    config = tiny_config(epochs=1)
    trial = bench_trial.ours(materials, config, tmp_path, 0)
    assert 0 < trial.side.train_seconds < trial.side.seconds and trial.overhead_seconds > 0
    parts = bench_trial.shares(materials, config)
    assert sum(parts.values()) == pytest.approx(1) and all(share > 0 for share in parts.values())


@pytest.mark.parametrize("family", ["distilbert", "roberta", "modernbert"])
def test_bench_step_trains_an_epoch_of_its_own_rows(family: str, tiny_config: Config) -> None:
    options = argparse.Namespace(vocabulary=50, width=24, layers=1, classes=3, tokens=6)
    config, steps = tiny_config(batch_size=4), list[int]()
    rows, training = bench_step.synthetic_rows(4, options, "cpu"), bench_step.training_of(config, options, family)
    assert (training.student.config.hidden_size, training.student.config.num_hidden_layers) == (24, 1)
    distill_epoch(training, rows, config, on_steps=lambda told: steps.extend(step.step for step in told))
    assert steps == list(range(1, bench_step.STEPS + 1))


def test_bench_relations_times_a_step_with_the_teacher_and_one_without() -> None:
    options = argparse.Namespace(vocabulary=50, width=24, layers=1, classes=3, tokens=6, precision="fp32", threads=1)
    vars(options).update(teacher_width=36, teacher_layers=1, heads=6, repeats=1)
    assert bench_relations.measure(4, options) > 0


def recorded(best_rate: float, seed: int) -> surrogate.Recorded:
    """Trials whose accuracy falls off from the best learning rate, with noise of 0.5 points by the seed and 1 point by rows and flips."""
    rng, points = np.random.default_rng(seed), list(record_trials.points(240))
    true = 0.8 - 0.4 * (surrogate.unit(points)[:, 2] - best_rate) ** 2
    seeds = 0.005 * rng.standard_normal(len(points))
    validation, test = true + seeds + 0.01 * rng.standard_normal((2, len(points)))
    return surrogate.Recorded(points=points, validation=validation, test=test)


def test_bench_search_knows_what_its_trials_are_worth_and_how_they_vary() -> None:
    found = recorded(0.7, seed=0)
    noise, model = surrogate.noise_of(found), surrogate.surrogate_of(found)
    assert noise.seed == pytest.approx(0.005, abs=0.0025) and noise.whole == pytest.approx(0.0112, abs=0.002)
    true = 0.8 - 0.4 * (surrogate.unit(found.points)[:, 2] - 0.7) ** 2
    assert np.abs(model.accuracy(found.points) - true).max() < 0.01


def test_bench_search_says_how_a_table_is_made(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"record_trials.py sst2 --data FOLDER --out .*trials_sst2.csv makes it"):
        bench_search.table_of(tmp_path, "sst2")


def test_bench_search_replays_a_search_that_another_ones_best_makes_shorter() -> None:
    here = bench_search.world(recorded(0.7, seed=0), recorded(0.75, seed=1))
    assert len(here.warm) == 5 and here.ends["learning_rate"][0] > 1e-4
    warm = bench_search.replay(here, "tpe", "warm", seed=0, trials=10)
    assert warm == bench_search.replay(here, "tpe", "warm", seed=0, trials=10)
    best = here.surrogate.accuracy([{**here.warm[0], "learning_rate": 3e-5 * 50**0.7}])[0]
    assert len(warm["raw"]) == 10 and len(warm["shrunk"]) == 1
    assert warm["raw"][4] == pytest.approx(best, abs=0.01)
