"""Every figure is drawn from the trials, or says why it is not."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers import AXES, row_of, sweep_of, teacher_of

from kdsweep.config.axis import Axis
from kdsweep.config.sweep import SweepConfig
from kdsweep.records.reading import TrialRow
from kdsweep.records.teacher_schema import TeacherResult
from kdsweep.records.whole_sweep import SweepRecords
from kdsweep.reporting.figures import cost, curves, importances, parallel, search_map, style

POINT: dict[str, Any] = {"temperature": 4.0, "alpha": 0.5, "learning_rate": 1e-4, "batch_size": 32}
BAD = "<b>&"
WIDE = {**AXES, "temperature": Axis(low=1.0, high=64.0, log=True)}


def gathered(sweep: SweepConfig, trials: Sequence[TrialRow], teacher: TeacherResult | None = None) -> SweepRecords:
    """What `read_records` would give, without a folder."""
    return SweepRecords(folder=Path("s"), sweep=sweep, teacher=teacher, trials=tuple(trials))


def records_of(accuracies: Sequence[float], search: dict[str, Axis] | None = None) -> SweepRecords:
    """A sweep with one complete distilled trial for each accuracy, and half as many fine-tuned ones."""
    sweep = sweep_of(search)
    spread = [
        {**POINT, "temperature": 1.0 + n, "alpha": n / max(1, len(accuracies) - 1)} for n in range(len(accuracies))
    ]
    trials = [row_of(sweep, "distilled", n, spread[n], accuracy) for n, accuracy in enumerate(accuracies)]
    tuned = accuracies[: len(accuracies) // 2]
    trials += [row_of(sweep, "fine_tuned", n, POINT, accuracy - 0.05) for n, accuracy in enumerate(tuned)]
    return gathered(sweep, trials, teacher_of())


def every_figure(records: SweepRecords) -> list[style.Figure]:
    drawn = [*search_map.search_maps(records), *curves.learning_curves(records)]
    drawn += [importances.parameter_importances(records), parallel.parallel_coordinates(records)]
    drawn += [curves.budget_curves(records)]
    return [*drawn, *cost.score_versus_cost(records)]


def test_the_map_places_every_distilled_trial_by_temperature_and_alpha_and_colours_it() -> None:
    records = records_of([0.7, 0.9, 0.8])
    (found,) = search_map.search_maps(records)
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
    assert [str(value) for value in best] == ["1", "2", "0.5", "0.0001", "32", "90.00\N{NO-BREAK SPACE}%"]


def test_without_both_axes_every_searched_field_gets_a_slice() -> None:
    search = {"alpha": AXES["alpha"], "batch_size": AXES["batch_size"]}
    sweep = sweep_of(search, temperature=3.0)
    trials = [row_of(sweep, "distilled", n, {"alpha": 0.3 * n, "batch_size": 64}, 0.8) for n in range(3)]
    trials.append(row_of(sweep, "fine_tuned", 0, {"batch_size": 32}, 0.7))
    alpha, batch_size = search_map.search_maps(gathered(sweep, trials))
    assert alpha.plot and [list(trace.x) for trace in alpha.plot.data] == [[0.0, 0.3, 0.6]]
    assert batch_size.plot and [list(trace.x) for trace in batch_size.plot.data] == [["64"] * 3, ["32"]]


def test_learning_curves_tell_arms_apart_by_colour_and_dash_and_the_best_by_strength() -> None:
    records = records_of([0.7, 0.9, 0.8, 0.6])
    names = [found.name for found in curves.learning_curves(records)]
    assert names == ["L_soft", "L_hard", "val_accuracy"]
    first, *others = records.trials
    related = replace(first, epochs=tuple(replace(epoch, L_relation=0.25) for epoch in first.epochs))
    found = curves.learning_curves(replace(records, trials=(related, *others)))
    assert [figure.name for figure in found] == ["L_soft", "L_hard", "L_relation", "val_accuracy"]
    lines = curves.learning_curves(records)[2].plot.data
    assert {(line.line.color, line.line.dash) for line in lines} == {
        (style.COLOURS["distilled"], "solid"),
        (style.COLOURS["fine_tuned"], "dash"),
    }
    strong = [line for line in lines if line.opacity == 1.0]
    assert [list(line.y)[-2] for line in strong] == pytest.approx([90.0, 85.0])
    faint = [line for line in lines if line.opacity < 1.0]
    assert [list(line.x).count(1) for line in faint] == [4, 2], "a trace for each arm"
    assert list(faint[0].x)[:5] == [1, 2, 3, None, 1] and list(faint[0].customdata)[4] == 1


def test_curves_of_max_steps_are_drawn_over_steps_where_arms_may_evaluate_at_other_ones() -> None:
    sweep = sweep_of(epochs=None, max_steps=40, evaluations=2)
    records = gathered(sweep, [row_of(sweep, "distilled", 0, POINT, 0.8, epochs=2)])
    figure = curves.learning_curves(records)[2]
    assert figure.plot is not None and figure.plot.layout.xaxis.title.text == "step"
    assert list(figure.plot.data[-1].x) == [10, 20, None] and "over the steps" in figure.description


def test_many_curves_lie_in_few_traces_and_a_trial_of_one_epoch_is_a_mark() -> None:
    sweep = sweep_of()
    trials = [row_of(sweep, "distilled", n, POINT, 0.7, epochs=1 if n < 5 else 3) for n in range(70)]
    drawn = curves.learning_curves(gathered(sweep, trials))[2].plot.data
    assert len(drawn) == curves.LAYERS + 2
    marks = [line for line in drawn if line.mode == "markers"]
    assert [list(line.customdata) for line in marks] == [[0, None, 1, None, 2, None, 3, None, 4, None]]
    assert sum(list(line.x).count(3) for line in drawn if line.mode == "lines") == 65


def test_long_curves_are_thinned_and_keep_their_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "MOST_POINTS", 5)
    sweep = sweep_of(epochs=12)
    trial = row_of(sweep, "distilled", 0, POINT, 0.7)
    faint = curves.learning_curves(gathered(sweep, [trial]))[0].plot.data[0]
    assert list(faint.x) == [1, 3, 5, 7, 9, 11, 12, None]


def test_the_map_shades_where_the_search_spent_its_trials_from_twenty_on() -> None:
    sweep, point = sweep_of(), {**POINT, "temperature": 15.0, "alpha": 0.9}
    trials = [row_of(sweep, "distilled", n, point, 0.8) for n in range(20)]
    (found,) = search_map.search_maps(gathered(sweep, trials[:19]))
    assert "density" not in {trace.name for trace in found.plot.data}
    (found,) = search_map.search_maps(gathered(sweep, trials))
    (shade,) = [trace for trace in found.plot.data if trace.name == "density"]
    row, column = np.unravel_index(np.argmax(np.array(shade.z)), (41, 41))
    assert shade.x[column] == pytest.approx(15, rel=0.04) and shade.y[row] == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize("count", [0, 10, 49])
def test_under_fifty_trials_importances_say_too_few_trials(count: int) -> None:
    few = importances.parameter_importances(records_of([0.7 + 0.001 * n for n in range(count)], WIDE))
    assert few.plot is None and few.note.startswith("Too few trials") and f"there are {count}" in few.note


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends of whiskers a little further off, in a fifth of the time."""
    monkeypatch.setattr(importances, "RESAMPLES", 8)


