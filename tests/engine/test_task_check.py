"""What the data say of their task is held against the sweep before the teacher is prepared."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdsweep.config.sweep_file import load_sweep
from kdsweep.engine.events import Event, Phase
from kdsweep.engine.worker_loop import Worker
from kdsweep.errors import ConfigError
from kdsweep.records.writing import start_sweep
from kdsweep.system.process import StopRequest


@pytest.mark.parametrize(
    ("labels", "changes", "message"),
    [
        ([1.5, 2.5], {}, r"of these data \(task: regression\) has, val_pearson, val_spearman, but got val_accuracy"),
        (
            [["joy"], ["joy", "fear"]],
            {"study": {"metric": "val_map"}, "fixed": {"class_weights": "balanced"}},
            "weighs the classes of task: single_label",
        ),
    ],
)
def test_a_metric_or_field_of_another_task_than_the_data_have_is_refused_before_anything_is_paid_for(
    labels: list[Any],
    changes: dict[str, Any],
    message: str,
    tiny_sweep_file: Callable[..., Path],
    write_rows: Callable[..., Path],
    tmp_path: Path,
) -> None:
    rows = write_rows("rows.jsonl", [{"text": f"text {row}", "label": labels[row % 2]} for row in range(40)])
    fixed = {**changes.get("fixed", {}), "train_file": str(rows)}
    sweep = load_sweep(tiny_sweep_file(**{**changes, "fixed": fixed}))
    events: list[Event] = []
    worker = Worker(sweep, start_sweep(tmp_path / "results" / "tiny", sweep), "me", events.append, StopRequest())
    with pytest.raises(ConfigError, match=message):
        worker.prepare()
    assert [event.text for event in events if isinstance(event, Phase)] == ["reading the rows"]
