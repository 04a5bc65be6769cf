"""The search: slots that never move, nothing counted twice, and a resumed sweep that proposes what an undisturbed one would."""

import random
import re
import sqlite3
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from alembic.script import ScriptDirectory
from optuna.trial import TrialState
from searches import AXES, Objective, Point, run_next, sweep_of
from servers import Postgres

from kdsweep.config.axis import Axis
from kdsweep.config.sweep import SweepConfig
from kdsweep.errors import Interrupted, ResultsError, TrialFailed
from kdsweep.records.layout import study_path
from kdsweep.records.reading import read_sweep_key
from kdsweep.records.schema import Status, missing_result
from kdsweep.search.sampler import pruner as pruner_of
from kdsweep.search.studies import SILENCED, Assignment, Studies


@pytest.fixture(scope="module", autouse=True)
def migrations_read_once() -> Iterator[None]:
    """Optuna imports its migration scripts again for every storage that it opens: half of what an opening takes."""
    read, known = ScriptDirectory.from_config, dict[str | None, ScriptDirectory]()
    with pytest.MonkeyPatch.context() as patch:
        keep = lambda config: known.setdefault(config.get_main_option("script_location"), read(config))
        patch.setattr(ScriptDirectory, "from_config", keep)
        yield


@pytest.fixture
def tmp_path(memory: Path) -> Path:
    return memory


def next_arm(studies: Studies) -> Any:
    """The arm of the trial that would be taken now; None where there is none."""
    assignment = studies.take()
    if assignment is None:
        return None
    studies.put_back(assignment)
    return assignment.id.arm


def everybody(_: str | None) -> bool:
    """All owners are dead."""
    return True


def value(point: Point) -> float:
    """Something that TPE can climb."""
    return 1.0 - abs(point.get("alpha", 0.5) - 0.7) - abs(point.get("temperature", 4.0) - 4.0) / 16


def watched(seen: list[Point]) -> Objective:
    """An objective that notes its points."""

    def objective(_: Assignment, point: Point) -> float:
        seen.append(point)
        return value(point)

    return objective


def undisturbed(folder: Path, sweep: SweepConfig) -> list[Point]:
    """The distilled arm's points in one go."""
    seen: list[Point] = []
    folder.mkdir()
    studies = Studies(sweep, folder)
    while studies.remaining("distilled"):
        run_next(studies, "distilled", watched(seen))
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "gp", "random"])
def test_a_study_reopened_before_every_trial_proposes_what_one_session_proposes(sampler: str, tmp_path: Path) -> None:
    sweep = sweep_of(sampler=sampler, trials=10)
    expected = undisturbed(tmp_path / "whole", sweep)
    seen: list[Point] = []
    for _ in range(10):
        run_next(Studies(sweep, tmp_path), "distilled", watched(seen))
    assert seen == expected
    assert Studies(sweep, tmp_path).remaining("distilled") == 0
    assert all(point["batch_size"] in (16, 32, 64) and isinstance(point["batch_size"], int) for point in seen)


def test_the_clock_goes_while_anybody_works_and_closes_the_study_when_the_time_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("kdsweep.search.clock.time.time", lambda: now[0])
    sweep = sweep_of(timeout_minutes=1)
    here, there = Studies(sweep, tmp_path), Studies(sweep, tmp_path)

    def tick(studies: Studies, seconds: float) -> float:
        now[0] += seconds
        studies.clock.tick()
        return studies.clock.seconds()

    assert [tick(here, 0), tick(here, 5), tick(there, 2), tick(here, 3)] == [0, 5, 7, 10]  # side by side: counted once
    assert tick(there, 3600) == 10  # nobody worked
    assert here.take_from("distilled") and not here.is_done()
    assert tick(here, 50) == 60 and there.is_done() and there.take() is None and not there.is_open()
    assert not Studies(replace(sweep, study=replace(sweep.study, timeout_minutes=2)), tmp_path).is_done()


