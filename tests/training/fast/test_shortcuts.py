"""The shortcuts change the time, not the mathematics."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoders import FAMILIES, encoder, padded_batch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from kdsweep.config.trial import TrialConfig
from kdsweep.training.data.tokens import padded
from kdsweep.training.evaluation import all_logits
from kdsweep.training.fast import machine
from kdsweep.training.fast import shortcuts as shortcuts_module
from kdsweep.training.fast.families import RELATIONS
from kdsweep.training.fast.shortcuts import CheapDropout, attention, shortcuts, shortcuts_taken, weights_in_bfloat16
from kdsweep.training.loop import distill
from kdsweep.training.models import weights_sha256
from kdsweep.training.shared import Materials

Config = Callable[..., TrialConfig]


@pytest.fixture(params=["student", "teacher"])
def model(request: pytest.FixtureRequest, tiny_config: Config, materials: Materials) -> Any:
    """A DistilBERT and a BERT."""
    config = tiny_config()
    made: Any = materials.student(config) if request.param == "student" else materials.teacher(config).model
    return copy.deepcopy(made).requires_grad_(True)  # the teacher is everybody's


@pytest.mark.parametrize(
    ("device", "slow_blas", "outputs"),
    [
        ("cpu", False, ()),
        ("cpu", True, ()),
        ("cuda", False, ()),
        ("cpu", False, (RELATIONS,)),
        ("cuda", False, (RELATIONS,)),
    ],
)
def test_logits_and_gradients_are_those_of_the_plain_model(
    model: Any,
    device: str,
    slow_blas: bool,
    outputs: tuple[str, ...],
    tiny_config: Config,
    materials: Materials,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "blas_is_slow", lambda: slow_blas)
    monkeypatch.setattr(shortcuts_module, "_device_type", lambda _: device)  # a GPU's are mathematics, too
    rows, _ = materials.rows(tiny_config())
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0

    def logits_and_gradients() -> tuple[torch.Tensor, list[torch.Tensor]]:
        with torch.no_grad():
            logits = model.eval()(**padded(rows.tokens, np.arange(len(rows.labels))).inputs).logits
        batch = {"input_ids": torch.tensor([[2, 9, 8, 3], [2, 7, 3, 0]]), "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])}  # fmt: skip
        model.train().zero_grad()
        functional.cross_entropy(model(**batch).logits, torch.tensor([0, 1])).backward()
        return logits, [parameter.grad.clone() for parameter in model.parameters()]

    plain, plain_gradients = logits_and_gradients()
    with shortcuts(model, outputs=outputs):
        short, short_gradients = logits_and_gradients()
    assert torch.allclose(all_logits(model.eval(), rows.tokens, classes=2), plain, atol=1e-6)
    assert torch.allclose(short, plain, atol=1e-6)
    for one, other in zip(short_gradients, plain_gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_padding_is_masked_whatever_attention_a_checkpoint_asks_for(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, mask = torch.tensor([[2, 7, 3, 0]]), torch.tensor([[1, 1, 1, 0]])
    model.eval()
    plain = model(input_ids=ids, attention_mask=mask).logits
    model.set_attn_implementation("eager")
    for device in ("cpu", "cuda"):
        monkeypatch.setattr(shortcuts_module, "_device_type", lambda _, device=device: device)
        with shortcuts(model):
            assert torch.allclose(model(input_ids=ids, attention_mask=mask).logits, plain, atol=1e-6)
    assert model.config._attn_implementation == "eager"


def test_weights_in_bfloat16_give_the_gradients_of_autocast_to_the_bit(model: Any) -> None:
    batch = {"input_ids": torch.tensor([[2, 9, 8, 3], [2, 7, 3, 0]]), "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])}  # fmt: skip

    def gradients(weights: Callable[[Any], Any], pieces: int) -> list[torch.Tensor]:
        model.eval().zero_grad()
        for _ in range(pieces):
            with weights(model):
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    logits = model(**batch).logits
                functional.cross_entropy(logits.float(), torch.tensor([0, 1])).backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    names = [name for name, _ in model.named_parameters()]
    for pieces in (1, 2):
        for name, one, other in zip(
            names, *(gradients(weights, pieces) for weights in (nullcontext, weights_in_bfloat16)), strict=True
        ):
            assert one.dtype == other.dtype == torch.float32 and torch.equal(one, other), name
    assert [name for name, _ in model.named_parameters()] == names


def test_the_last_layer_computes_one_token(model: Any) -> None:
    body, ids = model.base_model.eval(), torch.tensor([[2, 9, 8, 3]])
    assert body(input_ids=ids).last_hidden_state.shape[1] == 4
    for outputs, width in (((), 1), ((RELATIONS,), 1), (("hidden_states",), 4), (("hidden_states", RELATIONS), 4)):
        with shortcuts(model, outputs=outputs):
            assert body(input_ids=ids).last_hidden_state.shape[1] == width


def test_linear_layers_are_onednns_where_the_blas_is_slow(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.Size] = []
    plain = machine.onednn_linear
    monkeypatch.setattr(machine, "onednn_linear", lambda x, w, *b: (asked.append(w.shape), plain(x, w, *b))[1])

    def calls(*, slow: bool, low: bool = False) -> int:
        asked.clear()
        monkeypatch.setattr(machine, "blas_is_slow", lambda: slow)
        with shortcuts(model), torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
            model(input_ids=torch.tensor([[2, 9, 8, 3]]))
        return len(asked)

    layers = sum(isinstance(module, torch.nn.Linear) for module in model.modules())
    layers -= 2  # the last layer has neither keys nor values
    assert (calls(slow=True), calls(slow=False), calls(slow=True, low=True)) == (layers, 0, 0)


def test_after_the_block_the_model_is_as_before(tiny_config: Config, materials: Materials, tmp_path: Path) -> None:
    student: Any = materials.student(tiny_config()).eval()
    student.save_pretrained(tmp_path / "before")
    before = student(input_ids=torch.tensor([[2, 9, 8, 3]])).logits
    with pytest.raises(RuntimeError), shortcuts(student):
        raise RuntimeError
    assert student.config._attn_implementation == "sdpa"
    assert not any("forward" in vars(module) for module in student.modules())
    assert torch.equal(student(input_ids=torch.tensor([[2, 9, 8, 3]])).logits, before)
    student.save_pretrained(tmp_path / "after")
    assert (tmp_path / "before" / "config.json").read_text() == (tmp_path / "after" / "config.json").read_text()


def test_a_teacher_that_is_a_bert_gives_the_same_logits(tiny_config: Config) -> None:
    teacher: Any = Materials().teacher(tiny_config()).model
    ids = torch.tensor([[2, 9, 8, 3]])
    before = teacher(input_ids=ids).logits
    with attention(teacher, "eager"), shortcuts(teacher):
        assert torch.allclose(teacher(input_ids=ids).logits, before, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_cheap_dropout_drops_its_share_at_random_and_scales_the_rest(dtype: torch.dtype, p: float) -> None:
    def dropped(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(seed)
        leaf = torch.ones(100, 1003, dtype=dtype, requires_grad=True)  # not a multiple of four elements
        with CheapDropout():
            output = functional.dropout(leaf, p)
        output.float().sum().backward()
        assert leaf.grad is not None
        return output.detach(), leaf.grad

    output, gradient = dropped(0)
    zeros = output == 0
    assert output.dtype == dtype
    assert torch.equal(output, gradient)
    kept = output[~zeros].float()
    assert torch.allclose(kept, torch.full_like(kept, 1 / (1 - p)), rtol=2e-3, atol=0)
    error = 4 * (p * (1 - p)) ** 0.5
    assert zeros.double().mean().item() == pytest.approx(p, abs=error / output.numel() ** 0.5)
    assert zeros.double().mean(dim=0).numpy() == pytest.approx(p, abs=1.2 * error / 100**0.5)  # no column is favoured
    for shift in range(1, 9):  # elements share a 64-bit number with their neighbours, and do not know of each other
        both = (zeros.flatten()[shift:] & zeros.flatten()[:-shift]).double().mean().item()
        assert both == pytest.approx(p * p, abs=4 * p / output.numel() ** 0.5)
    assert torch.equal(output, dropped(0)[0])
    assert not torch.equal(output, dropped(1)[0])


def test_cheap_dropout_leaves_everything_else_to_torch() -> None:
    values = torch.randn(6, 4)
    with CheapDropout():
        assert torch.equal(functional.dropout(values, 0.5, training=False), values)
        assert torch.equal(functional.dropout(values, 0.0), values)
        assert torch.equal(functional.dropout(values, 1.0), torch.zeros(6, 4))
        assert functional.dropout(values, 0.5, inplace=True) is values
        assert torch.equal(functional.softmax(values, dim=-1), values.softmax(dim=-1))


def test_a_bf16_training_repeats_to_the_bit(tiny_config: Config) -> None:
    def weights() -> str:
        materials, config = Materials(), tiny_config(precision="bf16", epochs=2)
        student = materials.student(config)
        distill(student, *materials.rows(config), config, on_steps=lambda _: None, on_epoch=lambda _: False)
        return weights_sha256(student)

    assert weights() == weights()


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_dropout_of_a_family_is_the_cheap_one(kind: str) -> None:
    model = encoder(kind).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
    with shortcuts(model), _Ran() as ran:
        model(**padded_batch(model))
    assert "aten::random_" in ran.names
    assert not {name for name in ran.names if "dropout" in name or "bernoulli" in name}


class _Ran(TorchDispatchMode):
    """The names of the operations in the block."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func._schema.name)
        return func(*args, **(kwargs or {}))


