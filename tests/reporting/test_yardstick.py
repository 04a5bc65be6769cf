"""Whatever shows or marks a best follows `study.metric`: here the trial with the best accuracy is the worst by the metric."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from makers import POINT, ROWS, make_epoch, make_finals, page_of, row_of, sweep_of
from rich.console import Console

from kdsweep.analysis import metrics
from kdsweep.analysis.advice import advice
from kdsweep.analysis.leaderboard import leaderboard, progress
from kdsweep.analysis.score import majority_score, score_text, score_title, teacher_score
from kdsweep.config.arms import Arm
from kdsweep.config.sweep import SweepConfig
from kdsweep.engine.display import SweepDisplay
from kdsweep.engine.events import TrialEnded, TrialStarted
from kdsweep.records.layout import TrialId, teacher_folder
from kdsweep.records.reading import TrialRow
from kdsweep.records.whole_sweep import SweepRecords, read_records
from kdsweep.records.writing import TrialFolder, write_sweep
from kdsweep.reporting.answers import answer
from kdsweep.reporting.figures import cost, curves, importances, parallel, search_map
from kdsweep.reporting.figures.style import Figure
from kdsweep.reporting.write import write_report

TRIALS = 60
LAST = TRIALS - 1
METRICS = ("val_mcc", "val_macro_f1")


def by(metric: str, sweep: SweepConfig) -> SweepConfig:
    return replace(sweep, study=replace(sweep.study, metric=metric, trials=TRIALS))


def row(sweep: SweepConfig, arm: Arm, number: int, folder: Path = Path("s")) -> TrialRow:
    """A trial whose accuracy rises with its number and its temperature, and whose metric falls from above 0 to below."""
    metric = sweep.study.metric
    share = number / LAST
    best = 0.6 - share if metric == "val_mcc" else 0.9 - 0.5 * share
    point = {**POINT, "temperature": 16.0**share, "alpha": 0.5}
    made = row_of(sweep, arm, number, point, 0.5 + 0.4 * share, folder, **{metric: best, "best_epoch": 3})
    epochs = [replace(make_epoch(epoch, 0.5 + 0.01 * epoch), **{metric: best - 0.01 * epoch}) for epoch in range(3)]
    return replace(made, epochs=tuple(epochs))


@pytest.fixture(params=METRICS)
def records(request: pytest.FixtureRequest) -> SweepRecords:
    sweep = by(request.param, sweep_of())
    trials = tuple(row(sweep, arm, number) for arm in ("distilled", "fine_tuned") for number in range(TRIALS))
    return SweepRecords(folder=Path("s"), sweep=sweep, teacher=None, trials=trials)


def shown(figure: Figure, records: SweepRecords) -> str:
    """The figure as JSON: it names the metric and no accuracy."""
    assert figure.plot is not None
    text = f"{figure.title} {figure.description} {figure.json()}"
    assert records.sweep.study.metric in text and "accuracy" not in text
    return text


def test_the_leaderboard_ranks_and_says_the_best_epoch(records: SweepRecords) -> None:
    first, *_, last = leaderboard(records)
    assert (first.trial.trial, last.trial.trial) == (0, LAST)
    assert first.best_epoch == 1, "the record's is that of the accuracy"


def test_the_map_rings_the_best_and_colours_all(records: SweepRecords) -> None:
    (found,) = search_map.search_maps(records)
    assert "the best, trial 0, " in shown(found, records) and found.plot
    traces = {trace.name: trace for trace in found.plot.data}
    assert [each[0] for each in traces["best"].customdata] == [0]
    assert traces["complete"].customdata[-1][0] == 0, "the best lies on top"
    assert traces["complete"].marker.color[-1] == max(traces["complete"].marker.color)
    assert traces["complete"].marker.colorbar.title.text == score_title(records.sweep.study.metric)


def test_slices_and_costs_are_as_high_as_the_metric(records: SweepRecords) -> None:
    sweep = records.sweep
    for found in (search_map.axis_slice(records, "alpha"), *cost.score_versus_cost(records)):
        shown(found, records)
        assert found.plot and found.plot.layout.yaxis.title.text == score_title(sweep.study.metric)
        (marks,) = [trace for trace in found.plot.data if trace.name == "distilled"]
        heights = {trial: y for (trial, *_), y in zip(marks.customdata, marks.y, strict=True)}
        assert max(heights, key=lambda trial: heights[trial]) == 0
        assert f"<br>{sweep.study.metric} %{{customdata[" in marks.hovertemplate
        assert marks.customdata[0][-1] == score_text(
            sweep.study.metric, 0.6 if sweep.study.metric == "val_mcc" else 0.9, 2
        )


def test_curves_draw_the_best_strong_and_the_metric_in_place_of_accuracy(records: SweepRecords) -> None:
    drawn = curves.learning_curves(records)
    assert [found.name for found in drawn] == ["L_soft", "L_hard", records.sweep.study.metric]
    shown(drawn[2], records)
    for found in drawn:
        assert found.plot
        strong = [line for line in found.plot.data if line.opacity == 1.0]
        assert [set(line.customdata) - {None} for line in strong] == [{0}, {0}]


def test_parallel_lines_mark_the_best(records: SweepRecords) -> None:
    found = parallel.parallel_coordinates(records)
    shown(found, records)
    assert found.plot and set(found.plot.data[-1].customdata) == {0, None} and found.plot.data[-1].name == "best"


@pytest.mark.slow
def test_importances_are_of_the_metric(records: SweepRecords) -> None:
    mixed = [
        replace(each, config=replace(each.config, alpha=(7 * each.trial % TRIALS) / TRIALS)) for each in records.trials
    ]
    found = importances.parameter_importances(replace(records, trials=tuple(mixed)))
    assert found.plot and found.description.split(": ")[1].startswith("temperature")
    same = [with_metric(each, 0.5) for each in records.trials]
    missing = importances.parameter_importances(replace(records, trials=tuple(same)))
    assert (
        missing.note
        == f"All distilled trials have the same {records.sweep.study.metric}, so no field made a difference."
    )


def with_metric(trial: TrialRow, value: float) -> TrialRow:
    assert trial.result is not None
    return replace(trial, result=replace(trial.result, val_mcc=value, val_macro_f1=value))


def test_advice_looks_at_the_best_by_the_metric(records: SweepRecords) -> None:
    (edge, *_) = [item for item in advice(records) if item.name == "temperature"]
    assert edge.kind == "edge" and edge.short == "widen temperature downward" and "below" in edge.why
    flat = [
        item
        for item in advice(replace(records, trials=tuple(with_metric(t, 0.5) for t in records.trials)))
        if item.kind == "flat"
    ]
    assert flat and all(f"the same {records.sweep.study.metric}" in item.why for item in flat)
    assert not [item for item in advice(records) if "accurac" in item.why]


def test_budget_curves_are_of_the_metric(records: SweepRecords) -> None:
    best = max(getattr(each.result, records.sweep.study.metric) for each in records.trials)
    found = curves.budget_curves(records)
    assert f"{(1 if records.sweep.study.metric == 'val_mcc' else 100) * best:.4g} of all" in shown(found, records)


@pytest.mark.parametrize("metric", METRICS)
def test_the_terminal_shows_the_best_so_far_below_zero_too(metric: str) -> None:
    console = Console(file=io.StringIO(), width=160)
    sweep = by(metric, sweep_of())
    display = SweepDisplay(console, sweep, {"distilled": 0, "fine_tuned": 0, "finalists": 0})
    for number, score in enumerate((-0.3, -0.1, -0.2)):
        trial = TrialId("distilled", number)
        display.show(TrialStarted(id=trial, attempt=1, params={}, evaluations=1, unit="epoch"), 1)
        display.show(TrialEnded(id=trial, status="complete", error=None, score=score, violates=(), seconds=1.0), 1)
    notes = [task.fields["note"] for task in display._bars.tasks]
    assert f"best {metric} -0.1000 (trial 1)" in notes


class Folder(NamedTuple):
    path: Path
    metric: str


@pytest.fixture(params=METRICS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """A results folder with finalists, in which trial 1 of each arm is the best by the metric, in search and on fresh seeds."""
    sweep = by(request.param, make_finals(tmp_path / "s", 0.85, 0.80))
    write_sweep(tmp_path / "s", sweep)
    for stage in ("trials", "controls", "finalists"):
        for path in sorted((tmp_path / "s" / stage).glob("*/result.json")):
            first = "0001" in path.parent.name
            seed = int(path.parent.name[-1]) if stage == "finalists" else 0
            value = (0.613 if first else 0.587) + 0.001 * seed
            path.write_text(json.dumps({**json.loads(path.read_text()), request.param: value}))
    TrialFolder(teacher_folder(tmp_path / "s")).write_predictions((np.arange(ROWS) < 150).astype(np.int64))
    return Folder(tmp_path / "s", request.param)


@pytest.mark.slow
def test_the_whole_page_and_its_texts_name_what_ranks(folder: Folder) -> None:
    report = write_report(folder.path)
    best = score_text(folder.metric, 0.613).replace("\N{NO-BREAK SPACE}", " ")
    assert report.shipped is not None and report.shipped.folder.name.endswith("-0001-seed3")
    assert report.bests["distilled"].trial.trial == 1
    page = " ".join(page_of(folder.path).text.split())
    assert f"Best distilled {best}{folder.metric} on validation: trial 1, rank 1" in page
    assert f"Trials of both arms by {folder.metric};" in page and f"{folder.metric} ranks." in page
    assert f"{folder.metric} against size and speed" in page and f"coloured by {folder.metric}" in page
    text = (folder.path / "report.md").read_text(encoding="utf-8")
    table = text[text.index("## Leaderboard") :].split("\n\n")[1].splitlines()
    assert [cell.strip() for cell in table[0].split("|")][1:6] == [
        "rank",
        "arm",
        "trial",
        folder.metric,
        "val_accuracy",
    ]
    assert score_text(folder.metric, 0.613, 2).replace("\N{NO-BREAK SPACE}", " ") in table[2]
    test = {"val_mcc": "an mcc", "val_macro_f1": "a macro_f1"}[folder.metric]
    assert f"reaches {test} of " in report.answer and "points of accuracy" in report.answer


@pytest.mark.slow
def test_calibration_is_of_the_run_that_is_the_best_by_the_metric(folder: Folder) -> None:
    for path in (folder.path / "finalists").glob("*/test.json"):
        seed = int(path.parent.name[-1])
        path.write_text(json.dumps({**json.loads(path.read_text()), "reliability": [[0.9, 0.1 * seed, 10]]}))
    write_report(folder.path)
    page = (folder.path / "report.html").read_text(encoding="utf-8")
    assert "confidence 90.0 %, accuracy 30.0 %" in page and "accuracy 20.0 %" not in page


@pytest.mark.slow
def test_the_teacher_and_one_class_alone_are_measured_by_the_metric(folder: Folder) -> None:
    make_predictions_of_two_classes(folder.path)
    found = read_records(folder.path)
    labels, teacher = np.arange(ROWS) % 2, (np.arange(ROWS) % 2) * (np.arange(ROWS) < 150)
    measure = metrics.measure(folder.metric, 2)
    assert teacher_score(found) == measure(teacher, labels) != found.teacher
    assert majority_score(found) == pytest.approx(measure(np.ones(ROWS, np.int64), labels))
    arms = progress(found, ())
    said = answer(found, {}, None, arms)
    assert f"The teacher reaches a {folder.metric} of {score_text(folder.metric, teacher_score(found))}; " in said
    (teacher_folder(folder.path) / "predictions.npy").unlink()
    assert teacher_score(found) is None and "is not known" in answer(found, {}, None, arms)
    assert all("teacher" not in each.description for each in cost.score_versus_cost(found))


def make_predictions_of_two_classes(folder: Path) -> None:
    """Labels half of each class; a teacher that names the first class on the last rows."""
    there = TrialFolder(teacher_folder(folder))
    there.write_labels(np.arange(ROWS) % 2)
    there.write_predictions((np.arange(ROWS) % 2) * (np.arange(ROWS) < 150))
