"""The loss against values derived by hand, a reference in float64, and its gradients against differences."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from kdsweep.training.losses import NO_LABEL, distillation_loss, hard_loss, kl_loss, mse_loss, scheduled


@pytest.mark.parametrize(("temperature", "first"), [(1, 0.99966), (2, 0.98201), (5, 0.83202)])
def test_softening_of_the_logits_10_and_2(temperature: float, first: float) -> None:
    teacher, student = torch.tensor([[10.0, 2.0]]), torch.tensor([[0.0, 0.0]])
    entropy = -(first * math.log(first) + (1 - first) * math.log(1 - first))
    expected = temperature**2 * (math.log(2) - entropy)  # KL to the uniform distribution
    assert kl_loss(student, teacher, temperature=temperature).item() == pytest.approx(expected, rel=2e-3)


def test_kl_of_three_quarters_to_a_half_by_hand() -> None:
    teacher, student = torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([[0.0, 0.0]])
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert kl_loss(student, teacher, temperature=1.0).item() == pytest.approx(expected, rel=1e-6)


def test_direction_is_teacher_first() -> None:
    teacher, student = torch.tensor([[3.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    p, q = torch.softmax(teacher, -1), torch.softmax(student, -1)
    assert kl_loss(student, teacher, temperature=1.0).item() == pytest.approx(
        (p * (p / q).log()).sum().item(), rel=1e-5
    )
    assert kl_loss(teacher, student, temperature=1.0).item() != pytest.approx(
        (p * (p / q).log()).sum().item(), rel=1e-2
    )


def test_classes_are_summed_and_rows_averaged() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(8, 150), torch.randn(8, 150)
    log_q, log_p = student.log_softmax(-1), teacher.log_softmax(-1)
    over_rows_and_classes = (log_p.exp() * (log_p - log_q)).mean()
    assert kl_loss(student, teacher, temperature=1.0).item() == pytest.approx(
        150 * over_rows_and_classes.item(), rel=1e-5
    )


def test_the_soft_term_carries_temperature_squared() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 5), torch.randn(4, 5)
    halved = kl_loss(student / 2, teacher / 2, temperature=1.0)
    assert kl_loss(student, teacher, temperature=2.0).item() == pytest.approx(4 * halved.item(), rel=1e-5)


def test_alpha_weighs_the_soft_term_and_both_ends_are_exact() -> None:
    torch.manual_seed(0)
    student, teacher, labels = torch.randn(4, 5), torch.randn(4, 5), torch.tensor([0, 1, 2, 3])
    for alpha in (0.0, 0.3, 1.0):
        loss = distillation_loss(student, teacher, labels, temperature=3.0, alpha=alpha)
        assert loss.soft.item() == kl_loss(student, teacher, temperature=3.0).item()
        assert loss.hard.item() == hard_loss(student, labels).item()
        assert loss.total.item() == pytest.approx(alpha * loss.soft.item() + (1 - alpha) * loss.hard.item(), rel=1e-6)
    assert distillation_loss(student, teacher, labels, temperature=3.0, alpha=0.0).total == hard_loss(student, labels)
    assert distillation_loss(student, teacher, labels, temperature=3.0, alpha=1.0).total == kl_loss(
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


def logits(rows: int = 6, classes: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Student's and teacher's logits in float64, and classes."""
    torch.manual_seed(seed)
    student, teacher = torch.randn(rows, classes).double(), 3 * torch.randn(rows, classes).double()
    return student.requires_grad_(), teacher, torch.arange(rows) % classes


def test_smoothed_labels_by_hand() -> None:
    student = torch.tensor([[math.log(2.0), 0.0, 0.0]])  # q = 1/2, 1/4, 1/4
    sharp, even = math.log(2.0), (math.log(2.0) + 2 * math.log(4.0)) / 3
    for eps in (0.0, 0.3, 1.0):
        found = hard_loss(student, torch.tensor([0]), label_smoothing=eps).item()
        assert found == pytest.approx((1 - eps) * sharp + eps * even, rel=1e-6)


def test_the_squared_loss_by_hand_is_blind_to_a_shift_and_to_the_temperature() -> None:
    student, teacher = (
        torch.tensor([[1.0, 2.0, 6.0]]),
        torch.tensor([[1.0, 0.0, 2.0]]),
    )  # d = 0, 2, 4; d - mean = -2, 0, 2
    assert mse_loss(student, teacher).item() == pytest.approx(8 / 6, rel=1e-6)
    assert mse_loss(student + 5, teacher - 7).item() == pytest.approx(8 / 6, rel=1e-6)
    mse = [
        distillation_loss(student, teacher, torch.tensor([0]), temperature=t, alpha=1.0, soft_loss="mse")
        for t in (1.0, 9.0)
    ]
    assert mse[0] == mse[1] and mse[0].total == mse[0].soft == mse_loss(student, teacher)


@pytest.mark.parametrize(("temperature", "apart"), [(1e2, 1e-1), (1e4, 1e-3)])
def test_the_squared_loss_and_its_gradient_are_the_limit_of_kl(temperature: float, apart: float) -> None:
    student, teacher, _ = logits()
    kl, mse = kl_loss(student, teacher, temperature=temperature), mse_loss(student, teacher)
    assert kl.dtype == mse.dtype == torch.float64 and kl.item() == pytest.approx(mse.item(), rel=apart)
    (slope,), (limit,) = (torch.autograd.grad(loss, student) for loss in (kl, mse))
    assert torch.allclose(slope, limit, atol=apart * limit.abs().max().item())


