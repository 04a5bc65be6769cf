"""Store a sweep's studies in an SQLite file of the results folder, or in a PostgreSQL that several hosts share.

On SQLite an error means a full disk or the like, and is raised at once. A PostgreSQL may restart or be cut off: a write is
repeated until it answers, while training continues.
"""

import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage

from kdsweep.config.sweep import StudyConfig
from kdsweep.errors import ResultsError
from kdsweep.records.layout import locks_folder, study_path
from kdsweep.search import optuna_parts
from kdsweep.search.trial_rows import TrialRows
from kdsweep.system.files import locked

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=ExperimentalWarning)

LOCK_SECONDS = 60
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Waits between tries at a database that does not answer; the last one is repeated."""
CONNECTION = {"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
CONNECTION |= {"tcp_user_timeout": 20_000}
"""libpq's settings, by which a lost connection is noticed within a minute; within 20 s (milliseconds here) where something was sent."""
SESSION = {
    "tcp_keepalives_idle": 15,
    "tcp_keepalives_interval": 5,
    "tcp_keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
SESSION |= {"idle_in_transaction_session_timeout": 15_000}
"""PostgreSQL's settings of each session, by which it notices a lost host in half a minute, not in the system's two hours, and ends a
transaction after 15 s in which its host asks nothing: what that has locked, all other hosts wait for."""
POOL = {"pool_pre_ping": True, "pool_size": 1, "max_overflow": 2}
"""SQLAlchemy's settings: a worker keeps one connection, since a server allows 100. Two more are opened where its threads ask at once."""
OUTAGES = (StorageInternalError, sqlalchemy.exc.SQLAlchemyError)
"""What Optuna raises where its database fails: mostly wrapped, sometimes SQLAlchemy's own."""

Answer = TypeVar("Answer")


class Storage:
    """Wraps Optuna's storage, and adds locks, retries, heartbeats and a way to put trials back. Outages are sent to `say`.

    Raises LibraryError where Optuna lacks the private parts that this needs.
    """

    def __init__(self, study: StudyConfig, folder: Path, say: Callable[[str], None] = print) -> None:
        self.embedded = study.storage is None
        self._url = study.storage or f"sqlite:///{study_path(folder)}"
        self._folder, self._say = folder, say
        self._heartbeat_seconds = study.heartbeat_seconds
        self._answering_since = time.monotonic()
        self._is_open = False
        optuna_parts.rows()
        with self.alone():
            self.rdb = self._open()
        self.rows = TrialRows(self.rdb.engine)
        self._is_open = True

    def _open(self) -> RDBStorage:
        """Open the database: an SQLite with a write-ahead log and with transactions that lock at once.

        Without BEGIN IMMEDIATE two workers can take the same queued trial (Optuna documents both settings as engine events).
        """
        if not self.embedded:
            engine = {**POOL, "connect_args": CONNECTION}
            storage = RDBStorage(self._url, engine_kwargs=engine)
            sqlalchemy.event.listen(storage.engine, "connect", _set_session)
            storage.engine.dispose()
            return storage
        storage = RDBStorage(self._url, engine_kwargs={"connect_args": {"timeout": LOCK_SECONDS}})
        sqlalchemy.event.listen(storage.engine, "connect", _on_connect)
        sqlalchemy.event.listen(storage.engine, "begin", _on_begin)
        storage.engine.dispose()
        return storage

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Run the block under a lock of the folder (SQLite) or the database (PostgreSQL).

        Raises ResultsError where the database fails; one that has answered before raises what Optuna does, for `patiently` to repeat.
        """
        try:
            if self.embedded:
                with locked(locks_folder(self._folder) / "study.lock"):
                    yield
            else:
                with _advisory_lock(self._url):
                    yield
        except OUTAGES as error:
            if self._is_open and not self.embedded:
                raise
            raise self._unusable(error) from error

    def patiently(self, action: Callable[[], Answer]) -> Answer:
        """Return what `action` returns; in an outage of PostgreSQL, repeat it until the database answers. Raises ResultsError on SQLite."""
        for attempt in range(10**9):
            try:
                return action()
            except OUTAGES as error:
                self.note_outage(error, first=attempt == 0)
                time.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
        raise AssertionError

    def note_outage(self, error: Exception, *, first: bool = True) -> None:
        """Record an outage, and send a message to `say` where it is the `first` such error. Raises ResultsError on SQLite."""
        if self.embedded:
            raise self._unusable(error) from error
        self._answering_since = time.monotonic()
        if first:
            self._say(f"the database does not answer ({_reason(error)}); training goes on, it is told when it does")

    def silent(self, study_ids: Sequence[int]) -> set[int]:
        """Return ids of running trials whose host is not heard of for two heartbeats, or that have stored no owner for four.

        None on SQLite, or that soon after an outage.
        """
        grace = timedelta(seconds=2 * self._heartbeat_seconds)
        if self.embedded or time.monotonic() - self._answering_since < grace.total_seconds():
            return set()
        return self.patiently(lambda: self.rows.silent(study_ids, grace=grace, nameless=2 * grace))

    @contextmanager
    def beating(self, trial_id: int, owner: str) -> Iterator[None]:
        """Run the block while a thread sends the heartbeats of `owner`'s trial, by which other hosts see that it runs; none on SQLite."""
        if self.embedded:
            yield
            return
        stop = threading.Event()
        thread = threading.Thread(target=self._beat, args=(trial_id, owner, stop), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(CONNECTION["connect_timeout"])

    def _beat(self, trial_id: int, owner: str, stop: threading.Event) -> None:
        while not stop.wait(self._heartbeat_seconds):  # whoever took the trial has sent the first one
            try:
                self.rows.beat(trial_id, owner)
            except OUTAGES:  # the training thread reports the outage at its next write
                self._answering_since = time.monotonic()

    def _unusable(self, error: Exception) -> ResultsError:
        if self.embedded:
            return ResultsError(
                f"{study_path(self._folder)} must be readable and writable, but: {_reason(error)}; "
                "the same command continues once it is"
            )
        return ResultsError(
            f"study.storage must be a PostgreSQL that answers, but: {_reason(error)}. A password is read from PGPASSWORD "
            "or ~/.pgpass; the database must exist (createdb)"
        )


def _reason(error: BaseException) -> str:
    """Return the innermost message of `error` on one line, up to 300 characters: Optuna and SQLAlchemy wrap it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(getattr(error, "orig", None) or error).split())[:300]


@contextmanager
def _advisory_lock(url: str) -> Iterator[None]:
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool, connect_args=CONNECTION)
    sqlalchemy.event.listen(engine, "connect", _set_session)
    key = zlib.crc32(b"kdsweep")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"SELECT pg_advisory_lock({key})")
        connection.commit()  # the session holds the lock; an open transaction would delay vacuum
        yield  # closing the session releases the lock


def _set_session(connection: Any, _: Any) -> None:
    connection.autocommit = True  # a setting made in a transaction ends with it
    connection.execute("; ".join(f"SET {name} = {value}" for name, value in SESSION.items()))
    connection.autocommit = False


def _on_connect(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy's begin event starts the transactions
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _on_begin(connection: sqlalchemy.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
