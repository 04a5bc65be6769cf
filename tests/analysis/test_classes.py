"""Scores of single classes and the most confused pairs, derived by hand."""

import numpy as np

from kdsweep.analysis.classes import ClassScore, Confusion, class_scores, confusions, label_counts, worst_first

COUNTS = np.array([[6, 2, 0, 0], [1, 3, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0]])
"""Of class 0 six rows are right and two named 1; of class 1 three are right and one named 0; class 2 is always named 1;
class 3 is neither there nor named."""


def test_precision_recall_and_f1_of_each_class_are_those_of_its_own_line_and_column() -> None:
    first, second, never_named, absent = class_scores(COUNTS)
    assert first == ClassScore(precision=6 / 7, recall=6 / 8, f1=12 / 15)
    assert second == ClassScore(precision=3 / 7, recall=3 / 4, f1=6 / 11)
    assert never_named == ClassScore(precision=None, recall=0.0, f1=0.0)
    assert absent == ClassScore(precision=None, recall=None, f1=None)


def test_counts_of_several_seeds_add_up_to_pooled_scores() -> None:
    other = np.zeros_like(COUNTS)
    other[0, 0], other[1, 1] = 8, 4
    (first, *_) = class_scores(COUNTS + other)
    assert first == ClassScore(precision=14 / 15, recall=14 / 16, f1=28 / 31)


def test_confused_pairs_stand_by_their_rows_ties_by_class_with_their_share_of_the_true_class() -> None:
    assert confusions(COUNTS) == (
        Confusion(true=0, predicted=1, count=2, share=0.25),
        Confusion(true=2, predicted=1, count=2, share=1.0),
        Confusion(true=1, predicted=0, count=1, share=0.25),
    )
    assert confusions(np.diag([3, 4])) == ()


def test_the_worst_classes_come_first_and_one_without_f1_not_at_all() -> None:
    assert worst_first(class_scores(COUNTS)) == [2, 1, 0]


def test_labels_are_counted_each_for_itself() -> None:
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]], np.uint8)
    decisions = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 1, 0]], np.uint8)
    counts = label_counts(decisions, labels)
    assert counts.tolist() == [[[1, 1], [1, 1]], [[1, 1], [0, 2]], [[4, 0], [0, 0]]]
    first, second, absent = class_scores(counts + counts)  # as of two seeds
    assert first == ClassScore(precision=0.5, recall=0.5, f1=0.5)
    assert second == ClassScore(precision=2 / 3, recall=1.0, f1=0.8)
    assert absent == ClassScore(precision=None, recall=None, f1=None)
    assert confusions(counts) == ()
