"""The loop: determinism, equality with plain fine-tuning, frozen teacher, failures that name their step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_bert_config
from torch.nn import functional
from transformers import BertForSequenceClassification

from kdsweep.config.trial import TrialConfig
from kdsweep.errors import NonFiniteLoss
from kdsweep.records.schema import EpochMetrics, StepMetrics
from kdsweep.training import state
from kdsweep.training.data.tokens import load_tokenizer, padded, training_batches
from kdsweep.training.evaluation import evaluate
from kdsweep.training.fast.shortcuts import shortcuts
from kdsweep.training.fast.vocabulary import compact_vocabulary
from kdsweep.training.loop import distill
from kdsweep.training.losses import distillation_loss
from kdsweep.training.models import weights_sha256
from kdsweep.training.objective import Inputs, Objective
from kdsweep.training.shared import Materials

Config = Callable[..., TrialConfig]


def train(
    config: TrialConfig,
    materials: Materials,
    *,
    head_dropout: float | None = None,
    objective: Objective | None = None,
) -> tuple[list[StepMetrics], list[EpochMetrics], Any]:
    """One training; its steps, its epochs and the student."""
    rows, validation = materials.rows(config)
    steps: list[StepMetrics] = []
    student: Any = materials.student(config)
    if head_dropout is not None:
        student.dropout.p = head_dropout
    training, _ = distill(
        student, rows, validation, config, on_steps=steps.extend, on_epoch=lambda _: False, objective=objective
    )
    return steps, training.history, student


def test_two_runs_of_one_config_are_equal_to_the_bit(tiny_config: Config) -> None:
    first, second = (train(tiny_config(), Materials()) for _ in range(2))
    assert first[0] == second[0]
    assert [epoch.measured() for epoch in first[1]] == [epoch.measured() for epoch in second[1]]
    assert weights_sha256(first[2]) == weights_sha256(second[2])


def test_the_teacher_is_unchanged_to_the_bit_and_has_no_gradient(tiny_config: Config, materials: Materials) -> None:
    config = tiny_config()
    teacher = materials.teacher(config)
    train(config, materials)
    assert weights_sha256(teacher.model) == teacher.weights_sha256
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.model.parameters())
    assert not teacher.model.training


def test_alpha_0_is_plain_fine_tuning_to_the_bit(tiny_config: Config, materials: Materials) -> None:
    config = tiny_config(alpha=0.0, temperature=3.0)
    distilled = train(config, materials)[2]

    def cross_entropy_alone(batch: Inputs) -> dict[str, torch.Tensor]:
        return {"L_total": functional.cross_entropy(batch.student["logits"].float(), batch.labels)}

    fine_tuned = train(config, materials, objective=Objective(loss=cross_entropy_alone, parts=()))[2]
    assert weights_sha256(fine_tuned) == weights_sha256(distilled)


@pytest.mark.parametrize("change", [{"temperature": 5.0}, {"alpha": 0.9}, {"learning_rate": 2e-3}, {"seed": 7}])
def test_every_knob_changes_what_is_learnt(tiny_config: Config, materials: Materials, change: dict[str, float]) -> None:
    changed, plain = (weights_sha256(train(tiny_config(**knobs), materials)[2]) for knobs in (change, {}))
    assert changed != plain


def test_the_student_trains_in_training_mode_after_every_evaluation(tiny_config: Config, materials: Materials) -> None:
    config, modes = tiny_config(), []
    rows, validation = materials.rows(config)
    student = materials.student(config)
    student.register_forward_hook(lambda module, *_: modes.append((module.training, torch.is_grad_enabled())))
    distill(student, rows, validation, config, on_steps=lambda _: None, on_epoch=lambda _: False)
    assert modes == ([(True, True)] * 5 + [(False, False)]) * 2  # 72 rows in batches of 16, then 24 rows at once


def test_a_loss_that_is_not_finite_names_its_step(tiny_config: Config, materials: Materials) -> None:
    with pytest.raises(NonFiniteLoss, match=r"at step \d+ L_soft was .*nan"):
        train(tiny_config(learning_rate=1e30), materials)


def test_the_rate_rises_over_the_warm_up_and_falls_to_zero(tiny_config: Config, materials: Materials) -> None:
    steps, _, _ = train(tiny_config(warmup_ratio=0.3, learning_rate=1e-3), materials)
    rates = [step.learning_rate / 1e-3 for step in steps]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 6 / 7, 5 / 7, 4 / 7, 3 / 7, 2 / 7, 1 / 7])


def test_padding_and_company_do_not_change_float32_logits(tiny_config: Config, materials: Materials) -> None:
    config = tiny_config()
    _, validation = materials.rows(config)
    student = materials.student(config)
    together = evaluate(student, validation).logits
    for row in range(len(validation.labels)):
        alone = student(**padded(validation.tokens, torch.tensor([row]).numpy()).inputs).logits
        assert torch.allclose(alone[0], together[row], atol=1e-6)


def test_cached_logits_are_the_on_line_logits_of_every_row_in_every_batch(
    tiny_config: Config, materials: Materials
) -> None:
    config = tiny_config()
    rows, _ = materials.teacher_rows(config)
    teacher = materials.teacher(config)
    for batch_size in (1, 7, 32):
        for batch in training_batches(rows.tokens, batch_size=batch_size, seed=3, epoch=2):
            with torch.inference_mode():
                online = teacher.model(**batch.inputs).logits[:, list(teacher.columns)]
            assert torch.allclose(online, rows.teacher_logits[batch.rows], atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 5, 16, 100])
def test_every_row_comes_once_an_epoch(tiny_config: Config, materials: Materials, batch_size: int) -> None:
    rows, _ = materials.rows(tiny_config())
    seen = [batch.rows for batch in training_batches(rows.tokens, batch_size=batch_size, seed=0, epoch=1)]
    assert sorted(torch.cat(seen).tolist()) == list(range(72))


def test_alpha_0_equals_a_loop_that_has_never_heard_of_distillation_to_the_bit(
    tiny_config: Config, materials: Materials
) -> None:
    config = tiny_config(alpha=0.0, temperature=5.0, weight_decay=0.1, warmup_ratio=0.2, max_grad_norm=0.5)
    rows, validation = materials.rows(config)
    _, _, distilled = train(config, materials)

    student = materials.student(config)
    pieces = compact_vocabulary(student, [rows.tokens, validation.tokens]).pieces
    decayed = [p for name, p in student.named_parameters() if "bias" not in name and "norm" not in name.lower()]
    others = [p for name, p in student.named_parameters() if "bias" in name or "norm" in name.lower()]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=1e-3, fused=True
    )
    step, steps, warmup = 0, 10, 2
    for epoch in (1, 2):
        torch.manual_seed(epoch)
        student.train()
        for batch in training_batches(rows.tokens, batch_size=16, seed=0, epoch=epoch):
            rate = (step + 1) / (warmup + 1) if step < warmup else (steps - step) / (steps - warmup)
            for group in optimizer.param_groups:
                group["lr"] = 1e-3 * rate
            with shortcuts(student):
                logits = student(**batch.inputs).logits
            functional.cross_entropy(logits, rows.labels[batch.rows]).backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
    assert step == steps
    expected, found = student.state_dict(), distilled.state_dict()
    words = "distilbert.embeddings.word_embeddings.weight"
    assert torch.equal(found.pop(words)[pieces], expected.pop(words))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


GOLDEN_SOFT = [0.5950739, 0.5230247, 0.3996374, 0.3803776, 0.3433875, 0.3003809]
GOLDEN_HARD = [0.7044534, 0.6925594, 0.6973968, 0.7374629, 0.708415, 0.7376837]


def test_the_losses_of_a_known_training_are_the_known_losses(
    tiny_config: Config, tiny_body: Path, tmp_path: Path
) -> None:
    """Without dropout, whose random numbers differ between builds of torch."""
    tokenizer = load_tokenizer(str(tiny_body), None)
    torch.manual_seed(0)
    bert = BertForSequenceClassification(
        tiny_bert_config(len(tokenizer), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    )
    with torch.no_grad():
        bert.classifier.weight.mul_(10)  # opinions worth learning
    bert.save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    config = tiny_config(teacher=str(tmp_path / "teacher"), temperature=3.0, alpha=0.4)
    steps, _, _ = train(config, Materials(), head_dropout=0.0)
    assert [step.L_soft for step in steps[:6]] == pytest.approx(GOLDEN_SOFT, rel=1e-4)
    assert [step.L_hard for step in steps[:6]] == pytest.approx(GOLDEN_HARD, rel=1e-4)
    for step in steps:
        assert step.L_total == pytest.approx(0.4 * step.L_soft + 0.6 * step.L_hard, rel=1e-6)


def test_the_gradient_reaches_every_parameter_of_the_student_and_none_of_the_teacher(tiny_config: Config) -> None:
    materials, config = Materials(), tiny_config()
    rows, _ = materials.rows(config)
    teacher, student = materials.teacher(config).model, materials.student(config)
    assert {id(p) for p in teacher.parameters()}.isdisjoint(id(p) for p in student.parameters())
    batch = next(training_batches(rows.tokens, batch_size=72, seed=0, epoch=1))
    loss = distillation_loss(
        student(**batch.inputs).logits,
        teacher(**batch.inputs).logits,
        rows.labels[batch.rows],
        temperature=2.0,
        alpha=0.5,
    )
    loss.total.backward()
    assert [name for name, p in student.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_biases_and_layer_norms_do_not_decay_and_all_else_does(tiny_config: Config, materials: Materials) -> None:
    student = materials.student(tiny_config())
    optimizer, _ = state.optimizer_and_schedule(student, tiny_config(weight_decay=0.07), steps=10)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in student.named_parameters():
        free = name.endswith("bias") or "norm" in name.lower()
        assert decay.pop(id(parameter)) == (0.0 if free else 0.07), name
    assert decay == {}


def test_a_last_step_that_breaks_the_weights_fails_the_trial_too(tiny_config: Config, materials: Materials) -> None:
    """Its loss was finite; what it left is not."""
    config = tiny_config(epochs=1, batch_size=100, learning_rate=1e38, warmup_ratio=0.0)
    rows, validation = materials.rows(config)
    seen: list[StepMetrics] = []
    with pytest.raises(NonFiniteLoss, match="at step 1 "):
        distill(materials.student(config), rows, validation, config, on_steps=seen.extend, on_epoch=lambda _: False)
    assert len(seen) == 1


def test_a_weight_that_is_nan_fails_the_first_step(tiny_config: Config, materials: Materials) -> None:
    config = tiny_config()
    rows, validation = materials.rows(config)
    student: Any = materials.student(config)
    student.classifier.bias.data[0] = float("nan")
    with pytest.raises(NonFiniteLoss, match="at step 1 ") as error:
        distill(student, rows, validation, config, on_steps=lambda _: None, on_epoch=lambda _: False)
    assert error.value.step == 1


def test_training_stops_where_the_onlooker_says(tiny_config: Config, materials: Materials) -> None:
    config = tiny_config(epochs=5)
    rows, validation = materials.rows(config)
    student = materials.student(config)
    training, evaluation = distill(
        student, rows, validation, config, on_steps=lambda _: None, on_epoch=lambda epoch: epoch.epoch == 2
    )
    assert [epoch.epoch for epoch in training.history] == [1, 2]
    assert torch.equal(evaluate(student, validation).logits, evaluation.logits)  # the whole vocabulary is back


def test_an_epochs_losses_are_means_over_rows(tiny_config: Config, materials: Materials) -> None:
    steps, history, _ = train(tiny_config(batch_size=50, epochs=1), materials)
    sizes = [50, 22] if len(steps) == 2 else []
    means = {
        sum(size * step.L_hard for size, step in zip(order, steps, strict=True)) / 72 for order in (sizes, sizes[::-1])
    }
    assert min(abs(history[0].L_hard - mean) for mean in means) < 1e-6


def test_bfloat16_trains_and_its_losses_stay_float32(tiny_config: Config, materials: Materials) -> None:
    half, _, student = train(tiny_config(precision="bf16", device="cpu"), materials)
    full, _, _ = train(tiny_config(), materials)
    assert [step.L_soft for step in half] == pytest.approx([step.L_soft for step in full], rel=0.1)
    assert half != full
    assert {parameter.dtype for parameter in student.parameters()} == {torch.float32}
