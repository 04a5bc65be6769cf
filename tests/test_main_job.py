"""The main job on its real input: real reviews, a real pretrained BERT, from a package index. Minutes."""

import subprocess
import sys
from pathlib import Path

import pytest

from kdsweep.records.whole_sweep import read_records

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_smoke_sweep_teaches_real_students_and_its_best_trial_reproduces(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kdsweep.run", ROOT / "sweeps" / "smoke.yaml", "study.trials=3", "study.controls=1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "results" / "smoke"
    found = read_records(folder)
    assert len(found.trials) == 4 and len(found.finalists) == 4
    assert all(row.result and row.result.status == "complete" for row in found.finalists)
    assert found.teacher is not None and found.teacher.val_accuracy > found.teacher.majority_accuracy + 0.05
    best = max(row.result.val_accuracy or 0.0 for row in found.trials if row.result)
    assert best > found.teacher.majority_accuracy + 0.05
    again = subprocess.run(
        [sys.executable, "-m", "kdsweep.reproduce", folder], capture_output=True, text=True, check=False
    )
    assert again.returncode == 0 and "identical" in again.stdout, again.stdout + again.stderr
