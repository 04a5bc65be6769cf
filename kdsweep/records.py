"""What a sweep leaves on disk: the truth that the report, the ranking and `reproduce` read.

    results/T_alpha/
      sweep.yaml                 the resolved sweep
      trials/0007/               the distilled arm; controls/0003/ likewise for the fine-tuned one
        config.yaml              the object that ran, written before it runs
        steps.jsonl              one line a step: L_soft, L_hard, L_total, learning_rate
        epochs.jsonl             one line an epoch: `EpochMetrics`
        predictions.npy          the class of every validation row, int64 [N]
        student/                 save_pretrained and tokenizer
        result.json              `TrialResult`, written last: a folder without it is unfinished
        log.txt                  warnings and, for a failed trial, the traceback
      worker.log                 what the worker process printed
      teacher/                   config.yaml, epochs.jsonl (`TeacherEpoch`), predictions.npy, labels.npy (the
                                 validation rows' true classes), result.json (`TeacherResult`)

This is the only module that knows those names. Files are replaced whole (write, fsync, rename), lines are appended and fsynced.
"""

import dataclasses
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from kdsweep.config import TrialConfig, read_trial_config, trial_yaml
from kdsweep.errors import ResultsError
from kdsweep.sweep_config import ARMS, Arm, SweepConfig, sweep_yaml
from kdsweep.sweep_file import load_sweep

ARM_FOLDERS: dict[Arm, str] = {"distilled": "trials", "fine_tuned": "controls"}
Status = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """One training step's losses: L_soft with its T² but not alpha, L_hard unweighted, L_total = alpha L_soft + (1 - alpha) L_hard."""

    step: int
    epoch: int
    L_soft: float
    L_hard: float
    L_total: float
    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """One epoch: mean training losses over its rows, then the student on the validation rows."""

    epoch: int
    step: int
    L_soft: float
    L_hard: float
    L_total: float
    val_accuracy: float
    """Share of validation rows whose class is right, in [0, 1]."""
    val_loss: float
    """Mean cross-entropy of the validation rows, T = 1."""
    val_agreement: float
    """Share of validation rows on which student and teacher name the same class, in [0, 1]."""
    train_seconds: float
    evaluate_seconds: float

    def measured(self) -> dict[str, float]:
        """The metrics that a reproduction must give again: everything but the clock."""
        return {name: value for name, value in dataclasses.asdict(self).items() if not name.endswith("_seconds")}


@dataclass(frozen=True, kw_only=True)
class TeacherEpoch:
    """One epoch of the teacher's fine-tuning: mean training cross-entropy, then the validation rows."""

    epoch: int
    step: int
    L_hard: float
    val_accuracy: float
    val_loss: float
    train_seconds: float


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """How one trial ended. Metrics are the last epoch's, and None where no epoch was finished."""

    arm: Arm
    trial: int
    attempt: int
    status: Status
    error: str | None
    """Why it failed or was pruned."""
    val_accuracy: float | None
    val_loss: float | None
    val_agreement: float | None
    best_epoch: int | None
    best_val_accuracy: float | None
    epochs: int
    steps: int
    parameters: int | None
    size_mb: float | None
    """Of the saved weights; None where the student was not saved."""
    latency_ms_p50: float | None
    """Median of one row's forward pass, batch 1, on the trial's device and threads."""
    rows_per_second: float | None
    """Validation rows a second in batches."""
    train_seconds: float
    evaluate_seconds: float
    seconds: float
    """The whole trial, from the config to the saved student."""
    initial_weights_sha256: str
    teacher_weights_sha256: str
    data_sha256: str
    environment: Mapping[str, str]
    """Versions, device name, processor, host's operating system."""
    started_at: str
    run_id: str | None
    """The W&B run."""


