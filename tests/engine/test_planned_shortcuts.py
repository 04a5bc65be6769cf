"""The plan says which shortcuts the models can take, from a config.json alone, and nothing where none is here."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from makers import sweep_of
from rich.console import Console

from kdsweep.engine.plan import print_plan
from kdsweep.engine.planned_shortcuts import planned_shortcuts

FIRST = "the last layer's first token alone, compact vocabulary"


def config(folder: Path, **facts: Any) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(facts))
    return str(folder)


def test_a_bert_becomes_a_distilbert_and_another_keeps_its_class(tmp_path: Path) -> None:
    bert = config(tmp_path / "bert", model_type="bert", layer_norm_eps=1e-12)
    odd = config(tmp_path / "odd", model_type="bert", layer_norm_eps=1e-5)
    modern = config(tmp_path / "modern", model_type="modernbert", classifier_pooling="mean")
    assert planned_shortcuts(sweep_of(teacher=bert)) == f"student (distilbert): {FIRST}; teacher (bert): {FIRST}"
    assert planned_shortcuts(sweep_of(teacher=odd)) == f"student (bert): {FIRST}; teacher (bert): {FIRST}"
    every = "every token of the last layer (its classifier reads every token (classifier_pooling: mean)), compact vocabulary"
    told = planned_shortcuts(sweep_of(teacher=modern, student_body=bert))
    assert told == f"student (distilbert): {FIRST}; teacher (modernbert): {every}"


def test_an_unknown_family_is_named_and_a_missing_or_torn_file_tells_nothing(tmp_path: Path) -> None:
    funnel = config(tmp_path / "funnel", model_type="funnel")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "config.json").write_text("{")
    told = planned_shortcuts(sweep_of(teacher=str(tmp_path / "torn"), student=funnel))
    assert told == "student (funnel): every token of the last layer (kdsweep does not know the layers of funnel)"
    assert planned_shortcuts(sweep_of(teacher="no/such", student="wheel:x==1/y#sha256=" + "0" * 64)) is None


def test_the_hubs_cache_tells_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    model = tmp_path / "models--some--roberta"
    config(model / "snapshots" / "abc", model_type="roberta")
    config(model / "snapshots" / "old", model_type="xlnet")
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("abc")
    told = io.StringIO()
    sweep = sweep_of(teacher="some/roberta", student="some/roberta", student_revision="old")
    print_plan(Console(file=told, width=300), sweep, {})
    assert "shortcuts" in told.getvalue()
    assert "student (xlnet): every token of the last layer (its classifier reads the last token)" in told.getvalue()
    assert f"teacher (roberta): {FIRST}" in told.getvalue()
