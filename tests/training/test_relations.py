"""L_relation against values derived by hand, a float64 reference in plain loops, and a plain transformers implementation."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, DistilBertConfig, ModernBertConfig

from kdsweep.config.trial import TrialConfig
from kdsweep.errors import ModelError
from kdsweep.training.fast.families import Family, family_of
from kdsweep.training.fast.shortcuts import shortcuts
from kdsweep.training.online import outputs_of
from kdsweep.training.relations import NAMES, check_relations, relation_loss
from kdsweep.training.shared import Materials

Config = Callable[..., TrialConfig]
Projected = dict[str, Tensor]


def random(
    width: int, *, rows: int = 3, tokens: int = 5, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Projected:
    """Queries, keys and values of a random model."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(rows, tokens, width, generator=generator, dtype=dtype) for name in NAMES}


def reference(student: Projected, teacher: Projected, mask: Tensor, heads: int) -> list[float]:
    """Each row's loss by the paper's formula, number by number, in float64."""

    def relation(x: Tensor, row: int, head: int, query: int, real: list[int]) -> list[float]:
        size = x.shape[-1] // heads
        part = x[row, :, head * size : (head + 1) * size].tolist()
        scores = [sum(a * b for a, b in zip(part[query], part[key], strict=True)) / math.sqrt(size) for key in real]
        total = sum(math.exp(score) for score in scores)
        return [math.exp(score) / total for score in scores]

    losses = []
    for row in range(len(mask)):
        real = [token for token in range(mask.shape[1]) if mask[row, token]]
        each = [
            sum(
                p * math.log(p / q)
                for p, q in zip(*(relation(m[name], row, head, at, real) for m in (teacher, student)), strict=True)
            )
            for name in NAMES
            for head in range(heads)
            for at in real
        ]
        losses.append(sum(each) / len(each))
    return losses


def test_two_tokens_by_hand() -> None:
    a = math.sqrt(math.log(3) / 2)  # 4 a² / √4 = log 3: the first token has shares 3/4 and 1/4, the second 1/2 each
    nothing = torch.zeros(1, 2, 4)
    teacher = {"query": torch.tensor([[[a] * 4, [0.0] * 4]]), "key": nothing, "value": nothing}
    student = {name: torch.zeros(1, 2, 6) for name in NAMES}  # 1/2 everywhere, whatever its width
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    loss = relation_loss(student, teacher, torch.ones(1, 2), heads=1)
    assert loss.shape == () and loss.item() == pytest.approx(divergence / 2 / 3, rel=1e-6)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_it_is_the_papers_formula_for_any_widths_heads_and_lengths(heads: int) -> None:
    student, teacher = random(8, dtype=torch.float64), random(12, seed=1, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
    expected = reference(student, teacher, mask, heads)
    assert expected[2] == 0 < expected[1]  # a single token attends to itself
    assert relation_loss(student, teacher, mask, heads=heads).item() == pytest.approx(sum(expected) / 3, rel=1e-12)
    weights = torch.tensor([0.5, 2.0, 0.5])
    weighed = sum(weight * row for weight, row in zip(weights.tolist(), expected, strict=True)) / 3
    assert relation_loss(student, teacher, mask, heads=heads, weights=weights).item() == pytest.approx(
        weighed, rel=1e-12
    )
    single = [{name: tensor.float() for name, tensor in model.items()} for model in (student, teacher)]
    loss = relation_loss(*single, mask, heads=heads)
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(sum(expected) / 3, rel=1e-5)


def test_gradients_are_those_of_finite_differences_and_the_teacher_has_none() -> None:
    student, teacher = (
        random(4, rows=2, tokens=3, dtype=torch.float64),
        random(6, rows=2, tokens=3, seed=1, dtype=torch.float64),
    )
    for tensor in (*student.values(), *teacher.values()):
        tensor.requires_grad_()
    mask, weights = torch.tensor([[1, 1, 1], [1, 1, 0]]), torch.tensor([0.25, 1.75], dtype=torch.float64)

    def loss(*projected: Tensor) -> Tensor:
        named = dict(zip(NAMES, projected, strict=True))
        return relation_loss(named, teacher, mask, heads=2, weights=weights)

    assert torch.autograd.gradcheck(loss, tuple(student.values()))
    loss(*student.values()).backward()
    assert all(tensor.grad is None for tensor in teacher.values())
    assert all(tensor.grad is not None and not tensor.grad[1, 2].any() for tensor in student.values())  # padding


def test_equal_models_have_no_loss_and_no_gradient() -> None:
    student = {name: tensor.requires_grad_() for name, tensor in random(12).items()}
    loss = relation_loss(student, student, torch.ones(3, 5), heads=3)
    loss.backward()
    assert loss.item() == 0
    assert all(tensor.grad is not None and tensor.grad.abs().max() < 1e-6 for tensor in student.values())


def test_padding_and_company_change_nothing() -> None:
    student, teacher = random(8), random(12, seed=1)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])
    whole = relation_loss(student, teacher, mask, heads=4)
    alone = []
    for row, length in enumerate(mask.sum(dim=1).tolist()):
        mine = [
            {name: tensor[row : row + 1, :length] for name, tensor in model.items()} for model in (student, teacher)
        ]
        alone.append(relation_loss(*mine, torch.ones(1, length), heads=4))
    assert torch.stack(alone).mean().item() == pytest.approx(whole.item(), rel=1e-6)
    wild = [
        {name: tensor.masked_fill(mask[..., None] == 0, 1e4) for name, tensor in model.items()}
        for model in (student, teacher)
    ]
    assert relation_loss(*wild, mask, heads=4).item() == whole.item()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_and_far_scores_stay_finite(dtype: torch.dtype) -> None:
    student = {name: (40 * tensor).to(dtype).requires_grad_() for name, tensor in random(8).items()}
    loss = relation_loss(student, random(8, seed=1), torch.tensor([[1] * 5, [1, 0, 0, 0, 0], [1, 1, 0, 0, 0]]), heads=2)
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite()
    assert all(tensor.grad is not None and tensor.grad.isfinite().all() for tensor in student.values())


