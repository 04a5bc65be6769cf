"""A sweep file: what is refused, all at once, and what its arms, budgets and identity are."""

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdsweep.config.arms import ARMS, FIXED_BY, PRIMARY
from kdsweep.config.axis import Axis
from kdsweep.config.forms import ExportConfig
from kdsweep.config.lengths import length_text, most_evaluations
from kdsweep.config.sweep import FinalistsConfig, StudyConfig, SweepConfig, TrackingConfig, identity_changes, sweep_yaml
from kdsweep.config.sweep_file import load_sweep
from kdsweep.config.trial import TrialConfig
from kdsweep.config.trial_fields import TRIAL_DEFAULTS, UNSEARCHABLE
from kdsweep.errors import ConfigError
from kdsweep.records.reading import read_sweep
from kdsweep.records.writing import start_sweep, write_sweep

WriteSweep = Callable[..., Path]


def problems_of(path: Path, *overrides: str) -> str:
    """What `load_sweep` says about a file that it refuses."""
    with pytest.raises(ConfigError) as error:
        load_sweep(path, overrides)
    assert all(str(path) in line for line in error.value.problems)
    return "\n".join(error.value.problems)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("nmae=other", "unknown key 'nmae'; did you mean 'name'?"),
        ("study.trails=3", "study: unknown key 'trails'; did you mean 'trials'?"),
        ("tracking.projekt=x", "tracking: unknown key 'projekt'; did you mean 'project'?"),
        ("fixed.epoch=3", "fixed: unknown key 'epoch'; did you mean 'epochs'?"),
        ("search.temprature.low=1", "search: unknown key 'temprature'; did you mean 'temperature'?"),
        ("search.alpha.lo=0.1", "search.alpha: unknown key 'lo'; did you mean 'low'?"),
        ("study.trials=many", "study.trials must be a whole number, but got 'many'"),
        ("study.trials=0", "study.trials >= 1 must hold, but got 0"),
        ("study.controls=-1", "study.controls >= 0 must hold, but got -1"),
        ("study.startup_trials=0", "study.startup_trials >= 1"),
        ("study.keep_students=0", "study.keep_students >= 1"),
        ("study.seed=-1", "study.seed >= 0 must hold, but got -1"),
        ("study.sampler=bayes", "study.sampler must be tpe or gp or random or grid, but got 'bayes'"),
        ("study.pruner=null", "study.pruner must be median or hyperband or none, but got None"),
        ("study=5", "study must be a mapping, but got 5"),
        ("study.storage=study.db", "study.storage must read postgresql+psycopg://"),
        ("study.storage=postgresql+psycopg://host/db?password=x", "study.storage must not hold a password"),
        ("study.target=1.5", "0 < study.target <= 1 must hold, but got 1.5"),
        ("study.timeout_minutes=0", "study.timeout_minutes > 0 must hold"),
        ("tracking.mode=sometimes", "tracking.mode must be auto or online or offline or off"),
        ("tracking.mode=on", "tracking.mode must be auto or online or offline or off, but got True"),
        ("tracking.project=team/proj", "got 'team/proj'; the team or user goes into tracking.entity=team"),
        ("tracking.entity=a/b", "tracking.entity has at most 128 characters, without / \\ # ? % : and without blanks"),
        (f"tracking.project={'p' * 129}", "tracking.project has at most 128 characters"),
        (f"tracking.tags=[{'t' * 65}]", "tracking.tags have 1 to 64 characters"),
        (
            "fixed=3",
            "fixed must be a mapping that names at least the teacher (teacher or teacher_file) and the data, but got 3",
        ),
        ("fixed.teacher=''", "teacher must be a text or null, but got ''"),
        ("fixed.epochs=two", "epochs must be a whole number, but got 'two'"),
        ("fixed.epochs=-1", "epochs > 0 must hold, but got -1"),
        ("search=null", "search must name at least one axis"),
        ("search.alpha=0.5", "search.alpha must read {low: …, high: …} or {choices: [...]}, but got 0.5"),
        ("search.temperature.low=9", "search.temperature: low < high must hold, but got low 9.0, high 8.0"),
        ("search.temperature.low=8", "low < high must hold"),
        ("search.temperature.low=0", "a log axis starts above 0 must hold, but got low 0.0"),
        ("search.temperature.high=null", "search.temperature: an axis has low and high, or choices"),
        ("search.temperature.high=.inf", "a finite number"),
        ("search.temperature.step=1", "log or step, not both"),
        ("search.alpha.step=-0.1", "step > 0 must hold"),
        ("search.alpha.log=maybe", "search.alpha: must be true or false, but got 'maybe'"),
        ("search.alpha.choices=[0.1]", "either low and high or choices, not both"),
        ("search.alpha.high=1.5", "0 <= alpha <= 1 must hold, but got 1.5"),
        ("search.weight_decay.choices=0.1", "choices must be a list, but got 0.1"),
        ("search.weight_decay.choices=[0.1,0.1]", "choices are distinct"),
        ("search.weight_decay.choices=[low]", "must be a finite number, but got 'low'"),
        ("search.weight_decay.choices=[-1,0]", "weight_decay >= 0 must hold, but got -1.0"),
        ("search.student.low=1", "takes choices, not low and high"),
        ("search.epochs={low: 1.5, high: 3}", "search.epochs: must be a whole number, but got 1.5"),
        ("enqueue={alpha: 1.0}", "enqueue must be a list of mappings"),
        ("enqueue=[alpha]", "enqueue must be a list of mappings"),
        ("enqueue=[{alhpa: 1.0}]", "enqueue: 'alhpa' is no searched field; did you mean 'alpha'?"),
        ("enqueue=[{epochs: 2}]", "enqueue: 'epochs' is no searched field"),
        ("enqueue=[{alpha: high}]", "enqueue: alpha must be a finite number, but got 'high'"),
        ("enqueue=[{temperature: 9}]", "enqueue: temperature must lie in [1, 8] log, but got 9"),
        ("tracking.registry=model", "say tracking.log_model=true too"),
        ("tracking.registry=a/b/c", "tracking.registry is the name of a registry, or NAME/COLLECTION"),
        ("study.sampler=grid", "search.temperature: grid needs choices, or low, high and step, but got [1, 8] log"),
    ],
)
def test_one_wrong_line_is_refused_by_its_name(tiny_sweep_file: WriteSweep, override: str, message: str) -> None:
    path = tiny_sweep_file(fixed={"epochs": None} if override.startswith("search.epochs") else {})
    assert message in problems_of(path, override)


