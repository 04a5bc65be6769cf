"""Measure a model that predicts a number, in numpy. Every function is pure; predictions and labels are float [N], N at least one."""

import numpy as np

from kdsweep.analysis.metrics import check_rows


def mean_squared_error(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean over rows of (prediction - label)²."""
    check_rows(predictions, labels)
    return float(np.mean(np.square(predictions.astype(np.float64) - labels)))


def root_mean_squared_error(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Return the root of the mean squared error, in the labels' unit."""
    return float(np.sqrt(mean_squared_error(predictions, labels)))


def pearson(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Return Pearson's correlation, in [-1, 1]; 0 where all predictions or all labels are equal.

    Its last bits are the same everywhere in memory and with any number of threads, which those of BLAS's products (`@`) are not.
    """
    check_rows(predictions, labels)
    if (predictions == predictions[0]).all() or (
        labels == labels[0]
    ).all():  # whose deviations from the mean need not be exactly 0
        return 0.0
    one, other = (values - values.mean() for values in (predictions.astype(np.float64), labels.astype(np.float64)))
    size = np.sqrt(np.square(one).sum()) * np.sqrt(np.square(other).sum())
    return float(np.clip((one * other).sum() / size, -1, 1)) if size > 0 else 0.0


def spearman(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Return Spearman's correlation: Pearson's of the ranks, equal values sharing the mean of theirs."""
    return pearson(ranks(predictions), ranks(labels))


def ranks(values: np.ndarray) -> np.ndarray:
    """Return the rank of each value, from 1, float64 [N]; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean: np.ndarray = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return mean
