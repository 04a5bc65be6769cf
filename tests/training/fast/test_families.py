"""The table of families: every name in it is a module of a real model."""

import subprocess
import sys
from typing import Any

import pytest
from encoders import encoder
from torch import nn
from transformers import AutoModelForSequenceClassification

from kdsweep.training.fast.families import FAMILIES, KNOWN_TYPES, Family, family_of

ASIDE = ("pos_key_proj", "pos_query_proj")
"""DeBERTa's projections of distances, which no name is needed for."""


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)
def test_a_family_names_its_layers_and_the_weights_in_them(family: Family) -> None:
    model = encoder(family.model_type)
    assert family_of(model) is family and family.classifier_class() is type(model)
    config = model.config
    assert AutoModelForSequenceClassification._model_mapping[type(config)] is type(model)
    layers = model.get_submodule(family.layers)
    assert isinstance(layers, nn.ModuleList) and len(layers) == config.num_hidden_layers
    last = family.last_layer(model)
    assert last is layers[-1]
    if family.names:
        found = {name.rpartition(".")[0] for name, _ in last.named_parameters() if not any(x in name for x in ASIDE)}
        assert found == {*family.names}
    embeddings = model.get_submodule(family.embeddings)
    assert any(module is model.get_input_embeddings() for module in embeddings.modules())
    assert bool(family.first_token) != bool(family.why_not)


def test_decoders_and_encoders_without_a_row_are_of_no_known_family() -> None:
    assert family_of(encoder("albert")) is None
    assert family_of(encoder("bert", is_decoder=True)) is None


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("modernbert", {}, None),
        ("modernbert", {"classifier_pooling": "mean"}, "its classifier reads every token (classifier_pooling: mean)"),
        ("deberta-v2", {"conv_kernel_size": 3}, None),
        (
            "deberta-v2",
            {"conv_kernel_size": 3, "layers": 1},
            "a convolution reads every token of its only layer",
        ),
        ("xlnet", {}, "its classifier reads the last token"),
    ],
)
def test_the_configuration_tells_whether_the_first_token_is_enough(
    kind: str, changes: dict[str, Any], reason: str | None
) -> None:
    model = encoder(kind, **changes)
    family = family_of(model)
    assert family is not None and family.why_every_token(model.config) == reason


def test_relations_are_known_where_queries_keys_and_values_have_names() -> None:
    assert {"bert", "distilbert", "roberta", "electra", "mpnet", "deberta-v2"} <= {*KNOWN_TYPES}
    assert not {"modernbert", "xlnet", "convbert"} & {*KNOWN_TYPES}


def test_the_table_is_read_without_anything_heavy() -> None:
    told = "import sys, kdsweep.training.fast.families; print({'torch', 'transformers'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", told], capture_output=True, text=True).stdout == "set()\n"
