"""Tokens and batches: each row once, padded as its own tokenizer would, in an order that three numbers decide."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BatchEncoding,
    BertConfig,
    DebertaV2Config,
    ModernBertConfig,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    RobertaConfig,
    T5Config,
)

from kdsweep.errors import ModelError
from kdsweep.training.data.splits import Split
from kdsweep.training.data.tokenizing import tokenize
from kdsweep.training.data.tokens import (
    EVALUATION_ROWS,
    WINDOW_BATCHES,
    Tokens,
    evaluation_batches,
    load_tokenizer,
    padded,
    training_batches,
)

Rows = list[tuple[str, str]]


@pytest.fixture(scope="module")
def tokenizer(tiny_body: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(str(tiny_body), None)


def split_of(rows: Rows, *, pairs: bool = False) -> Split:
    texts = tuple(text for text, _ in rows)
    return Split(texts=texts, pairs=texts[::-1] if pairs else None, labels=np.zeros(len(texts), dtype=np.int64))


@pytest.fixture
def tokens(tiny_rows: Rows, tokenizer: PreTrainedTokenizerBase) -> Tokens:
    return tokenize(split_of(tiny_rows), tokenizer, max_length=16, segments=False)


def numbered(count: int) -> Tokens:
    """`count` rows of 1 to 9 tokens; each token of a row is the row's number."""
    lengths = np.array([1 + row * 7 % 9 for row in range(count)], dtype=np.int64)
    ids = torch.from_numpy(np.repeat(np.arange(count), lengths))
    starts = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)[:-1]]))
    return Tokens(ids=ids, segments=None, starts=starts, lengths=lengths, pad_id=-1)


