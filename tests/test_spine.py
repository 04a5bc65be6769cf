"""A swept value reaches its consumer, W&B, the saved config, the report and the re-run: the same value, bit for bit."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from tiny import BAD, GOOD, NOUNS, PIECES, tiny_bert_config

from kdsweep.analysis.receipt import receipt
from kdsweep.config.sweep import SweepConfig
from kdsweep.config.sweep_file import load_sweep
from kdsweep.config.trial import TrialConfig
from kdsweep.config.trial_file import read_trial_config
from kdsweep.engine.events import Event, TrialStarted
from kdsweep.engine.worker_loop import Worker
from kdsweep.records.layout import TrialId, study_path, trial_folder
from kdsweep.records.reading import read_trial
from kdsweep.records.writing import TrialFolder, start_sweep
from kdsweep.reporting.write import write_report
from kdsweep.reproduce import rerun
from kdsweep.system.process import StopRequest
from kdsweep.tracking.names import tracked_runs
from kdsweep.tracking.wandb_reader import wandb_records
from kdsweep.training import state
from kdsweep.training.objective import Inputs, Objective, objective_of
from kdsweep.training.shared import Materials
from kdsweep.training.students import chosen_layers

SEARCH = {
    "temperature": {"low": 1.0, "high": 8.0, "log": True, "when": {"soft_loss": ["kl"]}},
    "temperature_end": {"low": 1.0, "high": 8.0},
    "alpha": {"low": 0.0, "high": 1.0},
    "alpha_end": {"low": 0.0, "high": 1.0},
    "soft_loss": {"choices": ["kl", "mse"]},
    "label_smoothing": {"low": 0.0, "high": 0.2},
    "relation_weight": {"low": 0.1, "high": 1.0},
    "relation_heads": {"choices": [2, 4]},
    "learning_rate": {"low": 5e-4, "high": 2e-3, "log": True},
    "batch_size": {"choices": [8, 16]},
    "epochs": {"low": 1, "high": 2},
    "weight_decay": {"low": 0.0, "high": 0.1},
    "unlabeled_limit": {"low": 10, "high": 30},
    "student_layers": {"choices": [2, [0, 2], "last:1"]},
    "student_vocabulary": {"choices": ["full", "trained"]},
}
LAYERS: list[Any] = [[0, 2], "last:1"]
LOSSES = ["kl", "mse"]
VOCABULARIES = ["trained", "full"]
"""What the first trials try; the other fields are the sampler's."""

WHOLE = len([*PIECES.split(), *NOUNS, *GOOD, *BAD])
"""Pieces of the tiny teacher's tokenizer."""


@dataclass
class Consumers:
    """What loss, batches and optimizer were given, a dictionary a trial."""

    used: list[dict[str, Any]] = field(default_factory=list)

    def objective(self, config: TrialConfig) -> Objective:
        """Today's, which notes what its loss is given."""
        real: Any = objective_of(config)
        used: dict[str, Any] = {"batch_size": 0}
        self.used.append(used)

        def loss(batch: Inputs) -> Any:
            used.update(told(real.loss), batch_size=max(len(batch.labels), used["batch_size"]))
            return real.loss(batch)

        return replace(real, loss=loss)

    def adamw(self, groups: list[dict[str, Any]], *, lr: float, **options: Any) -> torch.optim.AdamW:
        """Torch's, after a note of what it is given."""
        self.used[-1].update(learning_rate=lr, weight_decay=groups[0]["weight_decay"])
        return torch.optim.AdamW(groups, lr=lr, **options)


def told(loss: Any) -> dict[str, Any]:
    """The keywords of a loss, and those of the loss inside it."""
    return {name: value for inner in loss.args for name, value in told(inner).items()} | loss.keywords


def work(sweep: SweepConfig, folder: Path, consumers: Consumers, events: list[Event]) -> None:
    """One worker's run of a sweep, as its process does it."""
    start_sweep(folder, sweep)
    worker = Worker(sweep, folder, "me", events.append, StopRequest(), make_objective=consumers.objective)
    worker.prepare()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "AdamW", consumers.adamw)
        worker.work()


def sampled(folder: Path, name: str) -> list[dict[str, Any]]:
    """Every distilled trial's values in Optuna's own database, read by Optuna alone."""
    study = optuna.load_study(study_name=f"{name}-distilled", storage=f"sqlite:///{study_path(folder)}")
    decoded = lambda value: tuple(json.loads(value)) if str(value).startswith("[") else value
    return [{name: decoded(value) for name, value in trial.params.items()} for trial in study.get_trials()]


def wandb_config(folder: Path, run_id: str | None) -> dict[str, Any]:
    """The config of an offline run, read back with W&B's own tool."""
    (run,) = [record["run"] for record in wandb_records(dict(tracked_runs(folder))[str(run_id)])[0] if "run" in record]
    config: dict[str, Any] = run["config"]["update"]
    return config


