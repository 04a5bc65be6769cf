"""`python -m kdsweep.predict`: an exported student answers texts, by ONNX Runtime alone."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from makers import make_full
from onnx_students import make_exported

from kdsweep.analysis.shipped import shipped
from kdsweep.predict import main
from kdsweep.records.layout import export_folder, run_name
from kdsweep.records.whole_sweep import read_records
from kdsweep.shipping import extra
from kdsweep.system.process import UNREAD

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    make_exported(folder)
    return folder


def typed(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Standard input holds `content`."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))


def test_each_line_is_answered_by_a_line(student: Path, tmp_path: Path, capsys: Captured) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("a fine  film\n\nbad, bad\n", encoding="utf-8")
    assert main([str(student), str(texts)]) == 0
    share = 1 / (1 + 2.718281828459045**-2)
    assert capsys.readouterr().out.splitlines() == [
        f"positive\t{share:.4f}\ta fine film",
        "",
        "negative\t0.9820\tbad, bad",
    ]


def test_json_has_every_class_and_standard_input_is_read(
    student: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, "fine café\n\n".encode())
    assert main([str(student), "--json", "--form", "fp32", "--threads", "2"]) == 0
    first, empty = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {
        "text": "fine café",
        "label": "positive",
        "probabilities": {"negative": 0.119203, "positive": 0.880797},
    }
    assert empty == {"text": "", "label": None, "probabilities": None}


def test_a_student_of_pairs_reads_two_texts_a_line(tmp_path: Path, capsys: Captured) -> None:
    make_exported(tmp_path / "pairs", text_pair_column="hypothesis")
    texts = tmp_path / "texts.txt"
    texts.write_text("fine\tbad bad\n", encoding="utf-8")
    assert main([str(tmp_path / "pairs"), str(texts)]) == 0
    assert capsys.readouterr().out == "negative\t0.8808\tfine\tbad bad\n"
    texts.write_text("fine\n", encoding="utf-8")
    assert main([str(tmp_path / "pairs"), str(texts)]) == 2
    assert "line 1 has 0" in capsys.readouterr().err


def test_several_labels_are_those_above_even_the_most_probable_first(tmp_path: Path, capsys: Captured) -> None:
    make_exported(tmp_path / "labels", task="multi_label")
    texts = tmp_path / "texts.txt"
    texts.write_text("bad fine fine\nfine\nfair\n\n", encoding="utf-8")
    assert main([str(tmp_path / "labels"), str(texts)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "positive, negative\t0.9820, 0.8808\tbad fine fine",
        "positive\t0.8808\tfine",
        "\t\tfair",
        "",
    ]
    assert main([str(tmp_path / "labels"), str(texts), "--json"]) == 0
    both, _, none, empty = map(json.loads, capsys.readouterr().out.splitlines())
    assert both["labels"] == ["positive", "negative"]
    assert both["probabilities"] == {"negative": 0.880797, "positive": 0.982014}, "every label, not a share of one"
    assert (none["labels"], none["probabilities"]["negative"]) == ([], 0.5)
    assert empty == {"text": "", "labels": None, "probabilities": None}


def test_a_number_is_answered_as_it_is_and_pairs_are_read_in_every_task(tmp_path: Path, capsys: Captured) -> None:
    make_exported(tmp_path / "number", task="regression", text_pair_column="other")
    texts = tmp_path / "texts.csv"
    texts.write_text("id,other,text\n1,fine,fine fine\n2,bad,none\n", encoding="utf-8")
    assert main([str(tmp_path / "number"), str(texts)]) == 0
    assert capsys.readouterr().out.splitlines() == ["6.0000\tfine fine\tfine", "0.0000\tnone\tbad"]
    assert main([str(tmp_path / "number"), str(texts), "--json"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first == {"text": "fine fine", "text_pair": "fine", "prediction": 6.0}
    texts.write_text("text\nfine\n", encoding="utf-8")
    assert main([str(tmp_path / "number"), str(texts)]) == 2
    assert "trained on, text, other, but 'other' is missing: it has text" in capsys.readouterr().err


def test_files_of_two_tasks_in_one_folder_are_refused(tmp_path: Path, capsys: Captured) -> None:
    make_exported(tmp_path / "mixed", task="multi_label")
    plain = json.dumps({"id2label": {"0": "negative", "1": "positive"}})
    (tmp_path / "mixed/config.json").write_text(plain, encoding="utf-8")
    texts = tmp_path / "texts.txt"
    texts.write_text("fine\n", encoding="utf-8")
    assert main([str(tmp_path / "mixed"), str(texts)]) == 2
    assert "the first is for single_label and the second for multi_label; export the" in capsys.readouterr().err


def test_a_sweeps_folder_means_the_run_that_its_report_ships(tmp_path: Path, capsys: Captured) -> None:
    folder, texts = tmp_path / "s", tmp_path / "texts.txt"
    make_full(folder)
    texts.write_text("fine\n", encoding="utf-8")
    assert main([str(folder), str(texts)]) == 2
    assert "has exported [] and the run to ship is distilled-0000; python -m kdsweep.export" in capsys.readouterr().err
    run = shipped(read_records(folder))
    assert run is not None
    place: dict[str, Any] = {"run": run_name(run.id), "trial": run.trial, "seed": None}
    make_exported(export_folder(folder, run.id), **place)
    assert main([str(folder), str(texts)]) == 0
    assert capsys.readouterr().out.startswith("positive\t")


def test_the_form_to_ship_runs_unless_one_is_named(student: Path, tmp_path: Path, capsys: Captured) -> None:
    texts, folder = tmp_path / "texts.txt", tmp_path / "half"
    texts.write_text("fine\n", encoding="utf-8")
    export = make_exported(folder)
    (folder / "onnx/model_int8.onnx").unlink()
    assert main([str(folder), str(texts)]) == 2, "int8 is the one to ship"
    assert f"{folder}/onnx/model_int8.onnx" in capsys.readouterr().err
    assert main([str(folder), str(texts), "--form", "fp32"]) == 0
    make_exported(tmp_path / "fp32", forms=export.forms[:2])
    assert main([str(tmp_path / "fp32"), str(texts), "--form", "int8"]) == 2
    assert "int8, but it has ['fp32']" in capsys.readouterr().err


def test_what_cannot_be_answered_is_one_message(student: Path, tmp_path: Path, capsys: Captured) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_bytes(b"fine\n\xe9\n")

    def said(folder: Path, file: Path = texts) -> str:
        assert main([str(folder), str(file)]) == 2
        err = capsys.readouterr().err
        assert len(err.splitlines()) == 1
        return err

    assert "line 2 holds 0xe9" in said(student)
    assert "must be a readable file" in said(student, tmp_path / "none.txt")
    assert f"{tmp_path} does not" in said(tmp_path) and "is no folder" in said(tmp_path / "none")
    make_exported(tmp_path / "torn")
    (tmp_path / "torn/onnx/model_int8.onnx").write_bytes(b"half a graph")
    assert f"{tmp_path}/torn/onnx/model_int8.onnx must" in said(tmp_path / "torn")
    (tmp_path / "torn/export.json").write_text("{}", encoding="utf-8")
    assert "torn/export.json must be an export" in said(tmp_path / "torn")


def test_without_the_extra_one_line_says_how_to_install_it(
    student: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extra, "find_spec", lambda name: None)
    typed(monkeypatch, b"fine\n")
    assert main([str(student)]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and "pip install 'kdsweep[export]'" in err


WITHOUT_TORCH = """
import sys
from kdsweep.predict import main
code = main(sys.argv[1:])
sys.exit(code or sorted({"torch", "transformers", "huggingface_hub", "scipy", "onnx", "datasets"} & {*sys.modules}) or 0)
"""


def test_a_whole_process_imports_neither_torch_nor_transformers(student: Path) -> None:
    asked = [sys.executable, "-c", WITHOUT_TORCH, str(student)]
    done = subprocess.run(asked, input="fine\n", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("positive\t")


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_it_and_a_pipe_is_answered_while_it_is_open(student: Path) -> None:
    asked = [sys.executable, "-m", "kdsweep.predict", str(student)]
    with subprocess.Popen(asked, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(b"fine\n")
        process.stdin.flush()
        assert process.stdout.readline().startswith(b"positive"), "before standard input ends"
        process.stdout.close()
        process.stdin.write(b"fine\n" * 100)
        process.stdin.flush()
        assert (process.wait(60), process.stderr.read()) == (UNREAD, b"")
