"""Many workers on two hosts and one PostgreSQL, whose trials sleep instead of training: what does the engine itself cost, and what breaks it?

    python tests/benchmarks/bench_workers.py --workers 8 --trials 200
    python tests/benchmarks/bench_workers.py --workers 64 --trials 5000        # as root, some ten minutes on two cores

The two hosts are network namespaces (`ip netns`: root, Linux), each with its own results folder, cache and host name, and its workers are real but
for the training (`workers_host.py`): they take, send heartbeats, report epochs, ask the pruner, write records and tell. A real
`python -m kdsweep.run --workers 0` watches, takes dead workers' trials back and writes the report. In the midst `--killed` of the workers get
SIGKILL, and the second host's network is cut for `--cut` seconds. Prints what it cost, where the waiting was, and what was lost or done twice; exit
code 1 if anything was.
"""

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import yaml
from workers_figures import Database, Run, faults, print_all, read_diaries

HERE = Path(__file__).parent
HOSTS = ("a", "b")
SETTINGS = ("shared_preload_libraries=pg_stat_statements", "track_io_timing=on")


# Hosts ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Host:
    """A network namespace with a link of its own to this machine."""

    name: str
    number: int

    @property
    def server(self) -> str:
        """The address at which it reaches the database."""
        return f"10.203.{70 + self.number}.1"

    @property
    def namespace(self) -> str:
        return f"kdsweep-{self.name}"

    def command(self, *words: str) -> list[str]:
        """The command line that runs `words` there, under a host name of its own."""
        named = 'hostname "$0" && exec "$@"'
        return ["ip", "netns", "exec", self.namespace, "unshare", "--uts", "sh", "-c", named, self.namespace, *words]

    def link(self, state: str) -> None:
        """Plug the cable in (`up`) or out (`down`): packets are lost, and nobody is told."""
        ip("link", "set", f"kdsweep-{self.name}", state)


def ip(*words: str) -> None:
    """Run `ip`."""
    subprocess.run(["ip", *words], check=True)


