"""A tiny student from a teacher of every family as ONNX, in float32 and in 8 bits: plain transformers' answers, alone and in batches."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoders import write_encoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kdsweep.shipping.exporter import How, export_onnx, inputs_of, quantize
from kdsweep.shipping.session import OnnxClassifier, Text
from kdsweep.training.models import load_classifier
from kdsweep.training.students import student_from_teacher
from kdsweep.training.trial import save_student

LAYERS = {"modernbert": 2, "deberta-v2": 2}
"""Layers of students whose layers are not all alike, or share tables; others have one."""
NAMES = ("joy", "love", "fear")
TEXTS: list[Text] = ["the film was great", "a dull story and a weak ending so very boring in the end", "music", ""]
PAIRS: list[Text] = [("the film was great", "a dull story"), ("music", "the song was really lovely in the end")]


def expected(folder: Path, text: Text) -> np.ndarray:
    """The logits of plain transformers for one row."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), load(folder)
    row = tokenizer(*([text] if isinstance(text, str) else text), return_token_type_ids=True, return_tensors="pt")
    return answered(model, {name: row[name].numpy() for name in inputs_of(model.config)})[0]


def load(folder: Path) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(folder).eval()


def answered(model: Any, inputs: dict[str, np.ndarray]) -> np.ndarray:
    with torch.inference_mode():
        logits: np.ndarray = model(**{name: torch.from_numpy(value) for name, value in inputs.items()}).logits.numpy()
    return logits


@pytest.mark.slow
@pytest.mark.parametrize(
    "family",
    [
        *("bert", "distilbert", "roberta", "xlm-roberta", "camembert", "electra", "mpnet", "deberta-v2", "modernbert"),
        *("convbert", "mobilebert", "xlnet"),
    ],
)
def test_a_student_of_each_family_answers_alike_as_onnx(family: str, tmp_path: Path) -> None:
    student, layers = tmp_path / "student", LAYERS.get(family, 1)
    body = write_encoder(tmp_path / "body", family, layers=layers + 1, initializer_range=0.2)
    teacher = load_classifier(str(body), None, NAMES, seed=0)
    shorter = student_from_teacher(teacher, f"first:{layers}", NAMES, seed=1)
    save_student(shorter, AutoTokenizer.from_pretrained(body), student)
    (student / "onnx").mkdir()
    export_onnx(student, student / "onnx/model.onnx")
    model = OnnxClassifier(student, "fp32", 1, max_length=32)
    for texts in (TEXTS, PAIRS):
        logits = np.stack([expected(student, text) for text in texts])
        assert np.ptp(logits) > 0.05, "the rows are told apart"
        assert np.abs(np.concatenate([model.logits([text]) for text in texts]) - logits).max() < 1e-5
        batch = model.inputs(model.encode(texts))
        assert np.abs(model.run(batch) - answered(load(student), batch)).max() < 1e-5
        reads_padding = family == "convbert" and texts is TEXTS  # its convolutions do, near the end of a row
        assert (np.abs(model.run(batch) - logits).max() < 1e-5) != reads_padding
    rows = [model.inputs(model.encode([text])) for text in (*TEXTS, *PAIRS)]
    how: How
    for how in ("dynamic", "static"):
        file = f"onnx/{how}.onnx"
        quantize(student / "onnx/model.onnx", student / file, how, rows)
        found = OnnxClassifier(student, "int8", 1, max_length=32, file=file).run(batch)
        assert np.abs(found - model.run(batch)).max() < 0.2 * np.ptp(logits)
        assert (student / file).stat().st_size < (student / "onnx/model.onnx").stat().st_size
