"""A student as ONNX: the same logits at every batch and length, and weights of 8 bits with the scales that were asked for."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession
from transformers import AutoConfig, AutoModelForSequenceClassification

from kdsweep.errors import ShippingError
from kdsweep.shipping.exporter import export_onnx, inputs_of, quantize

TINY: dict[str, Any] = {"vocab_size": 90, "num_labels": 3, "hidden_size": 32, "num_hidden_layers": 2}
TINY |= {"num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 64}
NOTES = [onnx.StringStringEntryProto(key="stack", value="/home/me/model.py, line 7")]


def write_student(folder: Path, family: str) -> torch.nn.Module:
    """A student of random weights, wider than usual, so that 8 bits make a difference."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **TINY, initializer_range=0.3)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    model.save_pretrained(folder)
    return model


def batch(rows: int, length: int, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Random words, the second row half as long as the others, every row with a second text."""
    rng, mask = np.random.default_rng([rows, length]), np.ones((rows, length), np.int64)
    mask[1:2, (length + 1) // 2 :] = 0
    ids = rng.integers(5, 90, (rows, length)) * mask
    types = (np.arange(length) >= length // 2).astype(np.int64) * mask
    made = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    return {name: made[name] for name in names}


def write_dense(path: Path) -> None:
    """A table, a dense layer with one channel a thousand times as strong as the other, and notes of this machine."""
    rng = np.random.default_rng(0)
    weights = {"table": rng.normal(size=(90, 8)), "dense": rng.normal(size=(8, 2)) * [1.0, 1000.0]}
    held = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    held.append(numpy_helper.from_array(np.array([1], np.int64), "middle"))
    tokens = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["B", "L"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", 2])
    steps = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("ReduceMean", ["rows", "middle"], ["mean"], keepdims=0, doc_string="model.py"),
        helper.make_node("MatMul", ["mean", "dense"], ["logits"], name="dense"),
    ]
    steps[0].metadata_props.extend(NOTES)
    kept = helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["B", 8])
    graph = helper.make_graph(steps, "student", [tokens], [kept, logits], held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


@pytest.mark.parametrize("how", ["dynamic", "static"])
def test_weights_become_8_bits_each_channel_with_its_own_scale(how: Any, tmp_path: Path) -> None:
    model, to = tmp_path / "model.onnx", tmp_path / f"{how}.onnx"
    write_dense(model)
    rows = [{"input_ids": np.random.default_rng(row).integers(5, 90, (1, 4 + row))} for row in range(9)]
    quantize(model, to, how, rows)
    first = to.read_bytes()
    quantize(model, to, how, rows)
    assert to.read_bytes() == first and b"model.py" not in first
    graph = onnx.load(to).graph
    assert [output.name for output in graph.output] == ["logits"]
    assert {size.dim_param for value in graph.input for size in value.type.tensor_type.shape.dim} == {"batch", "length"}
    weights = [
        held for held in graph.initializer if held.data_type in (TensorProto.INT8, TensorProto.UINT8) and held.dims
    ]
    assert {tuple(held.dims) for held in weights} >= {(90, 8), (8, 2)}
    assert any(tuple(held.dims) == (2,) for held in graph.initializer if held.data_type == TensorProto.FLOAT)
    both = [InferenceSession(path).run(["logits"], rows[3])[0][0] for path in (model, to)]
    assert np.abs(both[0] - both[1]).max() / np.abs(both[0]).max() < 0.05
    assert abs(both[0][0] - both[1][0]) < 0.05, "the weak channel does not take the strong one's scale"


def test_a_graph_that_cannot_be_quantised_is_told(tmp_path: Path) -> None:
    write_dense(tmp_path / "model.onnx")
    with pytest.raises(ShippingError, match="model.onnx must be a graph that ONNX Runtime can quantise, static, but: "):
        quantize(tmp_path / "model.onnx", tmp_path / "to.onnx", "static", ())


def test_a_model_that_knows_segments_gets_them() -> None:
    assert inputs_of(AutoConfig.for_model("bert")) == ("input_ids", "attention_mask", "token_type_ids")
    others = (AutoConfig.for_model(name, type_vocab_size=1) for name in ("distilbert", "roberta", "xlnet"))
    assert {inputs_of(config) for config in others} == {("input_ids", "attention_mask")}


@pytest.mark.slow
def test_a_student_gives_the_same_logits_as_onnx_for_every_batch_and_length(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = write_student(tmp_path / "student", "bert")
    capfd.readouterr()
    export_onnx(tmp_path / "student", tmp_path / "model.onnx")
    assert capfd.readouterr() == ("", ""), "progress is the command's"
    first = (tmp_path / "model.onnx").read_bytes()
    assert str(tmp_path).encode() not in first and b".py" not in first
    session = InferenceSession(tmp_path / "model.onnx")
    names = inputs_of(model.config)
    shapes = [(each.name, tuple(each.shape), each.type) for each in session.get_inputs()]
    assert shapes == [(name, ("batch", "length"), "tensor(int64)") for name in names]
    assert [(each.name, each.shape, each.type) for each in session.get_outputs()] == [
        ("logits", ["batch", 3], "tensor(float)")
    ]
    for rows, length in ((1, 1), (1, 2), (1, 64), (2, 7), (3, 33), (32, 20)):
        given = batch(rows, length, names)
        with torch.inference_mode():
            expected = model(**{name: torch.from_numpy(value) for name, value in given.items()}).logits.numpy()
        assert np.abs(session.run(None, given)[0] - expected).max() < 1e-4
    assert sorted(path.name for path in tmp_path.glob("*.onnx*")) == ["model.onnx"]


@pytest.mark.slow
def test_a_family_that_the_exporter_cannot_take_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What transformers 5.24 says of a Longformer, without the seconds that it takes to say it."""

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("Could not guard on\n data-dependent expression")

    write_student(tmp_path / "student", "bert")
    monkeypatch.setattr("transformers.exporters.OnnxExporter.export", refuse)
    with pytest.raises(ShippingError) as caught:
        export_onnx(tmp_path / "student", tmp_path / "model.onnx")
    assert str(caught.value) == (
        f"{tmp_path / 'student'} must be of a family of models that transformers.exporters can write as ONNX, but is a bert: "
        "RuntimeError, Could not guard on data-dependent expression"
    )


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    model = write_student(tmp_path / "student", "bert")
    (tmp_path / "student" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "student" / "pytorch_model.bin")
    with pytest.raises(ShippingError, match="must be a student as its trial saved it, but: OSError, .*safetensors"):
        export_onnx(tmp_path / "student", tmp_path / "model.onnx")