@pytest.mark.usefixtures("few_resamples")
def test_from_fifty_trials_that_differ_importances_are_bars() -> None:
    same = importances.parameter_importances(records_of([0.8] * 50, WIDE))
    assert same.plot is None and "same val_accuracy" in same.note
    enough = records_of([0.7 + 0.004 * n for n in range(50)], WIDE)
    first, second = importances.parameter_importances(enough), importances.parameter_importances(enough)
    assert first.plot and first.json() == second.json()
    assert set(first.plot.data[0].y) == set(WIDE)


SOFT = {**WIDE, "temperature": Axis(low=1.0, high=64.0, log=True, when={"soft_loss": ("kl",)})}
SOFT |= {"soft_loss": Axis(choices=("kl", "mse"))}


def partly_searched(count: int) -> SweepRecords:
    """A sweep whose every third trial, from the first, has the squared loss, and no temperature of its own."""
    sweep, trials = sweep_of(SOFT), []
    for n in range(count):
        own = {"temperature": 1.0 + n, "soft_loss": "kl"} if n % 3 else {"soft_loss": "mse"}
        point = {name: value for name, value in POINT.items() if name != "temperature"}
        trials.append(row_of(sweep, "distilled", n, {**point, **own, "alpha": n / count}, 0.7 + 0.004 * n))
    return gathered(sweep, trials)


