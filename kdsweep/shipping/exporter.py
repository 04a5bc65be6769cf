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
from kdsweep.shipping.extra import EXPORTING, INSTALL, need

OPSET = 20
"""The version of ONNX's operators, fixed so that another release of torch or onnxscript writes the same graph."""
SAMPLE = (2, 7)
"""Rows and tokens of the example that is traced; both are free in the exported graph."""
How = Literal["dynamic", "static"]
"""How activations get their scales."""
QUANTIZATIONS: dict[How, str] = {"dynamic": "dynamic per channel", "static": "static per channel, {rows} rows"}
"""The ways to weights of 8 bits, of which validation chooses one, and what the record calls them."""
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

    try:
        from transformers.exporters import OnnxConfig, OnnxExporter
    except ImportError as error:  # transformers below 5.24
        raise ShippingError(f"exported students need transformers.exporters: {INSTALL}") from error
    with _quiet():
        model = AutoModelForSequenceClassification.from_pretrained(
            student_folder, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
        ).eval()
    sample = {name: torch.ones(SAMPLE, dtype=torch.int64) for name in inputs_of(model.config)}
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    config = OnnxConfig(dynamic=True, dynamic_shapes=dict.fromkeys(sample, free), opset_version=OPSET)
    try:
        with _quiet():
            OnnxExporter.save_program(OnnxExporter().export(model, sample, config=config).program, to)
    except OSError:
        raise
    except ImportError as error:  # a release that the exporter does not take
        raise ShippingError(f"exported students need other releases: {_said(error)}; {INSTALL}") from error
    except Exception as error:  # whatever torch.export meets in a model's code
        raise ShippingError(
            f"{student_folder} must be of a family of models that transformers.exporters can write as ONNX, but is a "
            f"{model.config.model_type}: {_said(error)}"
        ) from error
    onnx.save(_plain(onnx.load(to)), to)
    to.with_name(f"{to.name}.data").unlink(missing_ok=True)


def inputs_of(config: Any) -> tuple[str, ...]:
    """Return the names of the inputs of the model that has this configuration, in the order of its exported graph."""
    segments = ("token_type_ids",) if (getattr(config, "type_vocab_size", None) or 0) > 1 else ()
    return ("input_ids", "attention_mask", *segments)


def _plain(model: Any) -> Any:
    """Return an ONNX model with its logits alone as output and its free sizes named, and without what the exporter notes of this machine:
    its files, lines of code."""
    for output in [
        each for each in model.graph.output if each.name != "logits"
    ]:  # what a model keeps for its next call
        model.graph.output.remove(output)
    for value in (*model.graph.input, *model.graph.output):
        for size, name in zip(value.type.tensor_type.shape.dim, ("batch", "length"), strict=True):
            if not size.HasField("dim_value"):
                size.dim_param = name
    del model.graph.value_info[:]
    for part in (model, model.graph, *model.graph.node, *model.graph.initializer):
        del part.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
    return model


def quantize(model: Path, to: Path, how: How, calibration: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Write `model` with weights of 8 bits, an own scale for each output channel.

    `dynamic` finds the scale of activations anew for every batch; `static` takes those that `calibration` showed, a model's inputs
    each. What an operator gives stays float32 in both: of 512 rows, 8 bits for it too doubled the error of the logits.

    Raises ShippingError for a graph that ONNX Runtime cannot quantise.
    """
    need(*EXPORTING)
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static

    graph = onnx.load(model)
    given: dict[str, Any] = {"op_types_to_quantize": list(QUANTIZED), "per_channel": True}
    rows = _Rows(calibration, [each.name for each in graph.graph.input])
    try:
        with _quiet():
            if how == "dynamic":
                quantize_dynamic(graph, to, **given)
            else:
                options = {"MatMulConstBOnly": True, "OpTypesToExcludeOutputQuantization": list(QUANTIZED)}
                quantize_static(graph, to, rows, activation_type=QuantType.QUInt8, extra_options=options, **given)
    except OSError:
        raise
    except Exception as error:  # whatever ONNX Runtime meets in a graph
        raise ShippingError(
            f"{model} must be a graph that ONNX Runtime can quantise, {how}, but: {_said(error)}"
        ) from error
    onnx.save(_plain(onnx.load(to)), to)


class _Rows:
    """Gives calibration rows to ONNX Runtime, one call each; an input that they lack is zeros (a lone text's segments)."""

    def __init__(self, rows: Sequence[Mapping[str, np.ndarray]], inputs: Sequence[str]) -> None:
        self._left, self._inputs = iter(rows), inputs

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next row; None after the last one."""
        row = next(self._left, None)
        return row and {name: row.get(name, np.zeros_like(row["input_ids"])) for name in self._inputs}


def _said(error: Exception) -> str:
    return f"{type(error).__name__}, {' '.join(str(error).split())[:300]}"


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