def test_every_axis_from_sampler_to_consumer_tracker_record_report_and_rerun(
    tiny_sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    made_by_hand = tiny_sweep_file(
        search=SEARCH,
        fixed={"batch_size": None, "epochs": None, "student_layers": None, "train_limit": 40, "unlabeled_rest": True},
        study={"trials": 1, "controls": 0, "pseudo_labeled": 0, "keep_students": 2},
        enqueue=[
            {"student_layers": layers, "soft_loss": loss, "student_vocabulary": vocabulary}
            for layers, loss, vocabulary in zip(LAYERS, LOSSES, VOCABULARIES, strict=True)
        ],
        tracking={"mode": "offline"},
    )
    first = load_sweep(made_by_hand)
    folder, consumers, events = tmp_path / "results" / first.name, Consumers(), list[Event]()
    work(first, folder, consumers, events)
    assert load_sweep(folder / "sweep.yaml") == first
    work(load_sweep(folder / "sweep.yaml", ["study.trials=2"]), folder, consumers, events)  # the sweep goes on from it

    proposed = sampled(folder, first.name)
    shown = [dict(event.params) for event in events if isinstance(event, TrialStarted)]
    write_report(folder)
    ranked = {row["trial"]: row for row in json.loads((folder / "leaderboard.json").read_text())["trials"]}
    assert [
        list(params["student_layers"]) if number == 0 else params["student_layers"]
        for number, params in enumerate(proposed)
    ] == LAYERS
    assert len(proposed) == len(consumers.used) == len(ranked) == 2
    for number, params in enumerate(proposed):
        idle = {"temperature"} if params["soft_loss"] == "mse" else set()
        assert set(params) == set(SEARCH) - idle and shown[number] == params
        assert [ranked[number][name] for name in idle] == [None] * len(idle)
        check_spine(params, consumers.used[number], trial_folder(folder, TrialId("distilled", number)), ranked[number])


@pytest.mark.slow
def test_axes_of_the_teacher_from_sampler_to_its_models_tracker_record_report_and_rerun(
    tiny_sweep_file: Callable[..., Path], tiny_body: Path, tmp_path: Path
) -> None:
    search = {"teacher_folds": {"choices": [1, 2]}, "teacher_keep": {"choices": ["last", "lowest_loss"]}}
    search["class_weights"] = {"choices": ["none", "balanced"]}
    points = [
        {"teacher_folds": 2, "teacher_keep": "last", "class_weights": "none"},
        {"teacher_folds": 1, "teacher_keep": "lowest_loss", "class_weights": "balanced"},
    ]
    sweep = load_sweep(
        tiny_sweep_file(
            search=search | dict.fromkeys(("temperature", "alpha", "learning_rate")),
            fixed={"teacher": str(tiny_body), "teacher_epochs": 1, "epochs": 1},
            study={"trials": 2, "controls": 0, "keep_students": 2, "accept_weak_teacher": True},
            enqueue=points,
            tracking={"mode": "offline"},
        )
    )
    folder, consumers = tmp_path / "results" / sweep.name, Consumers()
    work(sweep, folder, consumers, [])
    write_report(folder)
    ranked = {row["trial"]: row for row in json.loads((folder / "leaderboard.json").read_text())["trials"]}
    for number, point in enumerate(points):
        there = trial_folder(folder, TrialId("distilled", number))
        config, materials = read_trial_config(there / "config.yaml"), Materials()
        done, teacher = read_trial(there), materials.teacher(config)
        assert done.result is not None and done.result.teacher_weights_sha256 == teacher.weights_sha256
        kept = "lowest_loss" if teacher.kept_epochs else "last"
        weighed = "none" if materials.rows(config)[0].hard_weights is None else "balanced"
        used = {"teacher_folds": len(teacher.members), "teacher_keep": kept, "class_weights": weighed}
        check_spine(point, used, there, ranked[number])


def layers_of(value: Any) -> tuple[int, ...]:
    """The layers of the tiny teacher's three that `student_layers` names."""
    return chosen_layers(tiny_bert_config(9), value)


def check_spine(params: dict[str, Any], used: dict[str, Any], there: Path, row: dict[str, Any]) -> None:
    """One trial's values, from what the sampler proposed to what a re-run does."""
    done = read_trial(there)
    assert done.result is not None
    written = read_trial_config(there / "config.yaml")
    tracked = wandb_config(there.parent.parent, done.result.run_id)
    again = rerun(done, TrialFolder(there.parent.parent / "again" / "trials" / there.name), lambda _: None)
    used["epochs"] = len(done.epochs)
    used["unlabeled_limit"] = done.result.unlabeled_rows
    config = json.loads((there / "student" / "config.json").read_text())
    used["student_vocabulary"] = "full" if config["vocab_size"] == WHOLE else "trained"
    used["student_layers"] = config["n_layers"]
    for name, value in params.items():
        plain = list(value) if isinstance(value, tuple) else value
        wanted = len(layers_of(value)) if name == "student_layers" else value
        assert used[name] == wanted, f"{name}: its consumer got another value"
        assert getattr(written, name) == value, f"{name}: config.yaml"
        assert tracked[name] == plain, f"{name}: W&B"
        assert row[name] == plain, f"{name}: the report"
        assert getattr(again.config, name) == value, f"{name}: the re-run"
    assert receipt(done, again).verdict == "identical"