def test_another_seed_proposes_otherwise_and_the_arms_do_not_share_their_luck(tmp_path: Path) -> None:
    only = {"learning_rate": AXES["learning_rate"]}
    seen: dict[Any, list[Point]] = {}
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        studies = Studies(sweep_of(only, seed=seed, sampler="random", controls=2), tmp_path / str(seed))
        for arm in ("distilled", "fine_tuned"):
            seen[seed, arm] = []
            for _ in range(2):
                run_next(studies, arm, watched(seen[seed, arm]))
    points = [point["learning_rate"] for run in seen.values() for point in run]
    assert len(set(points)) == 8


def kill(studies: Studies, arm: Any, folder: Path) -> Point:
    """What SIGKILL leaves: a trial that is running, with its parameters and a report, and nobody who runs it."""
    seen: list[Point] = []

    def objective(trial: Assignment, point: Point) -> float:
        trial.report(0.5, 1)
        seen.append(point)
        raise Interrupted

    with pytest.raises(Interrupted):
        run_next(studies, arm, objective)
    connection = sqlite3.connect(study_path(folder))
    connection.execute("UPDATE trials SET state = 'RUNNING' WHERE state = 'WAITING' AND datetime_start IS NOT NULL")
    connection.commit()
    connection.close()
    return seen[0]


def test_hyperband_shares_out_the_evaluations_of_the_longest_trial() -> None:
    sweep = sweep_of(pruner="hyperband")
    by_steps = replace(sweep, fixed={**sweep.fixed, "max_steps": 80, "evaluations": 8})
    assert [each._inner._max_resource for each in map(pruner_of, (sweep, by_steps))] == [3, 8]  # type: ignore[attr-defined]


@pytest.mark.parametrize("pruner", ["none", "hyperband"])
@pytest.mark.slow
def test_killed_trials_settle_under_their_own_number_and_change_no_later_proposal(pruner: str, tmp_path: Path) -> None:
    sweep = sweep_of(pruner=pruner)
    expected = undisturbed(tmp_path / "whole", sweep)
    seen: list[Point] = []
    studies = Studies(sweep, tmp_path)
    for number in range(5):
        if number in (1, 3, 4):
            assert kill(studies, "distilled", tmp_path) == expected[number]
            studies = Studies(sweep, tmp_path)
            assert (len(studies.settle(everybody)), len(studies.settle(everybody))) == (1, 0)
        run_next(studies, "distilled", watched(seen))
    assert seen == expected
    trials = trials_of(tmp_path)
    assert [trial.number for trial in trials] == list(range(5))
    assert [trial.user_attrs["attempt"] for trial in trials] == [1, 2, 1, 2, 2]


def searched(folder: Path, sweep: SweepConfig, *, at_a_time: int, seed: int) -> dict[int, tuple[Point, int, Status]]:
    """By slot: the point, how many of four epochs it ran, and how it ended; trials go on epoch by epoch in an order of chance."""
    folder.mkdir()
    studies, rng = Studies(sweep, folder), random.Random(seed)
    running: list[tuple[Assignment, int]] = []
    ended: dict[int, tuple[Point, int, Status]] = {}
    while studies.remaining("distilled"):
        new = studies.take_from("distilled") if len(running) < at_a_time else None
        if new is not None:
            running.append((new, 0))
            continue
        assignment, epoch = running.pop(rng.randrange(len(running)))
        score, epoch = value(dict(assignment.params)) * (epoch + 1) / 4, epoch + 1
        assignment.report(score, epoch)
        pruned = epoch < 4 and assignment.should_prune()
        if not pruned and epoch < 4:
            running.append((assignment, epoch))
            continue
        status: Status = "pruned" if pruned else "complete"
        result = missing_result("distilled", assignment.id.number, status=status, error="", attempt=1)
        assert studies.finish(assignment, replace(result, val_accuracy=None if pruned else score), {})
        ended[assignment.id.number] = (dict(assignment.params), epoch, status)
    return ended


