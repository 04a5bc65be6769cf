"""The table of families: every name in it is a module of a real model."""

from collections.abc import Callable

import pytest
from tiny import tiny_bert_config
from torch import nn
from transformers import (
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from kdsweep.training.fast.families import BERT, DISTILBERT, Family, family_of

SHAPE = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}


def bert(**changes: bool) -> nn.Module:
    return BertForSequenceClassification(tiny_bert_config(9, **changes))


def distilbert() -> nn.Module:
    return DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=9, dim=8, hidden_dim=8, n_layers=2, n_heads=2)
    )


@pytest.mark.parametrize(("family", "make"), [(BERT, bert), (DISTILBERT, distilbert)])
def test_a_family_names_every_weight_of_a_layer_and_the_last_layer(
    family: Family, make: Callable[[], nn.Module]
) -> None:
    model = make()
    assert family_of(model) is family
    named = {name for name, _ in model.named_parameters()}
    count = len(
        {name.removeprefix(f"{family.layers}.").split(".")[0] for name in named if name.startswith(family.layers)}
    )
    last = family.last_layer(model)
    assert last is model.get_submodule(f"{family.layers}.{count - 1}")
    weights = {f"{name}.{kind}" for name in family.names for kind in ("weight", "bias")}
    assert weights == {name for name, _ in last.named_parameters()}
    assert f"{family.embeddings}.word_embeddings.weight" in named


def test_other_encoders_and_decoders_are_of_no_known_family() -> None:
    assert family_of(RobertaForSequenceClassification(RobertaConfig(**SHAPE))) is None
    assert family_of(bert(is_decoder=True)) is None
