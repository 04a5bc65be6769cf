"""What a student costs in the form that `study.constraints` means: in the leaderboard, in words and in the plan."""

import io
from dataclasses import replace
from pathlib import Path

from makers import make_full, sweep_of
from rich.console import Console

from kdsweep.analysis.leaderboard import LIMITED, column_names, table
from kdsweep.config.forms import Constraints
from kdsweep.config.sweep import SweepConfig
from kdsweep.engine.plan import print_plan
from kdsweep.records.layout import TrialId, trial_folder
from kdsweep.records.reading import read_trial
from kdsweep.records.writing import TrialFolder, write_sweep
from kdsweep.reporting.build import build_report

INT8 = Constraints(latency_ms_p50=5.0, size_mb=20.0, form="int8")


def limited(sweep: SweepConfig) -> SweepConfig:
    return replace(sweep, study=replace(sweep.study, constraints=INT8))


def test_the_leaderboard_and_the_answer_have_what_it_needs_in_that_form(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    sweep = make_full(folder)
    plain = build_report(folder)
    assert not set(LIMITED) & {*column_names((), plain.rows), *table(plain.rows)[0]}
    write_sweep(folder, limited(sweep))
    best = trial_folder(folder, TrialId("distilled", 0))
    result = read_trial(best).result
    assert result is not None and not set(LIMITED) & set(result.summary())
    costs = replace(result, limited_form="int8", limited_latency_ms_p50=2.31, limited_size_mb=17.8)
    assert {name: costs.summary()[name] for name in LIMITED} == dict(zip(LIMITED, ("int8", 2.31, 17.8), strict=True))
    TrialFolder(best).finish(costs)
    report = build_report(folder)
    first, other = table(report.rows)[0], table(report.rows)[-1]
    assert [first[name] for name in LIMITED] == ["int8", 2.31, 17.8] and [other[name] for name in LIMITED] == [None] * 3
    assert list(first) == column_names(tuple(report.records.sweep.search), report.rows)
    answer = dict(report.questions)["Which student to ship?"]
    assert "of those that keep latency_ms_p50 <= 5 and size_mb <= 20, as int8" in answer
    assert "17.8 MB and 2.3 ms as int8, measured before it was trained" in answer


def test_the_plan_says_of_which_form_the_limits_are() -> None:
    file = io.StringIO()
    print_plan(Console(file=file, width=150), limited(sweep_of()), {})
    assert "latency_ms_p50 <= 5 and size_mb <= 20, as int8: students that break one are not ranked" in file.getvalue()
    print_plan(Console(file=(plain := io.StringIO()), width=150), sweep_of(), {})
    assert "constraints" not in plain.getvalue()