@pytest.mark.parametrize("pruner", ["median", pytest.param("hyperband", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_trials_side_by_side_in_any_order_are_those_of_one_after_the_other(pruner: str, tmp_path: Path) -> None:
    sweep = sweep_of(pruner=pruner, trials=9)
    alone = searched(tmp_path / "alone", sweep, at_a_time=1, seed=0)
    assert "pruned" in {status for *_, status in alone.values()}
    for seed in (1, 2):
        assert searched(tmp_path / str(seed), sweep, at_a_time=3, seed=seed) == alone
    free = replace(sweep, study=replace(sweep.study, lag=None))
    assert searched(tmp_path / "free", free, at_a_time=3, seed=1) != alone


def test_a_trial_waits_for_those_that_it_learns_from(tmp_path: Path) -> None:
    studies = Studies(sweep_of(lag=1), tmp_path)
    first, second = studies.take_from("distilled"), studies.take_from("distilled")
    assert first and second and (first.id.number, second.id.number) == (0, 1)
    assert studies.take_from("distilled") is None and studies.take() is None and studies.is_open()
    result = replace(missing_result("distilled", 1, status="complete", error="", attempt=1), val_accuracy=0.5)
    assert studies.finish(second, result, {}) and studies.take() is None  # trial 2 learns from trial 0
    studies.put_back(first)
    again = studies.take()
    assert again and again.id.number == 0 and studies.finish(again, replace(result, trial=0), {})
    following = studies.take()
    assert following and following.id.number == 2


def test_a_duplicate_is_answered_from_trials_that_it_may_know(tmp_path: Path) -> None:
    queue = [{"alpha": 0.5}] * 4
    studies = Studies(sweep_of({"alpha": AXES["alpha"]}, queue, lag=2), tmp_path)
    twins = []
    for number in range(4):
        assignment = studies.take_from("distilled")
        assert assignment and assignment.id.number == number
        twins.append(studies.twin(assignment))
        result = replace(missing_result("distilled", number, status="complete", error="", attempt=1), val_accuracy=0.5)
        assert studies.finish(assignment, result, {})
    assert [twin and twin.number for twin in twins] == [None, None, None, 0]


def trials_of(folder: Path, arm: str = "distilled") -> list[optuna.trial.FrozenTrial]:
    """All trials of an arm, read by Optuna alone."""
    return optuna.load_study(study_name=f"s-{arm}", storage=f"sqlite:///{study_path(folder)}").get_trials()


def test_a_trial_that_fails_by_itself_counts_and_the_study_goes_on(tmp_path: Path) -> None:
    studies = Studies(sweep_of(trials=2), tmp_path)

    def fail(_: Assignment, __: Point) -> float:
        raise TrialFailed("the loss must stay finite")

    run_next(studies, "distilled", fail)
    assert (studies.finished("distilled"), studies.remaining("distilled")) == (1, 1)
    run_next(studies, "distilled", watched([]))
    assert [trial.state for trial in trials_of(tmp_path)] == [TrialState.FAIL, TrialState.COMPLETE]
    assert next_arm(studies) is None


def test_a_pruned_trial_counts(tmp_path: Path) -> None:
    studies = Studies(sweep_of(trials=1), tmp_path)

    def prune(_: Assignment, __: Point) -> float:
        raise optuna.TrialPruned("others were ahead")

    run_next(studies, "distilled", prune)
    assert [trial.state for trial in trials_of(tmp_path)] == [TrialState.PRUNED]
    assert studies.remaining("distilled") == 0


@pytest.mark.slow
@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), KeyboardInterrupt(), SystemExit(3), Interrupted()])
def test_any_other_exception_puts_the_trial_back_and_comes_out_as_it_was(error: BaseException, tmp_path: Path) -> None:
    studies = Studies(sweep_of(), tmp_path)
    lost: list[Point] = []

    def break_off(_: Assignment, point: Point) -> float:
        lost.append(point)
        raise error

    with pytest.raises(type(error)) as raised:
        run_next(studies, "distilled", break_off)
    assert raised.value is error
    assert [trial.state for trial in trials_of(tmp_path)] == [TrialState.WAITING]
    assert studies.finished("distilled") == 0
    again: list[Point] = []
    run_next(studies, "distilled", watched(again))
    assert again == lost
    assert [(t.number, t.state) for t in trials_of(tmp_path)] == [(0, TrialState.COMPLETE)]


