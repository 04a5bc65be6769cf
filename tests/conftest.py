"""What every test shares: its own results and cache folders, no network, one thread, and a tiny but real BERT on disk.

    tiny_body          folder of a pretrained-like BERT (3 layers of width 32, no head) with its tokenizer        [session]
    tiny_classifier    the same, fine-tuned on `tiny_rows` with id2label {0: negative, 1: positive}               [session]
    tiny_rows          96 distinct English sentences as (text, "positive" | "negative"), learnable by one word    [session]
    tiny_csv           a csv of them: columns text, label                                                         [session]
    write_rows         writes (text, label) or {column: value} rows to a .csv, .tsv or .jsonl in this test's folder
    tiny_config        builds a resolved `TrialConfig` on them (CPU, float32, 1 thread); keywords change any field
    tiny_sweep_file    writes a sweep file of 2 distilled trials and 1 control on them, tracking off; keywords change a section

Real servers and devices for the slow tests (PostgreSQL, W&B, a small disk) are in servers.py.
Folders of the session are read-only by agreement: copy one before you change it.
"""

import csv
import json
import os
import socket
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

_HF_HOME = tempfile.TemporaryDirectory(prefix="kdsweep-tests-", ignore_cleanup_errors=True)
os.environ.update(HF_HUB_OFFLINE="1", HF_HOME=_HF_HOME.name)  # read when the Hugging Face libraries are imported

import pytest  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from torch import nn  # noqa: E402
from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizer  # noqa: E402

from kdsweep.config import TrialConfig  # noqa: E402

pytest_plugins = ["servers"]  # fixtures of real servers and devices, for the slow tests

torch.set_num_threads(1)  # before the session's fixtures: two threads wait for each other on a busy machine

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
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(pieces) + "\n", encoding="utf-8")
    BertTokenizer(vocab=str(vocabulary)).save_pretrained(folder)


@pytest.fixture(autouse=True)
def own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results, caches and W&B files of a test lie in its own folder; nothing leaves this machine; one thread."""
    for name in ("RESULTS", "CACHE"):
        monkeypatch.setenv(f"KDSWEEP_{name}", str(tmp_path / name.lower()))
    for name in ("MODE", "API_KEY", "BASE_URL", "ENTITY", "PROJECT", "RUN_ID", "SILENT"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    for name in ("DIR", "CACHE_DIR", "CONFIG_DIR", "DATA_DIR", "ARTIFACT_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "wandb_home"))
    (tmp_path / "wandb_home").mkdir()
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"tests stay offline, but something connected to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_rows() -> list[tuple[str, str]]:
    """96 distinct sentences of 4 to 10 words, 48 of each class."""
    words = [(word, "positive") for word in GOOD] + [(word, "negative") for word in BAD]
    rows = []
    for place, noun in enumerate(NOUNS):
        for turn, (word, label) in enumerate(words):
            filler = FILLERS[(place + turn) % len(FILLERS)]
            rows.append((" ".join(f"{filler} the {noun} was {word}".split()), label))
    return rows


@pytest.fixture(scope="session")
def tiny_body(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 3 layers, width 32, without head; its tokenizer knows every word of `tiny_rows`."""
    folder = tmp_path_factory.mktemp("tiny_body")
    pieces = [*PIECES.split(), *NOUNS, *GOOD, *BAD]
    write_tokenizer(folder, pieces)
    torch.manual_seed(0)
    BertModel(tiny_bert_config(len(pieces))).save_pretrained(folder)
    return folder


def tiny_bert_config(vocab_size: int, **changes: Any) -> BertConfig:
    """3 layers, width 32, 4 heads, 64 positions; weights wider than BERT's, so that a few steps teach it."""
    shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
    facts = {"vocab_size": vocab_size, "max_position_embeddings": 64, "initializer_range": 0.1}
    return BertConfig(**{**shape, **facts, **changes})


@pytest.fixture(scope="session")
def tiny_classifier(
    tiny_body: Path, tiny_rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """`tiny_body` fine-tuned on `tiny_rows` by a loop of its own: negative is column 0, positive column 1."""
    folder = tmp_path_factory.mktemp("tiny_classifier")
    tokenizer = BertTokenizer.from_pretrained(tiny_body)
    names = {0: "negative", 1: "positive"}
    torch.manual_seed(0)
    model = BertForSequenceClassification.from_pretrained(
        tiny_body, id2label=names, label2id={name: index for index, name in names.items()}
    )
    encoded = tokenizer([text for text, _ in tiny_rows], padding=True, return_tensors="pt")
    labels = torch.tensor([model.config.label2id[label] for _, label in tiny_rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        nn.functional.cross_entropy(model(**encoded).logits, labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_csv(tiny_rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_rows` as a csv file."""
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    _write(path, [{"text": text, "label": label} for text, label in tiny_rows])
    return path


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    """`write_rows("train.csv", rows)`: rows are (text, label) pairs or mappings; the path."""

    def write(name: str, rows: Iterable[Any]) -> Path:
        listed = [row if isinstance(row, Mapping) else {"text": row[0], "label": row[1]} for row in rows]
        _write(tmp_path / name, [dict(row) for row in listed])
        return tmp_path / name

    return write


@pytest.fixture
def tiny_config(tiny_classifier: Path, tiny_csv: Path) -> Callable[..., TrialConfig]:
    """`tiny_config(alpha=1.0)`: a resolved config of 2 epochs on 72 training and 24 validation rows."""

    def make(**changes: Any) -> TrialConfig:
        return TrialConfig(**{**tiny_fields(tiny_classifier, tiny_csv), **MACHINE, **changes})

    return make


MACHINE: dict[str, Any] = {"device": "cpu", "precision": "fp32", "threads": 1}
MACHINE |= {"dataset_revision": None, "teacher_revision": None, "student_revision": None}


def tiny_fields(teacher: Path, rows: Path) -> dict[str, Any]:
    """The fields that the tiny config and the tiny sweep share."""
    return {
        "train_file": str(rows),
        "validation_fraction": 0.25,
        "max_length": 16,
        "teacher": str(teacher),
        "student_layers": 2,
        "student_init": "finetuned",
        "learning_rate": 1e-3,
        "batch_size": 16,
        "epochs": 2,
    }


@pytest.fixture
def tiny_sweep_file(tmp_path: Path, tiny_classifier: Path, tiny_csv: Path) -> Callable[..., Path]:
    """`tiny_sweep_file(fixed={"epochs": 1}, study={"trials": 4})`: sections are merged, None removes a key, a `name` renames."""

    def write(name: str = "tiny", **sections: Any) -> Path:
        fields = tiny_fields(tiny_classifier, tiny_csv)
        del fields["learning_rate"]
        content: dict[str, Any] = {
            "name": name,
            "study": {"trials": 2, "controls": 1, "sampler": "tpe", "pruner": "none", "startup_trials": 2},
            "fixed": {**fields, "device": "cpu", "precision": "fp32", "threads": 1},
            "search": {
                "temperature": {"low": 1.0, "high": 8.0, "log": True},
                "alpha": {"low": 0.0, "high": 1.0},
                "learning_rate": {"low": 5e-4, "high": 2e-3, "log": True},
            },
            "tracking": {"mode": "off"},
        }
        for section, changes in sections.items():
            if isinstance(changes, dict) and isinstance(content.get(section), dict):
                merged = {**content[section], **changes}
                content[section] = {key: value for key, value in merged.items() if value is not None}
            else:
                content[section] = changes
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return path

    return write