@dataclass(frozen=True, kw_only=True)
class TeacherResult:
    """The teacher and the rows, as every trial of the sweep meets them."""

    teacher: str
    val_accuracy: float
    val_loss: float
    majority_accuracy: float
    """Validation accuracy of always naming the commonest training class."""
    parameters: int
    size_mb: float
    latency_ms_p50: float
    rows_per_second: float
    weights_sha256: str
    data_sha256: str
    label_names: tuple[str, ...]
    train_rows: int
    validation_rows: int
    test_rows: int
    duplicates_dropped: int
    """Training rows whose text stands in validation or test too."""
    fine_tuned_seconds: float
    logits_seconds: float
    from_cache: bool
    environment: Mapping[str, str]
    run_id: str | None


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One trial's folder as read back; `result` is None while it runs or after it was cut off."""

    folder: Path
    arm: Arm
    trial: int
    config: TrialConfig
    result: TrialResult | None
    epochs: tuple[EpochMetrics, ...]

    def has_student(self) -> bool:
        """Whether the student is still on disk."""
        return (self.folder / "student").is_dir()


@dataclass(frozen=True, kw_only=True)
class SweepRecords:
    """A results folder as read back."""

    folder: Path
    sweep: SweepConfig
    teacher: TeacherResult | None
    trials: tuple[TrialRow, ...]


def results_root() -> Path:
    """Where sweeps leave their folders: `KDSWEEP_RESULTS`, or `results` here."""
    return Path(os.environ.get("KDSWEEP_RESULTS", "results")).resolve()


def trial_folder(sweep_folder: Path, arm: Arm, trial: int) -> Path:
    """The folder of one trial."""
    return sweep_folder / ARM_FOLDERS[arm] / f"{trial:04d}"


def teacher_folder(sweep_folder: Path) -> Path:
    """The folder of the sweep's teacher."""
    return sweep_folder / "teacher"


def study_path(sweep_folder: Path) -> Path:
    """The embedded Optuna storage."""
    return sweep_folder / "study.db"


class TrialFolder:
    """The writing end of one trial's (or teacher's) folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.student = path / "student"
        self.log = path / "log.txt"

    def start(self, config: TrialConfig) -> None:
        """Empty the folder of an attempt that was cut off, and write the config that is about to run."""
        with _naming(self.path):
            if self.path.exists():
                shutil.rmtree(self.path)
            self.path.mkdir(parents=True)
        write_atomically(self.path / "config.yaml", trial_yaml(config))

    def add_steps(self, steps: Iterable[StepMetrics]) -> None:
        """Append steps."""
        _append_lines(self.path / "steps.jsonl", steps)

    def add_epoch(self, epoch: EpochMetrics | TeacherEpoch) -> None:
        """Append one epoch."""
        _append_lines(self.path / "epochs.jsonl", [epoch])

    def write_predictions(self, predictions: np.ndarray) -> None:
        """The class that the model gives every validation row, int64 [N]."""
        _write_array(self.path / "predictions.npy", predictions)

    def write_labels(self, labels: np.ndarray) -> None:
        """The true class of every validation row, int64 [N]; the teacher's folder holds it for all trials."""
        _write_array(self.path / "labels.npy", labels)

    def write_log(self, text: str) -> None:
        """What went wrong, for a person to read."""
        write_atomically(self.log, text)

    def finish(self, result: TrialResult | TeacherResult) -> None:
        """Write `result.json`: the trial is over."""
        write_json(self.path / "result.json", dataclasses.asdict(result))


def write_sweep(folder: Path, sweep: SweepConfig) -> None:
    """Make the results folder and write `sweep.yaml`."""
    with _naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "sweep.yaml", sweep_yaml(sweep))


def read_sweep(folder: Path) -> SweepConfig | None:
    """The sweep that a results folder belongs to; None for a new folder."""
    path = folder / "sweep.yaml"
    return load_sweep(path) if path.exists() else None


def keep_best_students(sweep_folder: Path, arm: Arm, keep: int) -> None:
    """Remove the students of all but an arm's `keep` best complete trials; their records stay."""
    done = [row for row in read_trials(sweep_folder, arm) if row.result and row.result.status == "complete"]
    ranked = sorted(done, key=lambda row: (-(row.result.val_accuracy or 0.0) if row.result else 0.0, row.trial))
    for row in ranked[keep:]:
        shutil.rmtree(row.folder / "student", ignore_errors=True)


