"""Texts without labels that look like another domain: when it is said."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdsweep.config.sweep import StudyConfig
from kdsweep.config.trial import TrialConfig
from kdsweep.training import joined
from kdsweep.training.data.tokens import TEACHER_LOGITS, Rows
from kdsweep.training.input_checks import check_inputs
from kdsweep.training.preflight import preflight
from kdsweep.training.shared import Materials
from kdsweep.training.unlike import Sureness, strange_pieces, sureness

Config = Callable[..., TrialConfig]


def test_sureness_is_the_mean_of_the_largest_probability_and_of_the_entropy() -> None:
    odds = torch.tensor([[0.0, 0.0], [0.0, np.log(3.0)], [9.0, 9.0]]).float()
    rows = Rows(tokens=None, labels=torch.zeros(3), targets={TEACHER_LOGITS: odds})  # type: ignore[arg-type]
    found = sureness(rows, np.arange(2))
    entropies = np.log(2), 0.75 * np.log(4 / 3) + 0.25 * np.log(4)
    assert found == pytest.approx(Sureness(0.625, 0.125, float(np.mean(entropies))), rel=1e-6)
    untaught = Rows(
        tokens=None, labels=torch.zeros(3), targets={TEACHER_LOGITS: odds}, taught=np.array([True, False, True])
    )  # type: ignore[arg-type]
    assert sureness(untaught) == pytest.approx(Sureness(0.5, 0.0, np.log(2)), rel=1e-6)
    assert sureness(Rows(tokens=None, labels=torch.zeros(3), targets={})) is None  # type: ignore[arg-type]


def test_texts_of_the_same_kind_are_not_remarked_on(tiny_config: Config) -> None:
    config, materials = tiny_config(train_limit=30, unlabeled_rest=True), Materials()
    assert preflight(materials, config, StudyConfig()) == []
    assert check_inputs(materials, [config], largest_batch=1, splits=["train", "validation"]) == []


def test_texts_of_another_kind_are_remarked_on(
    tiny_config: Config, write_rows: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = joined.teacher_targets  # the tiny teacher is sure of everything
    flat: Callable[..., Any] = lambda *of: {name: values / 100 for name, values in told(*of).items()}
    monkeypatch.setattr(joined, "teacher_targets", flat)
    texts = write_rows("texts.csv", [{"text": f"seven unheard words of physics the {number}"} for number in range(60)])
    config, materials = tiny_config(unlabeled_file=str(texts)), Materials()
    (pieces,) = check_inputs(materials, [config], largest_batch=1, splits=["train", "validation"])
    assert pieces.startswith("the texts without labels look like another language or domain: 7")
    (domain,) = preflight(materials, config, StudyConfig())
    assert domain.startswith(
        "the texts without labels look like another domain: the teacher is less sure of them, with a mean confidence of 51."
    )


@pytest.mark.parametrize(("texts", "labelled", "said"), [(0.1, 0.05, True), (0.019, 0.0, False), (0.1, 0.09, False)])
def test_many_more_unknown_pieces_are_remarked_on(texts: float, labelled: float, said: bool) -> None:
    assert bool(strange_pieces("bert", texts, labelled)) == said
