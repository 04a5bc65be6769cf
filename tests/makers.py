"""Results folders as a sweep leaves them, planted by hand: its trials, its teacher, its finalists; and the page that is made of them."""

from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from kdsweep.config.arms import Arm
from kdsweep.config.axis import Axis
from kdsweep.config.sweep import StudyConfig, SweepConfig, TrackingConfig
from kdsweep.records.layout import TrialId, teacher_folder, trial_folder
from kdsweep.records.reading import TrialRow, read_trial
from kdsweep.records.schema import EpochMetrics, Finalist, FinalTest, TrialResult
from kdsweep.records.teacher_schema import TeacherResult
from kdsweep.records.writing import TrialFolder, write_sweep
from kdsweep.reporting.figures import style

ROWS = 200
ENVIRONMENT = {"torch": "2.8.0", "device name": "a processor"}
AXES = {"temperature": Axis(low=1.0, high=16.0, log=True), "alpha": Axis(low=0.0, high=1.0)}
AXES |= {"learning_rate": Axis(low=1e-5, high=1e-3, log=True), "batch_size": Axis(choices=(32, 64))}
MEASURED: dict[str, Any] = {"val_macro_f1": 0.7, "val_mcc": 0.6, "val_loss": 0.5, "val_ece": 0.1, "val_kl": 0.2}
MEASURED |= {"val_agreement": 0.9}
POINT: dict[str, Any] = {"temperature": 4.0, "alpha": 0.75, "learning_rate": 2e-4, "batch_size": 32}


def sweep_of(search: dict[str, Axis] | None = None, name: str = "s", **fixed: Any) -> SweepConfig:
    """A sweep of 12 trials an arm; None leaves a fixed field out."""
    base: dict[str, Any] = {"train_file": "reviews.csv", "teacher": "bert", "teacher_epochs": 2, "epochs": 3}
    return SweepConfig(
        name=name,
        fixed={name: value for name, value in {**base, **fixed}.items() if value is not None},
        search=search or AXES,
        study=StudyConfig(trials=12),
        tracking=TrackingConfig(mode="offline"),
    )


def make_sweep(folder: Path, search: dict[str, Axis] | None = None, **fixed: Any) -> SweepConfig:
    """A results folder with nothing but its sweep.yaml."""
    sweep = sweep_of(search, folder.name, **fixed)
    write_sweep(folder, sweep)
    return sweep


def teacher_of(**changes: Any) -> TeacherResult:
    """A finished teacher, right on 88 % of the rows."""
    values: dict[str, Any] = {"teacher": "bert", "val_accuracy": 0.88, "val_loss": 0.3, "majority_accuracy": 0.5}
    values |= {"parameters": 22_000_000, "size_mb": 87.0, "latency_ms_p50": 8.0, "rows_per_second": 300.0}
    values |= {"weights_sha256": "7e" * 32, "data_sha256": "da" * 32, "label_names": ("fresh", "rotten")}
    values |= {"train_rows": 1000, "validation_rows": ROWS, "test_rows": 0, "duplicates_dropped": 3}
    values |= {"fine_tuned_seconds": 60.0, "logits_seconds": 9.0, "from_cache": False, "environment": ENVIRONMENT}
    return TeacherResult(**{**values, "run_id": None, **changes})


def make_teacher(folder: Path, **changes: Any) -> None:
    """The same in its folder, with the labels."""
    result = teacher_of(**changes)
    there = TrialFolder(teacher_folder(folder))
    there.path.mkdir(parents=True)
    there.write_labels(np.ones(result.validation_rows, np.int64))
    there.finish(result)


