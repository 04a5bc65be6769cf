"""Students from teachers, labels by name, and the compact vocabulary."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import BertConfig

from kdsweep.config import TrialConfig
from kdsweep.errors import ModelError
from kdsweep.materials import Materials
from kdsweep.models import (
    check_task,
    compact_vocabulary,
    label_columns,
    load_classifier,
    restore_vocabulary,
    spread_layers,
    student_from_teacher,
    weights_sha256,
)

NAMES = ("negative", "positive")


def test_a_student_of_all_layers_gives_the_teachers_own_last_hidden_states(tiny_classifier: Path) -> None:
    teacher = load_classifier(str(tiny_classifier), None, NAMES, seed=0).eval()
    student = student_from_teacher(teacher, 3, NAMES, seed=0).eval()
    ids = torch.tensor([[2, 7, 9, 11, 3, 0], [2, 5, 6, 3, 0, 0]])
    mask = (ids != 0).long()
    theirs = teacher.bert(ids, mask).last_hidden_state  # type: ignore[operator, union-attr]
    ours = student.distilbert(ids, mask).last_hidden_state  # type: ignore[operator, union-attr]
    assert torch.allclose(theirs[mask.bool()], ours[mask.bool()], atol=2e-6)


@pytest.mark.parametrize(("count", "of", "layers"), [(6, 12, (0, 2, 4, 7, 9, 11)), (3, 6, (0, 2, 5)), (1, 6, (0,))])
def test_layers_are_spread_as_distilbert_did(count: int, of: int, layers: tuple[int, ...]) -> None:
    assert spread_layers(count, of) == layers


def test_more_layers_than_the_teacher_has_are_refused(tiny_classifier: Path) -> None:
    teacher = load_classifier(str(tiny_classifier), None, NAMES, seed=0)
    for layers in (4, (0, 3)):
        with pytest.raises(ModelError, match="student_layers"):
            student_from_teacher(teacher, layers, NAMES, seed=0)


def test_labels_match_by_name_whatever_the_order_and_spelling() -> None:
    config = BertConfig(id2label={0: "Not Entailed", 1: "entailment"})
    assert label_columns(config, ("entailment", "not_entailed"), "t") == [1, 0]
    assert label_columns(BertConfig(num_labels=2), ("bad", "good"), "t") == [0, 1]
    with pytest.raises(ModelError, match="'bad', 'good'.*'Not Entailed', 'entailment'"):
        label_columns(config, ("bad", "good"), "t")
    with pytest.raises(ModelError, match="classes"):
        label_columns(BertConfig(num_labels=3), ("bad", "good"), "t")


def test_regression_and_multi_label_heads_are_refused() -> None:
    for problem in ("regression", "multi_label_classification"):
        with pytest.raises(ModelError, match="not supported"):
            check_task(BertConfig(problem_type=problem), "t")


def test_pickled_weights_are_refused(tiny_classifier: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((tiny_classifier / "config.json").read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        load_classifier(str(tmp_path), None, NAMES, seed=0)


def test_two_students_of_one_config_are_equal_to_the_bit(tiny_config: Callable[..., TrialConfig]) -> None:
    config = tiny_config()
    first, second = (weights_sha256(Materials().student(config)) for _ in range(2))
    assert first == second == Materials().initial_weights_sha256(config)
    assert first != Materials().initial_weights_sha256(tiny_config(seed=1))


def test_a_compact_vocabulary_keeps_logits_and_comes_back_whole(tiny_config: Callable[..., TrialConfig]) -> None:
    materials, config = Materials(), tiny_config()
    train, _ = materials.rows(config)
    student = materials.student(config).eval()
    before, digest = student.get_input_embeddings().weight.clone(), weights_sha256(student)  # type: ignore[operator]
    ids = train.tokens.ids[None, :10]
    logits = student(ids).logits
    vocabulary = compact_vocabulary(student, [train.tokens])
    assert len(vocabulary.pieces) < len(before)
    assert torch.equal(student(train.tokens.renumbered(vocabulary.pieces).ids[None, :10]).logits, logits)
    restore_vocabulary(student, vocabulary, decay=1.0)
    assert weights_sha256(student) == digest
