"""Real servers and devices for the slow tests: each is started here, by the test's own process, and stopped whatever happens.

    postgres             a fresh database on a real PostgreSQL server (`Postgres`, with `url`, `stop`, `start`, `restart`)
    small_disk           `small_disk(megabytes)`: a real file system of that size (`SmallDisk`, with `path`, `fill`, `free`)
    wandb_server         a W&B server that takes runs, artifacts, views and reports, until it is told to `break_down` or to `stop` (`WandbServer`)
    broken_wandb_server  the same, answering 500 to everything from the start

`Proxy(port)` and `running_postgres(password=...)` are context managers, for a test that wants its own.
"""

import contextlib
import json
import os
import pwd
import re
import resource
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kdsweep.tracking.wandb_tracker import stop_client

PATIENCE_SECONDS = 30

# PostgreSQL ----------------------------------------------------------------------------------------------------------


class Postgres:
    """A PostgreSQL server on 127.0.0.1, and one database of it. Everyone is let in, or only who has the password.

    It listens on `addresses` too, and lets in their networks of 256 addresses; `settings` are its own, as `name=value`.
    """

    USER = "kdsweep"

    def __init__(
        self,
        binaries: Path,
        folder: Path,
        password: str | None = None,
        addresses: Sequence[str] = (),
        settings: Sequence[str] = (),
    ) -> None:
        self._binaries, self._folder, self._addresses, self._settings = binaries, folder, addresses, settings
        self._process: subprocess.Popen[bytes] | None = None
        self.port, self.password, self.database = free_port(), password, "postgres"
        self._initialise()

    @property
    def url(self) -> str:
        """Where the database is, as SQLAlchemy and Optuna read it; a password stands in it."""
        secret = f":{self.password}" if self.password else ""
        return f"postgresql+psycopg://{self.USER}{secret}@127.0.0.1:{self.port}/{self.database}"

    def start(self) -> None:
        """Start, and return when it answers. Raises RuntimeError with its log where it does not."""
        listen = ",".join(["127.0.0.1", *self._addresses])
        options = [f"listen_addresses={listen}", f"port={self.port}", "unix_socket_directories=", "fsync=on"]
        settings = [part for option in (*options, *self._settings) for part in ("-c", option)]
        with (self._folder / "log.txt").open("ab") as log:
            command = [*_as_nobody(), str(self._binaries / "postgres"), "-D", str(self._folder / "data"), *settings]
            self._process = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("PostgreSQL did not start:\n" + (self._folder / "log.txt").read_text())
            time.sleep(0.05)

    def stop(self) -> None:
        """Close every connection and stop; a server that is stopped already stays so."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)  # PostgreSQL's "fast" shutdown
        try:
            self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def restart(self) -> None:
        """Stop and start on the same port, with the same data."""
        self.stop()
        self.start()

    def execute(self, statement: str) -> None:
        """Run one statement in the server's own database, outside of any transaction."""
        with self._connection() as connection:
            connection.execute(statement)  # type: ignore[call-overload]

    @contextmanager
    def fresh_database(self) -> Iterator["Postgres"]:
        """A new and empty database, gone afterwards. A server that the block stopped is started again."""
        self.database = f"test_{time.monotonic_ns()}"
        self.execute(f"CREATE DATABASE {self.database}")
        try:
            yield self
        finally:
            if self._process is None:
                self.start()
            self.execute(f"DROP DATABASE {self.database} WITH (FORCE)")
            self.database = "postgres"

    def _initialise(self) -> None:
        secret = self._folder / "password.txt"
        secret.write_text(self.password or "", encoding="utf-8")
        how = ["--auth=scram-sha-256", f"--pwfile={secret}"] if self.password else ["--auth=trust"]
        if os.geteuid() == 0:
            for path in (self._folder, secret):
                os.chown(path, _unprivileged().pw_uid, _unprivileged().pw_gid)
        command = [*_as_nobody(), str(self._binaries / "initdb"), "-D", str(self._folder / "data"), "-U", self.USER]
        command += [*how, "--encoding=UTF8", "--locale=C"]
        done = subprocess.run(command, cwd=self._folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"initdb failed: {done.stdout}{done.stderr}")
        with (self._folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.writelines(f"host all all {address}/24 trust\n" for address in self._addresses)

    @property
    def pid(self) -> int:
        """The process id of the server, the parent of all its processes."""
        assert self._process is not None
        return self._process.pid

    def _connection(self) -> Any:
        import psycopg

        who = {"user": self.USER, "password": self.password, "dbname": "postgres"}
        return psycopg.connect(host="127.0.0.1", port=self.port, autocommit=True, connect_timeout=5, **who)

    def _answers(self) -> bool:
        import psycopg

        try:
            self._connection().close()
        except psycopg.OperationalError:
            return False
        return True


def _unprivileged() -> pwd.struct_passwd:
    """PostgreSQL refuses to run as root: root runs it as this user."""
    users = {user.pw_name: user for user in pwd.getpwall()}
    return users.get("postgres") or users["nobody"]


def _as_nobody() -> list[str]:
    """What to put before a command: it runs unprivileged, and dies with this process even where that is killed."""
    drop: list[str] = []
    if os.geteuid() == 0:
        user = _unprivileged()
        drop = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    return ["setpriv", "--pdeathsig=QUIT", *drop, "--"]


def postgres_binaries() -> Path | None:
    """The folder of PostgreSQL's server programs, the newest version's first; None where there is none."""
    folders = [Path(folder) for folder in os.get_exec_path()]
    by_version = lambda path: int(re.sub(r"\D", "", path.parent.name) or 0)
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=by_version, reverse=True)
    return next((f for f in folders if (f / "initdb").exists() and (f / "postgres").exists()), None)


