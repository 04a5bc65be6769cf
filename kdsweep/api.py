"""kdsweep from Python: `kdsweep.load`, `run`, `Results` and `reproduce`; `kdsweep/__init__.py` hands these names out.

What takes long to import (pandas, Optuna, SciPy) is imported where it is needed; torch never is: it trains in processes of its own.
"""

import html
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsweep.config.shipped import find_sweep
from kdsweep.config.sweep import ARM_NAMES, Arm, SweepConfig
from kdsweep.config.sweep_file import load_sweep
from kdsweep.config.trial import TrialConfig
from kdsweep.config.yaml import to_yaml
from kdsweep.errors import ConfigError, KDSweepError, ResultsError, Stopped, WorkerCrashed
from kdsweep.records.reading import TrialRow, read_steps
from kdsweep.records.schema import EpochMetrics, StepMetrics, TeacherResult, TrialResult

if TYPE_CHECKING:
    import pandas

    from kdsweep.analysis.receipt import Verdict as Outcome
    from kdsweep.reporting.answers import Verdict

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

Place = str | os.PathLike[str]

ROWS_SHOWN = 10
"""Of the leaderboard, where a notebook shows the results."""


# A sweep -------------------------------------------------------------------------------------------------------------


def load(source: Place | Mapping[str, Any], *overrides: str) -> SweepConfig:
    """Read and check a sweep.

    `source` is a sweep file, the name of a shipped sweep, or the content of a sweep file as a mapping; local paths in it are seen
    from the working directory. `overrides` read key=value as on the command line. Raises ConfigError with every problem, a line each.

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
            what = "a sweep holds mappings, lists, texts, numbers, true, false and null"
            raise ConfigError(f"{what}, but: {' '.join(str(error).split())}") from None


def _plain(value: Any) -> Any:
    """A value as a file could hold it: paths are texts, tuples lists."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def run(sweep: SweepConfig, *, workers: int | None = None, quiet: bool = False) -> "Results":
    """Run a sweep, or continue it where it stopped, write its report, and return its results: what the command `kdsweep run` does.

    `workers` processes train; None: one a CUDA device, two on a CPU; 0: watch what other hosts do. They are processes of their own,
    so a script needs no `if __name__ == "__main__"`. `quiet` shows no progress and no summary. Results go to results/NAME below
    the working directory, or to $KDSWEEP_RESULTS/NAME.

    Raises KDSweepError for a problem that its message lets you solve, and KeyboardInterrupt after Ctrl-C or the stop button of a
    notebook, once the running trials are checkpointed (a second one stops at once): the same call then continues. SIGTERM likewise
    raises `kdsweep.errors.Stopped`. In another thread than the main one Python hears no signals: the run ends with its process,
    and its workers checkpoint.

        results = kdsweep.run(kdsweep.load("smoke"), workers=2)
    """
    if not isinstance(sweep, SweepConfig):
        raise ConfigError(f"kdsweep.run takes the sweep that kdsweep.load returns, but got {sweep!r}")
    if workers is not None and workers < 0:
        raise ConfigError(f"workers >= 0 must hold, or None, but got {workers}")
    from rich.console import Console

    from kdsweep.engine.sweep import run_sweep

    try:
        return Results(run_sweep(sweep, Console(quiet=quiet), workers))
    except Stopped as stopped:
        if stopped.number == signal.SIGINT:
            raise KeyboardInterrupt("stopped; nothing is lost, and the same call of kdsweep.run continues") from None
        raise


# Its results ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, repr=False)
class Trial:
    """One trial of a sweep, as its folder has it; `Results.best` and `Results.trial` give them.

    results.best.config.temperature
    transformers.AutoModelForSequenceClassification.from_pretrained(results.best.student)
    """

    folder: Path
    arm: Arm
    """`distilled` or `fine_tuned`."""
    number: int
    """From 0, in its arm."""
    seed: int | None
    """Of a finalist, which is trial `number` once more on a fresh seed; None for a trial of the search."""
    config: TrialConfig
    """Everything that ran, without any `auto`."""
    result: TrialResult | None
    """How it ended, with its last epoch's metrics; None while it runs or where it was cut off."""

    @property
    def student(self) -> Path:
        """The folder of the trained student and its tokenizer, for transformers' `from_pretrained`.

        Raises ResultsError where it is not on disk: a sweep keeps the best `study.keep_students` of each arm.
        """
        path = self.folder / "student"
        if not path.is_dir():
            raise ResultsError(
                f"a sweep keeps the students of its best trials (study.keep_students), but that of {self} is not on disk"
            )
        return path

    def steps(self) -> "pandas.DataFrame":
        """Every training step: step, epoch, L_soft, L_hard, L_total, learning_rate; losses in nats."""
        return _frame(map(vars, read_steps(self.folder)), _names(StepMetrics))

    def epochs(self) -> "pandas.DataFrame":
        """Every epoch: mean training losses, metrics on the validation rows, seconds."""
        from kdsweep.records.reading import read_trial

        return _frame(map(vars, read_trial(self.folder).epochs), _names(EpochMetrics))

    def __repr__(self) -> str:
        seed = "" if self.seed is None else f", seed {self.seed}"
        status = self.result.status if self.result else "unfinished"
        return f"Trial({ARM_NAMES[self.arm]} {self.number}{seed}, {status}, {str(self.folder)!r})"


