"""A trial's config: every rule has its refusal, and what is written comes back bit for bit."""

import ast
import dataclasses
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdsweep.config import trial as module
from kdsweep.config.lengths import evaluations_of, lengthened, unit_of
from kdsweep.config.trial import FIELD_TYPES, TrialConfig
from kdsweep.config.trial_file import read_trial_config, trial_yaml
from kdsweep.config.yaml import did_you_mean, read_yaml, to_yaml
from kdsweep.errors import ConfigError

BASE: dict[str, Any] = {"train_file": "rows.csv", "teacher": "bert", "teacher_epochs": 1}

FIELDS = """
dataset dataset_config dataset_revision train_split validation_split test_split train_file validation_file test_file
csv_delimiter encoding drop_empty_texts validation_fraction test_fraction split_seed text_column text_pair_column task label_column label_columns
label_names id_column train_limit validation_limit unlabeled_file unlabeled_split unlabeled_rest unlabeled_limit max_length
teacher teacher_revision teacher_file teacher_epochs teacher_learning_rate teacher_batch_size teacher_seed teacher_folds teacher_keep
student student_revision student_body student_body_revision student_vocabulary student_layers student_init
temperature alpha temperature_end alpha_end soft_loss label_smoothing class_weights relation_weight relation_heads unlabeled_share pseudo_labels
learning_rate batch_size epochs max_steps evaluations warmup_ratio
weight_decay max_grad_norm seed device precision devices_per_trial teacher_threads threads
"""


def test_adding_a_field_is_a_decision() -> None:
    assert [field.name for field in dataclasses.fields(TrialConfig)] == FIELDS.split()
    assert all(field.default is not dataclasses.MISSING for field in dataclasses.fields(TrialConfig))


