"""Judge every form of an exported student: quality on validation and test, speed in turns with its teacher, size on disk and in memory."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from kdsweep.config.forms import Form
from kdsweep.records.export_schema import RECIPE, Export, FormRecord, FormSpeed
from kdsweep.records.layout import run_name
from kdsweep.records.reading import TrialRow, read_test
from kdsweep.shipping.bench import PYTORCH, TEACHER, Bench, Judged, Tell, teacher_model
from kdsweep.shipping.int8 import CANDIDATES, Candidate, keep_file, kept_int8
from kdsweep.shipping.processor import cpu_flags, without_vnni
from kdsweep.shipping.resident import resident_mb
from kdsweep.shipping.session import FILES
from kdsweep.shipping.speed import busy_note
from kdsweep.shipping.student import Student, check_recorded
from kdsweep.system.hardware import available_cores
from kdsweep.system.libraries import version
from kdsweep.training.fast import machine
from kdsweep.training.models import size_mb
from kdsweep.training.shared import Materials

LIBRARIES = ("kdsweep", "torch", "transformers", "tokenizers", "onnx", "onnxscript", "onnxruntime", "numpy")
WEIGHTS = "model.safetensors"


def judge(
    folder: Path,
    run: TrialRow,
    materials: Materials,
    *,
    margin: float,
    student_sha256: str,
    quantizations: Mapping[str, str],
    rejected: Sequence[str],
    tell: Tell,
) -> Export:
    """Judge the forms in the unfinished export `folder` of `run`, keep the better of its quantised models, and return the record.

    `quantizations` says in words how each of the models `onnx/model_int8_*.onnx` was made (`dynamic`, `static`): the better one on the
    validation rows becomes `onnx/model_int8.onnx`, the other is removed. The test split is opened once more, after that choice, where
    it was opened for this run as a finalist. `rejected` are sentences on what was tried before. Raises ShippingError where the student
    does not answer as its record says.
    """
    student, candidates = Student(folder, run, materials), {how: CANDIDATES[how] for how in quantizations}
    bench = Bench(student, {"fp32": FILES["fp32"], **candidates}, tell)
    validation = student.split("validation")
    check_recorded(validation, run)
    on_validation = bench.judged(validation, (PYTORCH, "fp32", *candidates), margin=margin)
    teacher = teacher_model(student, materials)
    fast, taken = bench.speed(validation, teacher)
    best, lost = kept_int8(
        [
            Candidate(
                how=how, words=words, alike=rows.alike, validation=rows.quality, speed=fast[how], task=validation.task
            )
            for how, words in quantizations.items()
            for rows in [on_validation[how]]
        ]
    )
    keep_file(folder, best, candidates, FILES["int8"])
    kept: dict[Form, str] = {"pytorch": PYTORCH, "fp32": "fp32", **({"int8": best.how} if best else {})}
    tested_at, on_test = _on_test(bench, student, tuple(kept.values()), margin, tell)
    forms = {
        form: _record(
            folder, form, student, on_validation[name], on_test.get(name), fast[name], quantizations.get(name), tell
        )
        for form, name in kept.items()
    }
    return Export(
        run=run_name(run.id),
        arm=run.arm,
        trial=run.trial,
        seed=run.finalist_seed,
        max_length=student.config.max_length,
        text_column=student.config.text_column,
        text_pair_column=student.config.text_pair_column,
        student_sha256=student_sha256,
        margin=margin,
        forms=tuple(forms.values()),
        teacher_speed=fast.get(TEACHER, ()),
        teacher_size_mb=size_mb(teacher.model) if teacher else None,
        tested_at=tested_at,
        hardware=machine.processor(),
        cpu_flags=cpu_flags(),
        cpu_note=_cpu_note(forms),
        busy_note=busy_note(taken),
        threads_all=available_cores(),
        versions={library: version(library) for library in LIBRARIES},
        rejected=(*rejected, *lost),
        made_at=_now(),
        recipe=RECIPE,
        task=student.data.task,
    )


def _on_test(
    bench: Bench, student: Student, names: Sequence[str], margin: float, tell: Tell
) -> tuple[str | None, dict[str, Judged]]:
    """Open the test split once more for a run that was tested as a finalist; return when, and what each form is worth there."""
    if read_test(student.run.folder) is None:
        return None, {}
    tell("the test split is opened once more, after the finalists, to judge the forms")
    opened_at = _now()
    split = student.split("test")
    check_recorded(split, student.run)
    return opened_at, bench.judged(split, names, margin=margin)


def _record(
    folder: Path,
    form: Form,
    student: Student,
    on_validation: Judged,
    on_test: Judged | None,
    speed: tuple[FormSpeed, ...],
    quantization: str | None,
    tell: Tell,
) -> FormRecord:
    """Return the record of one form, with its size on disk and the memory of a process of its own."""
    file = FILES.get(form, WEIGHTS)
    tell(f"memory of a process with {form} alone")
    return FormRecord(
        form=form,
        file=file,
        size_mb=(folder / file).stat().st_size / 1e6,
        resident_mb=resident_mb(folder, form, max_length=student.config.max_length),
        quantization=quantization,
        validation=on_validation.quality,
        test=on_test.quality if on_test else None,
        speed=speed,
        batch_cause=(on_test and on_test.cause) or on_validation.cause,
    )


def _cpu_note(forms: Mapping[Form, FormRecord]) -> str | None:
    """Return what int8 costs where the processor has no VNNI; None where it has, and without int8."""
    if "int8" not in forms:
        return None
    int8_ms, fp32_ms = (forms[name].speed[0].latency_ms_p50 for name in ("int8", "fp32"))
    return without_vnni(cpu_flags(), int8_ms, fp32_ms)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