class Results:
    """A sweep's results folder, read once; a sweep that still runs has results too, and reading again gives newer ones.

    `folder` is a results folder such as results/T_alpha, `others` those of the same sweep on hosts that share no folder. Raises
    ResultsError where there is no sweep, or where another folder holds another one. Reading imports no torch.

        results = kdsweep.Results("results/T_alpha")
        results.trials().query("status == 'complete'").plot.scatter("alpha", "val_accuracy")
    """

    def __init__(self, folder: Place, *others: Place) -> None:
        from kdsweep.reporting.build import build_report

        first, *more = (Path(each).expanduser().resolve() for each in (folder, *others))
        self._folder, self._read = first, build_report(first, *more)

    @property
    def folder(self) -> Path:
        """The results folder."""
        return self._folder

    @property
    def sweep(self) -> SweepConfig:
        """The sweep that it belongs to; `kdsweep.run(results.sweep)` continues it."""
        return self._read.records.sweep

    @property
    def teacher(self) -> TeacherResult | None:
        """What is recorded of teacher and rows; None before they are ready."""
        return self._read.records.teacher

    @property
    def headline(self) -> str:
        """Whether distilling helped, in a sentence, as the report begins."""
        return f"{self._read.headline}."

    @property
    def verdict(self) -> "Verdict | None":
        """Whether distilling helped, as numbers; None while nothing can be compared.

        Its fields: `word` (better, not better or cannot tell), `difference` of the accuracies in [-1, 1] with `low` and `high` of its
        95 % interval, `p_value`, `rows`, `split`, and `provisional`, True where students were chosen on the rows that compare them.
        """
        return self._read.verdict

    @property
    def best(self) -> Trial | None:
        """The trial whose student to ship: the best finalist's best run, before that rank 1 of the search; None without any."""
        return _trial(self._read.shipped) if self._read.shipped else None

    @property
    def report(self) -> Path:
        """The report's page; a sweep that has not ended has none before `write_report`."""
        return self._folder / "report.html"

    def trial(self, number: int, arm: Arm = "distilled", *, seed: int | None = None) -> Trial:
        """One trial of the search, or with a `seed` its run as a finalist. Raises ResultsError where there is none."""
        rows = self._read.records.trials if seed is None else self._read.records.finalists
        for row in rows:
            if (row.arm, row.trial, row.finalist_seed) == (arm, number, seed):
                return _trial(row)
        if arm not in ARM_NAMES:
            raise ResultsError(f"an arm is {' or '.join(ARM_NAMES)}, but got {arm!r}")
        listed = ", ".join(
            f"{row.trial}" if seed is None else f"{row.trial} seed {row.finalist_seed}"
            for row in rows
            if row.arm == arm
        )
        what = f"trial {number}" if seed is None else f"finalist {number} with seed {seed}"
        raise ResultsError(f"{self._folder} has no {ARM_NAMES[arm]} {what}; it has {listed or 'none'}")

    def trials(self) -> "pandas.DataFrame":
        """The leaderboard, best first, both arms: rank, arm, trial, status, the searched fields, metrics, cost, seconds, W&B's page.

        Trials without rank (infeasible, pruned, failed, duplicate, unfinished) stand below, with their reason. The columns are those of
        leaderboard.csv, which `kdsweep.analysis.leaderboard` explains.
        """
        from kdsweep.analysis.leaderboard import column_names, columns

        frame = _frame(map(columns, self._read.rows), column_names(self._read.searched))
        return frame.astype({"rank": "Int64"})

    def steps(self, number: int, arm: Arm = "distilled", *, seed: int | None = None) -> "pandas.DataFrame":
        """Every step of one trial, as `Trial.steps`. Raises ResultsError where there is no such trial."""
        return self.trial(number, arm, seed=seed).steps()

    def epochs(self, number: int, arm: Arm = "distilled", *, seed: int | None = None) -> "pandas.DataFrame":
        """Every epoch of one trial, as `Trial.epochs`. Raises ResultsError where there is no such trial."""
        return self.trial(number, arm, seed=seed).epochs()

    def finalists(self) -> "pandas.DataFrame":
        """The best of both arms on fresh seeds, a row each: rank, arm, trial, seeds, the searched fields and the scores.

        search_score and confirmed_score are `study.metric` in the search and its mean over the fresh seeds; test_accuracy and the
        like are means on the test split, missing without one. `compared` tells whether the verdict counts it.
        """
        from kdsweep.analysis.finalists import TEST_MEANS

        finals, searched = self._read.finals, self._read.searched
        known = ("rank", "arm", "trial", "compared", "search_score", "confirmed_score")
        records = [
            {
                **{name: getattr(row, name) for name in known},
                "seeds": [run.finalist_seed for run in row.runs],
                **row.searched,
                **{f"test_{name}": row.mean(name) for name in TEST_MEANS},
            }
            for row in (finals.rows if finals else ())
        ]
        left = [name for name in searched if name not in known]
        scores = ["search_score", "confirmed_score", *(f"test_{name}" for name in TEST_MEANS), "compared"]
        return _frame(records, ["rank", "arm", "trial", "seeds", *left, *scores])

    def write_report(self) -> Path:
        """Write page, Markdown, CSV and JSON into the folder as they stand now, as `kdsweep report` does; the page."""
        from kdsweep.reporting.write import write_report

        write_report(self._folder, *self._read.records.others)
        return self.report

    def __repr__(self) -> str:
        progress = "; ".join(arm.text() for arm in self._read.arms)
        return f"Results({str(self._folder)!r}): {progress}. {self.headline}"

    def _repr_html_(self) -> str:
        """What a notebook shows: the headline, how far it is, the best trials."""
        metric, shown = self.sweep.study.metric, self.trials()
        names = ["rank", "arm", "trial", "status", metric, *(n for n in self._read.searched if n != metric)]
        table = shown[names].head(ROWS_SHOWN).to_html(index=False, border=0, na_rep="")
        more = len(shown) - ROWS_SHOWN
        progress = "; ".join(arm.text() for arm in self._read.arms)
        tail = f"<p>… and {more} more in results.trials()</p>" if more > 0 else ""
        return f"<p><b>{html.escape(self.headline)}</b><br>{html.escape(progress)}</p>{table}{tail}"


