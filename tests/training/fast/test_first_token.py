"""A last layer that computes one token gives each family's own logits, gradients, and queries, keys and values."""

from typing import Any

import pytest
import torch
from encoders import encoder, padded_batch
from torch.nn import functional

from kdsweep.training.fast import shortcuts as shortcuts_module
from kdsweep.training.fast.families import KNOWN_TYPES, RELATIONS
from kdsweep.training.fast.shortcuts import shortcuts
from kdsweep.training.online import outputs_of

SHORT = (
    ("roberta", {}),
    ("electra", {}),
    ("mpnet", {}),
    ("deberta-v2", {}),
    ("deberta-v2", {"share_att_key": False, "position_biased_input": True, "conv_kernel_size": 3}),
    ("deberta-v2", {"pos_att_type": "c2p", "norm_rel_ebd": "none", "position_buckets": -1}),
    ("deberta-v2", {"relative_attention": False, "position_biased_input": True}),
    ("modernbert", {"classifier_pooling": "cls"}),
    ("modernbert", {"layer_types": ["full_attention", "sliding_attention"], "attention_bias": True}),
)
"""Families whose first token is computed alone, with changes of their configuration. BERT and DistilBERT are in test_shortcuts.py; XLM-R,
CamemBERT and ERNIE have RoBERTa's layers to the letter."""
WHOLE = ("mobilebert", "xlnet", "albert")


def without_dropout(model: Any) -> Any:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
    return model


def computed(model: Any, outputs: frozenset[str] = frozenset()) -> tuple[torch.Tensor, dict[str, Any], dict[str, Any]]:
    """Logits without dropout's module, those in training with their other outputs, and the gradients, of padded rows."""
    batch = padded_batch(model)
    with torch.no_grad():
        logits = model.eval()(**batch).logits
    model.train().zero_grad()
    found = outputs_of(model, batch, outputs)
    functional.cross_entropy(found["logits"], torch.tensor([0, 1, 0])).backward()
    return logits, found, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("kind", "changes"), [*SHORT, *((kind, {}) for kind in WHOLE)], ids=str)
def test_logits_and_gradients_are_the_plain_models(
    kind: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = without_dropout(encoder(kind, **changes))
    asked = frozenset({RELATIONS}) if kind in KNOWN_TYPES else frozenset()
    plain, training, gradients = computed(model, asked)
    implementation = model.config._attn_implementation
    for device in ("cpu", "cuda"):  # a GPU's shortcuts are mathematics, too
        monkeypatch.setattr(shortcuts_module, "_device_type", lambda _, device=device: device)
        for outputs in {frozenset(), asked}:
            with shortcuts(model, outputs=outputs):
                short, found, others = computed(model, outputs)
                seen = model.base_model(**padded_batch(model))[0].shape[1]
            assert (seen == 1) == ((kind, changes) in SHORT), "the last layer computes one token"
            torch.testing.assert_close(short, plain, atol=2e-6, rtol=1e-5)
            torch.testing.assert_close(found["logits"], training["logits"], atol=2e-6, rtol=1e-5)
            torch.testing.assert_close(others, gradients, atol=2e-6, rtol=1e-5)
            if outputs:
                torch.testing.assert_close(found[RELATIONS], training[RELATIONS])
    assert model.config._attn_implementation == implementation and not caplog.records


def test_a_classifier_of_the_mean_keeps_every_token() -> None:
    model = without_dropout(encoder("modernbert", classifier_pooling="mean"))
    plain, _, gradients = computed(model)
    with shortcuts(model):
        short, _, others = computed(model)
    torch.testing.assert_close(short, plain)
    torch.testing.assert_close(others, gradients)


@pytest.mark.parametrize("kind", ["roberta", "deberta-v2", "modernbert", "mpnet"])
def test_low_precision_is_that_of_the_plain_model(kind: str) -> None:
    model = encoder(kind).eval()
    batch = padded_batch(model)
    exact = model(**batch).logits
    with torch.autocast("cpu", dtype=torch.bfloat16), shortcuts(model):
        assert (model(**batch).logits.float() - exact).abs().max() < 0.05
