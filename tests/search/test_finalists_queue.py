"""Finalists: the best of each arm once more on fresh seeds, and the test split opened for them alone."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import command, processes, started, wait_for
from makers import make_finalist, make_full

from kdsweep.config.arms import ARMS, PRIMARY
from kdsweep.config.axis import Axis
from kdsweep.config.lengths import lengthened
from kdsweep.config.sweep import FinalistsConfig, StudyConfig, SweepConfig
from kdsweep.config.trial_file import trial_yaml
from kdsweep.errors import ResultsError
from kdsweep.records.layout import TrialId, trial_folder
from kdsweep.records.reading import packed_trial, read_sweep, read_test, read_test_labels, read_test_predictions
from kdsweep.records.schema import FinalTest, finalist_of, missing_result
from kdsweep.records.whole_sweep import read_records
from kdsweep.records.writing import TrialFolder, start_sweep, unpack_trial
from kdsweep.search.studies import Studies

WriteSweep = Callable[..., Path]


def sweep_of(top: int, seeds: int, search: dict[str, Axis] | None = None, **study: Any) -> SweepConfig:
    """A sweep over the learning rate: 4 distilled trials and 2 controls."""
    return SweepConfig(
        name="s",
        fixed={"train_file": "rows.csv", "teacher": "bert", "teacher_epochs": 1, "seed": 5},
        search=search or {"learning_rate": Axis(low=1e-5, high=1e-3, log=True)},
        study=StudyConfig(**{"trials": 4, "controls": 2, "pruner": "none", **study}),
        finalists=FinalistsConfig(top=top, seeds=seeds),
    )


Told = tuple[str, int, int | None, int | None]


def run_out(studies: Studies) -> list[Told]:
    """Take and tell until nothing is left; trial n of an arm has value n / 100, finalists theirs plus a little."""
    told: list[Told] = []
    while (mine := studies.take()) is not None:
        told.append((mine.id.arm, mine.id.number, mine.id.seed, mine.round or None))
        finalist = finalist_of(mine.id, mine.round)
        result = missing_result(mine.id.arm, mine.id.number, status="complete", error="", attempt=1, finalist=finalist)
        assert studies.finish(mine, replace(result, val_accuracy=mine.id.number / 100), {})
    return told


def finalists_of(told: list[Told]) -> list[Told]:
    return [each for each in told if each[2] is not None]


@pytest.mark.slow
def test_the_best_of_both_arms_run_again_on_fresh_seeds_when_the_search_is_over(memory: Path) -> None:
    studies = Studies(sweep_of(top=2, seeds=2), memory)
    told = run_out(studies)
    assert all(seed is None for *_, seed, _ in told[:6])  # the search first
    assert told[6:] == [
        *[("distilled", 3, 6, 1), ("fine_tuned", 1, 6, 1), ("distilled", 2, 6, 1), ("fine_tuned", 0, 6, 1)],
        *[("distilled", 3, 7, 1), ("fine_tuned", 1, 7, 1), ("distilled", 2, 7, 1), ("fine_tuned", 0, 7, 1)],
    ]
    assert studies.is_done() and not studies.is_open()
    assert run_out(Studies(sweep_of(top=2, seeds=2), memory)) == []


def test_a_finalist_has_the_configuration_of_its_trial_and_another_seed(memory: Path) -> None:
    studies = Studies(sweep_of(top=1, seeds=1, controls=0, trials=1), memory)
    first = studies.take()
    assert first is not None
    assert studies.finish(
        first, replace(missing_result("distilled", 0, status="complete", error="", attempt=1), val_accuracy=0.5), {}
    )
    second = studies.take()
    assert second is not None and second.id.seed is not None
    assert second.params == {**first.params, "seed": 6}


def test_no_seed_of_a_finalist_was_used_in_the_search() -> None:
    sweep = sweep_of(top=1, seeds=3, search={"seed": Axis(low=0, high=9, step=1)})
    assert sweep.finalist_seeds() == (10, 11, 12)
    assert sweep_of(top=1, seeds=2).finalist_seeds() == (6, 7)


@pytest.mark.slow
def test_a_search_that_goes_on_opens_the_test_split_again_only_for_those_that_are_new(memory: Path) -> None:
    run_out(Studies(sweep_of(top=1, seeds=2), memory))
    again = run_out(Studies(sweep_of(top=1, seeds=2, trials=6), memory))
    assert finalists_of(again) == [("distilled", 5, 6, 2), ("distilled", 5, 7, 2)]
    more = run_out(Studies(sweep_of(top=1, seeds=3, trials=6), memory))
    assert finalists_of(more) == [("distilled", 5, 8, 3), ("fine_tuned", 1, 8, 3)]


@pytest.mark.slow
def test_finalists_that_wait_when_the_search_goes_on_do_not_run_once_it_has_passed_them(memory: Path) -> None:
    first = Studies(sweep_of(top=1, seeds=2), memory)
    while not first.search_is_over():
        mine = first.take()
        assert mine is not None
        result = missing_result(mine.id.arm, mine.id.number, status="complete", error="", attempt=1)
        assert first.finish(mine, replace(result, val_accuracy=mine.id.number / 100), {})
    mine = first.take()  # queues all four
    assert mine is not None and (mine.id.arm, mine.id.number) == ("distilled", 3)
    first.put_back(mine)
    assert first.finished("finalists") == 0
    more = Studies(sweep_of(top=1, seeds=2, trials=6), memory)
    told = finalists_of(run_out(more))
    assert sorted({(arm, trial) for arm, trial, *_ in told}) == [("distilled", 5), ("fine_tuned", 1)] and len(told) == 4
    assert more.is_done() and more.finished("finalists") == 4


def test_a_finalist_that_was_cut_off_goes_back_under_its_own_number(memory: Path) -> None:
    studies = Studies(sweep_of(top=1, seeds=1, controls=0, trials=1), memory, owner="a")
    first = studies.take()
    assert first is not None
    assert studies.finish(
        first, replace(missing_result("distilled", 0, status="complete", error="", attempt=1), val_accuracy=0.5), {}
    )
    cut_off = studies.take()
    assert cut_off is not None and not studies.is_open() and not studies.is_done()
    (settled,) = studies.settle(lambda _: True)
    assert (settled.id, settled.round) == (cut_off.id, cut_off.round)
    assert studies.is_open()
    again = Studies(sweep_of(top=1, seeds=1, controls=0, trials=1), memory, owner="b").take()
    assert again is not None and (again.storage_id, again.attempt, again.id) == (cut_off.storage_id, 2, cut_off.id)


@pytest.mark.slow
def test_finalists_of_two_lengths_are_never_mixed(memory: Path) -> None:
    def longer(sweep: SweepConfig, factor: int) -> SweepConfig:
        return replace(sweep, finalists=replace(sweep.finalists, epochs_factor=factor))

    run_out(Studies(sweep_of(top=0, seeds=1), memory))  # a search may be continued by finalists of any length
    beside = Studies(sweep_of(top=1, seeds=1), memory)
    run_out(Studies(longer(sweep_of(top=1, seeds=1), 3), memory))
    with pytest.raises(ResultsError, match="queued with finalists.epochs_factor: 3, now 1\n.*--fork NEW_NAME"):
        Studies(sweep_of(top=1, seeds=1), memory)
    with pytest.raises(ResultsError, match="finalists.epochs_factor: 3, now 1"):
        beside.take()  # another host, which began before the finalists were queued
    assert Studies(sweep_of(top=0, seeds=1), memory).is_done()


@pytest.mark.slow
def test_a_report_of_several_hosts_refuses_finalists_of_two_lengths(tmp_path: Path) -> None:
    for name, factor in (("a", 1), ("b", 3)):
        folder = tmp_path / name / "s"
        sweep = make_full(folder)
        make_finalist(folder, sweep, "distilled", 0, 1, 0.9)
        (run,) = read_records(folder).finalists
        (run.folder / "config.yaml").write_text(trial_yaml(lengthened(run.config, factor)), encoding="utf-8")
    with pytest.raises(
        ResultsError, match=r"trained equally long, but not those of:\n.*a/s: 1 times.*\n.*b/s: 3 times"
    ):
        read_records(tmp_path / "a" / "s", tmp_path / "b" / "s")


def test_a_changed_length_of_finalists_that_ran_leaves_the_record_of_the_sweep_alone(tmp_path: Path) -> None:
    sweep = sweep_of(top=1, seeds=1)
    longer = replace(sweep, finalists=replace(sweep.finalists, epochs_factor=3))
    start_sweep(tmp_path, sweep)
    start_sweep(tmp_path, longer)  # none has run
    (tmp_path / "finalists" / "distilled-0003-seed6").mkdir(parents=True)
    with pytest.raises(ResultsError, match="finalists.epochs_factor: 3, now 1"):
        start_sweep(tmp_path, sweep)
    assert read_sweep(tmp_path) == longer


def test_without_finalists_the_search_is_all(memory: Path) -> None:
    studies = Studies(sweep_of(top=0, seeds=3), memory)
    assert finalists_of(run_out(studies)) == [] and studies.is_done()


def test_a_packed_trial_comes_back_whole_on_another_host(tmp_path: Path, tiny_config: Callable[..., Any]) -> None:
    there = trial_folder(tmp_path / "there", TrialId("distilled", 7, 1))
    folder = TrialFolder(there)
    folder.start(tiny_config(seed=1))
    folder.write_predictions(np.array([0, 149, 3]))
    measured = {name: 0.5 for name in ("accuracy", "macro_f1", "mcc", "loss", "ece", "agreement", "kl")}
    final = FinalTest(**measured, reliability=((0.5, 0.25, 3),), rows=2, opened_at="2026-01-01")
    folder.write_test(final, np.array([1, 0]))
    folder.finish(missing_result("distilled", 7, status="failed", error="", attempt=1))
    here = trial_folder(tmp_path / "here", TrialId("distilled", 7, 1))
    unpack_trial(here, json.loads(json.dumps(packed_trial(there))))
    assert read_test(here) == final
    predictions = read_test_predictions(here)
    assert predictions is not None and predictions.tolist() == [1, 0]
    for name in ("config.yaml", "result.json", "test.json"):
        assert (here / name).read_bytes() == (there / name).read_bytes()


@pytest.mark.slow
def test_finalists_run_after_the_search_on_the_test_split_and_survive_a_kill(
    tiny_sweep_file: WriteSweep, tmp_path: Path
) -> None:
    sections: dict[str, Any] = {"finalists": {"top": 1, "seeds": 2}, "fixed": {"test_fraction": 0.2, "epochs": 12}}
    undisturbed = command("run", tiny_sweep_file("whole", **sections))
    assert undisturbed.returncode == 0 and "the search is over, and its report written" in undisturbed.stdout
    path = tiny_sweep_file(**sections)
    results = tmp_path / "results"
    with started("run", path) as process:
        wait_for(lambda: any((results / "tiny" / "finalists").glob("*/steps.jsonl")))
        for pid in processes(results):
            os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=30)
    done = command("run", path)
    assert done.returncode == 0, done.stderr

    def found(name: str) -> list[tuple[Any, ...]]:
        rows = read_records(results / name).finalists
        assert all(row.result and row.result.status == "complete" and row.result.finalist for row in rows)
        tests = [read_test(row.folder) for row in rows]
        assert all(test and test.rows == len(read_test_labels(results / name)) for test in tests)  # type: ignore[arg-type]
        return [
            (row.arm, row.trial, row.finalist_seed, row.config.seed, test and test.accuracy, test and test.loss)
            for row, test in zip(rows, tests, strict=True)
        ]

    assert found("tiny") == found("whole")
    assert [(arm, seed) for arm, _, seed, *_ in found("tiny")] == [
        (a, s) for a in ("distilled", "fine_tuned") for s in (1, 2)
    ]
    teacher = read_test(results / "tiny" / "teacher")
    assert teacher is not None and teacher.agreement == 1.0
    search = [row.folder for row in read_records(results / "tiny").trials]
    assert all(read_test(folder) is None for folder in search)  # the search never sees the test split


@pytest.mark.slow
def test_the_search_ranks_by_the_metric_that_the_file_names(tiny_sweep_file: WriteSweep, tmp_path: Path) -> None:
    sections = {"study": {"metric": "val_mcc", "trials": 4, "controls": 0, "target": 0.999}, "fixed": {"epochs": 1}}
    done = command("run", tiny_sweep_file(**sections))
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "results" / "tiny" / "leaderboard.json").read_text())["trials"]
    scores = [row["val_mcc"] for row in rows]
    assert scores == sorted(scores, reverse=True) and "val_mcc" in done.stdout


def test_a_student_that_breaks_a_constraint_is_no_finalist_and_its_latency_is_measured_once(memory: Path) -> None:
    sweep = sweep_of(top=2, seeds=1, controls=0)
    studies, measured = Studies(sweep, memory), []
    for _ in range(4):
        mine = studies.take_from("distilled")
        assert mine is not None
        latency = studies.agreements.agreed_latency("small", lambda: float(len(measured) or measured.append(0) or 5.0))
        mine.constrain({"latency_ms_p50": latency - 5.0, "size_mb": 1.0 if mine.id.number == 3 else -1.0})
        result = missing_result("distilled", mine.id.number, status="complete", error="", attempt=1)
        assert studies.finish(mine, replace(result, val_accuracy=mine.id.number / 100), {})
    assert measured == [0]
    assert [trial.number for trial in Studies(sweep, memory).finalists.wanted()] == [2, 1]


@pytest.mark.slow
def test_constraints_rank_only_students_that_keep_them(tiny_sweep_file: WriteSweep, tmp_path: Path) -> None:
    search = {"student_layers": {"choices": [1, 2]}}
    fixed = {"student_layers": None, "epochs": 1}
    path = tiny_sweep_file(search=search, fixed=fixed, study={"trials": 6, "controls": 0, "startup_trials": 10})
    sizes = tmp_path / "results" / "tiny" / "leaderboard.json"
    assert command("run", path, "name=free").returncode == 0
    found = json.loads((tmp_path / "results" / "free" / "leaderboard.json").read_text())["trials"]
    small, large = sorted({row["size_mb"] for row in found if row["size_mb"]})
    limit = (small + large) / 2
    done = command("run", path, f"study.constraints.size_mb={limit}")
    assert done.returncode == 0 and "breaks size_mb" in done.stdout, done.stdout
    rows = json.loads(sizes.read_text())["trials"]
    assert {row["student_layers"] for row in rows if row["rank"]} == {1}
    infeasible = [row for row in rows if row["status"] == "infeasible"]
    assert infeasible and all(row["student_layers"] == 2 and "size_mb" in row["reason"] for row in infeasible)


def of_three(**study: Any) -> SweepConfig:
    sweep = sweep_of(top=1, seeds=1, **study)
    return replace(sweep, fixed={**sweep.fixed, "unlabeled_file": "more.csv"})


@pytest.mark.slow
def test_three_arms_take_turns_and_the_best_of_each_runs_again(memory: Path) -> None:
    sweep = of_three(trials=2, pseudo_labeled=1)
    told = run_out(Studies(sweep, memory))
    search = [each[:2] for each in told if each[2] is None]
    assert search == [("distilled", 0), ("fine_tuned", 0), ("pseudo_labeled", 0), ("distilled", 1), ("fine_tuned", 1)]
    assert finalists_of(told) == [(arm, number, 6, 1) for arm, number in zip(ARMS, (1, 1, 0), strict=True)]
    more = run_out(Studies(of_three(trials=2, pseudo_labeled=2), memory))
    assert more == [("pseudo_labeled", 1, None, None), ("pseudo_labeled", 1, 6, 2)]


@pytest.mark.slow
def test_an_arm_that_is_given_up_is_searched_and_confirmed_no_more(memory: Path) -> None:
    first = Studies(of_three(trials=1, controls=1), memory)
    for arm in ARMS:
        assert (mine := first.take()) is not None and mine.id.arm == arm
        result = missing_result(arm, 0, status="complete", error="", attempt=1)
        assert first.finish(mine, replace(result, val_accuracy=0.5), {})
    cut_off = [first.take() for _ in ARMS]
    assert [each.id.arm for each in cut_off if each] == list(ARMS)
    later = Studies(of_three(trials=1, controls=1, pseudo_labeled=0), memory, owner="later")
    assert {each.id.arm for each in later.settle(lambda _: True)} == set(ARMS), "none stays as if it were running"
    assert [arm for arm, *_ in run_out(later)] == ["distilled", "fine_tuned"] and later.is_done()


def test_arms_are_sampled_differently_and_a_third_one_changes_nothing_in_the_others(memory: Path) -> None:
    def proposed(sweep: SweepConfig, folder: Path) -> dict[str, float]:
        folder.mkdir()
        studies = Studies(sweep, folder)
        taken = [studies.take_from(arm) for arm in sweep.arms]
        return {each.id.arm: each.params["learning_rate"] for each in taken if each}

    two, three = proposed(sweep_of(top=1, seeds=1), memory / "two"), proposed(of_three(), memory / "three")
    assert len(set(three.values())) == 3 and {arm: three[arm] for arm in two} == two


def test_an_axis_of_one_arm_is_sampled_there_alone(memory: Path) -> None:
    search = {"learning_rate": Axis(low=1e-5, high=1e-3), "epochs": Axis(choices=(2, 4), arms=("fine_tuned",))}
    studies = Studies(sweep_of(top=1, seeds=1, search=search, trials=1, controls=1), memory)
    taken = {arm: studies.take_from(arm) for arm in PRIMARY}
    params = {arm: set(each.params) for arm, each in taken.items() if each}
    assert params == {"distilled": {"learning_rate"}, "fine_tuned": {"learning_rate", "epochs"}}