def test_a_results_folder_whose_projects_name_w_and_b_refused_is_still_read_and_continued_under_another(
    tiny_sweep_file: WriteSweep, tmp_path: Path
) -> None:
    sweep = load_sweep(tiny_sweep_file())
    before = dataclasses.replace(sweep, tracking=TrackingConfig(project="team/proj"))
    write_sweep(tmp_path / "results" / "tiny", before)
    assert read_sweep(tmp_path / "results" / "tiny") == before
    start_sweep(tmp_path / "results" / "tiny", sweep)
    assert read_sweep(tmp_path / "results" / "tiny") == sweep


@pytest.mark.parametrize(
    "name", ["../elsewhere", "a/b", "..", ".hidden", "/tmp/x", "", "a b", "ä", [7], None, "a\\n", ".5"]
)
def test_a_name_that_leaves_the_results_folder_is_refused(tiny_sweep_file: WriteSweep, name: object) -> None:
    path = tiny_sweep_file()
    path.write_text(path.read_text().replace("name: tiny", f"name: {name!r}".replace("None", "null")))
    assert "name must be letters, digits" in problems_of(path)


@pytest.mark.parametrize("name", ["2024", "007", "1e5", "0x10", "1_000", "2024.5", "true", "off", "2024-01-01"])
def test_a_name_that_yaml_takes_for_a_number_stays_as_it_is_written(tiny_sweep_file: WriteSweep, name: str) -> None:
    path = tiny_sweep_file()
    assert load_sweep(path, ["name=other", f"name={name}"]).name == name
    path.write_text(path.read_text().replace("name: tiny", f"name: {name}  # of the year"))
    sweep = load_sweep(path)
    assert sweep.name == name
    path.write_text(sweep_yaml(sweep), encoding="utf-8")
    assert load_sweep(path) == sweep


def test_a_name_too_long_for_run_ids_and_file_systems_is_refused(tiny_sweep_file: WriteSweep) -> None:
    path = tiny_sweep_file()
    assert load_sweep(path, [f"name={'a' * 64}"]).name == "a" * 64
    assert "name must have at most 64 characters" in (said := problems_of(path, f"name={'a' * 300}"))
    assert "has 300: aaaa" in said and "a" * 50 not in said


def test_a_field_moves_from_fixed_to_search_and_back_on_the_command_line(tiny_sweep_file: WriteSweep) -> None:
    path = tiny_sweep_file(fixed={"train_limit": 40})
    assert "fixed.epochs=null the fixed value" in problems_of(path, "search.epochs.low=1", "search.epochs.high=4")
    sweep = load_sweep(path, ["fixed.epochs=null", "search.epochs.low=1", "search.epochs.high=4"])
    assert sweep.search["epochs"] == Axis(low=1, high=4) and "epochs" not in sweep.fixed
    sweep = load_sweep(path, ["fixed.train_limit=null", "search.train_limit.choices=[20,null]"])
    assert sweep.search["train_limit"].choices == (20, None) and "train_limit" not in sweep.fixed
    sweep = load_sweep(path, ["search.learning_rate=null", "fixed.learning_rate=1e-3"])
    assert sweep.fixed["learning_rate"] == 1e-3 and "learning_rate" not in sweep.search


def test_null_is_a_value_where_the_field_takes_it_and_else_means_not_fixed(tiny_sweep_file: WriteSweep) -> None:
    path = tiny_sweep_file(fixed={"train_limit": 40})
    fixed = load_sweep(path, ["fixed.train_limit=null", "fixed.epochs=null"]).fixed
    assert fixed["train_limit"] is None and "epochs" not in fixed
    assert "teacher and teacher_file is named must hold, but got neither" in problems_of(path, "fixed.teacher=null")


def test_an_axis_changes_its_kind_on_the_command_line(tiny_sweep_file: WriteSweep) -> None:
    path = tiny_sweep_file(search={"batch_size": {"choices": [8, 16]}}, fixed={"batch_size": None})
    ends = ["search.batch_size.low=4", "search.batch_size.high=16"]
    assert "null drops a key: choices=null" in problems_of(path, *ends)
    assert load_sweep(path, [*ends, "search.batch_size.choices=null"]).search["batch_size"] == Axis(low=4, high=16)
    nulls = [f"search.temperature.{key}=null" for key in ("low", "high", "log")]
    sweep = load_sweep(path, [*nulls, "search.temperature.choices=[2.0,4.0]"])
    assert sweep.search["temperature"] == Axis(choices=(2.0, 4.0))


