"""The benchmarks that call the training loop themselves go on doing so: nobody runs them between two releases."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kdsweep.config.trial import TrialConfig
from kdsweep.records.whole_sweep import read_records
from kdsweep.records.writing import write_sweep
from kdsweep.search.studies import Studies
from kdsweep.tracking.tracker import NullTracker
from kdsweep.training.loop import distill_epoch
from kdsweep.training.shared import Materials

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import bench_relations
import bench_step
import bench_trial
import bench_trials

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


def test_bench_trials_makes_a_study_and_records_that_a_sweep_goes_on_from(tmp_path: Path) -> None:
    folder = tmp_path / "trials"
    sweep = bench_trials.sweep_of("trials", None)
    write_sweep(folder, sweep)
    bench_trials.make_records(folder, sweep, range(20))
    bench_trials.fill_study(Studies(sweep, folder), folder, sweep, range(20))
    studies = Studies(sweep, folder)
    assert (studies.finished("distilled"), studies.finished("fine_tuned")) == (18, 2)
    records = {row.id: row.result.val_accuracy for row in read_records(folder).trials if row.result}
    assert dict(studies.ranked("distilled", "distilled")).items() <= records.items()
    taken = studies.take()
    assert taken is not None and taken.number in (2, 18)