@contextmanager
def running_postgres(
    password: str | None = None, addresses: Sequence[str] = (), settings: Sequence[str] = ()
) -> Iterator[Postgres]:
    """A server of its own in a folder of its own; skips the test where PostgreSQL is not installed."""
    binaries = postgres_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL here: neither PATH nor /usr/lib/postgresql has initdb and postgres")
    # Not pytest's own folders, which only their owner may enter.
    with tempfile.TemporaryDirectory(prefix="kdsweep-postgres-", ignore_cleanup_errors=True) as folder:
        server = Postgres(binaries, Path(folder), password, addresses, settings)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """One server for all tests of the session; `postgres` gives each its own database."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres(postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[Postgres]:
    """The server, with a fresh database of this test's own."""
    for name in ("PASSWORD", "PASSFILE", "SERVICE", "SERVICEFILE"):
        monkeypatch.delenv(f"PG{name}", raising=False)
    with postgres_server.fresh_database() as server:
        yield server


# Network -------------------------------------------------------------------------------------------------------------


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Proxy:
    """A TCP proxy on 127.0.0.1:`port` to another port there: a network that can be cut. Closed at the block's end."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener: socket.socket | None = None
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self.port = free_port()

    def __enter__(self) -> "Proxy":
        self.restore()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def cut(self) -> None:
        """Close every connection and refuse new ones."""
        with self._lock:
            listener, self._listener = self._listener, None
            pairs, self._pairs = self._pairs, set()
        for end in [*([listener] if listener else []), *(end for pair in pairs for end in pair)]:
            _hang_up(end)

    def restore(self) -> None:
        """Take connections again, on the same port."""
        listener = socket.create_server(("127.0.0.1", self.port))
        with self._lock:
            self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the listener was closed: the network is cut
            while True:
                near, _ = listener.accept()
                self._connect(near, listener)

    def _connect(self, near: socket.socket, listener: socket.socket) -> None:
        try:
            far = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            _hang_up(near)
            return
        with self._lock:
            cut = self._listener is not listener
            self._pairs |= set() if cut else {(near, far)}
        for source, sink in ((near, far), (far, near)):
            if cut:
                _hang_up(source)
            else:
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while received := source.recv(65536):
                sink.sendall(received)
        for end in (source, sink):
            _hang_up(end)


def _hang_up(end: socket.socket) -> None:
    """Wakes whoever waits on it in another thread, which close alone does not."""
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


# Disks ---------------------------------------------------------------------------------------------------------------


@contextmanager
def no_more_than(size: int) -> Iterator[None]:
    """Files of this process cannot grow further: for the tests that may not mount a disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