def test_a_field_both_fixed_and_searched_is_refused_until_its_axis_is_dropped(tiny_sweep_file: WriteSweep) -> None:
    path = tiny_sweep_file(fixed={"alpha": 0.5}, enqueue=[{"alpha": 1.0, "temperature": 2.0}])
    assert "alpha is both fixed and searched" in problems_of(path)
    sweep = load_sweep(path, ["search.alpha=null"])
    assert set(sweep.search) == {"temperature", "learning_rate"}
    assert sweep.enqueue == ({"temperature": 2.0},)


def test_a_length_of_a_trial_that_is_given_but_not_read_is_refused(tiny_sweep_file: WriteSweep) -> None:
    path = tiny_sweep_file(fixed={"epochs": 2})
    assert "epochs is not read where max_steps is set, but fixed.epochs is given" in problems_of(
        path, "fixed.max_steps=8"
    )
    assert load_sweep(path, ["fixed.max_steps=8", "fixed.epochs=null"]).fixed["max_steps"] == 8
    searched = ["fixed.max_steps=8", "fixed.epochs=null", "search.epochs.choices=[1,2]"]
    assert "but search.epochs is given; remove one of them (on the command line, search.epochs=null)" in problems_of(
        path, *searched
    )
    assert load_sweep(path, ["search.max_steps.choices=[null,8]"]).fixed["epochs"] == 2  # read by some of the trials
    assert "evaluations is not read where max_steps is null, but fixed.evaluations" in problems_of(
        path, "fixed.evaluations=2"
    )
    assert "max_steps >= evaluations (one at most follows a step) must hold" in problems_of(
        path, "fixed.epochs=null", "fixed.max_steps=3"
    )


def test_steps_and_evaluations_that_are_searched_must_go_together_whichever_are_sampled(
    tiny_sweep_file: WriteSweep,
) -> None:
    path = tiny_sweep_file(fixed={"epochs": None})
    descending = ["search.max_steps.choices=[40,10]", "search.evaluations.choices=[4,20]"]
    assert "but a distilled one may get max_steps 10 with evaluations 20" in problems_of(path, *descending)
    assert load_sweep(path, ["search.max_steps.choices=[40,10]", "search.evaluations.choices=[10,4]"]).search


def test_a_trials_length_is_said_in_words_and_in_evaluations(tiny_sweep_file: WriteSweep) -> None:
    def said(*overrides: str) -> tuple[str, int]:
        sweep = load_sweep(tiny_sweep_file(fixed={"epochs": 1}), overrides)
        return length_text(sweep), most_evaluations(sweep)

    steps = ["fixed.epochs=null", "fixed.max_steps=3750"]
    assert said() == ("1 epoch", 1)
    assert said("fixed.epochs=null", "search.epochs.low=1", "search.epochs.high=4") == ("1 to 4 epochs", 4)
    assert said(*steps) == ("3,750 steps, evaluated 4 times", 4)
    assert said(*steps, "fixed.evaluations=1") == ("3,750 steps, evaluated 1 time", 1)
    own = [*steps, "search.max_steps.low=500", "search.max_steps.high=3750", "search.max_steps.arms=[fine_tuned]"]
    assert said(*own) == (
        "distilled: 3,750 steps, evaluated 4 times; fine-tuned: 500 to 3,750 steps, evaluated 4 times",
        4,
    )
    searched = ["fixed.epochs=6", "search.max_steps.choices=[null,80,200]"]
    assert said(*searched) == ("6 epochs or 80 to 200 steps, evaluated 4 times", 6)
    some = [
        "fixed.epochs=6",
        "search.epochs={low: 1, high: 4, when: {soft_loss: [kl]}}",
        "search.soft_loss.choices=[kl,mse]",
    ]
    assert said(*some) == ("distilled: 1 to 6 epochs; fine-tuned: 1 to 4 epochs", 6)


def test_a_longer_finalist_is_asked_for_in_whole_multiples(tiny_sweep_file: WriteSweep) -> None:
    path = tiny_sweep_file()
    sweep = load_sweep(path, ["finalists.epochs_factor=3"])
    plain = load_sweep(path)
    assert sweep.finalists == dataclasses.replace(plain.finalists, epochs_factor=3)  # the numbers that fit stay
    assert sweep.identity() == plain.identity()  # finalists may be added to a search that has run
    assert (sweep.length_factor("distilled"), sweep.length_factor("finalists")) == (1, 3)
    assert "finalists.epochs_factor >= 1 must hold, but got 0" in problems_of(path, "finalists.epochs_factor=0")
    assert "finalists.epochs_factor must be a whole number" in problems_of(path, "finalists.epochs_factor=1.5")


@pytest.mark.parametrize("field", UNSEARCHABLE)
def test_fields_that_choose_the_ranked_rows_or_the_machine_are_not_searched(
    tiny_sweep_file: WriteSweep, field: str
) -> None:
    path = tiny_sweep_file(fixed={field: None}, search={field: {"choices": ["a", "b"]}})
    assert f"search.{field}: trials that differ in {field} cannot be ranked" in problems_of(path)


def test_all_problems_of_a_file_come_at_once(tiny_sweep_file: WriteSweep) -> None:
    path = tiny_sweep_file(
        study={"trails": 3, "sampler": "x"}, enqueue=[{"beta": 1}], extra=1, fixed={"epochs": 0, "max_length": "long"}
    )
    found = problems_of(path)
    for message in ("'trails'", "study.sampler", "'beta'", "unknown key 'extra'", "max_length must be"):
        assert message in found
    path = tiny_sweep_file(study={"trials": 0}, search={"alpha": {"high": 2.0}, "beta": {}, "student": 3})
    found = problems_of(path)
    for message in (
        "study.trials >= 1",
        "search.alpha: an axis has low and high",
        "'beta'",
        "search.student must read",
    ):
        assert message in found


