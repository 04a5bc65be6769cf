"""An export judged: from a finalist that ran to the record, with ONNX models written by hand in place of exported ones."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx_models import write_onnx
from tiny_fields import MACHINE, tiny_fields

from kdsweep.analysis.shipped_form import form_score
from kdsweep.config.trial import TrialConfig
from kdsweep.errors import ShippingError
from kdsweep.records.export_schema import Export
from kdsweep.records.layout import TrialId
from kdsweep.records.reading import TrialRow, read_export, read_test, read_trial
from kdsweep.records.writing import TrialFolder, write_export
from kdsweep.shipping import bench, judge
from kdsweep.shipping.session import OnnxClassifier
from kdsweep.tracking.tracker import NullRun
from kdsweep.training.shared import Materials
from kdsweep.training.trial import Slot, Watch, run_trial

Config = Callable[..., TrialConfig]
QUANTIZATIONS = {"dynamic": "dynamic per channel", "static": "static per channel, 4 rows"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_classifier: Path, tiny_csv: Path) -> TrialRow:
    """A finalist of 2 steps, tested."""

    fields = {
        **tiny_fields(tiny_classifier, tiny_csv),
        **MACHINE,
        "test_fraction": 0.4,
        "max_steps": 2,
        "evaluations": 1,
    }
    return run(TrialConfig(**fields), tmp_path_factory.mktemp("s"), seed=1)


def run(config: TrialConfig, sweep: Path, *, seed: int | None) -> TrialRow:
    id_ = TrialId("distilled", 7, seed)
    folder = TrialFolder(sweep / "finalists" / "distilled-0007-seed1" if seed else sweep / "trials" / "0007")
    watch = Watch(on_steps=lambda _: None, on_epoch=lambda _: False)
    run_trial(config, Slot(id=id_, round=1 if seed else 0), folder, Materials(), NullRun(), watch)
    return read_trial(folder.path)


@pytest.fixture(autouse=True)
def few_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speed in one round, on as many threads as tests have; no process of its own."""
    monkeypatch.setattr("kdsweep.shipping.speed.ROUNDS", 1)
    monkeypatch.setattr(bench, "available_cores", lambda: 1)
    monkeypatch.setattr(judge, "available_cores", lambda: 1)
    monkeypatch.setattr(judge, "resident_mb", lambda folder, form, max_length: 80.0 if form == "int8" else None)


def unfinished(run: TrialRow, to: Path, *how: str) -> Path:
    """The export of `run` before it is judged: each model sums a random row a token; the dynamic one depends on the batch."""
    shutil.copytree(run.folder / "student", to)
    pieces = json.loads((to / "config.json").read_text("utf-8"))["vocab_size"]
    table = np.random.default_rng(0).normal(size=(pieces, 2))
    write_onnx(to / "onnx" / "model.onnx", table)
    for name in how:
        write_onnx(to / "onnx" / f"model_int8_{name}.onnx", table, by_batch=name == "dynamic")
    return to


def judged(run: TrialRow, folder: Path, *how: str, **changes: Any) -> Export:
    words = {name: QUANTIZATIONS[name] for name in how}
    facts: dict[str, Any] = {"margin": 0.5, "student_sha256": "ab", "rejected": ("tried",), "tell": lambda line: None}
    return judge.judge(folder, run, Materials(), quantizations=words, **{**facts, **changes})


def test_a_finalists_forms_are_judged_and_the_better_int8_kept(finished: TrialRow, tmp_path: Path) -> None:
    folder, told = unfinished(finished, tmp_path / "draft", "dynamic", "static"), []
    export = judged(finished, folder, "dynamic", "static", tell=told.append)
    write_export(folder, export)
    assert read_export(folder) == export
    assert (export.run, export.arm, export.trial, export.seed) == ("distilled-0007-seed1", "distilled", 7, 1)
    assert (export.max_length, export.text_column, export.margin) == (16, "text", 0.5)
    pytorch, fp32, int8 = export.forms
    test, recorded = pytorch.test, read_test(finished.folder)
    assert test is not None and recorded is not None and export.tested_at is not None
    assert (test.rows, test.accuracy) == (recorded.rows, recorded.accuracy) and export.tested_at >= recorded.opened_at
    assert test.loss == pytest.approx(recorded.loss, abs=1e-6) and test.ece == pytest.approx(recorded.ece, abs=1e-6)
    assert (test.agreement, test.largest_logit_difference, test.batch_dependent, test.word) == (1.0, 0.0, 0, None)
    assert fp32.test is not None and fp32.test.word is not None and fp32.test.largest_logit_difference > 0.1
    assert fp32.test.difference == pytest.approx(fp32.test.accuracy - test.accuracy)
    assert (int8.file, int8.resident_mb, fp32.resident_mb) == ("onnx/model_int8.onnx", 80.0, None)
    assert sorted(path.name for path in (folder / "onnx").iterdir()) == ["model.onnx", "model_int8.onnx"]
    assert int8.quantization in QUANTIZATIONS.values() and pytorch.quantization is None
    assert export.rejected[0] == "tried" and export.rejected[1].startswith("int8, ") and len(export.rejected) == 2
    assert [form.form for form in export.forms] == ["pytorch", "fp32", "int8"]
    assert all(each.threads == 1 for form in export.forms for each in form.speed) and len(export.teacher_speed) == 1
    assert export.teacher_size_mb is not None and export.teacher_size_mb > pytorch.size_mb > 0
    assert int8.size_mb == (folder / int8.file).stat().st_size / 1e6
    assert any("the test split is opened once more" in line for line in told)


