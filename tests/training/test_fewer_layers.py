"""A student of its teacher's class with fewer layers computes what the teacher does without the others, in every family."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from encoders import PLAIN, encoder
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BartConfig,
    BertConfig,
    FunnelConfig,
    GPT2Config,
    SqueezeBertForSequenceClassification,
    T5Config,
    XLMConfig,
)

from kdsweep.errors import ModelError
from kdsweep.training.fast.families import FAMILIES
from kdsweep.training.fewer_layers import check_layers, fewer_layers
from kdsweep.training.students import chosen_layers, reads_segments, student_from_teacher

NAMES = ("bad", "good", "neither")
UNKNOWN: dict[str, dict[str, Any]] = {
    "squeezebert": {},
    "deberta": {},
    "longformer": {"attention_window": [4, 4, 8]},
}
"""Families that are in no table, with changes of their configuration."""
SELDOM = (
    *(
        "big_bird",
        "data2vec-text",
        "eurobert",
        "gte",
        "jina_embeddings_v3",
        "megatron-bert",
        "nomic_bert",
        "rembert",
    ),
    *("roberta-prelayernorm", "roformer", "xlm-roberta-xl"),
)
KINDS = (
    *(family.model_type for family in FAMILIES if family.model_type != "bert"),
    *UNKNOWN,
    *(pytest.param(kind, marks=pytest.mark.slow) for kind in SELDOM),
)


def teacher_of(kind: str) -> Any:
    """A classifier of three layers, each with weights of its own."""
    if kind not in SELDOM:
        return encoder(kind, layers=3, **UNKNOWN.get(kind, {})).eval()
    torch.manual_seed(0)
    shape = {**PLAIN, "vocab_size": 60, "num_hidden_layers": 3, "initializer_range": 0.2, "pad_token_id": 1}
    return AutoModelForSequenceClassification.from_config(AutoConfig.for_model(kind, **shape)).eval()


def hidden(model: Any) -> Tensor:
    ids = torch.tensor([[7, 12, 31, 8, 22, 15], [9, 10, 30, 11, 19, 6]])
    with torch.inference_mode():
        states: Tensor = model.eval().base_model(input_ids=ids, attention_mask=torch.ones_like(ids))[0]
    return states


def without_others(model: Any, chosen: Sequence[int]) -> Any:
    """The same model, of whose layers the others are left out."""
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == 3:
            kept = [module[layer] for layer in chosen]
            module._modules = {str(place): layer for place, layer in enumerate(kept)}
            return model
    raise AssertionError("no list of three layers")


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_computes_what_its_teacher_does_without_the_other_layers(kind: str) -> None:
    teacher = teacher_of(kind)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    whole, two = (fewer_layers(teacher, chosen, NAMES, seed=0) for chosen in ((0, 1, 2), (0, 2)))
    assert type(two) is type(teacher) and two.training and not teacher.training
    assert torch.equal(hidden(whole), hidden(teacher))
    assert (two.config.num_hidden_layers, two.config.num_labels) == (2, 3)  # type: ignore[union-attr]
    assert two.config.id2label == dict(enumerate(NAMES))  # type: ignore[union-attr]
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert torch.equal(hidden(two), hidden(without_others(teacher, (0, 2))))


def test_the_head_alone_is_fresh_and_the_seed_decides_it() -> None:
    teacher = teacher_of("roberta")
    one, same, other = (fewer_layers(teacher, (1, 2), NAMES, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    drawn = {name for name in one if not torch.equal(one[name], other[name])}
    assert drawn == {"classifier.dense.weight", "classifier.out_proj.weight"}


def test_layers_come_as_a_count_a_list_or_a_word() -> None:
    config = AutoConfig.for_model("roberta", num_hidden_layers=12)
    wanted = {3: (0, 6, 11), "spread:3": (0, 6, 11), "first:3": (0, 1, 2), "last:3": (9, 10, 11), (0, 2, 5): (0, 2, 5)}
    assert {layers: chosen_layers(config, layers) for layers in wanted} == wanted  # type: ignore[arg-type]
    for layers in (13, "first:13", "last:13"):
        with pytest.raises(ModelError, match="1 <= student_layers <= 12"):
            chosen_layers(config, layers)


def test_modernbert_keeps_the_kinds_of_its_layers_and_begins_with_the_one_that_has_no_norm() -> None:
    kinds = ["full_attention", "sliding_attention", "sliding_attention"]
    teacher = encoder("modernbert", layers=3, layer_types=kinds).eval()
    assert fewer_layers(teacher, (0, 2), NAMES, seed=0).config.layer_types == kinds[::2]  # type: ignore[union-attr]
    with pytest.raises(
        ModelError,
        match=r"layer 0 of a modernbert has other weights .*attn_norm.* must begin with it.*got \[1, 2\]",
    ):
        check_layers(teacher.config, chosen_layers(teacher.config, "last:2"))


def test_a_list_of_the_config_that_is_not_of_layers_stays_whole() -> None:
    teacher = encoder("deberta-v2", layers=2, pos_att_type=["p2c", "c2p"])
    made = fewer_layers(teacher, (1,), NAMES, seed=0)
    assert made.config.pos_att_type == ["p2c", "c2p"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (AutoConfig.for_model("albert"), "is albert, whose layers share one set of weights"),
        (FunnelConfig(), "is funnel, whose layers lie in blocks"),
        (BartConfig(), "is bart, an encoder with a decoder"),
        (T5Config(), "is t5, an encoder with a decoder"),
        (GPT2Config(), "is gpt2, a decoder"),
        (BertConfig(is_decoder=True), "is bert, a decoder"),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_what_is_no_encoder_with_layers_of_its_own_is_refused_with_the_reason(config: Any, reason: str) -> None:
    with pytest.raises(ModelError, match=f"copies some of an encoder's layers, .* {reason}.*; name a student"):
        chosen_layers(config, 1)


def test_an_encoder_whose_layers_lie_in_several_lists_is_refused_without_weights() -> None:
    config = XLMConfig(vocab_size=40, emb_dim=16, n_layers=3, n_heads=2)
    with pytest.raises(ModelError, match="is xlm, in which 4 lists of 3 layers were found, where one is needed"):
        check_layers(config, (0, 2))


class Scaled(SqueezeBertForSequenceClassification):
    """An encoder whose hidden states depend on how many layers its config says."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        layers = config.num_hidden_layers
        self.transformer.register_forward_hook(lambda _, __, outputs: (outputs[0] * layers,))


def test_an_unknown_family_whose_students_compute_something_else_fails_its_proof() -> None:
    teacher = Scaled(teacher_of("squeezebert").config).eval()
    assert torch.equal(hidden(fewer_layers(teacher, (0, 1, 2), NAMES, seed=0)), hidden(teacher))
    with pytest.raises(ModelError, match="is squeezebert, whose class with fewer layers computes other hidden states"):
        fewer_layers(teacher, (0, 2), NAMES, seed=0)
    assert len(teacher.transformer.encoder.layers) == 3


def test_a_bert_of_another_epsilon_stays_a_bert_and_reads_segments() -> None:
    for epsilon, student in ((1e-12, "DistilBertForSequenceClassification"), (1e-5, "BertForSequenceClassification")):
        teacher = encoder("bert", layer_norm_eps=epsilon).eval()
        made = student_from_teacher(teacher, "last:1", NAMES, seed=0)
        assert type(made).__name__ == student
        assert reads_segments(teacher.config) == hasattr(made, "bert")
    assert made.config.layer_norm_eps == 1e-5  # type: ignore[union-attr]