class SmallDisk:
    """A file system of a few megabytes, mounted at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self, leave: int = 0) -> None:
        """Fill it with one file to the last byte, or all but `leave` bytes, rounded down to pages of 4,096."""
        with self._filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"\0" * 4096):
                pass
        os.truncate(self._filler, max(0, self._filler.stat().st_size - leave))

    def free(self) -> None:
        """Give the space back."""
        self._filler.unlink()


@contextmanager
def mounted_disk(path: Path, megabytes: int) -> Iterator[SmallDisk]:
    """A file system of `megabytes` MiB, unmounted at the block's end; skips the test where nothing may be mounted."""
    path.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0777", "kdsweep-test", str(path)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here (it needs root): {done.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], SmallDisk]]:
    """`small_disk(megabytes)`: a new one at every call, all unmounted when the test ends."""
    with ExitStack() as stack:
        made: list[SmallDisk] = []

        def make(megabytes: int) -> SmallDisk:
            made.append(stack.enter_context(mounted_disk(tmp_path / f"disk{len(made)}", megabytes)))
            return made[-1]

        yield make


# W&B -----------------------------------------------------------------------------------------------------------------

MADE_UP_KEY = "0123456789abcdef" * 2 + "01234567"
"""40 hexadecimal digits, as a real key is; no server knows it."""

_BUCKET = {"id": "x", "name": "run", "displayName": "run", "description": "", "config": "{}", "historyLineCount": 0}
_PROJECT: dict[str, Any] = {"id": "p", "name": "project", "entity": {"id": "e", "name": "entity"}}
_VIEWER = {"id": "v", "entity": "entity", "username": "somebody", "email": "", "flags": "{}", "teams": {"edges": []}}
_RUN = {
    "id": "r",
    "projectId": "1",
    "name": "run",
    "displayName": "run",
    "state": "finished",
    "config": "{}",
    "summaryMetrics": "{}",
    "systemMetrics": "{}",
    "tags": [],
    "historyLineCount": 0,
    "historyKeys": None,
    "notes": "What it is.",
    "description": None,
    "group": "group",
    "jobType": "finalist",
    "user": {"name": "n", "username": "somebody"},
}
_LATEST = {"id": "a", "versionIndex": 0}
_ARTIFACT = {"id": "a", "state": "COMMITTED", "artifactSequence": {"id": "s", "latestArtifact": _LATEST}}
_LAST_PAGE = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
_LISTED = {
    **_PROJECT,
    "__typename": "Project",
    "entityName": "entity",
    "createdAt": "2026",
    "isBenchmark": False,
    "user": None,
}


def _collection(kind: str, name: str, project: str, owner: str) -> dict[str, Any]:
    where = {"id": "p", "internalId": "1", "name": project, "entity": {"name": owner}}
    return {"__typename": kind, "name": name, "project": where}


