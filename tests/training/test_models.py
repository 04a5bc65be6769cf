"""Students from teachers, labels by name, and the compact vocabulary."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from tiny import tiny_bert_config
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    ViTConfig,
    ViTModel,
)

from kdsweep.config.tasks import TaskName
from kdsweep.config.trial import TrialConfig
from kdsweep.errors import ModelError
from kdsweep.training import loop
from kdsweep.training.data.tokens import padded
from kdsweep.training.fast.vocabulary import Vocabulary, compact_vocabulary, restore_vocabulary
from kdsweep.training.initial_students import STUDENTS_KEPT
from kdsweep.training.loop import distill
from kdsweep.training.models import check_task, label_columns, load_classifier, weights_sha256
from kdsweep.training.shared import Materials
from kdsweep.training.students import load_student, spread_layers, student_from_teacher

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


HEAD = {"architectures": ["BertForSequenceClassification"]}
OTHER_TASKS: list[tuple[TaskName, BertConfig, str]] = [
    ("single_label", BertConfig(problem_type="regression"), "one class of several .* is for regression"),
    ("single_label", BertConfig(problem_type="multi_label_classification"), "is for multi_label_classification"),
    ("single_label", BertConfig(num_labels=1, **HEAD), "is for regression"),
    (
        "multi_label",
        BertConfig(problem_type="single_label_classification", **HEAD),
        "decide on each .* is for single_label",
    ),
    ("multi_label", BertConfig(num_labels=1, **HEAD), "is for regression"),
    ("regression", BertConfig(num_labels=6, **HEAD), "one number .* is for one or several of 6 classes"),
]


@pytest.mark.parametrize(("task", "config", "said"), OTHER_TASKS)
def test_a_head_of_another_task_is_refused(task: TaskName, config: BertConfig, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        check_task(config, "t", task)


def test_a_head_that_does_not_say_its_task_is_taken_for_that_of_the_labels() -> None:
    check_task(BertConfig(num_labels=3, **HEAD), "t", "multi_label")
    check_task(BertConfig(num_labels=1, **HEAD), "t", "regression")
    assert label_columns(BertConfig(num_labels=1, **HEAD), ("similarity",), "t", "regression") == [0]


def test_pickled_weights_are_refused(tiny_classifier: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((tiny_classifier / "config.json").read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        load_classifier(str(tmp_path), None, NAMES, seed=0)


@pytest.mark.parametrize("classifies", [True, False])
def test_pickled_weights_come_with_the_two_lines_that_convert_them(
    classifies: bool, tiny_classifier: Path, tiny_body: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_classifier if classifies else tiny_body, folder)
    torch.save(safetensors.torch.load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="where you trust them, these lines of Python convert them:") as told:
        load_classifier(str(folder), None, NAMES, seed=0)
    lines = [line.strip() for line in str(told.value).splitlines()[-2:]]
    exec("\n".join(lines), {})
    whole = load_classifier(str(tiny_classifier if classifies else tiny_body), None, NAMES, seed=0)
    assert weights_sha256(load_classifier(str(folder), None, NAMES, seed=0)) == weights_sha256(whole)


def test_a_mismatch_of_many_classes_names_ten_of_those_that_differ() -> None:
    mine = [f"intent {number}" for number in range(150)]
    theirs = [f"intent {number}" for number in range(3, 140)] + [f"other {number}" for number in range(14)]
    with pytest.raises(ModelError) as told:
        label_columns(BertConfig(id2label=dict(enumerate(theirs))), mine, "t")
    assert "of the dataset's 150 the model lacks 13: ['intent 0', 'intent 1', 'intent 2', 'intent 140', " in str(
        told.value
    )
    assert "'intent 146', … and 3 more], and of the model's 151 the dataset lacks 14: ['other 0'" in str(told.value)
    assert len(str(told.value)) < 700


def test_two_students_of_one_config_are_equal_to_the_bit(tiny_config: Callable[..., TrialConfig]) -> None:
    config = tiny_config()
    first, second = (weights_sha256(Materials().student(config)) for _ in range(2))
    assert first == second == Materials().initial_weights_sha256(config)
    assert first != Materials().initial_weights_sha256(tiny_config(seed=1))


def test_a_compact_vocabulary_keeps_logits_and_comes_back_whole(
    tiny_config: Callable[..., TrialConfig], materials: Materials
) -> None:
    config = tiny_config()
    train, _ = materials.rows(config)
    student = materials.student(config).eval()
    before, digest = student.get_input_embeddings().weight.clone(), weights_sha256(student)  # type: ignore[operator]
    rows = np.arange(3)
    logits = student(**padded(train.tokens, rows).inputs).logits
    vocabulary = compact_vocabulary(student, [train.tokens])
    assert len(vocabulary.pieces) < len(before)
    assert torch.equal(student(**padded(train.tokens, rows).inputs).logits, logits)
    restore_vocabulary(student, vocabulary, decay=1.0)
    assert weights_sha256(student) == digest


def test_names_that_differ_in_punctuation_alone_are_told_apart() -> None:
    for names in (("C", "C++"), ("+", "-"), ("-1", "1")):
        assert label_columns(BertConfig(id2label=dict(enumerate(names))), names[::-1], "t") == [1, 0]
    with pytest.raises(ModelError, match="classes"):  # both would be column 0
        label_columns(BertConfig(id2label={0: "ab", 1: "c"}), ("a-b", "ab"), "t")


def test_a_model_of_another_task_and_a_folder_without_weights_are_refused(tiny_body: Path, tmp_path: Path) -> None:
    ViTModel(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)).save_pretrained(
        tmp_path / "vision"
    )
    (tmp_path / "empty").mkdir()
    (tmp_path / "weightless").mkdir()
    shutil.copy(tiny_body / "config.json", tmp_path / "weightless")
    for name in ("vision", "empty", "weightless", "missing"):
        with pytest.raises(ModelError, match=f"{name}' must be a sequence classifier or the body of one"):
            load_classifier(str(tmp_path / name), None, NAMES, seed=0)


def test_a_teacher_of_other_classes_is_refused_with_both_lists(tiny_classifier: Path) -> None:
    with pytest.raises(ModelError, match=r"\['fresh', 'rotten'\] and the model \['negative', 'positive'\]"):
        load_classifier(str(tiny_classifier), None, ("fresh", "rotten"), seed=0)


def test_one_output_is_regression_and_refused(tiny_body: Path, tmp_path: Path) -> None:
    BertForSequenceClassification(tiny_bert_config(9, num_labels=1)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="is for regression; name a model"):
        load_classifier(str(tmp_path), None, NAMES, seed=0)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])  # a head with a bias, and one without
def test_a_named_student_answers_in_the_datasets_order_and_says_so(
    kind: str, tiny_classifier: Path, tmp_path: Path
) -> None:
    folder = tiny_classifier
    if kind == "gpt2":
        folder = tmp_path
        names: Any = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
        shape: Any = {"vocab_size": 40, "n_positions": 16, "n_embd": 8, "n_layer": 1, "n_head": 2, "pad_token_id": 0}
        GPT2ForSequenceClassification(GPT2Config(**shape, **names)).save_pretrained(folder)
    ids = torch.tensor([[2, 7, 9, 11, 3]])
    plain = load_student(str(folder), None, NAMES, seed=0).eval()
    swapped = load_student(str(folder), None, NAMES[::-1], seed=0).eval()
    assert torch.equal(swapped(ids).logits, plain(ids).logits[:, [1, 0]])
    assert swapped.config.id2label == {0: "positive", 1: "negative"}  # type: ignore[union-attr]
    assert swapped.config.label2id == {"positive": 0, "negative": 1}  # type: ignore[union-attr]


def test_training_on_a_compact_vocabulary_equals_training_on_the_whole_one(
    tiny_config: Callable[..., TrialConfig], materials: Materials, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(weight_decay=0.3, epochs=2)

    def trained() -> dict[str, torch.Tensor]:
        train, validation = materials.rows(config)
        student = materials.student(config)
        train, validation = train.take(np.arange(20)), validation.take(np.arange(5))  # some pieces never occur
        distill(student, train, validation, config, on_steps=lambda _: None, on_epoch=lambda _: False)
        return student.state_dict()

    compact = trained()

    def whole(model: nn.Module, splits: Any) -> Vocabulary:
        table: nn.Embedding = model.get_input_embeddings()  # type: ignore[operator]
        return Vocabulary(table, torch.arange(len(table.weight)))

    monkeypatch.setattr(loop, "compact_vocabulary", whole)
    monkeypatch.setattr(loop, "restore_vocabulary", lambda *_, **__: None)
    full = trained()
    assert compact.keys() == full.keys()
    for name, tensor in full.items():
        assert torch.allclose(compact[name], tensor, atol=1e-6), name
    untrained = materials.student(config).state_dict()["distilbert.embeddings.word_embeddings.weight"]
    assert not torch.equal(full["distilbert.embeddings.word_embeddings.weight"][4], untrained[4])  # [MASK] decayed


def test_a_sweep_over_seeds_keeps_few_initial_students_and_makes_the_same_again(
    tiny_config: Callable[..., TrialConfig],
) -> None:
    materials = Materials()
    hashes = [materials.initial_weights_sha256(tiny_config(seed=seed)) for seed in range(STUDENTS_KEPT + 3)]
    assert len(materials._students._kept) == STUDENTS_KEPT and len(set(hashes)) == STUDENTS_KEPT + 3
    assert materials.initial_weights_sha256(tiny_config(seed=0)) == hashes[0]
