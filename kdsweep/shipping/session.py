"""Run an exported student by ONNX Runtime, without torch and transformers. Shapes: B rows, L tokens, C classes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kdsweep.config.tasks import TaskName
from kdsweep.errors import ShippingError
from kdsweep.records.reading import read_export
from kdsweep.shipping.extra import need

Text = str | tuple[str, str]
"""A row's text, or its pair of texts."""

FILES: dict[str, str] = {"fp32": "onnx/model.onnx", "int8": "onnx/model_int8.onnx"}
"""Where an exported folder has each form's model, as the Hub lays it out."""
TASKS: dict[str | None, TaskName] = {
    None: "single_label",
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
    "regression": "regression",
}
"""The tasks by transformers' name in config.json, `problem_type`."""
CALLED: dict[TaskName, str] = {"single_label": "classes", "multi_label": "labels", "regression": "numbers"}
"""What config.json names in id2label."""
LABELS_RULE: dict[TaskName, str] = {
    "single_label": "name two classes or more in id2label",
    "multi_label": "name a label or more in id2label",
    "regression": "name one number in id2label",
}
UNLIMITED = 10**6
"""A model_max_length above it is transformers' word for none."""


class Encoded(NamedTuple):
    """Holds one row's tokens: ids and token type ids."""

    ids: list[int]
    types: list[int]


class OnnxClassifier:
    """Runs one form of an exported student on texts: tokens cut as in training, logits in the order of `label_names`."""

    def __init__(
        self, folder: Path, form: str, threads: int, *, max_length: int | None = None, file: str | None = None
    ) -> None:
        """Load the form on `threads` threads; `file` names another model in `folder` than the form's own.

        Rows are cut to `max_length` tokens, or where it is None to what the folder says. Raises ShippingError for a file that is
        missing or damaged, and names it.
        """
        need("onnxruntime", "tokenizers")
        config, settings = (_json(folder / name) for name in ("config.json", "tokenizer_config.json"))
        self.path = folder / (file or FILES[form])
        self.task = _task(config, folder / "config.json")
        self.label_names = _label_names(config, folder / "config.json", self.task)
        self.max_length = max_length or _max_length(folder, settings)
        self._tokenizer = _tokenizer(folder / "tokenizer.json", settings, self.max_length)
        self._pad_id = _pad_id(self._tokenizer, settings)
        self._pads_left = config.get("summary_type") == "last"  # XLNet
        self._session = _session(self.path, threads)
        self._names = [each.name for each in self._session.get_inputs()]

    def encode(self, texts: Sequence[Text]) -> list[Encoded]:
        """Return each row's tokens."""
        return [Encoded(each.ids, each.type_ids) for each in self._tokenizer.encode_batch(list(texts))]

    def inputs(self, rows: Sequence[Encoded]) -> dict[str, np.ndarray]:
        """Return what the model takes for the rows as one batch, each int64 [B, L], padded to the longest."""
        width = max(len(row.ids) for row in rows)
        made = {
            name: np.zeros((len(rows), width), np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")
        }
        made["input_ids"] += self._pad_id
        for place, row in enumerate(rows):
            own = slice(width - len(row.ids), width) if self._pads_left else slice(0, len(row.ids))
            made["input_ids"][place, own] = row.ids
            made["attention_mask"][place, own] = 1
            made["token_type_ids"][place, own] = row.types
        return {name: made[name] for name in self._names}

    def run(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the logits of one batch, float32 [B, C]. Raises ShippingError where the model has not one logit for each class or label."""
        logits: np.ndarray = self._session.run(None, dict(inputs))[0]
        if logits.shape[1:] != (len(self.label_names),):
            raise ShippingError(
                f"{self.path} must give a logit for each of the {len(self.label_names)} {CALLED[self.task]} in config.json, but gives "
                f"{list(logits.shape[1:])} a row: these files are not of one export; export the student again"
            )
        return logits

    def logits(self, texts: Sequence[Text]) -> np.ndarray:
        """Return the logits of texts or pairs as one batch, float32 [B, C]."""
        return self.run(self.inputs(self.encode(texts)))


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unusable(path, "be there as the export wrote it", error) from error
    if not isinstance(content, dict):
        raise _unusable(path, "hold a JSON object", content)
    return content


def _task(config: Mapping[str, Any], path: Path) -> TaskName:
    """Return the task that config.json says; as transformers does, one logit without a word means a number."""
    problem, names = config.get("problem_type"), config.get("id2label")
    if problem is None and isinstance(names, dict) and len(names) == 1:
        return "regression"
    if problem not in TASKS:
        raise _unusable(path, f"have one of {[*TASKS]} as problem_type", problem)
    return TASKS[problem]


def _label_names(config: Mapping[str, Any], path: Path, task: TaskName) -> tuple[str, ...]:
    names = config.get("id2label")
    count = len(names) if isinstance(names, dict) else 0
    enough = {"single_label": count >= 2, "multi_label": count >= 1, "regression": count == 1}[task]
    if not enough or not isinstance(names, dict) or set(names) != {str(number) for number in range(count)}:
        raise _unusable(path, LABELS_RULE[task], names)
    return tuple(str(names[str(number)]) for number in range(len(names)))


def _max_length(folder: Path, settings: Mapping[str, Any]) -> int:
    if export := read_export(folder):
        return export.max_length
    found = settings.get("model_max_length")
    if not isinstance(found, int | float) or not 0 < found < UNLIMITED:
        raise _unusable(
            folder / "tokenizer_config.json", "say how many tokens a row may have (model_max_length)", found
        )
    return int(found)


def _tokenizer(path: Path, settings: Mapping[str, Any], max_length: int) -> Any:
    from tokenizers import Tokenizer

    if not path.is_file():
        raise _unusable(path, "be there: ONNX Runtime has no tokenizer of its own", "no such file")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers library raises no class of its own
        raise _unusable(path, "be a whole tokenizer", error) from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length, direction=settings.get("truncation_side", "right"))
    return tokenizer


def _pad_id(tokenizer: Any, settings: Mapping[str, Any]) -> int:
    token = settings.get("pad_token")
    text = token.get("content") if isinstance(token, dict) else token
    return int((tokenizer.token_to_id(text) if text else None) or 0)


def _session(path: Path, threads: int) -> Any:
    """Load a model. Its threads do not go on spinning after a batch: that takes the cores from whatever else runs."""
    import onnxruntime

    if not path.is_file():
        raise _unusable(path, "be there", "no such file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 4
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no class in common but this one
        raise _unusable(path, "be a whole ONNX model", error) from error


def _unusable(path: Path, rule: str, got: object) -> ShippingError:
    said = " ".join(str(got).split())[:300]
    return ShippingError(f"{path} must {rule}, but got: {said}; export the student again")
