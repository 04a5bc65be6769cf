"""An exported student answers by ONNX Runtime alone: the tokens of training, every class's logit, damaged files named."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from exports import an_export
from onnx_models import WORDS, write_onnx, write_words

from kdsweep.errors import ShippingError
from kdsweep.records.writing import write_export
from kdsweep.shipping.session import OnnxClassifier

TABLE = np.array([[9, 9], [0, 0], [0, 0], [0, 0], [1, 0], [0, 1], [2, 0], [0, 3]])
"""By token: a and c speak for class 0, b and d for class 1; padding would count for both if it were not masked."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_words(tmp_path)
    write_onnx(tmp_path / "onnx" / "model.onnx", TABLE)
    return tmp_path


def test_rows_of_several_lengths_get_the_logits_that_each_has_alone(folder: Path) -> None:
    model = OnnxClassifier(folder, "fp32", 1)
    texts = ["a", "b d d", "c c a b"]
    assert model.logits(texts).tolist() == [[1, 0], [0, 7], [5, 1]]
    assert [model.logits([text])[0].tolist() for text in texts] == [[1, 0], [0, 7], [5, 1]]
    assert model.label_names == ("bad", "good")


def test_rows_are_cut_as_in_training(folder: Path) -> None:
    assert OnnxClassifier(folder, "fp32", 1).max_length == 8, "the tokenizer's own, without a record"
    write_export(folder, an_export(max_length=5))
    assert OnnxClassifier(folder, "fp32", 1).logits(["a a a a a"]).tolist() == [[3, 0]], "[CLS] and [SEP] are two"
    short = OnnxClassifier(folder, "fp32", 1, max_length=4)
    assert short.logits(["a a a"]).tolist() == [[2, 0]]
    pair = OnnxClassifier(folder, "fp32", 1, max_length=5).encode([("a", "b b b")])
    assert [each.ids for each in pair] == [[2, 4, 3, 5, 3]], "the longer text of a pair is cut"


def test_a_left_cut_and_left_padding_are_kept(tmp_path: Path) -> None:
    write_words(tmp_path, truncation_side="left", pad_token={"content": "d"})
    write_onnx(tmp_path / "onnx" / "model.onnx", TABLE)
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "summary_type": "last"}), "utf-8")
    model = OnnxClassifier(tmp_path, "fp32", 1, max_length=3)
    inputs = model.inputs(model.encode(["a b", ""]))
    assert inputs["input_ids"].tolist() == [[2, 5, 3], [WORDS.index("d"), 2, 3]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [0, 1, 1]]


def test_a_pair_is_told_apart_by_a_model_that_asks_for_it(tmp_path: Path) -> None:
    write_words(tmp_path)
    write_onnx(tmp_path / "onnx" / "model.onnx", TABLE, segments=True)
    model = OnnxClassifier(tmp_path, "fp32", 1)
    assert model.logits([("b", "b"), ("b b", "")]).tolist() == [[200, 2], [100, 2]], "each [SEP] after it counts too"
    assert model.logits(["b b"]).tolist() == [[0, 2]]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("onnx/model.onnx", None),
        ("onnx/model.onnx", b""),
        ("onnx/model.onnx", b"no model"),
        ("tokenizer.json", None),
        ("tokenizer.json", b"{"),
        ("config.json", b"{}"),
        ("config.json", b"[]"),
        ("config.json", b'{"id2label": {"0": "bad", "2": "good"}}'),
        ("config.json", b'{"id2label": {"0": "bad", "1": "good"}, "problem_type": "regression"}'),
        ("config.json", b'{"id2label": {"0": "bad", "1": "good"}, "problem_type": "ranking"}'),
        ("tokenizer_config.json", None),
        ("tokenizer_config.json", b'{"model_max_length": 1e30}'),
    ],
)
def test_a_missing_or_damaged_file_is_refused_by_name(folder: Path, file: str, content: bytes | None) -> None:
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    with pytest.raises(ShippingError, match=f"{file} must .*export the student again"):
        OnnxClassifier(folder, "fp32", 1)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_model_that_was_cut_off_is_refused_by_name(folder: Path, kept: float) -> None:
    path = folder / "onnx" / "model.onnx"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ShippingError, match=r"onnx/model\.onnx must be a whole ONNX model"):
        OnnxClassifier(folder, "fp32", 1)


def test_a_model_of_other_classes_is_refused(folder: Path) -> None:
    write_words(folder, names=("bad", "fair", "good"))
    with pytest.raises(ShippingError, match="logit for each of the 3 classes"):
        OnnxClassifier(folder, "fp32", 1).logits(["a"])


@pytest.mark.parametrize(
    ("problem", "names", "task"),
    [
        (None, ("bad", "good"), "single_label"),
        ("single_label_classification", ("bad", "good"), "single_label"),
        ("multi_label_classification", ("bad", "good"), "multi_label"),
        ("multi_label_classification", ("bad",), "multi_label"),
        ("regression", ("score",), "regression"),
        (None, ("score",), "regression"),
    ],
)
def test_the_task_is_that_of_config_json(
    tmp_path: Path, problem: str | None, names: tuple[str, ...], task: str
) -> None:
    write_words(tmp_path, names=names)
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "problem_type": problem}), "utf-8")
    write_onnx(tmp_path / "onnx" / "model.onnx", TABLE[:, : len(names)])
    model = OnnxClassifier(tmp_path, "fp32", 1)
    assert (model.task, model.label_names, model.logits(["a c"]).shape) == (task, names, (1, len(names)))


def test_neither_torch_nor_transformers_is_imported(folder: Path) -> None:
    asked = (
        "import sys; from pathlib import Path; from kdsweep.shipping.session import OnnxClassifier\n"
        "assert OnnxClassifier(Path(sys.argv[1]), 'fp32', 1).logits(['a']).tolist() == [[1, 0]]\n"
        "print({'torch', 'transformers', 'datasets', 'scipy', 'onnx'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", asked, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