def test_a_field_is_drawn_where_it_was_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    records = partly_searched(6)
    (found,) = search_map.search_maps(records)
    (discs,) = [trace for trace in found.plot.data if trace.name == "complete"]
    assert (
        list(discs.x) == [2.0, 3.0, 5.0, 6.0] and "2 trials that did not search both are left out" in found.description
    )
    part = search_map.axis_slice(records, "temperature")
    assert [list(trace.x) for trace in part.plot.data] == [[2.0, 3.0, 5.0, 6.0]] and "of 4 complete" in part.description
    whole = search_map.axis_slice(records, "soft_loss")
    assert list(whole.plot.data[0].x) == ["mse", "kl", "kl"] * 2
    assert [row[1] for row in whole.plot.data[0].customdata[:2]] == ["–", "2"], "the hover label"
    lines = parallel.parallel_coordinates(records).plot
    idle = [y for trace in lines.data for y in trace.y if y is not None and y < 0]
    assert idle == [parallel.NOT_SEARCHED] * 2 and lines.layout.yaxis.range[0] < parallel.NOT_SEARCHED
    texts = [text for trace in lines.data for text in trace.text if text]
    assert texts.count("temperature not searched") == 2 and "temperature 3" in texts
    assert "not searched" in [note.text for note in lines.layout.annotations]
    assert parallel.parallel_coordinates(records_of([0.7, 0.8])).plot.layout.yaxis.range == (-0.04, 1.04)


@pytest.mark.usefixtures("few_resamples")
def test_a_field_with_a_condition_has_an_importance_too() -> None:
    found = importances.parameter_importances(partly_searched(60))
    assert found.plot and set(found.plot.data[0].y) == set(SOFT)
    assert sum(found.plot.data[0].x) == pytest.approx(1)


@pytest.mark.usefixtures("few_resamples")
def test_importances_of_noise_have_whiskers_as_wide_as_what_they_do_not_know() -> None:
    scores = list(np.random.default_rng(0).random(60))
    figure = importances.parameter_importances(records_of(scores, WIDE))
    assert figure.plot is not None and "5th and 95th percentiles" in figure.description
    (bars,) = figure.plot.data
    assert len(bars.error_x.array) == len(bars.y) and min(*bars.error_x.array, *bars.error_x.arrayminus) >= 0
    assert max(np.add(bars.error_x.array, bars.error_x.arrayminus)) > 0.1


def test_the_budgets_curve_ends_at_the_best_score_and_needs_eight_trials() -> None:
    scores = [0.80, 0.81, 0.84, 0.79, 0.90, 0.85, 0.82, 0.83]
    figure = curves.budget_curves(records_of(scores, WIDE))
    assert figure.plot is not None
    band, line = figure.plot.data  # the fine-tuned arm has too few
    assert line.y[0] == pytest.approx(100 * np.mean(scores)) and line.y[-1] == pytest.approx(90.0)
    assert list(line.y) == sorted(line.y) and len(band.x) == 17
    below, above = band.y[:8], band.y[9:]
    assert all(low <= middle <= high for low, middle, high in zip(below, line.y, above, strict=True))
    assert "90 of all" in figure.description
    few = curves.budget_curves(records_of(scores[:7], WIDE))
    assert few.plot is None and "needs 8" in few.note


def test_parallel_coordinates_draw_a_line_for_each_complete_distilled_trial() -> None:
    found = parallel.parallel_coordinates(records_of([0.7, 0.9, 0.8]))
    assert found.plot
    lines = [trace for trace in found.plot.data if trace.mode == "lines"]
    assert [line.line.width for line in lines] == [1.6, 1.6, 1.6, 3], "a trace a colour, then the best"
    assert [list(line.customdata)[0] for line in lines] == [0, 2, 1, 1]
    assert all(0 <= y <= 1 for line in lines for y in line.y if y is not None)
    assert set(found.plot.layout.xaxis.ticktext) == {"val_accuracy", *AXES}


