"""What workers tell of one trial does not mix: it is its last owner's alone. And few queries do."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from searches import sweep_of
from servers import Postgres

from kdsweep.errors import Superseded
from kdsweep.records.schema import Status, missing_result
from kdsweep.search import attributes, storage
from kdsweep.search.assignment import Assignment, Twin
from kdsweep.search.studies import Studies


def told(assignment: Assignment, studies: Studies, status: Status = "complete", accuracy: float = 0.5) -> bool:
    result = missing_result("distilled", assignment.id.number, status=status, error="", attempt=assignment.attempt)
    return studies.finish(assignment, replace(result, val_accuracy=accuracy), {"result.json": f"{accuracy}"})


def taken(studies: Studies) -> Assignment:
    found = studies.take_from("distilled")
    assert found is not None
    return found


def stored(studies: Studies, number: int) -> Any:
    return studies._studies["distilled"].get_trials()[number]


@contextmanager
def statements(studies: Studies) -> Iterator[list[str]]:
    """The statements that the block sends to the database."""
    sent: list[str] = []

    def hear(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith("BEGIN"):
            sent.append(statement)

    sqlalchemy.event.listen(studies._storage.rdb.engine, "before_cursor_execute", hear)
    try:
        yield sent
    finally:
        sqlalchemy.event.remove(studies._storage.rdb.engine, "before_cursor_execute", hear)


def test_a_trial_that_was_taken_over_is_its_last_owners_alone(tmp_path: Path) -> None:
    first, second = (Studies(sweep_of(), tmp_path, owner) for owner in ("first", "second"))
    mine = taken(first)
    mine.report(0.1, 1)
    assert [each.attempt for each in second.settle(lambda owner: owner == "first", blame=True)] == [1]
    assert second.settle(lambda owner: owner == "first", blame=True) == []
    theirs = taken(second)
    assert (theirs.number, theirs.attempt) == (mine.number, 2)
    with pytest.raises(Superseded):
        mine.report(0.9, 2)
    first.put_back(mine)
    assert not first._storage.rows.put_back(mine.storage_id, "first", 1)
    assert not told(mine, first, accuracy=0.9) and told(theirs, second, accuracy=0.4)
    trial = stored(first, 0)
    assert (trial.value, trial.intermediate_values, trial.user_attrs[attributes.DEATHS]) == (0.4, {1: 0.1}, 1)
    assert trial.user_attrs[attributes.RECORD] == {"result.json": "0.4"}
    with pytest.raises(Superseded):
        mine.report(0.9, 2)  # which has ended by now


def test_a_worker_that_was_cut_off_after_it_asked_leaves_the_trial_to_who_has_taken_it(tmp_path: Path) -> None:
    first, second = (Studies(sweep_of(), tmp_path, owner) for owner in ("first", "second"))
    asked = first._studies["distilled"].ask()
    assert first._storage.rows.put_back(asked._trial_id, None, None), "silent for too long"
    assert first._assignment("distilled", asked) is None, "it waits in the queue"
    theirs = taken(second)
    assert theirs.number == asked.number and first._assignment("distilled", asked) is None
    assert told(theirs, second) and first._assignment("distilled", asked) is None
    said = stored(first, asked.number).user_attrs
    assert (said[attributes.OWNER], said[attributes.ATTEMPT]) == ("second", 1)


def test_fewer_attempts_than_a_trial_has_had_let_it_fail_where_its_supervisor_was_killed(tmp_path: Path) -> None:
    studies = Studies(sweep_of(max_attempts=3), tmp_path, "me")
    for _ in range(2):
        taken(studies)
        studies.settle(lambda owner: True, blame=True)
    taken(studies)
    (settled,) = Studies(sweep_of(max_attempts=2), tmp_path, "later").settle(lambda owner: True)
    assert settled.failed is not None and "died with this one 2 times" in settled.failed


def test_a_trial_whose_worker_died_before_it_stored_its_name_is_taken_by_those_who_wait_for_it(tmp_path: Path) -> None:
    dead, living = (Studies(sweep_of(lag=0), tmp_path, owner) for owner in ("dead", "living"))
    dead._studies["distilled"].ask()
    assert living.take() is None and living.is_open()
    assert living.settle_nameless() == [], "it may be about to store it"
    assert [each.id.number for each in living.settle_nameless(timedelta(0))] == [0]
    mine = taken(living)
    assert (mine.number, mine.attempt) == (0, 1) and living.settle_nameless(timedelta(0)) == []


def test_an_end_that_was_told_and_not_answered_is_told_again(tmp_path: Path) -> None:
    studies = Studies(sweep_of(), tmp_path, "me")
    trial = taken(studies)
    assert [told(trial, studies), told(trial, studies)] == [True, True]
    assert not told(trial, studies, "failed")
    assert studies.settle(lambda owner: True, blame=True) == []
    assert stored(studies, 0).value == 0.5 and stored(studies, 0).datetime_complete >= stored(studies, 0).datetime_start


def test_a_pruned_trials_value_is_the_last_that_it_reported(tmp_path: Path) -> None:
    studies = Studies(sweep_of(), tmp_path, "me")
    trial = taken(studies)
    for epoch, value in enumerate((0.3, 0.2, 0.25)):
        trial.report(value, epoch + 1)
    assert told(trial, studies, "pruned") and stored(studies, 0).value == 0.25


@pytest.mark.slow
def test_a_trial_whose_workers_die_fails_in_the_end_and_stays_so(tmp_path: Path) -> None:
    studies = Studies(sweep_of(max_attempts=2), tmp_path, "me")
    failed = []
    for _ in range(2):
        taken(studies)
        failed += [each.failed for each in studies.settle(lambda owner: True, blame=True)]
    assert failed[0] is None and "died with this one 2 times" in str(failed[1])
    assert stored(studies, 0).state.name == "FAIL" and attributes.RECORD not in stored(studies, 0).user_attrs


def test_a_trial_is_taken_and_told_by_few_statements(tmp_path: Path) -> None:
    studies = Studies(sweep_of(trials=9, controls=9, sampler="tpe", pruner="median", lag=0), tmp_path, "me")
    for _ in range(8):
        with studies.one_look():
            trial = studies.take()
        assert trial is not None
        trial.report(0.5, 1)
        assert told(trial, studies)
    with statements(studies) as taking, studies.one_look():
        trial = studies.take()
    assert trial is not None and len(taking) <= 41, "\n".join(taking)
    with statements(studies) as asking:
        trial.report(0.5, 1)
        trial.should_prune()
        trial.should_prune()
    assert len(asking) <= 5 + 7  # the report, and what the pruner had not seen yet
    with statements(studies) as telling:
        assert told(trial, studies)
    assert len(telling) <= 6


def test_what_was_agreed_is_asked_for_once(tmp_path: Path) -> None:
    studies = Studies(sweep_of(), tmp_path, "me")
    assert studies.agreements.agreed_latency("six layers", lambda: 4.0) == 4.0
    with statements(studies) as sent:
        assert studies.agreements.agreed_latency("six layers", lambda: 5.0) == 4.0
    assert not sent
    assert Studies(sweep_of(), tmp_path, "you").agreements.agreed_latency("six layers", lambda: 5.0) == 4.0


def test_of_many_workers_few_write_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("kdsweep.search.clock.time.time", lambda: now[0])
    here, there = Studies(sweep_of(), tmp_path), Studies(sweep_of(), tmp_path)
    here.clock.tick()
    now[0] += 2
    there.clock.tick(after_seconds=2.5)
    assert here.clock.seconds() == 0
    now[0] += 2
    there.clock.tick(after_seconds=2.5)
    assert here.clock.seconds() == 4


def test_a_duplicate_that_was_told_and_not_answered_is_told_again_and_nobody_elses_is(tmp_path: Path) -> None:
    first, second = (Studies(sweep_of(), tmp_path, owner) for owner in ("first", "second"))
    twin = Twin(number=0, status="complete", score=0.5, scores={1: 0.4, 2: 0.5})
    mine = taken(first)
    second.settle(lambda owner: owner == "first")
    assert not first.finish_like(mine, twin, {})
    theirs = taken(second)
    assert attributes.TWIN not in stored(first, 0).user_attrs
    assert [second.finish_like(theirs, twin, {}), second.finish_like(theirs, twin, {})] == [True, True]
    assert (stored(first, 0).value, stored(first, 0).intermediate_values) == (0.5, {1: 0.4, 2: 0.5})


@pytest.mark.slow
def test_a_host_that_is_gone_holds_no_trial_and_no_lock(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(storage.SESSION, "idle_in_transaction_session_timeout", 1000)
    sweep = sweep_of(storage=postgres.url, heartbeat_seconds=1, trials=2)
    gone, here = (Studies(sweep, tmp_path / name, name) for name in ("gone", "here"))
    taken(gone)  # and dies before its first heartbeat is due
    beating = taken(here)
    with gone._storage.rdb.engine.connect() as held, here.alive(beating):
        held.exec_driver_sql("SELECT * FROM trials FOR UPDATE")  # and no word from there any more
        began = time.monotonic()
        time.sleep(3)
        assert [each.id.number for each in here.settle_stale()] == [0]
        assert time.monotonic() - began < 10
        held.invalidate()
    assert threading.active_count() < 10
    assert taken(here).number == 0 and told(beating, here)
    with here._storage.rdb.engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW tcp_user_timeout").scalar() in ("30s", "30000")
    for studies in (gone, here):
        studies._storage.rdb.engine.dispose()  # a connection found open by the collector is a warning, in some later test
