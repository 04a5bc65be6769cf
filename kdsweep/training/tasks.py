"""Turn labels and logits of each task into what torch computes with, and back. Shapes: C classes or labels, N rows.

task           Split.labels     Rows.labels              no label
single_label   int64 [N]        int64 [N]                -1
multi_label    uint8 [N, C]     float32 [N, C], 0 or 1   a row of -1
regression     float32 [N]      float32 [N]              nan
"""

import numpy as np
import torch
from torch import Tensor

from kdsweep.config.tasks import TaskName
from kdsweep.training.data.splits import Data


def label_tensor(labels: np.ndarray) -> Tensor:
    """Return a split's labels as `Rows.labels` holds them."""
    found = torch.from_numpy(labels)
    return found.float() if found.ndim == 2 else found


def label_array(labels: Tensor, task: TaskName) -> np.ndarray:
    """Return the labels of rows that all have one as `Split.labels` holds them."""
    found: np.ndarray = labels.cpu().numpy()
    return found.astype(np.uint8) if task == "multi_label" else found


def has_label(labels: Tensor) -> Tensor:
    """Return which rows have a label, bool [N]."""
    if labels.is_floating_point():
        return labels[:, 0] >= 0 if labels.ndim == 2 else ~labels.isnan()
    return labels >= 0


def without_label(like: Tensor, rows: int) -> Tensor:
    """Return the labels of `rows` rows that have none, of the same shape and kind as those of `like`."""
    none = torch.full_like(like[:1], torch.nan if like.ndim == 1 and like.is_floating_point() else -1)
    return none.expand(rows, *like.shape[1:])


def predicted_labels(logits: Tensor, task: TaskName) -> Tensor:
    """Return what logits [N, C] predict, as `Rows.labels` holds labels."""
    if task == "single_label":
        return logits.argmax(dim=-1)
    return (logits > 0).float() if task == "multi_label" else logits[:, 0]


def first_outputs(data: Data) -> tuple[float, ...] | None:
    """Return where the outputs of a fresh head begin, so that training does not begin by moving there; None for single_label, which begins
    near 0.

    A regression begins at the mean of the training labels; each of several labels, of which k of N training rows have it, at its log odds
    log((k + 1/2) / (N - k + 1/2)), as detectors of rare objects do: Lin et al. 2017, "Focal Loss for Dense Object Detection", section 4.1.
    """
    if data.task == "single_label":
        return None
    if data.task == "regression":
        return (float(data.train.labels.mean(dtype=np.float64)),)
    there = data.train.labels.sum(axis=0, dtype=np.float64)
    odds = (there + 0.5) / (len(data.train) - there + 0.5)
    return tuple(np.log(odds).tolist())


def balanced_weights(labels: Tensor, data: Data) -> Tensor:
    """Return the weight of each row in L_hard under class_weights: balanced, float32 [N], by its class [N]: labelled training rows over
    (classes · those of the class). A row without a label has some weight, which nothing reads."""
    counts = np.bincount(data.train.labels, minlength=len(data.label_names))
    weights = counts.sum() / (len(counts) * np.maximum(counts, 1))
    return torch.from_numpy(weights).float().to(labels.device)[labels.clamp(min=0)]
