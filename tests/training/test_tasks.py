"""Each task from labels to student: what a teacher and a student of several labels, and of numbers, learn, save and record."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import BAD, GOOD, NOUNS, sentences, tiny_bert_config, write_table
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification

from kdsweep.analysis.receipt import receipt
from kdsweep.analysis.tasks import predicted
from kdsweep.config.sweep import StudyConfig
from kdsweep.config.tasks import TaskName
from kdsweep.config.trial import TrialConfig
from kdsweep.errors import Interrupted, ModelError, PreflightError
from kdsweep.records.layout import TrialId
from kdsweep.records.reading import read_predictions, read_trial
from kdsweep.records.schema import VALIDATED_IN
from kdsweep.records.writing import TrialFolder
from kdsweep.system.process import StopRequest
from kdsweep.tracking.tracker import NullRun
from kdsweep.training import readout
from kdsweep.training.checkpoints import Checkpointing
from kdsweep.training.constant_answers import majority_accuracy, majority_scores
from kdsweep.training.data.splits import Data, Split
from kdsweep.training.data.tokens import TEACHER_LOGITS, padded
from kdsweep.training.file_preflight import file_preflight, record_file
from kdsweep.training.final_test import final_test
from kdsweep.training.fine_tuning import _untaught as untaught
from kdsweep.training.fine_tuning import fine_tuning
from kdsweep.training.input_checks import _large_numbers
from kdsweep.training.joined import joined
from kdsweep.training.models import PROBLEM_TYPES, load_classifier, weights_sha256
from kdsweep.training.preflight import _weakness, preflight, standing
from kdsweep.training.shared import Materials
from kdsweep.training.students import load_student
from kdsweep.training.tasks import balanced_weights, has_label, label_array, label_tensor, without_label
from kdsweep.training.teacher import UNWATCHED
from kdsweep.training.teacher_logits import logit_of_mean_probability
from kdsweep.training.teacher_record import run_teacher
from kdsweep.training.trial import Slot, Watch, run_trial

Config = Callable[..., TrialConfig]
NAMES = ("good", "sad", "strong")
OTHERS: list[TaskName] = ["multi_label", "regression"]


def labels_of(text: str) -> dict[str, Any]:
    """What a sentence is labelled with in each task: any of three labels, by its last word; how much it likes what it is about."""
    noun, word = text.split()[-3], text.split()[-1]
    there = {"good": word in GOOD, "sad": word in BAD[::2], "strong": word in (*GOOD[::2], *BAD[:2])}
    return {
        "multi_label": [name for name in NAMES if there[name]],
        "regression": 50 + (3 if word in GOOD else -3) + 0.1 * NOUNS.index(noun),
    }


@pytest.fixture(scope="session")
def made(tiny_body: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of the tiny sentences for each task, and a teacher that was fine-tuned on it by a loop of its own."""
    folder = tmp_path_factory.mktemp("tasks")
    for task in OTHERS:
        rows = [{"text": text, "label": labels_of(text)[task]} for text, _ in sentences()]
        write_table(folder / f"{task}.jsonl", rows)
        write_teacher(tiny_body, folder / task, task, rows)
    return folder