def row_of(
    sweep: SweepConfig,
    arm: Arm,
    trial: int,
    params: dict[str, Any],
    accuracy: float,
    folder: Path = Path("s"),
    **changes: Any,
) -> TrialRow:
    """A finished trial with `accuracy` on the validation rows; `changes` go into its result, status None: none."""
    config = sweep.trial(arm, {name: value for name, value in params.items() if name in sweep.axes(arm)})
    done = changes.pop("epochs", config.epochs)
    epochs = tuple(make_epoch(epoch, accuracy - 0.02 * (done - 1 - epoch)) for epoch in range(done))
    values: dict[str, Any] = {"attempt": 1, "status": "complete", "error": None, "val_accuracy": accuracy}
    values |= {**MEASURED, "best_epoch": done, "best_val_accuracy": accuracy}
    values |= {"epochs": done, "steps": 30, "parameters": 16_000_000, "size_mb": 64.0, "latency_ms_p50": 4.0}
    values |= {"rows_per_second": 600.0, "train_seconds": 20.0, "evaluate_seconds": 2.0, "seconds": 23.5}
    values |= {"initial_weights_sha256": "1a" * 32, "teacher_weights_sha256": "7e" * 32, "data_sha256": "da" * 32}
    values |= {"environment": ENVIRONMENT, "started_at": "2025-01-01T00:00:00", "run_id": None, **changes}
    place: dict[str, Any] = {"arm": arm, "trial": trial}
    result = TrialResult(**place, **values) if values["status"] is not None else None
    path = trial_folder(folder, TrialId(arm, trial))
    return TrialRow(id=TrialId(arm, trial), folder=path, config=config, result=result, epochs=epochs)


def make_trial(
    folder: Path, sweep: SweepConfig, arm: Arm, trial: int, params: dict[str, Any], accuracy: float, **changes: Any
) -> None:
    """The same in its folder."""
    row = row_of(sweep, arm, trial, params, accuracy, folder, **changes)
    there = TrialFolder(row.folder)
    there.start(row.config)
    for epoch in row.epochs:
        there.add_epoch(epoch)
    if row.result:
        there.finish(row.result)


def make_epoch(epoch: int, accuracy: float) -> EpochMetrics:
    losses = {"L_soft": 1.0 / (epoch + 1), "L_hard": 0.7 / (epoch + 1), "L_total": 0.8 / (epoch + 1)}
    seconds = {"train_seconds": 6.0, "evaluate_seconds": 0.6}
    at = {"epoch": epoch + 1, "step": 10 * (epoch + 1)}
    return EpochMetrics(**at, **losses, val_accuracy=accuracy, **MEASURED, **seconds)


def make_predictions(folder: Path, arm: Arm, trial: int, right: np.ndarray) -> None:
    """Predictions that are right on the given rows; every label is 1."""
    TrialFolder(trial_folder(folder, TrialId(arm, trial))).write_predictions(right.astype(np.int64))


def make_full(folder: Path, *, gain: int = 20, **fixed: Any) -> SweepConfig:
    """Two complete trials an arm and one of each other kind; distilling alone is right on `gain` rows more."""
    sweep = make_sweep(folder, **fixed)
    make_teacher(folder)
    point = {"temperature": 4.0, "alpha": 0.75, "learning_rate": 2e-4, "batch_size": 32}
    tuned = np.arange(ROWS) < 150
    for trial, right in enumerate((np.arange(ROWS) < 150 + gain, np.arange(ROWS) < 100)):
        make_trial(folder, sweep, "distilled", trial, {**point, "temperature": 4.0 + trial}, float(right.mean()))
        make_predictions(folder, "distilled", trial, right)
        make_trial(folder, sweep, "fine_tuned", trial, point, float(tuned.mean()) - 0.1 * trial)
        make_predictions(folder, "fine_tuned", trial, tuned)
    for trial in (0, 1) if "pseudo_labeled" in sweep.arms else ():
        right = np.arange(ROWS) < 150 + gain // 2 - 20 * trial
        make_trial(folder, sweep, "pseudo_labeled", trial, point, float(right.mean()))
        make_predictions(folder, "pseudo_labeled", trial, right)
    pruned = {"status": "pruned", "error": "below the median at epoch 1", "epochs": 1}
    make_trial(folder, sweep, "distilled", 2, point, 0.99, **pruned)
    make_trial(folder, sweep, "distilled", 3, point, 0.0, status="failed", error="a nan", val_accuracy=None, epochs=0)
    make_trial(folder, sweep, "fine_tuned", 2, point, 0.5, status=None, epochs=2)
    return sweep


