"""What is measured of a model in each task."""

import numpy as np
import pytest

from kdsweep.analysis.measured import measure_by_task, measured_by_task, reliability_by_task
from kdsweep.analysis.tasks import predicted
from kdsweep.config.tasks import METRICS, TaskName
from kdsweep.records.schema import VALIDATED, VALIDATED_IN

RNG = np.random.default_rng(1)
LOGITS: dict[TaskName, np.ndarray] = {
    "single_label": RNG.normal(size=(20, 3)).astype(np.float32),
    "multi_label": RNG.normal(size=(20, 3)).astype(np.float32),
    "regression": RNG.normal(size=(20, 1)).astype(np.float32),
}
LABELS: dict[TaskName, np.ndarray] = {
    "single_label": RNG.integers(0, 3, 20),
    "multi_label": RNG.integers(0, 2, (20, 3)).astype(np.uint8),
    "regression": RNG.normal(size=20).astype(np.float32),
}


@pytest.mark.parametrize("task", METRICS)
def test_a_task_is_measured_by_its_own_metrics_and_no_others(task: TaskName) -> None:
    found = measured_by_task(LOGITS[task], LABELS[task], task, LOGITS[task])
    assert {f"val_{name}" for name, value in found.items() if value is not None} == set(VALIDATED_IN[task])
    assert {f"val_{name}" for name in found} == set(VALIDATED)
    assert set(METRICS[task]) <= set(VALIDATED_IN[task])
    assert (reliability_by_task(LOGITS[task], LABELS[task], task) is None) == (task == "regression")
    if task != "regression":
        assert (found["agreement"], found["kl"]) == (1.0, 0.0)
        without = measured_by_task(LOGITS[task], LABELS[task], task)
        assert (without["agreement"], without["kl"]) == (None, None)


@pytest.mark.parametrize("task", METRICS)
def test_a_metric_of_predictions_is_that_of_the_logits(task: TaskName) -> None:
    found, named = measured_by_task(LOGITS[task], LABELS[task], task), predicted(LOGITS[task], task)
    for metric in set(METRICS[task]) - {"val_map"}:
        assert measure_by_task(metric, 3, task)(named, LABELS[task]) == found[metric.removeprefix("val_")]


def test_a_metric_that_needs_logits_or_is_of_another_task_is_no_metric_of_predictions() -> None:
    for metric, task in (("val_map", "multi_label"), ("val_accuracy", "regression")):
        with pytest.raises(ValueError, match="a metric of predictions"):
            measure_by_task(metric, 3, task)  # type: ignore[arg-type]
