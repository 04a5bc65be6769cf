"""What `bench_workers.py` counts while its workers run, and what it makes of it: the database's load, the waiting, what was lost."""

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

TICK = os.sysconf("SC_CLK_TCK")


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
            "SELECT query, calls, total_exec_time FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat%' ORDER BY total_exec_time DESC"
        )
        self.statements = [(" ".join(query.split()), calls, milliseconds) for query, calls, milliseconds in found]

    def calls(self, words: str) -> int:
        """How often the statements that hold `words` were sent."""
        return sum(calls for query, calls, _ in self.statements if words in query)

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
        "CPU of a trial": f"{1e3 * cpu / trials:.0f} ms in its worker, its start included, "
        f"{1e3 * load['cpu_seconds'] / trials:.0f} ms in the database",
        "transactions": f"{commits / seconds:.0f} a second, {commits / trials:.0f} a trial; rolled back "
        f"{load['xact_rollback']:.0f}; deadlocks {load['deadlocks']:.0f}",
        "heartbeats": f"{database.calls('trial_heartbeats SET') / seconds:.1f} a second",
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
