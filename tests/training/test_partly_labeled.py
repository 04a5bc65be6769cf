"""Rows of which some have no label and some no teacher: each loss is the mean over the rows that have what it needs."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from kdsweep.config.trial import TrialConfig
from kdsweep.records.schema import EpochMetrics, StepMetrics
from kdsweep.training import loop
from kdsweep.training.data.tokens import TEACHER_LOGITS, Rows
from kdsweep.training.loop import distill
from kdsweep.training.losses import hard_loss, kl_loss
from kdsweep.training.models import weights_sha256
from kdsweep.training.objective import Inputs, Objective, objective_of
from kdsweep.training.shared import Materials

Config = Callable[..., TrialConfig]


def partly(rows: Rows, *, labeled: int, untaught: tuple[int, ...] = ()) -> Rows:
    """The rows, of which the first `labeled` have a label, the others are texts without one; some have no teacher's logits."""
    count = len(rows.labels)
    taught = ~np.isin(np.arange(count), untaught)
    logits = rows.teacher_logits * torch.from_numpy(taught)[:, None]
    return replace(
        rows,
        labels=torch.where(torch.arange(count) < labeled, rows.labels, -1),
        targets={TEACHER_LOGITS: logits},
        extra=count - labeled,
        labeled=np.arange(count) < labeled,
        taught=taught if untaught else None,
    )


def train(
    config: TrialConfig, rows: Rows, validation: Rows, *, student: Any, objective: Objective | None = None
) -> tuple[list[StepMetrics], list[EpochMetrics]]:
    steps, epochs = list[StepMetrics](), list[EpochMetrics]()
    watch: Any = {"on_steps": steps.extend, "on_epoch": lambda epoch: epochs.append(epoch) or False}
    distill(student, rows, validation, config, **watch, objective=objective)
    return steps, epochs


def test_each_loss_is_the_mean_over_the_rows_that_have_what_it_needs(tiny_config: Config, materials: Materials) -> None:
    config = tiny_config(batch_size=12, max_steps=6, evaluations=2, alpha=0.3, temperature=3.0)
    rows, validation = materials.rows(config)
    rows, seen = partly(rows, labeled=30, untaught=(0, 3, 7, 40, 41, 60)), list[Any]()
    real = objective_of(config)

    def spied(batch: Inputs) -> Any:
        parts = real.loss(batch)
        seen.append((batch.student["logits"].detach(), batch.targets[TEACHER_LOGITS], batch.labels, parts))
        return parts

    student = materials.student(config)
    steps, epochs = train(config, rows, validation, student=student, objective=replace(real, loss=spied))
    assert len(seen) == len(steps) == 6 and [epoch.step for epoch in epochs] == [3, 6]
    for step, (logits, teacher, labels, parts) in zip(steps, seen, strict=True):
        known, taught = labels >= 0, teacher.abs().sum(dim=1) > 0
        hard = functional.cross_entropy(logits[known], labels[known])
        soft = kl_loss(logits[taught], teacher[taught], temperature=3.0)
        assert parts["L_hard"].item() == pytest.approx(hard.item(), rel=1e-5)
        assert parts["L_soft"].item() == pytest.approx(soft.item(), rel=1e-5)
        assert step.L_total == pytest.approx(0.3 * step.L_soft + 0.7 * step.L_hard, rel=1e-5)
        assert (step.soft_rows, step.hard_rows) == (int(taught.sum()), int(known.sum()))
        assert 1 <= int(known.sum()) < 12
    half = steps[:3]
    assert epochs[0].hard_rows == sum(step.hard_rows or 0 for step in half)
    assert epochs[0].L_hard == pytest.approx(
        sum(step.L_hard * (step.hard_rows or 0) for step in half) / (epochs[0].hard_rows or 0)
    )


def test_alpha_1_learns_nothing_from_labels(tiny_config: Config, materials: Materials) -> None:
    config, found = tiny_config(batch_size=12, alpha=1.0), set()
    rows, validation = materials.rows(config)
    for flipped in (False, True):
        mine = partly(rows, labeled=30)
        labels = torch.where(mine.labels >= 0, 1 - mine.labels, -1) if flipped else mine.labels
        student = materials.student(config)
        train(config, replace(mine, labels=labels), validation, student=student)
        found.add(weights_sha256(student))
    assert len(found) == 1


