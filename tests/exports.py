"""Makers of records of exported students."""

from typing import Any

from kdsweep.records.export_schema import Export, FormQuality, FormRecord, FormSpeed


def speeds(one_row_ms: float) -> tuple[FormSpeed, ...]:
    """Return speeds at one thread and at all of two cores."""
    return tuple(
        FormSpeed(
            threads=threads,
            latency_ms_p50=one_row_ms / threads,
            latency_ms_p95=1.2 * one_row_ms / threads,
            rows_per_second=4000 * threads / one_row_ms,
        )
        for threads in (1, 2)
    )


def quality(accuracy: float | None, **changes: Any) -> FormQuality:
    """Return what a form with this accuracy is worth on 1,000 rows; `changes` are fields."""
    facts: dict[str, Any] = {"rows": 1000, "loss": 0.5, "ece": 0.02, "agreement": 1.0, "largest_logit_difference": 0.0}
    return FormQuality(accuracy=accuracy, **{"batch_dependent": 0, **facts, **changes})


def an_export(**changes: Any) -> Export:
    """Return the export of finalist distilled-0007-seed1 with all forms, int8 no worse; `changes` are fields."""
    verdict = {"difference": -0.001, "low": -0.004, "high": 0.002, "word": "no worse"}
    int8 = {"agreement": 0.99, "largest_logit_difference": 0.2, "batch_dependent": 3}
    same = {"largest_logit_difference": 1e-6, "difference": 0.0, "low": 0.0, "high": 0.0, "word": "no worse"}
    facts: dict[str, Any] = {
        "run": "distilled-0007-seed1",
        "arm": "distilled",
        "trial": 7,
        "seed": 1,
        "max_length": 128,
        "text_column": "text",
        "text_pair_column": None,
        "student_sha256": "ab" * 32,
        "margin": 0.005,
        "forms": (
            a_form("pytorch", "model.safetensors", 70.0, 11.2, quality(0.88), quality(0.87)),
            a_form("fp32", "onnx/model.onnx", 70.1, 6.9, quality(0.88), quality(0.87, **same)),
            a_form(
                *(
                    "int8",
                    "onnx/model_int8.onnx",
                    17.8,
                    2.25,
                    quality(0.879, **int8),
                    quality(0.869, **int8, **verdict),
                ),
                quantization="dynamic per channel",
                batch_cause="int8 scales activations by the whole batch",
            ),
        ),
        "teacher_speed": speeds(22.0),
        "teacher_size_mb": 91.0,
        "tested_at": "2026-11-27T14:00:00+00:00",
        "hardware": "a processor",
        "cpu_flags": ("avx512", "vnni"),
        "cpu_note": None,
        "threads_all": 2,
        "versions": {"onnxruntime": "1.32.0"},
        "rejected": ("static quantisation: 2.0 ms a row, 85.0% on validation",),
        "made_at": "2026-11-27T14:10:00+00:00",
        "recipe": 1,
    }
    return Export(**{**facts, **changes})


def a_form(
    form: Any, file: str, size_mb: float, one_row_ms: float, validation: FormQuality, test: FormQuality, **changes: Any
) -> FormRecord:
    """Return the record of one form; `changes` are fields."""
    facts: dict[str, Any] = {"resident_mb": 2 * size_mb, "quantization": None, "speed": speeds(one_row_ms), **changes}
    return FormRecord(form=form, file=file, size_mb=size_mb, validation=validation, test=test, **facts)
