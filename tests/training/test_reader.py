"""What a model can read, and what is refused by its configuration and tokenizer alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoders import FAMILIES, encoder_config, write_encoder
from tiny import NOUNS, PIECES, tiny_bert_config, write_tokenizer
from transformers import (
    AlbertConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    CamembertConfig,
    CanineConfig,
    DistilBertConfig,
    IBertConfig,
    LongformerConfig,
    MPNetConfig,
    RobertaConfig,
    XLMRobertaConfig,
    XLNetConfig,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from kdsweep.config.trial import TrialConfig
from kdsweep.errors import ModelError
from kdsweep.training.data.splits import Split
from kdsweep.training.data.tokens import padded
from kdsweep.training.evaluation import all_logits
from kdsweep.training.input_checks import check_inputs
from kdsweep.training.loop import distill
from kdsweep.training.reader import Reader, reader
from kdsweep.training.shared import Materials

Config = Callable[..., TrialConfig]


@pytest.fixture
def folder_of(tiny_body: Path, tmp_path: Path) -> Callable[[Any], Path]:
    """`folder_of(config)`: a model's folder with that configuration, `tiny_body`'s tokenizer and no weights."""

    def write(config: Any) -> Path:
        config.save_pretrained(tmp_path)
        for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
            shutil.copy(tiny_body / name, tmp_path)
        return tmp_path

    return write


def split_of(*texts: str) -> Split:
    return Split(texts=texts, pairs=None, labels=np.zeros(len(texts), dtype=np.int64))


def read_by(address: Path) -> Reader:
    return reader(str(address), None)


@pytest.mark.parametrize(
    ("kind", "positions", "longest"),
    [
        (BertConfig, 512, 512),
        (DistilBertConfig, 512, 512),
        (RobertaConfig, 514, 512),
        (XLMRobertaConfig, 514, 512),
        (CamembertConfig, 514, 512),
        (MPNetConfig, 514, 512),
        (LongformerConfig, 4098, 4096),
        (XLNetConfig, None, None),
    ],
)
def test_the_longest_row_is_what_the_positions_leave_behind_the_padding(
    kind: Any, positions: int | None, longest: int | None, folder_of: Callable[[Any], Path]
) -> None:
    facts = {"max_position_embeddings": positions} if positions else {}
    assert read_by(folder_of(kind(vocab_size=52, **facts))).longest == longest


def test_rows_longer_than_a_model_reads_are_refused_and_shorter_ones_not(folder_of: Callable[[Any], Path]) -> None:
    found = read_by(folder_of(RobertaConfig(vocab_size=52, max_position_embeddings=16)))
    assert found.tokens(split_of("film " * 12), max_length=128).lengths.tolist() == [14]
    with pytest.raises(ModelError, match=r"max_length <= 14 \(what .* reads\).*got 128, and a row of 15 tokens"):
        found.tokens(split_of("film " * 13), max_length=128)


def test_a_tokenizer_far_smaller_than_the_models_vocabulary_is_refused(folder_of: Callable[[Any], Path]) -> None:
    assert read_by(folder_of(tiny_bert_config(64))).pieces == 64  # padded to a multiple, say
    with pytest.raises(
        ModelError, match=r"at least 50% of the 30522 pieces that the model knows, but has 52: it is not"
    ):
        read_by(folder_of(tiny_bert_config(30522)))


def test_a_tokenizer_of_more_pieces_than_the_model_is_refused_where_the_rows_need_them(
    folder_of: Callable[[Any], Path],
) -> None:
    found = read_by(folder_of(tiny_bert_config(40)))
    found.tokens(split_of("the film"), max_length=16)
    with pytest.raises(ModelError, match=r"the tokenizer gives id 51, but the model knows 40 pieces"):
        found.tokens(split_of("the film was empty"), max_length=16)


def test_texts_that_a_tokenizer_does_not_know_are_refused_with_their_share_and_told_from_a_tenth(
    tiny_config: Config, write_rows: Callable[..., Path], tiny_rows: list[tuple[str, str]]
) -> None:
    def rows_with(words: str, every: int) -> TrialConfig:
        rows = [
            (f"{text} {words if n % every == 0 else ''}".strip(), label) for n, (text, label) in enumerate(tiny_rows)
        ]
        return tiny_config(train_file=str(write_rows("rows.csv", rows)), max_length=60, validation_fraction=0.5)

    def told(config: TrialConfig) -> list[str]:
        return check_inputs(Materials(), [config], largest_batch=1, splits=["train", "validation"])

    assert told(rows_with("", 1)) == []
    config = rows_with("übel " * 4, 2)
    (note,) = told(config)  # of the teacher, and of the from_teacher student, which reads alike
    assert note.startswith("26% of the texts' word pieces are unknown to the tokenizer of " + config.teacher)
    with pytest.raises(
        ModelError, match=r"must know at least 50% of the texts' word pieces, but \d\d% are \[UNK\] to it"
    ):
        told(rows_with("übel " * 40, 1))


def test_a_named_student_without_tokenizer_is_refused_before_there_is_a_teacher(
    tiny_config: Config, tiny_body: Path, tmp_path: Path
) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny_body / name, tmp_path)
    config = tiny_config(student=str(tmp_path), teacher=str(tiny_body), teacher_epochs=1)
    materials = Materials()
    with pytest.raises(ModelError, match="has neither tokenizer.json nor vocab.txt"):
        check_inputs(materials, [config], largest_batch=1, splits=["train"])
    with pytest.raises(ModelError, match="has neither tokenizer.json nor vocab.txt"):
        Materials().teacher(tiny_config(teacher=str(tmp_path), teacher_epochs=1))
    assert not [key for key in materials._made if key[0] == "teacher"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 73}, "batch_size <= training rows must hold, but got 73 and 72 rows"),
        ({"student_layers": 4}, "1 <= student_layers <= 3"),
        ({"student_layers": (0, 3)}, r"student_layers must lie in 0 … 2"),
        ({"student": "missing/student"}, "must be a sequence classifier or the body of one"),
    ],
)
def test_what_no_trial_could_be_run_with_is_refused_without_a_teacher(
    changes: dict[str, Any], message: str, tiny_config: Config, tiny_body: Path
) -> None:
    config, materials = tiny_config(teacher=str(tiny_body), teacher_epochs=1, **changes), Materials()
    with pytest.raises(Exception, match=message):
        check_inputs(materials, [config], largest_batch=config.batch_size, splits=["train", "validation"])
    assert not [key for key in materials._made if key[0] == "teacher"]


def test_from_teacher_of_another_family_is_refused_without_a_teacher(
    tiny_config: Config, folder_of: Callable[[Any], Path]
) -> None:
    config = tiny_config(teacher=str(folder_of(AlbertConfig(vocab_size=52))))
    with pytest.raises(
        ModelError, match="the teacher .or student_body. is albert, whose layers share .*name a student: .*any encoder"
    ):
        check_inputs(Materials(), [config], largest_batch=1, splits=["train"])


def test_layers_that_a_students_class_cannot_have_are_refused_without_a_teacher(
    tiny_config: Config, folder_of: Callable[[Any], Path]
) -> None:
    body = str(folder_of(encoder_config("modernbert", layers=3, vocab_size=52)))
    for layers in ("first:2", "spread:2", (0, 2)):
        config = tiny_config(teacher=body, teacher_epochs=1, student_layers=layers)
        check_inputs(Materials(), [config], largest_batch=1, splits=["train"])
    config = tiny_config(teacher=body, teacher_epochs=1, student_layers="last:2")
    with pytest.raises(ModelError, match="must begin with it, as first:N, spread:N"):
        check_inputs(Materials(), [config], largest_batch=1, splits=["train"])


def test_an_encoder_in_no_table_is_tried_with_its_weights_before_there_is_a_teacher(
    tiny_config: Config, tmp_path: Path
) -> None:
    write_encoder(tmp_path / "squeezebert", "squeezebert", layers=2)
    config = tiny_config(teacher=str(tmp_path / "squeezebert"), teacher_epochs=1, student_layers=1)
    check_inputs(Materials(), [config], largest_batch=1, splits=["train"])
    (tmp_path / "squeezebert" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="squeezebert' must be a sequence classifier or the body of one"):
        check_inputs(Materials(), [config], largest_batch=1, splits=["train"])


def test_a_student_reads_segments_where_its_class_has_them(
    tiny_config: Config, tmp_path: Path, write_rows: Callable[..., Path]
) -> None:
    rows = [{"text": f"the {noun}", "second": "is so", "label": "ab"[n % 2]} for n, noun in enumerate(NOUNS)]
    pairs = {"train_file": str(write_rows("pairs.csv", rows)), "text_pair_column": "second"}
    reads = {"bert": False, "electra": True, "mpnet": False}
    for family, expected in reads.items():
        body = str(write_encoder(tmp_path / family, family, layers=2))
        tokens = Materials().student_tokens(tiny_config(student_body=body, student_init="pretrained", **pairs), "train")
        assert (tokens.segments is not None) == expected, family
        assert tokens.segments is None or tokens.segments.tolist()[:6] == [0, 0, 0, 0, 1, 1]


# Families ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_teaches_and_learns_and_padding_changes_nothing(
    family: str, tiny_config: Config, write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    rows = [(f"the {noun} is {'very ' * (n % 4)}so", "ab"[n % 2]) for n, noun in enumerate(2 * NOUNS)]
    model = str(write_encoder(tmp_path / "model", family))
    config = tiny_config(train_file=str(write_rows("rows.csv", rows)), teacher=model, student=model, epochs=1)
    materials = Materials()
    assert check_inputs(materials, [config], largest_batch=4, splits=["train", "validation"]) == []
    (train, validation), student = materials.rows(config), materials.student(config)
    assert train.teacher_logits.isfinite().all()
    _, found = distill(student, train, validation, config, on_steps=lambda _: None, on_epoch=lambda _: False)
    student.save_pretrained(tmp_path / "student")  # type: ignore[operator]
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student").eval()
    assert torch.equal(all_logits(saved, validation.tokens, classes=2), found.logits)
    with torch.inference_mode():
        alone = [saved(**padded(validation.tokens, np.array([row])).inputs).logits for row in range(len(found.logits))]
    close = 1e-3 if family == "convbert" else 1e-5  # whose convolutions look beyond the end
    assert torch.allclose(torch.cat(alone), found.logits, atol=close)


@pytest.mark.parametrize("kind", [CanineConfig, IBertConfig])
def test_a_model_without_a_plain_table_of_pieces_is_refused_in_words(
    kind: Any, folder_of: Callable[[Any], Path]
) -> None:
    with pytest.raises(ModelError, match="must have one table of word pieces .* has none: not supported"):
        read_by(folder_of(kind(vocab_size=52) if kind is IBertConfig else kind()))


def test_a_model_that_cannot_read_two_rows_at_once_is_refused_in_words(tiny_config: Config, tmp_path: Path) -> None:
    write_tokenizer(tmp_path, [*PIECES.split(), *NOUNS])
    shape = {"vocab_size": 60, "n_embd": 8, "n_layer": 1, "n_head": 2}
    AutoModel.from_config(CONFIG_MAPPING["gpt2"](**shape)).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()).get("pad_token_id") is None
    with pytest.raises(
        ModelError, match="must give logits of two rows in a batch, but this gpt2 says: .*padding token"
    ):
        Materials().teacher(tiny_config(teacher=str(tmp_path)))
