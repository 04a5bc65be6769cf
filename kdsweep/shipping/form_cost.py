"""Measure what a student costs in an exported form before it is trained, for `study.constraints.form`: weights change neither time nor size."""

import tempfile
import time
from pathlib import Path

import numpy as np

from kdsweep.config.forms import OnnxForm
from kdsweep.config.trial import TrialConfig
from kdsweep.shipping.exporter import export_onnx, quantize
from kdsweep.shipping.extra import EXPORTING, need
from kdsweep.shipping.session import FILES, OnnxClassifier
from kdsweep.training.shared import Materials
from kdsweep.training.trial import save_student

UNTIMED, PASSES = 5, 50
"""Passes of one row before those that are timed, and those."""


def form_cost(materials: Materials, config: TrialConfig, form: OnnxForm) -> dict[str, float]:
    """Export the untrained student of `config` to a folder that is removed again; return what it costs, by the names of the constraints.

    Milliseconds are the median of passes of the validation row of median length, on the CPU and `config.threads`; megabytes (10⁶ bytes)
    are of the form's file. int8 is quantised dynamically. Raises ShippingError for a student that cannot be exported, and without the extra.
    """
    need(*EXPORTING)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "student"
        save_student(materials.student(config), materials.student_tokenizer(config), folder)
        model = folder / FILES["fp32"]
        model.parent.mkdir()
        export_onnx(folder, model)
        if form == "int8":
            quantize(model, folder / FILES["int8"], "dynamic", ())
        classifier = OnnxClassifier(folder, form, int(config.threads), max_length=config.max_length)
        latency_ms = _latency_ms(classifier, materials, config)
        return {"latency_ms_p50": latency_ms, "size_mb": classifier.path.stat().st_size / 1e6}


def _latency_ms(classifier: OnnxClassifier, materials: Materials, config: TrialConfig) -> float:
    """Return the median milliseconds of the row of median length."""
    lengths, split = materials.student_tokens(config, "validation").lengths, materials.data(config).validation
    row = int(np.argsort(lengths, kind="stable")[len(lengths) // 2])
    text = split.texts[row] if split.pairs is None else (split.texts[row], split.pairs[row])
    inputs, times = classifier.inputs(classifier.encode([text])), []
    for _ in range(UNTIMED + PASSES):
        started = time.perf_counter()
        classifier.run(inputs)
        times.append(time.perf_counter() - started)
    return 1000 * float(np.median(times[UNTIMED:]))
