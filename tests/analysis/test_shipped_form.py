"""The form to ship is the fastest that is no worse; ratios come from the one run that measured all forms; exports are placed beside the sweep."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from exports import a_form, an_export, quality, speeds
from makers import POINT, make_finalist, make_full, row_of, sweep_of

from kdsweep.analysis.exports import best_fine_tuned, placed_exports
from kdsweep.analysis.leaderboard import column_names, leaderboard, table
from kdsweep.analysis.shipped_form import FORM_COLUMNS, form_columns, judged_split, shipped_form, times_teacher
from kdsweep.records.export_schema import Export
from kdsweep.records.whole_sweep import SweepRecords, read_records


def worded(int8: Any, fp32: Any = "no worse", **changes: Any) -> Export:
    """An export whose ONNX forms have these words on the test split."""
    forms = {form.form: form for form in an_export().forms}
    for name, word in (("int8", int8), ("fp32", fp32)):
        test = forms[name].test
        assert test is not None
        forms[name] = replace(forms[name], test=replace(test, word=word))
    return an_export(forms=tuple(forms.values()), **changes)


@pytest.mark.parametrize(
    ("int8", "fp32", "ships"),
    [
        ("no worse", "no worse", "int8"),
        ("cannot tell", "no worse", "fp32"),
        ("worse", "no worse", "fp32"),
        ("no worse", "worse", "int8"),
        ("worse", "cannot tell", "pytorch"),
        (None, None, "pytorch"),
    ],
)
def test_the_fastest_form_that_is_no_worse_ships(int8: Any, fp32: Any, ships: str) -> None:
    assert shipped_form(worded(int8, fp32)).form == ships


def test_a_form_that_is_no_worse_but_slower_than_the_float32_student_does_not_ship() -> None:
    pytorch, fp32, int8 = an_export().forms
    slow = replace(int8, speed=speeds(30.0)), replace(fp32, speed=speeds(12.0))
    assert shipped_form(an_export(forms=(pytorch, *slow))).form == "pytorch"
    unmeasured = replace(int8, speed=())
    assert shipped_form(an_export(forms=(pytorch, fp32, unmeasured))).form == "fp32"


def test_without_a_test_split_the_words_of_validation_count() -> None:
    said = {"difference": 0.0, "low": -0.001, "high": 0.001, "word": "no worse"}
    forms = tuple(
        replace(a_form(name, "f", 9.0, ms, quality(0.8, **(said if ms < 9 else {})), quality(0.8)), test=None)
        for name, ms in (("pytorch", 9.0), ("int8", 2.0))
    )
    export = an_export(forms=forms)
    assert (shipped_form(export).form, judged_split(export)) == ("int8", "validation")
    assert judged_split(an_export()) == "test"


def test_ratios_come_from_the_teacher_that_was_measured_beside_the_forms() -> None:
    export = an_export()
    assert times_teacher(export, export.forms[2]) == pytest.approx(22.0 / 2.25)
    assert times_teacher(replace(export, teacher_speed=()), export.forms[2]) is None


def test_the_leaderboard_has_columns_of_forms_only_where_a_trial_was_exported() -> None:
    sweep = sweep_of()
    trials = tuple(row_of(sweep, "distilled", n, POINT, 0.8) for n in (6, 7))
    plain = leaderboard(SweepRecords(folder=Path("s"), sweep=sweep, teacher=None, trials=trials))
    assert not set(FORM_COLUMNS) & set(column_names((), plain)) and list(table(plain)[0]) == column_names(
        tuple(sweep.search), plain
    )
    older = an_export(made_at="2026-01-01", run="distilled-0007-seed2", seed=2)
    rows = leaderboard(
        SweepRecords(folder=Path("s"), sweep=sweep, teacher=None, trials=trials, exports=(an_export(), older))
    )
    records = {record["trial"]: record for record in table(rows)}
    assert list(records[7]) == column_names(tuple(sweep.search), rows)
    assert records[6]["form"] is None and records[7]["form"] == "int8"
    expected = {"export": "exports/distilled-0007-seed1", "form_size_mb": 17.8, "form_latency_ms_p50": 2.25}
    assert {**expected, "form_accuracy": 0.869, "form_difference": -0.001}.items() <= records[7].items()
    assert form_columns(replace(an_export(), teacher_speed=()))["form_times_teacher"] is None


def test_exports_are_placed_beside_the_run_that_the_sweep_ships_now(tmp_path: Path) -> None:
    sweep = make_full(tmp_path / "s")
    make_finalist(tmp_path / "s", sweep, "distilled", 0, 1, 0.8)
    make_finalist(tmp_path / "s", sweep, "fine_tuned", 1, 1, 0.7)
    runs = {"distilled-0000-seed1": ("distilled", 0), "distilled-0001-seed1": ("distilled", 1)}
    runs["fine_tuned-0001-seed1"] = ("fine_tuned", 1)
    exports = tuple(an_export(run=run, arm=arm, trial=trial) for run, (arm, trial) in sorted(runs.items()))
    found = replace(read_records(tmp_path / "s"), exports=exports)
    assert [(each.export.run, each.role) for each in placed_exports(found)] == [
        ("distilled-0000-seed1", "to ship"),
        ("fine_tuned-0001-seed1", "best fine-tuned"),
        ("distilled-0001-seed1", "other"),
    ]


def test_before_a_fine_tuned_finalist_rank_1_of_that_arm_stands_beside() -> None:
    sweep = sweep_of()
    trials = [row_of(sweep, "fine_tuned", n, POINT, 0.7 + 0.1 * n) for n in (0, 1)]
    trials.append(row_of(sweep, "distilled", 0, POINT, 0.9))
    best = best_fine_tuned(SweepRecords(folder=Path("s"), sweep=sweep, teacher=None, trials=tuple(trials)))
    assert best is not None and (best.arm, best.trial) == ("fine_tuned", 1)
    assert best_fine_tuned(SweepRecords(folder=Path("s"), sweep=sweep, teacher=None, trials=())) is None