def test_both_ends_of_every_axis_must_make_a_trial(tiny_sweep_file: WriteSweep) -> None:
    search = {"student_layers": {"choices": [1, [0, 2], [2, 0]]}, "warmup_ratio": {"low": -0.5, "high": 1.5}}
    found = problems_of(tiny_sweep_file(fixed={"student_layers": None}, search=search))
    assert "student_layers rise from 0 must hold, but got [2, 0]" in found
    assert "0 <= warmup_ratio <= 1 must hold, but got -0.5" in found
    assert "0 <= warmup_ratio <= 1 must hold, but got 1.5" in found


def test_a_delimiter_goes_with_any_file_beside_a_dataset_of_the_hub_and_with_no_dataset_alone(
    tiny_sweep_file: WriteSweep,
) -> None:
    hub = ("fixed.train_file=null", "fixed.dataset=some/data", "fixed.csv_delimiter=;")
    assert "csv_delimiter must hold, but got csv_delimiter alone" in problems_of(tiny_sweep_file(), *hub)
    sweep = load_sweep(tiny_sweep_file(), [*hub, "fixed.unlabeled_file=texts.csv"])
    assert [sweep.trial(arm, sweep.corners(arm)[0]).csv_delimiter for arm in sweep.arms] == [";"] * 3
    model = ("fixed.teacher=null", "fixed.teacher_epochs=null", "fixed.student=some/student")
    of_file = load_sweep(tiny_sweep_file(), [*hub, *model, "fixed.teacher_file=numbers.csv"])
    assert of_file.fixed["csv_delimiter"] == ";"


def test_a_missing_teacher_is_named(tiny_sweep_file: WriteSweep) -> None:
    found = problems_of(tiny_sweep_file(fixed={"teacher": None}))
    assert "exactly one of teacher and teacher_file is named must hold, but got neither" in found


def test_a_password_in_the_storage_address_is_refused_and_never_repeated(tiny_sweep_file: WriteSweep) -> None:
    path = tiny_sweep_file(study={"trials": "x"})
    found = problems_of(path, "study.storage=postgresql://me:planted-0451@host/kd")
    assert "must not hold a password" in found and "study.trials" in found
    assert "planted" not in found and "me" not in found.replace("name", "").split()


def test_addresses_without_password_are_taken(tiny_sweep_file: WriteSweep) -> None:
    assert load_sweep(tiny_sweep_file(), ["study.storage=postgresql+psycopg://me@host/kd"]).study.storage is not None


def test_overrides_are_the_files_own_keys_and_keep_their_types(tiny_sweep_file: WriteSweep) -> None:
    overrides = ["study.trials=50", "fixed.epochs=3", "search.alpha.high=0.9", "name=full", "fixed.weight_decay=2e-5"]
    overrides += ["search.learning_rate.low=3e-5", "tracking.mode=off", "tracking.tags=[a,b]", "study.controls=null"]
    sweep = load_sweep(tiny_sweep_file(), overrides)
    assert (sweep.name, sweep.study.trials, sweep.study.controls) == ("full", 50, None)
    assert sweep.fixed["epochs"] == 3 and sweep.fixed["weight_decay"] == 2e-5
    assert sweep.search["alpha"] == Axis(low=0.0, high=0.9)
    assert sweep.search["learning_rate"].low == 3e-5
    assert sweep.tracking == TrackingConfig(mode="off", tags=("a", "b"))


def test_off_needs_no_quotes(tiny_sweep_file: WriteSweep) -> None:
    path = tiny_sweep_file()
    path.write_text(path.read_text().replace("mode: 'off'", "mode: off"))
    assert "mode: off" in path.read_text()
    assert load_sweep(path).tracking.mode == "off"


