"""What a model is worth and how fast it is, against numbers worked out by hand."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kdsweep.training import evaluation
from kdsweep.training.data.tokens import TEACHER_LOGITS, Rows, Tokens
from kdsweep.training.evaluation import measure_speed, measured


def tokens_of(*lengths: int) -> Tokens:
    """Rows of these lengths."""
    ends = np.cumsum(lengths)
    starts = torch.tensor(ends - np.array(lengths))
    return Tokens(ids=torch.arange(int(ends[-1])), segments=None, starts=starts, lengths=np.array(lengths), pad_id=0)


def test_a_student_is_measured_by_the_labels_and_against_the_teacher_where_they_differ() -> None:
    """3 of 4 labels met, and 1 of the teacher's 4 classes; the divergence weighs by what the teacher gives."""
    mine = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0], [0.0, 1.0]])
    teachers = torch.tensor([[0.0, 1.0], [0.0, 4.0], [2.0, 0.0], [0.0, 5.0]])
    labels = torch.tensor([0, 1, 1, 1])
    found = measured(mine, Rows(tokens=tokens_of(1, 1, 1, 1), labels=labels, targets={TEACHER_LOGITS: teachers}))
    assert (found["accuracy"], found["agreement"]) == (0.75, 0.25)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found["loss"] == pytest.approx(nn.functional.cross_entropy(mine, labels).item())
    p, q = (logits.double().softmax(dim=-1) for logits in (teachers, mine))
    assert found["kl"] == pytest.approx((p * (p / q).log()).sum(dim=-1).mean().item())


def test_speed_is_the_median_row_alone_and_all_rows_together_without_the_first_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone, together = [0.001 * turn for turn in range(1, 31)], [0.1, 0.4, 0.2]
    passes, now, shapes = iter([9.0, *alone, 9.0, *together]), [0.0], []

    class Model(nn.Module):
        def forward(self, input_ids: torch.Tensor, **_: torch.Tensor) -> Any:
            now[0] += next(passes)
            shapes.append(tuple(input_ids.shape))
            return SimpleNamespace(logits=torch.zeros(1))

    monkeypatch.setattr(evaluation, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    found = measure_speed(Model(), tokens_of(9, 2, 4, 8, 3))
    assert found == pytest.approx((15.5, 28.55, 5 / 0.2))
    assert shapes == [(1, 4)] * 31 + [(5, 9)] * 4
