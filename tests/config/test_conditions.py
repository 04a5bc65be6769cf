"""Axes with a condition: where they are searched, what is refused, and that a sweep without one is what it was."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kdsweep.config.axis import Axis
from kdsweep.config.conditions import corners, holds, in_order, points
from kdsweep.config.sweep import StudyConfig, SweepConfig, identity_changes, sweep_yaml
from kdsweep.config.sweep_file import load_sweep
from kdsweep.config.trial import TrialConfig
from kdsweep.errors import ConfigError

WriteSweep = Callable[..., Path]
KL = {"soft_loss": ["kl"]}
FIXED = {"train_file": "rows.csv", "teacher": "bert", "teacher_epochs": 1}
SEARCH = {
    "temperature": Axis(low=1.0, high=3.0, step=1.0, when={"soft_loss": ("kl",)}),
    "alpha": Axis(choices=(0.5, 1.0)),
    "soft_loss": Axis(choices=("kl", "mse")),
}


def sweep_of(search: dict[str, Axis], fixed: dict[str, Any] | None = None, **study: Any) -> SweepConfig:
    return SweepConfig(name="s", fixed={**FIXED, **(fixed or {})}, search=search, study=StudyConfig(**study))


def test_a_condition_is_about_all_of_its_fields_and_waits_for_them() -> None:
    when = {"soft_loss": ("kl",), "batch_size": (16, 32)}
    assert holds(when, {"soft_loss": "kl", "batch_size": 32}) and holds({}, {})
    assert not holds(when, {"soft_loss": "kl", "batch_size": 64})
    nothing: dict[str, tuple[Any, ...]] = {}
    assert in_order({"a": {"b": (1,)}, "b": {"c": (1,)}, "c": nothing, "d": nothing}) == ["c", "b", "a", "d"]
    assert in_order({"a": {"b": (1,)}, "b": {"a": (1,)}, "c": nothing}) == ["c"], "a circle"


def test_points_and_corners_have_an_axis_only_where_it_applies() -> None:
    applies = lambda name, point: name != "t" or point["loss"] == "kl"
    axes = {"loss": ("kl", "mse"), "t": (1, 2), "a": (0, 1)}
    assert points({"loss": ("kl", "mse"), "t": (1, 2)}, applies) == [
        {"loss": "kl", "t": 1},
        {"loss": "kl", "t": 2},
        {"loss": "mse"},
    ]
    assert corners(axes, {"loss"}, applies) == [
        {"loss": "kl", "t": 1, "a": 0},
        {"loss": "mse", "a": 0},
        {"loss": "kl", "t": 2, "a": 0},
        {"loss": "kl", "t": 1, "a": 1},
    ]
    assert corners({"a": (0, 1), "b": (2, 3)}, set(), applies) == [{"a": 0, "b": 2}, {"a": 1, "b": 2}, {"a": 0, "b": 3}]


def test_an_arm_searches_the_axes_whose_condition_can_hold_there_each_after_those_that_it_names() -> None:
    sweep = sweep_of({**SEARCH, "label_smoothing": Axis(low=0.0, high=0.2, when={"soft_loss": ("mse",)})})
    assert list(sweep.axes("distilled")) == ["alpha", "soft_loss", "temperature", "label_smoothing"]
    assert list(sweep.axes("fine_tuned")) == [], "soft_loss is kl there, always"
    assert sweep.budget("fine_tuned") == 1
    assert sweep.axes("distilled").keys() == sweep.search.keys()
    plain = {name: replace(axis, when={}) for name, axis in SEARCH.items()}
    assert list(sweep_of(plain).axes("distilled")) == list(plain), "the order of the file"


def test_without_the_condition_a_field_has_its_fixed_or_default_value() -> None:
    sweep = sweep_of(SEARCH, {"temperature": 5.0})
    assert sweep.trial("distilled", {"soft_loss": "mse", "alpha": 1.0}).temperature == 5.0
    assert sweep.trial("distilled", {"soft_loss": "kl", "alpha": 1.0, "temperature": 3.0}).temperature == 3.0
    assert sweep_of(SEARCH).trial("distilled", {"soft_loss": "mse"}).temperature == 2.0
    assert sweep.values("temperature") == (1.0, 3.0, 5.0) and sweep.values("alpha") == (0.5, 1.0)
    mse, kl = (sweep.trial("distilled", {"soft_loss": loss, "alpha": 1.0}) for loss in ("mse", "kl"))
    assert sweep.searched(mse) == {"temperature": None, "alpha": 1.0, "soft_loss": "mse"}
    assert sweep.searched(kl) == {"temperature": 5.0, "alpha": 1.0, "soft_loss": "kl"}


def test_a_grid_has_each_point_once_without_fields_that_nobody_searches_there() -> None:
    sweep = sweep_of(SEARCH, sampler="grid", trials=99)
    grid = sweep.grid("distilled")
    assert len(grid) == sweep.budget("distilled") == 2 * (3 + 1)
    assert len({sweep.trial("distilled", point) for point in grid}) == len(grid)
    assert [point for point in grid if point["soft_loss"] == "mse"] == [
        {"alpha": alpha, "soft_loss": "mse"} for alpha in (0.5, 1.0)
    ]


def test_a_condition_is_part_of_text_and_identity_and_an_axis_without_one_is_what_it_was() -> None:
    axis = SEARCH["temperature"]
    assert axis.text() == "[1, 3] step 1 when soft_loss is kl"
    assert Axis(choices=(1,), when={"soft_loss": ("kl", "mse"), "student_layers": ((0, 2),)}).text() == (
        "{1} when soft_loss is kl or mse and student_layers is [0, 2]"
    )
    before, after = (sweep_of({**SEARCH, "temperature": each}) for each in (replace(axis, when={}), axis))
    assert identity_changes(before.identity(), after.identity()) == [
        "  search.temperature: [1, 3] step 1, now [1, 3] step 1 when soft_loss is kl"
    ]
    assert "when" not in sweep_yaml(before)


def conditional(write: WriteSweep, when: Any = KL, **sections: Any) -> Path:
    """A sweep of two soft losses, whose temperature has a condition."""
    temperature = {"low": 1.0, "high": 8.0, "log": True, "when": when}
    search = {"soft_loss": {"choices": ["kl", "mse"]}, "temperature": temperature, **sections.pop("search", {})}
    return write(search=search, **sections)


def test_a_file_with_a_condition_comes_back_as_it_was(tiny_sweep_file: WriteSweep, tmp_path: Path) -> None:
    layers = {"choices": [0.0, 0.1], "when": {"student_layers": [1, [0, 2]], "soft_loss": ["kl", "mse"]}}
    search = {"student_layers": {"choices": [1, [0, 2]]}, "label_smoothing": layers}
    fixed = {"temperature": 4.0, "student_layers": None, "student_init": None, "teacher_epochs": 1}
    sweep = load_sweep(conditional(tiny_sweep_file, search=search, fixed=fixed))
    assert sweep.search["temperature"].when == {"soft_loss": ("kl",)}
    assert sweep.search["label_smoothing"].when == {"student_layers": (1, (0, 2)), "soft_loss": ("kl", "mse")}
    assert sweep.fixed["temperature"] == 4.0, "its value under mse"
    (tmp_path / "again.yaml").write_text(sweep_yaml(sweep), encoding="utf-8")
    again = load_sweep(tmp_path / "again.yaml", recorded=True)
    assert again == sweep and again.identity() == sweep.identity()


def test_a_condition_comes_and_goes_on_the_command_line(tiny_sweep_file: WriteSweep) -> None:
    path, losses = tiny_sweep_file(), "search.soft_loss.choices=[kl,mse]"
    assert load_sweep(path, [losses, "search.temperature.when.soft_loss=[kl]"]).search["temperature"].when == {
        "soft_loss": ("kl",)
    }
    conditional(tiny_sweep_file)
    assert load_sweep(path, ["search.temperature.when=null"]).search["temperature"].when == {}
    dropped = load_sweep(path, ["search.soft_loss=null"])
    assert list(dropped.axes("distilled")) == list(dropped.search) == ["temperature", "alpha", "learning_rate"], (
        "kl is the default"
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.temperature.when=kl", "search.temperature: when must read {field: [value, ...]}, such as"),
        ("search.temperature.when.soft_loss=kl", "when must read {field: [value, ...]}"),
        ("search.temperature.when.soft_loss=[]", "when must read {field: [value, ...]}"),
        ("search.temperature.when={soft_los: [kl]}", "when: unknown key 'soft_los'; did you mean 'soft_loss'?"),
        ("search.temperature.when.soft_loss=[mae]", "search.temperature: must be kl or mse, but got 'mae'"),
        ("search.soft_loss.choices=[mse]", "soft_loss must be among its choices ['mse'], but got 'kl'"),
        ("search.temperature.when={temperature: [2]}", "when must name other fields than temperature itself"),
        ("search.temperature.when={alpha: [1]}", "but alpha is searched over an interval"),
        (
            "search.temperature.when={epochs: [9]}",
            "when: epochs must be one of [9] in some trial, but is always 2: fix",
        ),
        ("search.temperature.when={warmup_ratio: [0.2]}", "must be one of [0.2] in some trial, but is always 0.1: fix"),
        ("search.temperature.when={teacher_revision: [x]}", "no condition can name it"),
        ("search.soft_loss.when={max_length: [9]}", "max_length must be one of [9]"),
        ("search.temperature.high=-1", "low < high must hold"),
        ("search.temperature={low: -1, high: 8, log: false, when: {soft_loss: [kl]}}", "temperature > 0 must hold"),
        ("enqueue=[{temperature: 2}]", "enqueue: temperature is searched only when soft_loss is kl, so a point that"),
        ("enqueue=[{temperature: 2, soft_loss: mse}]", "but got {'temperature': 2.0, 'soft_loss': 'mse'}"),
        (
            "search.teacher={choices: [a, b], when: {soft_loss: [kl]}}",
            "teacher and teacher_file is named must hold, but got neither",
        ),
    ],
)
def test_a_condition_that_says_nothing_is_refused(tiny_sweep_file: WriteSweep, override: str, message: str) -> None:
    path = conditional(tiny_sweep_file, fixed={"teacher": None} if ".teacher=" in override else {})
    with pytest.raises(ConfigError) as error:
        load_sweep(path, [override])
    assert message in "\n".join(error.value.problems)


def test_conditions_that_wait_for_each_other_or_exclude_each_other_are_refused(tiny_sweep_file: WriteSweep) -> None:
    layers = {"student_layers": {"choices": [1, 2], "when": {"student_init": ["finetuned"]}}}
    init = {"student_init": {"choices": ["pretrained", "finetuned"], "when": {"student_layers": [1]}}}
    of_a_student = {"student_layers": None, "student_init": None, "teacher_epochs": 1}
    with pytest.raises(ConfigError, match="those of student_layers, student_init wait for each other"):
        load_sweep(conditional(tiny_sweep_file, search={**layers, **init}, fixed=of_a_student))
    under_mse = {"label_smoothing": {"choices": [0.0, 0.1], "when": {"soft_loss": ["mse"]}}}
    never = {"warmup_ratio": {"low": 0.0, "high": 0.5, "when": {"soft_loss": ["kl"], "label_smoothing": [0.1]}}}
    with pytest.raises(ConfigError, match="search.warmup_ratio is in no trial, since no trial has soft_loss is kl and"):
        load_sweep(conditional(tiny_sweep_file, search={**under_mse, **never}))


def test_recipes_that_say_their_condition_are_taken(tiny_sweep_file: WriteSweep) -> None:
    queue = [{"soft_loss": "kl", "temperature": 2.0}, {"soft_loss": "mse", "alpha": 1.0}, {"alpha": 0.5}]
    assert load_sweep(conditional(tiny_sweep_file, enqueue=queue)).enqueue == tuple(queue)
    always = conditional(tiny_sweep_file, enqueue=[{"temperature": 2.0}])
    assert load_sweep(always, ["search.soft_loss=null"]).enqueue == ({"temperature": 2.0},)


def test_every_end_is_built_under_its_condition(tiny_sweep_file: WriteSweep) -> None:
    path = conditional(tiny_sweep_file, when={"soft_loss": ["mse"]})
    assert {"soft_loss": "mse", "temperature": 8.0, "alpha": 0.0, "learning_rate": 5e-4} in load_sweep(path).corners()
    with pytest.raises(ConfigError, match="temperature > 0 must hold, but got -2.0"):
        load_sweep(
            path, ["search.temperature={choices: [-2, 1], when: {soft_loss: [mse]}, low: null, high: null, log: null}"]
        )


def test_a_number_that_may_be_null_is_searched_over_an_interval(tiny_sweep_file: WriteSweep) -> None:
    path = tiny_sweep_file(search={"temperature_end": {"low": 1, "high": 4}, "alpha_end": {"choices": [None, 1.0]}})
    sweep = load_sweep(path)
    assert sweep.search["temperature_end"].ends() == (1.0, 4.0) and sweep.search["alpha_end"].ends() == (None, 1.0)
    assert set(sweep.axes("fine_tuned")) == {"learning_rate"}, "they shape the soft term"
    for wrong in ("search.temperature_end.low=0", "search.alpha_end.choices=[1.5]"):
        with pytest.raises(ConfigError, match="must hold, but got"):
            load_sweep(path, [wrong])


@pytest.mark.parametrize(
    "wrong", [{"temperature_end": 0.0}, {"alpha_end": 1.5}, {"alpha_end": -0.1}, {"label_smoothing": 2.0}]
)
def test_a_schedule_never_leaves_the_range_of_its_field(wrong: dict[str, Any]) -> None:
    with pytest.raises(
        ConfigError, match=f"{next(iter(wrong))} .*must hold, but got|<= {next(iter(wrong))} <= 1 must hold"
    ):
        TrialConfig(train_file="rows.csv", teacher="bert", teacher_epochs=1, **wrong)


def test_the_fine_tuned_arm_has_smoothed_labels_of_its_own_and_nothing_of_the_soft_term() -> None:
    soft: dict[str, Any] = {"temperature_end": 4.0, "alpha_end": 1.0, "soft_loss": "mse"}
    sweep = sweep_of({"label_smoothing": Axis(low=0.0, high=0.2), "alpha": Axis(low=0.0, high=1.0)}, soft)
    tuned = sweep.trial("fine_tuned", {"label_smoothing": 0.1})
    assert set(sweep.axes("fine_tuned")) == {"label_smoothing"} and tuned.label_smoothing == 0.1
    assert (tuned.alpha, tuned.alpha_end, tuned.temperature_end, tuned.soft_loss) == (0.0, None, None, "kl")
