"""Tiny ONNX classifiers and the folders that they are exported in, written by hand: no torch, no second of exporting."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d")
"""A word's place is its id."""


def write_onnx(path: Path, table: np.ndarray, *, segments: bool = False, by_batch: bool = False) -> None:
    """A classifier whose logits are the sum of its tokens' rows of `table`, float [V, C].

    With `segments` it takes token_type_ids too, and adds 100 for each token of a second text to the logits of class 0; with
    `by_batch` it subtracts the batch's largest logit of class 1, as dynamic scales let neighbours count.
    """
    from onnx import TensorProto, checker, helper, numpy_helper, save

    tokens = ["input_ids", "attention_mask", *(["token_type_ids"] if segments else [])]
    node = helper.make_node
    nodes = [
        node("Gather", ["table", "input_ids"], ["each"]),
        node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["mask", "last"], ["wide"]),
        node("Mul", ["each", "wide"], ["kept"]),
        node("ReduceSum", ["kept", "middle"], ["summed"], keepdims=0),
    ]
    at = "summed"
    if segments:
        nodes += [
            node("Cast", ["token_type_ids"], ["second"], to=TensorProto.FLOAT),
            node("ReduceSum", ["second", "middle"], ["seconds"], keepdims=1),
            node("Mul", ["seconds", "first_class"], ["added"]),
            node("Add", [at, "added"], ["with_seconds"]),
        ]
        at = "with_seconds"
    if by_batch:
        nodes += [
            node("ReduceMax", [at, "rows"], ["largest"], keepdims=1),
            node("Mul", ["largest", "second_class"], ["lowered"]),
            node("Sub", [at, "lowered"], ["with_batch"]),
        ]
        at = "with_batch"
    nodes.append(node("Identity", [at], ["logits"]))
    classes = table.shape[1]
    constants = {
        "table": table.astype(np.float32),
        "last": np.array([2]),
        "middle": np.array([1]),
        "rows": np.array([0]),
        "first_class": 100 * np.eye(classes, dtype=np.float32)[:1],
        "second_class": np.eye(classes, dtype=np.float32)[1:2],
    }
    used = {name for each in nodes for name in each.input}
    graph = helper.make_graph(
        nodes,
        "bag",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in tokens],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(model, path)


def write_words(folder: Path, names: Sequence[str] = ("bad", "good"), **settings: object) -> None:
    """The tokenizer of `WORDS`, with its settings, and a config of these classes."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    facts = {"pad_token": "[PAD]", "model_max_length": 8, **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(facts), "utf-8")
    (folder / "config.json").write_text(json.dumps({"id2label": dict(enumerate(names))}), "utf-8")
