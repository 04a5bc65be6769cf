"""How an exported student is loaded: each snippet of its card runs as it stands, for every task, for texts and for pairs."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from exports import an_export
from onnx_students import PROBLEMS, make_exported

from kdsweep.records.writing import write_export
from kdsweep.shipping.snippets import loading


def test_without_an_onnx_form_it_loads_by_transformers_alone() -> None:
    export = an_export()
    assert len([part for part in loading(export) if part.startswith("```")]) == 3
    alone = loading(replace(export, forms=export.forms[:1]))
    assert [part for part in alone if "onnx" in part.lower()] == [] and "pipeline(" in alone[-1]


@pytest.mark.parametrize("task", ["single_label", "multi_label", "regression"])
@pytest.mark.parametrize("pair", [None, "other"])
def test_the_snippet_without_torch_runs_for_every_task(
    task: Any, pair: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    export = make_exported(tmp_path / "student", task=task, text_pair_column=pair)
    code = next(part for part in loading(export) if "import onnxruntime" in part)
    monkeypatch.chdir(tmp_path / "student")
    texts = '"fine", "fine bad"' if pair else '"fine fine bad"'
    asked = re.sub(r"encode\(.*\)", f"encode({texts})", code.removeprefix("```python\n").removesuffix("```"))
    exec(compile(asked, "snippet", "exec"), {})  # noqa: S102
    said = capsys.readouterr().out
    number = {"single_label": "positive 0.88", "multi_label": "[('positive', ", "regression": "liking 4.0"}[task]
    assert said.startswith(number), said
    assert ("('negative', " in said) is (task == "multi_label")


# The snippets, each in a process of its own --------------------------------------------------------------------------


def write_student(folder: Path, classifier: Path, task: str) -> None:
    """A real export of a tiny student of a task."""
    from transformers import BertForSequenceClassification

    from kdsweep.shipping.exporter import export_onnx, quantize

    shutil.copytree(classifier, folder)
    if task != "single_label":
        model = BertForSequenceClassification.from_pretrained(folder)
        model.config.problem_type = PROBLEMS[task]
        if task == "regression":
            model.config.id2label, model.config.label2id = {0: "liking"}, {"liking": 0}
            model.classifier = torch.nn.Linear(model.classifier.in_features, 1)
        model.save_pretrained(folder)
    (folder / "onnx").mkdir()
    export_onnx(folder, folder / "onnx/model.onnx")
    quantize(folder / "onnx/model.onnx", folder / "onnx/model_int8.onnx", "dynamic", [])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "pair"),
    [("single_label", None), ("single_label", "other"), ("multi_label", "other"), ("regression", None)],
)
def test_each_snippet_runs_as_it_stands_and_says_the_same(
    task: Any, pair: str | None, tmp_path: Path, tiny_classifier: Path
) -> None:
    folder = tmp_path / "student"
    write_student(folder, tiny_classifier, task)
    export = an_export(max_length=16, text_pair_column=pair, task=task)
    write_export(folder, export)
    codes = re.findall(r"```(python|bash)\n(.*?)```", "\n\n".join(loading(export)), re.S)
    assert [language for language, _ in codes] == ["python", "python", "bash"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(Path(__file__).parents[2])}
    said = []
    for language, code in codes:
        line = [sys.executable, "-c", code] if language == "python" else ["bash", "-c", code]
        done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    if task == "regression":
        numbers = [float(re.findall(r"-?\d+\.\d+", each)[0]) for each in said]
        assert max(numbers) - min(numbers) < 0.1, said
    else:
        labels = [re.findall(r"\b(?:negative|positive)\b", each) for each in said]
        assert labels[0] == labels[1] == labels[2] and len(labels[0]) == 1, said
