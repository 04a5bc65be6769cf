"""Exported students made by hand, of a few words: a real ONNX graph and a real tokenizer, without training and without torch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from exports import an_export

from kdsweep.records.export_schema import Export
from kdsweep.records.writing import write_export

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "bad", "fine")
LOGITS = np.array([[0, 0], [0, 0], [0, 0], [0, 0], [2, 0], [0, 2]], np.float32)
"""What each word adds to the logits of negative and positive."""


PROBLEMS = {"multi_label": "multi_label_classification", "regression": "regression"}


def make_exported(folder: Path, **changes: Any) -> Export:
    """An exported folder: `bad` is negative, `fine` positive, every other word is nothing; `changes` go into its record.

    With `task` regression its number, `liking`, is twice the number of words `fine`; with multi_label each word speaks for its label alone.
    """
    (folder / "onnx").mkdir(parents=True)
    problem, is_number = PROBLEMS.get(changes.get("task", "")), changes.get("task") == "regression"
    config = {"id2label": {"0": "liking"} if is_number else {"0": "negative", "1": "positive"}, "problem_type": problem}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    settings = {"pad_token": "[PAD]", "model_max_length": 16}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    _tokenizer().save(str(folder / "tokenizer.json"))
    for name in ("model.onnx", "model_int8.onnx"):
        (folder / "onnx" / name).write_bytes(_graph(LOGITS[:, 1:] if is_number else LOGITS))
    export = an_export(**{"max_length": 16, **changes})
    write_export(folder, export)
    return export


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    made = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return made


def _graph(table: np.ndarray) -> bytes:
    """The sum of the rows of `table` over the words that the attention mask keeps."""
    from onnx import TensorProto, helper, numpy_helper

    ids, mask = (
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask")
    )
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", table.shape[1]])
    steps = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["kept"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["kept", "last"], ["column"]),
        helper.make_node("Mul", ["rows", "column"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "middle"], ["logits"], keepdims=0),
    ]
    held = {"table": table, "last": np.array([2], np.int64), "middle": np.array([1], np.int64)}
    constants = [numpy_helper.from_array(value, name) for name, value in held.items()]
    graph = helper.make_graph(steps, "student", [ids, mask], [logits], constants)
    made: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    ).SerializeToString()
    return made