def test_every_field_has_a_docstring_under_it() -> None:
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    (body,) = [node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "TrialConfig"]
    documented = {
        field.target.id
        for field, after in zip(body, body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and str(after.value.value).strip()
    }
    assert set(FIELD_TYPES) - documented == set()


def test_a_config_is_frozen_and_can_be_a_key() -> None:
    config = TrialConfig(**BASE, label_names=["a", "b"], student_layers=[0, 2])  # type: ignore[arg-type]
    assert hash(config) == hash(dataclasses.replace(config))
    assert (config.label_names, config.student_layers) == (("a", "b"), (0, 2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.alpha = 0.1  # type: ignore[misc]


def test_whole_numbers_become_floats_and_nothing_else_is_converted() -> None:
    config = TrialConfig(**{**BASE, "temperature": 4, "alpha": 1})
    assert (config.temperature, type(config.temperature), type(config.alpha)) == (4.0, float, float)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("temperature", 0, "temperature > 0"),
        ("temperature", -1.0, "temperature > 0"),
        ("temperature", NAN, "a finite number"),
        ("temperature", INF, "a finite number"),
        ("temperature", True, "a finite number"),
        ("temperature", "2", "a finite number"),
        ("alpha", 1.01, "0 <= alpha <= 1"),
        ("alpha", -0.01, "0 <= alpha <= 1"),
        ("alpha", None, "a finite number"),
        ("learning_rate", 0.0, "learning_rate > 0"),
        ("teacher_learning_rate", -1e-5, "teacher_learning_rate > 0"),
        ("batch_size", 0, "batch_size > 0"),
        ("batch_size", 16.0, "a whole number"),
        ("batch_size", True, "a whole number"),
        ("teacher_batch_size", 0, "teacher_batch_size > 0"),
        ("epochs", 0, "epochs > 0"),
        ("teacher_epochs", -1, "teacher_epochs >= 0"),
        ("warmup_ratio", 1.5, "0 <= warmup_ratio <= 1"),
        ("weight_decay", -0.1, "weight_decay >= 0"),
        ("max_grad_norm", 0.0, "max_grad_norm > 0"),
        ("max_length", 3, "max_length >= 4"),
        ("validation_fraction", 0.0, "0 < validation_fraction <= 0.5"),
        ("validation_fraction", 0.6, "0 < validation_fraction <= 0.5"),
        ("test_fraction", 0.51, "0 <= test_fraction <= 0.5"),
        ("train_limit", 0, "train_limit > 0"),
        ("validation_limit", -5, "validation_limit > 0"),
        ("seed", -1, "seed >= 0"),
        ("split_seed", -1, "split_seed >= 0"),
        ("teacher_seed", -1, "teacher_seed >= 0"),
        ("threads", 0, "threads > 0"),
        ("teacher_threads", 0, "teacher_threads > 0"),
        ("threads", "many", "a whole number or auto"),
        ("device", "gpu", "device is auto, cpu, cuda or cuda:N"),
        ("precision", "fp16", "auto or fp32 or bf16"),
        ("student_init", "random", "pretrained or finetuned"),
        ("student_layers", 0, "student_layers > 0"),
        ("student_layers", [], "student_layers rise from 0"),
        ("student_layers", [2, 0], "student_layers rise from 0"),
        ("student_layers", [1, 1], "student_layers rise from 0"),
        ("student_layers", [-1, 1], "student_layers rise from 0"),
        ("student_layers", ["first"], "a whole number"),
        ("student_layers", 2.5, "must be a whole number or a list of int or a text, but got 2.5"),
        *(
            ("student_layers", word, f"first:N, spread:N or last:N, N from 1 must hold, but got {word!r}")
            for word in ("first", "first:0", "first:-1", "first:2.5", "middle:3", "first: 3", "3")
        ),
        ("label_names", ["one"], "label_names has two classes or more"),
        ("label_names", ["a", "a"], "label_names are distinct"),
        ("label_names", "positive", "a list of str"),
        ("label_names", [0, 1], "label_names must be a text, but got 0: in quotes it is one"),
        ("teacher", "", "a text"),
        ("text_column", None, "a text"),
        ("train_file", None, "exactly one of dataset and train_file is named must hold, but got neither"),
        ("dataset", "glue", "exactly one of dataset and train_file is named must hold, but got dataset and train_file"),
        ("validation_split", "dev", "dataset is named beside its splits"),
        ("dataset_config", "sst2", "dataset is named beside its splits"),
        ("teacher_epochs", 0, "has no pretrained body to copy"),
        ("csv_delimiter", ";;", "csv_delimiter is one character"),
        ("csv_delimiter", '"', "csv_delimiter is one character"),
        ("encoding", "utf-9", "encoding is a text encoding that Python knows"),
        ("encoding", "base64", "encoding is a text encoding that Python knows"),
        (
            "max_steps",
            3,
            r"max_steps >= evaluations (one at most follows a step) must hold, but got max_steps 3 and evaluations 4",
        ),
    ],
)
def test_a_value_out_of_its_rule_is_refused_by_name(field: str, value: object, rule: str) -> None:
    with pytest.raises(ConfigError) as error:
        TrialConfig(**{**BASE, field: value})
    assert rule in str(error.value) and field in str(error.value)


def test_a_longer_training_is_evaluated_after_as_many_steps_as_before() -> None:
    config = TrialConfig(**BASE, epochs=2)
    assert lengthened(config, 1) == config
    assert lengthened(config, 3) == TrialConfig(**BASE, epochs=6)
    by_steps = TrialConfig(**BASE, max_steps=80, evaluations=5)
    assert lengthened(by_steps, 3) == TrialConfig(**BASE, max_steps=240, evaluations=15)
    assert (evaluations_of(config), evaluations_of(by_steps)) == (2, 5)
    assert (unit_of(config), unit_of(by_steps)) == ("epoch", "evaluation")


def test_files_beside_a_hub_dataset_are_refused() -> None:
    with pytest.raises(ConfigError, match="train_file is named beside validation_file"):
        TrialConfig(dataset="imdb", test_file="test.csv", teacher="bert", teacher_epochs=1)


def test_all_problems_come_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        TrialConfig(**{**BASE, "alpha": 2.0, "temperature": 0.0, "epochs": 0})
    assert len(error.value.problems) == 3
    with pytest.raises(ConfigError) as error:
        TrialConfig(**{**BASE, "alpha": "x", "epochs": "y"})
    assert len(error.value.problems) == 2


def test_a_spread_count_of_layers_has_one_spelling() -> None:
    assert TrialConfig(**BASE, student_layers="spread:3") == TrialConfig(**BASE, student_layers=3)
    assert TrialConfig(**BASE, student_layers="first:3").student_layers == "first:3"


def test_what_is_still_automatic_is_listed() -> None:
    names = ("dataset_revision", "teacher_revision", "student_revision", "device", "precision")
    everything = (*names, "teacher_threads", "threads")
    assert TrialConfig(**BASE).unresolved() == everything


def test_a_config_without_auto_is_resolved(tiny_config: Callable[..., TrialConfig]) -> None:
    assert tiny_config().unresolved() == ()


# YAML


def random_config(rng: random.Random) -> TrialConfig:
    """Any valid config; floats with all their bits."""

    def real(low: float, high: float) -> float:
        return rng.choice([rng.uniform(low, high), low + (high - low) * 10 ** rng.uniform(-12, 0)])

    text = lambda: rng.choice(["a b", "yes", "null", "2e-5", "0x1f", "1_000", "off", "ü: #", "a'b\"c", "12:30:45", "~"])
    return TrialConfig(
        train_file=text(),
        validation_fraction=real(1e-9, 0.5),
        test_fraction=real(0, 0.5),
        split_seed=rng.randrange(2**40),
        text_column=text(),
        text_pair_column=rng.choice([None, text()]),
        label_names=tuple(rng.sample(["yes", "no", "1", "2.0", "null", "ja"], rng.choice([0, 2, 3]))),
        train_limit=rng.choice([None, rng.randrange(1, 10**6)]),
        teacher=text(),
        teacher_epochs=rng.randrange(1, 9),
        teacher_learning_rate=real(1e-12, 1),
        student_layers=rng.choice([6, (0, 2, 5), (3,), "first:3", "last:12"]),
        temperature=real(1e-9, 99),
        alpha=rng.choice([0.0, 1.0, rng.random(), sys.float_info.min]),
        learning_rate=10 ** rng.uniform(-9, 0),
        warmup_ratio=rng.random(),
        weight_decay=real(0, 1),
        max_grad_norm=10 ** rng.uniform(-3, 20),
        seed=rng.randrange(2**31),
        device=rng.choice(["auto", "cpu", "cuda:1"]),
        precision=rng.choice(["auto", "fp32", "bf16"]),  # type: ignore[arg-type]
        teacher_threads=rng.choice(["auto", 2]),  # type: ignore[arg-type]
        threads=rng.choice(["auto", 3]),  # type: ignore[arg-type]
    )


@pytest.mark.slow
def test_random_configs_come_back_from_yaml_bit_for_bit(tmp_path: Path) -> None:
    rng = random.Random(0)
    for _ in range(50):
        config = random_config(rng)
        (tmp_path / "config.yaml").write_text(trial_yaml(config), encoding="utf-8")
        again = read_trial_config(tmp_path / "config.yaml")
        assert again == config
        assert [type(value) for value in dataclasses.astuple(again)] == [
            type(value) for value in dataclasses.astuple(config)
        ]


def yaml_file(folder: Path, text: str) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_floats_without_a_point_are_floats_in_files_and_overrides(tmp_path: Path) -> None:
    path = yaml_file(tmp_path, "a: 2e-5\nb: 1E-4\nc: {d: 3e+2}")
    read = read_yaml(path, ["c.d=5e-5", "e=1e3"])
    assert read == {"a": 2e-5, "b": 1e-4, "c": {"d": 5e-5}, "e": 1000.0}
    assert read_yaml(yaml_file(tmp_path, to_yaml(read))) == read


def test_references_between_keys_are_resolved(tmp_path: Path) -> None:
    assert read_yaml(yaml_file(tmp_path, "a: 3\nb: {c: '${a}'}")) == {"a": 3, "b": {"c": 3}}


@pytest.mark.parametrize("resolver", ["${oc.env:HOME}", "x${oc.env:HOME,none}y", "${oc.decode:one}", "${a:${b}}"])
def test_resolvers_are_refused_in_files_and_overrides(
    resolver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/planted-0451")
    path = tmp_path / "plain.yaml"
    path.write_text("b: 1\nc: [{d: 2}]")
    for arguments in ((yaml_file(tmp_path, f'b: 1\nc: [{{d: "{resolver}"}}]'), []), (path, [f"a='{resolver}'"])):
        with pytest.raises(ConfigError, match="resolvers are refused") as error:
            read_yaml(*arguments)
        assert "planted" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2", "must be valid YAML"),
        ("a: 1\nb: 2\na: 3", "duplicate key a"),
        ("c:\n  a: 1\n  a: 2", "duplicate key a"),
        ("a: ${b}", "must be valid YAML"),
        ("- 1\n- 2", "must hold a YAML mapping"),
        ("a: !!python/object/apply:os.getcwd []", "must be valid YAML"),
        ("3.5", "must be a readable YAML file"),
    ],
)
def test_a_file_that_is_no_yaml_mapping_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = yaml_file(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        read_yaml(path)
    assert message in str(error.value) and str(path) in str(error.value)


def test_bytes_that_are_no_text_and_files_that_are_missing_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bytes.yaml"
    path.write_bytes(b"a: \xff\xfe\x00")
    for bad in (path, tmp_path / "missing.yaml", tmp_path):
        with pytest.raises(ConfigError, match=str(bad)):
            read_yaml(bad)


def test_an_override_without_a_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="an override reads key=value") as error:
        read_yaml(yaml_file(tmp_path, "a: 1"), ["a", "=3", "a=2"])
    assert len(error.value.problems) == 2


