"""Change a trial's rows in the database where Optuna has no public way to, or needs many queries: each change is one transaction.

A trial belongs to the worker whose name and attempt stand in its attributes. Whoever tells it, puts it back or sends its heartbeats does so
only where that still holds, under a lock on the trial's row: what two workers tell of one trial cannot mix.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy
from optuna.trial import TrialState
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from kdsweep.search import attributes, optuna_parts

NOTHING: Mapping[str, Any] = {}


class TrialRows:
    """Changes the rows of trials in one database."""

    def __init__(self, engine: sqlalchemy.Engine) -> None:
        self._engine, self._rows = engine, optuna_parts.rows()
        self._insert = (sqlite if engine.dialect.name == "sqlite" else postgresql).insert

    def own(self, trial_id: int, owner: str, *, beats: bool) -> int | None:
        """Store whose running trial it is from now on, and return which attempt at it that is, from 1; the same one where it is asked again.

        With `beats`, send its first heartbeat too, without which it would never count as silent. Returns None where the trial is another
        worker's by now, has ended or waits in the queue: this worker was cut off after it had asked for it.
        """
        with Session(self._engine) as session, session.begin():
            state, its, attempts = self._locked(session, trial_id)
            if state != TrialState.RUNNING or its not in (None, owner):
                return None
            attempt = (attempts or 0) + (its is None)
            self._store(session, trial_id, {attributes.ATTEMPT: attempt, attributes.OWNER: owner})
            if beats:
                now = sqlalchemy.func.now()
                first = self._insert(self._rows.TrialHeartbeatModel).values(trial_id=trial_id, heartbeat=now)
                again = first.on_conflict_do_update(index_elements=["trial_id"], set_={"heartbeat": now})
                session.execute(again)
        return attempt

    def beat(self, trial_id: int, owner: str) -> None:
        """Send a heartbeat of a trial that is still its `owner`'s."""
        beats, told = self._rows.TrialHeartbeatModel, self._rows.TrialUserAttributeModel
        owns = (told.trial_id == trial_id) & (told.key == attributes.OWNER) & (told.value_json == json.dumps(owner))
        mine = (beats.trial_id == trial_id) & sqlalchemy.exists().where(owns)
        with self._engine.begin() as connection:
            connection.execute(sqlalchemy.update(beats).where(mine).values(heartbeat=sqlalchemy.func.now()))

    def is_owned(self, trial_id: int, owner: str, attempt: int) -> bool:
        """Return whether the trial runs and is still this attempt's."""
        with Session(self._engine) as session, session.begin():
            return self._of(session, trial_id, owner, attempt) == TrialState.RUNNING

    def tell(
        self,
        trial_id: int,
        owner: str | None,
        attempt: int | None,
        *,
        state: TrialState,
        value: float | None = None,
        told: Mapping[str, Any],
    ) -> bool:
        """Store how a trial ended, with what else is `told` of it; return False where it is no longer this attempt's, or ended otherwise.

        A pruned trial's value is the last that it reported. Telling the same again, because the first answer was lost, changes nothing.
        """
        with Session(self._engine) as session, session.begin():
            now = self._of(session, trial_id, owner, attempt)
            if now != TrialState.RUNNING:
                return now == state
            self._store(session, trial_id, told)
            if state == TrialState.PRUNED:
                value = self._last_reported(session, trial_id)
            if value is not None:
                self._store_value(session, trial_id, value)
            trial = session.get_one(self._rows.TrialModel, trial_id)
            trial.state, trial.datetime_complete = state, datetime.now()
        return True

    def put_back(
        self, trial_id: int, owner: str | None, attempt: int | None, told: Mapping[str, Any] = NOTHING
    ) -> bool:
        """Put a running trial back into the queue under its own number, with what else is `told` of it.

        Returns False where it is no longer this attempt's: ended, put back by another process, or taken again since.
        """
        owners, beats = self._rows.TrialUserAttributeModel, self._rows.TrialHeartbeatModel
        with Session(self._engine) as session, session.begin():
            if self._of(session, trial_id, owner, attempt) != TrialState.RUNNING:
                return False
            self._store(session, trial_id, told)
            session.get_one(self._rows.TrialModel, trial_id).state = TrialState.WAITING
            session.execute(
                sqlalchemy.delete(owners).where(owners.trial_id == trial_id, owners.key == attributes.OWNER)
            )
            session.execute(sqlalchemy.delete(beats).where(beats.trial_id == trial_id))
        return True

    def silent(self, study_ids: Sequence[int], *, grace: timedelta, nameless: timedelta) -> set[int]:
        """Return ids of running trials whose last heartbeat is older than `grace`, or that have had no owner for `nameless`."""
        trials, beats, told = self._rows.TrialModel, self._rows.TrialHeartbeatModel, self._rows.TrialUserAttributeModel
        owner = (told.trial_id == trials.trial_id) & (told.key == attributes.OWNER)
        now = sqlalchemy.cast(sqlalchemy.func.now(), sqlalchemy.DateTime)  # heartbeats are the database's local time
        late = beats.heartbeat < now - grace
        found = (
            sqlalchemy.select(trials, late, told.key)
            .outerjoin(beats, beats.trial_id == trials.trial_id)
            .outerjoin(told, owner)
            .where(trials.study_id.in_(study_ids), trials.state == TrialState.RUNNING)
            .where(late | told.key.is_(None))
        )
        before = datetime.now() - nameless
        with Session(self._engine) as session, session.begin():
            rows = [(row[0].trial_id, row[0].datetime_start, *row[1:]) for row in session.execute(found)]
        return {id_ for id_, start, is_late, key in rows if is_late or (key is None and start and start < before)}

    def _of(self, session: Session, trial_id: int, owner: str | None, attempt: int | None) -> TrialState | None:
        """Lock a trial's row, and return its state; None where its owner and attempt (None: not stored) are others."""
        state, *its = self._locked(session, trial_id)
        return state if its == [owner, attempt] else None

    def _locked(self, session: Session, trial_id: int) -> tuple[TrialState, str | None, int | None]:
        """Lock a trial's row, and return its state, owner and attempt (None: not stored)."""
        told = self._rows.TrialUserAttributeModel
        trial = session.get_one(self._rows.TrialModel, trial_id, with_for_update=True)
        asked = sqlalchemy.select(told.key, told.value_json).where(
            told.trial_id == trial_id, told.key.in_([attributes.OWNER, attributes.ATTEMPT])
        )
        found = {key: json.loads(value) for key, value in session.execute(asked)}
        return trial.state, found.get(attributes.OWNER), found.get(attributes.ATTEMPT)

    def _store(self, session: Session, trial_id: int, values: Mapping[str, Any]) -> None:
        if not values:
            return  # SQL has no insertion of no rows
        rows = [{"trial_id": trial_id, "key": key, "value_json": json.dumps(value)} for key, value in values.items()]
        new = self._insert(self._rows.TrialUserAttributeModel).values(rows)
        changed = {"value_json": new.excluded.value_json}
        session.execute(new.on_conflict_do_update(index_elements=["trial_id", "key"], set_=changed))

    def _store_value(self, session: Session, trial_id: int, value: float) -> None:
        values = self._rows.TrialValueModel
        stored, kind = values.value_to_stored_repr(value)
        changed = {"value": stored, "value_type": kind}
        new = self._insert(values).values(trial_id=trial_id, objective=0, **changed)
        session.execute(new.on_conflict_do_update(index_elements=["trial_id", "objective"], set_=changed))

    def _last_reported(self, session: Session, trial_id: int) -> float | None:
        reports = self._rows.TrialIntermediateValueModel
        asked = sqlalchemy.select(reports.intermediate_value).where(reports.trial_id == trial_id)
        found: float | None = session.scalar(asked.order_by(reports.step.desc()).limit(1))
        return found
