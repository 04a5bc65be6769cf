"""A trial run again: what is compared with its record, and what is said of one that was edited, torn or brought from elsewhere."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from samples import result_of
from tiny_fields import MACHINE, tiny_fields
from transformers import AutoModelForSequenceClassification

from kdsweep.analysis.receipt import Receipt, receipt
from kdsweep.config.trial import TrialConfig
from kdsweep.config.yaml import plain_values
from kdsweep.errors import ConfigError, ResultsError
from kdsweep.records.layout import TrialId
from kdsweep.records.reading import TrialRow, read_trial
from kdsweep.records.schema import Finalist
from kdsweep.records.writing import TrialFolder
from kdsweep.reproduce import _check_content, find_trial, main, moved, rerun
from kdsweep.tracking.tracker import NullRun
from kdsweep.training.models import weights_sha256
from kdsweep.training.shared import Materials
from kdsweep.training.trial import Slot, Watch, run_trial

Config = Callable[..., TrialConfig]


def train(config: TrialConfig, folder: Path, finalist: Finalist | None = None, stop_after: int | None = None) -> Path:
    watch = Watch(on_steps=lambda _: None, on_epoch=lambda epoch: epoch.epoch == stop_after)
    trial = TrialId("distilled", 7, finalist.seed if finalist else None)
    slot = Slot(id=trial, round=finalist.round if finalist else 0)
    run_trial(config, slot, TrialFolder(folder), Materials(), NullRun(), watch)
    return folder


@pytest.fixture(scope="module")
def finalist(tmp_path_factory: pytest.TempPathFactory, tiny_classifier: Path, tiny_csv: Path) -> tuple[Path, Path]:
    """A finalist that opened the test split, and its re-run."""

    fields = {**tiny_fields(tiny_classifier, tiny_csv), **MACHINE, "test_fraction": 0.2}
    folder = tmp_path_factory.mktemp("run") / "finalists" / "distilled-0007-seed1"
    train(TrialConfig(**fields), folder, Finalist(seed=1, round=1))
    again = TrialFolder(tmp_path_factory.mktemp("again") / "finalists" / "distilled-0007-seed1")
    rerun(find_trial(folder), again, lambda _: None)
    return folder, again.path


@pytest.fixture
def record(finalist: tuple[Path, Path], tmp_path: Path) -> Path:
    """The finalist's record, to be changed."""
    return shutil.copytree(finalist[0], tmp_path / "finalists" / "distilled-0007-seed1")


@pytest.fixture
def compared(finalist: tuple[Path, Path], record: Path) -> Callable[[], Receipt]:
    return lambda: receipt(read_trial(record), read_trial(finalist[1]))


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def signs(found: Receipt) -> dict[str, bool | None]:
    """Of the result and the test, one metric stands for all: the first that differs, or the first of all."""
    whole = {"val_accuracy": "", "accuracy": "", "loss": ""}
    return {f"{each.of} {whole.get(each.what, each.what)}".strip(): each.same for each in found.compared}


def test_the_recorded_weights_are_those_of_the_whole_saved_student(finalist: tuple[Path, Path]) -> None:
    """Also of the word pieces that no row has: training set them aside."""
    row = read_trial(finalist[0])
    student = AutoModelForSequenceClassification.from_pretrained(row.folder / "student")
    assert row.result is not None and row.result.weights_sha256 == weights_sha256(student)
    assert student.config.vocab_size == student.get_input_embeddings().weight.shape[0]


def test_a_receipt_has_weights_predictions_result_and_a_finalists_test_result(compared: Callable[[], Receipt]) -> None:
    found = compared()
    same = dict.fromkeys(("result", "student weights", "validation predictions", "test predictions", "test"), True)
    assert (found.verdict, found.first_difference, found.facts) == ("identical", None, ())
    assert signs(found) == same and found.trial == "distilled 7, seed 1"


@pytest.mark.parametrize(
    ("what", "damage"),
    [
        ("student weights", lambda at: change(at / "result.json", weights_sha256="0" * 64)),
        ("result", lambda at: change(at / "result.json", val_accuracy=0.9871)),
        ("validation predictions", lambda at: flip(at / "predictions.npy")),
        ("test predictions", lambda at: flip(at / "test_predictions.npy")),
        ("test", lambda at: change(at / "test.json", loss=0.1234)),
        ("test", lambda at: change(at / "test.json", loss=float("nan"))),
    ],
)
def test_each_of_them_alone_makes_it_different(
    what: str, damage: Callable[[Path], None], record: Path, compared: Callable[[], Receipt]
) -> None:
    damage(record)
    found = compared()
    assert found.verdict == "different"
    assert [name for name, same in signs(found).items() if not same] == [what]
    assert found.first_difference is not None and found.first_difference.startswith(what.replace(" ", ", "))


