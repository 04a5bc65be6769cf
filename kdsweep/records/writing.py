"""Write a sweep's files; `layout` names every one."""

import base64
import dataclasses
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from kdsweep.config.sweep import SweepConfig, identity_changes, sweep_yaml
from kdsweep.config.trial import TrialConfig
from kdsweep.config.trial_file import read_trial_config, trial_yaml
from kdsweep.errors import ConfigError, ResultsError, Superseded
from kdsweep.records.export_schema import Export
from kdsweep.records.layout import EXPORT_FILE, FOLDERS
from kdsweep.records.reading import read_sweep, read_sweep_key
from kdsweep.records.schema import Attempt, EpochMetrics, FinalTest, Pages, StepMetrics, ToldVerdict, TrialResult
from kdsweep.records.teacher_schema import TeacherEpoch, TeacherResult
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
    """Write a copy of the study's sweep key to the results folder, for readers that have the folder alone."""
    if read_sweep_key(sweep_folder) != key:
        write_atomically(sweep_folder / "sweep_key", key)


class TrialFolder:
    """Writes the folder of one trial or of the teacher.

    With an `owner`, only the process that started last may write: an earlier one, suspended and taken for dead, gets Superseded.
    """

    def __init__(self, path: Path, owner: str = "") -> None:
        self.path, self._owner = path, owner
        self.student = path / "student"
        self.checkpoints = path / "checkpoints"
        self.log = path / "log.txt"
        self._owner_file = path / "owner"

    def start(self, config: TrialConfig) -> None:
        """Write the config that is about to run, and mark this process as the folder's owner.

        What an unfinished attempt of the same config left stays to be continued, with `config.yaml` as that attempt wrote it (an older
        version has fewer fields); anything else in the folder is removed.
        """
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
        """Return the text of `config.yaml`, by which checkpoints identify the training."""
        return (self.path / "config.yaml").read_text(encoding="utf-8")

    def cut_back(self, *, step: int, epochs: int) -> tuple[list[StepMetrics], list[EpochMetrics], int]:
        """Cut the record after a checkpoint at `step`; return the steps and epochs that are left, and how many steps were cut."""
        found = [StepMetrics(**line) for line in read_lines(self.path / "steps.jsonl")]
        steps = [line for line in found if line.step <= step]
        kept = [EpochMetrics(**line) for line in read_lines(self.path / "epochs.jsonl")][:epochs]
        self._check_owner()
        for name, lines in (("steps.jsonl", steps), ("epochs.jsonl", kept)):
            if (self.path / name).exists():
                replace_lines(self.path / name, lines)
        return steps, kept, len(found) - len(steps)

    def add_attempt(self, attempt: Attempt) -> None:
        """Append one attempt to the record."""
        append_lines(self.path / "attempts.jsonl", [attempt])

    def steps_again(self) -> int:
        """Return the number of steps that were trained more than once, over all attempts."""
        return sum(Attempt(**line).steps_again for line in read_lines(self.path / "attempts.jsonl"))

    def add_steps(self, steps: Iterable[StepMetrics]) -> None:
        """Append steps to the record."""
        self._check_owner()
        append_lines(self.path / "steps.jsonl", steps)

    def add_epoch(self, epoch: EpochMetrics | TeacherEpoch) -> None:
        """Append one epoch to the record."""
        self._check_owner()
        append_lines(self.path / "epochs.jsonl", [epoch])

    def write_predictions(self, predictions: np.ndarray) -> None:
        """Write the class that the model predicts for every validation row, int64 [N]."""
        self._check_owner()
        write_array(self.path / "predictions.npy", predictions)

    def write_labels(self, labels: np.ndarray) -> None:
        """Write the true class of every validation row, int64 [N]; the teacher's folder holds it for all trials."""
        write_array(self.path / "labels.npy", labels)

    def write_test_labels(self, labels: np.ndarray) -> None:
        """Write the true class of every test row, int64 [N]; the teacher's folder holds it for all finalists."""
        write_array(self.path / "test_labels.npy", labels)

    def write_test(self, result: FinalTest, predictions: np.ndarray) -> None:
        """Write the model's test result, and the class that it predicts for every test row, int64 [N]."""
        self._check_owner()
        write_array(self.path / "test_predictions.npy", predictions)
        write_json(self.path / "test.json", dataclasses.asdict(result))

    def write_log(self, text: str) -> None:
        """Write what went wrong to log.txt, for a person to read."""
        write_atomically(self.log, text)

    def finish(self, result: TrialResult | TeacherResult) -> None:
        """Write `result.json`, which ends the trial, and remove what only an unfinished one needs."""
        self._check_owner()
        write_json(self.path / "result.json", dataclasses.asdict(result))
        self.tidy()

    def tidy(self) -> None:
        """Remove the checkpoints and the owner's name, which only an unfinished trial needs."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        self._owner_file.unlink(missing_ok=True)

    def _holds_unfinished(self, config: TrialConfig) -> bool:
        written = self.path / "config.yaml"
        if not written.exists() or (self.path / "result.json").exists():
            return False
        try:
            return read_trial_config(written) == config
        except ConfigError:  # written by a newer version, or torn: nothing to continue
            return False

    def _check_owner(self) -> None:
        if self._owner and (
            not self._owner_file.exists() or self._owner_file.read_text(encoding="utf-8") != self._owner
        ):
            raise Superseded(f"{self.path} is written by another process by now")


def unpack_trial(folder: Path, packed: Mapping[str, str]) -> None:
    """Write the files of a trial that `packed_trial` returned on another host; `result.json` last."""
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, content in sorted(packed.items(), key=lambda item: item[0] == "result.json"):
        write_atomically(folder / name, base64.b85decode(content) if name.endswith(".npy") else content)


def write_sweep(folder: Path, sweep: SweepConfig) -> None:
    """Create the results folder and write its `sweep.yaml`."""
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "sweep.yaml", sweep_yaml(sweep))


def start_sweep(folder: Path, sweep: SweepConfig) -> Path:
    """Create the results folder with its `sweep.yaml` and return it. Raises ResultsError where it holds another sweep's results."""
    before = read_sweep(folder)
    changes = (
        []
        if before is None
        else identity_changes(before.identity(), sweep.identity()) + _lengths(folder, before, sweep)
    )
    if changes:
        raise ResultsError(
            f"{folder} holds the results of another sweep file:\n" + "\n".join(changes) + "\n"
            "Undo the change to continue that sweep, or start a new one beside it with --fork NEW_NAME"
        )
    if before != sweep:
        write_sweep(folder, sweep)
    return folder


def _lengths(folder: Path, before: SweepConfig, sweep: SweepConfig) -> list[str]:
    """List how the length of finalists would change, if there are any: one comparison would mix two lengths."""
    there = before.finalists.top and sweep.finalists.top and any((folder / FOLDERS["finalists"]).glob("*"))
    key = "finalists.epochs_factor"
    old, new = ({key: each.finalists.epochs_factor} for each in (before, sweep))
    return identity_changes(old, new) if there else []


def write_verdict(sweep_folder: Path, told: ToldVerdict) -> None:
    """Write the verdict that was sent to W&B."""
    write_json(sweep_folder / "verdict.json", dataclasses.asdict(told))


def write_pages(sweep_folder: Path, pages: Pages) -> None:
    """Write where W&B has the sweep's view and report."""
    write_json(sweep_folder / "workspace.json", dataclasses.asdict(pages))


def write_export(folder: Path, export: Export) -> None:
    """Write the record of an exported student to its folder, which it makes a finished one."""
    write_json(folder / EXPORT_FILE, dataclasses.asdict(export))


def drop_students(folders: Iterable[Path]) -> None:
    """Remove the students of the trials in `folders`; their records stay."""
    for folder in folders:
        shutil.rmtree(folder / "student", ignore_errors=True)