def test_the_record_names_what_was_taken_and_why_the_rest_was_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "blas_is_slow", lambda: False)
    given: Any = {"whole_vocabulary": None, "no_graphs": "memory was too short for it"}
    assert shortcuts_taken(encoder("roberta"), (RELATIONS,), low=False, **given) == {
        "first_token": "taken",
        "compact_vocabulary": "taken",
        "cheap_dropout": "taken",
        "onednn_products": "torch multiplies matrices as fast on this CPU",
    }
    assert shortcuts_taken(encoder("bert"), ("hidden_states",), low=True, **given) == {
        "first_token": "the loss reads its hidden states",
        "compact_vocabulary": "taken",
        "cheap_dropout": "taken",
        "onednn_products": "it trains in bfloat16",
    }
    monkeypatch.setattr(shortcuts_module, "_device_type", lambda _: "cuda")
    assert shortcuts_taken(encoder("albert"), (), low=True, **given | {"whole_vocabulary": "it is tied"}) == {
        "first_token": "kdsweep does not know the layers of albert",
        "compact_vocabulary": "it is tied",
        "ready_mask": "not every layer takes one mask of tokens",
        "cuda_graphs": "memory was too short for it",
    }
    assert shortcuts_taken(encoder("bert", is_decoder=True), (), low=False, **given)["first_token"] == (
        "a decoder classifies by its last token"
    )
