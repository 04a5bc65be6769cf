"""Write how an exported student is loaded: three snippets for its model card, each of which runs as it stands in the student's folder."""

from kdsweep.analysis.shipped_form import shipped_form
from kdsweep.config.tasks import TaskName
from kdsweep.records.export_schema import Export, FormRecord

TRANSFORMERS = """\
from transformers import pipeline

classify = pipeline("text-classification", model=".")
{asked}
"""
ASKED: dict[TaskName, str] = {
    "single_label": "print(classify({texts}, truncation=True, max_length={max_length}))",
    "multi_label": """\
found = classify({texts}, top_k=None, truncation=True, max_length={max_length})
print([each for each in found if each["score"] > 0.5])""",
    "regression": "print(classify({texts}, truncation=True, max_length={max_length}))",
}
"""What the pipeline is asked, by task: config.json's problem_type tells it softmax, sigmoid and the number as it is apart."""
ONNX_RUNTIME = """\
import json

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.enable_truncation({max_length})
tokenizer.no_padding()
session = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])
with open("config.json", encoding="utf-8") as config:
    names = json.load(config)["id2label"]

row = tokenizer.encode({texts})
known = {{"input_ids": row.ids, "attention_mask": row.attention_mask, "token_type_ids": row.type_ids}}
inputs = {{each.name: np.array([known[each.name]], np.int64) for each in session.get_inputs()}}
logits = session.run(["logits"], inputs)[0][0]
{answered}
"""
ANSWERED: dict[TaskName, str] = {
    "single_label": """\
shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
print(names[str(shares.argmax())], shares.max())""",
    "multi_label": """\
shares = 1 / (1 + np.exp(-logits))
print([(names[str(label)], shares[label]) for label in np.argsort(-shares) if shares[label] > 0.5])""",
    "regression": """\
print(names["0"], logits[0])""",
}
"""What logits mean, by task."""
KDSWEEP = """\
printf '{texts}\\n' | python -m kdsweep.predict . --form {form}
"""


def loading(export: Export) -> list[str]:
    """Return the card's paragraphs on loading the student; those about ONNX only where it has an ONNX form."""
    one, pair = "An example.", "Another one."
    is_pair = export.text_pair_column is not None
    asked = f'{{"text": "{one}", "text_pair": "{pair}"}}' if is_pair else f'"{one}"'
    parts = [
        "Each runs as it stands in this folder (`hf download USER/NAME --local-dir NAME` fetches it from the Hub).",
        "With PyTorch (`pip install torch transformers`):",
        _code(
            "python", TRANSFORMERS.format(asked=ASKED[export.task].format(texts=asked, max_length=export.max_length))
        ),
    ]
    form = _onnx_form(export)
    if form is None:
        return parts
    two = f'"{one}", "{pair}"' if is_pair else f'"{one}"'
    piped = f"{one}\\t{pair}" if is_pair else one
    return [
        *parts,
        "With ONNX Runtime, without PyTorch (`pip install onnxruntime tokenizers numpy`):",
        _code("python", _onnx_code(export, two, form.file)),
        "From a shell, a text a line (`pip install 'kdsweep[export]'`):",
        _code("bash", KDSWEEP.format(texts=piped, form=form.form)),
    ]


def _onnx_code(export: Export, texts: str, file: str) -> str:
    answered = ANSWERED[export.task]
    return ONNX_RUNTIME.format(texts=texts, max_length=export.max_length, file=file, answered=answered)


def _onnx_form(export: Export) -> FormRecord | None:
    """Return the ONNX form that the snippets load: the one to ship, else the first; None where there is none."""
    ships = shipped_form(export)
    forms = [form for form in export.forms if form.form != "pytorch"]
    return ships if ships in forms else next(iter(forms), None)


def _code(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"