_LOGGED = {
    "id": "a",
    "artifactSequence": _collection("ArtifactSequence", "student", "project", "entity"),
    "versionIndex": 0,
    "artifactType": {"name": "model"},
    "description": None,
    "metadata": "{}",
    "ttlDurationSeconds": -2,
    "ttlIsInherited": False,
    "tags": [],
    "historyStep": None,
    "state": "COMMITTED",
    "size": 1,
    "digest": "d",
    "commitHash": None,
    "fileCount": 1,
    "createdAt": "2026",
    "updatedAt": None,
    "aliases": [],
}
_LINKED = {
    "id": "m",
    "versionIndex": 0,
    "createdAt": "2026",
    "aliases": [],
    "artifactCollection": _collection("ArtifactPortfolio", "student", "wandb-registry-model", "org_entity"),
    "artifact": _LOGGED,
}
_ORGANISATION = {"organization": {"name": "org", "orgEntity": {"name": "org_entity"}}, "user": None}
_ANSWERS: dict[str, dict[str, Any]] = {
    "createRunFiles": {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": []}},
    "viewer": {"viewer": _VIEWER},
    "ArtifactType": {"project": None},
    "createArtifact(": {"createArtifact": {"artifact": _ARTIFACT}},
    "RunFragment": {"project": {"run": _RUN}},
    "ArtifactByID": {"artifact": _LOGGED},
    "FetchOrgInfoFromEntity": {"entity": _ORGANISATION},
    "LinkArtifact": {"result": {"versionIndex": 0, "artifactMembership": _LINKED}},
    "GetProjects": {"models": {"pageInfo": _LAST_PAGE, "edges": [{"node": _LISTED}]}},
    "ProjectInternalId": {"project": {"id": "p", "internalId": "1"}},
}


class WandbServer:
    """Says to W&B's client what it must hear to take its runs for delivered, or answers 500 to everything."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken, self.requests = broken, 0
        self.received: list[bytes] = []
        """The bodies of the requests that were answered well."""
        self.refused: str | None = None
        """Requests with this text get an answer that has nothing of what they ask for."""
        self.views: dict[str, dict[str, Any]] = {}
        """Saved views and reports by their id, as they were last sent."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                server.requests += 1
                server.received += [] if server.broken else [body]
                content = b"" if server.broken else json.dumps({"data": server.answer(body)}).encode()
                self.send_response(500 if server.broken else 200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = answer

            def log_message(self, *_: object) -> None:
                """Nothing: the tests' output is pytest's."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread: threading.Thread | None = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self._thread.start()

    def answer(self, body: bytes) -> dict[str, Any]:
        """What a GraphQL request is answered; {} where the client needs nothing."""
        text = body.decode("utf-8", errors="replace")
        asked = json.loads(text).get("variables") or {} if text.startswith('{"query"') or '"variables"' in text else {}
        if self.refused and self.refused in text:
            return {}
        if "upsertBucket" in text:
            return _upserted(asked)
        if "upsertView(" in text:
            return {"upsertView": {"view": self._saved(asked), "inserted": not asked.get("id")}}
        if "KdsweepView" in text:
            found = [
                view
                for view in self.views.values()
                if (view["name"], view["project"]["name"]) == (asked["view"], asked["project"])
            ]
            return {"project": {"allViews": {"edges": [{"node": {"id": view["id"]}} for view in found]}}}
        if "KdsweepReport" in text:
            return {"view": self.views.get(asked["id"])}
        return next((answer for name, answer in _ANSWERS.items() if name in text), {})

    def _saved(self, asked: dict[str, Any]) -> dict[str, Any]:
        """A view or report as it is kept: a new one unless its id is known, as W&B's server refuses an id that it does not know."""
        assert not asked.get("id") or asked["id"] in self.views, asked
        project = {"id": "p", "name": asked["projectName"], "entityName": asked["entityName"]}
        kept = {name: asked.get(name) for name in ("type", "name", "displayName", "description", "spec")}
        number = asked.get("id") or f"view-{self.requests}"
        self.views[number] = {**kept, "id": number, "project": project, "updatedAt": "2026-01-02T03:04:05"}
        return self.views[number]

    def break_down(self) -> None:
        """From here on, every answer is 500."""
        self.broken = True

    def stop(self) -> None:
        """Refuse connections; once is enough, twice does no harm."""
        thread, self._thread = self._thread, None
        if thread:
            self._http.shutdown()
            self._http.server_close()
            thread.join()


def _upserted(asked: dict[str, Any]) -> dict[str, Any]:
    """The run as it was sent, in its sender's own project where it names none."""
    owner = {**_PROJECT["entity"], "name": asked.get("entity") or "entity"}
    project = {**_PROJECT, "name": asked.get("project") or "project", "entity": owner}
    names = {"name": asked.get("name") or "run", "displayName": asked.get("displayName") or "run"}
    return {"upsertBucket": {"bucket": {**_BUCKET, **names, "project": project}, "inserted": True}}


@pytest.fixture
def wandb_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A server that takes runs; W&B's environment names it, with a made-up key."""
    yield from _wandb_server(monkeypatch, broken=False)


@pytest.fixture
def broken_wandb_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A server that answers 500 to everything; W&B's environment names it, with a made-up key."""
    yield from _wandb_server(monkeypatch, broken=True)


def _wandb_server(monkeypatch: pytest.MonkeyPatch, *, broken: bool) -> Iterator[WandbServer]:
    server = WandbServer(broken=broken)
    stop_client()  # which remembers the server of the test before
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", MADE_UP_KEY)
    try:
        yield server
    finally:
        server.stop()
