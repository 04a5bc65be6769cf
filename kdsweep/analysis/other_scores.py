"""Compare the primary arms by what stands beside the score of a row: the subset accuracy of labels, Pearson's r of numbers."""

from collections.abc import Mapping, Sequence

import numpy as np

from kdsweep.analysis.bootstrap import Bootstrapped, pearson_difference
from kdsweep.analysis.finalists import SplitName
from kdsweep.analysis.row_reading import labels_of, predicted
from kdsweep.analysis.secondary import Asked, of_arms
from kdsweep.analysis.shipped import Place
from kdsweep.analysis.two_arms import compare_arms
from kdsweep.config.arms import PRIMARY, Arm
from kdsweep.records.reading import TrialRow
from kdsweep.records.whole_sweep import SweepRecords

Runs = Mapping[Place, Sequence[TrialRow]]
"""The runs of each configuration that the primary comparison counts."""


def subset_accuracy(found: SweepRecords, compared: Runs, split: SplitName, searched: Mapping[Arm, int]) -> list[Asked]:
    """Compare the primary arms by the share of rows with all labels right; nothing but for multi_label with finalists in both.

    It is planned before the search, as the comparisons with a third arm are: pass it to `adjusted` with them.
    """
    labels = labels_of(found, split) if found.task == "multi_label" else None
    arms = _arms(compared, split, labels)
    if labels is None or not all(arms):
        return []
    one, other = ([(each == labels).all(axis=2) for each in arm] for arm in arms)
    among = (searched[PRIMARY[0]], searched[PRIMARY[1]])
    comparison = compare_arms(one, other, searched=among, score="subset_accuracy")
    return [Asked(f"{of_arms(*PRIMARY, comparison)}, by subset accuracy", comparison)]


def pearson(found: SweepRecords, compared: Runs, split: SplitName) -> Bootstrapped | None:
    """Compare the primary arms by Pearson's r; None but for a regression with finalists in both."""
    labels = labels_of(found, split) if found.task == "regression" else None
    arms = _arms(compared, split, labels)
    return None if labels is None or not all(arms) else pearson_difference(*arms, labels)


def _arms(compared: Runs, split: SplitName, labels: np.ndarray | None) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the predictions of each primary arm's configurations, in order."""
    read = {} if labels is None else predicted(compared, split, labels)
    distilled, fine_tuned = ([read[place] for place in sorted(read) if place[0] == arm] for arm in PRIMARY)
    return distilled, fine_tuned
