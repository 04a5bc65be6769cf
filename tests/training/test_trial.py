"""One trial from config to saved student, and the ways in which it can end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kdsweep.config.trial import TrialConfig
from kdsweep.config.trial_file import read_trial_config
from kdsweep.errors import ConfigError
from kdsweep.records.layout import TrialId
from kdsweep.records.reading import read_predictions, read_steps, read_trial
from kdsweep.records.schema import EpochMetrics, TrialResult
from kdsweep.records.writing import TrialFolder
from kdsweep.tracking.tracker import NullRun
from kdsweep.training.shared import Materials
from kdsweep.training.trial import Slot, Watch, run_trial

Config = Callable[..., TrialConfig]


class Noting(NullRun):
    """Keeps what a run is told."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Any] = []
        self.summary: dict[str, Any] = {}

    def log_steps(self, steps: Any) -> None:
        self.rows += steps

    def summarise(self, values: Any) -> None:
        self.summary.update(values)


def run(
    config: TrialConfig, folder: Path, on_epoch: Callable[[EpochMetrics], bool] = lambda _: False, **noting: Any
) -> TrialResult:
    watch = Watch(on_steps=lambda _: None, on_epoch=on_epoch)
    slot = Slot(id=TrialId("distilled", 7), attempt=2)
    return run_trial(config, slot, TrialFolder(folder), Materials(), noting.get("run", NullRun()), watch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "results" / "tiny" / "trials" / "0007"


def test_a_complete_trial_leaves_all_that_it_promises(tiny_config: Config, folder: Path) -> None:
    noting = Noting()
    config = tiny_config()
    result = run(config, folder, run=noting)
    made = {path.name for path in folder.iterdir()}
    lines = {"steps.jsonl", "epochs.jsonl", "attempts.jsonl"}
    assert made == lines | {"config.yaml", "predictions.npy", "student", "result.json"}
    row = read_trial(folder)
    assert row.result == result and row.config == config == read_trial_config(folder / "config.yaml")
    assert (result.arm, result.trial, result.attempt, result.status, result.error) == (
        "distilled",
        7,
        2,
        "complete",
        None,
    )
    last = row.epochs[-1]
    assert (result.val_accuracy, result.val_loss) == (last.val_accuracy, last.val_loss)
    assert result.best_val_accuracy == max(epoch.val_accuracy for epoch in row.epochs)
    assert (result.epochs, result.steps, len(read_steps(folder))) == (2, 10, 10)
    assert noting.rows == read_steps(folder) and "environment" not in noting.summary
    assert noting.summary["status"] == "complete"
    predictions = read_predictions(folder)
    assert predictions is not None and len(predictions) == 24
    student = AutoModelForSequenceClassification.from_pretrained(folder / "student")
    assert student.num_parameters() == result.parameters
    assert student.config.id2label == {0: "negative", 1: "positive"}
    weights = folder / "student" / "model.safetensors"
    assert result.size_mb == weights.stat().st_size / 1e6
    text = AutoTokenizer.from_pretrained(folder / "student")("the film was great")
    assert len(text["input_ids"]) == 6
    assert result.latency_ms_p50 and result.rows_per_second and result.seconds >= result.train_seconds


def test_a_trial_with_an_automatic_field_does_not_start(tiny_config: Config, folder: Path) -> None:
    with pytest.raises(ConfigError, match="but device, threads still say auto"):
        run(tiny_config(device="auto", threads="auto"), folder)
    assert not folder.exists()


def test_a_loss_that_breaks_is_a_failed_result_with_a_log(tiny_config: Config, folder: Path) -> None:
    result = run(tiny_config(learning_rate=1e30), folder)
    assert (result.status, result.val_accuracy) == ("failed", None)
    assert result.error is not None and "the loss must stay finite, but at step" in result.error
    assert "NonFiniteLoss" in (folder / "log.txt").read_text()
    assert not (folder / "student").exists() and read_trial(folder).result == result


def test_a_bug_is_raised_and_leaves_an_unfinished_folder_with_its_traceback(tiny_config: Config, folder: Path) -> None:
    def broken(_: EpochMetrics) -> bool:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        run(tiny_config(), folder, on_epoch=broken)
    assert "ZeroDivisionError: a bug" in (folder / "log.txt").read_text()
    row = read_trial(folder)
    assert row.result is None and len(row.epochs) == 1


def test_a_pruned_trial_says_where_and_leaves_no_student(tiny_config: Config, folder: Path) -> None:
    result = run(tiny_config(epochs=4), folder, on_epoch=lambda epoch: epoch.epoch == 2)
    assert (result.status, result.epochs, result.size_mb) == ("pruned", 2, None)
    assert result.error == "pruned after epoch 2 of 4: others were ahead"
    assert not (folder / "student").exists() and result.val_accuracy is not None


@pytest.mark.slow
def test_materials_shared_by_trials_change_no_result(tiny_config: Config, tmp_path: Path) -> None:
    """The second trial of a worker equals the same trial in a process of its own."""
    config, watch = tiny_config(alpha=0.9), Watch(on_steps=lambda _: None, on_epoch=lambda _: False)
    materials = Materials()
    done = []
    for number, each in enumerate((tiny_config(seed=3, batch_size=8), config, config)):
        folder = TrialFolder(tmp_path / "trials" / f"{number:04d}")
        run_trial(each, Slot(id=TrialId("distilled", number)), folder, materials, NullRun(), watch)
        done.append([epoch.measured() for epoch in read_trial(folder.path).epochs])
    run(config, tmp_path / "trials" / "0009")
    alone = [epoch.measured() for epoch in read_trial(tmp_path / "trials" / "0009").epochs]
    assert done[1] == done[2] == alone != done[0]


def test_a_result_says_how_many_rows_max_length_cut(tiny_config: Config, folder: Path) -> None:
    config = tiny_config(max_length=9, epochs=1)
    own, result = Materials(), run(config, folder)
    assert result.truncated_rows == own.truncated_rows(config) and result.truncated_rows["train"] > 0
    row = read_trial(folder)
    assert row.result == result
    assert result.shortcuts["first_token"] == result.shortcuts["compact_vocabulary"] == "taken"
