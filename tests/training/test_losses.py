"""The loss against values derived by hand."""

import math

import pytest
import torch

from kdsweep.training.losses import distillation_loss, hard_loss, soft_loss


@pytest.mark.parametrize(("temperature", "first"), [(1, 0.99966), (2, 0.98201), (5, 0.83202)])
def test_softening_of_the_logits_10_and_2(temperature: float, first: float) -> None:
    teacher, student = torch.tensor([[10.0, 2.0]]), torch.tensor([[0.0, 0.0]])
    entropy = -(first * math.log(first) + (1 - first) * math.log(1 - first))
    expected = temperature**2 * (math.log(2) - entropy)  # KL to the uniform distribution
    assert soft_loss(student, teacher, temperature=temperature).item() == pytest.approx(expected, rel=2e-3)


def test_kl_of_three_quarters_to_a_half_by_hand() -> None:
    teacher, student = torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([[0.0, 0.0]])
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert soft_loss(student, teacher, temperature=1.0).item() == pytest.approx(expected, rel=1e-6)


def test_direction_is_teacher_first() -> None:
    teacher, student = torch.tensor([[3.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    p, q = torch.softmax(teacher, -1), torch.softmax(student, -1)
    assert soft_loss(student, teacher, temperature=1.0).item() == pytest.approx(
        (p * (p / q).log()).sum().item(), rel=1e-5
    )
    assert soft_loss(teacher, student, temperature=1.0).item() != pytest.approx(
        (p * (p / q).log()).sum().item(), rel=1e-2
    )


def test_classes_are_summed_and_rows_averaged() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(8, 150), torch.randn(8, 150)
    log_q, log_p = student.log_softmax(-1), teacher.log_softmax(-1)
    over_rows_and_classes = (log_p.exp() * (log_p - log_q)).mean()
    assert soft_loss(student, teacher, temperature=1.0).item() == pytest.approx(
        150 * over_rows_and_classes.item(), rel=1e-5
    )


def test_the_soft_term_carries_temperature_squared() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 5), torch.randn(4, 5)
    halved = soft_loss(student / 2, teacher / 2, temperature=1.0)
    assert soft_loss(student, teacher, temperature=2.0).item() == pytest.approx(4 * halved.item(), rel=1e-5)


def test_alpha_weighs_the_soft_term_and_both_ends_are_exact() -> None:
    torch.manual_seed(0)
    student, teacher, labels = torch.randn(4, 5), torch.randn(4, 5), torch.tensor([0, 1, 2, 3])
    for alpha in (0.0, 0.3, 1.0):
        loss = distillation_loss(student, teacher, labels, temperature=3.0, alpha=alpha)
        assert loss.soft.item() == soft_loss(student, teacher, temperature=3.0).item()
        assert loss.hard.item() == hard_loss(student, labels).item()
        assert loss.total.item() == pytest.approx(alpha * loss.soft.item() + (1 - alpha) * loss.hard.item(), rel=1e-6)
    assert distillation_loss(student, teacher, labels, temperature=3.0, alpha=0.0).total == hard_loss(student, labels)
    assert distillation_loss(student, teacher, labels, temperature=3.0, alpha=1.0).total == soft_loss(
        student, teacher, temperature=3.0
    )


@pytest.mark.parametrize("temperature", [0.05, 0.5, 1.0, 8.0, 50.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gradients_stay_finite(temperature: float, dtype: torch.dtype) -> None:
    student = torch.tensor([[30.0, -30.0], [0.1, 0.2]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-30.0, 30.0], [9.0, -9.0]])
    loss = distillation_loss(student, teacher, torch.tensor([1, 0]), temperature=temperature, alpha=0.5)
    loss.total.backward()
    assert loss.total.dtype == torch.float32
    assert student.grad is not None and student.grad.isfinite().all()


def test_shapes_that_are_not_one_b_by_c_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[B, C\]"):
        distillation_loss(torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2).long(), temperature=1.0, alpha=0.5)
    with pytest.raises(ValueError, match=r"\[B, C\]"):
        distillation_loss(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4), torch.zeros(2).long(), temperature=1.0, alpha=0.5)
