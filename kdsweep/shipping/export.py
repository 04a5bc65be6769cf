"""Export a student: copy it, write its ONNX forms, have them judged and described, and put the folder in its place, whole."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from kdsweep.config.trial import TrialConfig
from kdsweep.errors import ShippingError
from kdsweep.records.export_schema import Export
from kdsweep.records.layout import export_folder
from kdsweep.records.reading import TrialRow
from kdsweep.records.whole_sweep import SweepRecords
from kdsweep.records.writing import write_export
from kdsweep.shipping.card import model_card
from kdsweep.shipping.choice import student_of
from kdsweep.shipping.exporter import QUANTIZATIONS, export_onnx, quantize
from kdsweep.shipping.folder import copy_student, replacing, weights_file_sha256
from kdsweep.shipping.int8 import CANDIDATES
from kdsweep.shipping.judge import judge
from kdsweep.shipping.session import FILES
from kdsweep.shipping.wanted import Wanted
from kdsweep.system.files import naming, write_atomically
from kdsweep.training.data.tokens import padded
from kdsweep.training.reader import reader
from kdsweep.training.shared import Materials

CALIBRATION_ROWS = 512
"""Training rows whose activations give a static quantisation its scales."""

Tell = Callable[[str], None]
"""Gets a line before whatever takes long."""


def export(run: TrialRow, found: SweepRecords, wanted: Wanted, materials: Materials, tell: Tell) -> Export:
    """Export a run's student, and return its record.

    Raises ShippingError for a student that cannot be exported, and ResultsError where the disk cannot be written: what was exported before
    then stays.
    """
    folder, student, config = export_folder(found.folder, run.id), student_of(run), replace(run.config, device="cpu")
    _check_rows(run, materials, config)
    with replacing(folder) as draft:
        with naming(folder):
            copy_student(student, draft)
            made, failed = _write_forms(student, draft, wanted, materials, config, tell)
        record = judge(
            draft,
            run,
            materials,
            margin=wanted.margin,
            student_sha256=weights_file_sha256(draft),
            quantizations=made,
            rejected=failed,
            tell=tell,
        )
        if "fp32" not in wanted.forms:
            (draft / FILES["fp32"]).unlink()
            record = replace(record, forms=tuple(form for form in record.forms if form.form != "fp32"))
        write_atomically(draft / "README.md", model_card(record, found, run))
        write_export(draft, record)
    return record


def _check_rows(run: TrialRow, materials: Materials, config: TrialConfig) -> None:
    """Check that the rows are those that the run met: a student is judged on no others. Raises ShippingError where they are not."""
    assert run.result is not None
    now = materials.data(config).sha256()
    if now != run.result.data_sha256:
        raise ShippingError(
            f"a student is judged on the rows that its trial met, data_sha256 {run.result.data_sha256}, but got {now}: the data "
            f"changed since {run.folder}; put back what it read"
        )


def _write_forms(
    student: Path, draft: Path, wanted: Wanted, materials: Materials, config: TrialConfig, tell: Tell
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Write the ONNX models into `draft`; return what each of 8 bits is called, and a sentence for each that could not be made."""
    (draft / "onnx").mkdir()
    tell("ONNX, float32")
    export_onnx(student, draft / FILES["fp32"])
    made: dict[str, str] = {}
    if "int8" not in wanted.forms:
        return made, ()
    rows, failed = calibration_rows(student, materials, config), []
    for how, words in QUANTIZATIONS.items():
        tell(f"ONNX, int8, {how} quantisation")
        try:
            quantize(draft / FILES["fp32"], draft / CANDIDATES[how], how, rows)
            made[how] = words.format(rows=len(rows))
        except ShippingError as error:
            failed.append(str(error))
    return made, tuple(failed)


def calibration_rows(student: Path, materials: Materials, config: TrialConfig) -> Sequence[dict[str, np.ndarray]]:
    """Return a student's inputs of up to `CALIBRATION_ROWS` training rows, drawn by a fixed seed, each alone and so without padding."""
    data = materials.data(config)
    train = data.train
    drawn = np.random.default_rng(0).permutation(len(train.labels))[:CALIBRATION_ROWS]
    tokens = reader(str(student), None, data.task).tokens(train.take(np.sort(drawn)), max_length=config.max_length)
    batches = (padded(tokens, np.array([row])) for row in range(len(drawn)))
    return [{name: values.numpy() for name, values in batch.inputs.items()} for batch in batches]
