"""Name every file that a sweep leaves on disk: the records that the report, the ranking and `reproduce` read.

    results/T_alpha/
      sweep.yaml                 the resolved sweep
      trials/0007/               the distilled arm; controls/0003/ and pseudo_labels/0003/ likewise for the others
        config.yaml              the config that runs, written before it runs
        steps.jsonl              one line per step: L_soft, L_hard, L_total, learning_rate, …
        epochs.jsonl             one line per epoch: `EpochMetrics`
        predictions.npy          the class of every validation row, int64 [N]
        student/                 save_pretrained and tokenizer
        result.json              `TrialResult`, written last: a folder without it is unfinished
        attempts.jsonl           one line per start: `Attempt`
        checkpoints/ owner       only while the trial runs or waits to be continued
        log.txt                  for a failed trial, the traceback
      finalists/distilled-0007-seed1/   a trial's configuration once more on a fresh seed, likewise, and:
        test.json                `FinalTest`, the student on the test split
        test_predictions.npy     the class of every test row, int64 [N]
      exports/distilled-0007-seed1/   the student as it is shipped; of a trial of the search: distilled-0007
        config.json model.safetensors   and the tokenizer's files, as transformers loads them
        onnx/model.onnx onnx/model_int8.onnx
        README.md                the model card
        export.json              `Export`, written last: a folder without it is unfinished
      verdict.json               `ToldVerdict`, once the finalists were sent to W&B
      workspace.json             `Pages`, once W&B has the sweep's view and report
      study.db                   the embedded Optuna storage
      sweep_key                  the end of the ids of its W&B runs; the study holds it too
      worker.log                 what the worker processes printed
      wandb/                     W&B's own folders, one per run: `tracking/names`
      locks/                     which processes of the sweep are alive
      teacher/                   config.yaml, epochs.jsonl (`TeacherEpoch`), predictions.npy, labels.npy (the
                                 validation rows' true classes), test_labels.npy, result.json (`TeacherResult`); once
                                 the test split is opened, test.json and test_predictions.npy too

Only the modules of records/ name these files: `schema` defines what their lines hold, `writing` and `reading` write and read them.
Half-written files are never read (`system/files`).
"""

import os
import re
import secrets
import string
from dataclasses import dataclass
from pathlib import Path

from kdsweep.config.arms import ARMS, Arm, Stage

FOLDERS: dict[Stage, str] = {
    "distilled": "trials",
    "fine_tuned": "controls",
    "pseudo_labeled": "pseudo_labels",
    "finalists": "finalists",
}
KEY_LENGTH = 6
EXPORT_FILE = "export.json"
"""The record in an exported student's folder."""


@dataclass(frozen=True)
class TrialId:
    """Identifies a trial of a sweep, or its run as a finalist."""

    arm: Arm
    number: int
    """From 0 in each arm; Optuna's number of the trial."""
    seed: int | None = None
    """A finalist's fresh seed; None for the trial of the search."""

    @property
    def stage(self) -> Stage:
        """Return the stage of the run, which decides its study and its folder."""
        return self.arm if self.seed is None else "finalists"


def results_root() -> Path:
    """Return the folder of all sweeps' results: `KDSWEEP_RESULTS`, or `results` in the working directory."""
    return Path(os.environ.get("KDSWEEP_RESULTS", "results")).resolve()


def trial_folder(sweep_folder: Path, trial: TrialId) -> Path:
    """Return the folder of one trial, or of its run as a finalist."""
    name = f"{trial.number:04d}" if trial.seed is None else run_name(trial)
    return sweep_folder / FOLDERS[trial.stage] / name


def teacher_folder(sweep_folder: Path) -> Path:
    """Return the folder of the sweep's teacher."""
    return sweep_folder / "teacher"


def run_name(trial: TrialId) -> str:
    """Return the name of a run's exported folder: `distilled-0007`, with `-seed1` for a finalist."""
    name = f"{trial.arm}-{trial.number:04d}"
    return name if trial.seed is None else f"{name}-seed{trial.seed}"


def exports_folder(sweep_folder: Path) -> Path:
    """Return the folder of the students that were exported, one folder each."""
    return sweep_folder / "exports"


def export_folder(sweep_folder: Path, trial: TrialId) -> Path:
    """Return the folder of one run's exported student."""
    return exports_folder(sweep_folder) / run_name(trial)


def study_path(sweep_folder: Path) -> Path:
    """Return the path of the embedded Optuna storage."""
    return sweep_folder / "study.db"


def locks_folder(sweep_folder: Path) -> Path:
    """Return the folder of the locks that show which processes of the sweep are alive."""
    return sweep_folder / "locks"


def worker_lock(sweep_folder: Path, owner: str) -> Path:
    """Return the path of the lock that the process `owner` holds while it runs."""
    return locks_folder(sweep_folder) / f"worker-{owner}.lock"


def trial_in(folder: Path) -> TrialId | None:
    """Return the trial whose folder this is, by the folder's name; None where it is no trial's folder."""
    for arm in ARMS:
        if folder.parent.name == FOLDERS[arm] and folder.name.isdigit():
            return TrialId(arm, int(folder.name))
        found = re.fullmatch(rf"{arm}-(\d+)-seed(\d+)", folder.name)
        if folder.parent.name == FOLDERS["finalists"] and found:
            return TrialId(arm, int(found[1]), int(found[2]))
    return None


def new_sweep_key() -> str:
    """Draw the part of its runs' ids that names a sweep: one of two billion, so that the sweeps of a project get different ones."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(KEY_LENGTH))