def reference(student: np.ndarray, teacher: np.ndarray, labels: np.ndarray, **said: Any) -> tuple[float, float, float]:
    """The loss in numpy, a row at a time."""
    soft, hard = [], []
    for z, y, label, weight, labeled in zip(student, teacher, labels, said["soft"], said["hard"], strict=True):
        t = said["temperature"]
        p, q = (np.exp(v / t - np.log(np.exp(v / t).sum())) for v in (y, z))
        mse = ((z - z.mean() - y + y.mean()) ** 2).mean() / 2
        soft.append(weight * (t**2 * (p * np.log(p / q)).sum() if said["soft_loss"] == "kl" else mse))
        log_q, eps = z - np.log(np.exp(z).sum()), said["label_smoothing"]
        hard.append(labeled * ((1 - eps) * -log_q[label] + eps * -log_q.mean()))
    means = float(np.mean(soft)), float(np.mean(hard))
    return said["alpha"] * means[0] + (1 - said["alpha"]) * means[1], *means


@pytest.mark.parametrize("soft_loss", ["kl", "mse"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_the_loss_of_weighed_rows_in_float64_and_its_gradient(soft_loss: Any, label_smoothing: float) -> None:
    student, teacher, labels = logits()
    soft, hard = (
        torch.tensor([2.0, 0.0, 1.0, 1.0, 0.5, 1.5]),
        torch.tensor([0.0, 3.0, 0.0, 0.0, 3.0, 0.0]),
    )  # each of mean 1
    said: dict[str, Any] = {
        "temperature": 2.5,
        "alpha": 0.7,
        "soft_loss": soft_loss,
        "label_smoothing": label_smoothing,
    }
    found = distillation_loss(student, teacher, labels, **said, soft_weights=soft, hard_weights=hard)
    expected = reference(
        student.detach().numpy(), teacher.numpy(), labels.numpy(), **said, soft=soft.numpy(), hard=hard.numpy()
    )
    assert [part.item() for part in found] == pytest.approx(expected, rel=1e-12)

    def total(student: torch.Tensor) -> torch.Tensor:
        return distillation_loss(student, teacher, labels, **said, soft_weights=soft, hard_weights=hard).total

    assert torch.autograd.gradcheck(total, (student,))
    ones = torch.ones(6)
    plain = distillation_loss(student, teacher, labels, **said)
    weighed = distillation_loss(student, teacher, labels, **said, soft_weights=ones, hard_weights=ones)
    assert [part.item() for part in plain] == pytest.approx([part.item() for part in weighed], rel=1e-12)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_a_row_without_a_label_has_no_part_in_the_hard_loss(label_smoothing: float) -> None:
    student, _, labels = logits()
    labels[::2] = NO_LABEL
    weights = torch.tensor([0.0, 2.0] * 3)
    loss = hard_loss(student, labels, label_smoothing=label_smoothing, weights=weights)
    (slope,) = torch.autograd.grad(loss, student)
    labeled = hard_loss(student[1::2], labels[1::2], label_smoothing=label_smoothing)
    assert loss.item() == pytest.approx(labeled.item(), rel=1e-12)
    assert (slope[::2] == 0).all() and (slope[1::2].abs() > 0).all()
    nothing = hard_loss(student, torch.full((6,), NO_LABEL), label_smoothing=label_smoothing, weights=torch.zeros(6))
    assert nothing.item() == 0 and (torch.autograd.grad(nothing, student)[0] == 0).all()


def test_a_schedule_is_linear_meets_both_ends_and_stays_a_number_where_it_does_not_move() -> None:
    halfway = torch.tensor(0.5)
    assert scheduled(8.0, None, halfway) == scheduled(8.0, 8.0, halfway) == 8.0
    assert not isinstance(scheduled(8.0, None, halfway), torch.Tensor)
    for step, expected in ((0.0, 8.0), (0.25, 6.25), (0.5, 4.5), (1.0, 1.0)):
        now = scheduled(8.0, 1.0, torch.tensor(step))
        assert isinstance(now, torch.Tensor) and now.ndim == 0 and now.item() == expected
    student, teacher, labels = logits()
    moving: Callable[..., Any] = lambda **said: distillation_loss(student, teacher, labels, **said)
    found = moving(temperature=scheduled(8.0, 1.0, halfway), alpha=scheduled(0.0, 1.0, halfway))
    assert found == moving(temperature=4.5, alpha=0.5)


class NoReads(TorchFunctionMode):
    """Refuses to read a tensor's value on the host."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.__name__ not in ("item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__"), "host read"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("soft_loss", ["kl", "mse"])
def test_no_value_is_read_on_the_host_so_that_a_cuda_graph_repeats_a_schedule(soft_loss: Any) -> None:
    (student, teacher, labels), progress, ones = logits(), torch.tensor(0.5), torch.ones(6)
    weighed: dict[str, Any] = {"label_smoothing": 0.1, "soft_weights": ones, "hard_weights": ones}
    with NoReads():
        moving: dict[str, Any] = {"temperature": scheduled(8.0, 1.0, progress), "alpha": scheduled(0.0, 1.0, progress)}
        distillation_loss(student, teacher, labels, **moving, **weighed, soft_loss=soft_loss).total.backward()
        with pytest.raises(AssertionError, match="host read"):
            progress.item()
