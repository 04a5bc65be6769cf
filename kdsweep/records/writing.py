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
        attempts.jsonl           one line a time it was started: `Attempt`
        checkpoints/ owner       only while it runs or waits to be continued
        log.txt                  for a failed trial, the traceback
      finalists/distilled-0007-seed1/   a trial's configuration once more on a fresh seed, likewise, and:
        test.json                `FinalTest`, the student on the test split
        test_predictions.npy     the class of every test row, int64 [N]
      verdict.json               `ToldVerdict`, when W&B was told of the finalists
      study.db                   the embedded Optuna storage
      sweep_key                  what the ids of its W&B runs end with; the study has it too
      worker.log                 what the worker processes printed
      wandb/                     W&B's own folders, one a run: `tracked_runs`
      locks/                     which processes of the sweep are alive
      teacher/                   config.yaml, epochs.jsonl (`TeacherEpoch`), predictions.npy, labels.npy (the
                                 validation rows' true classes), test_labels.npy, result.json (`TeacherResult`); once
                                 the test split is opened, test.json and test_predictions.npy too

This is the only module that knows those names; `results` has what the lines and results hold, and `files` writes them so that
nothing half-written is ever read.
"""

import base64
import dataclasses
import io
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kdsweep.config.sweep import ARMS, TRIAL_DEFAULTS, Arm, Stage, SweepConfig, identity_changes, sweep_yaml
from kdsweep.config.sweep_file import load_sweep
from kdsweep.config.trial import TrialConfig, plain_values, read_trial_config, trial_yaml
from kdsweep.errors import ConfigError, ResultsError, Superseded
from kdsweep.records.schema import (
    REPEATABLE,
    Attempt,
    EpochMetrics,
    Finalist,
    FinalTest,
    StepMetrics,
    TeacherEpoch,
    TeacherResult,
    ToldVerdict,
    TrialResult,
)
from kdsweep.system.files import (
    append_lines,
    naming,
    read_array,
    read_lines,
    replace_lines,
    sifted_lines,
    write_array,
    write_atomically,
    write_json,
)

FOLDERS: dict[Stage, str] = {"distilled": "trials", "fine_tuned": "controls", "finalists": "finalists"}


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One trial's folder as read back; `result` is None while it runs or after it was cut off."""

    folder: Path
    arm: Arm
    trial: int
    finalist_seed: int | None
    """Of a finalist, which is `trial` once more; None for a trial of the search."""
    config: TrialConfig
    result: TrialResult | None
    epochs: tuple[EpochMetrics, ...]

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


def results_root() -> Path:
    """Where sweeps leave their folders: `KDSWEEP_RESULTS`, or `results` here."""
    return Path(os.environ.get("KDSWEEP_RESULTS", "results")).resolve()


def trial_folder(sweep_folder: Path, arm: Arm, trial: int, finalist_seed: int | None = None) -> Path:
    """The folder of one trial, or of its run as a finalist with that seed."""
    if finalist_seed is not None:
        return sweep_folder / FOLDERS["finalists"] / f"{arm}-{trial:04d}-seed{finalist_seed}"
    return sweep_folder / FOLDERS[arm] / f"{trial:04d}"


def teacher_folder(sweep_folder: Path) -> Path:
    """The folder of the sweep's teacher."""
    return sweep_folder / "teacher"


def keep_sweep_key(sweep_folder: Path, key: str) -> None:
    """Write a copy of what the study has, for whoever has the folder alone."""
    if read_sweep_key(sweep_folder) != key:
        write_atomically(sweep_folder / "sweep_key", key)


def read_sweep_key(sweep_folder: Path) -> str | None:
    """The key in the ids of the sweep's W&B runs; None where no run was tracked, or none since there are keys."""
    path = sweep_folder / "sweep_key"
    return path.read_text(encoding="utf-8").strip() if path.exists() else None


def tracked_runs(sweep_folder: Path) -> list[tuple[str, Path]]:
    """Every W&B run on disk, oldest first: its id and its file, such as `offline-run-20260102_030405-ID/run-ID.wandb`.

    W&B adds a number to a folder whose name is taken, so the file has the id; a folder without file names the one it should have.
    """
    named = re.compile(r"(?:offline-)?run-(\d{8}_\d{6})-(.+)")
    folders = [(match, path) for path in (sweep_folder / "wandb").glob("*") if (match := named.fullmatch(path.name))]
    files = []
    for match, path in sorted(folders, key=lambda pair: (pair[0][1], pair[1].name)):
        files.append(next(path.glob("run-*.wandb"), path / f"run-{match[2]}.wandb"))
    return [(file.stem.removeprefix("run-"), file) for file in files]


def study_path(sweep_folder: Path) -> Path:
    """The embedded Optuna storage."""
    return sweep_folder / "study.db"


def locks_folder(sweep_folder: Path) -> Path:
    """Locks that say which processes of the sweep are alive."""
    return sweep_folder / "locks"


def worker_lock(sweep_folder: Path, owner: str) -> Path:
    """Locked while the process of that name lives."""
    return locks_folder(sweep_folder) / f"worker-{owner}.lock"


class TrialFolder:
    """The writing end of one trial's (or teacher's) folder.

    With an `owner`, only the process that started last may write: another one, suspended and taken for dead, gets Superseded.
    """

    def __init__(self, path: Path, owner: str = "") -> None:
        self.path, self._owner = path, owner
        self.student = path / "student"
        self.checkpoints = path / "checkpoints"
        self.log = path / "log.txt"
        self._owner_file = path / "owner"

    def start(self, config: TrialConfig) -> None:
        """Write the config that is about to run. What an attempt of the same config left, cut off, stays to be continued, with
        `config.yaml` as that attempt wrote it: an older version knew fewer fields."""
        continued = self._holds_unfinished(config)
        if not continued:
            with naming(self.path):
                if self.path.exists():
                    shutil.rmtree(self.path)
                self.path.mkdir(parents=True)
        if self._owner:
            write_atomically(self._owner_file, self._owner)
        if not continued:
            write_atomically(self.path / "config.yaml", trial_yaml(config))

    def config_text(self) -> str:
        """What names the training in full, to its checkpoints."""
        return (self.path / "config.yaml").read_text(encoding="utf-8")

    def cut_back(self, *, step: int, epochs: int) -> tuple[list[StepMetrics], list[EpochMetrics], int]:
        """Keep the record up to a checkpoint; what it holds then, and how many steps after it were cut."""
        found = [StepMetrics(**line) for line in read_lines(self.path / "steps.jsonl")]
        steps = [line for line in found if line.step <= step]
        kept = [EpochMetrics(**line) for line in read_lines(self.path / "epochs.jsonl")][:epochs]
        self._check_owner()
        for name, lines in (("steps.jsonl", steps), ("epochs.jsonl", kept)):
            if (self.path / name).exists():
                replace_lines(self.path / name, lines)
        return steps, kept, len(found) - len(steps)

    def add_attempt(self, attempt: Attempt) -> None:
        """Append one attempt."""
        append_lines(self.path / "attempts.jsonl", [attempt])

    def steps_again(self) -> int:
        """Over all attempts."""
        return sum(Attempt(**line).steps_again for line in read_lines(self.path / "attempts.jsonl"))

    def add_steps(self, steps: Iterable[StepMetrics]) -> None:
        """Append steps."""
        self._check_owner()
        append_lines(self.path / "steps.jsonl", steps)

    def add_epoch(self, epoch: EpochMetrics | TeacherEpoch) -> None:
        """Append one epoch."""
        self._check_owner()
        append_lines(self.path / "epochs.jsonl", [epoch])

    def write_predictions(self, predictions: np.ndarray) -> None:
        """The class that the model gives every validation row, int64 [N]."""
        self._check_owner()
        write_array(self.path / "predictions.npy", predictions)

    def write_labels(self, labels: np.ndarray) -> None:
        """The true class of every validation row, int64 [N]; the teacher's folder holds it for all trials."""
        write_array(self.path / "labels.npy", labels)

    def write_test_labels(self, labels: np.ndarray) -> None:
        """The true class of every test row, int64 [N]; the teacher's folder holds it for all finalists."""
        write_array(self.path / "test_labels.npy", labels)

    def write_test(self, result: FinalTest, predictions: np.ndarray) -> None:
        """The model on the test split, and the class that it gives every row, int64 [N]."""
        self._check_owner()
        write_array(self.path / "test_predictions.npy", predictions)
        write_json(self.path / "test.json", dataclasses.asdict(result))

    def write_log(self, text: str) -> None:
        """What went wrong, for a person to read."""
        write_atomically(self.log, text)

    def finish(self, result: TrialResult | TeacherResult) -> None:
        """Write `result.json`: the trial is over."""
        self._check_owner()
        write_json(self.path / "result.json", dataclasses.asdict(result))
        self.tidy()

    def tidy(self) -> None:
        """Remove what only an unfinished trial needs."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        self._owner_file.unlink(missing_ok=True)

    def _holds_unfinished(self, config: TrialConfig) -> bool:
        written = self.path / "config.yaml"
        if not written.exists() or (self.path / "result.json").exists():
            return False
        try:
            return read_trial_config(written) == config
        except ConfigError:  # of a newer version, or torn: nothing to continue
            return False

    def _check_owner(self) -> None:
        if self._owner and (
            not self._owner_file.exists() or self._owner_file.read_text(encoding="utf-8") != self._owner
        ):
            raise Superseded(f"{self.path} is written by another process by now")


def packed_trial(folder: Path) -> dict[str, Any]:
    """A finished trial as JSON, with all that ranking and verdicts need: for hosts that do not see its folder."""
    files = {name: folder / name for name in ("config.yaml", "epochs.jsonl", "test.json", "result.json")}
    texts = {name: path.read_text(encoding="utf-8") for name, path in files.items() if path.exists()}
    arrays = {name: read_array(folder / name) for name in ("predictions.npy", "test_predictions.npy")}
    return texts | {name: _packed(array) for name, array in arrays.items() if array is not None}


def unpack_trial(folder: Path, packed: Mapping[str, str]) -> None:
    """Write what `packed_trial` gave on another host; `result.json` last."""
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, content in sorted(packed.items(), key=lambda item: item[0] == "result.json"):
        write_atomically(folder / name, base64.b85decode(content) if name.endswith(".npy") else content)


def _packed(array: np.ndarray) -> str:
    """Classes as the smallest whole numbers that hold them, in text: a byte and a quarter a row for up to 256 classes."""
    buffer = io.BytesIO()
    np.save(buffer, array.astype(np.min_scalar_type(int(array.max(initial=0)))), allow_pickle=False)
    return base64.b85encode(buffer.getvalue()).decode()


def write_sweep(folder: Path, sweep: SweepConfig) -> None:
    """Make the results folder and write `sweep.yaml`."""
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "sweep.yaml", sweep_yaml(sweep))


def start_sweep(folder: Path, sweep: SweepConfig) -> Path:
    """The results folder, made and with its `sweep.yaml`. Raises ResultsError where it holds another sweep's results."""
    before = read_sweep(folder)
    changes = identity_changes(before.identity(), sweep.identity()) if before else []
    if changes:
        raise ResultsError(
            f"{folder} holds the results of another sweep file:\n" + "\n".join(changes) + "\n"
            "Undo the change to continue that sweep, or start a new one beside it with --fork NEW_NAME"
        )
    if before != sweep:
        write_sweep(folder, sweep)
    return folder


def read_sweep(folder: Path) -> SweepConfig | None:
    """The sweep that a results folder belongs to; None for a new folder."""
    path = folder / "sweep.yaml"
    return load_sweep(path, recorded=True) if path.exists() else None


def write_verdict(sweep_folder: Path, told: ToldVerdict) -> None:
    """After W&B was told."""
    write_json(sweep_folder / "verdict.json", dataclasses.asdict(told))


def read_verdict(sweep_folder: Path) -> ToldVerdict | None:
    """What W&B was told last; None before that."""
    return _read_json(sweep_folder / "verdict.json", ToldVerdict)


def drop_students(folders: Iterable[Path]) -> None:
    """Remove the students of these trials; their records stay."""
    for folder in folders:
        shutil.rmtree(folder / "student", ignore_errors=True)


def read_trials(sweep_folder: Path, stage: Stage) -> list[TrialRow]:
    """All trials of an arm by number, or all finalists."""
    folders = sorted(path for path in (sweep_folder / FOLDERS[stage]).glob("*") if _place(path))
    return [read_trial(folder) for folder in folders if (folder / "config.yaml").exists()]


def read_trial(folder: Path) -> TrialRow:
    """One trial's folder. Raises ResultsError for a folder that is none."""
    place = _place(folder)
    if place is None or not (folder / "config.yaml").exists():
        raise ResultsError(
            "a trial's folder reads results/NAME/trials/0007, results/NAME/controls/0007 or "
            f"results/NAME/finalists/distilled-0007-seed1 and holds config.yaml, but got {folder}"
        )
    arm, trial, finalist_seed = place
    return TrialRow(
        folder=folder,
        arm=arm,
        trial=trial,
        finalist_seed=finalist_seed,
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


def _place(folder: Path) -> tuple[Arm, int, int | None] | None:
    """Which trial's folder this is, by its name: arm, number and a finalist's seed; None for another folder."""
    for arm in ARMS:
        if folder.parent.name == FOLDERS[arm] and folder.name.isdigit():
            return arm, int(folder.name), None
        found = re.fullmatch(rf"{arm}-(\d+)-seed(\d+)", folder.name)
        if folder.parent.name == FOLDERS["finalists"] and found:
            return arm, int(found[1]), int(found[2])
    return None


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


Record = TypeVar("Record", TrialResult, TeacherResult, FinalTest, ToldVerdict)


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
