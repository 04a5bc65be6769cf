"""The order of an export: nothing is made for other rows, nothing is left of what failed."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from makers import make_full
from servers import no_more_than

from kdsweep.errors import ResultsError, ShippingError
from kdsweep.records.whole_sweep import SweepRecords, read_records
from kdsweep.shipping.export import CALIBRATION_ROWS, calibration_rows, export
from kdsweep.shipping.wanted import Wanted
from kdsweep.training.shared import Materials

WANTED = Wanted(forms=("fp32", "int8"), margin=0.005)


@pytest.fixture
def found(tmp_path: Path) -> SweepRecords:
    """A sweep whose best trial has a student that is no model."""
    make_full(tmp_path / "s")
    student = tmp_path / "s" / "trials" / "0000" / "student"
    student.mkdir()
    (student / "config.json").write_text('{"model_type": "bert"}')
    (student / "model.safetensors").write_bytes(bytes(9999))
    return read_records(tmp_path / "s")


def materials(sha256: str) -> Any:
    return SimpleNamespace(data=lambda config: SimpleNamespace(sha256=lambda: sha256))


def test_other_rows_than_the_trials_are_refused_first(found: SweepRecords) -> None:
    with pytest.raises(
        ShippingError, match="data_sha256 (da){32}, but got other: the data changed since .*trials/0000"
    ):
        export(found.trials[0], found, WANTED, materials("other"), print)
    assert not (found.folder / "exports").exists()


def test_a_full_disk_is_one_message_and_leaves_nothing(found: SweepRecords) -> None:
    with no_more_than(4096), pytest.raises(ResultsError, match="exports/distilled-0000 must be writable, but: "):
        export(found.trials[0], found, WANTED, materials("da" * 32), print)
    assert os.listdir(found.folder / "exports") == []


@pytest.mark.slow
def test_a_student_whose_weights_are_torn_leaves_nothing(found: SweepRecords) -> None:
    with pytest.raises(ShippingError, match="trials/0000/student must be a student as its trial saved it, but: "):
        export(found.trials[0], found, WANTED, materials("da" * 32), print)
    assert os.listdir(found.folder / "exports") == []


def test_calibration_rows_are_training_rows_each_alone(tiny_config: Any, tiny_classifier: Path) -> None:
    config, shared = tiny_config(), Materials()
    rows = calibration_rows(tiny_classifier, shared, config)
    assert len(rows) == min(CALIBRATION_ROWS, len(shared.data(config).train.labels)) == 72
    assert all(row["attention_mask"].all() and row["input_ids"].shape[0] == 1 for row in rows)
    again = calibration_rows(tiny_classifier, Materials(), config)
    assert [row["input_ids"].tolist() for row in rows] == [row["input_ids"].tolist() for row in again]
