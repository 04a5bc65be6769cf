"""Whether a teacher is worth learning from: judged by the study's metric, by what is left to gain, by the order of its classes."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig

from kdsweep.config.sweep import StudyConfig
from kdsweep.config.trial import TrialConfig
from kdsweep.errors import PreflightError
from kdsweep.training.data.splits import Data, Split
from kdsweep.training.preflight import _weakness, likelier_order, preflight
from kdsweep.training.shared import Materials

Config = Callable[..., TrialConfig]


def data_of(*counts: int) -> Data:
    """As many rows of each class in training as in validation."""
    labels = np.repeat(np.arange(len(counts)), counts)
    split = Split(texts=("x",) * len(labels), pairs=None, labels=labels)
    names = tuple("abcdefghij"[: len(counts)])
    return Data(train=split, validation=split, test=None, label_names=names, duplicates_dropped=0)


def weakness(data: Data, predicted: np.ndarray, config: TrialConfig, metric: str, assumed: bool) -> str | None:
    """What is wrong with a teacher that predicts these classes."""
    return _weakness(data, np.eye(len(data.label_names))[predicted], config, metric, assumed)


def wrong_in(data: Data, rows: int) -> np.ndarray:
    """Predictions that are right but for `rows` rows of the rarer classes, which get the commonest one."""
    predicted = data.validation.labels.copy()
    predicted[len(predicted) - rows :] = 0
    return predicted


@pytest.mark.parametrize("metric", ["val_accuracy", "val_macro_f1", "val_mcc"])
@pytest.mark.parametrize("counts", [(50, 50), (987, 13), (95, 4, 1)])
def test_a_perfect_teacher_passes_however_rare_the_other_classes_are(
    metric: str, counts: tuple[int, ...], tiny_config: Config
) -> None:
    data = data_of(*counts)
    assert weakness(data, wrong_in(data, 0), tiny_config(), metric, False) is None
    always = wrong_in(data, len(data.validation) - counts[0])
    assert weakness(data, always, tiny_config(), metric, False) is not None


def test_the_margin_is_a_share_of_the_gap_two_points_where_two_classes_have_one_size(tiny_config: Config) -> None:
    data, config = data_of(500, 500), tiny_config()
    assert weakness(data, wrong_in(data, 480), config, "val_accuracy", False) is None  # 52.0
    told = weakness(data, wrong_in(data, 481), config, "val_accuracy", False)
    assert told is not None and "has 51.90 against 50.00 (52.00 would do)" in told


def test_a_teacher_is_judged_by_the_metric_that_the_study_maximises(tiny_config: Config) -> None:
    data = data_of(95, 4, 1)
    predicted = wrong_in(data, 0)
    predicted[:6] = 1  # four points of accuracy lost, and every row of the rare classes found
    assert "93.50" not in str(weakness(data, predicted, tiny_config(), "val_accuracy", False))
    assert weakness(data, predicted, tiny_config(), "val_accuracy", False) is not None
    assert weakness(data, predicted, tiny_config(), "val_macro_f1", False) is None


def test_a_weak_teacher_is_refused_with_the_key_that_takes_it_and_taken_with_it(
    tiny_config: Config, tiny_body: Path
) -> None:
    config, materials = tiny_config(teacher=str(tiny_body)), Materials()
    with pytest.raises(PreflightError, match=r"nothing to teach.*study\.accept_weak_teacher=true"):
        preflight(materials, config, StudyConfig())
    (note,) = preflight(materials, config, StudyConfig(accept_weak_teacher=True))
    assert "this teacher is taken: the teacher must close 4% of the gap" in note
    assert preflight(materials, tiny_config(), StudyConfig()) == []


# The order of its classes --------------------------------------------------------------------------------------------


@pytest.fixture
def numbered(tiny_classifier: Path, tmp_path: Path) -> str:
    """`tiny_classifier`, whose classes are LABEL_0 (negative) and LABEL_1."""
    folder = tmp_path / "numbered"
    shutil.copytree(tiny_classifier, folder)
    config = AutoConfig.from_pretrained(folder)
    config.id2label = {0: "LABEL_0", 1: "LABEL_1"}
    config.label2id = {"LABEL_0": 0, "LABEL_1": 1}
    config.save_pretrained(folder)
    return str(folder)


def test_a_teacher_of_numbered_classes_in_another_order_is_told_which_one(tiny_config: Config, numbered: str) -> None:
    assert preflight(Materials(), tiny_config(teacher=numbered), StudyConfig()) == []
    swapped = tiny_config(teacher=numbered, label_names=("positive", "negative"))
    with pytest.raises(PreflightError) as told:
        preflight(Materials(), swapped, StudyConfig())
    assert "['LABEL_0', 'LABEL_1'] being ['positive', 'negative']" in str(told.value)
    assert "gives an accuracy of 0.0 on validation, and another order 100.0" in str(told.value)
    assert "name that order in label_names: ['negative', 'positive']; study" in str(told.value)
    assert "teacher_epochs" not in str(told.value)


def test_a_dataset_that_numbers_its_classes_in_another_order_is_told_the_models_names(
    tiny_config: Config, write_rows: Callable[..., Path], tiny_rows: list[tuple[str, str]]
) -> None:
    rows = [(text, {"positive": 0, "negative": 1}[label]) for text, label in tiny_rows]
    with pytest.raises(PreflightError, match="the model's names: \\['1 is negative', '0 is positive'\\]"):
        preflight(Materials(), tiny_config(train_file=str(write_rows("rows.csv", rows))), StudyConfig())


def test_two_swapped_classes_of_many_are_found_and_a_teacher_that_is_only_bad_is_not() -> None:
    labels = np.arange(600) % 6
    swap = np.array([0, 2, 1, 3, 4, 5])
    found = likelier_order(swap[labels], labels, 6)
    assert found is not None and found.tolist() == swap.tolist()
    assert likelier_order(labels, labels, 6) is None
    assert likelier_order(np.zeros(600, dtype=int), labels, 6) is None
    for seed in range(20):
        guessed = torch.randint(6, (600,), generator=torch.Generator().manual_seed(seed)).numpy()
        assert likelier_order(guessed, labels, 6) is None
        half = np.where(np.arange(600) % 10 < 4, labels, guessed)
        assert likelier_order(half, labels, 6) is None
    few = np.array([0, 1, 0, 1])
    assert likelier_order(np.array([1, 0, 0, 1]), few, 2) is None


def test_a_weak_teacher_of_numbered_classes_is_told_that_the_order_may_be_it(tiny_config: Config) -> None:
    data = data_of(50, 50)
    told = str(weakness(data, wrong_in(data, 50), tiny_config(), "val_accuracy", True))
    assert "in another order than label_names, which nothing but the order matches (now ['a', 'b'])" in told
    assert "label_names" not in str(weakness(data, wrong_in(data, 50), tiny_config(), "val_accuracy", False))
