"""A student with the pieces of its training texts alone: what it computes, learns, saves and records; what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoders import FAMILIES, VOCABULARY, encoder, padded_batch
from tiny import NOUNS, PIECES, write_tokenizer
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertTokenizer,
)

from kdsweep.config.trial import TrialConfig
from kdsweep.errors import Interrupted, ModelError
from kdsweep.records.layout import TrialId
from kdsweep.records.reading import read_predictions, read_steps, read_trial
from kdsweep.records.writing import TrialFolder
from kdsweep.shipping.session import _tokenizer
from kdsweep.system.process import StopRequest
from kdsweep.tracking.tracker import NullRun
from kdsweep.training.architecture import architecture
from kdsweep.training.checkpoints import NO_CHECKPOINTING, Checkpointing
from kdsweep.training.data.splits import Split
from kdsweep.training.input_checks import check_inputs, kept_pieces
from kdsweep.training.reader import Reader
from kdsweep.training.shared import Materials
from kdsweep.training.trained_vocabulary import (
    TrainedVocabulary,
    changed_rows,
    check_same,
    trained_vocabulary,
    with_fewer_pieces,
)
from kdsweep.training.trial import Slot, Watch, run_trial

Config = Callable[..., TrialConfig]
SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def run(config: TrialConfig, folder: Path, materials: Materials, checkpointing: Any = NO_CHECKPOINTING) -> Any:
    """A finalist's run, which opens the test split; its record."""
    slot = Slot(id=TrialId("distilled", 0, 1), round=1)
    watch = Watch(on_steps=lambda _: None, on_epoch=lambda _: False)
    run_trial(config, slot, TrialFolder(folder), materials, NullRun(), watch, checkpointing)
    return read_trial(folder)


def folder_of(tmp_path: Path, name: str) -> Path:
    return tmp_path / name / "finalists" / "distilled-0000-seed1"


def split_of(*texts: str) -> Split:
    return Split(texts=texts, pairs=None, labels=np.zeros(len(texts), dtype=np.int64))


def steps_of(folder: Path) -> list[Any]:
    return list(read_steps(folder))


@pytest.mark.slow
@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "funnel"])
def test_a_model_with_fewer_pieces_computes_the_same_of_those_it_keeps_and_is_saved_as_such(
    family: str, tmp_path: Path
) -> None:
    whole = encoder(family, **({"pad_token_id": 57} if family == "modernbert" else {})).eval()
    before = {key: value.clone() for key, value in whole.state_dict().items()}
    batch = padded_batch(whole)
    pieces = torch.cat([torch.arange(6), batch["input_ids"].flatten()]).unique()
    generator = torch.get_rng_state()
    vocabulary = TrainedVocabulary(tokenizer=None, reader=None, pieces=pieces, whole=VOCABULARY)  # type: ignore[arg-type]
    smaller = with_fewer_pieces(whole, vocabulary)
    assert torch.equal(torch.get_rng_state(), generator) and not smaller.training
    own = {**batch, "input_ids": vocabulary.numbers[batch["input_ids"]]}
    with torch.inference_mode():
        expected = whole(**batch).logits
        assert torch.equal(smaller(**own).logits, expected)
    config: Any = smaller.config
    assert smaller.get_input_embeddings().num_embeddings == config.vocab_size == len(pieces)  # type: ignore[operator]
    assert config.pad_token_id == vocabulary.numbers[whole.config.pad_token_id]
    assert all(torch.equal(before[key], value) for key, value in whole.state_dict().items())
    smaller.save_pretrained(tmp_path)  # type: ignore[operator]
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.inference_mode():
        assert torch.equal(loaded(**own).logits, expected)


def test_a_special_id_that_is_dropped_is_none_in_the_config_and_a_second_table_is_refused() -> None:
    vocabulary = TrainedVocabulary(tokenizer=None, reader=None, pieces=torch.tensor([0, 5]), whole=40)  # type: ignore[arg-type]
    model = AutoModelForSequenceClassification.from_config(BertConfig(**SHAPE, vocab_size=40, bos_token_id=3))
    assert with_fewer_pieces(model, vocabulary).config.bos_token_id is None
    model.classifier.bias = nn.Parameter(torch.zeros(40))
    with pytest.raises(
        ModelError, match="pieces are in one table, but a bert of 2 pieces has other shapes: .*classifier"
    ):
        with_fewer_pieces(model, vocabulary)