def flip(path: Path) -> None:
    classes = np.load(path)
    classes[3] = 1 - classes[3]
    np.save(path, classes)


def test_on_a_gpu_weights_are_free_and_classes_may_differ_on_one_row_in_a_hundred(
    record: Path, finalist: tuple[Path, Path]
) -> None:
    change(record / "result.json", weights_sha256="0" * 64)
    config = json.loads((record / "result.json").read_text())["config"]
    change(record / "result.json", config={**config, "device": "cuda"})
    again = read_trial(finalist[1])
    assert receipt(read_trial(record), again).verdict == "within tolerance"
    flip(record / "predictions.npy")  # one row of nineteen
    found = receipt(read_trial(record), again)
    assert found.verdict == "different" and "1% of the predictions" in found.rule


def test_an_older_record_is_compared_in_what_it_has(record: Path, compared: Callable[[], Receipt]) -> None:
    result = json.loads((record / "result.json").read_text())
    del result["weights_sha256"], result["config"]
    (record / "result.json").write_text(json.dumps(result))
    (record / "predictions.npy").unlink()
    found = compared()
    assert found.verdict == "identical"
    unknown = {what for what, same in signs(found).items() if same is None}
    assert unknown == {"result config.yaml", "student weights", "validation predictions"}


def test_a_test_split_that_the_record_never_opened_stays_closed(record: Path, tmp_path: Path) -> None:
    (record / "test.json").unlink()
    again = rerun(find_trial(record), TrialFolder(tmp_path / "x" / "finalists" / record.name), lambda _: None)
    assert not (again.folder / "test.json").exists()
    assert "test" not in signs(receipt(read_trial(record), again))


def test_a_pruned_trial_is_compared_whole(tiny_config: Config, tmp_path: Path) -> None:
    folder = train(tiny_config(epochs=4), tmp_path / "trials" / "0007", stop_after=1)
    trial = find_trial(folder)
    assert trial.result is not None and trial.result.status == "pruned" and trial.result.weights_sha256
    found = receipt(trial, rerun(trial, TrialFolder(tmp_path / "again" / "trials" / "0007"), lambda _: None))
    assert found.verdict == "identical" and set(signs(found).values()) == {True}


def test_torn_lines_of_the_record_are_said_and_the_other_epochs_compared(
    record: Path, compared: Callable[[], Receipt]
) -> None:
    epochs = (record / "epochs.jsonl").read_bytes().splitlines(keepends=True)
    (record / "epochs.jsonl").write_bytes(epochs[0][:30] + b"\n" + epochs[1])
    found = compared()
    assert found.verdict == "identical" and [epoch.epoch for epoch in found.recorded] == [2]
    assert found.facts == ("epochs.jsonl, line 1 of the record is torn, what it held is not compared",)


# An edited config.yaml, and other places -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_classifier: Path, tiny_csv: Path) -> Path:
    """A folder with a teacher, rows and a trial of them."""

    there = tmp_path_factory.mktemp("there")
    shutil.copytree(tiny_classifier, there / "bert")
    shutil.copy(tiny_csv, there / "rows.csv")
    fields = {**tiny_fields(there / "bert", there / "rows.csv"), **MACHINE, "teacher": str(there / "bert")}
    train(TrialConfig(**fields), there / "trials" / "0007")
    return there


@pytest.fixture
def brought(trained: Path, tmp_path: Path) -> Path:
    """The trial alone, on a machine where its rows and teacher lie elsewhere."""
    folder = shutil.copytree(trained / "trials" / "0007", tmp_path / "trials" / "0007")
    for file in (folder / "config.yaml", folder / "result.json"):
        file.write_text(file.read_text().replace(str(trained), "/nowhere"))
    return folder