def test_pieces_of_a_batch_add_up_to_its_gradient(
    tiny_config: Config, materials: Materials, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, taken = tiny_config(batch_size=12, max_steps=4, evaluations=1, max_grad_norm=1e9, alpha=0.3), []
    rows, validation = materials.rows(config)
    rows = partly(rows, labeled=30, untaught=(0, 3, 7, 40, 41, 60))
    for memory in (12, 3):
        student: Any = materials.student(config)
        for module in student.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0

        def limited(input_ids: Tensor, memory: int, student: Any, plain: Any, **inputs: Any) -> Any:
            if student.training and len(input_ids) > memory:
                raise torch.OutOfMemoryError("tried to allocate more than there is")
            return plain(input_ids=input_ids, **inputs)

        forward = partial(limited, memory=memory, student=student, plain=student.forward)
        monkeypatch.setattr(student, "forward", lambda input_ids, f=forward, **inputs: f(input_ids, **inputs))
        steps, _ = train(config, rows, validation, student=student)
        taken.append([(step.L_soft, step.L_hard, step.L_total) for step in steps])
    assert np.allclose(taken[0], taken[1], rtol=1e-4)


def test_a_row_of_no_weight_gives_no_gradient_and_no_nan() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    weights = torch.tensor([0.0, 1.5, 1.5])
    hard = hard_loss(logits, torch.tensor([-1, 2, 3]), weights=weights)
    soft = kl_loss(logits, torch.zeros(3, 4), temperature=2.0, weights=weights)
    (hard + soft).backward()
    assert logits.grad is not None and logits.grad[0].abs().sum() == 0 and logits.grad.isfinite().all()
    assert hard.item() == pytest.approx(functional.cross_entropy(logits[1:], torch.tensor([2, 3])).item())


def test_max_steps_takes_the_place_of_epochs(tiny_config: Config, materials: Materials) -> None:
    config = tiny_config(batch_size=16, max_steps=13, evaluations=4, epochs=9)
    steps, epochs = train(config, *materials.rows(config), student=materials.student(config))
    assert [step.step for step in steps] == list(range(1, 14))
    assert [(epoch.epoch, epoch.step) for epoch in epochs] == [(1, 3), (2, 6), (3, 9), (4, 13)]
    assert [step.epoch for step in steps] == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 4
    assert steps[-1].learning_rate < steps[-2].learning_rate and steps[0].hard_rows == 16


def test_as_many_steps_as_the_epochs_take_train_the_same_student(tiny_config: Config, materials: Materials) -> None:
    """Dropout begins anew at each evaluation, so both must have them at the same steps."""
    found = set()
    for length in ({"epochs": 2}, {"max_steps": 10, "evaluations": 2}):
        config = tiny_config(batch_size=16, **length)
        student = materials.student(config)
        train(config, *materials.rows(config), student=student)
        found.add(weights_sha256(student))
    assert len(found) == 1


@pytest.mark.parametrize("pieces", [1, 3])
def test_the_weights_of_classes_weigh_the_labelled_rows_of_every_batch_whole_or_in_pieces(
    tiny_config: Config, materials: Materials, pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L_hard is the sum of weight · cross-entropy over the labelled rows, over their number: not over the sum of their weights."""
    config = tiny_config(batch_size=12, max_steps=2, evaluations=1, alpha=0.5)
    rows, validation = materials.rows(config)
    rows = replace(partly(rows, labeled=30), hard_weights=torch.where(rows.labels == 1, 3.0, 0.5))
    seen, split = list[Any](), loop.split_batch
    monkeypatch.setattr(loop, "split_batch", lambda batch, _: split(batch, pieces))
    real = objective_of(config)

    def spied(batch: Inputs) -> Any:
        seen.append((batch.student["logits"].detach(), batch.labels))
        return real.loss(batch)

    student = materials.student(config)
    steps, _ = train(config, rows, validation, student=student, objective=replace(real, loss=spied))
    for place, step in enumerate(steps):
        logits, labels = (torch.cat(each) for each in zip(*seen[pieces * place : pieces * (place + 1)], strict=True))
        known = labels >= 0
        each = functional.cross_entropy(logits[known], labels[known], reduction="none")
        assert step.L_hard == pytest.approx((torch.where(labels[known] == 1, 3.0, 0.5) * each).mean().item(), rel=1e-5)
