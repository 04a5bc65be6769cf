"""Metrics of numbers against SciPy's and values worked out by hand."""

import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from kdsweep.analysis import number_metrics


def test_correlations_are_scipys_with_ties_too() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, 50).astype(np.float32)
    predictions = (labels + rng.normal(size=50).round(1)).astype(np.float32)
    assert number_metrics.pearson(predictions, labels) == pytest.approx(stats.pearsonr(predictions, labels).statistic)
    assert number_metrics.spearman(predictions, labels) == pytest.approx(stats.spearmanr(predictions, labels).statistic)
    assert number_metrics.ranks(predictions).tolist() == stats.rankdata(predictions).tolist()


def test_a_correlation_has_the_same_bits_with_any_number_of_threads() -> None:
    code = (
        "import numpy as np; from kdsweep.analysis.number_metrics import pearson; "
        "x, y = np.random.default_rng(0).normal(size=(2, 40_000)); print(pearson(x + y, y).hex())"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "OMP_NUM_THREADS": threads},
            capture_output=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    ]
    assert said[0] == said[1]


def test_a_constant_is_correlated_with_nothing() -> None:
    labels = np.array([1.0, 2.0, 4.0], np.float32)
    assert [f(np.full(3, 0.1, np.float32), labels) for f in (number_metrics.pearson, number_metrics.spearman)] == [0, 0]


def test_errors() -> None:
    """Errors 1, 0, -2."""
    predictions, labels = np.array([2.0, 2.0, 2.0], np.float32), np.array([1.0, 2.0, 4.0], np.float32)
    assert number_metrics.mean_squared_error(predictions, labels) == pytest.approx(5 / 3)
    assert number_metrics.root_mean_squared_error(predictions, labels) == pytest.approx((5 / 3) ** 0.5)
