"""Kill a sweep again and again, and compare what is left with a sweep that nobody disturbed.

    python tests/benchmarks/kill_storm.py --kills 40
    python tests/benchmarks/kill_storm.py --kills 40 --storage postgresql+psycopg://localhost/storm

Runs a sweep of small real trials (a tiny BERT on sentences, half of them without labels, so three arms), undisturbed once. Then again with
`kill -9` at random moments at the supervisor, at a worker, or at both, resumed by the same command until it is done. Prints what was lost;
exit code 1 if anything was.
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
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

CLOCK = {"train_seconds", "evaluate_seconds", "seconds", "rows_per_second", "latency_ms_p50", "latency_ms_p95"}
CLOCK |= {"started_at", "environment", "attempt", "run_id", "run_url", "run_missing", "steps_again"}
"""What of a result may differ: the clock, and how often it was tried."""


@dataclass
class Storm:
    """What the kills did."""

    kills: int = 0
    resumes: int = 0
    targets: dict[str, int] = field(default_factory=dict)
    finished_twice: int = 0
    results_lost: int = 0
    running_rows: int = 0
    orphans: int = 0
    steps_again: int = 0
    worst_steps_again: int = 0
    steps_per_epoch: int = 0
    differences: list[str] = field(default_factory=list)

    def is_clean(self) -> bool:
        """Whether nothing was lost, done twice, orphaned or changed, and no kill cost more than an epoch."""
        lost = self.finished_twice + self.results_lost + self.running_rows + self.orphans + len(self.differences)
        return lost == 0 and self.worst_steps_again <= self.steps_per_epoch

    def text(self) -> str:
        """A line a fact."""
        epochs = self.steps_again / self.steps_per_epoch
        facts: Mapping[str, Any] = {
            "kills": f"{self.kills} ({', '.join(f'{name} {count}' for name, count in sorted(self.targets.items()))})",
            "resumes": self.resumes,
            "trials finished twice": self.finished_twice,
            "results lost": self.results_lost,
            "RUNNING rows left": self.running_rows,
            "processes orphaned": self.orphans,
            "epochs trained again per kill": f"{epochs / max(1, self.kills):.3f} on average, at most "
            f"{self.worst_steps_again / self.steps_per_epoch:.2f} in one attempt",
            "equal to the undisturbed sweep": "to the bit" if not self.differences else f"NO: {self.differences[:3]}",
        }
        return "\n".join(f"{name:32} {value}" for name, value in facts.items())


def write_sweep(folder: Path, teacher: Path, rows: Path, *, trials: int, epochs: int, study: Mapping[str, Any]) -> Path:
    """A sweep file of small trials, of three arms: seconds each."""
    content = {
        "name": "storm",
        "study": {
            "trials": trials,
            "controls": trials // 3,
            "pseudo_labeled": trials // 4,
            "pruner": "median",
            "startup_trials": 3,
            **study,
        },
        "fixed": {
            "train_file": str(rows),
            "train_limit": 30,
            "unlabeled_rest": True,
            "validation_fraction": 0.25,
            "max_length": 16,
            "teacher": str(teacher),
            "test_fraction": 0.2,
            "student_layers": 2,
            "student_init": "finetuned",
            "batch_size": 1,
            "epochs": epochs,
            "device": "cpu",
            "precision": "fp32",
            "threads": 1,
        },
        "search": {
            "temperature": {"low": 1.0, "high": 8.0, "log": True},
            "alpha": {"low": 0.0, "high": 1.0},
            "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
        },
        "finalists": {"top": 1, "seeds": 2},
        "tracking": {"mode": "off"},
    }
    path = folder / "storm.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def start(sweep: Path, results: Path, *overrides: str) -> "subprocess.Popen[bytes]":
    """The command that a user types, again and again."""
    environment = {**os.environ, "KDSWEEP_RESULTS": str(results), "KDSWEEP_CACHE": str(sweep.parent / "cache")}
    line = [sys.executable, "-m", "kdsweep.run", str(sweep), *overrides]
    with (sweep.parent / "storm.log").open("ab") as log:
        return subprocess.Popen(line, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)


def processes(results: Path) -> dict[int, str]:
    """Living processes of the sweep in `results`, by number: supervisor, worker, or what a worker started."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            environment = (folder / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if f"KDSWEEP_RESULTS={results}\0" in environment:
            found[int(folder.name)] = line
    return found