def test_a_form_that_depends_on_its_batch_is_told_with_the_cause(finished: TrialRow, tmp_path: Path) -> None:
    export = judged(finished, unfinished(finished, tmp_path / "draft", "dynamic"), "dynamic")
    int8 = export.form("int8")
    assert int8 is not None and int8.validation.batch_dependent > 0
    assert int8.batch_cause is not None and int8.batch_cause.startswith("Dynamic quantisation takes one scale")
    fp32 = export.form("fp32")
    assert fp32 is not None and fp32.validation.batch_dependent == 0 and fp32.batch_cause is None


def test_a_trial_of_the_search_leaves_the_test_split_closed(
    finished: TrialRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    tokens = judge.Student.split
    monkeypatch.setattr(judge.Student, "split", lambda self, name: opened.append(name) or tokens(self, name))
    searched = dataclasses.replace(finished, id=TrialId("distilled", 7), folder=tmp_path / "trials" / "0007")
    shutil.copytree(finished.folder, searched.folder)
    (searched.folder / "test.json").unlink()
    export = judged(searched, unfinished(searched, tmp_path / "draft"))
    assert export.tested_at is None and [form.test for form in export.forms] == [None, None]
    assert export.run == "distilled-0007" and opened == ["validation"]


@pytest.fixture
def copied(finished: TrialRow, tmp_path: Path) -> Iterator[TrialRow]:
    """The finalist's folder, to be changed."""
    folder = tmp_path / "finalists" / "distilled-0007-seed1"
    shutil.copytree(finished.folder, folder)
    yield dataclasses.replace(finished, folder=folder)


def test_a_student_that_answers_otherwise_than_recorded_is_refused(copied: TrialRow, tmp_path: Path) -> None:
    found = json.loads((copied.folder / "test.json").read_text("utf-8"))
    (copied.folder / "test.json").write_text(json.dumps({**found, "loss": found["loss"] + 0.01}), "utf-8")
    with pytest.raises(ShippingError, match=r"answer the test rows as .* its loss is .* recorded was .*reproduce"):
        judged(copied, unfinished(copied, tmp_path / "one"))
    predictions = np.load(copied.folder / "predictions.npy")
    np.save(copied.folder / "predictions.npy", 1 - predictions)
    with pytest.raises(ShippingError, match=f"{len(predictions)} of {len(predictions)} rows have another class"):
        judged(copied, unfinished(copied, tmp_path / "two"))
    np.save(copied.folder / "predictions.npy", predictions[1:])
    with pytest.raises(
        ShippingError, match="the record has 18 rows, and there are 19" if len(predictions) == 19 else "the record has"
    ):
        judged(copied, unfinished(copied, tmp_path / "three"))


def test_other_weights_than_the_trials_are_refused(finished: TrialRow, tmp_path: Path) -> None:
    assert finished.result is not None
    other = dataclasses.replace(finished, result=dataclasses.replace(finished.result, weights_sha256="c0ffee"))
    with pytest.raises(ShippingError, match="must hold the student that .* trained, weights_sha256 c0ffee"):
        judged(other, unfinished(finished, tmp_path / "draft"))


def test_a_tokenizer_that_gives_other_tokens_alone_is_refused(
    finished: TrialRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = OnnxClassifier.encode
    monkeypatch.setattr(
        OnnxClassifier, "encode", lambda self, texts: encode(self, [str(each).upper()[1:] for each in texts])
    )
    with pytest.raises(ShippingError, match=r"tokenizer\.json must give the tokens .* for validation row 0"):
        judged(finished, unfinished(finished, tmp_path / "draft"))


def test_a_teacher_that_is_a_file_has_no_speed(
    finished: TrialRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "teacher_model", lambda student, materials: None)
    export = judged(finished, unfinished(finished, tmp_path / "draft"))
    assert export.teacher_speed == () and export.teacher_size_mb is None


def test_pairs_of_texts_reach_a_model_that_tells_them_apart(tiny_classifier: Path, tmp_path: Path) -> None:
    from tiny import sentences, write_table

    rows = [{"text": text, "second": text[::2], "label": label} for text, label in sentences()]
    write_table(tmp_path / "pairs.csv", rows)
    fields = {**tiny_fields(tiny_classifier, tmp_path / "pairs.csv"), **MACHINE, "student": str(tiny_classifier)}
    config = TrialConfig(**{**fields, "text_pair_column": "second"})
    run = TrialRow(id=TrialId("distilled", 0), folder=tmp_path, config=config, result=None, epochs=())
    folder = tmp_path / "draft"
    shutil.copytree(tiny_classifier, folder)
    pieces = json.loads((folder / "config.json").read_text("utf-8"))["vocab_size"]
    write_onnx(folder / "onnx" / "model.onnx", np.random.default_rng(0).normal(size=(pieces, 2)), segments=True)
    export = judged(run, folder)
    fp32 = export.form("fp32")
    assert fp32 is not None and fp32.validation.rows == 24 and export.text_pair_column == "second"
    assert fp32.validation.largest_logit_difference > 100, "the second texts were marked"


# Other tasks -----------------------------------------------------------------------------------------------------------

LABELS = {"multi_label": ("funny", "sad", "long"), "regression": ("score",)}


def of_task(task: str, body: Path, folder: Path) -> TrialRow:
    """A tested finalist of 2 steps on pairs of texts, whose labels are several or a number."""
    from tiny import sentences, write_table
    from transformers import AutoTokenizer, BertForSequenceClassification

    names = dict(enumerate(LABELS[task]))
    problem = "regression" if task == "regression" else "multi_label_classification"
    torch.manual_seed(0)
    teacher = BertForSequenceClassification.from_pretrained(body, id2label=names, problem_type=problem)
    teacher.save_pretrained(folder / "teacher")
    AutoTokenizer.from_pretrained(body).save_pretrained(folder / "teacher")
    labels: Callable[[int, str], Any] = lambda n, text: [name for bit, name in names.items() if n >> bit & 1]
    if task == "regression":
        labels = lambda n, text: len(text) / 10 + 0.5
    rows = [{"text": text, "other": text[::2], "label": labels(n, text)} for n, (text, _) in enumerate(sentences())]
    write_table(folder / "rows.jsonl", rows)
    fields = {**tiny_fields(folder / "teacher", folder / "rows.jsonl"), **MACHINE, "test_fraction": 0.4, "max_steps": 2}
    return run(TrialConfig(**fields, evaluations=1, text_pair_column="other", task=task), folder, seed=1)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_forms_of_every_task_are_judged_by_its_own_score(
    task: str, tiny_body: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = of_task(task, tiny_body, tmp_path)
    folder = tmp_path / "draft"
    shutil.copytree(finished.folder / "student", folder)
    pieces = json.loads((folder / "config.json").read_text("utf-8"))["vocab_size"]
    table = np.random.default_rng(0).normal(size=(pieces, len(LABELS[task])))
    for name in ("", "_int8_dynamic"):
        write_onnx(folder / "onnx" / f"model{name}.onnx", table)
    export = judged(finished, folder, "dynamic")
    write_export(folder, export)
    assert read_export(folder) == export and (export.task, export.text_pair_column) == (task, "other")
    recorded, pytorch = read_test(finished.folder), export.forms[0].test
    assert recorded is not None and pytorch is not None and pytorch.loss == pytest.approx(recorded.loss, abs=1e-5)
    for name in ("accuracy", "example_f1", "micro_f1", "map", "pearson", "spearman", "rmse"):
        assert getattr(pytorch, name) == pytest.approx(getattr(recorded, name), abs=1e-5), name
    form = export.forms[2].test
    assert form is not None and form.word is not None and form.largest_logit_difference > 0.1
    mine, theirs = (form_score(each, export.task) for each in (form, pytorch))
    assert mine is not None and theirs is not None and form.difference == pytest.approx(mine - theirs)
    assert (form.r2 is None, form.example_f1 is None) == ((task != "regression"), (task == "regression"))
    predictions = np.load(finished.folder / "test_predictions.npy")
    np.save(finished.folder / "test_predictions.npy", 1 - predictions)
    with pytest.raises(
        ShippingError, match=f"{len(predictions)} of {len(predictions)} rows have another (number|set of labels)"
    ):
        judged(finished, folder)