@pytest.mark.parametrize("count", [1, 5, 96, 101])
@pytest.mark.parametrize("batch_size", [1, 2, 7, 32, 96, 500])
def test_every_row_comes_once_an_epoch_in_as_many_steps_as_planned(count: int, batch_size: int) -> None:
    batches = list(training_batches(numbered(count), batch_size=batch_size, seed=0, epoch=1))
    assert sorted(torch.cat([batch.rows for batch in batches]).tolist()) == list(range(count))
    assert len(batches) == -(-count // batch_size)
    assert max(len(batch.rows) for batch in batches) <= batch_size


def test_rows_beyond_one_window_come_once_too() -> None:
    count = 2 * WINDOW_BATCHES + 3
    batches = list(training_batches(numbered(count), batch_size=1, seed=0, epoch=1))
    assert sorted(torch.cat([batch.rows for batch in batches]).tolist()) == list(range(count))
    batches = list(training_batches(numbered(5 * WINDOW_BATCHES), batch_size=2, seed=0, epoch=1))
    assert len(batches) == -(-5 * WINDOW_BATCHES // 2)


@pytest.mark.parametrize("count", [1, EVALUATION_ROWS, EVALUATION_ROWS + 1, 3 * EVALUATION_ROWS])
def test_evaluation_meets_every_row_once(count: int) -> None:
    rows = torch.cat([batch.rows for batch in evaluation_batches(numbered(count))])
    assert sorted(rows.tolist()) == list(range(count))


def order(tokens: Tokens, batch_size: int = 8, seed: int = 0, epoch: int = 1) -> list[list[int]]:
    return [b.rows.tolist() for b in training_batches(tokens, batch_size=batch_size, seed=seed, epoch=epoch)]


def test_the_order_hangs_on_seed_epoch_and_batch_size_alone() -> None:
    tokens = numbered(96)
    first = order(tokens)
    torch.manual_seed(5)
    np.random.seed(5)
    torch.rand(3)
    assert order(tokens) == first
    assert order(tokens, seed=1) != first
    assert order(tokens, epoch=2) != first
    assert [row for rows in order(tokens, batch_size=4) for row in rows] != [row for rows in first for row in rows]


def test_a_batch_holds_rows_of_about_one_length_and_batches_come_shuffled() -> None:
    tokens = numbered(900)
    longest = []
    for batch in training_batches(tokens, batch_size=20, seed=0, epoch=1):
        lengths = tokens.lengths[batch.rows.numpy()]
        assert lengths.max() - lengths.min() <= 1
        longest.append(int(lengths.max()))
    assert longest != sorted(longest)


def test_padding_is_the_tokenizers_own(tiny_rows: Rows, tokens: Tokens, tokenizer: PreTrainedTokenizerBase) -> None:
    texts = [text for text, _ in tiny_rows]
    for batch in training_batches(tokens, batch_size=13, seed=0, epoch=1):
        expected = tokenizer([texts[row] for row in batch.rows.tolist()], padding=True, return_tensors="pt")
        assert set(batch.inputs) == {"input_ids", "attention_mask"}
        for name, tensor in batch.inputs.items():
            assert torch.equal(tensor, expected[name]), name


def test_pairs_keep_their_segments_and_are_cut_as_the_tokenizer_cuts_them(
    tiny_rows: Rows, tokenizer: PreTrainedTokenizerBase
) -> None:
    split = split_of(tiny_rows, pairs=True)
    assert split.pairs is not None
    for max_length in (64, 9):
        tokens = tokenize(split, tokenizer, max_length=max_length, segments=True)
        assert tokens.lengths.max() <= max_length
        for batch in evaluation_batches(tokens):
            rows = batch.rows.tolist()
            texts, pairs = [split.texts[row] for row in rows], [split.pairs[row] for row in rows]
            expected = tokenizer(
                texts, pairs, truncation=True, max_length=max_length, padding=True, return_tensors="pt"
            )
            assert set(batch.inputs) == {"input_ids", "attention_mask", "token_type_ids"}
            for name, tensor in batch.inputs.items():
                assert torch.equal(tensor, expected[name]), name
            assert expected["token_type_ids"].any()


def test_long_texts_are_cut_and_keep_their_special_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    tokens = tokenize(split_of([("film " * 50, "x")]), tokenizer, max_length=8, segments=False)
    batch = padded(tokens, np.array([0]))
    assert batch.inputs["input_ids"].shape == (1, 8)
    assert batch.inputs["input_ids"][0, [0, -1]].tolist() == [tokenizer.cls_token_id, tokenizer.sep_token_id]


@pytest.mark.parametrize("pairs", [False, True])
def test_rows_that_max_length_cuts_are_counted(
    pairs: bool, tiny_rows: Rows, tokenizer: PreTrainedTokenizerBase
) -> None:
    split = split_of(tiny_rows, pairs=pairs)
    own = [len(tokenizer(text, pair or None)["input_ids"]) for text, pair in split.row_keys()]
    for max_length in (5, min(own), sorted(own)[len(own) // 2], max(own), 64):
        tokens = tokenize(split, tokenizer, max_length=max_length, segments=False)
        assert tokens.truncated_rows == sum(length > max_length for length in own)


def test_a_tokenizer_written_in_python_counts_the_same(tiny_rows: Rows, tokenizer: PreTrainedTokenizerBase) -> None:
    def in_python(*arguments: Any, **options: Any) -> BatchEncoding:
        return BatchEncoding(dict(tokenizer(*arguments, **options)))  # without what Rust keeps beside the tokens

    in_python.pad_token_id = tokenizer.pad_token_id  # type: ignore[attr-defined]
    in_python.unk_token_id = None  # type: ignore[attr-defined]
    for pairs in (False, True):
        counted = [
            tokenize(split_of(tiny_rows, pairs=pairs), each, max_length=9, segments=False).truncated_rows
            for each in (tokenizer, in_python)
        ]
        assert counted[0] == counted[1] > 0


def test_taken_rows_are_those_rows_in_that_order(tokens: Tokens) -> None:
    wanted = np.array([90, 3, 3, 17])
    taken = padded(tokens.take(wanted), np.arange(4))
    direct = padded(tokens, wanted)
    assert torch.equal(taken.inputs["input_ids"], direct.inputs["input_ids"])
    assert torch.equal(taken.inputs["attention_mask"], direct.inputs["attention_mask"])


def test_the_pieces_of_tokens_are_their_distinct_ids(tokens: Tokens) -> None:
    assert torch.equal(tokens.pieces, tokens.ids.unique()) and tokens.pieces.dtype == torch.int64


def test_padding_before_a_row_is_the_tokenizers_own_too(tiny_rows: Rows, tiny_body: Path) -> None:
    left = load_tokenizer(str(tiny_body), None)
    left.padding_side = "left"
    texts = [text for text, _ in tiny_rows]
    tokens = tokenize(split_of(tiny_rows), left, max_length=16, segments=False, pads_left=True)
    for batch in training_batches(tokens, batch_size=13, seed=0, epoch=1):
        expected = left([texts[row] for row in batch.rows.tolist()], padding=True, return_tensors="pt")
        for name, tensor in batch.inputs.items():
            assert torch.equal(tensor, expected[name]), name


def test_the_unknown_share_leaves_special_tokens_aside(tokenizer: PreTrainedTokenizerBase) -> None:
    def share(*texts: str) -> float:
        split = split_of([(text, "x") for text in texts])
        return tokenize(split, tokenizer, max_length=16, segments=False).unknown_share

    assert share("the film", "was dull") == 0.0
    assert share("the übel", "was dull") == 0.25
    assert share("übel übel") == 1.0


def test_tokens_that_differ_in_anything_have_another_hash(tokens: Tokens, tokenizer: PreTrainedTokenizerBase) -> None:
    others = [replace(tokens, pad_id=7), replace(tokens, pads_left=True), tokens.take(np.arange(95))]
    others += [replace(tokens, ids=tokens.ids.flip(0)), replace(tokens, segments=torch.zeros_like(tokens.ids))]
    hashes = {each.sha256() for each in (tokens, *others)}
    assert len(hashes) == 6 and replace(tokens).sha256() == tokens.sha256()


@pytest.mark.parametrize("config", [BertConfig(), RobertaConfig(), DebertaV2Config(), T5Config(), ModernBertConfig()])
def test_a_folder_without_a_tokenizers_files_is_refused(config: PretrainedConfig, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=f"{tmp_path}.* must hold a tokenizer.*\n.*beside its weights"):
        load_tokenizer(str(tmp_path), None)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')  # says nothing of words
    with pytest.raises(ModelError, match="must hold a tokenizer"):
        load_tokenizer(str(tmp_path), None)


def test_half_a_tokenizer_and_a_torn_one_are_refused(tiny_body: Path, tmp_path: Path) -> None:
    RobertaConfig().save_pretrained(tmp_path)
    (tmp_path / "vocab.json").write_text('{"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4, "<mask>": 5}')
    with pytest.raises(ModelError, match="must hold a tokenizer, but: "):
        load_tokenizer(str(tmp_path), None)
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    assert len(load_tokenizer(str(tmp_path), None)) == 6
    shutil.copytree(tiny_body, tmp_path / "torn")
    (tmp_path / "torn" / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="torn' must hold a tokenizer, but: "):
        load_tokenizer(str(tmp_path / "torn"), None)


def test_a_folder_without_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"{tmp_path}.* must hold a tokenizer"):
        load_tokenizer(str(tmp_path), None)
