"""The benchmarks that call the training loop or read the records go on doing so: nobody runs them between two releases."""

import argparse
import functools
import importlib
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from makers import make_finalist, make_sweep, make_trial

from kdsweep.config.sweep_file import load_sweep
from kdsweep.config.trial import TrialConfig
from kdsweep.engine.worker_loop import Worker
from kdsweep.records.layout import TrialId, trial_folder
from kdsweep.records.schema import Attempt
from kdsweep.records.whole_sweep import read_records
from kdsweep.records.writing import TrialFolder, start_sweep, write_sweep
from kdsweep.search.studies import Studies
from kdsweep.system.process import StopRequest
from kdsweep.tracking.tracker import NullTracker
from kdsweep.training.loop import distill_epoch
from kdsweep.training.shared import Materials

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import bench_gpu
import bench_relations
import bench_scale
import bench_search
import bench_step
import bench_timeline
import bench_trial
import bench_trials
import record_trials
import start_watch
import surrogate
import workers_figures
import workers_host

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


def test_bench_start_watches_functions_that_are_there() -> None:
    for function in (function for functions in start_watch.STAGES.values() for function in functions):
        module, _, name = function.partition(":")
        assert callable(functools.reduce(getattr, name.split("."), importlib.import_module(module))), function


def recorded(best_rate: float, seed: int) -> surrogate.Recorded:
    """Trials whose accuracy falls off from the best learning rate, with noise of 0.5 points by the seed and 1 point by rows and flips."""
    rng, points = np.random.default_rng(seed), list(record_trials.points(240))
    true = 0.8 - 0.4 * (surrogate.unit(points)[:, 2] - best_rate) ** 2
    seeds = 0.005 * rng.standard_normal(len(points))
    validation, test = true + seeds + 0.01 * rng.standard_normal((2, len(points)))
    return surrogate.Recorded(points=points, validation=validation, test=test)


@pytest.mark.slow
def test_bench_search_knows_what_its_trials_are_worth_and_how_they_vary() -> None:
    found = recorded(0.7, seed=0)
    noise, model = surrogate.noise_of(found), surrogate.surrogate_of(found)
    assert noise.seed == pytest.approx(0.005, abs=0.0025) and noise.whole == pytest.approx(0.0112, abs=0.002)
    true = 0.8 - 0.4 * (surrogate.unit(found.points)[:, 2] - 0.7) ** 2
    assert np.abs(model.accuracy(found.points) - true).max() < 0.01


def test_bench_search_says_how_a_table_is_made(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"record_trials.py sst2 --data FOLDER --out .*trials_sst2.csv makes it"):
        bench_search.table_of(tmp_path, "sst2")


@pytest.mark.slow
def test_bench_search_replays_a_search_that_another_ones_best_makes_shorter() -> None:
    here = bench_search.world(recorded(0.7, seed=0), recorded(0.75, seed=1))
    assert len(here.warm) == 5 and here.ends["learning_rate"][0] > 1e-4
    warm = bench_search.replay(here, "tpe", "warm", seed=0, trials=10)
    assert warm == bench_search.replay(here, "tpe", "warm", seed=0, trials=10)
    best = here.surrogate.accuracy([{**here.warm[0], "learning_rate": 3e-5 * 50**0.7}])[0]
    assert len(warm["raw"]) == 10 and len(warm["shrunk"]) == 1
    assert warm["raw"][4] == pytest.approx(best, abs=0.01)


def test_bench_scale_measures_every_stage_of_rows_that_it_makes(
    tiny_rows: list[tuple[str, str]], tiny_classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_scale, "available_cores", lambda: 1)
    names = sorted({label for _, label in tiny_rows})
    sentences = {name: [text for text, label in tiny_rows if label == name] for name in names}
    for name, count in (("rows.jsonl", 200), ("texts.jsonl", 60)):
        bench_scale.write_rows(sentences, count, tmp_path / name, "pairs")
    options = argparse.Namespace(rows_file=tmp_path / "rows.jsonl", texts_file=tmp_path / "texts.jsonl", kind="pairs")
    vars(options).update(teacher=str(tiny_classifier), steps=3)
    found = bench_scale.measured(options)
    assert found["sizes"]["validation"] <= 20 and found["steps"] == 3
    table = bench_scale.shown(200, "first", found)
    assert all(name in table for name in ("read, cut, compare", "tokens", "teacher's logits", "training"))


def test_bench_gpu_reads_trials_a_minute_from_the_records_and_says_that_there_is_no_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    size = bench_gpu.TINY[0]
    rows = bench_gpu.write_rows(tmp_path, size)
    path = bench_gpu.write_sweep(tmp_path, size, tmp_path / "teacher", rows, trials=4, devices=2, device="auto")
    sweep = load_sweep(path)
    assert (len(sweep.enqueue), sweep.fixed["devices_per_trial"], len(rows.read_text().splitlines())) == (4, 2, 64)
    for number, seconds in enumerate((2.0, 4.0)):
        result = tmp_path / f"trials/{number:04}/result.json"
        result.parent.mkdir(parents=True)
        started = {"started_at": f"2026-01-01T00:00:0{number}+00:00", "seconds": seconds}
        result.write_text(json.dumps({"status": "complete", "error": None, **started}))
    found = bench_gpu.swept(tmp_path, 0.0, 30.0)
    assert (found.trial_seconds, found.whole_seconds) == (3.0, 30.0) and found.trials_a_minute > 0
    monkeypatch.setattr(bench_gpu, "devices", list)
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py"])
    assert bench_gpu.main() == 2 and "needs a CUDA device" in capsys.readouterr().err


@pytest.mark.slow
def test_a_worker_whose_trials_sleep_leaves_what_one_that_trains_leaves(
    tiny_sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    sweep = load_sweep(tiny_sweep_file(study={"trials": 2, "controls": 2, "pruner": "median"}, fixed={"epochs": 2}))
    folder, file = start_sweep(tmp_path / "results" / "tiny", sweep), io.StringIO()
    diary = workers_host.Diary(file)
    worker = Worker(sweep, folder, "me", diary.hear, StopRequest(), run_one=workers_host.sleeping(0.1, diary))
    worker.prepare()
    worker.work()
    found = read_records(folder)
    assert [row.result.status for row in found.trials if row.result] == ["complete"] * 4
    studies = Studies(sweep, folder)
    assert [studies.finished(arm) for arm in sweep.arms] == [2, 2] and len(studies.stored()) == 4
    diaries = [[json.loads(line) for line in file.getvalue().splitlines()]]
    waits = workers_figures.spans(diaries)
    assert [len(values) for values in waits.values()] == [3, 8, 4]
    assert workers_figures.told_twice(diaries) == (0, 0)


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
