"""Every figure is drawn from the trials, or says why it is not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_report import AXES, make_sweep, make_teacher, make_trial

from kdsweep import figures, search_figures, study_figures
from kdsweep.gathered import SweepRecords, read_records
from kdsweep.sweep_config import Axis

POINT: dict[str, Any] = {"temperature": 4.0, "alpha": 0.5, "learning_rate": 1e-4, "batch_size": 32}
BAD = "<b>&"
WIDE = {**AXES, "temperature": Axis(low=1.0, high=64.0, log=True)}


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
    drawn = [*search_figures.search_maps(records), *figures.learning_curves(records.trials)]
    drawn += [study_figures.parameter_importances(records), search_figures.parallel_coordinates(records)]
    drawn += [figures.budget_curves(records)]
    return [*drawn, *figures.accuracy_versus_cost(records)]


def test_the_map_places_every_distilled_trial_by_temperature_and_alpha_and_colours_it(tmp_path: Path) -> None:
    records = records_of(tmp_path / "s", [0.7, 0.9, 0.8])
    (found,) = search_figures.search_maps(records)
    assert found.plot and found.plot.layout.xaxis.type == "log" and found.plot.layout.yaxis.type == "linear"
    (discs,) = [trace for trace in found.plot.data if trace.name == "complete"]
    assert list(discs.x) == [1.0, 3.0, 2.0] and list(discs.y) == [0.0, 1.0, 0.5], "the best on top"
    assert list(discs.marker.color) == pytest.approx([70.0, 80.0, 90.0])
    (ring,) = [trace for trace in found.plot.data if trace.name == "best"]
    assert list(ring.x) == [2.0]
    assert "distilled trial %{customdata[0]}" in discs.hovertemplate
    for place, name in enumerate(AXES, start=1):
        assert f"{name} %{{customdata[{place}]}}" in discs.hovertemplate
    best = discs.customdata[list(discs.x).index(2.0)]
    assert [str(value) for value in best] == ["1", "2", "0.5", "0.0001", "32", "90.00"]


def test_without_both_axes_every_searched_field_gets_a_slice(tmp_path: Path) -> None:
    search = {"alpha": AXES["alpha"], "batch_size": AXES["batch_size"]}
    sweep = make_sweep(tmp_path / "s", search, temperature=3.0)
    for trial in range(3):
        make_trial(tmp_path / "s", sweep, "distilled", trial, {"alpha": 0.3 * trial, "batch_size": 64}, 0.8)
    make_trial(tmp_path / "s", sweep, "fine_tuned", 0, {"batch_size": 32}, 0.7)
    alpha, batch_size = search_figures.search_maps(read_records(tmp_path / "s"))
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
    assert [list(line.y)[-2] for line in strong] == pytest.approx([90.0, 85.0])
    faint = [line for line in lines if line.opacity < 1.0]
    assert [list(line.x).count(1) for line in faint] == [4, 2], "a trace for each arm"
    assert list(faint[0].x)[:5] == [1, 2, 3, None, 1] and list(faint[0].customdata)[4] == 1


def test_many_curves_lie_in_few_traces_and_a_trial_of_one_epoch_is_a_mark(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s")
    for trial in range(70):
        make_trial(tmp_path / "s", sweep, "distilled", trial, POINT, 0.7, epochs=1 if trial < 5 else 3)
    drawn = figures.learning_curves(read_records(tmp_path / "s").trials)[2].plot.data
    assert len(drawn) == figures.LAYERS + 2
    marks = [line for line in drawn if line.mode == "markers"]
    assert [list(line.customdata) for line in marks] == [[0, None, 1, None, 2, None, 3, None, 4, None]]
    assert sum(list(line.x).count(3) for line in drawn if line.mode == "lines") == 65


def test_long_curves_are_thinned_and_keep_their_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(figures, "MOST_POINTS", 5)
    sweep = make_sweep(tmp_path / "s", epochs=12)
    make_trial(tmp_path / "s", sweep, "distilled", 0, POINT, 0.7)
    faint = figures.learning_curves(read_records(tmp_path / "s").trials)[0].plot.data[0]
    assert list(faint.x) == [1, 3, 5, 7, 9, 11, 12, None]


def test_the_map_shades_where_the_search_spent_its_trials_from_twenty_on(tmp_path: Path) -> None:
    few, many = (records_of(tmp_path / str(n), [0.8] * n).trials for n in (15, 20))
    assert len(few) < len(many)
    (found,) = search_figures.search_maps(read_records(tmp_path / "15"))
    assert "density" not in {trace.name for trace in found.plot.data}
    sweep = make_sweep(tmp_path / "s")
    for trial in range(20):
        make_trial(tmp_path / "s", sweep, "distilled", trial, {**POINT, "temperature": 15.0, "alpha": 0.9}, 0.8)
    (found,) = search_figures.search_maps(read_records(tmp_path / "s"))
    (shade,) = [trace for trace in found.plot.data if trace.name == "density"]
    row, column = np.unravel_index(np.argmax(np.array(shade.z)), (41, 41))
    assert shade.x[column] == pytest.approx(15, rel=0.04) and shade.y[row] == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize("count", [0, 10, 49])
def test_under_fifty_trials_importances_say_too_few_trials(tmp_path: Path, count: int) -> None:
    few = study_figures.parameter_importances(records_of(tmp_path / "s", [0.7 + 0.001 * n for n in range(count)], WIDE))
    assert few.plot is None and few.note.startswith("Too few trials") and f"there are {count}" in few.note


def test_from_fifty_trials_that_differ_importances_are_bars(tmp_path: Path) -> None:
    same = study_figures.parameter_importances(records_of(tmp_path / "same", [0.8] * 50, WIDE))
    assert same.plot is None and "same val_accuracy" in same.note
    enough = records_of(tmp_path / "enough", [0.7 + 0.004 * (n % 50) for n in range(50)], WIDE)
    first, second = study_figures.parameter_importances(enough), study_figures.parameter_importances(enough)
    assert first.plot and first.json() == second.json()
    assert set(first.plot.data[0].y) == set(WIDE)


def test_importances_of_noise_have_whiskers_as_wide_as_what_they_do_not_know(tmp_path: Path) -> None:
    scores = list(np.random.default_rng(0).random(60))
    figure = study_figures.parameter_importances(records_of(tmp_path / "s", scores, WIDE))
    assert figure.plot is not None and "5th and 95th percentiles" in figure.description
    (bars,) = figure.plot.data
    assert len(bars.error_x.array) == len(bars.y) and min(*bars.error_x.array, *bars.error_x.arrayminus) >= 0
    assert max(np.add(bars.error_x.array, bars.error_x.arrayminus)) > 0.1


def test_the_budgets_curve_ends_at_the_best_score_and_needs_eight_trials(tmp_path: Path) -> None:
    scores = [0.80, 0.81, 0.84, 0.79, 0.90, 0.85, 0.82, 0.83]
    figure = figures.budget_curves(records_of(tmp_path / "s", scores, WIDE))
    assert figure.plot is not None
    band, line = figure.plot.data  # the fine-tuned arm has too few
    assert line.y[0] == pytest.approx(100 * np.mean(scores)) and line.y[-1] == pytest.approx(90.0)
    assert list(line.y) == sorted(line.y) and len(band.x) == 17
    below, above = band.y[:8], band.y[9:]
    assert all(low <= middle <= high for low, middle, high in zip(below, line.y, above, strict=True))
    assert "90 of all" in figure.description
    few = figures.budget_curves(records_of(tmp_path / "few", scores[:7], WIDE))
    assert few.plot is None and "needs 8" in few.note


def test_parallel_coordinates_draw_a_line_for_each_complete_distilled_trial(tmp_path: Path) -> None:
    found = search_figures.parallel_coordinates(records_of(tmp_path / "s", [0.7, 0.9, 0.8]))
    assert found.plot
    lines = [trace for trace in found.plot.data if trace.mode == "lines"]
    assert [line.line.width for line in lines] == [1.6, 1.6, 1.6, 3], "a trace a colour, then the best"
    assert [list(line.customdata)[0] for line in lines] == [0, 2, 1, 1]
    assert all(0 <= y <= 1 for line in lines for y in line.y if y is not None)
    assert set(found.plot.layout.xaxis.ticktext) == {"val_accuracy", *AXES}


def test_cost_shows_students_teacher_and_the_pareto_front(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s", {"student_layers": Axis(choices=(2, (0, 5)))})
    make_teacher(tmp_path / "s")
    for trial, (layers, parameters) in enumerate([(2, 15_000_000), ((0, 5), 16_000_000)]):
        make_trial(tmp_path / "s", sweep, "distilled", trial, {"student_layers": layers}, 0.8, parameters=parameters)
    size, latency = figures.accuracy_versus_cost(read_records(tmp_path / "s"))
    assert size.plot and latency.plot
    front, students, _, teacher = size.plot.data
    assert list(students.x) == [15.0, 16.0] and list(teacher.x) == [22.0]
    assert list(front.x) == [15.0, 22.0] and size.description.endswith(
        "the Pareto front of 2 goes from 80.0 % at 15 to 88.0 % at 22 parameters, millions."
    )


def test_the_pareto_front_holds_what_nothing_beats() -> None:
    assert figures.pareto_front([(3, 0.9), (1, 0.5), (2, 0.4), (1, 0.6), (4, 0.9)]) == [(1, 0.6), (3, 0.9)]
    assert figures.pareto_front([]) == []


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
    (student,) = search_figures.search_maps(read_records(tmp_path / "s"))
    assert student.plot and "&lt;b&gt;&amp;" in student.plot.data[0].customdata[0]
