"""Turn a student into ONNX, and an ONNX model's weights into 8 bits.

`transformers.exporters` writes the graph, `onnxruntime.quantization` quantises the file. Shapes: B batch, L tokens, C classes.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kdsweep.errors import ShippingError
from kdsweep.shipping.extra import EXPORTING, need

OPSET = 20
"""The version of ONNX's operators: the newest that ONNX Runtime 1.21 and the Hub's readers know whole."""
SAMPLE = (2, 7)
"""Rows and tokens of the example that is traced; both are free in the exported graph."""
QUANTIZED = ("MatMul", "Gemm", "Gather")
"""The operators whose weights become 8 bits: dense layers and tables of embeddings, which hold all but all of a classifier's numbers."""


def export_onnx(student_folder: Path, to: Path) -> None:
    """Write the student in `student_folder` as one ONNX file, float32: its tokens int64 [B, L] in, logits float32 [B, C] out, B and L free.

    Raises ShippingError for a family of models that the exporter cannot take.
    """
    need(*EXPORTING)
    import onnx
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.exporters import OnnxConfig, OnnxExporter

    model = AutoModelForSequenceClassification.from_pretrained(
        student_folder, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
    ).eval()
    sample = {name: torch.ones(SAMPLE, dtype=torch.int64) for name in inputs_of(model.config)}
    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    config = OnnxConfig(dynamic=True, dynamic_shapes=dict.fromkeys(sample, free), opset_version=OPSET)
    try:
        with _quiet():
            program = OnnxExporter().export(model, sample, config=config).program
            OnnxExporter.save_program(program, to)
    except OSError:
        raise
    except Exception as error:  # whatever torch.export meets in a model's code
        cause = " ".join(str(error).split())[:300]
        raise ShippingError(
            f"{student_folder} must be a model that transformers.exporters can write as ONNX, but is a {model.config.model_type}, "
            f"of which it says {type(error).__name__}: {cause}"
        ) from error
    onnx.save(_plain(onnx.load(to)), to)
    to.with_name(f"{to.name}.data").unlink(missing_ok=True)


def inputs_of(config: Any) -> tuple[str, ...]:
    """Return the names of the inputs of the model that has this configuration, in the order of its exported graph."""
    segments = ("token_type_ids",) if (getattr(config, "type_vocab_size", None) or 0) > 1 else ()
    return ("input_ids", "attention_mask", *segments)


def _plain(model: Any) -> Any:
    """Return an ONNX model without what the exporter notes of this machine: names of its files, lines of its code."""
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
    return model


def quantize(
    model: Path, to: Path, how: Literal["dynamic", "static"], calibration: Sequence[Mapping[str, np.ndarray]]
) -> None:
    """Write `model` with weights of 8 bits, an own scale for each output channel.

    `dynamic` finds the scale of activations anew for every batch; `static` takes those that `calibration` showed, a model's inputs
    each.
    """
    need(*EXPORTING)
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static

    graph = onnx.load(model)
    del graph.graph.value_info[:]  # stale once weights are transposed
    with _quiet():
        if how == "dynamic":
            quantize_dynamic(graph, to, op_types_to_quantize=list(QUANTIZED), per_channel=True)
        else:
            quantize_static(
                graph,
                to,
                _Rows(calibration),
                op_types_to_quantize=list(QUANTIZED),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                extra_options={"MatMulConstBOnly": True},
            )
    onnx.save(_plain(onnx.load(to)), to)


class _Rows:
    """Hands calibration rows to ONNX Runtime, one call each."""

    def __init__(self, rows: Sequence[Mapping[str, np.ndarray]]) -> None:
        self._left = iter(rows)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next row; None after the last one."""
        row = next(self._left, None)
        return None if row is None else dict(row)


@contextmanager
def _quiet() -> Iterator[None]:
    """Run the block without the progress, advice and warnings that exporter and quantiser print."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