@pytest.mark.parametrize("override", ["queue.a=1", "a.b=2", "queue=3", "a=[1", "c.d.e=1"])
def test_an_override_that_does_not_fit_the_file_is_merged_or_refused_but_never_crashes(
    override: str, tmp_path: Path
) -> None:
    path = yaml_file(tmp_path, "a: 1\nqueue: [{x: 1}]\nc: {d: text}")
    try:
        assert isinstance(read_yaml(path, [override]), dict)
    except ConfigError as error:
        assert f"{path} and its overrides must be valid YAML" in str(error)


def test_a_trials_file_with_unknown_or_missing_keys_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'temperature'"):
        read_trial_config(yaml_file(tmp_path, "temprature: 2.0\ntrain_file: rows.csv"))
    with pytest.raises(
        ConfigError, match="exactly one of teacher and teacher_file is named must hold, but got neither"
    ):
        read_trial_config(yaml_file(tmp_path, "temperature: 2.0\ntrain_file: rows.csv"))


def test_a_name_that_resembles_nothing_gets_the_whole_list() -> None:
    assert did_you_mean("zzz", ["alpha", "beta"]) == "; known: alpha, beta"


@pytest.mark.parametrize("changes", [{"teacher_folds": 3}, {"teacher_keep": "lowest_loss"}])
def test_what_only_a_fine_tuning_here_can_do_is_refused_without_one(changes: dict[str, Any]) -> None:
    with pytest.raises(
        ConfigError, match=r"fine-tuned here \(teacher_epochs > 0\) must hold, but got .* with teacher_epochs: 0"
    ):
        TrialConfig(**{**BASE, "teacher_epochs": 0, "student_init": "finetuned", **changes})


