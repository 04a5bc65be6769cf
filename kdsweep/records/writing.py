"""Write what a sweep leaves on disk; `layout` names every file."""

import base64
import dataclasses
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from kdsweep.config.sweep import SweepConfig, identity_changes, sweep_yaml
from kdsweep.config.trial import TrialConfig, read_trial_config, trial_yaml
from kdsweep.errors import ConfigError, ResultsError, Superseded
from kdsweep.records.reading import read_sweep, read_sweep_key
from kdsweep.records.schema import (
    Attempt,
    EpochMetrics,
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
    read_lines,
    replace_lines,
    write_array,
    write_atomically,
    write_json,
)


def keep_sweep_key(sweep_folder: Path, key: str) -> None:
    """Write a copy of what the study has, for whoever has the folder alone."""
    if read_sweep_key(sweep_folder) != key:
        write_atomically(sweep_folder / "sweep_key", key)


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


def unpack_trial(folder: Path, packed: Mapping[str, str]) -> None:
    """Write what `packed_trial` gave on another host; `result.json` last."""
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, content in sorted(packed.items(), key=lambda item: item[0] == "result.json"):
        write_atomically(folder / name, base64.b85decode(content) if name.endswith(".npy") else content)


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


def write_verdict(sweep_folder: Path, told: ToldVerdict) -> None:
    """After W&B was told."""
    write_json(sweep_folder / "verdict.json", dataclasses.asdict(told))


def drop_students(folders: Iterable[Path]) -> None:
    """Remove the students of these trials; their records stay."""
    for folder in folders:
        shutil.rmtree(folder / "student", ignore_errors=True)