def test_paths_that_exist_become_absolute_and_others_stay(
    tiny_sweep_file: WriteSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.csv").touch()
    monkeypatch.chdir(tmp_path)
    path = tiny_sweep_file(fixed={"train_file": "mine.csv", "teacher": "prajjwal1/bert-tiny"})
    fixed = load_sweep(path).fixed
    assert (fixed["train_file"], fixed["teacher"]) == (str(tmp_path / "mine.csv"), "prajjwal1/bert-tiny")


def test_recorded_paths_stay_as_they_are_recorded(
    tiny_sweep_file: WriteSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tiny_sweep_file(fixed={"train_file": "later.csv"})
    before = load_sweep(path)
    (tmp_path / "later.csv").touch()
    assert load_sweep(path, recorded=True) == before
    assert load_sweep(path).fixed["train_file"] == str(tmp_path / "later.csv")


# Axes, arms and budgets


def make(search: dict[str, Axis], **study: Any) -> SweepConfig:
    fixed = {"train_file": "rows.csv", "teacher": "bert", "teacher_epochs": 1}
    return SweepConfig(name="x", fixed=fixed, search=search, study=StudyConfig(**study))


TWO = {"temperature": Axis(low=1.0, high=8.0), "batch_size": Axis(choices=(16, 32))}


def test_the_fine_tuned_arm_searches_neither_alpha_nor_temperature_and_fixes_both() -> None:
    sweep = make({**TWO, "alpha": Axis(low=0.0, high=1.0)})
    assert set(sweep.axes("distilled")) == {"temperature", "batch_size", "alpha"}
    assert set(sweep.axes("fine_tuned")) == {"batch_size"}
    trial = sweep.trial("fine_tuned", {"batch_size": 16})
    assert (trial.alpha, trial.temperature, trial.batch_size) == (0.0, 1.0, 16)
    distilled = sweep.trial("distilled", {"alpha": 0.3, "temperature": 4.0, "batch_size": 32})
    assert (distilled.alpha, distilled.temperature, distilled.batch_size) == (0.3, 4.0, 32)


def test_budgets() -> None:
    assert [make(TWO, trials=7).budget(arm) for arm in PRIMARY] == [7, 7]
    assert [make(TWO, trials=7, controls=3).budget(arm) for arm in PRIMARY] == [7, 3]
    assert [make(TWO, trials=7, controls=0).budget(arm) for arm in PRIMARY] == [7, 0]
    only_soft = make({"temperature": TWO["temperature"]}, trials=7)
    assert [only_soft.budget(arm) for arm in PRIMARY] == [7, 1]  # without axes, all controls would be the same
    stepped = {"temperature": Axis(low=1.0, high=8.0, step=0.5), "batch_size": TWO["batch_size"]}
    assert [make(stepped, trials=99, sampler="grid").budget(arm) for arm in PRIMARY] == [30, 2]
    assert [make(stepped, trials=4, sampler="grid").budget(arm) for arm in PRIMARY] == [4, 2]


def test_points_of_finite_axes_and_values_that_lie_on_them() -> None:
    assert Axis(low=0.0, high=1.0).points() is None
    assert Axis(low=1, high=6, step=2).points() == (1, 3, 5)
    assert Axis(low=0.1, high=0.3, step=0.1).points() == pytest.approx((0.1, 0.2, 0.3))
    assert Axis(choices=(1, (0, 2))).points() == (1, (0, 2))
    stepped = Axis(low=0.1, high=0.7, step=0.1)
    assert stepped.holds(0.3) and not stepped.holds(0.35) and not stepped.holds(0.8)
    interval = Axis(low=1.0, high=8.0, log=True)
    assert interval.holds(1.0) and interval.holds(8) and not interval.holds(8.1) and not interval.holds("2")
    assert Axis(choices=((0, 2), 3)).holds((0, 2)) and not Axis(choices=(3,)).holds(2)


def test_a_point_between_the_steps_is_not_enqueued(tiny_sweep_file: WriteSweep) -> None:
    search = {"alpha": {"low": 0.0, "high": 1.0, "step": 0.25}}
    path = tiny_sweep_file(search=search, enqueue=[{"alpha": 0.3}])
    assert "enqueue: alpha must lie in [0, 1] step 0.25, but got 0.3" in problems_of(path)
    assert load_sweep(tiny_sweep_file(search=search, enqueue=[{"alpha": 0.75}])).enqueue == ({"alpha": 0.75},)


# Finalists


@pytest.mark.parametrize(
    ("study", "finalists", "expected", "runs"),
    [
        ({"trials": 24, "controls": 24}, {}, (10, 1), 20),
        ({"trials": 20, "controls": None}, {}, (10, 1), 20),
        ({"trials": 12, "controls": 12}, {}, (6, 1), 12),  # half of the trials
        ({"trials": 10, "controls": 10}, {}, (5, 2), 20),
        ({"trials": 9, "controls": None}, {}, (5, 1), 10),
        ({"trials": 5, "controls": 5}, {}, (3, 1), 6),
        ({"trials": 3, "controls": 3}, {}, (2, 1), 4),
        ({"trials": 2, "controls": 2}, {}, (1, 2), 4),  # two runs an arm: a single one gives no verdict
        ({"trials": 1, "controls": 1}, {}, (1, 1), 2),
        ({"trials": 4, "controls": 0}, {}, (2, 2), 4),
        ({"trials": 24, "controls": 1}, {}, (5, 2), 12),
        ({"trials": 2, "controls": 2}, {"seeds": 5}, (1, 5), 10),  # what is named stays
        ({"trials": 24, "controls": 24}, {"seeds": 3}, (3, 3), 18),
        ({"trials": 40, "controls": 40}, {"seeds": 20}, (2, 20), 80),
        ({"trials": 24, "controls": 24}, {"top": 3}, (3, 3), 18),
        ({"trials": 24, "controls": 24}, {"top": 12}, (12, 1), 24),
        ({"trials": 4, "controls": 4}, {"top": 5}, (5, 1), 8),
        ({"trials": 2, "controls": 2}, {"top": 3, "seeds": 3}, (3, 3), 12),
        ({"trials": 2, "controls": 2}, {"top": 0}, (0, 3), 0),
    ],
)
def test_finalists_that_are_not_named_take_no_more_runs_than_the_search(
    tiny_sweep_file: WriteSweep,
    tmp_path: Path,
    study: dict[str, Any],
    finalists: dict[str, int],
    expected: tuple[int, int],
    runs: int,
) -> None:
    path = tiny_sweep_file(study=study, finalists={"top": None, **finalists})
    sweep = load_sweep(path)
    assert (sweep.finalists.top, sweep.finalists.seeds) == expected and sweep.finalist_runs() == runs
    again = tmp_path / "sweep.yaml"
    again.write_text(sweep_yaml(sweep), encoding="utf-8")
    assert load_sweep(again) == sweep  # what workers and reports read
    raised = load_sweep(path, ["study.trials=30", "study.controls=30"])
    assert raised.identity() == sweep.identity()
    assert finalists.items() <= {"top": raised.finalists.top, "seeds": raised.finalists.seeds}.items()


def test_a_file_without_the_key_has_finalists_and_null_switches_them_off(tiny_sweep_file: WriteSweep) -> None:
    study = {"trials": 20, "controls": 20}
    path = tiny_sweep_file(study=study)
    path.write_text(path.read_text().replace("finalists:\n  top: 0\n", ""))
    assert "finalists" not in path.read_text() and load_sweep(path).finalists == FinalistsConfig()
    assert load_sweep(path, ["finalists=null"]).finalist_runs() == 0
    assert load_sweep(tiny_sweep_file("off", study=study, finalists=None)).finalist_runs() == 0
    named = tiny_sweep_file("named", study=study, finalists={"top": 2, "seeds": 2})
    assert load_sweep(named, ["finalists=null"]).finalist_runs() == 0
    assert load_sweep(named, ["finalists={}"]).finalist_runs() == 8


def test_null_switches_tracking_off_leaves_the_studys_defaults_and_is_no_search(tiny_sweep_file: WriteSweep) -> None:
    path = tiny_sweep_file(tracking={"mode": "online"})
    assert load_sweep(path, ["tracking=null"]).tracking == TrackingConfig(mode="off")
    assert load_sweep(path, ["study=null"]).study == StudyConfig()
    assert load_sweep(path, ["study.constraints=null"]).study.constraints.limits() == {}
    assert "search must name at least one axis" in problems_of(path, "search=null")


def test_the_forms_to_export_and_their_margin_in_points_may_be_named(tiny_sweep_file: WriteSweep) -> None:
    path = tiny_sweep_file(export={"margin": 1, "forms": ["int8"]})
    export = load_sweep(path).export
    assert (export.margin, export.margin_share, export.forms) == (1.0, 0.01, ("int8",))
    for default in (load_sweep(path, ["export=null"]), load_sweep(tiny_sweep_file("without"))):
        assert default.export == ExportConfig(margin=0.5, forms=("fp32", "int8"))


def test_constraints_may_mean_an_exported_form_which_is_part_of_what_a_sweep_is(tiny_sweep_file: WriteSweep) -> None:
    plain = load_sweep(tiny_sweep_file(), ["study.constraints.size_mb=20"])
    assert (plain.study.constraints.onnx_form, plain.study.constraints.text()) == (None, "size_mb <= 20")
    assert "study.constraints.form" not in plain.identity()
    sweep = load_sweep(tiny_sweep_file(), ["study.constraints={latency_ms_p50: 5, size_mb: 20, form: int8}"])
    constraints = sweep.study.constraints
    assert constraints.limits() == {"latency_ms_p50": 5.0, "size_mb": 20.0} and constraints.onnx_form == "int8"
    assert constraints.text() == "latency_ms_p50 <= 5 and size_mb <= 20, as int8"
    assert "  study.constraints.form: not set, now int8" in identity_changes(plain.identity(), sweep.identity())
    said = problems_of(tiny_sweep_file(), "study.constraints.form=int8")
    assert "so one of them must be set beside it, but got form int8 alone" in said


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("export.margin=0", "0 < export.margin <= 100 must hold, but got 0"),
        ("export.margin=101", "0 < export.margin <= 100 must hold"),
        ("export.margin=little", "export.margin must be a finite number"),
        ("export.forms=[]", "export.forms names at least one form, and none twice, but got []"),
        ("export.forms=[int8,int8]", "none twice, but got ['int8', 'int8']"),
        ("export.forms=[int4]", "fp32 or int8"),
        ("study.constraints.form=int4", "study.constraints.form must be pytorch or fp32 or int8"),
        ("export.froms=[int8]", "did you mean 'forms'?"),
        ("export=0.5", "export must be a mapping"),
    ],
)
def test_a_margin_or_a_form_that_cannot_be_is_refused(tiny_sweep_file: WriteSweep, override: str, said: str) -> None:
    assert said in problems_of(tiny_sweep_file(), override)


