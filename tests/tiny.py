"""A tiny but real BERT that learns tiny but real rows in a second: for unit tests and for the kill storm."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizer

NOUNS = ("film", "story", "actor", "song", "scene", "ending", "music", "script")
GOOD = ("great", "lovely", "funny", "brilliant", "warm", "clever")
BAD = ("dull", "awful", "boring", "weak", "stupid", "empty")
FILLERS = ("", "really", "so very", "quite", "in the end it seems that", "i think", "maybe", "and yet")
PIECES = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] the a was is it i in and of so very really quite end seems that think maybe yet"
)
PIECES += " not . , ? ##ly ##s movie plot"


def write_tokenizer(folder: Path, pieces: Iterable[str]) -> None:
    """A real WordPiece tokenizer of these pieces, saved in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(pieces) + "\n", encoding="utf-8")
    BertTokenizer(vocab=str(vocabulary)).save_pretrained(folder)


def sentences() -> list[tuple[str, str]]:
    """96 distinct sentences of 4 to 10 words, 48 of each class."""
    words = [(word, "positive") for word in GOOD] + [(word, "negative") for word in BAD]
    rows = []
    for place, noun in enumerate(NOUNS):
        for turn, (word, label) in enumerate(words):
            filler = FILLERS[(place + turn) % len(FILLERS)]
            rows.append((" ".join(f"{filler} the {noun} was {word}".split()), label))
    return rows


def tiny_bert_config(vocab_size: int, **changes: Any) -> BertConfig:
    """3 layers, width 32, 4 heads, 64 positions; weights wider than BERT's, so that a few steps teach it."""
    shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
    facts = {"vocab_size": vocab_size, "max_position_embeddings": 64, "initializer_range": 0.1}
    return BertConfig(**{**shape, **facts, **changes})


def write_body(folder: Path) -> None:
    """A BERT of 3 layers, width 32, without head, and its tokenizer."""
    pieces = [*PIECES.split(), *NOUNS, *GOOD, *BAD]
    write_tokenizer(folder, pieces)
    torch.manual_seed(0)
    BertModel(tiny_bert_config(len(pieces))).save_pretrained(folder)


def write_classifier(body: Path, folder: Path, rows: list[tuple[str, str]]) -> None:
    """`body` fine-tuned on `rows` by a loop of its own: negative is column 0, positive column 1."""
    tokenizer = BertTokenizer.from_pretrained(body)
    names = {0: "negative", 1: "positive"}
    torch.manual_seed(0)
    model = BertForSequenceClassification.from_pretrained(
        body, id2label=names, label2id={name: index for index, name in names.items()}
    )
    encoded = tokenizer([text for text, _ in rows], padding=True, return_tensors="pt")
    labels = torch.tensor([model.config.label2id[label] for _, label in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        nn.functional.cross_entropy(model(**encoded).logits, labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)


def write_tiny_teacher(folder: Path) -> tuple[Path, Path]:
    """A fine-tuned teacher and the csv file of its rows, in `folder`."""
    write_body(folder / "body")
    write_classifier(folder / "body", folder / "teacher", sentences())
    rows = [{"text": text, "label": label} for text, label in sentences()]
    write_table(folder / "rows.csv", rows)
    return folder / "teacher", folder / "rows.csv"
