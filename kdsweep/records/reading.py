"""Read a sweep's files: trials, teacher, steps, predictions and labels."""

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kdsweep.config.arms import Arm, Stage
from kdsweep.config.sweep import SweepConfig, identity_changes
from kdsweep.config.sweep_file import load_sweep
from kdsweep.config.trial import TrialConfig
from kdsweep.config.trial_fields import TRIAL_DEFAULTS
from kdsweep.config.trial_file import read_trial_config
from kdsweep.config.yaml import plain_values
from kdsweep.errors import ResultsError
from kdsweep.records.export_schema import Export, revived_export
from kdsweep.records.layout import EXPORT_FILE, FOLDERS, TrialId, exports_folder, teacher_folder, trial_in
from kdsweep.records.schema import (
    REPEATABLE,
    EpochMetrics,
    Finalist,
    FinalTest,
    Pages,
    StepMetrics,
    ToldVerdict,
    TrialResult,
)
from kdsweep.records.teacher_schema import TeacherEpoch, TeacherResult
from kdsweep.system.files import read_array, read_lines, sifted_lines

Record = TypeVar("Record", TrialResult, TeacherResult, FinalTest, ToldVerdict, Pages)


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """Holds what one trial's folder records; `result` is None while the trial runs or after it was cut off."""

    id: TrialId
    folder: Path
    config: TrialConfig
    result: TrialResult | None
    epochs: tuple[EpochMetrics, ...]

    @property
    def arm(self) -> Arm:
        """Return the trial's arm."""
        return self.id.arm

    @property
    def trial(self) -> int:
        """Return the trial's number in its arm."""
        return self.id.number

    @property
    def finalist_seed(self) -> int | None:
        """Return the seed of a finalist, which is `trial` run once more; None for a trial of the search."""
        return self.id.seed

    def has_student(self) -> bool:
        """Return whether the student is still on disk."""
        return (self.folder / "student").is_dir()

    def ran_here(self) -> bool:
        """Return whether the attempt that gave the result wrote this folder; one unpacked from the study has no attempts.jsonl."""
        attempts = read_lines(self.folder / "attempts.jsonl")
        return self.result is not None and any(line["attempt"] == self.result.attempt for line in attempts)

    def edits(self) -> list[str]:
        """List where config.yaml differs from what ran, a line each such as `alpha: 0.5, now 0.7`; nothing without a result and in older records."""
        if self.result is None or self.result.config is None:
            return []
        now = plain_values(vars(self.config))
        ran = plain_values(TRIAL_DEFAULTS) | dict(self.result.config)
        return [line.strip() for line in identity_changes({name: ran[name] for name in now}, now)]

    def measured(self) -> tuple[Any, ...] | None:
        """Return what two hosts that ran the same trial must agree on: all but clocks, attempts and machines; None without a result."""
        if self.result is None:
            return None
        return (
            *(getattr(self.result, name) for name in REPEATABLE),
            *(tuple(epoch.measured().values()) for epoch in self.epochs),
        )


def read_sweep_key(sweep_folder: Path) -> str | None:
    """Read the key in the ids of the sweep's W&B runs; None where no run was tracked, or only by a version without keys."""
    path = sweep_folder / "sweep_key"
    return path.read_text(encoding="utf-8").strip() if path.exists() else None


def packed_trial(folder: Path) -> dict[str, Any]:
    """Return a finished trial as JSON, with all that ranking and verdicts need: for hosts that do not see its folder."""
    files = {name: folder / name for name in ("config.yaml", "epochs.jsonl", "test.json", "result.json")}
    texts = {name: path.read_text(encoding="utf-8") for name, path in files.items() if path.exists()}
    arrays = {name: read_array(folder / name) for name in ("predictions.npy", "test_predictions.npy")}
    return texts | {name: _packed(array) for name, array in arrays.items() if array is not None}


def _packed(array: np.ndarray) -> str:
    """Encode predictions as text, classes from the smallest whole numbers that hold them: 1.25 bytes per row for up to 256 classes."""
    buffer, whole = io.BytesIO(), array.dtype.kind in "iu"
    kept = array.astype(np.min_scalar_type(int(array.max(initial=0)))) if whole else array
    np.save(buffer, kept, allow_pickle=False)
    return base64.b85encode(buffer.getvalue()).decode()


def read_sweep(folder: Path) -> SweepConfig | None:
    """Read the sweep that a results folder belongs to; None for a new folder."""
    path = folder / "sweep.yaml"
    return load_sweep(path, recorded=True) if path.exists() else None


