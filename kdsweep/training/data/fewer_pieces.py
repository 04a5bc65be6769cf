"""Cut a tokenizer down to some of its pieces, under new numbers: in its JSON, as the tokenizers library writes it.

What its algorithm needs beside the pieces named stays too, so that a text that needs none but these is cut as before: for BPE every merge on
the way to a kept piece; for Unigram its lowest score, which sets the price of an unknown character. Bytes, and characters that occur, stay
by themselves, so that a word that was never seen falls apart into letters, and not to the unknown piece.
"""

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from kdsweep.errors import ModelError
from kdsweep.training.data.tokens import load_tokenizer

MODELS = ("WordPiece", "BPE", "Unigram", "WordLevel")
"""The algorithms of the tokenizers library, which are all that transformers' fast tokenizers have."""
_FILE, _SETTINGS = "tokenizer.json", "tokenizer_config.json"


class Cut(NamedTuple):
    """Holds a tokenizer with fewer pieces, and for each of its ids the piece's id in the whole one."""

    tokenizer: PreTrainedTokenizerBase
    pieces: list[int]


def cut_tokenizer(tokenizer: PreTrainedTokenizerBase, used: Iterable[int]) -> Cut:
    """Return `tokenizer` with the pieces whose ids are `used`, what its algorithm needs, and all special and added tokens.

    Ids keep their order. Raises ModelError for a tokenizer that is no fast one, and where transformers makes another one of the new JSON.
    """
    if not tokenizer.is_fast:
        raise ModelError(
            f"a smaller vocabulary needs a tokenizer of the tokenizers library, but {_name(tokenizer)} is in Python"
        )
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer.save_pretrained(scratch)
        path, settings = Path(scratch) / _FILE, Path(scratch) / _SETTINGS
        whole = json.loads(path.read_text(encoding="utf-8"))
        pieces = kept_pieces(whole, [*used, *tokenizer.all_special_ids])
        cut = renumbered(whole, pieces)
        path.write_text(json.dumps(cut, ensure_ascii=False), encoding="utf-8")
        said = json.loads(settings.read_text(encoding="utf-8"))
        if "unk_id" in cut["model"] and "unk_id" in said:
            settings.write_text(json.dumps({**said, "unk_id": cut["model"]["unk_id"]}), encoding="utf-8")
        made = load_tokenizer(scratch, None)
    read = json.loads(made.backend_tokenizer.to_str())
    if different := [name for name in ("model", "added_tokens", "post_processor") if read[name] != cut[name]]:
        raise ModelError(
            f"transformers must read a smaller tokenizer as it was written, but {_name(tokenizer)} makes another {' and '.join(different)} of it"
        )
    return Cut(made, pieces)


def _name(tokenizer: PreTrainedTokenizerBase) -> str:
    return type(tokenizer).__name__


def kept_pieces(whole: Mapping[str, Any], used: Iterable[int]) -> list[int]:
    """Return the ids that a tokenizer (its JSON) keeps where texts use the ids `used`: the model's own pieces first, then added tokens alone.

    Raises ModelError for an algorithm that is none of `MODELS`.
    """
    model = whole["model"]
    if model.get("type") not in MODELS:
        raise ModelError(f"a smaller vocabulary needs a tokenizer of {', '.join(MODELS)}, but got {model.get('type')}")
    names, added = _names(model), {token["id"] for token in whole["added_tokens"]}
    ids = {name: number for number, name in names.items()}
    kept = {number for number in used if number in names} | (added & names.keys())
    of_texts = [names[number] for number in kept - added]
    needed = [*_alone(model, of_texts), *_bytes(whole), *_unknown(model)]
    kept |= {ids[name] for name in needed if name in ids}
    if model["type"] == "BPE":
        kept |= {ids[name] for name in _parts(model, [names[number] for number in kept])}
    return [*sorted(kept), *sorted(added - names.keys())]


