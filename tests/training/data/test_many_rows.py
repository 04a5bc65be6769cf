"""Many rows: held in few bytes, made a part at a time, kept for the next process; hashes, cuts and keys are those of few rows, and of before."""

import gc
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerBase

from kdsweep.config.trial import TrialConfig
from kdsweep.training.data import splits
from kdsweep.training.data.progress import told
from kdsweep.training.data.splits import load_data, stratified_order
from kdsweep.training.data.tokenizing import tokenize
from kdsweep.training.data.tokens import Tokens, load_tokenizer
from kdsweep.training.reader import reader
from kdsweep.training.shared import Materials

Config = Callable[..., TrialConfig]


def test_rows_are_cut_as_they_always_were() -> None:
    order = stratified_order(np.arange(1000) * 7 % 10 // 4, 3)
    assert hashlib.sha256(order.tobytes()).hexdigest().startswith("3e86379ee3e8099d129b1932793")


@pytest.mark.parametrize(
    ("pair", "sha256"), [(None, "bb8e493ef1e3084e57ad593c"), ("other", "fa989125318e92fa91af6f40")]
)
def test_rows_have_the_hash_that_they_always_had(
    pair: str | None, sha256: str, write_rows: Callable[..., Path], tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splits, "ROWS_AT_ONCE", 7)
    rows = [{"text": f"téxt {n % 270}", "other": f"other {n % 3}"} for n in range(300)]
    labelled = [{**row, "label": "common" if n % 9 else "rare"} for n, row in enumerate(rows)]
    cut: dict[str, Any] = {"validation_fraction": 0.2, "test_fraction": 0.2, "train_limit": 100}
    data = load_data(tiny_config(train_file=str(write_rows("rows.csv", labelled)), text_pair_column=pair, **cut))
    assert data.sha256().startswith(sha256)


@pytest.mark.parametrize(("ids", "segments"), [(torch.int32, torch.int8), (torch.int64, torch.int64)])
def test_tokens_have_the_hash_that_they_always_had_however_many_bytes_they_take(
    ids: torch.dtype, segments: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdsweep.training.data.tokens.IDS_AT_ONCE", 999)
    all_, starts = torch.arange(5000) % 300, torch.arange(0, 5000, 10)
    tokens = Tokens(ids=all_, segments=all_ % 2, starts=starts, lengths=np.full(500, 10), pad_id=0)
    small = replace(tokens, ids=all_.to(ids), segments=(all_ % 2).to(segments))
    assert small.sha256().startswith("9f8ee934a158d2a09815690ec0c93521")


def test_a_tokenizer_gets_some_rows_at_a_time_and_no_object_stays_for_any(
    tiny_body: Path, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, tokenizer = load_data(tiny_config()).train, load_tokenizer(str(tiny_body), None)
    pair = replace(split, pairs=split.texts[::-1])
    at_once, done = [], list[int]()

    def counting(texts: list[str], pairs: list[str], **settings: Any) -> Any:
        at_once.append(len(texts))
        assert not gc.isenabled(), "it would take a third of the time"
        return PreTrainedTokenizerBase.__call__(tokenizer, texts, pairs, **settings)

    whole = tokenize(pair, tokenizer, max_length=9, segments=True)
    monkeypatch.setattr(splits, "ROWS_AT_ONCE", 10)
    monkeypatch.setattr(type(tokenizer), "__call__", lambda _, *texts, **settings: counting(*texts, **settings))
    parts = tokenize(pair, tokenizer, max_length=9, segments=True, on_rows=done.append)
    assert gc.isenabled()
    assert at_once == [10] * 7 + [2] and done == [10, 20, 30, 40, 50, 60, 70, 72]
    assert parts.segments is not None and (parts.ids.dtype, parts.segments.dtype) == (torch.int32, torch.int8)
    assert parts.sha256() == whole.sha256() and parts.truncated_rows == whole.truncated_rows > 0
    assert parts.unknown_share == whole.unknown_share


def is_mapped(tensor: torch.Tensor) -> bool:
    """Whether a tensor's numbers lie in a file of the cache."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    ends = [tuple(int(end, 16) for end in line.split()[0].split("-")) for line in maps if "/arrays/" in line]
    return any(first <= tensor.data_ptr() < last for first, last in ends)


def test_tokens_of_many_rows_are_kept_and_those_of_few_are_not(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, done = tiny_config(), list[int]()
    assert config.teacher is not None
    split, found = load_data(config).train, reader(config.teacher, None)
    few = found.tokens(split, max_length=16)
    monkeypatch.setattr("kdsweep.training.reader.KEPT_ROWS", len(split))
    first, second = (found.tokens(split, max_length=16, on_rows=done.append) for _ in range(2))
    assert done == [72], "the second process finds them"
    assert first.sha256() == second.sha256() == few.sha256()
    assert [is_mapped(each.ids) for each in (few, first, second)] == [False, True, True]


def test_progress_is_told_at_most_every_second_and_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    said, clock = list[tuple[str, int, int | None, str]](), iter([0.0, 0.5, 1.5, 1.6, 2.6, 2.7, 10.0, 10.1])
    monkeypatch.setattr("kdsweep.training.data.progress.time.monotonic", lambda: next(clock))
    on_rows = told(lambda *each: said.append(each), "tokens", 50)
    for done in (10, 20, 30, 40, 50):
        on_rows(done)
    assert said == [("tokens", 20, 50, "rows"), ("tokens", 40, 50, "rows"), ("tokens", 50, 50, "rows")]
    told(lambda *each: said.append(each), "tokens", 50)(50)
    assert len(said) == 3, "what is over sooner is not told"


def test_rows_say_how_far_they_are_read_tokenised_and_taught(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdsweep.training.data.progress.TOLD_SECONDS", 0.0)
    monkeypatch.setattr("kdsweep.training.data.tables.ROWS_TOLD", 48)
    said = list[tuple[str, int, int | None, str]]()
    Materials(lambda *each: said.append(each)).rows(tiny_config())
    assert said[:2] == [("read", 48, None, "rows"), ("read", 96, None, "rows")]
    assert {(what, rows) for what, done, rows, _ in said if done == rows} == {
        (what, rows) for what in ("tokens", "the teacher's logits") for rows in (24, 72)
    }