def result_files(folder: Path) -> dict[str, bytes]:
    """Every finished trial's result as it is on disk."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("*/*/result.json")}


def run_storm(sweep: Path, results: Path, *, kills: int, seed: int, overrides: tuple[str, ...] = ()) -> Storm:
    """Run the sweep to its end under `kills` kills, in as many supervisors as it takes."""
    storm, rng, folder = Storm(), random.Random(seed), results / "storm"
    before: dict[str, bytes] = {}
    process = start(sweep, results, *overrides)
    while True:
        moment = time.monotonic() + rng.uniform(0.5, 12.0)
        while process.poll() is None and (storm.kills >= kills or time.monotonic() < moment):
            time.sleep(0.05)
        now = result_files(folder)
        storm.results_lost += sum(name not in now for name in before)
        storm.finished_twice += sum(name in now and now[name] != content for name, content in before.items())
        before = now
        if process.poll() is not None:
            if process.returncode == 0:
                break
            if process.returncode != -signal.SIGKILL:
                raise SystemExit(
                    f"the sweep must survive, but ended with {process.returncode}; see {sweep.parent}/storm.log"
                )
            storm.resumes += 1
            process = start(sweep, results, *overrides)
            continue
        living = processes(results)
        workers = [pid for pid, line in living.items() if "kdsweep.worker" in line]
        target = rng.choice(["supervisor", "worker", "both"]) if workers else "supervisor"
        victims = {"supervisor": [process.pid], "worker": workers, "both": [process.pid, *workers]}[target]
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if process.pid in victims:
            process.wait()
        storm.kills += 1
        storm.targets[target] = storm.targets.get(target, 0) + 1
    time.sleep(1.0)
    storm.orphans = len(processes(results))
    return storm


def compare(storm: Storm, disturbed: Path, undisturbed: Path) -> None:
    """Fill in what the storm changed: every metric of every trial and the leaderboard, all but the clock."""
    for name, content in result_files(undisturbed).items():
        found = disturbed / name
        if not found.exists():
            storm.differences.append(f"{name} is missing")
            continue
        old, new = json.loads(content), json.loads(found.read_text())
        storm.differences += [
            f"{name}: {key} {old[key]} {new[key]}" for key in old if key not in CLOCK and old[key] != new[key]
        ]
        trial, twin = found.parent, undisturbed / Path(name).parent
        files = ["steps.jsonl", "predictions.npy", "config.yaml"]
        if trial.parent.name == "finalists":
            files.append("test_predictions.npy")
        for file in files:
            if (trial / file).read_bytes() != (twin / file).read_bytes():
                storm.differences.append(f"{trial.name}/{file}")
        attempts = [json.loads(line) for line in (trial / "attempts.jsonl").read_text().splitlines()]
        storm.steps_again += sum(attempt["steps_again"] for attempt in attempts)
        storm.worst_steps_again = max([storm.worst_steps_again, *(attempt["steps_again"] for attempt in attempts)])
        epochs = [json.loads(line) for line in (trial / "epochs.jsonl").read_text().splitlines()]
        storm.steps_per_epoch = max(storm.steps_per_epoch, epochs[0]["step"])
    boards = [json.loads((folder / "leaderboard.json").read_text())["trials"] for folder in (disturbed, undisturbed)]
    plain = [[{key: row[key] for key in row if key not in CLOCK} for row in board] for board in boards]
    if plain[0] != plain[1]:
        storm.differences.append("leaderboard.json")


def running_rows(storage: str) -> int:
    """Trials that the studies still call RUNNING, and numbers that appear twice."""
    import optuna

    opened, rows = optuna.storages.RDBStorage(storage), 0
    for stage in ("distilled", "fine_tuned", "pseudo_labeled", "finalists"):
        trials = optuna.load_study(study_name=f"storm-{stage}", storage=opened).get_trials(deepcopy=False)
        rows += sum(trial.state.name == "RUNNING" for trial in trials)
        rows += len(trials) - len({trial.number for trial in trials})
    opened.engine.dispose()
    return rows


def storm_between(
    folder: Path, teacher: Path, rows: Path, *, kills: int, trials: int, epochs: int, storage: str | None, seed: int
) -> Storm:
    """The undisturbed sweep, the storm, and the comparison. `storage` is for the storm alone; its database is empty before."""
    study = {"checkpoint_seconds": 0.15, "max_attempts": 1000, "heartbeat_seconds": 1}
    sweep = write_sweep(folder, teacher, rows, trials=trials, epochs=epochs, study=study)
    calm = start(sweep, folder / "calm")
    if calm.wait() != 0:
        raise SystemExit(
            f"the undisturbed sweep must end with 0, but ended with {calm.returncode}; see {folder}/storm.log"
        )
    overrides = (f"study.storage={storage}",) if storage else ()
    storm = run_storm(sweep, folder / "stormy", kills=kills, seed=seed, overrides=overrides)
    compare(storm, folder / "stormy" / "storm", folder / "calm" / "storm")
    storm.running_rows = running_rows(storage or f"sqlite:///{folder / 'stormy' / 'storm' / 'study.db'}")
    return storm


def main() -> int:
    """The command line; 1 where anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument(
        "--trials",
        type=int,
        default=24,
        help="of the distilled arm; a third as many fine-tuned, a quarter pseudo-labeled",
    )
    parser.add_argument("--epochs", type=int, default=10, help="of each trial")
    parser.add_argument("--storage", help="an empty PostgreSQL database; default: SQLite")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from tiny import write_tiny_teacher  # the tests' own tiny BERT

    with tempfile.TemporaryDirectory(prefix="kill-storm-") as scratch:
        teacher, rows = write_tiny_teacher(Path(scratch))
        started = time.perf_counter()
        storm = storm_between(
            Path(scratch),
            teacher,
            rows,
            kills=options.kills,
            trials=options.trials,
            epochs=options.epochs,
            storage=options.storage,
            seed=options.seed,
        )
    print(storm.text())
    print(f"{'seconds':32} {time.perf_counter() - started:.0f}")
    return 0 if storm.is_clean() else 1


if __name__ == "__main__":
    sys.exit(main())
