"""Whole processes: kdsweep's commands started, watched and waited for, and what they left behind."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kill_storm import processes

from kdsweep.tracking.wandb_reader import wandb_records

__all__ = ["command", "config_of", "inspected", "processes", "ranking", "started", "steps_of", "wait_for"]


def line_of(module: str, *arguments: object) -> list[str]:
    """One of kdsweep's commands; a run has one worker, unless a test says how many."""
    alone = ["--workers", "1"] if module == "run" and "--workers" not in arguments else []
    return [sys.executable, "-m", f"kdsweep.{module}", *map(str, arguments), *alone]


def command(module: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one of kdsweep's commands to its end."""
    line = line_of(module, *arguments)
    return subprocess.run(line, capture_output=True, text=True, check=False, env={**os.environ, **environment})


@contextmanager
def started(module: str, *arguments: object, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """The same, while the test goes on; killed at the end if need be."""
    line = line_of(module, *arguments)
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(line, **pipes, env={**os.environ, **environment}) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(holds: Callable[[], Any], seconds: float = 90) -> Any:
    """What `holds` gives once it is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := holds():
            return found
        time.sleep(0.05)
    raise AssertionError("waited too long")


def steps_of(trial: Path) -> int:
    """Lines in a trial's steps."""
    path = trial / "steps.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def ranking(results: Path, name: str) -> list[tuple[object, ...]]:
    """The leaderboard without its clock."""
    rows = json.loads((results / name / "leaderboard.json").read_text())["trials"]
    return [(row["rank"], row["arm"], row["trial"], row["status"], row["val_accuracy"], row["alpha"]) for row in rows]


def inspected(path: Path) -> list[dict[str, Any]]:
    """Every record of an offline run, by W&B's own reader; its file is at times closed a moment after finish() has returned."""
    for _ in range(5):
        records, torn = wandb_records(path)
        if any(record["type"] == "exit" for record in records):
            break
        time.sleep(0.2)
    assert torn is None
    return records


def config_of(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The run's config."""
    (run,) = [record["run"] for record in records if record["type"] == "run"]
    config: dict[str, Any] = run["config"]["update"]
    return config