def test_cost_shows_students_teacher_and_the_pareto_front() -> None:
    sweep = sweep_of({"student_layers": Axis(choices=(2, (0, 5)))})
    trials = [
        row_of(sweep, "distilled", n, {"student_layers": layers}, 0.8, parameters=parameters)
        for n, (layers, parameters) in enumerate([(2, 15_000_000), ((0, 5), 16_000_000)])
    ]
    size, latency = cost.score_versus_cost(gathered(sweep, trials, teacher_of()))
    assert size.plot and latency.plot
    front, students, _, teacher = size.plot.data
    assert list(students.x) == [15.0, 16.0] and list(teacher.x) == [22.0]
    assert list(front.x) == [15.0, 22.0] and size.description.endswith(
        "the Pareto front of 2 goes from 80.0\N{NO-BREAK SPACE}% at 15 to 88.0\N{NO-BREAK SPACE}% at 22 parameters, millions."
    )


def test_the_pareto_front_holds_what_nothing_beats() -> None:
    assert cost.pareto_front([(3, 0.9), (1, 0.5), (2, 0.4), (1, 0.6), (4, 0.9)]) == [(1, 0.6), (3, 0.9)]
    assert cost.pareto_front([]) == []


@pytest.mark.parametrize("count", [0, 1, 2])
def test_every_figure_says_why_it_is_missing_or_describes_itself(count: int) -> None:
    for found in every_figure(records_of([0.8, 0.7][:count])):
        assert found.description if found.plot else found.note
        assert (found.plot is None) == (found.json() == "null")


@pytest.mark.parametrize("status", ["failed", "pruned", None])
def test_trials_that_did_not_finish_break_no_figure(status: str | None) -> None:
    sweep, ended = sweep_of(), {"status": status, "error": "x", "epochs": 1, "val_accuracy": None}
    records = gathered(sweep, [row_of(sweep, "distilled", 0, POINT, 0.7, **ended)])
    found = {figure.name: figure for figure in every_figure(records)}
    assert found["map"].plot is None and found["parallel"].plot is None
    assert found["val_accuracy"].plot and len(found["val_accuracy"].plot.data) == 1


def test_figures_have_no_background_and_their_texts_hold_no_markup_from_data() -> None:
    sweep = sweep_of({"student": Axis(choices=("from_teacher", BAD))})
    records = gathered(sweep, [row_of(sweep, "distilled", n, {"student": BAD}, 0.7 + 0.01 * n) for n in range(5)])
    for found in every_figure(records):
        assert "<" not in found.json()
        if found.plot:
            layout = json.loads(found.json())["layout"]
            assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "rgba(0,0,0,0)"
    (student,) = search_map.search_maps(records)
    assert student.plot and "&lt;b&gt;&amp;" in student.plot.data[0].customdata[0]


def test_a_slice_counts_the_trials_of_the_arms_that_search_the_field() -> None:
    sweep = sweep_of({**AXES, "epochs": Axis(choices=(2, 3), arms=("fine_tuned",))}, epochs=None)
    trials = [row_of(sweep, arm, 0, {**POINT, "epochs": 3}, 0.8) for arm in ("distilled", "fine_tuned")]
    found = search_map.axis_slice(gathered(sweep, trials), "epochs")
    assert found.plot is not None and len(found.plot.data) == 1
    assert found.description.startswith("val_accuracy of 1 complete trial over epochs")


def test_of_very_many_trials_a_figure_draws_the_best_and_an_even_part_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(style, "MOST_TRIALS", 8)
    records = records_of([0.5 + n / 100 for n in range(20)])
    distilled = [trial for trial in records.trials if trial.arm == "distilled"]
    kept = [trial.trial for trial in style.thinned(distilled, records.sweep)]
    assert kept == sorted(set(kept)) and len(kept) == 8 and {18, 19, 0} <= set(kept)
    assert style.thinned(distilled[:8], records.sweep) == distilled[:8]
    (found,), (sizes, _) = search_map.search_maps(records), cost.score_versus_cost(records)
    assert found.plot and [len(each.x) for each in found.plot.data if each.name == "complete"] == [8]
    assert "20 complete" in found.description, "what is said counts all trials"
    assert sizes.plot and [len(each.x) for each in sizes.plot.data if each.meta] == [8, 8]
    lines = parallel.parallel_coordinates(records).plot
    assert lines and sum(list(each.y).count(None) for each in lines.data if each.name == "trials") == 8
