"""Private parts of other libraries: one message where one is gone, no traceback; and the versions that were tested."""

import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny import tiny_bert_config
from torch import nn
from transformers import BertForSequenceClassification

from kdsweep.errors import KDSweepError, LibraryError
from kdsweep.system.libraries import TESTED, part_of, version
from kdsweep.training.fast import machine
from kdsweep.training.fast.families import BERT
from kdsweep.training.fast.shortcuts import attention, weights_in_bfloat16

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_a_part_that_is_gone_is_said_with_its_purpose_the_version_and_the_way_out() -> None:
    assert part_of(torch, "_foreach_copy_", "torch", "training") is torch._foreach_copy_
    with pytest.raises(LibraryError) as told:
        part_of(torch, "_gone", "torch", "training in bfloat16")
    text = str(told.value)
    assert text.startswith("training in bfloat16 needs torch._gone, ") and version("torch") in text
    assert text.endswith(f"pip install '{TESTED['torch']}'") and isinstance(told.value, KDSweepError)
    assert version("no such package") == "-"


def test_training_says_which_private_part_its_library_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(2, 2)
    monkeypatch.delattr(torch, "_foreach_copy_")
    with pytest.raises(LibraryError, match=r"bfloat16 needs torch\._foreach_copy_"), weights_in_bfloat16(model):
        pass
    model.config = SimpleNamespace()  # type: ignore[assignment]
    with (
        pytest.raises(LibraryError, match=r"attention needs .*\._attn_implementation.* transformers has"),
        attention(model, "eager"),
    ):
        pass
    bert = BertForSequenceClassification(tiny_bert_config(8))
    assert BERT.last_layer(bert) is bert.bert.encoder.layer[-1]
    del bert.bert.encoder.layer[-1].intermediate
    with pytest.raises(
        LibraryError, match=r"first token alone needs BertForSequenceClassification's bert\.encoder\.layer"
    ):
        BERT.last_layer(bert)
    monkeypatch.setattr(torch, "ops", SimpleNamespace(mkldnn=SimpleNamespace()))
    with pytest.raises(LibraryError, match=r"_linear_pointwise, .* torch has in the versions torch>="):
        machine.onednn_linear(torch.ones(2, 2), torch.ones(2, 2))


def test_the_versions_of_the_messages_are_those_of_the_package() -> None:
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = [line for name, lines in project["optional-dependencies"].items() if name != "test" for line in lines]
    declared = {
        re.split(r"[\[<>=]", line)[0]: line for line in [*extras, *project["dependencies"]]
    }  # an extra may ask for more
    assert {name: declared[name] for name in TESTED} == TESTED
