"""Open the test split for a finalist, or for the teacher beside it, and measure what the model is worth there.

No trial of the search sees these rows. Shapes: N rows, C classes.
"""

from datetime import UTC, datetime
from typing import Any

from torch import Tensor, nn

from kdsweep.analysis.measured import reliability_by_task
from kdsweep.analysis.tasks import predicted
from kdsweep.config.trial import TrialConfig
from kdsweep.records.reading import read_test
from kdsweep.records.schema import FinalTest
from kdsweep.records.writing import TrialFolder
from kdsweep.training.data.tokens import Rows
from kdsweep.training.evaluation import evaluate, measured
from kdsweep.training.shared import Materials
from kdsweep.training.tasks import label_array


def open_test(
    student: nn.Module, config: TrialConfig, materials: Materials, folder: TrialFolder
) -> dict[str, Any] | None:
    """Evaluate a finalist on the test split, record it in `folder`, and return its metrics; None where there is no test split."""
    rows = materials.test_rows(config)
    if rows is None:
        return None
    evaluation = evaluate(student, rows)
    folder.write_test(final_test(evaluation.logits, rows), evaluation.predictions())
    return measured(evaluation.logits, rows)


def open_teacher_test(config: TrialConfig, materials: Materials, folder: TrialFolder) -> None:
    """Record the teacher on the test split in its `folder`, once; nothing where there is no test split, or no logit for a row of it."""
    rows = materials.test_rows(config)
    if rows is not None and rows.taught is None and read_test(folder.path) is None:
        logits = rows.teacher_logits
        folder.write_test(final_test(logits, rows), predicted(logits.cpu().numpy(), rows.task))


def final_test(logits: Tensor, rows: Rows) -> FinalTest:
    """Compute the test record of a model from its logits [N, C]: metrics, and the reliability bins that hold any."""
    bins = reliability_by_task(logits.cpu().numpy(), label_array(rows.labels, rows.task), rows.task)
    filled = zip(bins.confidence.tolist(), bins.accuracy.tolist(), bins.rows.tolist(), strict=True) if bins else ()
    return FinalTest(
        **measured(logits, rows),
        reliability=tuple((confidence, right, count) for confidence, right, count in filled if count),
        rows=len(rows.labels),
        opened_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
