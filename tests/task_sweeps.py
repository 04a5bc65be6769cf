"""Results folders of sweeps with several labels a row, or a number a row, planted by hand: like `makers.py`, which has classes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from makers import AXES, ENVIRONMENT, ROWS, sweep_of, teacher_of

from kdsweep.analysis.measured import measured_by_task, reliability_by_task
from kdsweep.analysis.tasks import predicted
from kdsweep.config.arms import Arm
from kdsweep.config.axis import Axis
from kdsweep.config.sweep import StudyConfig, SweepConfig
from kdsweep.config.tasks import METRICS, TaskName
from kdsweep.records.layout import TrialId, teacher_folder, trial_folder
from kdsweep.records.schema import EpochMetrics, Finalist, FinalTest, TrialResult, validated
from kdsweep.records.writing import TrialFolder, write_sweep

NAMES: dict[TaskName, tuple[str, ...]] = {
    "multi_label": ("joy", "anger <b>", "pride", "fear"),
    "regression": ("relatedness",),
}
POINT: dict[str, Any] = {"temperature": 4.0, "alpha": 0.75, "learning_rate": 2e-4, "batch_size": 32}
SEARCHED: dict[TaskName, dict[str, Axis]] = {
    "multi_label": AXES,
    "regression": {name: axis for name, axis in AXES.items() if name != "temperature"},
}


class Planted:
    """Rows with their labels, and models whose answers are the labels with noise: the more, the worse."""

    def __init__(self, task: TaskName, rows: int, seed: int = 0) -> None:
        self.task, self._rng = task, np.random.default_rng(seed)
        if task == "multi_label":
            shares = np.array([0.6, 0.3, 0.2, 0.1])
            self.labels = (self._rng.random((rows, 4)) < shares).astype(np.uint8)
        else:
            self.labels = (3 + self._rng.standard_normal(rows)).astype(np.float32)
        self.teachers = self.logits(0.5)

    def logits(self, noise: float) -> np.ndarray:
        """Logits [N, C] of a model; of numbers they are what it predicts, [N, 1]."""
        clean = 2.0 * self.labels - 1 if self.task == "multi_label" else self.labels[:, None]
        return (clean + noise * self._rng.standard_normal(clean.shape)).astype(np.float32)

    def measured(self, logits: np.ndarray) -> dict[str, Any]:
        return measured_by_task(logits, self.labels, self.task, self.teachers)

    def tested(self, logits: np.ndarray) -> FinalTest:
        bins = reliability_by_task(logits, self.labels, self.task)
        filled = zip(bins.confidence, bins.accuracy, bins.rows.tolist(), strict=True) if bins else ()
        reliability = tuple((float(x), float(y), rows) for x, y, rows in filled if rows)
        facts = {"reliability": reliability, "rows": len(self.labels), "opened_at": "2026-01-01"}
        return FinalTest(**self.measured(logits), **facts)


def make_task_sweep(
    folder: Path, task: TaskName, *, finalists: bool = True, metric: Any = None, gain: float = 0.3, **fixed: Any
) -> SweepConfig:
    """Two complete trials an arm, and as finalists both on two fresh seeds; distilled students have `gain` less noise."""
    search = SEARCHED[task]
    sweep = replace(
        sweep_of(search, folder.name, task=task, **fixed),
        study=StudyConfig(trials=2, metric=metric or METRICS[task][0]),
    )
    write_sweep(folder, sweep)
    validation, test = Planted(task, ROWS), Planted(task, 2 * ROWS, seed=1)
    _make_teacher(folder, validation, test, finalists=finalists)
    for arm in sweep.arms:
        less = {"distilled": gain, "pseudo_labeled": gain / 2, "fine_tuned": 0.0}[arm]
        for trial in (0, 1):
            noise = 1.2 + 0.1 * trial - less
            for seed in (None, 1, 2) if finalists else (None,):
                _make_run(folder, sweep, TrialId(arm, trial, seed), noise, validation, test)
    return sweep


def _make_teacher(folder: Path, validation: Planted, test: Planted, *, finalists: bool) -> None:
    task, measured = validation.task, validation.measured(validation.teachers)
    known = {f"val_{name}": value for name, value in measured.items() if name not in ("mcc", "agreement", "kl")}
    constant = dict.fromkeys((name for name in METRICS[task]), 0.25 if task == "multi_label" else 0.0)
    facts: dict[str, Any] = {"task": task, "label_names": NAMES[task], "majority_scores": constant}
    facts |= {"majority_accuracy": None if task == "regression" else 0.2, "test_rows": 2 * ROWS * finalists}
    facts |= {"train_loss": 0.1, "train_accuracy": None if task == "regression" else 0.9}
    facts |= {"train_ece": None if task == "regression" else 0.02}
    there = TrialFolder(teacher_folder(folder))
    there.path.mkdir(parents=True)
    there.write_labels(validation.labels)
    there.write_predictions(predicted(validation.teachers, task))
    if finalists:
        there.write_test_labels(test.labels)
        there.write_test(test.tested(test.teachers), predicted(test.teachers, task))
    there.finish(teacher_of(**{**known, **facts}))


def _make_run(
    folder: Path, sweep: SweepConfig, trial: TrialId, noise: float, validation: Planted, test: Planted
) -> None:
    task, arm = validation.task, trial.arm
    point = {name: value for name, value in POINT.items() if name in sweep.axes(arm)}
    there = TrialFolder(trial_folder(folder, trial))
    there.start(sweep.trial(arm, {**point, **({} if trial.seed is None else {"seed": trial.seed})}))
    logits = validation.logits(noise)
    measured = {f"val_{name}": value for name, value in validation.measured(logits).items()}
    losses = {"L_soft": 1.0, "L_hard": 0.7, "L_total": 0.8, "train_seconds": 6.0, "evaluate_seconds": 0.6}
    epoch = EpochMetrics(epoch=1, step=10, **losses, **measured)
    there.add_epoch(epoch)
    there.write_predictions(predicted(logits, task))
    if trial.seed is not None:
        on_test = test.logits(noise)
        there.write_test(test.tested(on_test), predicted(on_test, task))
    there.finish(_result(arm, trial, epoch))


def _result(arm: Arm, trial: TrialId, epoch: EpochMetrics) -> TrialResult:
    cost = {"parameters": 16_000_000, "size_mb": 64.0, "latency_ms_p50": 4.0, "rows_per_second": 600.0}
    seconds = {"train_seconds": 20.0, "evaluate_seconds": 2.0, "seconds": 23.5}
    hashes = {"initial_weights_sha256": "1a" * 32, "teacher_weights_sha256": "7e" * 32, "data_sha256": "da" * 32}
    facts: dict[str, Any] = {"attempt": 1, "status": "complete", "error": None, "epochs": 1, "steps": 30}
    facts |= {"best_epoch": 1, "best_val_accuracy": epoch.val_accuracy, "environment": ENVIRONMENT}
    facts |= {"started_at": "2026-01-01T00:00:00", "run_id": None}
    finalist = None if trial.seed is None else Finalist(seed=trial.seed, round=1)
    return TrialResult(
        arm=arm, trial=trial.number, **validated(epoch), **facts, **cost, **seconds, **hashes, finalist=finalist
    )
