"""A swept value reaches its consumer, W&B, the saved config, the report and the re-run: the same value, bit for bit."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kdsweep.analysis.receipt import receipt
from kdsweep.config.sweep import TrackingConfig
from kdsweep.config.sweep_file import load_sweep
from kdsweep.config.trial import TrialConfig, read_trial_config
from kdsweep.records.layout import TrialId, trial_folder
from kdsweep.records.reading import packed_trial, read_trial
from kdsweep.records.writing import TrialFolder, write_sweep
from kdsweep.reporting.write import write_report
from kdsweep.reproduce import rerun
from kdsweep.search.studies import Studies
from kdsweep.tracking.names import trial_label
from kdsweep.tracking.wandb_reader import wandb_records
from kdsweep.tracking.wandb_tracker import WandbTracker
from kdsweep.training import state
from kdsweep.training.objective import Objective, objective_of
from kdsweep.training.resolve import resolve
from kdsweep.training.shared import Materials
from kdsweep.training.trial import Slot, Watch, run_trial

SEARCH = {
    "temperature": {"low": 1.0, "high": 8.0, "log": True},
    "alpha": {"low": 0.0, "high": 1.0},
    "learning_rate": {"low": 5e-4, "high": 2e-3, "log": True},
    "batch_size": {"choices": [8, 16]},
    "epochs": {"low": 1, "high": 2},
    "weight_decay": {"low": 0.0, "high": 0.1},
    "student_layers": {"choices": [2, [0, 2]]},
}


def wandb_config(folder: Path) -> dict[str, Any]:
    """The config of the one offline run below `folder`, read back with W&B's own tool."""
    (path,) = folder.rglob("*.wandb")
    (run,) = [record["run"] for record in wandb_records(path)[0] if record["type"] == "run"]
    config: dict[str, Any] = run["config"]["update"]
    return config


def test_every_axis_from_sampler_to_consumer_tracker_record_report_and_rerun(
    tiny_sweep_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = {"batch_size": None, "epochs": None, "student_layers": None}
    sweep = load_sweep(tiny_sweep_file(search=SEARCH, fixed=fixed))
    folder = tmp_path / "results" / sweep.name
    write_sweep(folder, sweep)
    sampled: dict[str, Any] = {}
    used: dict[str, Any] = {}
    real_adamw = state.AdamW

    def spied(config: TrialConfig) -> Objective:
        real: Any = objective_of(config)

        def spy_loss(outputs: Any, targets: Any, labels: torch.Tensor, mask: torch.Tensor) -> Any:
            used.update(real.loss.keywords, batch_size=max(len(labels), used.get("batch_size", 0)))
            return real.loss(outputs, targets, labels, mask)

        return replace(real, loss=spy_loss)

    def spy_adamw(groups: list[dict[str, Any]], *, lr: float, **options: Any) -> Any:
        used.update(learning_rate=lr, weight_decay=groups[0]["weight_decay"])
        return real_adamw(groups, lr=lr, **options)

    monkeypatch.setattr(state, "AdamW", spy_adamw)

    studies = Studies(sweep, folder)
    assignment = studies.take_from("distilled")
    assert assignment is not None
    sampled.update(assignment.params)
    config = resolve(sweep.trial("distilled", sampled), threads=1)
    record = TrialFolder(trial_folder(folder, "distilled", assignment.trial))
    watch = Watch(on_steps=lambda _: None, on_epoch=lambda _: False)
    tracker = WandbTracker(folder, sweep.name, TrackingConfig(), "offline")
    with tracker.run(
        trial_label(sweep, studies.agreements.sweep_key(), config, "distilled", 0, 1), asdict(config)
    ) as run:
        result = run_trial(
            config, Slot(id=TrialId("distilled", 0)), record, Materials(), run, watch, make_objective=spied
        )
    used.update(epochs=result.epochs)
    assert studies.finish(assignment, result, packed_trial(record.path))
    config = read_trial_config(folder / "trials" / "0000" / "config.yaml")
    tracked = wandb_config(folder / "wandb")
    write_report(folder)
    (row,) = json.loads((folder / "leaderboard.json").read_text())["trials"]
    done = read_trial(folder / "trials" / "0000")
    again = rerun(done, TrialFolder(tmp_path / "again" / "trials" / "0000"), lambda _: None)
    student = json.loads((folder / "trials" / "0000" / "student" / "config.json").read_text())
    used["student_layers"] = student["n_layers"]

    assert set(sampled) == set(SEARCH)
    for name, value in sampled.items():
        plain = list(value) if isinstance(value, tuple) else value
        layers = value if isinstance(value, int) or name != "student_layers" else len(value)
        assert used[name] == layers, f"{name}: its consumer got another value"
        assert getattr(config, name) == value, f"{name}: config.yaml"
        assert tracked[name] == plain, f"{name}: W&B"
        assert row[name] == plain, f"{name}: the report"
        assert getattr(again.config, name) == value, f"{name}: the re-run"
    assert receipt(done, again).verdict == "identical"


def test_a_fresh_config_differs_from_the_record_where_a_field_does(tiny_config: Callable[..., TrialConfig]) -> None:
    assert tiny_config(alpha=0.25) != tiny_config(alpha=0.5)