def test_training_is_the_same_to_the_bit_and_the_student_smaller(tiny_config: Config, tmp_path: Path) -> None:
    """Every word of these validation and test rows is in training, so that the optimizer has the same rows of the table."""
    materials, own = Materials(), {"test_fraction": 0.1, "seed": 3}
    full, config = (tiny_config(**own, student_vocabulary=kind) for kind in ("full", "trained"))
    folders = [folder_of(tmp_path, kind) for kind in ("full", "trained")]
    whole, trained = (run(each, folder, materials) for each, folder in zip((full, config), folders, strict=True))
    assert steps_of(folders[0]) == steps_of(folders[1]) and len(steps_of(folders[0])) > 4
    assert [each.measured() for each in whole.epochs] == [each.measured() for each in trained.epochs]
    assert np.array_equal(read_predictions(folders[0]), read_predictions(folders[1]))
    result, vocabulary = trained.result, materials.student_vocabulary(config)
    assert vocabulary is not None
    dropped = 32 * (vocabulary.whole - len(vocabulary.pieces))
    assert dropped > 0 and result.parameters == whole.result.parameters - dropped
    assert (result.vocabulary_pieces, result.vocabulary_whole) == (len(vocabulary.pieces), vocabulary.whole)
    assert result.val_unknown_share == result.val_recut_share == result.test_recut_share == 0.0
    assert whole.result.vocabulary_pieces is None and "vocabulary_pieces" not in whole.result.summary()
    assert result.summary()["vocabulary_pieces"] == len(vocabulary.pieces)

    model = AutoModelForSequenceClassification.from_pretrained(folders[1] / "student").eval()
    tokenizer = AutoTokenizer.from_pretrained(folders[1] / "student")
    assert len(tokenizer) == model.config.vocab_size == len(vocabulary.pieces)
    texts = list(materials.data(config).validation.texts)
    with torch.inference_mode():
        logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    assert np.array_equal(logits.argmax(dim=-1), read_predictions(folders[1]))
    settings = json.loads((folders[1] / "student" / "tokenizer_config.json").read_text())
    alone = _tokenizer(folders[1] / "student" / "tokenizer.json", settings, config.max_length)
    assert [each.ids for each in alone.encode_batch(texts)] == tokenizer(texts)["input_ids"]


