"""Every figure is drawn from the trials, or says why it is not."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_report import AXES, make_sweep, make_teacher, make_trial

from kdsweep import figures, study_figures
from kdsweep.records import SweepRecords, read_records
from kdsweep.sweep_config import Axis

POINT: dict[str, Any] = {"temperature": 4.0, "alpha": 0.5, "learning_rate": 1e-4, "batch_size": 32}
BAD = "<b>&"


def records_of(
    folder: Path, accuracies: list[float], search: dict[str, Axis] | None = None, **fixed: Any
) -> SweepRecords:
    """A sweep with one complete distilled trial for each accuracy, and half as many fine-tuned ones."""
    sweep = make_sweep(folder, search, **fixed)
    make_teacher(folder)
    for trial, accuracy in enumerate(accuracies):
        point = {**POINT, "temperature": 1.0 + trial, "alpha": trial / max(1, len(accuracies) - 1)}
        make_trial(folder, sweep, "distilled", trial, point, accuracy)
    for trial in range(len(accuracies) // 2):
        make_trial(folder, sweep, "fine_tuned", trial, POINT, accuracies[trial] - 0.05)
    return read_records(folder)


def every_figure(records: SweepRecords) -> list[figures.Figure]:
    drawn = [*figures.search_maps(records), *figures.learning_curves(records.trials)]
    drawn += [study_figures.parameter_importances(records), study_figures.parallel_coordinates(records)]
    return [*drawn, *figures.accuracy_versus_cost(records)]


def test_the_map_places_every_distilled_trial_by_temperature_and_alpha_and_colours_it(tmp_path: Path) -> None:
    records = records_of(tmp_path / "s", [0.7, 0.9, 0.8])
    (found,) = figures.search_maps(records)
    assert found.plot and found.plot.layout.xaxis.type == "log" and found.plot.layout.yaxis.type == "linear"
    (discs,) = [trace for trace in found.plot.data if trace.name == "complete"]
    assert list(discs.x) == [1.0, 2.0, 3.0] and list(discs.y) == [0.0, 0.5, 1.0]
    assert list(discs.marker.color) == pytest.approx([70.0, 90.0, 80.0])
    (ring,) = [trace for trace in found.plot.data if trace.name == "best"]
    assert list(ring.x) == [2.0]
    for name in AXES:
        assert name in discs.text[1]
    assert "distilled trial 1" in discs.text[1]


def test_without_both_axes_every_searched_field_gets_a_slice(tmp_path: Path) -> None:
    search = {"alpha": AXES["alpha"], "batch_size": AXES["batch_size"]}
    sweep = make_sweep(tmp_path / "s", search, temperature=3.0)
    for trial in range(3):
        make_trial(tmp_path / "s", sweep, "distilled", trial, {"alpha": 0.3 * trial, "batch_size": 64}, 0.8)
    make_trial(tmp_path / "s", sweep, "fine_tuned", 0, {"batch_size": 32}, 0.7)
    alpha, batch_size = figures.search_maps(read_records(tmp_path / "s"))
    assert alpha.plot and [list(trace.x) for trace in alpha.plot.data] == [[0.0, 0.3, 0.6]]
    assert batch_size.plot and [list(trace.x) for trace in batch_size.plot.data] == [["64"] * 3, ["32"]]


def test_learning_curves_tell_arms_apart_by_colour_and_dash_and_the_best_by_strength(tmp_path: Path) -> None:
    records = records_of(tmp_path / "s", [0.7, 0.9, 0.8, 0.6])
    names = [found.name for found in figures.learning_curves(records.trials)]
    assert names == ["L_soft", "L_hard", "val_accuracy"]
    lines = figures.learning_curves(records.trials)[2].plot.data
    assert {(line.line.color, line.line.dash) for line in lines} == {
        (figures.COLOURS["distilled"], "solid"),
        (figures.COLOURS["fine_tuned"], "dash"),
    }
    strong = [line for line in lines if line.opacity == 1.0]
    assert [list(line.y)[-1] for line in strong] == pytest.approx([90.0, 85.0])
    assert len(lines) - len(strong) == 6


def test_importances_need_four_complete_trials_that_differ(tmp_path: Path) -> None:
    few = study_figures.parameter_importances(records_of(tmp_path / "few", [0.7, 0.8, 0.9]))
    assert few.plot is None and few.note.startswith("Too few trials")
    same = study_figures.parameter_importances(records_of(tmp_path / "same", [0.8] * 5))
    assert same.plot is None and "same val_accuracy" in same.note
    enough = records_of(tmp_path / "enough", [0.7, 0.9, 0.8, 0.6, 0.85, 0.75])
    first, second = study_figures.parameter_importances(enough), study_figures.parameter_importances(enough)
    assert first.plot and first.json() == second.json()
    assert set(first.plot.data[0].y) == set(AXES)


def test_parallel_coordinates_draw_a_line_for_each_complete_distilled_trial(tmp_path: Path) -> None:
    found = study_figures.parallel_coordinates(records_of(tmp_path / "s", [0.7, 0.9, 0.8]))
    assert found.plot
    lines = [trace for trace in found.plot.data if trace.mode == "lines"]
    assert [line.line.width for line in lines] == [1.6, 3, 1.6]
    assert set(found.plot.layout.xaxis.ticktext) == {"val_accuracy", *AXES}


def test_cost_is_drawn_only_where_students_differ_in_size(tmp_path: Path) -> None:
    assert figures.accuracy_versus_cost(records_of(tmp_path / "same", [0.7, 0.8])) == ()
    sweep = make_sweep(tmp_path / "s", {"student_layers": Axis(choices=(2, (0, 5)))})
    make_teacher(tmp_path / "s")
    for trial, (layers, parameters) in enumerate([(2, 15_000_000), ((0, 5), 16_000_000)]):
        make_trial(tmp_path / "s", sweep, "distilled", trial, {"student_layers": layers}, 0.8, parameters=parameters)
    size, latency = figures.accuracy_versus_cost(read_records(tmp_path / "s"))
    assert size.plot and latency.plot
    assert list(size.plot.data[0].x) == [15.0, 16.0] and list(size.plot.data[-1].x) == [22.0]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_every_figure_says_why_it_is_missing_or_describes_itself(tmp_path: Path, count: int) -> None:
    for found in every_figure(records_of(tmp_path / "s", [0.8, 0.7][:count])):
        assert found.description if found.plot else found.note
        assert (found.plot is None) == (found.json() == "null")


@pytest.mark.parametrize("status", ["failed", "pruned", None])
def test_trials_that_did_not_finish_break_no_figure(tmp_path: Path, status: str | None) -> None:
    sweep = make_sweep(tmp_path / "s")
    make_trial(tmp_path / "s", sweep, "distilled", 0, POINT, 0.7, status=status, error="x", epochs=1, val_accuracy=None)
    found = {figure.name: figure for figure in every_figure(read_records(tmp_path / "s"))}
    assert found["map"].plot is None and found["parallel"].plot is None
    assert found["val_accuracy"].plot and len(found["val_accuracy"].plot.data) == 1


def test_figures_have_no_background_and_their_texts_hold_no_markup_from_data(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s", {"student": Axis(choices=("from_teacher", BAD))})
    for trial in range(5):
        make_trial(tmp_path / "s", sweep, "distilled", trial, {"student": BAD}, 0.7 + 0.01 * trial)
    for found in every_figure(read_records(tmp_path / "s")):
        assert "<" not in found.json()
        if found.plot:
            layout = json.loads(found.json())["layout"]
            assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "rgba(0,0,0,0)"
    (student,) = figures.search_maps(read_records(tmp_path / "s"))
    assert student.plot and "&lt;b&gt;&amp;" in student.plot.data[0].text[0]