def write_teacher(body: Path, folder: Path, task: TaskName, rows: list[dict[str, Any]]) -> None:
    """`body` fine-tuned as `tiny.write_classifier` does it; its config does not say the task, its labels are in another order."""
    tokenizer, names = AutoTokenizer.from_pretrained(body), NAMES[::-1] if task == "multi_label" else ("how much",)
    torch.manual_seed(0)
    model = BertForSequenceClassification.from_pretrained(body, id2label=dict(enumerate(names)))
    model.config.label2id = {name: place for place, name in enumerate(names)}
    encoded = tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")
    if task == "multi_label":
        labels = torch.tensor([[float(name in row["label"]) for name in names] for row in rows])
        loss: Any = nn.functional.binary_cross_entropy_with_logits
    else:
        labels, loss = torch.tensor([[float(row["label"])] for row in rows]), nn.functional.mse_loss
        nn.init.constant_(model.classifier.bias, labels.mean().item())
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(20):
        loss(model(**encoded).logits, labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture
def config_of(made: Path, tiny_config: Config) -> Config:
    """`config_of("regression")`: the teacher and rows of a task, and a student of its layers."""
    fields: dict[str, Any] = {"epochs": 2, "learning_rate": 5e-3, "alpha": 0.7}
    return lambda task, **changes: tiny_config(
        **{**fields, "train_file": str(made / f"{task}.jsonl"), "teacher": str(made / task), **changes}
    )


@pytest.fixture(scope="module")
def shared() -> Materials:
    """One teacher of each task for all tests of this module."""
    return Materials()


def run(config: TrialConfig, folder: Path, materials: Materials, *, stop_at: int | None = None) -> Any:
    """One trial, which is cut off at step `stop_at` and goes on."""
    stop = StopRequest()

    def on_steps(steps: Any) -> None:
        stop.requested |= any(step.step == stop_at for step in steps)

    watch, keep = Watch(on_steps=on_steps, on_epoch=lambda _: False), Checkpointing(every_seconds=1e9, stop=stop)
    trial = (config, Slot(id=TrialId("distilled", 0)), TrialFolder(folder, "me"), materials, NullRun(), watch)
    if stop_at is not None:
        with pytest.raises(Interrupted):
            run_trial(*trial, keep)
    run_trial(*trial)
    return read_trial(folder)


@pytest.mark.parametrize("task", OTHERS)
def test_a_student_learns_is_recorded_saved_and_repeated_to_the_bit_after_an_interruption(
    task: TaskName, config_of: Config, shared: Materials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(task)
    done = run(config, tmp_path / "trials" / "0000", shared)
    data, (_, validation) = shared.data(config), shared.rows(config)
    assert (data.task, validation.task) == (task, task)
    found = {name: getattr(done.result, name) for names in VALIDATED_IN.values() for name in names}
    assert {name for name, value in found.items() if value is not None} == set(VALIDATED_IN[task])
    assert done.result.val_map > 0.95 if task == "multi_label" else done.result.val_pearson > 0.95
    assert (done.result.best_epoch is not None) and (done.result.best_val_accuracy is None) == (task == "regression")

    student = AutoModelForSequenceClassification.from_pretrained(done.folder / "student").eval()
    assert student.config.problem_type == PROBLEM_TYPES[task]
    assert tuple(student.config.id2label.values()) == (NAMES if task == "multi_label" else ("label",))
    tokenizer = AutoTokenizer.from_pretrained(done.folder / "student")
    encoded = tokenizer(list(data.validation.texts), padding=True, return_tensors="pt")
    with torch.no_grad():
        plain = student(**{name: encoded[name] for name in ("input_ids", "attention_mask")}).logits.numpy()
    predictions = read_predictions(done.folder)
    assert predictions is not None and predictions.shape == data.validation.labels.shape
    np.testing.assert_allclose(predicted(plain, task), predictions, rtol=1e-4)

    monkeypatch.setattr(readout, "READ_EVERY", 1)
    again = run(config, tmp_path / "again" / "trials" / "0000", shared, stop_at=7)
    assert receipt(done, again).verdict == "identical"
    assert read_trial(done.folder).epochs[-1].measured() == again.epochs[-1].measured()


@pytest.mark.parametrize("task", OTHERS)
def test_the_teacher_is_recorded_and_measured_by_its_task(
    task: TaskName, config_of: Config, shared: Materials, tmp_path: Path
) -> None:
    config, folder = config_of(task), TrialFolder(tmp_path / "teacher")
    result = run_teacher(config, folder, shared, NullRun(), UNWATCHED)
    assert result.task == task and result.train_loss is not None
    assert preflight(shared, config, StudyConfig(metric="val_map" if task == "multi_label" else "val_pearson")) == []
    predictions = read_predictions(folder.path)
    assert predictions is not None and predictions.dtype == (np.uint8 if task == "multi_label" else np.float32)
    if task == "regression":
        assert (result.val_accuracy, result.majority_accuracy, result.train_accuracy, result.val_ece) == (None,) * 4
        assert result.val_pearson is not None and result.val_pearson > 0.95
        assert result.majority_scores["val_loss"] > 5 * (result.val_loss or 1e9)
    else:
        assert result.val_example_f1 is not None and result.val_example_f1 > result.majority_scores["val_example_f1"]
        assert result.majority_accuracy == result.majority_scores["val_accuracy"]
    (_, validation) = shared.teacher_rows(config)
    test = final_test(validation.teacher_logits, validation)
    assert (test.reliability == ()) == (task == "regression") and test.loss == pytest.approx(result.val_loss)


def test_an_untrained_regression_begins_at_the_mean_of_the_training_labels(
    config_of: Config, shared: Materials, tiny_body: Path
) -> None:
    config = config_of("regression")
    mean = float(shared.data(config).train.labels.mean())
    for student in (
        shared.student(config),
        shared.student(config_of("regression", student=str(tiny_body), student_init="pretrained")),
    ):
        (head,) = (module for module in student.modules() if isinstance(module, nn.Linear) and module.out_features == 1)
        assert head.bias.tolist() == [pytest.approx(mean)]


def test_several_labels_begin_at_their_log_odds(config_of: Config, shared: Materials) -> None:
    config = config_of("multi_label")
    labels = shared.data(config).train.labels
    there = labels.sum(axis=0, dtype=float)
    student = shared.student(config)
    heads = [module for module in student.modules() if isinstance(module, nn.Linear)]
    expected = np.log((there + 0.5) / (len(labels) - there + 0.5))
    np.testing.assert_allclose(heads[-1].bias.detach().numpy(), expected, rtol=1e-5)


def test_a_regression_model_keeps_its_head_and_a_head_that_has_no_bias_to_set_is_said(tmp_path: Path) -> None:
    model = BertForSequenceClassification(tiny_bert_config(9, num_labels=1))
    nn.init.constant_(model.classifier.bias, 7.0)
    model.save_pretrained(tmp_path / "whole")
    kept: Any = load_classifier(str(tmp_path / "whole"), None, ("score",), seed=0, task="regression", start=(1.0,))
    assert kept.classifier.bias.tolist() == [7.0] and kept.config.problem_type == "regression"
    assert weights_sha256(kept) == weights_sha256(model)
    with pytest.raises(ModelError, match="one class of several"):
        load_classifier(str(tmp_path / "whole"), None, ("a", "b"), seed=0)


def test_a_named_student_of_several_labels_is_put_in_the_datasets_order(tmp_path: Path) -> None:
    model = BertForSequenceClassification(tiny_bert_config(9, id2label=dict(enumerate(NAMES[::-1]))))
    model.save_pretrained(tmp_path)
    mine: Any = load_student(str(tmp_path), None, NAMES, seed=0, task="multi_label")
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        assert torch.equal(mine.eval()(ids).logits, model.eval()(ids).logits[:, [2, 1, 0]])
    assert mine.config.id2label == dict(enumerate(NAMES)) and mine.config.problem_type == PROBLEM_TYPES["multi_label"]


def test_a_teacher_with_its_own_order_of_labels_teaches_in_the_datasets_and_is_fine_tuned_in_its_own(
    config_of: Config, shared: Materials
) -> None:
    config = config_of("multi_label")
    data, tokens = shared.data(config), {"train": shared.teacher_tokens(config, "train")}
    tuning = fine_tuning(config, data, tokens)
    assert shared.teacher(config).columns == tuning.columns == (2, 1, 0)
    assert torch.equal(untaught(tuning, "train", "cpu").labels[:, [2, 1, 0]], label_tensor(data.train.labels))


def test_the_labels_of_every_task_as_tensors_and_back() -> None:
    given: dict[TaskName, np.ndarray] = {
        "single_label": np.array([2, 0]),
        "multi_label": np.array([[1, 0], [0, 0]], np.uint8),
        "regression": np.array([0.5, -1.0], np.float32),
    }
    for task, labels in given.items():
        found = label_tensor(labels)
        assert found.dtype == (torch.int64 if task == "single_label" else torch.float32)
        back = label_array(found, task)
        assert back.dtype == labels.dtype and (back == labels).all()
        some = torch.cat([found, without_label(found, 2)])
        assert has_label(some).tolist() == [True, True, False, False]


@pytest.mark.parametrize("task", OTHERS)
def test_texts_without_labels_have_none_or_what_the_teacher_predicts(
    task: TaskName, config_of: Config, shared: Materials
) -> None:
    rows = shared.rows(config_of(task))[0]
    extra = rows.tokens.take(np.arange(3))
    logits = torch.cat([rows.teacher_logits, rows.teacher_logits[:3]])
    known = len(rows.labels)
    plain, pseudo = (joined(rows, extra, {TEACHER_LOGITS: logits}, pseudo_labels=each) for each in (False, True))
    assert has_label(plain.labels).tolist() == [True] * known + [False] * 3 == plain.labeled.tolist()  # type: ignore[union-attr]
    assert pseudo.labeled is None and has_label(pseudo.labels).all()
    said = predicted(logits[known:].numpy(), task)
    assert np.array_equal(label_array(pseudo.labels[known:], task), said)


def test_the_ensemble_of_several_labels_has_the_mean_of_the_probabilities() -> None:
    torch.manual_seed(1)
    logits = [5 * torch.randn(6, 3) for _ in range(3)]
    mean = torch.stack([each.double().sigmoid() for each in logits]).mean(dim=0)
    torch.testing.assert_close(logit_of_mean_probability(logits).double().sigmoid(), mean, rtol=1e-5, atol=1e-7)
    far = [torch.tensor([[900.0, -900.0]])] * 2
    assert logit_of_mean_probability(far).tolist() == [[900.0, -900.0]]


def test_folds_of_a_regression_teach_the_mean_of_their_numbers_and_are_measured(
    config_of: Config, tiny_body: Path
) -> None:
    config, materials = config_of("regression", teacher=str(tiny_body), teacher_folds=2, teacher_epochs=1), Materials()
    teacher, (_, validation) = materials.teacher(config), materials.teacher_rows(config)
    each = [member.load()(**batch_of(validation)).logits for member in teacher.members]
    torch.testing.assert_close(validation.teacher_logits, torch.stack(each).mean(dim=0), rtol=1e-4, atol=1e-4)
    seen = materials.teacher_on_seen_rows(config)
    assert (seen.accuracy, seen.ece) == (None, None) and seen.loss > 0
    assert teacher.epochs[0].val_accuracy is None and teacher.epochs[0].val_pearson is not None


def batch_of(rows: Any) -> dict[str, torch.Tensor]:
    """All rows as one batch, in their order."""
    inputs: dict[str, torch.Tensor] = padded(rows.tokens, np.arange(len(rows.labels))).inputs
    return inputs


def data_of(task: TaskName, labels: list[Any]) -> Data:
    """Rows with these labels, in training as in validation."""
    kinds: dict[TaskName, Any] = {"single_label": np.int64, "multi_label": np.uint8, "regression": np.float32}
    split = Split(texts=("x",) * len(labels), pairs=None, labels=np.array(labels, dtype=kinds[task]))
    names = ("a", "b", "c") if task != "regression" else ("score",)
    return Data(train=split, validation=split, test=None, label_names=names, duplicates_dropped=0, task=task)


def test_one_answer_for_every_row_is_the_best_for_each_metric() -> None:
    """Sets: none four times, a four times beside others: label a alone has 4/9 · … and more than half have none."""
    several = data_of("multi_label", [[0, 0, 0]] * 3 + [[1, 0, 0]] * 2 + [[1, 1, 0]] * 2)
    found = majority_scores(several, several.validation.labels)
    assert found["val_accuracy"] == majority_accuracy(several) == 3 / 7  # nothing, the commonest set
    assert found["val_example_f1"] == pytest.approx((2 * 1 + 2 * 2 / 3) / 7)  # a, which 4 of 7 have
    assert found["val_micro_f1"] == pytest.approx(2 * 4 / (7 + 6))
    assert found["val_map"] == pytest.approx((4 / 7 + 2 / 7) / 2)
    numbers = data_of("regression", [1.0, 2.0, 6.0])
    assert majority_scores(numbers, np.array([3.0, 5.0], np.float32)) == {
        "val_pearson": 0.0,
        "val_spearman": 0.0,
        "val_loss": 2.0,
        "val_rmse": 2**0.5,
    }
    assert majority_accuracy(numbers) is None


def test_a_teacher_of_numbers_stands_by_r2_in_the_labels_own_unit() -> None:
    data = data_of("regression", [1.0, 2.0, 3.0, 4.0])
    labels = data.validation.labels
    close = standing("val_pearson", labels[:, None] + 0.1, labels, data)
    assert close.score == pytest.approx(1 - 0.01 / 1.25, abs=1e-5) and close.score > close.needed == 0.04
    assert standing("val_pearson", labels[:, None] / 4, labels, data).score < 0  # a correlation of 1, in another unit
    nothing = standing(
        "val_example_f1", np.ones((3, 3)), np.ones((3, 3), np.uint8), data_of("multi_label", [[1, 1, 1]] * 3)
    )
    assert nothing.score == nothing.majority == nothing.needed == 1


def test_a_teacher_that_learnt_nothing_is_refused_in_words(tiny_config: Config) -> None:
    several, numbers = data_of("multi_label", [[0, 0, 1], [1, 0, 1]]), data_of("regression", [1.0, 2.0])
    config = tiny_config()
    labels = _weakness(several, np.array([[-1.0, -1, 1], [-1, -1, 1]]), config, "val_micro_f1", False)
    assert (
        labels is not None
        and "between always naming the same labels and a perfect val_micro_f1 on validation" in labels
    )
    number = _weakness(numbers, np.array([[0.1], [0.2]]), config, "val_pearson", False)
    assert number is not None and "always giving the mean and a perfect R²" in number and "in their unit" in number
    assert "but has -7.100 against 0 (0.04 would do)" in number and "r is 1.00" in number
    assert "order and not their size, or another unit (on validation their mean is 1.5" in number
    trained = _weakness(
        numbers, np.array([[0.1], [0.2]]), dataclasses.replace(config, teacher_epochs=1), "val_pearson", False
    )
    assert trained is not None and "which it learns faster where they are about 1" in trained
    wrong = _weakness(numbers, np.array([[0.2], [0.1]]), config, "val_pearson", False)
    assert wrong is not None and "Pearson" not in wrong
    assert _weakness(numbers, np.array([[1.1], [2.0]]), config, "val_pearson", False) is None


def test_numbers_too_large_for_a_fresh_head_are_told_before_the_teacher(tiny_config: Config) -> None:
    config = tiny_config(teacher_epochs=1)
    (note,) = _large_numbers(data_of("regression", [1000.0, 3000.0]), config)
    assert "(mean 2000, standard deviation 1000)" in note and "(number - 2000) / 1000" in note
    assert _large_numbers(data_of("regression", [1.0, 5.0]), config) == []
    assert _large_numbers(data_of("regression", [1000.0, 3000.0]), tiny_config()) == [], "a teacher in their unit"
    assert _large_numbers(data_of("multi_label", [[1, 0], [0, 1]]), config) == []


@pytest.mark.parametrize("task", OTHERS)
def test_a_file_that_teaches_is_recorded_and_judged_by_its_task(
    task: TaskName, config_of: Config, tiny_body: Path, tmp_path: Path
) -> None:
    facts: dict[str, Any] = {"teacher": None, "student": str(tiny_body), "student_init": "pretrained"}
    studies: dict[TaskName, Any] = {"multi_label": "val_map", "regression": "val_spearman"}
    study = StudyConfig(metric=studies[task])

    def write(name: str, of: Callable[[str], str]) -> TrialConfig:
        rows = []
        for text, _ in sentences():
            said = labels_of(of(text))[task]
            columns = {f"prob_{name}": 0.9 if name in said else 0.2 for name in NAMES} if task == "multi_label" else {}
            rows.append({"text": text, **(columns or {"prediction": said + 0.5})})
        write_table(tmp_path / name, rows)
        return config_of(task, **facts, teacher_file=str(tmp_path / name))

    good, materials = write("good.csv", lambda text: text), Materials()
    result = record_file(good, TrialFolder(tmp_path / "teacher"), materials, NullRun())
    assert result.task == task and result.numbers["labeled_rows"] == 96
    if task == "regression":
        assert result.val_loss == pytest.approx(0.25, rel=1e-4) and result.val_pearson == pytest.approx(1.0)
        assert "accuracy" not in result.numbers
    else:
        assert (result.val_accuracy, result.val_map, result.numbers["accuracy"]) == (1.0, 1.0, 1.0)
    assert file_preflight(materials, good, study) == []
    turned = dict(zip([text for text, _ in sentences()], [text for text, _ in sentences()[::-1]], strict=True))
    with pytest.raises(PreflightError, match="they have nothing to teach"):
        file_preflight(Materials(), write("bad.csv", turned.__getitem__), study)


def test_balanced_weights_give_every_class_the_same_weight_in_all() -> None:
    """6 rows, 2 of 3 classes occur 4 and 2 times: 6 / (3 · 4) and 6 / (3 · 2)."""
    data = data_of("single_label", [0, 0, 0, 0, 1, 1])
    found = balanced_weights(torch.tensor([0, 1, -1]), data)
    assert found[:2].tolist() == [0.5, 1.0]


def test_balanced_classes_weigh_l_hard_of_students_and_teacher_and_nothing_else(
    tiny_config: Config, tiny_body: Path, tiny_rows: list[tuple[str, str]], write_rows: Any
) -> None:
    rows = [row for place, row in enumerate(tiny_rows) if row[1] == "positive" or place % 4 == 0]
    path = str(write_rows("skewed.csv", rows))
    fields: dict[str, Any] = {"train_file": path, "epochs": 1}
    plain, weighed = (tiny_config(**fields, class_weights=each) for each in ("none", "balanced"))
    materials = Materials()
    before, after = (materials.rows(config)[0] for config in (plain, weighed))
    assert before.hard_weights is None and after.hard_weights is not None
    counts = np.bincount(materials.data(plain).train.labels)
    expected = torch.tensor(counts.sum() / (2 * counts), dtype=torch.float32)
    assert torch.equal(after.hard_weights, expected[after.labels])
    assert after.hard_weights.mean().item() == pytest.approx(1.0)
    tuned = dataclasses.replace(weighed, teacher=str(tiny_body), teacher_epochs=1, student_init="pretrained")
    tokens = {name: materials.teacher_tokens(tuned, name) for name in ("train", "validation")}  # type: ignore[arg-type]
    tuning = fine_tuning(tuned, materials.data(tuned), tokens)
    assert torch.equal(untaught(tuning, "train", "cpu").hard_weights, after.hard_weights)  # type: ignore[arg-type]
    assert (
        tuning.key != fine_tuning(dataclasses.replace(tuned, class_weights="none"), materials.data(tuned), tokens).key
    )