SOFT = {**AXES, "temperature": replace(AXES["temperature"], when={"soft_loss": ("kl",)})}
SOFT |= {"soft_loss": Axis(choices=("kl", "mse"))}


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "gp", "random"])
def test_a_field_with_a_condition_is_proposed_where_it_holds_alone_reopened_or_not(
    sampler: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sweep = sweep_of(SOFT, sampler=sampler, trials=5)
    expected = undisturbed(tmp_path / "whole", sweep)
    seen: list[Point] = []
    for _ in range(5):
        run_next(Studies(sweep, tmp_path), "distilled", watched(seen))
    assert seen == expected
    assert {point["soft_loss"] for point in seen} == {"kl", "mse"}
    assert all(("temperature" in point) is (point["soft_loss"] == "kl") for point in seen)
    assert [trial.params for trial in trials_of(tmp_path)] == seen
    assert "sampled independently" not in capfd.readouterr().err


def test_a_duplicate_under_a_condition_is_one_whatever_the_field_would_have_been(tmp_path: Path) -> None:
    axes = {"temperature": SOFT["temperature"], "soft_loss": SOFT["soft_loss"]}
    sweep = sweep_of(axes, [{"soft_loss": "mse"}] * 3, trials=3, lag=0)
    studies, twins = Studies(sweep, tmp_path), []
    for _ in range(3):
        run_next(studies, "distilled", lambda assignment, _: twins.append(studies.twin(assignment)) or 0.5)
    assert [twin and twin.number for twin in twins] == [None, 0, 0]


def test_a_grid_under_a_condition_runs_each_point_once(tmp_path: Path) -> None:
    stepped = Axis(low=1.0, high=2.0, step=1.0, when={"soft_loss": ("kl",)})
    sweep = sweep_of(
        {"temperature": stepped, "soft_loss": SOFT["soft_loss"]}, [{"soft_loss": "mse"}], sampler="grid", trials=99
    )
    seen = undisturbed(tmp_path / "grid", sweep)
    kl = [{"soft_loss": "kl", "temperature": t} for t in (1.0, 2.0)]
    assert seen == [{"soft_loss": "mse"}, *kl]


GRID = {"temperature": Axis(low=1.0, high=2.0, step=1.0), "student_layers": Axis(choices=(2, (0, 2)))}


@pytest.mark.slow
@pytest.mark.parametrize(
    "enqueue",
    [
        [{"temperature": 1.0, "student_layers": 2}],
        [{"temperature": 2.0, "student_layers": (0, 2)}, {"temperature": 1.0, "student_layers": (0, 2)}],
        [{"student_layers": (0, 2)}],
    ],
)
def test_a_grid_runs_each_point_once_whatever_comes_first_reopened_or_not(enqueue: list[Point], tmp_path: Path) -> None:
    sweep = sweep_of(GRID, enqueue, sampler="grid", trials=99, controls=99)
    seen: dict[Any, list[Point]] = {"distilled": [], "fine_tuned": []}
    studies = Studies(sweep, tmp_path)
    while (arm := next_arm(studies)) is not None:
        run_next(studies, arm, watched(seen[arm]))
        studies = Studies(sweep, tmp_path) if len(seen["distilled"]) == 2 else studies
    grid = [{"temperature": t, "student_layers": layers} for t in (1.0, 2.0) for layers in (2, (0, 2))]
    assert sorted(map(str, seen["distilled"])) == sorted(map(str, grid))
    assert [item.items() <= point.items() for item, point in zip(enqueue, seen["distilled"], strict=False)] == [
        True
    ] * len(enqueue)
    assert sorted(map(str, seen["fine_tuned"])) == ["{'student_layers': (0, 2)}", "{'student_layers': 2}"]


def test_known_recipes_come_first_once_and_what_they_leave_open_is_sampled(tmp_path: Path) -> None:
    queue = [{"alpha": 1.0, "temperature": 1.0}, {"alpha": 0.5, "batch_size": 64}]
    seen: list[Point] = []
    for _ in range(3):
        run_next(Studies(sweep_of(enqueue=queue), tmp_path), "distilled", watched(seen))
    assert queue[0].items() <= seen[0].items() and queue[1].items() <= seen[1].items()
    assert all(set(point) == set(AXES) for point in seen)
    assert [point["alpha"] in (0.5, 1.0) for point in seen] == [True, True, False]


def test_the_arms_take_turns_so_that_both_end_together_and_recipes_are_the_distilled_ones(tmp_path: Path) -> None:
    studies = Studies(sweep_of(enqueue=[{"alpha": 1.0}], trials=4, controls=2), tmp_path)
    turns, points = [], []
    while (arm := next_arm(studies)) is not None:
        turns.append(arm)
        run_next(studies, arm, watched(points))
    assert turns == ["distilled", "fine_tuned", "distilled", "distilled", "fine_tuned", "distilled"]
    for arm, point in zip(turns, points, strict=True):
        assert set(point) == (set(AXES) if arm == "distilled" else {"learning_rate", "batch_size"})
    assert points[0]["alpha"] == 1.0


def test_a_budget_can_grow_and_nothing_is_done_again(tmp_path: Path) -> None:
    seen: list[Point] = []
    for trials in (2, 2, 3):
        studies = Studies(sweep_of(trials=trials), tmp_path)
        while (arm := next_arm(studies)) is not None:
            run_next(studies, arm, watched(seen))
    assert len(seen) == 3


def test_a_study_of_another_sweep_file_is_refused_with_what_changed(tmp_path: Path) -> None:
    Studies(sweep_of(), tmp_path)
    other = sweep_of({**AXES, "alpha": Axis(low=0.0, high=0.5)}, seed=4)
    with pytest.raises(ResultsError) as error:
        Studies(other, tmp_path)
    message = str(error.value)
    assert "'s-distilled' was made by another sweep file" in message
    assert "study.seed: 0, now 4" in message and "search.alpha: [0, 1], now [0, 0.5]" in message


def test_the_embedded_storage_keeps_a_write_ahead_log_and_locks_when_a_transaction_begins(tmp_path: Path) -> None:
    studies = Studies(sweep_of(), tmp_path)
    engine = studies._storage.rdb.engine
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        other = sqlite3.connect(study_path(tmp_path), timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")  # our transaction has only read, yet holds the lock
        other.close()


@pytest.mark.slow
def test_two_writers_never_take_the_same_queued_trial(tmp_path: Path) -> None:
    queue = [{"alpha": number / 16} for number in range(8)]
    sweep = sweep_of({"alpha": AXES["alpha"]}, queue, trials=8, sampler="random", lag=None)
    Studies(sweep, tmp_path)
    seen: list[list[Point]] = [[], []]
    start = threading.Barrier(2)

    def work(index: int) -> None:
        studies = Studies(sweep, tmp_path)
        start.wait()
        for _ in range(4):
            run_next(studies, "distilled", watched(seen[index]))

    run_together([lambda: work(0), lambda: work(1)])
    assert sorted(point["alpha"] for points in seen for point in points) == [number / 16 for number in range(8)]
    assert [trial.state for trial in trials_of(tmp_path)] == [TrialState.COMPLETE] * 8


def run_together(jobs: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_sweeps_key_is_drawn_once_and_anew_for_another_folder(tmp_path: Path) -> None:
    keys = []
    for name in ("here", "there"):  # a deleted folder begins as a new one does
        (tmp_path / name).mkdir()
        keys.append({Studies(sweep_of(), tmp_path / name).agreements.sweep_key() for _ in range(2)})
        assert keys[-1] == {read_sweep_key(tmp_path / name)}
    assert keys[0] != keys[1]


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::optuna.exceptions.ExperimentalWarning"
)  # pytest takes the package's own filters away
def test_hosts_that_share_a_database_share_the_sweeps_key(tmp_path: Path, postgres: Postgres) -> None:
    keys = set()
    for name in ("host a", "host b"):
        (tmp_path / name).mkdir()
        studies = Studies(sweep_of(storage=postgres.url), tmp_path / name)
        keys |= {studies.agreements.sweep_key(), read_sweep_key(tmp_path / name)}
        studies._storage.rdb.engine.dispose()
    assert len(keys) == 1


def test_optunas_warnings_of_what_is_meant_here_are_known_by_their_words(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'warned.db'}"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        trial = optuna.create_study(storage=optuna.storages.RDBStorage(address)).ask()
        trial.report(0.5, 1)
        trial.report(0.5, 1)
    said = [str(warning.message) for warning in caught]
    assert [[bool(re.match(known, text)) for known in SILENCED] for text in said] == [[True]]
