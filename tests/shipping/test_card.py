"""The model card: metadata that the Hub takes, numbers of the records, nothing of this machine."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from exports import an_export
from huggingface_hub import ModelCard
from huggingface_hub.utils import validate_repo_id
from makers import POINT, make_finals, make_teacher, row_of, sweep_of, teacher_of

from kdsweep.analysis.shipped import shipped
from kdsweep.records.export_schema import Export
from kdsweep.records.layout import TrialId, run_name, teacher_folder, trial_folder
from kdsweep.records.reading import TrialRow, read_test_labels, read_test_predictions, read_trial
from kdsweep.records.whole_sweep import SweepRecords, read_records
from kdsweep.records.writing import TrialFolder
from kdsweep.shipping.card import model_card, upload_command
from kdsweep.shipping.card_recipe import recipe
from kdsweep.shipping.sources import shown_config


def export_of(run: TrialRow, **changes: Any) -> Export:
    """The export of a run; a trial of the search has not opened the test split."""
    place = {"run": run_name(run.id), "arm": run.arm, "trial": run.trial, "seed": run.finalist_seed}
    export = an_export(**{**place, **changes})
    if run.finalist_seed is None:
        export = replace(export, tested_at=None, forms=tuple(replace(form, test=None) for form in export.forms))
    return export


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> SweepRecords:
    """A sweep of three arms with finalists, of which the distilled ones are best."""
    folder = tmp_path_factory.mktemp("results") / "s"
    make_finals(folder, 0.85, 0.8, 0.82)
    return read_records(folder)


@pytest.fixture(scope="module")
def card(sweep: SweepRecords) -> str:
    """The card of the run that it ships."""
    run = shipped(sweep)
    assert run is not None and run.arm == "distilled"
    return model_card(export_of(run), sweep, run)


def in_memory(folder: Path, **fixed: Any) -> tuple[SweepRecords, TrialRow]:
    """A sweep of one trial, of which nothing is on disk."""
    sweep = sweep_of(**fixed)
    run = row_of(sweep, "distilled", 0, POINT, 0.9)
    return SweepRecords(folder=folder, sweep=sweep, teacher=teacher_of(), trials=(run,)), run


def line_of(card: str, start: str) -> str:
    return next(line for line in card.splitlines() if line.startswith(start))


@pytest.mark.slow
def test_the_hubs_library_reads_its_metadata_and_every_result(card: str) -> None:
    read = ModelCard(card)
    data = read.data.to_dict()
    assert data["tags"] == ["kdsweep", "knowledge-distillation", "onnx"]
    assert data["pipeline_tag"] == "text-classification" and data["library_name"] == "transformers"
    assert "license" not in data and "# license: " in card.split("---")[1], "left to fill"
    assert not {"base_model", "datasets"} & set(data), "local files have no name on the Hub"
    assert read.data.eval_results is not None
    found = {(each.dataset_split, each.metric_name): each for each in read.data.eval_results}
    names = {"accuracy", "macro F1", "mcc", "accuracy, ONNX fp32", "accuracy, ONNX int8"}
    assert set(found) == {(split, name) for split in ("validation", "test") for name in names}
    assert found["test", "accuracy, ONNX int8"].metric_value == 0.869
    assert (found["test", "macro F1"].metric_type, found["test", "macro F1"].dataset_type) == ("f1", "csv")
    assert ModelCard(str(read)).data.to_dict() == data


def test_hub_names_become_base_model_and_dataset(tmp_path: Path) -> None:
    hub = {"train_file": None, "dataset": "nyu-mll/glue", "dataset_config": "sst2", "dataset_revision": "c0ffee"}
    hub |= {"teacher": "google-bert/bert-base-uncased", "teacher_revision": "beef", "validation_split": "dev"}
    found, run = in_memory(tmp_path, **hub)
    text = model_card(export_of(run), found, run)
    card = ModelCard(text).data.to_dict()
    assert (card["base_model"], card["datasets"]) == ("google-bert/bert-base-uncased", ["nyu-mll/glue"])
    validate_repo_id(card["base_model"])
    named = {"name": "nyu-mll/glue", "type": "nyu-mll/glue", "config": "sst2", "split": "dev", "revision": "c0ffee"}
    assert card["model-index"][0]["results"][0]["dataset"] == named
    words = " ".join(text.split())
    assert (
        "which flatters it; there is no test result" in words
        and "Its forms were not measured on a test split." in words
    )
    assert "Whether distilling helped has not been confirmed on fresh seeds." in words


def test_it_names_no_place_of_this_machine(tmp_path: Path) -> None:
    places = {"train_file": "/home/eve/private/rows.csv", "teacher": "/models/eve/bert", "unlabeled_file": "~/more.csv"}
    found, run = in_memory(tmp_path, **places)
    card = model_card(export_of(run), found, run)
    assert not [word for word in ("/home", "/models", "eve/", "private", "more.csv", str(tmp_path)) if word in card]
    config = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])
    assert config["train_file"] == "(a local file)" and config["teacher"] == "(a local model)"
    assert config["temperature"] == 4.0 and "seed" not in config, "the default"


def test_it_stands_beside_the_fine_tuned_twin_and_the_teacher(sweep: SweepRecords, card: str) -> None:
    run, words = shipped(sweep), " ".join(card.split())
    assert run is not None
    mine, twin, teacher = (line_of(card, f"| {name}") for name in ("this student", "best fine-tuned", "teacher  "))
    right = read_test_predictions(run.folder) == read_test_labels(sweep.folder)
    share = float(np.mean(right))
    assert f"{100 * share:.2f}" in mine and "trial 0, seed " in twin
    assert f"| {100 * (share - 0.9):+.1f} (".replace("-", "−") in teacher, "paired, on the same rows"
    assert "**Distilling beat plain fine-tuning on the test rows** (+" in words
    assert "distilled finalists against fine-tuned ones (primary)" in card
    assert "alpha weighs the soft term: L = alpha · L_soft + (1 − alpha) · L_hard" in words
    assert "**The form to ship is `onnx/model_int8.onnx`**: 17.8 MB" in words
    assert "Not kept: static quantisation" in words and "a processor (avx512, vnni)" in words


LOSSES = {
    "fine_tuned": "cross-entropy of the labels, without any teacher",
    "pseudo_labeled": "is the class that the teacher predicts",
}


@pytest.mark.parametrize("arm", LOSSES)
def test_every_arm_has_a_card(sweep: SweepRecords, arm: Any) -> None:
    run = read_trial(trial_folder(sweep.folder, TrialId(arm, 0, 1)))
    words = " ".join(model_card(export_of(run), sweep, run).split())
    assert LOSSES[arm] in words and "| best distilled (trial 0, seed " in words


# Other tasks -----------------------------------------------------------------------------------------------------------


def of_task(
    folder: Path, task: Any, names: tuple[str, ...], answers: list[np.ndarray], **scores: float
) -> tuple[str, Export]:
    """The card of a distilled run beside a fine-tuned one and a teacher: what the three answer to 100 rows, the labels last, `scores` of all."""
    sweep, validated = sweep_of(text_pair_column="other"), {f"val_{name}": value for name, value in scores.items()}
    rest = dict.fromkeys(("val_mcc", "val_agreement", "val_kl"))
    make_teacher(folder, task=task, label_names=names, **validated)
    runs = [row_of(sweep, arm, 0, POINT, 0.5, folder, **rest, **validated) for arm in ("distilled", "fine_tuned")]
    for place, answered in zip((*(run.folder for run in runs), teacher_folder(folder)), answers, strict=False):
        TrialFolder(place).path.mkdir(parents=True, exist_ok=True)
        TrialFolder(place).write_predictions(answered)
    TrialFolder(teacher_folder(folder)).write_labels(answers[-1])
    teacher = teacher_of(task=task, label_names=names, **validated)
    found = SweepRecords(folder=folder, sweep=sweep, teacher=teacher, trials=tuple(runs))
    forms = tuple(
        replace(form, validation=replace(form.validation, **{"accuracy": None, "r2": 0.8, "pearson": 0.91, **scores}))
        for form in an_export().forms
    )
    export = export_of(runs[0], task=task, text_pair_column="other", forms=forms)
    return model_card(export, found, runs[0]), export


def test_a_student_of_several_labels_has_their_words(tmp_path: Path) -> None:
    labels = np.tile(np.array([[1, 0, 1], [0, 1, 0]], np.uint8), (50, 1))
    worse = np.where(np.arange(100)[:, None] < 10, 1 - labels, labels)
    scores = {"example_f1": 0.61, "micro_f1": 0.6, "macro_f1": 0.55, "map": 0.7, "accuracy": 0.5}
    card, _ = of_task(tmp_path, "multi_label", ("joy", "love", "fear"), [labels, worse, labels, labels], **scores)
    words, data = " ".join(card.split()), ModelCard(card).data
    assert "gives pairs of texts any of 3 labels (`joy`, `love`, `fear`), each of a probability above 0.5" in words
    assert data.pipeline_tag == "text-classification" and data.eval_results is not None
    assert data.metrics == ["f1", "mean_average_precision", "accuracy"]
    named = {each.metric_name: each.metric_value for each in data.eval_results}
    assert named["example F1"] == named["example F1, ONNX int8"] == 0.61 and named["subset accuracy"] == 0.5
    assert line_of(card, "| best fine-tuned").rstrip().endswith("+10.0 (+3.7 to +16.3)    |")
    assert "| 61.00" in line_of(card, "| this student") and "| model " in card and "subset accuracy" in card
    assert "sigmoid at temperature T, summed over labels" in words and "mean over labels" in words
    assert "points of example F1" in words and "Same labels: single decisions" in words


def test_a_student_of_a_number_has_its_words(tmp_path: Path) -> None:
    labels = np.linspace(1, 5, 100, dtype=np.float32)
    answers = [labels + 0.5, labels + np.float32(1) * (np.arange(100) % 2), labels, labels]
    scores = {"pearson": 0.9, "spearman": 0.88, "rmse": 0.5, "loss": 0.25}
    card, export = of_task(tmp_path, "regression", ("relatedness",), answers, **scores)
    words, data = " ".join(card.split()), ModelCard(card).data
    assert "A model of 16,000,000 parameters that gives pairs of texts a number (`relatedness`), distilled" in words
    assert data.metrics == ["pearsonr", "spearmanr", "rmse"] and data.eval_results is not None
    named = {each.metric_name: each.metric_value for each in data.eval_results}
    assert named == {
        "pearson": 0.9,
        "spearman": 0.88,
        "rmse": 0.5,
        **{f"pearson, ONNX {f}": 0.9 for f in ("fp32", "int8")},
    }
    assert line_of(card, "| best fine-tuned").split("|")[-2].strip().startswith("+0.25 (+0.15"), (
        "the squared error is lower"
    )
    assert "the squared difference from the teacher's number" in words and " and T = " not in words
    assert "hundredths of R²" in words and "It does not say how sure it is of a number." in words
    assert (
        "calibration error" not in words and "points of R²" in words and "accuracy" not in words.split("## Recipe")[0]
    )
    assert export.task == "regression"


def test_a_student_with_fewer_word_pieces_or_of_another_family_says_so(tmp_path: Path) -> None:
    sweep = sweep_of()
    facts = {"vocabulary_pieces": 6000, "vocabulary_whole": 30522, "val_recut_share": 0.012, "val_unknown_share": 0.001}
    run = row_of(sweep, "distilled", 0, POINT, 0.9, tmp_path, **facts)
    (run.folder / "student").mkdir(parents=True)
    (run.folder / "student" / "config.json").write_text('{"model_type": "modernbert"}', encoding="utf-8")
    layered = replace(run, config=replace(run.config, student_layers="first:3"))
    said = recipe(SweepRecords(folder=tmp_path, sweep=sweep, teacher=teacher_of(), trials=(run,)), layered)[2]
    assert "a model of the family `modernbert` that started from the first 3 layers of a local model" in said
    assert (
        "Of the 30,522 word pieces of its tokenizer it has the 6,000 that its training texts use: it cuts 1.20" in said
    )


def test_a_field_left_at_its_default_is_not_listed() -> None:
    run = row_of(sweep_of(), "fine_tuned", 0, {"learning_rate": 1e-4, "batch_size": 64}, 0.9)
    assert {"learning_rate", "batch_size", "alpha"} <= set(shown_config(run.config))
    assert not {"weight_decay", "max_grad_norm"} & set(shown_config(run.config))


def test_the_upload_stays_private_and_the_users_own() -> None:
    assert (
        upload_command(Path("/a b/distilled-0007")) == "hf upload USER/distilled-0007 '/a b/distilled-0007' . --private"
    )
