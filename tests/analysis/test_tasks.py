"""Tests of what each task predicts, and of a row's score."""

import numpy as np

from kdsweep.analysis.tasks import predicted, row_scores


def test_a_rows_score_in_each_task() -> None:
    logits = np.array([[2.0, -1.0, 0.5], [-3.0, -2.0, -1.0], [0.1, 4.0, -0.2]], dtype=np.float32)
    classes = predicted(logits, "single_label")
    assert row_scores(classes, np.array([0, 1, 1]), "single_label").tolist() == [True, False, True]
    labels = np.array([[1, 1, 0], [0, 0, 0], [0, 1, 0]], dtype=np.uint8)
    scores = row_scores(predicted(logits, "multi_label"), labels, "multi_label")
    np.testing.assert_allclose(scores, [0.5, 1.0, 2 / 3])
    numbers = predicted(logits[:, :1], "regression")
    np.testing.assert_allclose(row_scores(numbers, np.array([1.0, -3.0, 0.1], np.float32), "regression"), [-1, 0, 0])
