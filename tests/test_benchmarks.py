"""The benchmarks that call the training loop or read the records go on doing so: nobody runs them between two releases."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from makers import make_finalist, make_sweep, make_trial

from kdsweep.config.trial import TrialConfig
from kdsweep.records.layout import TrialId, trial_folder
from kdsweep.records.schema import Attempt
from kdsweep.records.writing import TrialFolder
from kdsweep.tracking.tracker import NullTracker
from kdsweep.training.loop import distill_epoch
from kdsweep.training.shared import Materials

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import bench_relations
import bench_step
import bench_timeline
import bench_trial

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


def test_bench_timeline_accounts_for_every_second_of_every_worker(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    sweep = make_sweep(folder)
    point = {"temperature": 4.0, "alpha": 0.75, "learning_rate": 2e-4, "batch_size": 32}
    make_trial(folder, sweep, "distilled", 0, point, 0.7, train_seconds=20.0, evaluate_seconds=4.0)
    make_trial(folder, sweep, "fine_tuned", 0, point, 0.6, train_seconds=30.0, evaluate_seconds=4.0)
    make_finalist(folder, sweep, "distilled", 0, 1, 0.7)
    spans = {TrialId("distilled", 0): ("a", 10, 35), TrialId("fine_tuned", 0): ("b", 12, 52)}
    for run, (owner, begun, ended) in {**spans, TrialId("distilled", 0, 1): ("a", 36, 96)}.items():
        there = TrialFolder(trial_folder(folder, run), owner)
        there.add_attempt(Attempt(attempt=1, owner=owner, from_step=0, steps_again=0, started_at="2026-01-01T00:00:00"))
        times = {"config.yaml": begun, "predictions.npy": ended - 6, "test.json": ended - 1, "result.json": ended}
        for name, at in times.items():
            if (there.path / name).exists():
                os.utime(there.path / name, (at, at))
    (folder / "report.html").touch()
    for name, at in {"sweep.yaml": 1, "report.html": 99}.items():
        os.utime(folder / name, (at, at))
    found = bench_timeline.timeline(folder)
    phases = {worker: found.phases(its) for worker, its in found.workers().items()}
    assert all(sum(each.values()) == pytest.approx(98) for each in phases.values())
    assert phases["b"] == pytest.approx(dict(zip(bench_timeline.PHASES, (11, 30, 4, 0, 6, 0, 47), strict=True)))
    assert (phases["a"]["test"], phases["a"]["between trials"]) == pytest.approx((5, 1))
    assert (found.search_ended(), found.early()) == (52, 16), "the finalist began while the other arm's last trial ran"
    assert "tail: 47.0 s" in "\n".join(bench_timeline.shown(found, "s", runs=True))
