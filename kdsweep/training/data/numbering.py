"""Give the labels of all splits one numbering, and sort rows into strata. Shapes: C labels, N rows."""

from collections.abc import Sequence

import numpy as np

from kdsweep.config.tasks import TaskName
from kdsweep.errors import DataError, listed
from kdsweep.training.data.labels import Labels, in_order

BINS = 10
"""Bins of equal size in which the numbers of a regression are stratified."""


def found_names(labels: Labels) -> tuple[str, ...]:
    """Return the names of all classes or labels that rows have, in order."""
    found: set[str] = set()
    for value in set(labels.values):
        found.update(value if isinstance(value, tuple) else (str(value),))
    return in_order(found)


def label_array(labels: Labels, names: Sequence[str], split: str) -> np.ndarray:
    """Return the labels of a split as numbers: indices into `names`, int64 [N]; 1 for each of them that a row has, uint8 [N, C]; or the
    numbers themselves, float32 [N]. Raises DataError for one that is not among `names`."""
    if labels.task == "regression":
        return np.array(labels.values, dtype=np.float32)
    index = {name: number for number, name in enumerate(names)}
    unseen = set(found_names(labels)) - set(index)
    if unseen:
        kind = "class" if labels.task == "single_label" else "label"
        raise DataError(
            f"every {kind} of the {split} rows must occur in training ({listed(names)}), but got {listed(in_order(unseen))}"
        )
    if labels.task == "single_label":
        return np.array([index[str(name)] for name in labels.values], dtype=np.int64)
    found = np.zeros((len(labels.values), len(names)), dtype=np.uint8)
    for row, of_row in enumerate(labels.values):
        assert isinstance(of_row, tuple)
        found[row, [index[name] for name in of_row]] = 1
    return found


def check_differ(labels: np.ndarray, names: Sequence[str], task: TaskName, what: str) -> None:
    """Check that there is something to learn from the labels of `what`. Raises DataError where all numbers or all classes are the same, and
    where no row has any label."""
    if task == "multi_label" and not labels.any():
        raise DataError(
            f"a row must have one label or more of {listed(names)}, but those of all {len(labels):,} {what} are empty"
        )
    if task == "single_label" and len(np.unique(labels)) < 2:
        raise DataError(f"the {what} must hold two classes or more of {listed(names)}, but hold one")
    if task == "regression" and len(np.unique(labels)) < 2:
        raise DataError(
            f"the numbers to predict must differ, but {names[0]} is {labels[0]:g} in all {len(labels):,} {what}; name another label_column, or "
            "other rows"
        )


def strata(labels: np.ndarray) -> np.ndarray:
    """Return the stratum of each row, int64 [N], by which splits, limits and folds are cut.

    Classes, int [N], are their own strata. Rows of labels, uint8 [N, C], are told apart by the rarest label that they have, so that rare
    labels lie in every part; rows without any are a stratum of their own. Numbers, float32 [N], fall into `BINS` bins of equal size.
    """
    if labels.ndim == 2:
        totals = labels.sum(axis=0, dtype=np.int64)
        rarest = np.where(labels > 0, totals, len(labels) + 1).argmin(axis=1)
        found: np.ndarray = np.where(labels.any(axis=1), rarest, labels.shape[1])
        return found
    if np.issubdtype(labels.dtype, np.floating):
        edges = np.quantile(labels, np.arange(1, BINS) / BINS)
        bins: np.ndarray = np.searchsorted(edges, labels, side="right")
        return bins
    return labels