# Round trip and identity


def random_sweep(rng: random.Random) -> SweepConfig:
    def interval(low: float, high: float) -> Axis:
        ends = sorted(rng.uniform(low, high) for _ in range(2))
        kind = rng.choice([{}, {"log": True}, {"step": (ends[1] - ends[0]) / 7}])
        return Axis(low=ends[0], high=ends[1], **kind)

    axes = {
        "temperature": interval(1e-3, 30),
        "alpha": interval(1e-9, 1),
        "learning_rate": interval(1e-7, 1e-2),
        "batch_size": rng.choice([Axis(low=8, high=64), Axis(choices=(8, 64))]),
        "student_layers": Axis(choices=(2, (0, 3), (1,), "last:2")),
        "student": Axis(choices=("from_teacher", "null", "1e5")),
    }
    chosen = dict(rng.sample(sorted(axes.items()), rng.randrange(1, len(axes) + 1)))
    queue = tuple({name: rng.choice(axis.ends()) for name, axis in chosen.items()} for _ in range(rng.randrange(3)))
    fixed: dict[str, Any] = {"train_file": "rows.csv", "teacher": "1e5", "teacher_epochs": 1, "label_names": ("a", "b")}
    if "weight_decay" not in chosen:
        fixed["weight_decay"] = rng.random() * 10 ** rng.uniform(-12, 0)
    study = StudyConfig(trials=rng.randrange(1, 99), controls=rng.choice([None, 3]), seed=rng.randrange(2**40))
    tracking = TrackingConfig(mode=rng.choice(["off", "auto"]), tags=("a", "off"))  # type: ignore[arg-type]
    export = ExportConfig(margin=rng.uniform(0.01, 5), forms=rng.choice([("int8",), ("int8", "fp32")]))
    parts: dict[str, Any] = {"study": study, "tracking": tracking, "export": export}
    return SweepConfig(name="n0", fixed=fixed, search=chosen, enqueue=queue, **parts)