def read_verdict(sweep_folder: Path) -> ToldVerdict | None:
    """Read the verdict last sent to W&B; None before the first one."""
    return _read_json(sweep_folder / "verdict.json", ToldVerdict)


def read_pages(sweep_folder: Path) -> Pages | None:
    """Read where W&B has the sweep's view and report; None before they were made."""
    return _read_json(sweep_folder / "workspace.json", Pages)


def read_trials(sweep_folder: Path, stage: Stage) -> list[TrialRow]:
    """Read all trials of an arm by number, or all finalists."""
    folders = sorted(path for path in (sweep_folder / FOLDERS[stage]).glob("*") if trial_in(path))
    return [read_trial(folder) for folder in folders if (folder / "config.yaml").exists()]


def read_trial(folder: Path) -> TrialRow:
    """Read one trial's folder. Raises ResultsError where `folder` is no trial's."""
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

    While there is no result, a last line without a line end does not count: a process is writing it, or was cut off.
    """
    found, over = [], (folder / "result.json").exists()
    for name in ("steps.jsonl", "epochs.jsonl"):
        lines = sifted_lines(folder / name)
        cut_off = [lines.unfinished] if over and lines.unfinished else []
        found += [f"{name}, line {number}" for number in (*lines.torn, *cut_off)]
    return found


def read_test(folder: Path) -> FinalTest | None:
    """Read the test result of a finalist (or the teacher); None where it has not been tested."""
    return _read_json(folder / "test.json", FinalTest)


def read_teacher(folder: Path) -> TeacherResult | None:
    """Read the teacher's result from its folder; None before the teacher is ready."""
    return _read_json(folder / "result.json", TeacherResult)


def read_teacher_epochs(folder: Path) -> list[TeacherEpoch]:
    """Read every epoch of the teacher's fine-tuning, without torn lines."""
    return [TeacherEpoch(**line) for line in sifted_lines(folder / "epochs.jsonl").whole]


def read_teacher_config(folder: Path) -> TrialConfig:
    """Read the config that the teacher's fine-tuning ran with."""
    return read_trial_config(folder / "config.yaml")


def read_steps(folder: Path) -> list[StepMetrics]:
    """Read every step of a trial, without torn lines."""
    return [StepMetrics(**line) for line in sifted_lines(folder / "steps.jsonl").whole]


def read_predictions(folder: Path) -> np.ndarray | None:
    """Read the predicted class of every validation row, int64 [N]; None where the trial did not get so far."""
    return read_array(folder / "predictions.npy")


def read_validation_labels(*sweep_folders: Path) -> np.ndarray | None:
    """Read the true class of every validation row, int64 [N], from the first folder that has it; None before the teacher is ready."""
    found = (read_array(teacher_folder(folder) / "labels.npy") for folder in sweep_folders)
    return next((labels for labels in found if labels is not None), None)


def read_test_predictions(folder: Path) -> np.ndarray | None:
    """Read the predicted class of every test row, int64 [N]; None where the model has not been tested."""
    return read_array(folder / "test_predictions.npy")


def read_test_labels(*sweep_folders: Path) -> np.ndarray | None:
    """Read the true class of every test row, int64 [N], from the first folder that has it; None without a test split."""
    found = (read_array(teacher_folder(folder) / "test_labels.npy") for folder in sweep_folders)
    return next((labels for labels in found if labels is not None), None)


def read_exports(sweep_folder: Path) -> tuple[Export, ...]:
    """Read the records of the sweep's exported students, by the name of their folders; unfinished folders are left out."""
    folders = sorted(exports_folder(sweep_folder).glob("[!.]*"))
    return tuple(found for folder in folders if (found := read_export(folder)))


def read_export(folder: Path) -> Export | None:
    """Read the record of an exported student from its folder; None for a folder without one. Raises ResultsError for a torn record."""
    path = folder / EXPORT_FILE
    if not path.exists():
        return None
    try:
        return revived_export(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ResultsError(
            f"{path} must be an export that this version wrote, but: {error}; remove its folder to export again"
        ) from error


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
    """Convert a value from JSON to what its dataclass holds: tuples for lists, a `Finalist` for a mapping."""
    if key == "finalist" and value is not None:
        return Finalist(**value)
    return tuple(tuple(v) if isinstance(v, list) else v for v in value) if isinstance(value, list) else value
