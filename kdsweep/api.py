"""Provide kdsweep to Python: `load`, `run`, `Results` and `reproduce`, which `kdsweep/__init__.py` makes importable from `kdsweep`.

What takes long to import (pandas, Optuna, SciPy) is imported where it is needed; torch never is: training runs in other processes.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsweep.config.shipped_sweeps import find_sweep
from kdsweep.config.sweep import SweepConfig
from kdsweep.config.sweep_file import load_sweep
from kdsweep.config.trial import TrialConfig
from kdsweep.config.yaml import to_yaml
from kdsweep.errors import ConfigError, KDSweepError, ResultsError, Stopped, WorkerCrashed
from kdsweep.results import Place, Results, Trial

if TYPE_CHECKING:
    from kdsweep.analysis.receipt import Verdict as Outcome

__all__ = [
    "KDSweepError",
    "Reproduction",
    "Results",
    "SweepConfig",
    "Trial",
    "TrialConfig",
    "load",
    "reproduce",
    "run",
]

# A sweep -------------------------------------------------------------------------------------------------------------


def load(source: Place | Mapping[str, Any], *overrides: str) -> SweepConfig:
    """Read and check a sweep.

    `source` is a sweep file, the name of a shipped sweep, or the content of a sweep file as a mapping; local paths in it are relative
    to the working directory. `overrides` have the form key=value, as on the command line. Raises ConfigError with every problem, a line each.

        sweep = kdsweep.load("T_alpha", "study.trials=4")
        sweep = kdsweep.load({"name": "mine", "fixed": {...}, "search": {"alpha": {"low": 0.0, "high": 1.0}}})
    """
    if not isinstance(source, Mapping):
        return load_sweep(find_sweep(Path(source).expanduser()), overrides)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "sweep.yaml"
        try:
            path.write_text(to_yaml(_plain(source)), encoding="utf-8")
            return load_sweep(path, overrides)
        except ConfigError as error:
            raise ConfigError(
                problem.replace(f"{path}: ", "").replace(str(path), "the mapping") for problem in error.problems
            ) from None
        except ValueError as error:
            what = "a sweep holds mappings, lists, texts, numbers, true, false and null, and ${key} for another key's value"
            raise ConfigError(f"{what}, but: {' '.join(str(error).split())}") from None


def _plain(value: Any) -> Any:
    """Return a value as a sweep file can hold it: paths become texts, tuples lists."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def run(sweep: SweepConfig, *, workers: int | None = None, quiet: bool = False) -> Results:
    """Run a sweep, or continue it where it stopped, write its report, and return its results: what the command `kdsweep run` does.

    `workers` processes train; None: one per CUDA device, two on a CPU; 0: show what other hosts do. They are separate processes,
    so a script needs no `if __name__ == "__main__"`. `quiet` shows no progress and no summary. Results go to results/NAME below
    the working directory, or to $KDSWEEP_RESULTS/NAME.

    Raises KDSweepError for a problem that its message lets you solve, and KeyboardInterrupt after Ctrl-C or the stop button of a
    notebook, once the running trials are checkpointed (a second one stops at once): the same call then continues. SIGTERM likewise
    raises `kdsweep.errors.Stopped`. In another thread than the main one Python receives no signals: the run ends with its process,
    and its workers checkpoint.

        results = kdsweep.run(kdsweep.load("smoke"), workers=2)
    """
    if not isinstance(sweep, SweepConfig):
        raise ConfigError(f"kdsweep.run takes the sweep that kdsweep.load returns, but got {sweep!r}")
    if workers is not None and (type(workers) is not int or workers < 0):
        raise ConfigError(f"workers must be a whole number from 0, or None, but got {workers!r}")
    from rich.console import Console

    from kdsweep.engine.sweep import run_sweep

    try:
        return Results(run_sweep(sweep, Console(quiet=quiet), workers))
    except Stopped as stopped:
        if stopped.number == signal.SIGINT:
            raise KeyboardInterrupt("stopped; nothing is lost, and the same call of kdsweep.run continues") from None
        raise


# A trial run again ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """Holds what running a trial again gave, compared with its record."""

    outcome: "Outcome"
    """`identical` to the last bit, `within tolerance` (on a GPU, whose sums are not ordered) or `different`."""
    rule: str
    """What was required: equality to the last bit, or within which tolerance."""
    first_difference: str | None
    """The first metric that differs, with both values; None where none does."""
    facts: tuple[str, ...]
    """Differences in config, versions or machine, which need not have changed the result."""
    receipt: Path
    """Path of receipt.json in the trial's folder: both sides of everything that was compared."""


def reproduce(trial: Trial | Place, *, places: Mapping[str, Place] | None = None, quiet: bool = False) -> Reproduction:
    """Run a trial again from its saved config and compare with its record: what the command `kdsweep reproduce` does.

    `trial` is a `Trial`, a trial's folder, or a results folder, whose best trial is then run. `places` gives where data and models are
    on this machine, such as {"train_file": "/data/train.csv"}. `quiet` shows neither epochs nor receipt. The training runs in a
    separate process: its bits depend on the threads that torch was imported with. It takes as long as the trial did. Raises
    KDSweepError for a trial that cannot be run here.

        assert kdsweep.reproduce(results.best).outcome == "identical"
    """
    from kdsweep.reproduce import find_trial

    folder = trial.folder if isinstance(trial, Trial) else Path(trial).expanduser()
    row = find_trial(folder.resolve())
    receipt = row.folder / "receipt.json"
    before = _written_at(receipt)
    moves = [f"{name}={os.fspath(place)}" for name, place in (places or {}).items()]
    code, said = _follow(["kdsweep.reproduce", str(row.folder), *(["--set", *moves] if moves else [])], quiet)
    if code == 2:
        raise ResultsError(said.strip())
    if _written_at(receipt) == before:
        raise WorkerCrashed(f"running {row.folder} again ended with exit code {code}\n{said}")
    found = json.loads(receipt.read_text(encoding="utf-8"))
    return Reproduction(
        outcome=found["verdict"],
        rule=found["rule"],
        first_difference=found["first_difference"],
        facts=tuple(found["facts"]),
        receipt=receipt,
    )


def _written_at(path: Path) -> int | None:
    """Return when a file was last written, in nanoseconds; None where there is no file."""
    return path.stat().st_mtime_ns if path.exists() else None


def _follow(module: Sequence[str], quiet: bool) -> tuple[int, str]:
    """Run a module to its end and show what it prints unless `quiet`; return its exit code, and what it wrote to standard error."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        command = [sys.executable, "-m", *module]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, encoding="utf-8", errors="replace"
        ) as process:
            try:
                for line in process.stdout or ():
                    if not quiet:
                        print(line, end="", flush=True)
            except BaseException:
                process.terminate()
                raise
        said.seek(0)
        return process.returncode, said.read()
