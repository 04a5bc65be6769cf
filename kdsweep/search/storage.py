"""Store a sweep's studies in an SQLite file of the results folder, or in a PostgreSQL that several hosts share.

On SQLite an error means a full disk or the like, and is raised at once. A PostgreSQL may restart or be cut off: a write is
repeated until it answers, while training continues. A trial is put back under its own number, in one transaction.
"""

import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from kdsweep.config.sweep import StudyConfig
from kdsweep.errors import ResultsError
from kdsweep.records.layout import locks_folder, study_path
from kdsweep.search import attributes, optuna_parts
from kdsweep.system.files import locked

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=ExperimentalWarning)

LOCK_SECONDS = 60
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Waits between tries at a database that does not answer; the last one is repeated."""
CONNECTION = {"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
"""libpq's settings, by which a lost connection is noticed within a minute."""
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
        self._grace_seconds = 2 * study.heartbeat_seconds
        self._answering_since = time.monotonic()
        self._rows = optuna_parts.rows()
        with self.alone():
            self.rdb = self._open(study)

    def _open(self, study: StudyConfig) -> RDBStorage:
        """Open the database: an SQLite with a write-ahead log and with transactions that lock at once.

        Without BEGIN IMMEDIATE two workers can take the same queued trial (Optuna documents both settings as engine events).
        """
        if not self.embedded:
            engine = {"pool_pre_ping": True, "connect_args": CONNECTION}
            return RDBStorage(self._url, engine_kwargs=engine, heartbeat_interval=study.heartbeat_seconds)
        storage = RDBStorage(self._url, engine_kwargs={"connect_args": {"timeout": LOCK_SECONDS}})
        sqlalchemy.event.listen(storage.engine, "connect", _on_connect)
        sqlalchemy.event.listen(storage.engine, "begin", _on_begin)
        storage.engine.dispose()
        return storage

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Run the block under a lock of the folder (SQLite) or the database (PostgreSQL). Raises ResultsError where the database fails."""
        try:
            if self.embedded:
                with locked(locks_folder(self._folder) / "study.lock"):
                    yield
            else:
                with _advisory_lock(self._url):
                    yield
        except OUTAGES as error:
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

    def put_back(self, trial_id: int) -> bool:
        """Put a running trial back into the queue under its own number; return False where it does not run any more."""
        trials = self._rows.TrialModel
        with self.rdb.engine.begin() as connection:
            running = (trials.trial_id == trial_id) & (trials.state == TrialState.RUNNING)
            back = connection.execute(sqlalchemy.update(trials).where(running).values(state=TrialState.WAITING))
            if back.rowcount:
                told, beats = self._rows.TrialUserAttributeModel, self._rows.TrialHeartbeatModel
                owner = (told.trial_id == trial_id) & (told.key == attributes.OWNER)
                connection.execute(sqlalchemy.delete(told).where(owner))
                connection.execute(sqlalchemy.delete(beats).where(beats.trial_id == trial_id))
        return bool(back.rowcount)

    def stale(self, study_id: int) -> set[int]:
        """Return ids of running trials with a heartbeat older than the grace period; none on SQLite, or that soon after an outage."""
        if self.embedded or time.monotonic() - self._answering_since < self._grace_seconds:
            return set()
        return set(self.rdb._get_stale_trial_ids(study_id))

    @contextmanager
    def beating(self, trial_id: int) -> Iterator[None]:
        """Run the block while a thread sends the trial's heartbeats, by which other hosts see that its worker runs; none on SQLite."""
        if self.embedded:
            yield
            return
        stop = threading.Event()
        thread = threading.Thread(target=self._beat, args=(trial_id, stop), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(CONNECTION["connect_timeout"])

    def _beat(self, trial_id: int, stop: threading.Event) -> None:
        interval = self.rdb.heartbeat_interval or 1
        while True:
            try:
                self.rdb.record_heartbeat(trial_id)
            except OUTAGES:  # the training thread reports the outage at its next write
                self._answering_since = time.monotonic()
            if stop.wait(interval):
                return

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
    key = zlib.crc32(b"kdsweep")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"SELECT pg_advisory_lock({key})")
        connection.commit()  # the session holds the lock; an open transaction would delay vacuum
        yield  # closing the session releases the lock


def _on_connect(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy's begin event starts the transactions
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _on_begin(connection: sqlalchemy.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