def _names(model: Mapping[str, Any]) -> dict[int, str]:
    """Return each piece of a model by its id."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        return {number: name for number, (name, _) in enumerate(vocabulary)}
    return {number: name for name, number in vocabulary.items()}


def _alone(model: Mapping[str, Any], names: Iterable[str]) -> Iterator[str]:
    """Yield each character of the pieces `names` as a piece by itself: at the start, inside and at the end of a word."""
    if model["type"] == "WordLevel":
        return
    inside, end = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    characters = {each for name in names for each in name.removeprefix(inside).removesuffix(end)}
    for each in characters:
        yield from (each, inside + each, each + end, inside + each + end)


def _bytes(whole: Mapping[str, Any]) -> Iterator[str]:
    """Yield the pieces for single bytes, of a tokenizer that has such."""
    steps = [whole.get("pre_tokenizer") or {}, whole.get("normalizer") or {}]
    steps += [inner for step in steps for name in ("pretokenizers", "normalizers") for inner in step.get(name, ())]
    if any(step.get("type") == "ByteLevel" for step in steps):
        yield from bytes_to_unicode().values()
    if whole["model"].get("byte_fallback"):
        yield from (f"<0x{byte:02X}>" for byte in range(256))


def _unknown(model: Mapping[str, Any]) -> Iterator[str]:
    """Yield the unknown piece, and for Unigram the one with the lowest score: an unknown character costs that and ten more."""
    if model["type"] != "Unigram":
        yield from [model["unk_token"]] if model.get("unk_token") else []
        return
    if model["unk_id"] is not None:
        yield model["vocab"][model["unk_id"]][0]
    yield min(model["vocab"], key=lambda entry: float(entry[1]))[0]


def _parts(model: Mapping[str, Any], names: Iterable[str]) -> set[str]:
    """Return the pieces that all merges on the way to the pieces `names` of a BPE are made of."""
    made_of: dict[str, list[tuple[str, str]]] = {}
    for left, right, merged in _merges(model):
        made_of.setdefault(merged, []).append((left, right))
    found, left_to_do = set[str](), list(names)
    while left_to_do:
        for part in (part for pair in made_of.get(left_to_do.pop(), ()) for part in pair):
            if part not in found:
                found.add(part)
                left_to_do.append(part)
    return found


def _merges(model: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield each merge of a BPE in order: left part, right part, what it makes."""
    inside = model.get("continuing_subword_prefix") or ""
    for merge in model["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        yield left, right, left + right.removeprefix(inside)


def renumbered(whole: Mapping[str, Any], pieces: Sequence[int]) -> dict[str, Any]:
    """Return a tokenizer's JSON with `pieces` alone, numbered in that order."""
    numbers = {old: new for new, old in enumerate(pieces)}
    model, names = whole["model"], _names(whole["model"])
    kept = {names[old]: numbers[old] for old in pieces if old in names}
    cut: dict[str, Any] = {"vocab": kept}
    if model["type"] == "Unigram":
        cut = {"vocab": [model["vocab"][old] for old in pieces if old in names]}
        cut["unk_id"] = None if model["unk_id"] is None else numbers[model["unk_id"]]
    if model["type"] == "BPE":
        cut["merges"] = [
            merge for merge, (_, _, merged) in zip(model["merges"], _merges(model), strict=True) if merged in kept
        ]
    padding = whole.get("padding")
    return {
        **whole,
        "model": {**model, **cut},
        "added_tokens": [{**token, "id": numbers[token["id"]]} for token in whole["added_tokens"]],
        "post_processor": _processor(whole.get("post_processor"), numbers),
        "padding": {**padding, "pad_id": numbers.get(padding["pad_id"], 0)} if padding else padding,
    }


def _processor(step: Any, numbers: Mapping[int, int]) -> Any:
    """Return a post-processor, which holds ids of special tokens, with the new ones."""
    if step is None:
        return None
    changed = dict(step)
    for name in ("sep", "cls"):
        if name in step:
            changed[name] = [step[name][0], numbers[step[name][1]]]
    if "processors" in step:
        changed["processors"] = [_processor(inner, numbers) for inner in step["processors"]]
    if step["type"] == "TemplateProcessing":
        changed["special_tokens"] = {
            name: {**token, "ids": [numbers[old] for old in token["ids"]]}
            for name, token in step["special_tokens"].items()
        }
    return changed