@pytest.mark.slow
def test_random_sweeps_come_back_from_yaml_bit_for_bit(tmp_path: Path) -> None:
    rng = random.Random(0)
    for _ in range(20):
        sweep = random_sweep(rng)
        path = tmp_path / "sweep.yaml"
        path.write_text(sweep_yaml(sweep), encoding="utf-8")
        again = load_sweep(path)
        assert again == sweep
        assert again.identity() == sweep.identity()
        assert list(again.search) == list(sweep.search)


def test_the_identity_holds_all_that_decides_a_result_and_no_budget() -> None:
    sweep = make(TWO, trials=5)
    grown = dataclasses.replace(sweep, study=dataclasses.replace(sweep.study, trials=9, controls=2, keep_students=1))
    assert identity_changes(sweep.identity(), grown.identity()) == []
    moved = dataclasses.replace(sweep, study=dataclasses.replace(sweep.study, storage="sqlite:///elsewhere.db"))
    assert identity_changes(sweep.identity(), moved.identity()) == []
    tracked = dataclasses.replace(sweep, tracking=TrackingConfig(mode="off"))
    assert identity_changes(sweep.identity(), tracked.identity()) == []
    exported = dataclasses.replace(sweep, export=ExportConfig(margin=2.0, forms=("fp32",)))
    assert identity_changes(sweep.identity(), exported.identity()) == []


def test_what_changed_is_told_a_line_each() -> None:
    sweep = make(TWO)
    other = dataclasses.replace(
        sweep,
        fixed={**sweep.fixed, "teacher_epochs": 2, "epochs": 9},
        search={"temperature": Axis(low=1.0, high=9.0)},
        enqueue=({"temperature": 2.0},),
        study=dataclasses.replace(sweep.study, seed=3),
    )
    assert identity_changes(sweep.identity(), other.identity()) == [
        "  study.seed: 0, now 3",
        "  fixed.teacher_epochs: 1, now 2",
        "  search.temperature: [1, 8], now [1, 9]",
        "  search.batch_size: {16, 32}, now not set",
        "  fixed.epochs: not set, now 9",
        "  enqueue[0]: not set, now {'temperature': 2.0}",
    ]


def test_axes_that_differ_beyond_six_digits_are_not_the_same() -> None:
    old, new = (make({"alpha": Axis(low=0.0, high=high)}) for high in (0.8999999, 0.9))
    assert identity_changes(old.identity(), new.identity()) != []


def test_values_of_a_field_are_its_axis_its_fixed_value_or_its_default() -> None:
    sweep = make(TWO)
    assert sweep.values("batch_size") == (16, 32)
    assert sweep.values("temperature") == (1.0, 8.0)
    assert sweep.values("teacher_epochs") == (1,)
    assert sweep.values("epochs") == (TrialConfig(train_file="x", teacher="t", teacher_epochs=1).epochs,)


# Texts without labels: a third arm

TEXTS: dict[str, Any] = {"train_limit": 40, "unlabeled_rest": True, "epochs": 1}


def test_a_sweep_with_texts_without_labels_has_a_third_arm_unless_it_has_no_trials() -> None:
    sweep = make(TWO, trials=7)
    assert sweep.arms == PRIMARY and sweep.stages == (*PRIMARY, "finalists") and not sweep.has_unlabeled()
    for texts in ({"unlabeled_file": "more.csv"}, {"unlabeled_rest": True}, {"unlabeled_split": "unsupervised"}):
        with_texts = dataclasses.replace(sweep, fixed={**sweep.fixed, **texts})
        assert with_texts.arms == ARMS and [with_texts.budget(arm) for arm in ARMS] == [7, 7, 7]
        assert with_texts.finalist_runs() == 21
        for count, arms in ((3, ARMS), (0, PRIMARY)):
            study = dataclasses.replace(sweep.study, pseudo_labeled=count)
            fewer = dataclasses.replace(with_texts, study=study)
            assert fewer.arms == arms and fewer.budget("pseudo_labeled") == count
            assert fewer.identity() == with_texts.identity()
    searched = make({**TWO, "unlabeled_file": Axis(choices=("more.csv", "most.csv"))})
    assert searched.arms == ARMS and set(searched.axes("fine_tuned")) == {"batch_size"}


