"""Finalists that the end of the search cannot change any more begin before it; who they are, and every record, stays the same."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from commands import command
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from kdsweep.config.axis import Axis
from kdsweep.config.sweep import FinalistsConfig, StudyConfig, SweepConfig
from kdsweep.records.layout import TrialId
from kdsweep.records.reading import read_test
from kdsweep.records.schema import finalist_of, missing_result
from kdsweep.records.whole_sweep import read_records
from kdsweep.search import attributes
from kdsweep.search.assignment import Assignment
from kdsweep.search.finalists_queue import FinalistsQueue
from kdsweep.search.ranked import best_first
from kdsweep.search.studies import Studies


def sweep_of(top: int, seeds: int = 1, **study: Any) -> SweepConfig:
    """A sweep over the learning rate, of 4 distilled trials and no control."""
    return SweepConfig(
        name="s",
        fixed={"train_file": "rows.csv", "teacher": "bert", "teacher_epochs": 1},
        search={"learning_rate": Axis(low=1e-5, high=1e-3, log=True)},
        study=StudyConfig(**{"trials": 4, "controls": 0, "pruner": "none", "sampler": "random", **study}),
        finalists=FinalistsConfig(top=top, seeds=seeds),
    )


def told(studies: Studies, mine: Assignment | None, value: float) -> TrialId:
    """Tell the end of a trial or finalist; which one it was."""
    assert mine is not None
    result = missing_result(
        *(mine.id.arm, mine.id.number),
        status="complete",
        error="",
        attempt=1,
        finalist=finalist_of(mine.id, mine.round),
    )
    assert studies.finish(mine, replace(result, val_accuracy=value), {})
    return mine.id


# Who is certain ------------------------------------------------------------------------------------------------------


def ended(number: int, draw: random.Random) -> FrozenTrial:
    """A trial that completed with one of few values, so that many tie, was pruned, failed, repeats another one or breaks a constraint."""
    state = draw.choice([TrialState.COMPLETE] * 5 + [TrialState.PRUNED, TrialState.FAIL])
    rate = draw.random()
    trial = create_trial(
        state=state,
        value=draw.randrange(4) / 4 if state == TrialState.COMPLETE else None,
        params={"learning_rate": rate},
        distributions={"learning_rate": FloatDistribution(0, 1)},
        user_attrs={attributes.TWIN: 0} if draw.random() < 0.1 else {},
    )
    trial.number = number
    if state == TrialState.COMPLETE:
        trial.set_constraint("size_mb", draw.choice([-1.0, -1.0, -1.0, 2.0]))
    return trial


def unfinished(number: int, state: TrialState) -> FrozenTrial:
    trial = create_trial(state=state, params={}, distributions={})
    trial.number = number
    return trial


def queue_of(sweep: SweepConfig, trials: Callable[[str], Sequence[FrozenTrial]]) -> FinalistsQueue:
    ranked = lambda arm: [trial for trial, _ in best_first(arm, arm, trials(arm), [])]
    nothing = cast(Any, None)
    return FinalistsQueue(sweep, nothing, nothing, ranked, trials)


def test_who_is_certain_stays_a_finalist_whatever_the_trials_to_come_bring() -> None:
    draw, early = random.Random(0), 0
    for _ in range(150):
        trials, top = draw.randint(1, 7), draw.randint(1, 4)
        sweep = sweep_of(top, seeds=2, trials=trials, controls=draw.randint(0, trials))
        ends = {arm: [ended(number, draw) for number in range(sweep.budget(arm))] for arm in sweep.arms}
        order = [(arm, number) for arm in sweep.arms for number in range(sweep.budget(arm))]
        draw.shuffle(order)
        there: set[tuple[str, int]] = set()
        state = draw.choice([TrialState.RUNNING, TrialState.WAITING])
        now = lambda arm: [t if (arm, t.number) in there else unfinished(t.number, state) for t in ends[arm]]  # noqa: B023
        final, before = queue_of(sweep, lambda arm: ends[arm]).wanted(), set()  # noqa: B023
        for one in order:
            there.add(one)
            certain = queue_of(sweep, now).certain()
            assert before <= set(certain) <= set(final)
            before = set(certain)
            early += bool(certain and len(there) < len(order))
        assert queue_of(sweep, now).certain() == final
    assert early > 100


def test_nobody_is_certain_that_the_trials_to_come_could_displace() -> None:
    ends = [create_trial(state=TrialState.COMPLETE, value=0.5, params={}, distributions={}) for _ in range(4)]
    for number, trial in enumerate(ends):
        trial.number = number
    waits, runs = unfinished(4, TrialState.WAITING), unfinished(5, TrialState.RUNNING)

    def certain(sweep: SweepConfig, *more: FrozenTrial) -> list[int]:
        queue = queue_of(sweep, lambda arm: [*ends, *more] if arm == "distilled" else [])
        return [run.number for run in queue.certain()]

    assert certain(sweep_of(top=3, trials=6), waits, runs) == [0]
    assert certain(sweep_of(top=3, trials=6), runs) == [0], "one is not yet asked for"
    assert certain(sweep_of(top=3), runs, unfinished(6, TrialState.RUNNING)) == [0], (
        "they run for a host that wants more"
    )
    assert certain(sweep_of(top=3)) == [0, 1, 2]
    assert certain(sweep_of(top=0)) == []


# The queue -----------------------------------------------------------------------------------------------------------


def test_a_worker_without_a_trial_begins_a_certain_finalist_and_its_seeds_run_side_by_side(memory: Path) -> None:
    sweep = sweep_of(top=2, seeds=2, lag=None)
    studies, beside, third = (Studies(sweep, memory, owner) for owner in "abc")
    for value in (0.7, 0.9, 0.8):
        told(studies, studies.take(), value)
    last = studies.take()
    assert last is not None and last.id.number == 3
    early = [beside.take(), third.take()]
    assert [each and (each.id, each.round) for each in early] == [
        (TrialId("distilled", 1, seed), 1) for seed in sweep.finalist_seeds()
    ]
    assert studies.take() is None and studies.is_open() and not studies.search_is_over(), "the second is not certain"
    for each in early:
        told(beside if each is early[0] else third, each, 0.5)
    told(studies, last, 0.85)
    late = [studies.take() for _ in range(3)]
    assert [each and (each.id.number, each.round) for each in late] == [(3, 1), (3, 1), None]
    for each in late[:2]:
        told(studies, each, 0.5)
    assert studies.is_done()
    order = [(run.number, run.seed) for run, _ in studies.ranked("finalists", "distilled")]
    assert order == [(1, 1), (3, 1), (1, 2), (3, 2)], "ties as if all had been queued at the search's end"


@pytest.mark.slow
def test_early_finalists_of_a_search_that_then_grows_are_a_round_of_their_own(memory: Path) -> None:
    first = Studies(sweep_of(top=2, lag=None), memory)
    for value in (0.7, 0.9, 0.8):
        told(first, first.take(), value)
    cut_off, early = first.take(), first.take()
    assert told(first, early, 0.5) == TrialId("distilled", 1, 1)
    assert cut_off is not None
    first.put_back(cut_off)
    more = Studies(sweep_of(top=2, lag=None, trials=6), memory)
    assert [told(more, more.take(), value).number for value in (0.95, 0.96, 0.6)] == [3, 4, 5]
    late = [more.take() for _ in range(2)]
    assert sorted((each.id.number, each.round) for each in late if each) == [(3, 2), (4, 2)]
    for each in late:
        told(more, each, 0.5)
    assert more.is_done()


def test_finalists_that_an_older_version_queued_are_an_earlier_round(memory: Path) -> None:
    studies = Studies(sweep_of(top=1, trials=1), memory)
    told(studies, studies.take(), 0.7)
    told(studies, studies.take(), 0.7)
    stored = studies._studies["finalists"]
    stored.set_user_attr(attributes.LAST_ROUND, None)  # it had no such attribute
    more = Studies(sweep_of(top=1, trials=2), memory)
    told(more, more.take(), 0.9)
    mine = more.take()
    assert mine is not None and (mine.id.number, mine.round) == (1, 2)


def test_the_last_runs_to_begin_are_the_shortest(memory: Path) -> None:
    studies = Studies(sweep_of(top=4), memory)
    for value in (0.9, 0.8, 0.7, 0.6):
        told(studies, studies.take(), value)
    queue = studies.finalists
    queue._seconds = lambda run: (1.0, 3.0, 4.0, 2.0)[run.number]  # type: ignore[method-assign]
    taken = [studies.take() for _ in range(4)]
    assert [each and each.id.number for each in taken] == [0, 2, 1, 3], "the best, and beside it the longest"


@pytest.mark.slow
def test_finalists_and_their_records_are_the_same_with_any_number_of_workers(
    tiny_sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    sections: dict[str, Any] = {
        "study": {"trials": 4, "controls": 3},
        "finalists": {"top": 2, "seeds": 2},
        "fixed": {"test_fraction": 0.2, "epochs": 2},
    }

    def found(name: str, workers: int) -> list[tuple[Any, ...]]:
        done = command("run", tiny_sweep_file(name, **sections), "--workers", str(workers))
        assert done.returncode == 0, done.stderr
        return [
            (
                row.arm,
                row.trial,
                row.finalist_seed,
                row.result.val_accuracy,
                row.result.weights_sha256,
                row.result.finalist,
            )
            + (row.config.learning_rate, (test := read_test(row.folder)) and test.loss)
            for row in read_records(tmp_path / "results" / name).finalists
            if row.result
        ]

    assert found("alone", 1) == found("together", 4)
