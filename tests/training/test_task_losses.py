"""The losses of multi_label and regression against values derived by hand, their limit, and their gradients against differences."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kdsweep.config.tasks import TaskName
from kdsweep.training.losses import (
    LossParts,
    bernoulli_kl_loss,
    bernoulli_mse_loss,
    binary_hard_loss,
    distillation_loss,
    kl_loss,
    squared_loss,
)

torch.manual_seed(0)
STUDENT, TEACHER = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
LABELS = torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
WEIGHTS = torch.tensor([0.5, 0.0, 2.0, 1.5], dtype=torch.float64)


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def test_kl_of_two_bernoullis_by_hand() -> None:
    """Teacher 3/4 and 1/4, student 1/2 twice: 2 (3/4 log 3/2 + 1/4 log 1/2)."""
    teacher, student = torch.tensor([[logit(0.75), logit(0.25)]]), torch.zeros(1, 2)
    expected = 2 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert bernoulli_kl_loss(student, teacher, temperature=1.0).item() == pytest.approx(expected, rel=1e-6)


def test_the_soft_loss_of_labels_is_torchs_binary_cross_entropy_at_t_less_its_least_value() -> None:
    for temperature in (0.5, 1.0, 4.0):
        p = (TEACHER / temperature).sigmoid()
        cross = torch.nn.functional.binary_cross_entropy_with_logits
        rows = (
            cross(STUDENT / temperature, p, reduction="none") - cross(TEACHER / temperature, p, reduction="none")
        ).sum(1)
        found = bernoulli_kl_loss(STUDENT, TEACHER, temperature=temperature)
        assert found.item() == pytest.approx(temperature**2 * rows.mean().item())
        weighed = bernoulli_kl_loss(STUDENT, TEACHER, temperature=temperature, weights=WEIGHTS)
        assert weighed.item() == pytest.approx(temperature**2 * (WEIGHTS * rows).mean().item())


def test_mse_of_labels_is_the_limit_of_large_t() -> None:
    limit = bernoulli_mse_loss(STUDENT, TEACHER)
    assert limit.item() == pytest.approx(((STUDENT - TEACHER) ** 2).sum(1).mean().item() / 8)
    assert bernoulli_kl_loss(STUDENT, TEACHER, temperature=1e3).item() == pytest.approx(limit.item(), rel=1e-3)


def test_two_classes_are_one_label() -> None:
    """softmax of two logits is the sigmoid of their difference: both tasks then lose the same."""
    both = [torch.stack([z[:, 0], torch.zeros(4, dtype=torch.float64)], dim=1) for z in (STUDENT, TEACHER)]
    one = bernoulli_kl_loss(STUDENT[:, :1], TEACHER[:, :1], temperature=3.0)
    assert one.item() == pytest.approx(kl_loss(*both, temperature=3.0).item())


def test_hard_loss_of_labels_by_hand_and_smoothed() -> None:
    """Mean over labels: -(log 0.8 + log 0.6) / 2; smoothed by 0.2, a label that is there is wanted at 0.9, another at 0.1."""
    logits, labels = torch.tensor([[logit(0.8), logit(0.4)]]), torch.tensor([[1.0, 0.0]])
    assert binary_hard_loss(logits, labels).item() == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2, rel=1e-6)
    smoothed = -(0.9 * math.log(0.8) + 0.1 * math.log(0.2) + 0.1 * math.log(0.4) + 0.9 * math.log(0.6)) / 2
    assert binary_hard_loss(logits, labels, label_smoothing=0.2).item() == pytest.approx(smoothed, rel=1e-6)


def test_losses_of_numbers_are_squared_errors_and_t_is_idle() -> None:
    """(1 - 3)² and (2 - 1)²; to the teacher (1 - 0)² and (2 - 0)²."""
    student, teacher, labels = torch.tensor([[1.0], [2.0]]), torch.zeros(2, 1), torch.tensor([3.0, 1.0])
    for temperature in (1.0, 8.0):
        found = distillation_loss(student, teacher, labels, temperature=temperature, alpha=0.25, task="regression")
        assert [part.item() for part in found] == [0.25 * 2.5 + 0.75 * 2.5, 2.5, 2.5]


@pytest.mark.parametrize(("task", "none"), [("multi_label", -torch.ones(3)), ("regression", torch.tensor(torch.nan))])
def test_a_row_without_a_label_has_no_hard_loss_and_no_gradient(task: TaskName, none: Tensor) -> None:
    columns = 3 if task == "multi_label" else 1
    labels = LABELS.clone() if task == "multi_label" else torch.tensor([1.0, 2, 3, 4])
    labels[1] = none
    logits = STUDENT[:, :columns].clone().requires_grad_()
    hard: Callable[..., Tensor] = binary_hard_loss if task == "multi_label" else squared_loss
    loss = hard(logits, labels, weights=WEIGHTS)
    loss.backward()
    assert logits.grad is not None and logits.grad[1].abs().sum() == 0 and logits.grad.isfinite().all()
    known = [0, 2, 3]
    assert loss.item() == pytest.approx(0.75 * hard(logits[known], labels[known], weights=WEIGHTS[known]).item())


@pytest.mark.parametrize("task", ["multi_label", "regression"])
@pytest.mark.parametrize("soft_loss", ["kl", "mse"])
def test_gradients_are_those_of_differences(task: TaskName, soft_loss: str) -> None:
    columns = 3 if task == "multi_label" else 1
    labels = LABELS.double() if task == "multi_label" else LABELS[:, 0].double()

    def total(logits: Tensor) -> Tensor:
        parts: LossParts = distillation_loss(
            logits,
            TEACHER[:, :columns],
            labels,
            temperature=2.0,
            alpha=0.4,
            soft_loss=soft_loss,  # type: ignore[arg-type]
            label_smoothing=0.1,
            hard_weights=WEIGHTS,
            task=task,
        )
        return parts.total

    assert torch.autograd.gradcheck(total, STUDENT[:, :columns].clone().requires_grad_())


def test_losses_and_gradients_of_labels_are_finite_at_any_temperature_and_large_logits() -> None:
    for temperature in (0.05, 50.0):
        logits = (100 * STUDENT.float()).requires_grad_()
        parts = distillation_loss(
            logits, 100 * TEACHER.float(), LABELS, temperature=temperature, alpha=0.5, task="multi_label"
        )
        parts.total.backward()
        assert parts.total.isfinite() and logits.grad is not None and logits.grad.isfinite().all()
