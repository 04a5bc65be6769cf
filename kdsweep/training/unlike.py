"""Compare texts without labels with the labelled rows, and warn where they look like another domain."""

from typing import NamedTuple

import numpy as np
import torch

from kdsweep.config.trial import TrialConfig
from kdsweep.training.data.tokens import TEACHER_LOGITS, Rows
from kdsweep.training.shared import Materials

LEAST_DIFFERENCE, STANDARD_ERRORS = 0.05, 4
"""Difference of the teacher's mean confidence from which texts look different, if it is also so many of its standard errors."""
TEXTS_ASKED = 20_000
"""Texts that are compared; they stand in an order drawn at random."""
UNKNOWN_FACTOR, UNKNOWN_MORE = 2, 0.02
"""Times the share of unknown word pieces in labelled rows, and how far above it, from which texts look different."""


class Sureness(NamedTuple):
    """Holds how sure the teacher is of some rows: mean largest probability, its standard error, and mean entropy in nats, at T = 1.

    Of multi_label a row's probability and entropy are means over the labels, of what is decided on each.
    """

    confidence: float
    error: float
    entropy: float


def unlike_labelled(materials: Materials, config: TrialConfig) -> str | None:
    """Describe how the teacher's confidence on texts without labels differs from that on validation; return None where it hardly does."""
    if not config.has_unlabeled:
        return None
    rows, validation = materials.rows(config)
    known = len(rows.labels) - rows.extra
    texts, labelled = sureness(rows, np.arange(known, min(known + TEXTS_ASKED, len(rows.labels)))), sureness(validation)
    if texts is None or labelled is None:
        return None
    difference, error = texts.confidence - labelled.confidence, float(np.hypot(texts.error, labelled.error))
    if abs(difference) < max(LEAST_DIFFERENCE, STANDARD_ERRORS * error):
        return None
    less = "less" if difference < 0 else "more"
    return (
        f"the texts without labels look like another domain: the teacher is {less} sure of them, with a mean confidence of "
        f"{texts.confidence:.1%} against {labelled.confidence:.1%} on validation ({abs(difference) / max(error, 1e-9):.0f} standard errors) and "
        f"an entropy of {texts.entropy:.2f} against {labelled.entropy:.2f} nats; a student of such texts may gain less, or lose"
    )


def sureness(rows: Rows, numbers: np.ndarray | None = None) -> Sureness | None:
    """Return how sure the teacher is of the rows `numbers` (None: all) for which it has logits; None for fewer than two such rows, and for
    regression, whose numbers tell nothing of it."""
    numbers = np.arange(len(rows.labels)) if numbers is None else numbers
    if rows.taught is not None:
        numbers = numbers[rows.taught[numbers]]
    if TEACHER_LOGITS not in rows.targets or len(numbers) < 2 or rows.task == "regression":
        return None
    logits = rows.teacher_logits[torch.from_numpy(numbers)].double()
    if rows.task == "multi_label":
        logits = torch.stack([logits, torch.zeros_like(logits)], dim=-1)  # there or not: softmax is the sigmoid
    logs = torch.log_softmax(logits, dim=-1).cpu()
    confidence = logs.max(dim=-1).values.exp()
    entropy = torch.special.entr(logs.exp()).sum(dim=-1)
    if rows.task == "multi_label":
        confidence, entropy = confidence.mean(dim=-1), entropy.mean(dim=-1)
    error = float(confidence.std()) / len(numbers) ** 0.5
    return Sureness(float(confidence.mean()), error, float(entropy.mean()))


def strange_pieces(address: str, texts: float, labelled: float) -> list[str]:
    """Return a warning where a tokenizer knows far fewer word pieces of the texts without labels than of labelled rows; else nothing.

    `texts` and `labelled` are the shares of unknown pieces in both.
    """
    if texts < max(UNKNOWN_FACTOR * labelled, labelled + UNKNOWN_MORE):
        return []
    return [
        f"the texts without labels look like another language or domain: {texts:.1%} of their word pieces are unknown to the tokenizer of "
        f"{address}, of those of labelled rows {labelled:.1%}"
    ]