def _trial(row: TrialRow) -> Trial:
    return Trial(
        folder=row.folder,
        arm=row.arm,
        number=row.trial,
        seed=row.finalist_seed,
        config=row.config,
        result=row.result,
    )


def _names(kind: type[StepMetrics] | type[EpochMetrics]) -> list[str]:
    return [field.name for field in fields(kind)]


def _frame(records: Iterable[Mapping[str, Any]], names: Sequence[str]) -> "pandas.DataFrame":
    """Records as a table that has its columns also where there is no record."""
    import pandas

    return pandas.DataFrame.from_records(list(records), columns=list(names))


# A trial run again ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """What running a trial again gave."""

    outcome: "Outcome"
    """`identical` to the last bit, `within tolerance` (on a GPU, whose sums are not ordered) or `different`."""
    rule: str
    """What was asked for: equality to the last bit, or how near."""
    first_difference: str | None
    """The first metric that differs, with both values; None where none does."""
    facts: tuple[str, ...]
    """What differs in config, versions or machine; it need not have changed the result."""
    receipt: Path
    """receipt.json in the trial's folder: both sides of everything that was compared."""


def reproduce(trial: Trial | Place, *, places: Mapping[str, Place] | None = None, quiet: bool = False) -> Reproduction:
    """Run a trial again from its saved config and compare with its record: what the command `kdsweep reproduce` does.

    `trial` is a `Trial`, a trial's folder, or a results folder, whose best trial it then is. `places` says where data and models lie on
    this machine, such as {"train_file": "/data/train.csv"}. `quiet` shows neither epochs nor receipt. It trains in a process of
    its own: the bits depend on the threads that torch was imported with. Takes as long as the trial did. Raises KDSweepError for a
    trial that cannot be run here.

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
    """When a file was written, in nanoseconds; None where there is none."""
    return path.stat().st_mtime_ns if path.exists() else None


def _follow(module: Sequence[str], quiet: bool) -> tuple[int, str]:
    """Run a command to its end and show what it prints; its exit code, and what it said on standard error."""
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
