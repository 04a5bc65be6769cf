"""A sweep's files read back: trials, teacher, steps, predictions and labels."""

import base64
import dataclasses
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kdsweep.config.sweep import TRIAL_DEFAULTS, Arm, Stage, SweepConfig, identity_changes
from kdsweep.config.sweep_file import load_sweep
from kdsweep.config.trial import TrialConfig, read_trial_config
from kdsweep.config.yaml import plain_values
from kdsweep.errors import ResultsError
from kdsweep.records.layout import FOLDERS, TrialId, teacher_folder, trial_in
from kdsweep.records.schema import (
    REPEATABLE,
    EpochMetrics,
    Finalist,
    FinalTest,
    StepMetrics,
    TeacherEpoch,
    TeacherResult,
    ToldVerdict,
    TrialResult,
)
from kdsweep.system.files import read_array, read_lines, sifted_lines

Record = TypeVar("Record", TrialResult, TeacherResult, FinalTest, ToldVerdict)


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One trial's folder as read back; `result` is None while it runs or after it was cut off."""

    id: TrialId
    folder: Path
    config: TrialConfig
    result: TrialResult | None
    epochs: tuple[EpochMetrics, ...]

    @property
    def arm(self) -> Arm:
        """The trial's arm."""
        return self.id.arm

    @property
    def trial(self) -> int:
        """The trial's number in its arm."""
        return self.id.number

    @property
    def finalist_seed(self) -> int | None:
        """Of a finalist, which is `trial` once more; None for a trial of the search."""
        return self.id.seed

    def has_student(self) -> bool:
        """Whether the student is still on disk."""
        return (self.folder / "student").is_dir()

    def ran_here(self) -> bool:
        """Whether the attempt that gave the result wrote this folder: what comes out of the study has config, epochs, result alone."""
        attempts = read_lines(self.folder / "attempts.jsonl")
        return self.result is not None and any(line["attempt"] == self.result.attempt for line in attempts)

    def edits(self) -> list[str]:
        """Tell what config.yaml says otherwise than what ran, a line each such as `alpha: 0.5, now 0.7`; nothing in older records."""
        if self.result is None or self.result.config is None:
            return []
        now = plain_values(dataclasses.asdict(self.config))
        ran = plain_values(TRIAL_DEFAULTS) | dict(self.result.config)
        return [line.strip() for line in identity_changes({name: ran[name] for name in now}, now)]

    def measured(self) -> tuple[Any, ...] | None:
        """What two hosts that ran the same trial must agree on: all but clocks, attempts and machines; None without result."""
        if self.result is None:
            return None
        return (
            *(getattr(self.result, name) for name in REPEATABLE),
            *(tuple(epoch.measured().values()) for epoch in self.epochs),
        )


def read_sweep_key(sweep_folder: Path) -> str | None:
    """The key in the ids of the sweep's W&B runs; None where no run was tracked, or none since there are keys."""
    path = sweep_folder / "sweep_key"
    return path.read_text(encoding="utf-8").strip() if path.exists() else None


def packed_trial(folder: Path) -> dict[str, Any]:
    """A finished trial as JSON, with all that ranking and verdicts need: for hosts that do not see its folder."""
    files = {name: folder / name for name in ("config.yaml", "epochs.jsonl", "test.json", "result.json")}
    texts = {name: path.read_text(encoding="utf-8") for name, path in files.items() if path.exists()}
    arrays = {name: read_array(folder / name) for name in ("predictions.npy", "test_predictions.npy")}
    return texts | {name: _packed(array) for name, array in arrays.items() if array is not None}


def _packed(array: np.ndarray) -> str:
    """Classes as the smallest whole numbers that hold them, in text: a byte and a quarter a row for up to 256 classes."""
    buffer = io.BytesIO()
    np.save(buffer, array.astype(np.min_scalar_type(int(array.max(initial=0)))), allow_pickle=False)
    return base64.b85encode(buffer.getvalue()).decode()


def read_sweep(folder: Path) -> SweepConfig | None:
    """The sweep that a results folder belongs to; None for a new folder."""
    path = folder / "sweep.yaml"
    return load_sweep(path, recorded=True) if path.exists() else None


def read_verdict(sweep_folder: Path) -> ToldVerdict | None:
    """What W&B was told last; None before that."""
    return _read_json(sweep_folder / "verdict.json", ToldVerdict)