def read_trials(sweep_folder: Path, arm: Arm) -> list[TrialRow]:
    """All trials of an arm, by number."""
    folders = sorted((sweep_folder / ARM_FOLDERS[arm]).glob("[0-9]*"))
    return [read_trial(folder) for folder in folders if (folder / "config.yaml").exists()]


def read_trial(folder: Path) -> TrialRow:
    """One trial's folder. Raises ResultsError for a folder that is none."""
    arms = {name: arm for arm, name in ARM_FOLDERS.items()}
    if folder.parent.name not in arms or not folder.name.isdigit() or not (folder / "config.yaml").exists():
        raise ResultsError(
            f"a trial's folder reads results/NAME/trials/0007 or results/NAME/controls/0007 and holds config.yaml, but got {folder}"
        )
    result = _read_json(folder / "result.json", TrialResult)
    epochs = tuple(EpochMetrics(**line) for line in _read_lines(folder / "epochs.jsonl"))
    config = read_trial_config(folder / "config.yaml")
    return TrialRow(
        folder=folder, arm=arms[folder.parent.name], trial=int(folder.name), config=config, result=result, epochs=epochs
    )


def read_records(folder: Path) -> SweepRecords:
    """A whole results folder. Raises ResultsError where there is none."""
    sweep = read_sweep(folder)
    if sweep is None:
        raise ResultsError(f"a results folder holds sweep.yaml, but {folder} does not; {_neighbours(folder)}")
    trials = tuple(row for arm in ARMS for row in read_trials(folder, arm))
    teacher = _read_json(teacher_folder(folder) / "result.json", TeacherResult)
    return SweepRecords(folder=folder, sweep=sweep, teacher=teacher, trials=trials)


def read_steps(folder: Path) -> list[StepMetrics]:
    """Every step of a trial."""
    return [StepMetrics(**line) for line in _read_lines(folder / "steps.jsonl")]


def read_predictions(folder: Path) -> np.ndarray | None:
    """The class of every validation row, int64 [N]; None where the trial did not get so far."""
    return _read_array(folder / "predictions.npy")


def read_validation_labels(sweep_folder: Path) -> np.ndarray | None:
    """The true class of every validation row, int64 [N]; None before the teacher is ready."""
    return _read_array(teacher_folder(sweep_folder) / "labels.npy")


def _neighbours(folder: Path) -> str:
    found = sorted(path.parent.name for path in folder.parent.glob("*/sweep.yaml"))
    return f"beside it: {', '.join(found)}" if found else f"no results in {folder.parent}"


# Files ---------------------------------------------------------------------------------------------------------------


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """A full disk or a missing permission becomes one message that names the path."""
    try:
        yield
    except OSError as error:
        raise ResultsError(
            f"{path} must be writable, but: {error.strerror or error}; nothing else was changed"
        ) from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file whole: readers see the old content or the new one. Raises ResultsError."""
    draft = path.with_name(f".{path.name}.draft")
    with _naming(path):
        try:
            with draft.open("wb") as file:
                file.write(content.encode("utf-8") if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def write_json(path: Path, content: object) -> None:
    """Replace a JSON file whole; nan and inf are refused."""
    write_atomically(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def _write_array(path: Path, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_atomically(path, buffer.getvalue())


def _read_array(path: Path) -> np.ndarray | None:
    return np.load(path, allow_pickle=False) if path.exists() else None


def _append_lines(path: Path, lines: Iterable[StepMetrics | EpochMetrics | TeacherEpoch]) -> None:
    with _naming(path), path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(dataclasses.asdict(line), allow_nan=False) + "\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Every whole line; the unfinished last one of a trial that was cut off is left out."""
    if not path.exists():
        return []
    return [
        json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")
    ]


Record = TypeVar("Record", TrialResult, TeacherResult)


def _read_json(path: Path, kind: type[Record]) -> Record | None:
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        fields: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in content.items()}
        return kind(**fields)
    except (ValueError, TypeError, AttributeError) as error:
        raise ResultsError(
            f"{path} must be a {kind.__name__} that this version wrote, but: {error}; move it away to run that part again"
        ) from error
