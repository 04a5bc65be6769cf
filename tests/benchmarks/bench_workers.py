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
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import yaml

HERE = Path(__file__).parent
HOSTS = ("a", "b")
SETTINGS = ("shared_preload_libraries=pg_stat_statements", "track_io_timing=on")
TICK = os.sysconf("SC_CLK_TCK")


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


@dataclass
class Run:
    """What was done while the sweep ran, and when."""

    started: float = 0.0
    ended: float = 0.0
    report_seconds: float = 0.0
    killed: int = 0
    cut: tuple[float, float] | None = None
    exit_codes: list[int] = field(default_factory=list)
    most_connections: int = 0
    most_waiting: int = 0


class Hosts:
    """The processes of both hosts."""

    def __init__(
        self, folder: Path, hosts: Sequence[Host], sweep: Path, port: int, options: argparse.Namespace
    ) -> None:
        self._folder, self._hosts, self._sweep, self._port, self._options = folder, hosts, sweep, port, options
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, host: Host, words: Sequence[str], log: str) -> "subprocess.Popen[bytes]":
        """Start a command of a host."""
        here = self._folder / host.name
        (here / "diaries").mkdir(parents=True, exist_ok=True)
        url = f"postgresql+psycopg://kdsweep@{host.server}:{self._port}/{self._options.database}"
        world = {"KDSWEEP_RESULTS": str(here / "results"), "KDSWEEP_CACHE": str(here / "cache"), "OMP_NUM_THREADS": "1"}
        line = host.command(sys.executable, *words, str(self._sweep), f"study.storage={url}")
        with (self._folder / log).open("ab") as out:
            return subprocess.Popen(line, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env={**os.environ, **world})

    def workers(self) -> None:
        """Start both hosts' workers."""
        each = str(self._options.workers // 2)
        for host in self._hosts:
            script = [str(HERE / "workers_host.py"), "--workers", each, "--seconds", str(self._options.seconds)]
            diaries = ["--diaries", str(self._folder / host.name / "diaries")]
            self.processes.append(self.start(host, [*script, *diaries], f"host-{host.name}.log"))

    def pids(self) -> list[int]:
        """The process ids of all workers, once they are there."""
        files = [self._folder / host.name / "diaries" / "pids.json" for host in self._hosts]
        while not all(path.exists() for path in files):
            if any(process.poll() is not None for process in self.processes):
                raise SystemExit(f"a host ended before its workers began; see {self._folder}/host-*.log")
            time.sleep(0.1)
        return [pid for path in files for pid in json.loads(path.read_text())]


def run(
    folder: Path, sweep: Path, server: Any, database: "Database", two: Sequence[Host], options: argparse.Namespace
) -> Run:
    """The whole run: hosts started, workers killed, the network cut, the report written."""
    done, rng, shares = Run(), random.Random(0), (0.25, 0.5)
    if True:
        hosts = Hosts(folder, two, sweep, server.port, options)
        watching = hosts.start(two[0], ["-m", "kdsweep.run", "--workers", "0"], "run.log")
        database.wait_for_tables()
        hosts.workers()
        pids = hosts.pids()
        restore_at = 0.0
        while any(process.poll() is None for process in hosts.processes):
            time.sleep(1.0)
            finished = database.look(done)
            now = time.time()
            if finished and not done.started:
                done.started = now
                database.reset()
            if finished < options.trials:
                done.ended = now
            if options.killed and not done.killed and finished >= shares[0] * options.trials:
                victims = rng.sample(pids, round(options.killed * len(pids) + 0.4))
                for pid in victims:
                    os.kill(pid, signal.SIGKILL)
                done.killed = len(victims)
            if options.cut and done.cut is None and finished >= shares[1] * options.trials:
                two[1].link("down")
                restore_at, done.cut = now + options.cut, (now, now + options.cut)
            if restore_at and now >= restore_at:
                two[1].link("up")
                restore_at = 0.0
            if options.verbose:
                print(f"{now - (done.started or now):6.0f} s  {finished} of {options.trials}", flush=True)
        done.ended = time.time()
        database.keep()
        done.exit_codes = [process.wait() for process in hosts.processes]
        began = time.perf_counter()
        done.exit_codes.append(watching.wait())
        done.report_seconds = time.perf_counter() - began
    return done


# The database's load -------------------------------------------------------------------------------------------------


class Database:
    """Asks the server what it is doing, through a connection of its own on this machine."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.totals: dict[str, float] = {}
        self.statements: list[tuple[str, int, float]] = []

    def __enter__(self) -> "Database":
        import psycopg

        address = self._server.url.replace("+psycopg", "")
        self._connection = psycopg.connect(address, autocommit=True)
        self._connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        self._cpu_before = 0.0
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def _rows(self, query: str) -> list[Any]:
        return self._connection.execute(query).fetchall()  # type: ignore[call-overload, no-any-return]

    def wait_for_tables(self) -> None:
        """Wait until the watching run has made its studies."""
        until = time.monotonic() + 120
        while (
            not self._rows("SELECT 1 FROM pg_tables WHERE tablename = 'studies'")
            or len(self._rows("SELECT * FROM studies")) < 3
        ):
            if time.monotonic() > until:
                raise SystemExit("the watching run must make its studies within two minutes, but did not; see run.log")
            time.sleep(0.2)

    def look(self, run: Run) -> int:
        """How many trials have ended; keeps the most connections, and the most that waited for a lock."""
        run.most_connections = max(
            run.most_connections,
            self._rows(
                "SELECT count(*) FROM pg_stat_activity WHERE usename = 'kdsweep' AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )[0][0],
        )
        run.most_waiting = max(
            run.most_waiting, self._rows("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")[0][0]
        )
        finished: int = self._rows("SELECT count(*) FROM trials WHERE state IN ('COMPLETE', 'PRUNED', 'FAIL')")[0][0]
        return finished

    def reset(self) -> None:
        """Begin to count here."""
        self._rows("SELECT pg_stat_statements_reset()::text")
        self._before = self._counts()

    def keep(self) -> None:
        """Keep what was counted since `reset`."""
        self.totals = {name: value - self._before[name] for name, value in self._counts().items()}
        found = self._rows(
            "SELECT query, calls, total_exec_time FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat%' ORDER BY calls DESC"
        )
        self.statements = [(" ".join(query.split()), calls, milliseconds) for query, calls, milliseconds in found]

    def _counts(self) -> dict[str, float]:
        of = "xact_commit, xact_rollback, deadlocks, tup_returned"
        row = self._rows(f"SELECT {of} FROM pg_stat_database WHERE datname = current_database()")[0]
        return dict(zip(of.split(", "), map(float, row), strict=True)) | {"cpu_seconds": cpu_of_tree(self._server.pid)}


def cpu_of_tree(parent: int) -> float:
    """CPU seconds of a process, of its children, and of those that have ended."""
    seconds = 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(folder.name) == parent:
            seconds += sum(map(int, words[11:15])) / TICK
        elif int(words[1]) == parent:
            seconds += sum(map(int, words[11:13])) / TICK
    return seconds


# What came of it -----------------------------------------------------------------------------------------------------


def read_diaries(folder: Path) -> list[list[dict[str, Any]]]:
    """What each worker of both hosts wrote."""
    paths = sorted(folder.glob("*/diaries/*.jsonl"))
    return [[json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] for path in paths]


def spans(diaries: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, list[float]]:
    """Seconds that each trial waited, by what for: to be taken, for the pruner at each epoch, to be told."""
    found: dict[str, list[float]] = {
        "take the next trial": [],
        "an epoch reported, the pruner asked": [],
        "tell its end": [],
    }
    for diary in diaries:
        before: Mapping[str, Any] | None = None
        for line in diary:
            if line["what"] == "epoch":
                found["an epoch reported, the pruner asked"].append(line["seconds"])
            elif before and (before["what"], line["what"]) == ("ended", "started"):
                found["take the next trial"].append(line["at"] - before["at"])
            elif before and (before["what"], line["what"]) == ("slept", "ended"):
                found["tell its end"].append(line["at"] - before["at"])
            if line["what"] in ("started", "slept", "ended"):
                before = line
    return found


def faults(url: str, folder: Path, options: argparse.Namespace) -> list[str]:
    """What was lost or done twice: in the studies, in the report."""
    import optuna

    wrong, records = [], 0
    storage = optuna.storages.RDBStorage(url)
    for arm in ("distilled", "fine_tuned"):
        trials = optuna.load_study(study_name=f"workers-{arm}", storage=storage).get_trials(deepcopy=False)
        numbers = [trial.number for trial in trials if trial.state.name != "WAITING"]
        if sorted(numbers) != list(range(options.trials // 2)):
            wrong.append(f"{arm}: {len(numbers)} trials, {len(set(numbers))} numbers, of {options.trials // 2}")
        states = Counter(trial.state.name for trial in trials)
        if left := {name: count for name, count in states.items() if name not in ("COMPLETE", "PRUNED", "WAITING")}:
            wrong.append(f"{arm}: {left}")
        for trial in trials:
            record = trial.user_attrs.get("record")
            if record is None or not trial.state.is_finished():
                continue
            records += 1
            result = json.loads(record["result.json"])
            told = (trial.user_attrs["attempt"], trial.number, trial.value if trial.state.name == "COMPLETE" else None)
            kept = (
                result["attempt"],
                result["trial"],
                result["val_accuracy"] if result["status"] == "complete" else None,
            )
            if told != kept:
                wrong.append(f"{arm} {trial.number}: the study has {told}, its record {kept}")
            if sorted(trial.intermediate_values) != list(range(1, result["epochs"] + 1)):
                wrong.append(f"{arm} {trial.number}: epochs {sorted(trial.intermediate_values)} of {result['epochs']}")
    storage.engine.dispose()
    if records != options.trials:
        wrong.append(f"{records} records of {options.trials} trials")
    board = folder / "a" / "results" / "workers" / "leaderboard.json"
    rows = len(json.loads(board.read_text())["trials"]) if board.exists() else 0
    if rows != options.trials:
        wrong.append(f"{rows} rows in the report of {options.trials} trials")
    return wrong


def told_twice(diaries: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[int, int]:
    """Trials that ran a second time whose first worker lived, and those whose second result the study refused."""
    ended = Counter((line["arm"], line["trial"]) for diary in diaries for line in diary if line["what"] == "ended")
    spares = sum("stays in" in line["text"] for diary in diaries for line in diary if line["what"] == "note")
    return sum(count - 1 for count in ended.values()), spares


def print_all(done: Run, database: Any, diaries: list[list[dict[str, Any]]], options: argparse.Namespace) -> None:
    """The tables."""
    seconds = done.ended - done.started
    over = [line for diary in diaries for line in diary if line["what"] == "over"]
    cpu, load = sum(line["cpu_seconds"] for line in over), database.totals
    ideal = options.trials * options.seconds / options.workers
    queries = sum(calls for _, calls, _ in database.statements)
    again, spares = told_twice(diaries)
    trials, commits = options.trials, load["xact_commit"]
    notes = Counter(
        line["text"].split(" (")[0].split(" 1")[0][:60] for d in diaries for line in d if line["what"] == "note"
    )
    facts = {
        "trials": f"{trials} in {seconds:.0f} s: {trials / seconds:.1f} a second ({ideal:.0f} s if nothing but sleep took time)",
        "of the workers' time": f"{sum(line['what'] == 'ended' for d in diaries for line in d) * options.seconds / options.workers / seconds:.0%} slept at most",
        "CPU of a trial": f"{1e3 * cpu / trials:.0f} ms in its worker (its start included), {1e3 * load['cpu_seconds'] / trials:.0f} ms in the database",
        "transactions": f"{commits / seconds:.0f} a second, {commits / trials:.0f} a trial; rolled back {load['xact_rollback']:.0f}; deadlocks {load['deadlocks']:.0f}",
        "queries": f"{queries / seconds:.0f} a second, {queries / trials:.0f} a trial; {load['tup_returned'] / trials:.0f} rows read a trial",
        "connections": f"at most {done.most_connections}; at most {done.most_waiting} waited for a lock",
        "memory of a worker": f"at most {max((line['megabytes'] for line in over), default=0):.0f} MB, what it shares with the others included",
        "workers killed, network cut": f"{done.killed}, {options.cut if done.cut else 0:g} s",
        "run a second time": f"{again} that another worker had told, {spares} of them put aside",
        "report": f"{done.report_seconds:.0f} s after the last trial",
        "exit codes": " ".join(map(str, done.exit_codes)),
    }
    for name, value in facts.items():
        print(f"{name:28} {value}")
    for text, count in notes.most_common(8):
        print(f"  said {count} times: {text} ...")
    print("\nseconds                                  median     90 %     99 %     most   in all")
    for name, values in spans(diaries).items():
        if values := sorted(values):
            at = lambda share: values[min(len(values) - 1, int(share * len(values)))]  # noqa: B023
            print(
                f"{name:36} {median(values):10.3f} {at(0.9):8.3f} {at(0.99):8.3f} {values[-1]:8.3f} {sum(values):8.0f}"
            )
    print("\ncalls a trial   ms each   share of the database's time   query")
    total = sum(milliseconds for _, _, milliseconds in database.statements) or 1.0
    for query, calls, milliseconds in database.statements[: options.queries]:
        print(f"{calls / trials:13.1f} {milliseconds / calls:9.3f} {milliseconds / total:30.1%}   {query[:110]}")


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
        with two_hosts() as hosts, running_postgres(addresses=addresses, settings=settings) as server:
            with server.fresh_database(), Database(server) as database:
                options.database = server.database
                done = run(folder, sweep, server, database, hosts, options)
                diaries = read_diaries(folder)
                print_all(done, database, diaries, options)
                wrong = faults(server.url, folder, options)
        for line in (line for diary in diaries for line in diary if line["what"] in ("problem", "crash")):
            wrong.append(f"a worker ended: {line['text'][-1500:]}")
        if wrong:
            for log in folder.glob("*.log"):
                print(f"--- {log.name}\n{log.read_text()[-1500:]}")
    print("\nlost or done twice: " + ("nothing" if not wrong else "\n  ".join(wrong[:20])))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
