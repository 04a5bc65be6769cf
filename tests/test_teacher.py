"""The teacher and its cache: once, by content, and never a torn entry."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kdsweep.assets import cache_root
from kdsweep.config import TrialConfig
from kdsweep.errors import DataError, PreflightError
from kdsweep.materials import Materials
from kdsweep.prepare import preflight

Config = Callable[..., TrialConfig]


def cached_logits() -> list[Path]:
    return sorted((cache_root() / "logits").glob("*.safetensors"))


def test_logits_are_found_again_and_torn_entries_are_computed_again(tiny_config: Config) -> None:
    config = tiny_config()
    expected = Materials().rows(config)[0].teacher_logits
    entries = cached_logits()
    assert len(entries) == 2  # train and validation
    whole = {entry: entry.read_bytes() for entry in entries}
    for damage in (lambda b: b[:-7], lambda b: b[:-3] + b"\x01\x02\x03", lambda b: b""):
        for entry, content in whole.items():
            entry.write_bytes(damage(content))
        assert torch.equal(Materials().rows(config)[0].teacher_logits, expected)
        assert {entry: entry.read_bytes() for entry in cached_logits()} == whole


def test_temperature_alpha_and_batch_size_never_touch_the_cache_but_texts_and_lengths_do(tiny_config: Config) -> None:
    Materials().rows(tiny_config())
    Materials().rows(tiny_config(temperature=7.0, alpha=0.1, batch_size=8, seed=5, student_layers=1))
    assert len(cached_logits()) == 2
    Materials().rows(tiny_config(max_length=6))
    assert len(cached_logits()) == 4
    Materials().rows(tiny_config(train_limit=40))
    assert len(cached_logits()) == 5


def test_a_teacher_is_fine_tuned_once_and_a_damaged_one_again(tiny_config: Config, tiny_body: Path) -> None:
    config = tiny_config(teacher=str(tiny_body), teacher_epochs=6, teacher_learning_rate=3e-3, teacher_batch_size=8)
    first = Materials().teacher(config)
    again = Materials().teacher(config)
    assert (first.from_cache, again.from_cache) == (False, True)
    assert (again.weights_sha256, again.epochs) == (first.weights_sha256, first.epochs)
    (folder,) = (cache_root() / "teachers").iterdir()
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    mended = Materials().teacher(config)
    assert (mended.from_cache, mended.weights_sha256) == (False, first.weights_sha256)


def test_the_teachers_columns_are_permuted_to_the_datasets_order(tiny_config: Config) -> None:
    plain = Materials().rows(tiny_config())[1]
    swapped = Materials().rows(tiny_config(label_names=("positive", "negative")))[1]
    assert (plain.teacher_logits.argmax(-1) == plain.labels).double().mean() > 0.9
    assert (swapped.teacher_logits.argmax(-1) == swapped.labels).double().mean() > 0.9


def test_preflight_names_an_unfinetuned_teachers_accuracy_and_the_majoritys(
    tiny_config: Config, tiny_body: Path
) -> None:
    config = tiny_config(teacher=str(tiny_body))
    with pytest.raises(PreflightError, match=r"but has \d+\.\d against 50\.0.*teacher_epochs"):
        preflight(Materials(), config, largest_batch=16)


def test_preflight_refuses_fewer_rows_than_a_batch(tiny_config: Config) -> None:
    with pytest.raises(DataError, match="but got 73 and 72 rows"):
        preflight(Materials(), tiny_config(), largest_batch=73)


def test_the_cache_can_be_thrown_away(tiny_config: Config) -> None:
    expected = Materials().rows(tiny_config())[0].teacher_logits
    shutil.rmtree(cache_root())
    assert torch.equal(Materials().rows(tiny_config())[0].teacher_logits, expected)