FILE: dict[str, Any] = {"train_file": "rows.csv", "teacher_file": "numbers.csv", "student_body": "bert"}


@pytest.mark.parametrize(
    ("changes", "rule", "given"),
    [
        ({"teacher": "bert"}, "exactly one of teacher and teacher_file is named", "teacher and teacher_file"),
        ({"student_body": None}, "a named student or a student_body", "student: from_teacher"),
        ({"student_init": "finetuned"}, "so student_init: pretrained", "student_init: finetuned"),
        (
            {"teacher_epochs": 3, "teacher_folds": 5},
            "beside a teacher_file, which is no model",
            "teacher_epochs: 3, teacher_folds: 5",
        ),
        ({"relation_weight": 0.5}, "beside a teacher_file, which is no model", "relation_weight: 0.5"),
        ({"teacher_file": None, "teacher": "bert", "id_column": "id"}, "id_column joins", "id_column: id without one"),
    ],
)
def test_what_does_not_go_with_a_teacher_file_is_one_message(changes: dict[str, Any], rule: str, given: str) -> None:
    with pytest.raises(ConfigError) as error:
        TrialConfig(**{**FILE, **changes})
    assert len(error.value.problems) == 1
    assert rule in str(error.value) and str(error.value).endswith(f"must hold, but got {given}")


def test_a_teacher_file_goes_with_a_named_student_or_the_layers_of_a_body() -> None:
    assert TrialConfig(**FILE, id_column="id").teacher is None
    assert TrialConfig(**{**FILE, "student_body": None, "student": "distilbert"}).student_body is None
    body = TrialConfig(**{**BASE, "teacher_epochs": 0, "student_body": "bert"})  # without it there is nothing to copy
    assert body.student_init == "pretrained"
