"""A teacher that is a file, from the config to a trained student: what it is checked for, and that it teaches as the model behind it does."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdsweep.config.sweep import StudyConfig
from kdsweep.config.trial import TrialConfig
from kdsweep.errors import DataError, PreflightError
from kdsweep.records.schema import StepMetrics
from kdsweep.records.writing import TrialFolder
from kdsweep.tracking.tracker import NullRun
from kdsweep.training.file_preflight import check_join, file_preflight, record_file
from kdsweep.training.input_checks import check_inputs, truncation
from kdsweep.training.loop import distill
from kdsweep.training.shared import Materials
from kdsweep.training.state import Training

Write = Callable[..., Path]
Config = Callable[..., TrialConfig]
STUDY = StudyConfig(trials=1)


@pytest.fixture(scope="session")
def exported(tiny_classifier: Path, tiny_rows: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """What the tiny teacher says of every row, with all digits."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_classifier)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_classifier).eval()
    texts = [text for text, _ in tiny_rows]
    with torch.inference_mode():
        logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    names = [f"prob_{model.config.id2label[index]}" for index in range(2)]
    return [
        {"text": text, **dict(zip(names, row, strict=True))}
        for text, row in zip(texts, logits.double().softmax(dim=-1).tolist(), strict=True)
    ]


@pytest.fixture
def file_config(tiny_config: Config, tiny_body: Path) -> Config:
    """A config of the tiny rows whose teacher is the file that is given."""

    def make(file: Path, **changes: Any) -> TrialConfig:
        facts = {"teacher": None, "teacher_revision": None, "teacher_epochs": 0, "student_init": "pretrained"}
        body = {"student_body": str(tiny_body), "student_body_revision": None}
        return tiny_config(**{**facts, **body, "teacher_file": str(file), **changes})

    return make


def trained(config: TrialConfig) -> tuple[Training, list[StepMetrics]]:
    made, steps = Materials(), list[StepMetrics]()
    rows, student = made.rows(config), made.student(config)
    return distill(student, *rows, config, on_steps=steps.extend, on_epoch=lambda _: False)[0], steps


@pytest.mark.slow
def test_probabilities_with_all_digits_teach_as_the_model_that_gave_them(
    exported: list[dict[str, Any]], file_config: Config, tiny_config: Config, write_rows: Write, tiny_body: Path
) -> None:
    by_model = tiny_config(student_body=str(tiny_body), student_body_revision=None, student_init="pretrained")
    by_file = file_config(write_rows("all.csv", exported))
    assert Materials().initial_weights_sha256(by_model) == Materials().initial_weights_sha256(by_file)
    (one, steps), (other, again) = trained(by_model), trained(by_file)
    for before, now in zip(steps, again, strict=True):
        assert now.L_soft == pytest.approx(before.L_soft, rel=1e-6) and now.soft_rows == before.soft_rows
        assert now.L_total == pytest.approx(before.L_total, rel=1e-6)
    last, mine = one.history[-1], other.history[-1]
    assert mine.val_kl == pytest.approx(last.val_kl, rel=1e-5) and mine.val_agreement == last.val_agreement