def known(model: Any) -> Family:
    family = family_of(model)
    assert family is not None
    return family


def test_queries_keys_and_values_are_caught_whatever_computes_the_rest(
    tiny_config: Config, materials: Materials
) -> None:
    config = tiny_config()
    models: list[Any] = [materials.student(config), copy.deepcopy(materials.teacher(config).model)]
    inputs = {
        "input_ids": torch.tensor([[2, 9, 8, 3], [2, 7, 3, 0]]),
        "attention_mask": torch.tensor([[1] * 4, [1, 1, 1, 0]]),
    }
    for model in models:
        model.eval()
        layer, names = (family := known(model)).last_layer(model), family.names
        hidden = model(**inputs, output_hidden_states=True).hidden_states[-2]
        expected = {name: layer.get_submodule(getattr(names, name))(hidden) for name in NAMES}
        for outputs in (frozenset({"relations"}), frozenset({"relations", "hidden_states"})):
            with shortcuts(model, outputs=outputs):
                found = outputs_of(model, inputs, outputs)
            assert found.keys() == {"logits", *outputs} and found["relations"].keys() == set(NAMES)
            for name in NAMES:
                torch.testing.assert_close(found["relations"][name], expected[name])
        assert not any(layer.get_submodule(getattr(names, name))._forward_hooks for name in NAMES)


def test_models_without_relations_to_compare_are_refused() -> None:
    bert = BertConfig(hidden_size=48, num_attention_heads=4)
    check_relations(bert, DistilBertConfig(dim=36, n_heads=6), 12)
    with pytest.raises(
        ModelError, match=r"teacher's width 48 and the student's 36, but got 5; these do: 1, 2, 3, 4, 6, 12"
    ):
        check_relations(bert, DistilBertConfig(dim=36, n_heads=6), 5)
    with pytest.raises(
        ModelError,
        match=r"are known \(bert, distilbert, roberta, .*\), but the student is modernbert: .* relation_weight: 0",
    ):
        check_relations(bert, ModernBertConfig(), 12)
    with pytest.raises(ModelError, match=r"but the teacher is modernbert"):
        check_relations(ModernBertConfig(), bert, 12)
    with pytest.raises(ValueError, match="relation_heads must divide the width 8, but got 3"):
        relation_loss(random(8), random(9), torch.ones(3, 5), heads=3)