@pytest.mark.slow
def test_a_trial_cut_off_goes_on_with_the_same_bits_in_another_process(tiny_config: Config, tmp_path: Path) -> None:
    config = tiny_config(student_vocabulary="trained", train_limit=40, max_steps=3, evaluations=1)
    once = run(config, folder_of(tmp_path, "once"), Materials())
    stop = StopRequest()
    stop.requested = True
    with pytest.raises(Interrupted):
        run(config, folder_of(tmp_path, "twice"), Materials(), Checkpointing(every_seconds=0, stop=stop))
    twice = run(config, folder_of(tmp_path, "twice"), Materials())
    assert twice.result.weights_sha256 == once.result.weights_sha256 and steps_of(once.folder) == steps_of(twice.folder)
    files = [folder_of(tmp_path, name) / "student" / "tokenizer.json" for name in ("once", "twice")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_what_the_texts_decide_is_kept_apart(tiny_config: Config, write_rows: Callable[..., Path]) -> None:
    materials = Materials()
    few = tiny_config(student_vocabulary="trained", train_limit=8)
    texts = write_rows("more.csv", [{"text": f"a {noun} is a movie plot"} for noun in NOUNS])
    more, full = replace(few, unlabeled_file=str(texts)), replace(few, student_vocabulary="full")
    sizes = [materials.student(config).config.vocab_size for config in (few, more, full)]
    assert sizes == sorted(set(sizes)) and sizes[0] < sizes[1] < sizes[2]
    ids = {config: materials.student_tokens(config, "validation").ids for config in (few, more, full)}
    assert not torch.equal(ids[few], ids[more]) and not torch.equal(ids[more], ids[full])
    assert materials.student_tokens(more, "unlabeled").unknown_share == 0
    assert len({materials.initial_weights_sha256(config) for config in (few, more, full)}) == 3
    assert len({architecture(config) for config in (few, more, full)}) == 3
    assert materials.teacher_tokens(few, "train") is materials.teacher_tokens(full, "train")
    use = materials.vocabulary_use(few, test=False)
    assert use is not None and use.validation.recut_share > 0 and use.test is None
    (alone,) = kept_pieces(materials, [few])
    assert f"texts {use.validation.recut_share:.0%} are cut otherwise; texts without labels would add pieces" in alone
    told = kept_pieces(materials, [few, few, more, full])
    assert len(told) == 2 and f"keeps {sizes[0]} of the {sizes[2]} pieces of " in told[0]
    assert told[0].endswith("(without the texts without labels)")
    assert told[1].endswith("are cut otherwise (with the texts without labels)")
    own = materials.student_tokens(few, "validation")
    assert use.validation.unknown_share == own.unknown_share > 0, "these words have no letters to fall apart into"


def test_the_teacher_beside_such_a_student_reads_its_own_ids(tiny_config: Config, tmp_path: Path) -> None:
    related = {"relation_weight": 0.5, "relation_heads": 4, "seed": 3, "max_steps": 3, "evaluations": 1}
    materials, folders = Materials(), [folder_of(tmp_path, kind) for kind in ("full", "trained")]
    for folder in folders:
        run(tiny_config(**related, student_vocabulary=folder.parents[1].name), folder, materials)
    assert steps_of(folders[0]) == steps_of(folders[1]) and steps_of(folders[0])[0].L_relation > 0


def tiny_reader(folder: Path, pieces: list[str]) -> Reader:
    """What a BERT with these pieces reads, without weights."""
    write_tokenizer(folder, pieces)
    BertConfig(**SHAPE, vocab_size=len(pieces)).save_pretrained(folder)
    return Reader(
        address=str(folder),
        revision=None,
        tokenizer=BertTokenizer.from_pretrained(folder),
        pieces=len(pieces),
        longest=None,
        segments=False,
        pads_left=False,
    )


def test_a_word_cut_off_in_its_middle_keeps_the_pieces_behind_the_cut(tmp_path: Path) -> None:
    found = tiny_reader(tmp_path, [*PIECES.split(), "lower", "##est", "##most", "film"])
    texts = split_of("the film the lowermostest", "a film")
    for max_length, kept in ((5, 3), (6, 3), (9, 3)):
        tokens = found.tokens(texts, max_length=max_length)
        vocabulary = trained_vocabulary(found, [(texts, tokens)], max_length=max_length)
        own = vocabulary.reader.tokens(texts, max_length=max_length)
        check_same("here", tokens, own, vocabulary)
        names = vocabulary.tokenizer.get_vocab()
        assert len({"lower", "##est", "##most"} & set(names)) == kept and "##ly" not in names


def test_a_tokenizer_that_knows_half_of_the_texts_at_most_names_its_own_way_out(
    tiny_config: Config, write_rows: Callable[..., Path]
) -> None:
    rows = [(f"is it {word} in", label) for word, label in (("the", "negative"), ("a", "positive")) for _ in "ab"]
    file = write_rows("few.csv", [(f"{text} {'.' * place}", label) for place, (text, label) in enumerate(rows)])
    odd = write_rows("odd.csv", [("movie plot film", "negative"), ("story song script", "positive")])
    config = tiny_config(train_file=str(file), validation_file=str(odd), student_vocabulary="trained")
    with pytest.raises(
        ModelError, match="100% are .UNK. to it; .* train on more texts, labelled or not, or say student_voc"
    ):
        check_inputs(Materials(), [config], largest_batch=1, splits=("validation",))


def test_texts_that_are_cut_otherwise_are_counted_and_refused_in_training(tmp_path: Path) -> None:
    """`abcd` is unknown, for `abc` leaves a `##d` that is no piece; without `abc`, it would be `ab ##cd`."""
    found = tiny_reader(tmp_path, [*PIECES.split(), "abc", "ab", "##cd", "x", "##x"])
    texts, train = split_of("the ab", "abcd", "the abcd abcd", "ab abc"), split_of("the ab", "x x")
    ids = [found.tokenizer.convert_tokens_to_ids(piece) for piece in ("##cd", "x", "the", "ab")]
    tokens = replace(found.tokens(train, max_length=9), ids=torch.tensor(ids))
    vocabulary = trained_vocabulary(found, [(train, tokens)], max_length=9)
    assert {"abc", "##cd", "##x"} & set(vocabulary.tokenizer.get_vocab()) == {"##cd", "##x"}
    whole, own = found.tokens(texts, max_length=9), vocabulary.reader.tokens(texts, max_length=9)
    assert changed_rows(whole, own, vocabulary).tolist() == [False, True, True, True]
    with pytest.raises(ModelError, match="cuts 3 of 4 otherwise; say student_vocabulary: full"):
        check_same("here", whole, own, vocabulary)


def test_what_cannot_be_cut_down_says_why(tmp_path: Path) -> None:
    found = tiny_reader(tmp_path, PIECES.split())
    texts = split_of("the film")
    tokens = found.tokens(texts, max_length=9)
    with pytest.raises(ModelError, match=r"has 5 pieces and a token with id \d+; say student_vocabulary: full"):
        trained_vocabulary(replace(found, pieces=5), [(texts, tokens)], max_length=9)
    kept = trained_vocabulary(replace(found, first_position=9), [(texts, tokens)], max_length=9)
    assert kept.pieces[:9].tolist() == list(range(9))
    with pytest.raises(ModelError, match="needs every id up to the padding's, 999"):
        trained_vocabulary(replace(found, first_position=1000, pieces=1000), [(texts, tokens)], max_length=9)
