"""The JSON Schema of sweep files: it takes what load_sweep takes and refuses what load_sweep refuses, as far as one key can say."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from kdsweep.config.axis import Axis
from kdsweep.config.forms import Constraints, ExportConfig
from kdsweep.config.schema import docs, schema_text, sweep_schema, trial_properties
from kdsweep.config.shipped_sweeps import shipped_sweeps
from kdsweep.config.sweep import FinalistsConfig, StudyConfig, SweepConfig, TrackingConfig, sweep_yaml
from kdsweep.config.sweep_file import load_sweep
from kdsweep.config.trial import FIELD_TYPES, TrialConfig
from kdsweep.config.trial_fields import UNSEARCHABLE
from kdsweep.config.yaml import read_yaml
from kdsweep.errors import ConfigError

SHIPPED = shipped_sweeps()
SWEEPS = Path(__file__).parents[2] / "sweeps"
VALIDATOR = Draft202012Validator(sweep_schema())


def complaints(path: Path, *overrides: str) -> list[str]:
    """What the schema says about a file as YAML reads it."""
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(read_yaml(path, overrides))]


def test_the_schema_is_one_and_the_committed_file_is_up_to_date() -> None:
    Draft202012Validator.check_schema(sweep_schema())
    said = "python -m kdsweep.schema > sweeps/schema.json"
    assert (SWEEPS / "schema.json").read_text(encoding="utf-8") == schema_text(), said


@pytest.mark.slow
def test_the_command_prints_it_from_anywhere_and_brings_neither_torch_nor_optuna(tmp_path: Path) -> None:
    code = "import sys; from kdsweep.schema import main; main([]); sys.exit(bool({'torch', 'optuna'} & {*sys.modules}))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == sweep_schema()


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_sweep_names_the_schema_and_keeps_it_also_as_it_is_recorded(name: str, tmp_path: Path) -> None:
    schema = "../schema.json" if "/" in name else "schema.json"
    assert SHIPPED[name].read_text(encoding="utf-8").startswith(f"# yaml-language-server: $schema={schema}\n")
    assert complaints(SHIPPED[name]) == []
    (tmp_path / "sweep.yaml").write_text(sweep_yaml(load_sweep(SHIPPED[name])), encoding="utf-8")
    assert complaints(tmp_path / "sweep.yaml") == []


def test_the_schema_is_no_sweep() -> None:
    assert len(SHIPPED) >= 5 and "schema" not in SHIPPED


@pytest.mark.parametrize(
    "override",
    [
        "nmae=other",
        "name=a/b",
        "name=-1",
        "study=5",
        "study.trails=3",
        "study.trials=-1",
        "study.trials=many",
        "study.lag=-1",
        "study.sampler=bayes",
        "study.pruner=null",
        "study.target=1.5",
        "study.constraints.size_mb=0",
        "study.constraints.size_gb=1",
        "study.constraints.form=onnx",
        "export.margin=0",
        "export.forms=[int4]",
        "export.form=int8",
        "tracking.projekt=x",
        "tracking.mode=sometimes",
        "tracking.tags=[1]",
        "finalists.seeds=0",
        "fixed=3",
        "fixed.epoch=3",
        "fixed.epochs=two",
        "fixed.epochs=-1",
        "fixed.device=gpu",
        "fixed.label_names=[0, 1]",
        "fixed.validation_fraction=0.6",
        "fixed.teacher=''",
        "search=null",
        "search.alpha=0.5",
        "search.alpha.lo=0.1",
        "search.alpha.high=2",
        "search.alpha.log=maybe",
        "search.alpha.step=-0.1",
        "search.alpha.choices=[0.1]",
        "search.temperature.low=warm",
        "search.temperature.high=null",
        "search.weight_decay.choices=0.1",
        "search.weight_decay.choices=[0.1,0.1]",
        "search.weight_decay.choices=[-1,0]",
        "search.student.low=1",
        "search.student_layers.choices=[first]",
        "search.student_layers.choices=[first:0]",
        "fixed.student_layers=3.5",
        "search.encoding.choices=[utf-8,latin-1]",
        "search.threads.choices=[1,2]",
        "search.temperature.when=kl",
        "search.temperature.when={soft_los: [kl]}",
        "search.temperature.when={soft_loss: [mae]}",
        "search.temperature.when={soft_loss: []}",
        "search.temperature_end={low: 0, high: 4}",
        "enqueue={alpha: 1.0}",
        "enqueue=[{alhpa: 1.0}]",
        "enqueue=[{alpha: high}]",
        "enqueue=[{alpha: 1.5}]",
    ],
)
def test_what_the_schema_refuses_is_refused_by_load_sweep_too(
    tiny_sweep_file: Callable[..., Path], override: str
) -> None:
    path = tiny_sweep_file()
    assert complaints(path) == []
    assert complaints(path, override)
    with pytest.raises(ConfigError):
        load_sweep(path, [override])


def test_a_teacher_is_fixed_or_searched(tiny_sweep_file: Callable[..., Path]) -> None:
    content: dict[str, Any] = read_yaml(tiny_sweep_file())
    del content["fixed"]["teacher"]
    (error,) = VALIDATOR.iter_errors(content)
    assert "'teacher' is a required property" in [each.message for each in error.context]
    content["search"]["teacher"] = {"choices": ["one", "other"]}
    assert VALIDATOR.is_valid(content)
    del content["search"]["teacher"]
    content["fixed"]["teacher_file"] = "numbers.csv"
    assert VALIDATOR.is_valid(content)


@pytest.mark.parametrize(
    "override",
    [
        "name=2024",
        "name=true",
        "study=null",
        "study.controls=null",
        "study.constraints.size_mb=3.5",
        "study.constraints={size_mb: 3.5, form: int8}",
        "export=null",
        "export={margin: 1, forms: [int8]}",
        "finalists=null",
        "tracking=null",
        "tracking.mode=off",
        "enqueue=null",
        "enqueue=[{alpha: 1, temperature: 2.0}]",
        "fixed.weight_decay=0",
        "fixed.train_limit=null",
        "fixed.max_grad_norm=null",
        "fixed.student_layers=[0]",
        "fixed.device=cuda:1",
        "search.alpha=null",
        "search.alpha.low=0",
        "search.alpha.step=0.25",
        "search.weight_decay={choices: [0, 0.1], low: null, log: false}",
        "search.temperature.when={soft_loss: [kl], batch_size: [16]}",
        "search.temperature.when=null",
        "search.temperature_end={low: 1, high: 4}",
        "search.alpha_end.choices=[null, 1.0]",
        "search.student_init.choices=[pretrained, finetuned]",
        "search.student_layers.choices=[1, [0], first:2, last:1]",
        "fixed.student_layers=last:2",
    ],
)
def test_what_load_sweep_takes_the_schema_takes(tiny_sweep_file: Callable[..., Path], override: str) -> None:
    of_a_student = {"student_layers": None, "student_init": None, "teacher_epochs": 1}
    path = tiny_sweep_file(fixed=of_a_student if ".student_" in override else {})
    load_sweep(path, [override])
    assert complaints(path, override) == []


def test_references_stand_for_any_value_and_resolvers_for_none(tiny_sweep_file: Callable[..., Path]) -> None:
    content: dict[str, Any] = read_yaml(tiny_sweep_file())
    content["study"]["trials"] = content["fixed"]["epochs"] = content["search"]["alpha"]["high"] = "${study.seed}"
    content["study"]["sampler"] = content["fixed"]["label_names"] = content["fixed"]["drop_empty_texts"] = "${other[0]}"
    content["name"] = "run-${study.seed}"
    content["search"]["warmup_ratio"] = content["search"]["student_init"] = "${search.alpha}"
    assert VALIDATOR.is_valid(content)
    for name in ("${study.seed} x", "run-${oc.env:HOME}", "-${study.seed}", "n" * 65):
        assert not VALIDATOR.is_valid(content | {"name": name})
    content["study"]["trials"] = "${oc.env:TRIALS}"
    assert not VALIDATOR.is_valid(content)


def test_every_key_has_a_description_and_every_field_its_default() -> None:
    for kind in (TrialConfig, StudyConfig, FinalistsConfig, TrackingConfig, ExportConfig, Constraints, Axis):
        assert set(docs(kind)) == set(kind.__dataclass_fields__), f"{kind.__name__}: a docstring under each field"
    properties = sweep_schema()["properties"]
    assert set(properties) == set(SweepConfig.__dataclass_fields__)
    assert all(body["description"] for body in properties.values())
    assert set(properties["search"]["properties"]) == set(FIELD_TYPES) - set(UNSEARCHABLE)
    trial = trial_properties()
    assert (trial["temperature"]["default"], trial["temperature"]["exclusiveMinimum"]) == (2.0, 0)
    assert "softens both distributions" in trial["temperature"]["description"]
    assert (trial["alpha"]["minimum"], trial["alpha"]["maximum"]) == (0, 1)
    assert [name for name, body in trial.items() if "default" not in body] == []