TEST_ROWS = 4000
METRICS: dict[str, Any] = {"macro_f1": 0.7, "mcc": 0.6, "loss": 0.5, "ece": 0.1, "agreement": 0.9, "kl": 0.2}


def final_test(accuracy: float, rows: int, day: int = 1) -> FinalTest:
    return FinalTest(
        accuracy=accuracy, **METRICS, reliability=((0.9, 0.8, rows),), rows=rows, opened_at=f"2026-01-0{day}"
    )


def make_teacher_tested(folder: Path, share: float) -> None:
    """Every test label is 1; the teacher is right on the first `share` of the rows."""
    there = TrialFolder(teacher_folder(folder))
    there.write_test_labels(np.ones(TEST_ROWS, np.int64))
    there.write_test(final_test(share, TEST_ROWS), (np.arange(TEST_ROWS) < share * TEST_ROWS).astype(np.int64))


def make_finalist(
    folder: Path,
    sweep: SweepConfig,
    arm: Arm,
    trial: int,
    seed: int,
    share: float,
    *,
    tested: bool = True,
    round_: int = 1,
) -> None:
    """A finalist that is right on about `share` of the rows, a few of them by the seed's luck."""
    rng = np.random.default_rng([seed, trial, {"fine_tuned": 0, "distilled": 1, "pseudo_labeled": 2}[arm]])
    point = {"temperature": 4.0, "alpha": 0.75, "learning_rate": 2e-4, "batch_size": 32, "seed": seed}
    config = sweep.trial(arm, point)
    there = TrialFolder(trial_folder(folder, TrialId(arm, trial, seed)))
    there.start(config)
    origin = read_trial(trial_folder(folder, TrialId(arm, trial))).result
    assert origin is not None

    def right(rows: int, share: float) -> np.ndarray:
        found = np.arange(rows) < share * rows
        return np.where(rng.random(rows) < 0.02, ~found, found).astype(np.int64)

    validation = right(200, share - 0.05 * trial)
    there.write_predictions(validation)
    if tested:
        test = right(TEST_ROWS, share)
        there.write_test(final_test(float(test.mean()), TEST_ROWS, round_), test)
    values = {**asdict(origin), "finalist": Finalist(seed=seed, round=round_), "val_accuracy": validation.mean()}
    there.finish(TrialResult(**values))


def make_finals(
    folder: Path, distilled: float, fine_tuned: float, pseudo_labeled: float | None = None, **options: Any
) -> SweepConfig:
    """Two finalists an arm on three seeds; the third arm only where it has a share of right rows too."""
    sweep = make_full(folder) if pseudo_labeled is None else make_full(folder, unlabeled_file="more.csv")
    make_teacher_tested(folder, 0.9)
    for trial in (0, 1):
        for seed in (1, 2, 3):
            make_finalist(folder, sweep, "distilled", trial, seed, distilled - 0.004 * trial, **options)
            make_finalist(folder, sweep, "fine_tuned", trial, seed, fine_tuned - 0.004 * trial, **options)
            if pseudo_labeled is not None:
                make_finalist(folder, sweep, "pseudo_labeled", trial, seed, pseudo_labeled - 0.004 * trial, **options)
    return sweep


class Page(HTMLParser):
    """The page's tags, ids, headings and visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.text = ""
        self.inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "input"):
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.inside.pop() == tag, f"unbalanced </{tag}>"

    def handle_data(self, data: str) -> None:
        if self.inside and self.inside[-1] not in ("script", "style"):
            self.text += data
            if self.inside[-1] == "h2":
                self.headings.append(data)


def page_of(folder: Path) -> Page:
    """The page that was written there, without plotly.js, which takes long to parse."""
    return Page((folder / "report.html").read_text(encoding="utf-8").replace(style.plotly_js(), ""))
