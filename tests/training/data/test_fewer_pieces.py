"""A tokenizer with fewer pieces cuts every text that needs no others as before, whatever its algorithm, also when it was saved and read back."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoTokenizer,
    BertTokenizer,
    ByT5Tokenizer,
    CamembertTokenizer,
    DebertaV2Tokenizer,
    MPNetTokenizer,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
    XLMRobertaTokenizer,
)

from kdsweep.errors import ModelError
from kdsweep.training.data.fewer_pieces import cut_tokenizer, kept_pieces, renumbered

TRAIN = ["low lower", "new newer", "the lowest", "did"]
OTHERS = ["low newest", "wider lower", "we throw ewes", "xyz wide", "lower the new"]
WORDS = ["low", "lower", "new", "the", "wide", "throw", *"delnorstwihx"]
LETTERS = "delnorstwih"
MERGES = ["l o", "lo w", "e r", "n e", "ne w", "low er", "t h", "th e", "Ġ the", "e s", "es t", "w i", "wi d", "Ġ n"]
SCORES = [("▁", -3.0), ("▁low", -4.0), ("er", -3.5), ("▁new", -4.0), ("▁the", -4.0), ("est", -5.0), ("▁wide", -6.0)]
SCORES += [(letter, -7.0 - place / 8) for place, letter in enumerate(LETTERS)] + [("zzz", -30.0)]


def word_pieces(*special: str) -> dict[str, int]:
    inside = [f"##{piece}" for piece in ("er", "est", *"delnorstwih")]
    return {piece: number for number, piece in enumerate([*special, "[unused0]", *WORDS, *inside])}


def byte_pairs() -> tuple[dict[str, int], list[tuple[str, str]]]:
    pairs = [(left, right) for left, right in map(str.split, MERGES)]
    names = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    names += [*("".join(pair) for pair in pairs), "<mask>"]
    return {name: number for number, name in enumerate(names)}, pairs


def scores(*special: str) -> list[tuple[str, float]]:
    return [*((name, 0.0) for name in special), *SCORES]


def generic() -> PreTrainedTokenizerFast:
    """BPE of letters with an end of words, a class of its own, and a padding that no text piece precedes."""
    pairs = [
        ("l", "o"),
        ("lo", "w</w>"),
        ("e", "r</w>"),
        ("lo", "w"),
        ("low", "er</w>"),
        ("n", "e"),
        ("ne", "w</w>"),
        ("w", "i"),
    ]
    names = ["[unk]", "x", *LETTERS, *(f"{letter}</w>" for letter in LETTERS), *("".join(pair) for pair in pairs)]
    model = models.BPE(
        vocab={name: number for number, name in enumerate(names)},
        merges=pairs,
        unk_token="[unk]",
        end_of_word_suffix="</w>",
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["[cls]", "[sep]", "[pad]"])
    ends = [("[cls]", len(names)), ("[sep]", len(names) + 1)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[cls] $A [sep]", pair="[cls] $A [sep] $B [sep]", special_tokens=ends
    )
    named = {"unk_token": "[unk]", "cls_token": "[cls]", "sep_token": "[sep]", "pad_token": "[pad]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)


def tokenizers() -> dict[str, Any]:
    vocabulary, merges = byte_pairs()
    return {
        "bert": BertTokenizer(vocab=word_pieces("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")),
        "mpnet": MPNetTokenizer(vocab=word_pieces("<s>", "<pad>", "</s>", "[UNK]", "<mask>")),
        "roberta": RobertaTokenizer(vocab=vocabulary, merges=merges),
        "xlm-roberta": XLMRobertaTokenizer(vocab=scores("<s>", "<pad>", "</s>", "<unk>")),
        "camembert": CamembertTokenizer(vocab=scores("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<s>", "</s>")),
        "deberta-v3": DebertaV2Tokenizer(vocab=scores("[PAD]", "[CLS]", "[SEP]", "[UNK]")),
        "letters": generic(),
    }


def ids_of(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    found: list[list[int]] = tokenizer(list(texts))["input_ids"]
    return found


@pytest.mark.parametrize("name", list(tokenizers()))
def test_a_smaller_tokenizer_cuts_what_it_can_as_the_whole_one_and_is_saved_as_any_other(
    name: str, tmp_path: Path
) -> None:
    whole = tokenizers()[name]
    used = {piece for row in ids_of(whole, TRAIN) for piece in row}
    smaller, pieces = cut_tokenizer(whole, used)
    assert used <= set(pieces) and len(pieces) == len(smaller) < len(whole) and type(smaller) is type(whole)
    numbers = {old: new for new, old in enumerate(pieces)}
    of_texts = lambda texts: [[numbers.get(piece) for piece in row] for row in ids_of(whole, texts)]
    assert ids_of(smaller, TRAIN) == of_texts(TRAIN)
    able = [text for text, row in zip(OTHERS, of_texts(OTHERS), strict=True) if None not in row]
    assert able and able != OTHERS and ids_of(smaller, able) == of_texts(able)
    others = smaller([text for text in OTHERS if text not in able and "x" not in text])["input_ids"]
    assert not any(smaller.unk_token_id in row for row in others), "an unseen word falls apart into letters"
    for kind in ("pad", "unk", "cls", "sep", "mask", "bos", "eos"):
        old, new = (getattr(each, f"{kind}_token_id") for each in (whole, smaller))
        assert new == (None if old is None else numbers[old]), kind
    pair = whole("low", "newer")
    assert smaller("low", "newer")["input_ids"] == [numbers[piece] for piece in pair["input_ids"]]

    smaller.save_pretrained(tmp_path)
    back, alone = AutoTokenizer.from_pretrained(tmp_path), Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert ids_of(back, OTHERS) == ids_of(smaller, OTHERS) == [row.ids for row in alone.encode_batch(OTHERS)]
    assert back.pad_token_id == smaller.pad_token_id


def bare(model: dict[str, Any], **parts: Any) -> dict[str, Any]:
    return {"added_tokens": [], "post_processor": None, "padding": None, "version": "1.0", "model": model, **parts}


def test_bpe_keeps_every_merge_on_the_way_to_a_kept_piece_and_no_other() -> None:
    names = ["a", "b", "c", "d", "ab", "cd", "abc", "abcd", "da", "dab"]
    merges = [["a", "b"], ["c", "d"], ["ab", "c"], ["ab", "cd"], ["abc", "d"], ["d", "a"], ["d", "ab"]]
    whole = bare({"type": "BPE", "vocab": {name: n for n, name in enumerate(names)}, "merges": merges})
    kept = kept_pieces(whole, [names.index("abcd")])
    assert [names[number] for number in kept] == ["a", "b", "c", "d", "ab", "cd", "abc", "abcd"]
    cut = renumbered(whole, kept)["model"]
    assert cut["merges"] == merges[:5] and list(cut["vocab"].values()) == list(range(8))
    written = bare({**whole["model"], "merges": [" ".join(pair) for pair in merges]})
    assert kept_pieces(written, [7]) == kept and renumbered(written, kept)["model"]["merges"][0] == "a b"


def test_unigram_keeps_the_price_of_an_unknown_character() -> None:
    vocabulary = [["<unk>", 0.0], ["ab", -8.0], ["c", -8.0], ["d", -8.0], ["bcd", -1.0], ["zzz", -40.0]]
    whole = bare({"type": "Unigram", "unk_id": 0, "vocab": vocabulary, "byte_fallback": False})
    kept = kept_pieces(whole, [1, 2, 3, 4])
    cut_without = renumbered(whole, [number for number in kept if number != 5])
    ids = lambda spec: Tokenizer.from_str(json.dumps(spec)).encode("abcd").ids
    assert ids(whole) == ids(renumbered(whole, kept)) == [1, 2, 3] and kept == [0, 1, 2, 3, 4, 5]
    assert ids(cut_without) == [0, 4], "an unknown letter and `bcd` would have been cheaper"


def test_what_has_ids_is_renumbered_and_bytes_stay() -> None:
    steps = [{"type": "ByteLevel"}, {"type": "RobertaProcessing", "sep": ["s", 300], "cls": ["c", 301]}]
    letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    model = {"type": "BPE", "vocab": {**letters, "<0x0A>": 256, "never": 257}, "merges": [], "byte_fallback": True}
    whole = bare(
        model,
        added_tokens=[{"id": 300, "content": "s"}, {"id": 301, "content": "c"}],
        post_processor={"type": "Sequence", "processors": steps},
        padding={"pad_id": 301, "pad_token": "c"},
        pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}]},
    )
    kept = kept_pieces(whole, [])
    cut = renumbered(whole, kept)
    assert kept == [*range(257), 300, 301] and [token["id"] for token in cut["added_tokens"]] == [257, 258]
    assert cut["post_processor"]["processors"][1] == {**steps[1], "sep": ["s", 257], "cls": ["c", 258]}
    assert cut["padding"]["pad_id"] == 258


def test_what_cannot_be_cut_is_refused_in_words() -> None:
    with pytest.raises(ModelError, match="a tokenizer of the tokenizers library, but ByT5Tokenizer is in Python"):
        cut_tokenizer(ByT5Tokenizer(), [1])
    with pytest.raises(ModelError, match="needs a tokenizer of WordPiece, BPE, Unigram, WordLevel, but got Other"):
        kept_pieces(bare({"type": "Other"}), [])