@pytest.mark.slow
def test_an_edited_config_is_said_before_it_runs_and_in_the_receipt(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(trained / "trials" / "0007", tmp_path / "trials" / "0007")
    config = folder / "config.yaml"
    config.write_text("# my words\n" + config.read_text())
    assert read_trial(folder).edits() == []
    config.write_text(config.read_text().replace("alpha: 0.5", "alpha: 0.75"))
    kept = (folder / "student" / "model.safetensors").read_bytes()
    assert main([str(folder), "--keep-student"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == f"The student of {folder} was not kept: it is not the one that the record is of"
    assert (folder / "student" / "model.safetensors").read_bytes() == kept
    assert said[1] == "config.yaml is not what ran, alpha: 0.5, now 0.75"
    assert "differs: config.yaml was edited after the run, alpha: 0.5, now 0.75" in said
    assert any(line.startswith("first difference: epoch 1: ") for line in said)
    kept = json.loads((folder / "receipt.json").read_text())
    assert kept["verdict"] == "different" and kept["facts"] == [
        "config.yaml was edited after the run, alpha: 0.5, now 0.75"
    ]
    assert {each["what"] for each in kept["compared"] if not each["same"]} >= {"val_loss", "weights"}


def test_a_field_that_came_later_is_no_edit(tiny_config: Config) -> None:
    config = tiny_config()
    ran = plain_values(dataclasses.asdict(config))
    del ran["warmup_ratio"]
    row = TrialRow(id=TrialId("distilled", 0), folder=Path("x"), config=config, result=None, epochs=())
    assert row.edits() == []

    assert replace(row, result=result_of("distilled", 0, config=ran)).edits() == []
    ran["student_layers"] = [0, 2]
    assert replace(row, result=result_of("distilled", 0, config=ran)).edits() == ["student_layers: [0, 2], now 2"]


@pytest.mark.slow
def test_a_trial_from_another_machine_runs_with_its_rows_and_teacher_elsewhere(
    brought: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(brought / "student")
    assert main([str(brought)]) == 2
    assert "a data file must exist, but '/nowhere/rows.csv' does not" in capsys.readouterr().err
    assert main([str(brought), "--set", f"train_file={trained / 'rows.csv'}"]) == 2
    assert "'/nowhere/bert' must be" in capsys.readouterr().err
    monkeypatch.chdir(trained)
    places = ["--set", "train_file=rows.csv", f"teacher={trained / 'bert'}"]
    assert main([str(brought), *places]) == 0 and not read_trial(brought).has_student()
    assert main([str(brought), *places, "--keep-student"]) == 0
    said = capsys.readouterr().out
    assert f"The student of {brought} is on disk again" in said
    weights = [(folder / "student" / "model.safetensors").read_bytes() for folder in (brought, trained / "trials/0007")]
    assert weights[0] == weights[1]
    assert "identical (the rule: equal to the last bit)" in said and "not what ran" not in said
    assert f"differs: --set train_file: /nowhere/rows.csv, now {trained / 'rows.csv'}" in said
    assert "/nowhere" in (brought / "config.yaml").read_text()


def test_other_rows_or_another_teacher_there_are_refused_before_anything_is_trained(
    brought: Path, trained: Path, tiny_body: Path, write_rows: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_rows("other.csv", [(f"a {word} film", word) for word in ("positive", "negative")] * 2)
    lines = (trained / "rows.csv").read_text().splitlines(keepends=True)
    other.write_text("".join([*lines[:-1], lines[-1].replace("the", "a")]))
    teacher = f"teacher={trained / 'bert'}"
    assert main([str(brought), "--set", f"train_file={other}", teacher]) == 2
    said = capsys.readouterr()
    assert "the rows must be what the trial met, data_sha256" in said.err and "epoch 1" not in said.out
    assert main([str(brought), "--set", f"train_file={trained / 'rows.csv'}", f"teacher={tiny_body}"]) == 2
    said = capsys.readouterr()
    assert "the teacher must be what the trial met, teacher_weights_sha256" in said.err and "epoch 1" not in said.out


def test_the_numbers_of_a_teacher_file_are_checked_on_a_gpu_too() -> None:
    config = TrialConfig(train_file="x.csv", teacher=None, teacher_file="n.csv", student="bert", device="cuda")
    recorded = result_of("distilled", 7, data_sha256="rows", teacher_weights_sha256="before")
    here: Any = SimpleNamespace(data=lambda _: SimpleNamespace(sha256=lambda: "rows"), teacher_sha256=lambda _: "other")
    with pytest.raises(ResultsError, match="teacher_weights_sha256 before, but got other: name the same content"):
        _check_content(config, recorded, here)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("alpha=0.5", "--set moves data and models, such as train_file=/data/train.csv, but got 'alpha=0.5'"),
        ("train_fil=x.csv", "did you mean 'train_file'"),
        ("teacher", "but got 'teacher'"),
        ("test_file=x.csv", "its test_file is None"),
        ("student=bert", "its student is from_teacher"),
    ],
)
def test_places_alone_can_be_set_and_only_of_what_the_trial_read(place: str, words: str, tiny_config: Config) -> None:
    with pytest.raises(ConfigError) as caught:
        moved(tiny_config(), [place])
    assert words in str(caught.value)


def test_weights_on_disk_have_no_revision(tiny_config: Config, tiny_body: Path) -> None:
    config = tiny_config(teacher="someone/bert", teacher_revision="abc")
    assert moved(config, ["teacher=other/bert"]).teacher_revision == "abc"
    there = moved(config, [f"teacher={tiny_body}"])
    assert (there.teacher, there.teacher_revision) == (str(tiny_body), None)
