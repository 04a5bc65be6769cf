"""The loop: determinism, equality with plain fine-tuning, frozen teacher, failures that name their step."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from kdsweep import distill as loop
from kdsweep.config import TrialConfig
from kdsweep.distill import distill, evaluate
from kdsweep.errors import NonFiniteLoss
from kdsweep.losses import LossParts
from kdsweep.materials import Materials
from kdsweep.models import weights_sha256
from kdsweep.records import EpochMetrics, StepMetrics
from kdsweep.tokens import padded, training_batches

Config = Callable[..., TrialConfig]


def train(config: TrialConfig, materials: Materials) -> tuple[list[StepMetrics], list[EpochMetrics], Any]:
    """One training; its steps, its epochs and the student."""
    rows, validation = materials.rows(config)
    student, steps = materials.student(config), []
    history, _ = distill(student, rows, validation, config, on_steps=steps.extend, on_epoch=lambda _: False)
    return steps, history, student


def test_two_runs_of_one_config_are_equal_to_the_bit(tiny_config: Config) -> None:
    first, second = (train(tiny_config(), Materials()) for _ in range(2))
    assert first[0] == second[0]
    assert [epoch.measured() for epoch in first[1]] == [epoch.measured() for epoch in second[1]]
    assert weights_sha256(first[2]) == weights_sha256(second[2])


def test_the_teacher_is_unchanged_to_the_bit_and_has_no_gradient(tiny_config: Config) -> None:
    materials, config = Materials(), tiny_config()
    teacher = materials.teacher(config)
    train(config, materials)
    assert weights_sha256(teacher.model) == teacher.weights_sha256
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.model.parameters())
    assert not teacher.model.training


def test_alpha_0_is_plain_fine_tuning_to_the_bit(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(alpha=0.0, temperature=3.0)
    distilled = train(config, Materials())[2]

    def cross_entropy_alone(student: Any, teacher: Any, labels: Any, **_: float) -> LossParts:
        hard = functional.cross_entropy(student.float(), labels)
        return LossParts(total=hard, soft=hard.detach(), hard=hard.detach())

    monkeypatch.setattr(loop, "distillation_loss", cross_entropy_alone)
    assert weights_sha256(train(config, Materials())[2]) == weights_sha256(distilled)


@pytest.mark.parametrize("change", [{"temperature": 5.0}, {"alpha": 0.9}, {"learning_rate": 2e-3}, {"seed": 7}])
def test_every_knob_changes_what_is_learnt(tiny_config: Config, change: dict[str, float]) -> None:
    assert weights_sha256(train(tiny_config(**change), Materials())[2]) != weights_sha256(
        train(tiny_config(), Materials())[2]
    )


def test_the_student_trains_in_training_mode_after_every_evaluation(tiny_config: Config) -> None:
    materials, config, modes = Materials(), tiny_config(), []
    rows, validation = materials.rows(config)
    student = materials.student(config)
    student.register_forward_hook(lambda module, *_: modes.append((module.training, torch.is_grad_enabled())))
    distill(student, rows, validation, config, on_steps=lambda _: None, on_epoch=lambda _: False)
    assert modes == ([(True, True)] * 5 + [(False, False)]) * 2  # 72 rows in batches of 16, then 24 rows at once


def test_a_loss_that_is_not_finite_names_its_step(tiny_config: Config) -> None:
    with pytest.raises(NonFiniteLoss, match=r"at step \d+ L_soft was .*nan"):
        train(tiny_config(learning_rate=1e30), Materials())


def test_the_rate_rises_over_the_warm_up_and_falls_to_zero(tiny_config: Config) -> None:
    steps, _, _ = train(tiny_config(warmup_ratio=0.3, learning_rate=1e-3), Materials())
    rates = [step.learning_rate / 1e-3 for step in steps]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 6 / 7, 5 / 7, 4 / 7, 3 / 7, 2 / 7, 1 / 7])


def test_padding_and_company_do_not_change_float32_logits(tiny_config: Config) -> None:
    materials, config = Materials(), tiny_config()
    _, validation = materials.rows(config)
    student = materials.student(config)
    together = evaluate(student, validation).logits
    for row in range(len(validation.labels)):
        alone = student(**padded(validation.tokens, torch.tensor([row]).numpy()).inputs).logits
        assert torch.allclose(alone[0], together[row], atol=1e-6)


def test_cached_logits_are_the_on_line_logits_of_every_row_in_every_batch(tiny_config: Config) -> None:
    materials, config = Materials(), tiny_config()
    rows, _ = materials.teacher_rows(config)
    teacher = materials.teacher(config)
    for batch_size in (1, 7, 32):
        for batch in training_batches(rows.tokens, batch_size=batch_size, seed=3, epoch=2):
            with torch.inference_mode():
                online = teacher.model(**batch.inputs).logits[:, list(teacher.columns)]
            assert torch.allclose(online, rows.teacher_logits[batch.rows], atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 5, 16, 100])
def test_every_row_comes_once_an_epoch(tiny_config: Config, batch_size: int) -> None:
    rows, _ = Materials().rows(tiny_config())
    seen = [batch.rows for batch in training_batches(rows.tokens, batch_size=batch_size, seed=0, epoch=1)]
    assert sorted(torch.cat(seen).tolist()) == list(range(72))