def test_rounded_numbers_with_a_tenth_of_the_rows_missing_teach_what_they_can(
    exported: list[dict[str, Any]], file_config: Config, write_rows: Write, tmp_path: Path
) -> None:
    rounded = [{name: round(cell, 2) if name != "text" else cell for name, cell in row.items()} for row in exported]
    config = file_config(write_rows("some.jsonl", rounded[: len(rounded) * 9 // 10]))
    training, steps = trained(config)
    made = Materials()
    train, validation = made.rows(config)
    assert train.taught is not None and validation.taught is not None
    taught, rows = int(train.taught.sum()), len(train.labels)
    assert 0.8 * rows < taught < rows and not train.teacher_logits[~torch.from_numpy(train.taught)].any()
    last = training.history[-1]
    assert (last.soft_rows, last.hard_rows) == (taught, rows)
    assert any(step.soft_rows != step.hard_rows for step in steps)
    assert last.val_agreement is None and last.val_kl is None and "val_kl" not in last.measured()
    result = record_file(config, TrialFolder(tmp_path / "teacher"), made, NullRun())
    assert result.taught_rows == {"train": taught, "validation": int(validation.taught.sum())}
    assert result.val_accuracy is None and result.parameters is None and result.lacks("validation")
    assert result.numbers["labeled_rows"] == taught + int(validation.taught.sum())
    assert result.numbers["accuracy"] > 0.9 and 0 <= result.numbers["ece"] < 0.5
    assert not (tmp_path / "teacher" / "predictions.npy").exists()


def test_a_file_for_all_rows_is_recorded_as_a_model_is(
    exported: list[dict[str, Any]], file_config: Config, write_rows: Write, tmp_path: Path
) -> None:
    config, made = file_config(write_rows("all.csv", exported)), Materials()
    result = record_file(config, TrialFolder(tmp_path / "teacher"), made, NullRun())
    assert not result.lacks("validation") and result.weights_sha256 == made.teacher_sha256(config)
    assert result.val_accuracy is not None and result.val_accuracy > 0.9 and result.val_loss is not None
    assert len(np.load(tmp_path / "teacher" / "predictions.npy")) == result.validation_rows
    assert file_preflight(made, config, STUDY) == []
    assert check_inputs(made, [config], largest_batch=8, splits=["train", "validation"]) == []
    assert truncation(made, [config])[0] == [f"{config.max_length} cuts none for the student"]
    softer = [{"text": row["text"], **{name: 0.5 for name in row if name != "text"}} for row in exported]
    other = dataclasses.replace(config, teacher_file=str(write_rows("softer.csv", softer)))
    assert made.teacher_sha256(other) != made.teacher_sha256(config)
    assert (made.rows(other)[0].teacher_logits == np.float32(np.log(0.5))).all()
    assert not made.rows(config)[0].teacher_logits.isclose(made.rows(other)[0].teacher_logits).any()


def test_numbers_worse_than_the_commonest_class_are_refused_or_accepted_with_a_note(
    exported: list[dict[str, Any]], file_config: Config, write_rows: Write
) -> None:
    wrong = [{**row, "prob_negative": row["prob_positive"], "prob_positive": row["prob_negative"]} for row in exported]
    config, made = file_config(write_rows("wrong.csv", wrong)), Materials()
    with pytest.raises(PreflightError, match="must close 4% of the gap .* study.accept_weak_teacher=true takes it"):
        file_preflight(made, config, STUDY)
    (note,) = file_preflight(made, config, dataclasses.replace(STUDY, accept_weak_teacher=True))
    assert note.startswith("as study.accept_weak_teacher wants it") and "on the 96 labelled rows" in note


def test_hard_labels_are_pointed_out(tiny_rows: list[tuple[str, str]], file_config: Config, write_rows: Write) -> None:
    hard = [
        {"text": text, "prob_negative": int(label == "negative"), "prob_positive": int(label == "positive")}
        for text, label in tiny_rows
    ]
    (note,) = file_preflight(Materials(), file_config(write_rows("hard.csv", hard)), STUDY)
    assert note.startswith("100% of the rows of") and note.endswith("these are hard labels: T does nothing")


def test_a_file_of_other_texts_or_ids_is_refused(
    exported: list[dict[str, Any]], file_config: Config, tiny_rows: list[tuple[str, str]], write_rows: Write
) -> None:
    others = [{**row, "text": f"{row['text']} !"} for row in exported]
    with pytest.raises(
        DataError, match="has none for any of .*: its first row is of '.* !', the first to train on of '"
    ):
        check_join(Materials(), [file_config(write_rows("others.csv", others))])
    rows = write_rows("rows.csv", [{"text": t, "label": label, "id": n} for n, (t, label) in enumerate(tiny_rows)])
    numbered = [{**row, "id": number + 1} for number, row in enumerate(exported)]
    by_id = file_config(write_rows("ids.csv", numbered), train_file=str(rows), id_column="id", train_limit=40)
    with pytest.raises(DataError, match=r"every id must be that of a row, but 1 of 96 are of none: \['96'\]"):
        check_join(Materials(), [by_id])
    twice = write_rows(
        "twice.csv", [{"text": t, "label": label, "id": n // 2} for n, (t, label) in enumerate(tiny_rows)]
    )
    with pytest.raises(DataError, match="an id must be that of one row, but 47 are of two or more"):
        Materials().teacher_file(dataclasses.replace(by_id, train_file=str(twice), train_limit=None))


def test_a_row_of_one_train_limit_may_be_a_text_of_another(
    exported: list[dict[str, Any]], file_config: Config, tiny_rows: list[tuple[str, str]], write_rows: Write
) -> None:
    rows = write_rows("rows.csv", [{"text": t, "label": label, "id": n} for n, (t, label) in enumerate(tiny_rows)])
    numbered = write_rows("ids.csv", [{**row, "id": number} for number, row in enumerate(exported)])
    sources = {"train_file": str(rows), "id_column": "id", "unlabeled_rest": True}
    check_join(Materials(), [file_config(numbered, **sources, train_limit=limit) for limit in (40, 20)])


def test_the_training_file_may_hold_the_numbers_itself(
    exported: list[dict[str, Any]], file_config: Config, tiny_rows: list[tuple[str, str]], write_rows: Write
) -> None:
    path = write_rows(
        "rows.csv", [{**row, "label": label} for row, (_, label) in zip(exported, tiny_rows, strict=True)]
    )
    config, made = file_config(path, train_file=str(path)), Materials()
    check_join(made, [config])
    assert made.rows(config)[0].taught is None


@pytest.mark.parametrize("by_id", [False, True])
def test_texts_without_labels_are_taught_where_the_file_has_them_and_others_are_left_out_and_counted(
    by_id: bool,
    exported: list[dict[str, Any]],
    file_config: Config,
    tiny_rows: list[tuple[str, str]],
    write_rows: Write,
) -> None:
    named = [{"text": text, "label": label, "id": f"n{n}"} for n, (text, label) in enumerate(tiny_rows)]
    numbers = [{**row, "id": f"n{n}"} for n, row in enumerate(exported)]
    texts = [{key: row[key] for key in ("text", "id")} for row in named[60:]]
    texts.append({"text": "unheard of", "id": "n999"})
    files = {
        "train_file": str(write_rows("rows.csv", named[:60])),
        "unlabeled_file": str(write_rows("texts.csv", texts)),
    }
    without = [row for n, row in enumerate(numbers) if n not in (7, 70, 80)]
    changes = {**files, "id_column": "id" if by_id else None}
    config, made = file_config(write_rows("numbers.csv", without), **changes), Materials()
    found = made.unlabeled(config)
    assert found is not None and len(found) == 36 - 2 and found.dropped["untaught"] == 3
    check_join(made, [config])
    train, _ = made.rows(config)
    assert train.extra == 34 and train.taught is not None and train.taught[-34:].all()
    place = train.extra - len(found) + len(made.data(config).train)
    names = {row["text"]: row for row in exported}
    mine = train.teacher_logits[place].double().softmax(dim=-1).tolist()
    assert mine == pytest.approx([names[found.split.texts[0]][f"prob_{side}"] for side in ("negative", "positive")])


def test_a_file_may_teach_the_texts_without_labels_alone(
    exported: list[dict[str, Any]], file_config: Config, tiny_rows: list[tuple[str, str]], write_rows: Write
) -> None:
    files = {"train_file": str(write_rows("rows.csv", tiny_rows[:60]))}
    files["unlabeled_file"] = str(write_rows("texts.csv", [{"text": text} for text, _ in tiny_rows[60:]]))
    config, made = file_config(write_rows("numbers.csv", exported[60:]), **files, alpha=1.0), Materials()
    fine_tuned = dataclasses.replace(config, alpha=0.0, temperature=1.0, unlabeled_file=None)  # no row has any numbers
    check_join(made, [config, fine_tuned])
    (note,) = file_preflight(made, config, STUDY)
    assert note.startswith("no labelled row has numbers in")
    training, steps = trained(config)
    assert training.history[-1].soft_rows == sum(step.soft_rows or 0 for step in steps if step.epoch == 2) >= 36
    last = trained(fine_tuned)[0].history[-1]
    assert (last.soft_rows, last.L_soft, last.L_total) == (0, 0.0, last.L_hard)
