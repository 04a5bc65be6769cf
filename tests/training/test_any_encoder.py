"""Every family as teacher, named student and source of a from_teacher student: trained, cut off, repeated with the same bits, loaded elsewhere."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoders import write_encoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kdsweep.analysis.receipt import receipt
from kdsweep.config.trial import TrialConfig
from kdsweep.errors import Interrupted
from kdsweep.records.layout import TrialId
from kdsweep.records.reading import read_predictions, read_steps, read_trial
from kdsweep.records.writing import TrialFolder
from kdsweep.reproduce import rerun
from kdsweep.system.process import StopRequest
from kdsweep.tracking.tracker import NullRun
from kdsweep.training import readout
from kdsweep.training.checkpoints import Checkpointing
from kdsweep.training.fast.families import KNOWN_TYPES
from kdsweep.training.input_checks import check_inputs
from kdsweep.training.shared import Materials
from kdsweep.training.trial import Slot, Watch, run_trial

Config = Callable[..., TrialConfig]
FAMILIES = (
    *(
        "bert",
        "distilbert",
        "roberta",
        "xlm-roberta",
        "camembert",
        "ernie",
        "electra",
        "mpnet",
        "deberta",
        "deberta-v2",
    ),
    *("modernbert", "convbert", "mobilebert", "squeezebert", "longformer", "xlnet"),
)
REVERSED = ("positive", "negative")
"""The classes in another order than the dataset's."""


def train(config: TrialConfig, folder: Path, materials: Materials, stop_at: int | None = None) -> None:
    """One attempt at a trial, cut off behind a step."""
    count, stop = itertools.count(1), StopRequest()

    def on_steps(steps: Any) -> None:
        stop.requested |= any(next(count) == stop_at for _ in steps)

    watch, keep = Watch(on_steps=on_steps, on_epoch=lambda _: False), Checkpointing(every_seconds=1e9, stop=stop)
    run_trial(config, Slot(id=TrialId("distilled", 0)), TrialFolder(folder, "me"), materials, NullRun(), watch, keep)


def outcome(folder: Path) -> Any:
    """All that must not differ between two runs of one trial."""
    row = read_trial(folder)
    weights = (folder / "student" / "model.safetensors").read_bytes()
    return [epoch.measured() for epoch in row.epochs], read_steps(folder), weights, row.measured()


def loaded_elsewhere(folder: Path, texts: Any) -> tuple[np.ndarray, Any]:
    """The predictions of a saved student for each text alone, by transformers and nothing of kdsweep; the student."""
    student = AutoModelForSequenceClassification.from_pretrained(folder / "student").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "student")
    with torch.inference_mode():
        rows = [tokenizer(text, return_tensors="pt", return_token_type_ids=False) for text in texts]
        return np.array([int(student(**row).logits.argmax()) for row in rows]), student


def check(config: TrialConfig, folder: Path) -> Any:
    """The saved student of a trial, which was trained whole, in two parts, and again from its record, each time with the same bits."""
    materials = Materials()
    assert check_inputs(materials, [config], largest_batch=16, splits=["train", "validation"]) == []
    whole, cut = folder / "whole" / "trials" / "0000", folder / "cut" / "trials" / "0000"
    train(config, whole, materials)
    with pytest.raises(Interrupted):
        train(config, cut, materials, stop_at=2)
    train(config, cut, Materials())
    assert outcome(cut) == outcome(whole)
    done = read_trial(whole)
    again = rerun(done, TrialFolder(folder / "again" / "trials" / "0000"), lambda _: None)
    assert receipt(done, again).verdict == "identical"
    data = materials.data(config)
    predictions, student = loaded_elsewhere(whole, data.validation.texts)
    assert predictions.tolist() == read_predictions(whole).tolist()  # type: ignore[union-attr]
    assert student.config.id2label == dict(enumerate(data.label_names)) and data.label_names == REVERSED[::-1]
    return student


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_as_teacher_and_as_student_with_the_same_bits_again(
    family: str, tiny_config: Config, tiny_classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readout, "READ_EVERY", 1)
    body, model = write_encoder(tmp_path / "body", family, layers=3), tmp_path / "model"
    write_encoder(model, family, layers=3, label_names=REVERSED)
    make = lambda **changes: tiny_config(**{"train_limit": 48, "epochs": 1, **changes})

    relations = {"relation_weight": 0.5, "relation_heads": 2} if family in KNOWN_TYPES else {}
    copies = {"student_layers": "spread:2", "student_init": "finetuned", **relations}
    copied = check(make(teacher=str(model), **copies), tmp_path / "copied")
    assert copied.config.model_type == ("distilbert" if family == "bert" else family)
    assert copied.config.num_hidden_layers == 2
    tuned = {"teacher": str(body), "teacher_epochs": 1, "student_init": "pretrained"}
    check(make(**tuned, student_layers="first:1"), tmp_path / "fine_tuned_here")
    named = check(make(teacher=str(tiny_classifier), student=str(model)), tmp_path / "named")  # another tokenizer
    assert (named.config.model_type, named.config.num_hidden_layers) == (family, 3)
