"""The project's view holds what it promises, and is what wandb-workspaces made of it when it was last looked at."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from makers import AXES, sweep_of

from kdsweep.config.axis import Axis
from kdsweep.config.sweep import StudyConfig, SweepConfig
from kdsweep.records.schema import Pages
from kdsweep.tracking.pages import grouped_in_the_table_alone
from kdsweep.tracking.workspace import MOST_PINNED, Shown, build_report, build_view

STORED = Path(__file__).with_name("view.json")
FINALISTS = ("d0s1-a1-k3x9qz", "f1s1-a1-k3x9qz", "d2s1-a2-k3x9qz")
SECTIONS = (("Verdict", "**Better.** By 3 points."), ("Finalists", "| rank |\n|---|\n| 1 |"))


def shown(sweep: SweepConfig, **changes: Any) -> Shown:
    facts: dict[str, Any] = {"baseline": FINALISTS[1], "pinned": FINALISTS, "headline": "Better", "sections": SECTIONS}
    return Shown(sweep=sweep, **{**facts, **changes})


def dumped(model: Any) -> Any:
    """What is sent to W&B, without the ids that are drawn for panels."""
    return without_ids(json.loads(model.model_dump_json(by_alias=True, exclude_none=True)))


def without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_ids(inside) for key, inside in value.items() if key != "__id__"}
    return [without_ids(inside) for inside in value] if isinstance(value, list) else value


def view_of(sweep: SweepConfig, **changes: Any) -> dict[str, Any]:
    section: dict[str, Any] = dumped(grouped_in_the_table_alone(build_view(shown(sweep, **changes), "team")).spec)[
        "section"
    ]
    return section


def panels_of(section: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """By the heading of their section."""
    return {part["name"]: part["panels"] for part in section["panelBankConfig"]["sections"]}


def test_the_view_is_the_stored_one() -> None:
    """Where the view or its package changed on purpose: STORED.write_text(json.dumps(now, indent=1)), and read the difference."""
    now = dumped(grouped_in_the_table_alone(build_view(shown(sweep_of()), "team")).spec)
    assert now == json.loads(STORED.read_text(encoding="utf-8"))


def test_the_view_shows_the_search_the_losses_and_the_curves_of_single_runs() -> None:
    section = view_of(sweep_of())
    panels = panels_of(section)
    assert list(panels) == ["Search", "Losses", "Validation"]
    lines, scatter, importance = panels["Search"]
    assert [column["accessor"] for column in lines["config"]["columns"]] == [
        *(f"config:{name}.value" for name in AXES),
        "summary:val_accuracy.last",
    ]
    axes = {name: scatter["config"][name] for name in ("xAxis", "yAxis", "zAxis", "xAxisLogScale")}
    assert list(axes.values()) == ["config:temperature.value", "config:alpha.value", "summary:val_accuracy.last", True]
    assert importance["config"]["targetKey"] == "val_accuracy.last"
    curves = [
        (panel["config"]["xAxis"], *panel["config"]["metrics"]) for panel in panels["Losses"] + panels["Validation"]
    ]
    assert curves[:4] == [("step", "L_soft"), ("step", "L_hard"), ("step", "L_total"), ("epoch", "val_accuracy")]
    assert not section["settings"]["useRunsTableGroupingInPanels"] and section["settings"]["maxRuns"] == 12 * 2 + 20 + 2


def test_the_views_table_has_pinned_columns_groups_baseline_and_finalists() -> None:
    (runs,) = view_of(sweep_of())["runSets"]
    assert runs["grouping"] == [{"section": "run", "name": "jobType"}]
    assert [(each["key"]["name"], each["value"]) for each in runs["filters"]["filters"]] == [("group", "s")]
    columns = runs["runFeed"]["columnOrder"]
    assert columns[:3] == ["run:displayName", "summary:val_accuracy.last", "config:temperature.value"]
    assert columns[-4:] == ["summary:rank", "summary:verdict", "summary:latency_ms_p50", "summary:size_mb"]
    baseline, *others = runs["pinnedRunIds"]
    assert baseline == runs["baselineRunId"] and len(others) == 2


def test_a_sweep_without_baseline_or_with_many_finalists_has_a_view_too() -> None:
    (runs,) = view_of(sweep_of(), baseline=None, pinned=())["runSets"]
    assert "baselineRunId" not in runs and "pinnedRunIds" not in runs
    many = tuple(f"d{trial}s1-a1-k3x9qz" for trial in range(50))
    (runs,) = view_of(sweep_of(), pinned=many)["runSets"]
    assert len(runs["pinnedRunIds"]) == MOST_PINNED and runs["baselineRunId"] in runs["pinnedRunIds"]


@pytest.mark.parametrize(
    ("search", "plots", "metric"),
    [
        ({"learning_rate": AXES["learning_rate"]}, 2, "val_accuracy"),
        ({"learning_rate": AXES["learning_rate"], "alpha": AXES["alpha"]}, 3, "val_mcc"),
        ({"student_layers": Axis(choices=(2, (0, 1))), "alpha": AXES["alpha"]}, 2, "val_macro_f1"),
    ],
)
def test_what_a_sweep_does_not_search_is_not_drawn(search: dict[str, Axis], plots: int, metric: Any) -> None:
    sweep = replace(sweep_of(search, relation_weight=1.0), study=StudyConfig(trials=12, metric=metric))
    panels = panels_of(view_of(sweep))
    assert len(panels["Search"]) == plots
    said = panels["Search"][0]["config"]["columns"][-1]["accessor"]
    assert said == f"summary:{metric}{'.last' if metric == 'val_accuracy' else ''}"
    assert [panel["config"]["metrics"] for panel in panels["Losses"]][-1] == ["L_relation"]
    assert len(panels["Validation"]) == (4 if metric == "val_accuracy" else 5)


def test_the_report_says_the_verdict_first_and_takes_the_place_of_the_one_before() -> None:
    report = build_report(shown(sweep_of(name="s" * 200)), "team", None, "https://w/v")
    assert (report.id, report.description, len(report.title)) == ("", "Better", 128)
    kinds = [type(block).__name__ for block in report.blocks]
    assert kinds == ["H1", "MarkdownBlock", "P", "PanelGrid", "H1", "MarkdownBlock"]
    assert [block.text for block in report.blocks if type(block).__name__ == "MarkdownBlock"] == [
        t for _, t in SECTIONS
    ]
    pages = Pages(view_url="https://w/v", report_url="https://w/r", report_id="abc")
    assert build_report(shown(sweep_of()), "team", pages, "https://w/v").id == "abc"


@pytest.mark.parametrize(
    ("task", "metric", "summary", "curves"),
    [
        ("multi_label", "val_example_f1", "val_example_f1.last", ["val_example_f1", "val_macro_f1", "val_map"]),
        ("multi_label", "val_map", "val_map", ["val_example_f1", "val_map", "val_macro_f1"]),
        ("regression", "val_pearson", "val_pearson.last", ["val_pearson", "val_spearman", "val_rmse", "val_loss"]),
    ],
)
def test_the_curves_are_those_of_the_task(task: Any, metric: Any, summary: str, curves: list[str]) -> None:
    sweep = replace(sweep_of(), study=StudyConfig(trials=12, metric=metric))
    section = view_of(sweep, task=task)
    drawn = [name for panel in panels_of(section)["Validation"] for name in panel["config"]["metrics"]]
    assert drawn[: len(curves)] == curves
    assert ("val_accuracy" in drawn) == ("val_ece" in drawn) == (task == "multi_label")
    assert section["runSets"][0]["runFeed"]["columnOrder"][1] == f"summary:{summary}"