def read_trials(sweep_folder: Path, stage: Stage) -> list[TrialRow]:
    """All trials of an arm by number, or all finalists."""
    folders = sorted(path for path in (sweep_folder / FOLDERS[stage]).glob("*") if trial_in(path))
    return [read_trial(folder) for folder in folders if (folder / "config.yaml").exists()]


def read_trial(folder: Path) -> TrialRow:
    """One trial's folder. Raises ResultsError for a folder that is none."""
    trial = trial_in(folder)
    if trial is None or not (folder / "config.yaml").exists():
        raise ResultsError(
            "a trial's folder reads results/NAME/trials/0007, results/NAME/controls/0007 or "
            f"results/NAME/finalists/distilled-0007-seed1 and holds config.yaml, but got {folder}"
        )
    return TrialRow(
        id=trial,
        folder=folder,
        config=read_trial_config(folder / "config.yaml"),
        result=_read_json(folder / "result.json", TrialResult),
        epochs=tuple(EpochMetrics(**line) for line in sifted_lines(folder / "epochs.jsonl").whole),
    )


def torn_lines(folder: Path) -> list[str]:
    """Name the torn lines of a trial's (or teacher's) record, such as `steps.jsonl, line 12`; readers leave them out.

    While there is no result, a last line without its end is none: a process writes it, or was cut off.
    """
    found, over = [], (folder / "result.json").exists()
    for name in ("steps.jsonl", "epochs.jsonl"):
        lines = sifted_lines(folder / name)
        cut_off = [lines.unfinished] if over and lines.unfinished else []
        found += [f"{name}, line {number}" for number in (*lines.torn, *cut_off)]
    return found


def read_test(folder: Path) -> FinalTest | None:
    """A finalist (or teacher) on the test split; None where it has not been tested."""
    return _read_json(folder / "test.json", FinalTest)


def read_teacher(folder: Path) -> TeacherResult | None:
    """The teacher's result in its folder; None before it is ready."""
    return _read_json(folder / "result.json", TeacherResult)


def read_teacher_epochs(folder: Path) -> list[TeacherEpoch]:
    """Every epoch of the teacher's fine-tuning; without torn lines."""
    return [TeacherEpoch(**line) for line in sifted_lines(folder / "epochs.jsonl").whole]


def read_teacher_config(folder: Path) -> TrialConfig:
    """What the teacher's fine-tuning ran with."""
    return read_trial_config(folder / "config.yaml")


def read_steps(folder: Path) -> list[StepMetrics]:
    """Every step of a trial; without torn lines."""
    return [StepMetrics(**line) for line in sifted_lines(folder / "steps.jsonl").whole]


def read_predictions(folder: Path) -> np.ndarray | None:
    """The class of every validation row, int64 [N]; None where the trial did not get so far."""
    return read_array(folder / "predictions.npy")


def read_validation_labels(*sweep_folders: Path) -> np.ndarray | None:
    """The true class of every validation row, int64 [N], from the first folder that has it; None before the teacher is ready."""
    found = (read_array(teacher_folder(folder) / "labels.npy") for folder in sweep_folders)
    return next((labels for labels in found if labels is not None), None)


def read_test_predictions(folder: Path) -> np.ndarray | None:
    """The class of every test row, int64 [N]; None where it has not been tested."""
    return read_array(folder / "test_predictions.npy")


def read_test_labels(*sweep_folders: Path) -> np.ndarray | None:
    """The true class of every test row, int64 [N], from the first folder that has it; None without a test split."""
    found = (read_array(teacher_folder(folder) / "test_labels.npy") for folder in sweep_folders)
    return next((labels for labels in found if labels is not None), None)


def _read_json(path: Path, kind: type[Record]) -> Record | None:
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return kind(**{key: _revived(key, value) for key, value in content.items()})
    except (ValueError, TypeError, AttributeError) as error:
        raise ResultsError(
            f"{path} must be a {kind.__name__} that this version wrote, but: {error}; move it away to run that part again"
        ) from error


def _revived(key: str, value: Any) -> Any:
    """A value as the dataclass has it, from JSON."""
    if key == "finalist" and value is not None:
        return Finalist(**value)
    return tuple(tuple(v) if isinstance(v, list) else v for v in value) if isinstance(value, list) else value
