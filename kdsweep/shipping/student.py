"""Load the student of a run beside the rows that it met, and check that it answers them as its record says. Shapes: N rows, C classes."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from kdsweep.analysis.measured import measured_by_task
from kdsweep.analysis.tasks import predicted
from kdsweep.config.tasks import TaskName
from kdsweep.config.trial import TrialConfig
from kdsweep.errors import ShippingError
from kdsweep.records.reading import TrialRow, read_predictions, read_test, read_test_predictions
from kdsweep.shipping.quality import Classify
from kdsweep.shipping.session import OnnxClassifier, Text
from kdsweep.training.data.splits import Split, SplitName
from kdsweep.training.data.tokens import Tokens, padded
from kdsweep.training.evaluation import all_logits
from kdsweep.training.models import load_classifier, weights_sha256
from kdsweep.training.reader import Reader, reader
from kdsweep.training.shared import Materials

ROUNDING = 1e-3
"""Largest gap between two logits whose order may differ between machines, and largest difference of a mean loss."""
RECORDED: dict[TaskName, str] = {"single_label": "class", "multi_label": "set of labels", "regression": "number"}
"""What a record has of every row, in words."""


@dataclass(frozen=True, kw_only=True)
class JudgedSplit:
    """Holds one split as its student meets it, and what the float32 student answers."""

    name: SplitName
    texts: list[Text]
    labels: np.ndarray
    tokens: Tokens
    reference: np.ndarray
    """The float32 PyTorch student's logits [N, C], in batches as in the trial's own evaluation."""
    task: TaskName = "single_label"

    def __len__(self) -> int:
        return len(self.labels)


class Student:
    """Holds the float32 PyTorch student of a run on the CPU, and the splits of its trial."""

    def __init__(self, folder: Path, run: TrialRow, materials: Materials) -> None:
        """Load the student in `folder`. Raises ShippingError where its weights are not those that the run trained."""
        self.run, self.folder = run, folder
        self.config: TrialConfig = replace(run.config, device="cpu", precision="fp32")
        self.data = materials.data(self.config)
        names, task = self.data.label_names, self.data.task
        self.model: nn.Module = load_classifier(str(folder), None, names, seed=0, task=task).eval()
        self._reader: Reader = reader(str(folder), None, task)
        trained = run.result and run.result.weights_sha256
        if trained and (now := weights_sha256(self.model)) != trained:
            raise ShippingError(
                f"{folder} must hold the student that {run.folder} trained, weights_sha256 {trained}, but its weights are {now}"
            )

    def split(self, name: SplitName) -> JudgedSplit:
        """Return a split with the student's answers. Raises ShippingError where these are not what the run's record says."""
        split = self.data.split(name)
        tokens = self._reader.tokens(split, max_length=self.config.max_length)
        logits = all_logits(self.model, tokens, classes=len(self.data.label_names)).numpy()
        texts, task = _texts(split), self.data.task
        return JudgedSplit(name=name, texts=texts, labels=split.labels, tokens=tokens, reference=logits, task=task)

    def classify(self, tokens: Tokens) -> Classify:
        """Return the function that gives the PyTorch student's logits of rows of `tokens`."""

        def logits(rows: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                found: np.ndarray = self.model(**padded(tokens, rows).inputs).logits.numpy()
            return found

        return logits


def check_recorded(split: JudgedSplit, run: TrialRow) -> None:
    """Check the answers to validation or test rows against the run's record. Raises ShippingError where they differ by more than rounding."""
    if split.name == "test":
        recorded = read_test(run.folder)
        predictions, loss = read_test_predictions(run.folder), recorded.loss if recorded else None
    else:
        predictions, loss = read_predictions(run.folder), run.result.val_loss if run.result else None
    problems = []
    if predictions is not None and len(predictions) != len(split):
        problems.append(f"the record has {len(predictions):,} rows, and there are {len(split):,}")
    elif predictions is not None and (wrong := int((_moved(split, predictions) > ROUNDING).sum())):
        problems.append(f"{wrong:,} of {len(split):,} rows have another {RECORDED[split.task]} than recorded")
    now = measured_by_task(split.reference, split.labels, split.task)["loss"]
    if loss is not None and now is not None and abs(now - loss) > ROUNDING * _unit(split) ** 2:
        problems.append(f"its loss is {now:.5f}, recorded was {loss:.5f}")
    if problems:
        raise ShippingError(
            f"the student must answer the {split.name} rows as {run.folder} records it, up to rounding, but {'; '.join(problems)}: "
            "its rows, its tokenizer or a library are not those that it was recorded with. "
            f"`python -m kdsweep.reproduce {run.folder}` tells what differs"
        )


def _moved(split: JudgedSplit, predictions: np.ndarray) -> np.ndarray:
    """Return by how much the logits of each row must have moved since these predictions of it were recorded, [N], in `_unit`."""
    logits = split.reference
    if split.task == "single_label":
        gaps: np.ndarray = logits.max(axis=1) - logits[np.arange(len(split)), predictions]
        return gaps
    if split.task == "multi_label":
        others: np.ndarray = (np.abs(logits) * (predicted(logits, split.task) != predictions)).max(axis=1)
        return others
    apart: np.ndarray = np.abs(logits[:, 0] - predictions) / _unit(split)
    return apart


def _unit(split: JudgedSplit) -> float:
    """Return the size of a logit beside which rounding is small: 1, or the labels' standard deviation where they are numbers further apart."""
    return max(1.0, float(split.labels.std(dtype=np.float64))) if split.task == "regression" else 1.0


def check_tokens(classifier: OnnxClassifier, split: JudgedSplit) -> None:
    """Check that tokenizer.json alone gives the tokens of training. Raises ShippingError where it does not."""
    found, ids = classifier.encode(split.texts), split.tokens.ids.numpy()
    starts = split.tokens.starts.numpy()
    for row, (each, start, length) in enumerate(zip(found, starts, split.tokens.lengths, strict=True)):
        if each.ids != ids[start : start + length].tolist():
            raise ShippingError(
                f"{classifier.path.parent.parent / 'tokenizer.json'} must give the tokens that the student was trained on, but gives "
                f"others for {split.name} row {row}: this tokenizer needs transformers, and ONNX Runtime runs without it"
            )


def _texts(split: Split) -> list[Text]:
    return list(split.texts) if split.pairs is None else list(zip(split.texts, split.pairs, strict=True))