@contextmanager
def two_hosts() -> Iterator[list[Host]]:
    """Two namespaces, each with a link to this machine, gone afterwards."""
    hosts = [Host(name, number) for number, name in enumerate(HOSTS)]
    with ExitStack() as stack:
        for host in hosts:
            inside = ("-n", host.namespace)
            ip("netns", "add", host.namespace)
            stack.callback(ip, "netns", "del", host.namespace)  # takes the link with it
            ip("link", "add", host.namespace, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
            ip("addr", "add", f"{host.server}/24", "dev", host.namespace)
            ip("link", "set", host.namespace, "up")
            ip(*inside, "addr", "add", f"10.203.{70 + host.number}.2/24", "dev", "eth0")
            ip(*inside, "link", "set", "eth0", "up")
            ip(*inside, "link", "set", "lo", "up")
        yield hosts


# The sweep -----------------------------------------------------------------------------------------------------------


def write_sweep(folder: Path, options: argparse.Namespace) -> Path:
    """Two arms of half the trials each, on the tests' tiny teacher; as many trials side by side as there are workers."""
    from tiny import write_tiny_teacher

    teacher, rows = write_tiny_teacher(folder)
    lag = None if options.lag == "null" else int(options.lag or options.workers // 2 - 1)
    content = {
        "name": "workers",
        "study": {
            "trials": options.trials // 2,
            "controls": options.trials // 2,
            "sampler": options.sampler,
            "pruner": "median",
            "lag": lag,
            "heartbeat_seconds": options.heartbeat,
            "accept_weak_teacher": True,
        },
        "fixed": {
            "train_file": str(rows),
            "validation_fraction": 0.25,
            "max_length": 16,
            "teacher": str(teacher),
            "student_layers": 1,
            "student_init": "finetuned",
            "batch_size": 8,
            "epochs": 3,
            "device": "cpu",
            "precision": "fp32",
            "threads": 1,
        },
        "search": {
            "temperature": {"low": 1.0, "high": 16.0, "log": True},
            "alpha": {"low": 0.0, "high": 1.0},
            "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
        },
        "finalists": {"top": 0},
        "tracking": {"mode": "off"},
    }
    path = folder / "workers.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


# Running -------------------------------------------------------------------------------------------------------------


class Hosts:
    """The processes of both hosts."""

    def __init__(
        self,
        folder: Path,
        hosts: Sequence[Host],
        sweep: Path,
        port: int,
        database: str,
        options: argparse.Namespace,
    ) -> None:
        self._folder, self._hosts, self._sweep, self._options = folder, hosts, sweep, options
        self._where, self._pids = f"{port}/{database}", list[int]()
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, host: Host, words: Sequence[str], log: str) -> "subprocess.Popen[bytes]":
        """Start a command of a host."""
        here = self._folder / host.name
        (here / "diaries").mkdir(parents=True, exist_ok=True)
        url = f"postgresql+psycopg://kdsweep@{host.server}:{self._where}"
        world = {"KDSWEEP_RESULTS": str(here / "results"), "KDSWEEP_CACHE": str(here / "cache"), "OMP_NUM_THREADS": "1"}
        line = host.command(sys.executable, *words, str(self._sweep), f"study.storage={url}")
        with (self._folder / log).open("ab") as out:
            process = subprocess.Popen(
                line, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env={**os.environ, **world}
            )
        self.processes.append(process)
        return process

    def workers(self) -> None:
        """Start both hosts' workers."""
        each = str(self._options.workers // 2)
        for host in self._hosts:
            script = [str(HERE / "workers_host.py"), "--workers", each, "--seconds", str(self._options.seconds)]
            diaries = ["--diaries", str(self._folder / host.name / "diaries")]
            self.start(host, [*script, *diaries], f"host-{host.name}.log")

    def pids(self) -> list[int]:
        """The process ids of all workers, once they are there."""
        files = [self._folder / host.name / "diaries" / "pids.json" for host in self._hosts]
        while not all(path.exists() for path in files):
            if any(process.poll() is not None for process in self.processes):
                raise SystemExit(f"a host ended before its workers began; see {self._folder}/host-*.log")
            time.sleep(0.1)
        self._pids = [pid for path in files for pid in json.loads(path.read_text())]
        return self._pids

    def stop(self) -> None:
        """Kill whatever still runs: a namespace lives as long as a process in it."""
        living = [process.pid for process in self.processes if process.poll() is None]
        for pid in [*self._pids, *living] if living else []:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            process.wait()


class Mischief:
    """Kills workers at a quarter of the trials, and cuts a host off at half of them, for a while."""

    def __init__(self, done: Run, pids: Sequence[int], host: Host, options: argparse.Namespace) -> None:
        self._done, self._pids, self._host, self._options = done, pids, host, options
        self._restore_at: float | None = None

    def look(self, finished: int) -> None:
        """Do what is due."""
        options, done, now = self._options, self._done, time.time()
        if options.killed and not done.killed and finished >= 0.25 * options.trials:
            victims = random.Random(0).sample(list(self._pids), math.ceil(options.killed * len(self._pids)))
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            done.killed = len(victims)
        if options.cut and done.cut is None and finished >= 0.5 * options.trials:
            self._host.link("down")
            self._restore_at, done.cut = now + options.cut, (now, now + options.cut)
        if self._restore_at and now >= self._restore_at:
            self._host.link("up")
            self._restore_at = None


def run(hosts: Hosts, two: Sequence[Host], database: Database, options: argparse.Namespace) -> Run:
    """The whole run: hosts started, workers killed, the network cut, the report written."""
    done = Run()
    watching = hosts.start(two[0], ["-m", "kdsweep.run", "--workers", "0"], "run.log")
    database.wait_for_tables()
    hosts.workers()
    mischief = Mischief(done, hosts.pids(), two[1], options)
    working = hosts.processes[1:]
    while any(process.poll() is None for process in working):
        time.sleep(1.0)
        finished, now = database.look(done), time.time()
        if finished and not done.started:
            done.started = now
            database.reset()
        if finished < options.trials:
            done.ended = now
        mischief.look(finished)
        if options.verbose:
            print(f"{now - (done.started or now):6.0f} s  {finished} of {options.trials}", flush=True)
    database.keep()
    done.exit_codes = [process.wait() for process in working]
    began = time.perf_counter()
    done.exit_codes.append(watching.wait())
    done.report_seconds = time.perf_counter() - began
    return done


def main() -> int:
    """The command line; 1 where anything was lost or done twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--workers", type=int, default=64, help="of both hosts (default 64)")
    add("--trials", type=int, default=5000, help="of both arms (default 5,000)")
    add("--seconds", type=float, default=1.0, help="that a trial sleeps (default 1)")
    add("--sampler", choices=["tpe", "random"], default="tpe")
    add("--lag", help="study.lag, or null (default: as many trials side by side as there are workers)")
    add("--heartbeat", type=int, default=10, help="study.heartbeat_seconds (default 10)")
    add("--killed", type=float, default=0.05, help="share of the workers that get SIGKILL (default 0.05)")
    add("--cut", type=float, default=30.0, help="seconds that the second host has no network (default 30)")
    add("--connections", type=int, default=100, help="that the server allows (default 100, as PostgreSQL does)")
    add("--queries", type=int, default=12, help="print so many of the queries (default 12)")
    add("--verbose", action="store_true", help="print the trials that have ended, once a second")
    options = parser.parse_args()
    sys.path.insert(0, str(HERE.parent))
    from servers import running_postgres

    settings = (*SETTINGS, f"max_connections={options.connections}")
    addresses = [Host(name, number).server for number, name in enumerate(HOSTS)]
    with tempfile.TemporaryDirectory(prefix="bench-workers-") as scratch:
        folder = Path(scratch)
        sweep = write_sweep(folder, options)
        with ExitStack() as stack:
            two = stack.enter_context(two_hosts())
            server = stack.enter_context(running_postgres(addresses=addresses, settings=settings))
            stack.enter_context(server.fresh_database())
            database = stack.enter_context(Database(server))
            hosts = Hosts(folder, two, sweep, server.port, server.database, options)
            stack.callback(hosts.stop)
            done = run(hosts, two, database, options)
            diaries = read_diaries(folder)
            print_all(done, database, diaries, options)
            wrong = faults(server.url, folder, options)
        for line in (line for diary in diaries for line in diary if line["what"] in ("problem", "crash")):
            wrong.append(f"a worker ended: {line['text'][-1500:]}")
        if wrong or any(done.exit_codes):
            for log in folder.glob("*.log"):
                print(f"--- {log.name}\n{log.read_text()[-1500:]}")
    print("\nlost or done twice: " + ("nothing" if not wrong else "\n  ".join(wrong[:20])))
    return int(bool(wrong) or any(done.exit_codes))


if __name__ == "__main__":
    sys.exit(main())