def test_what_each_arm_fixes_leaves_the_control_the_labelled_rows_alone_and_the_third_arm_no_soft_target() -> None:
    fixed = {**TEXTS, "unlabeled_limit": 99, "relation_weight": 2.0, "relation_heads": 4, "soft_loss": "mse"}
    search = {**TWO, "alpha": Axis(low=0.0, high=1.0), "unlabeled_share": Axis(low=0.1, high=0.9)}
    search |= {"alpha_end": Axis(low=0.0, high=0.5), "label_smoothing": Axis(low=0.0, high=0.2)}
    sweep = make(search)
    sweep = dataclasses.replace(sweep, fixed={**sweep.fixed, **fixed})
    assert set(sweep.axes("fine_tuned")) == {"batch_size", "label_smoothing"}
    assert set(sweep.axes("pseudo_labeled")) == {"batch_size", "label_smoothing", "unlabeled_share"}
    plain = make(TWO).trial("fine_tuned", {"batch_size": 16})
    control = sweep.trial("fine_tuned", {"batch_size": 16})
    assert control == dataclasses.replace(plain, train_limit=40, epochs=1), "as in a sweep without such texts"
    pseudo = sweep.trial("pseudo_labeled", {"batch_size": 16, "unlabeled_share": 0.5})
    wanted = {"unlabeled_rest": True, "unlabeled_limit": 99, "unlabeled_share": 0.5, "pseudo_labels": True}
    assert pseudo == dataclasses.replace(control, **wanted)
    distilled = sweep.trial("distilled", {"alpha": 1.0, "temperature": 2.0})
    assert (distilled.soft_loss, distilled.relation_weight, distilled.pseudo_labels) == ("mse", 2.0, False)


def test_what_an_arm_fixes_beside_alpha_and_temperature_is_the_default() -> None:
    other = {name: value for name, value in FIXED_BY["pseudo_labeled"].items() if value != TRIAL_DEFAULTS[name]}
    assert other == {"alpha": 0.0, "temperature": 1.0, "pseudo_labels": True}
    other = {name: value for name, value in FIXED_BY["fine_tuned"].items() if value != TRIAL_DEFAULTS[name]}
    assert other == {"alpha": 0.0, "temperature": 1.0}


# Axes of some arms


def test_an_axis_may_belong_to_some_arms_and_the_others_have_the_fixed_value(tiny_sweep_file: WriteSweep) -> None:
    search = {"weight_decay": {"choices": [0.0, 0.1], "arms": ["fine_tuned"]}}
    sweep = load_sweep(tiny_sweep_file(fixed={"weight_decay": 0.05}, search=search))
    assert "weight_decay" in sweep.axes("fine_tuned") and "weight_decay" not in sweep.axes("distilled")
    assert sweep.values("weight_decay") == (0.0, 0.1, 0.05)
    params = {name: axis.ends()[0] for name, axis in sweep.axes("distilled").items()}
    assert sweep.trial("distilled", params).weight_decay == 0.05
    assert sweep.trial("fine_tuned", {**params, "weight_decay": 0.1}).weight_decay == 0.1
    assert load_sweep(tiny_sweep_file("d", search=search)).values("weight_decay") == (0.0, 0.1, 0.01)
    without = load_sweep(tiny_sweep_file("e", search={"weight_decay": {"choices": [0.0, 0.1]}}))
    changed = identity_changes(without.identity(), dataclasses.replace(without, search=sweep.search).identity())
    assert changed == ["  search.weight_decay.arms: not set, now fine_tuned"]


def test_a_sweep_of_three_arms_and_an_axis_of_one_comes_back_from_yaml(
    tiny_sweep_file: WriteSweep, tmp_path: Path
) -> None:
    search = {"weight_decay": {"choices": [0.0, 0.1], "arms": ["fine_tuned", "pseudo_labeled"]}}
    path = tiny_sweep_file(fixed={**TEXTS, "weight_decay": 0.05}, study={"pseudo_labeled": 2}, search=search)
    sweep = load_sweep(path)
    (tmp_path / "again.yaml").write_text(sweep_yaml(sweep), encoding="utf-8")
    again = load_sweep(tmp_path / "again.yaml")
    assert again == sweep and again.identity() == sweep.identity() and again.arms == ARMS


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.weight_decay.arms=[control]", "search.weight_decay: must be distilled or fine_tuned or pseudo_labeled"),
        ("search.weight_decay.arms=all", "search.weight_decay: must be a list of distilled or fine_tuned or pseudo_"),
        ("search.weight_decay.arms=[pseudo_labeled]", "the sweep's arms are distilled, fine_tuned, but got pseudo_labeled"),
        ("search.alpha.arms=[fine_tuned]", "search.alpha.arms: an arm that fixes alpha cannot search it: fine_tuned always"),
        ("search.weight_decay.arms=[distilled,fine_tuned]", "weight_decay is both fixed and searched in every arm"),
        ("enqueue=[{weight_decay: 0.1}]", "enqueue: the distilled arm tries the points, but does not search weight_decay"),
        ("study.pseudo_labeled=3", "study.pseudo_labeled: the arm needs texts without labels (unlabeled_file, unlabeled_split"),
        ("study.pseudo_labeled=-1", "study.pseudo_labeled >= 0 must hold, but got -1"),
        ("fixed.weight_decay=-1", "weight_decay >= 0 must hold, but got -1.0"),
    ],
)  # fmt: skip
def test_an_axis_or_a_budget_of_an_arm_that_cannot_have_it_is_refused(
    tiny_sweep_file: WriteSweep, override: str, message: str
) -> None:
    axis = {"choices": [0.0, 0.1], "arms": ["fine_tuned"]}
    path = tiny_sweep_file(fixed={"weight_decay": 0.05}, search={"weight_decay": axis})
    load_sweep(path)
    assert message in problems_of(path, override)


def test_a_field_that_every_trial_needs_is_not_searched_in_one_arm_alone(tiny_sweep_file: WriteSweep) -> None:
    search = {"teacher": {"choices": ["a", "b"], "arms": ["fine_tuned"]}}
    assert "of teacher and teacher_file is named must hold, but got neither" in problems_of(
        tiny_sweep_file(fixed={"teacher": None}, search=search)
    )
