"""Read W&B's runs back from disk with W&B's own reader."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdsweep.errors import LibraryError
from kdsweep.system.libraries import TESTED, version

Values = Mapping[str, Any]
READER = ("leet", "inspect", "--json")
WRONG_USAGE = 2
"""The exit code of W&B's command line for a command or an option that it does not have."""


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """Holds one W&B run as read from its file on disk."""

    run_id: str
    path: Path
    config: Values
    rows: Mapping[int, Values]
    """Rows by step; the row of an epoch's last step has the epoch's metrics too."""
    summary: Mapping[str, Sequence[Any]]
    """Every value that the summary was given, oldest first, by name: W&B adds the history's last values to it too."""
    torn: str | None
    """Why the file could not be read to its end; None where it was."""


def wandb_records(path: Path) -> tuple[list[dict[str, Any]], str | None]:
    """Return every record that W&B's own reader finds in a `.wandb` file, and its last complaint or None; no other code calls that reader.

    Raises LibraryError where this W&B has no such reader, or its output is not JSON.
    """
    command = [sys.executable, "-P", "-m", "wandb", *READER, path.name]
    environment = {**os.environ, "WANDB_ERROR_REPORTING": "false"}
    done = subprocess.run(command, cwd=path.parent, env=environment, capture_output=True, check=False)
    told = done.stderr.decode("utf-8", errors="replace").strip().split("\n")
    if done.returncode == WRONG_USAGE or any(line.endswith("No module named wandb") for line in told):
        raise _unreadable(told[-1])
    try:
        records = [json.loads(line) for line in done.stdout.decode("utf-8", errors="replace").split("\n") if line]
    except ValueError as error:
        raise _unreadable(f"no JSON: {error}") from error
    complaints = [line for line in told if re.match("wandb leet inspect: |Error: ", line)]
    if done.returncode and not complaints:
        complaints = [told[-1] or f"exit code {done.returncode}"]
    return records, complaints[-1].removeprefix("wandb leet inspect: ") if complaints else None


def _unreadable(said: str) -> LibraryError:
    return LibraryError(
        f"runs are read by `wandb {' '.join(READER)}`, which {TESTED['wandb']} has, but this W&B, {version('wandb')}, has it otherwise "
        f"({said}); only the audit needs it: pip install '{TESTED['wandb']}'"
    )


def read_run(path: Path) -> TrackedRun:
    """Read a run's `.wandb` file, a torn one up to the tear. Raises LibraryError where this W&B's records have another form."""
    records, torn = wandb_records(path) if path.exists() else ([], f"{path.name} is gone")
    try:
        return _as_run(path, records, torn)
    except (KeyError, TypeError, AttributeError) as error:
        raise _unreadable(f"a record without {error}") from error


def _as_run(path: Path, records: Sequence[Mapping[str, Any]], torn: str | None) -> TrackedRun:
    config: dict[str, Any] = {}
    rows: dict[int, dict[str, Any]] = {}
    summary: dict[str, list[Any]] = {}
    for record in records:
        content = record.get(record["type"], {})
        if record["type"] == "run":
            config |= content.get("config", {}).get("update", {})
        elif record["type"] == "history":
            rows.setdefault(int(content["item"]["_step"]), {}).update(content["item"])
        elif record["type"] == "summary":
            for name, value in content.get("update", {}).items():
                summary.setdefault(name, []).append(value)
    if torn is None and not any(record["type"] == "exit" for record in records):
        torn = "it has no end"
    run_id = path.stem.removeprefix("run-")
    return TrackedRun(run_id=run_id, path=path, config=config, rows=rows, summary=summary, torn=torn)
