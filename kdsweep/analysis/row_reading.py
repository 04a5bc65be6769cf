"""Read the predictions of runs and the scores of their rows, on which verdicts rest, from the records."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from kdsweep.analysis.finalists import SplitName
from kdsweep.analysis.shipped import Place
from kdsweep.analysis.tasks import row_scores
from kdsweep.records import reading
from kdsweep.records.reading import TrialRow
from kdsweep.records.whole_sweep import SweepRecords


def labels_of(found: SweepRecords, split: SplitName) -> np.ndarray | None:
    """Read the labels of a split; None where they are not on disk."""
    return (reading.read_test_labels if split == "test" else reading.read_validation_labels)(*found.folders)


def predictions_of(folder: Path, split: SplitName, labels: np.ndarray) -> np.ndarray | None:
    """Read what the model in `folder` predicts for the rows of `labels`; None where a file is missing or is of other rows."""
    predictions = (reading.read_test_predictions if split == "test" else reading.read_predictions)(folder)
    return predictions if predictions is not None and predictions.shape == labels.shape else None


def right_rows(found: SweepRecords, folder: Path, split: SplitName) -> np.ndarray | None:
    """Return the scores of the rows by the model in `folder` [N], such as which it predicts right (`tasks.row_scores`).

    None where a file is missing or is of other rows.
    """
    labels = labels_of(found, split)
    predictions = None if labels is None else predictions_of(folder, split, labels)
    return None if labels is None or predictions is None else row_scores(predictions, labels, found.task)


def scored(
    found: SweepRecords, groups: Mapping[Place, Sequence[TrialRow]], split: SplitName
) -> dict[Place, np.ndarray]:
    """Return the scores of the rows of each configuration's seeds [S, N]; a configuration with a missing file is left out."""
    read = {place: [right_rows(found, run.folder, split) for run in runs] for place, runs in groups.items()}
    return _whole(read)


def predicted(
    groups: Mapping[Place, Sequence[TrialRow]], split: SplitName, labels: np.ndarray
) -> dict[Place, np.ndarray]:
    """Return what each configuration's seeds predict [S, …labels]; a configuration with a missing file is left out."""
    read = {place: [predictions_of(run.folder, split, labels) for run in runs] for place, runs in groups.items()}
    return _whole(read)


def _whole(read: Mapping[Place, Sequence[np.ndarray | None]]) -> dict[Place, np.ndarray]:
    return {
        place: np.stack(known)
        for place, each in read.items()
        if len(known := [one for one in each if one is not None]) == len(each)
    }
