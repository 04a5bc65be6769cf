"""The servers and devices of servers.py do what they say."""

import errno
import os
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from servers import Postgres, Proxy, SmallDisk, WandbServer, free_port, running_postgres

pytestmark = pytest.mark.slow


def tables(server: Postgres) -> list[str]:
    """The tables of the test's own database."""
    import psycopg

    with psycopg.connect(server.url.replace("+psycopg", "")) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    return [name for (name,) in rows]


def make_table(server: Postgres) -> None:
    import psycopg

    with psycopg.connect(server.url.replace("+psycopg", "")) as connection:
        connection.execute("CREATE TABLE kept (id int)")


def test_what_is_committed_outlives_a_restart_and_a_stopped_server_refuses(postgres: Postgres) -> None:
    import psycopg

    make_table(postgres)
    postgres.restart()
    assert tables(postgres) == ["kept"]
    postgres.stop()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        tables(postgres)
    postgres.start()
    assert tables(postgres) == ["kept"]


@pytest.mark.parametrize("turn", [1, 2])
def test_every_test_has_an_empty_database_whatever_the_one_before_left(postgres: Postgres, turn: int) -> None:
    assert tables(postgres) == []
    make_table(postgres)
    postgres.stop()


def test_a_server_with_a_password_lets_nobody_in_without_it_and_is_gone_afterwards() -> None:
    import psycopg

    with running_postgres(password="right") as server:
        assert tables(server) == []
        for wrong in ("", ":wrong"):
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(server.url.replace("+psycopg", "").replace(":right", wrong))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))


def test_a_cut_network_ends_connections_and_refuses_new_ones_until_it_is_restored() -> None:
    with echo_server() as port, Proxy(port) as proxy:
        assert echoed(proxy.port) == b"hello"
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as held:
            held.sendall(b"hello")
            assert held.recv(5) == b"hello"
            proxy.cut()
            assert held.recv(5) == b""
        with pytest.raises(ConnectionRefusedError):
            echoed(proxy.port)
        proxy.restore()
        assert echoed(proxy.port) == b"hello"


class echo_server:
    """A port that gives back what it is sent."""

    def __enter__(self) -> int:
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()
        port: int = self._listener.getsockname()[1]
        return port

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        try:
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    while received := connection.recv(1024):
                        connection.sendall(received)
        except OSError:
            return


def echoed(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"hello")
        return connection.recv(5)


def test_a_full_disk_takes_no_byte_until_it_is_freed(small_disk: Callable[[int], SmallDisk]) -> None:
    disk, other = small_disk(1), small_disk(2)
    assert [os.statvfs(each.path).f_blocks * 4096 for each in (disk, other)] == [2**20, 2**21]
    disk.fill()
    with pytest.raises(OSError) as full:
        (disk.path / "file").write_bytes(b"x")
    assert full.value.errno == errno.ENOSPC
    (other.path / "file").write_bytes(b"x")
    disk.free()
    (disk.path / "file").write_bytes(b"x" * 2**19)
    disk.fill(leave=8192)
    assert os.statvfs(disk.path).f_bavail == 2


def test_a_mounted_disk_is_gone_after_the_test_even_where_it_failed(tmp_path: Path) -> None:
    code = "def test(small_disk):\n    assert small_disk(1).path.is_mount()\n    (small_disk(2).path / 'x').touch()\n    1 / 0\n"
    (tmp_path / "test_it.py").write_text(code)
    here = Path(__file__).parent
    line = [sys.executable, "-m", "pytest", "-q", "-p", "servers", "--basetemp", str(tmp_path / "inner"), str(tmp_path)]
    done = subprocess.run(
        line, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(here)}
    )
    if "1 skipped" in done.stdout:
        pytest.skip("no small file system can be mounted here")
    assert "ZeroDivisionError" in done.stdout
    assert str(tmp_path) not in Path("/proc/mounts").read_text()


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            code: int = answer.status
            return code
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_broken_server_answers_500_and_a_stopped_one_nothing(broken_wandb_server: WandbServer) -> None:
    assert [status(broken_wandb_server.url + path) for path in ("/", "/graphql")] == [500, 500]
    broken_wandb_server.stop()
    with pytest.raises(urllib.error.URLError, match="refused"):
        status(broken_wandb_server.url)


def test_a_server_that_takes_runs_breaks_down_when_told(wandb_server: WandbServer) -> None:
    assert status(wandb_server.url) == 200
    wandb_server.break_down()
    assert status(wandb_server.url) == 500 and wandb_server.requests == 2
    assert os.environ["WANDB_BASE_URL"] == wandb_server.url


def test_nobody_listens_on_a_free_port() -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", free_port()))
