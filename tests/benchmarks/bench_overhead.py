"""What kdsweep costs beside training and evaluation: commands, trials, the study, the report; and how each grows.

commands   from `python -m …` to the end, against the import of torch and transformers, which no script escapes; `run` of three tiny trials,
           whole, is all that comes before and after a sweep's training
trials     many tiny trials in one worker, with SQLite and an offline W&B run each: seconds beyond training and evaluation, memory
study      taking the next trial, messages its end and the supervisor's look, after so many finished trials
report     `python -m kdsweep.report`, whole, on so many recorded trials
"""

import argparse
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from kdsweep.config.arms import PRIMARY
from kdsweep.config.axis import Axis
from kdsweep.config.sweep import FinalistsConfig, StudyConfig, SweepConfig, TrackingConfig
from kdsweep.records.reading import read_trials
from kdsweep.records.schema import missing_result
from kdsweep.records.writing import write_sweep
from kdsweep.search.studies import Studies
from kdsweep.system.process import StopRequest, for_good

sys.path.insert(0, str(Path(__file__).parents[1]))
from makers import make_predictions, make_sweep, make_teacher, make_trial  # noqa: E402
from onnx_students import make_exported  # noqa: E402
from tiny import write_tiny_teacher  # noqa: E402

PARTS = ("commands", "trials", "study", "report")
TIMED = 10
SWEEP = Path(__file__).parents[2] / "sweeps" / "T_alpha.yaml"
AXES = {"temperature": Axis(low=1.0, high=16.0, log=True), "alpha": Axis(low=0.0, high=1.0)}


def seconds(action: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def run(*arguments: object) -> None:
    """A Python process, whole."""
    subprocess.run([sys.executable, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


# Commands ------------------------------------------------------------------------------------------------------------


def measure_commands(repeats: int = 5) -> None:
    """Print each command's seconds, in turns with the import."""
    with tempfile.TemporaryDirectory() as scratch:
        taken = time_commands(Path(scratch), repeats)
    base = statistics.median(next(iter(taken.values())))
    print("command                              seconds   of the import")
    for name, values in taken.items():
        middle = statistics.median(values)
        print(f"{name:36} {middle:7.2f} {middle / base:10.2f}")


def time_commands(scratch: Path, repeats: int) -> dict[str, list[float]]:
    """Seconds of each command, by its name; the import first."""
    teacher, rows = write_tiny_teacher(scratch)
    os.environ["KDSWEEP_CACHE"] = str(scratch / "cache")
    os.environ["KDSWEEP_RESULTS"] = str(scratch / "results")
    study = StudyConfig(trials=2, controls=1, pruner="none")
    sections: dict[str, Any] = {
        "study": study,
        "finalists": FinalistsConfig(top=0),
        "tracking": TrackingConfig(mode="off"),
    }
    sweep = SweepConfig(name="tiny", fixed=tiny_fixed(teacher, rows), search=AXES, **sections)
    write_sweep(scratch, sweep)
    lines: dict[str, tuple[object, ...]] = {
        "import torch, transformers.Trainer": ("-c", "import torch; from transformers import Trainer")
    }
    lines |= {
        f"{name} --help": ("-m", f"kdsweep.{name}", "--help") for name in ("run", "report", "reproduce", "worker")
    }
    make_exported(scratch / "exported")
    (scratch / "texts.txt").write_text("a fine film\n", encoding="utf-8")
    lines["predict of one text"] = ("-m", "kdsweep.predict", scratch / "exported", scratch / "texts.txt")
    lines["run T_alpha.yaml --dry-run"] = ("-m", "kdsweep.run", SWEEP, "--dry-run")
    lines["run of three tiny trials"] = ("-m", "kdsweep.run", scratch / "sweep.yaml", "--workers", "1")
    taken: dict[str, list[float]] = {name: [] for name in lines}
    for _ in range(repeats):
        for name, line in lines.items():
            shutil.rmtree(scratch / "results", ignore_errors=True)
            taken[name].append(seconds(lambda: run(*line)))  # noqa: B023
    return taken


def tiny_fixed(teacher: Path, rows: Path) -> dict[str, object]:
    """Fields of a sweep whose trials take a tenth of a second."""
    fixed = {"train_file": str(rows), "teacher": str(teacher), "student_layers": 2, "student_init": "finetuned"}
    return {**fixed, "validation_fraction": 0.25, "max_length": 16, "batch_size": 16, "epochs": 2}


# Trials --------------------------------------------------------------------------------------------------------------


def rss_mb() -> float:
    """The memory that this process has now, in MB (10⁶ bytes)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure_trials(count: int) -> None:
    """Run `count` tiny trials in one worker, in this process, and print memory and overhead as they go."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with for_good():  # as a worker's command does
        from kdsweep.engine.worker_loop import Worker

    with tempfile.TemporaryDirectory() as scratch:
        teacher, rows = write_tiny_teacher(Path(scratch))
        sweep = SweepConfig(
            name="tiny",
            fixed=tiny_fixed(teacher, rows),
            search=AXES | {"learning_rate": Axis(low=1e-4, high=1e-2, log=True)},
            study=StudyConfig(trials=-(-count // 2), controls=count // 2, pruner="none"),
            finalists=FinalistsConfig(top=0),
            tracking=TrackingConfig(mode="offline"),
        )
        folder = Path(scratch) / "tiny"
        write_sweep(folder, sweep)
        ended: list[tuple[float, float]] = []
        send = lambda event, **_: ended.append((time.perf_counter(), rss_mb())) if event == "done" else None
        worker = Worker(sweep, folder, "bench", send, StopRequest())
        worker.prepare()
        began = time.perf_counter()
        worker.work()
        found = [row.result for arm in PRIMARY for row in read_trials(folder, arm) if row.result]
        spent = sum(result.train_seconds + result.evaluate_seconds for result in found) / len(found)
    moments = [began, *(moment for moment, _ in ended)]
    each = [after - before - spent for before, after in zip(moments, moments[1:], strict=False)]
    print(f"{len(ended)} trials of {spent:.2f} s of training and evaluation")
    print("trials        seconds beyond that, median   RSS [MB] at the end")
    edges = sorted({3, len(each), *(len(each) * tenth // 10 for tenth in (1, 2, 5, 8))} - {0})
    for first, last in zip([0, *edges], edges, strict=False):
        print(f"{first + 1:4} … {last:4} {statistics.median(each[first:last]):20.3f} {ended[last - 1][1]:26,.0f}")
    third, last_mb = ended[min(2, len(ended) - 1)][1], ended[-1][1]
    tenth = ended[max(0, len(ended) // 10 - 1)][1]
    print(
        f"RSS from the third to the last: {last_mb / third - 1:+.1%}; from the {len(ended) // 10}th: {last_mb / tenth - 1:+.1%}"
    )


# The study -----------------------------------------------------------------------------------------------------------


def measure_study(finished: int) -> dict[str, float]:
    """Medians over the trials after `finished` ones, in milliseconds."""
    fixed = {"train_file": "rows.csv", "teacher": "bert", "teacher_epochs": 1}
    sweep = SweepConfig(name="s", fixed=fixed, search=AXES, study=StudyConfig(trials=10**6, controls=0))
    with tempfile.TemporaryDirectory() as folder:
        studies = Studies(sweep, Path(folder))
        distributions: dict[str, optuna.distributions.BaseDistribution] = {
            "temperature": optuna.distributions.FloatDistribution(1.0, 16.0, log=True),
            "alpha": optuna.distributions.FloatDistribution(0.0, 1.0),
        }
        study = studies._studies["distilled"]
        for number in range(finished):
            share = number / finished
            point = {"temperature": 1.0 + 15 * share, "alpha": share}
            study.add_trial(optuna.create_trial(params=point, distributions=distributions, value=0.5 + share / 4))
        taken, told, looked = [], [], []
        for _ in range(TIMED):
            found: list[Any] = []
            taken.append(seconds(lambda: found.append(studies.take())))  # noqa: B023
            (assignment,) = found
            result = missing_result("distilled", assignment.id.number, status="complete", error="", attempt=1)
            told.append(seconds(lambda: studies.finish(assignment, replace(result, val_accuracy=0.7), {})))  # noqa: B023
            looked.append(seconds(lambda: (studies.is_open(), studies.is_done())))
    names = ("take the next trial", "tell its end", "the supervisor's look")
    return {name: 1000 * statistics.median(values) for name, values in zip(names, (taken, told, looked), strict=True)}


def measure_studies(sizes: list[int]) -> None:
    """Print each size, and how the cost grows with it."""
    found = {size: measure_study(size) for size in sizes}
    print_growth("milliseconds", found)


def print_growth(unit: str, found: dict[int, dict[str, float]]) -> None:
    """A table by size; last, the exponent of the growth between the two largest (0: constant, 1: linear)."""
    sizes = list(found)
    print(f"{unit:26}" + "".join(f"{f'{size:,} trials':>16}" for size in sizes) + "    growth at the end")
    for name in found[sizes[0]]:
        row = [found[size][name] for size in sizes]
        growth = math.log(row[-1] / row[-2]) / math.log(sizes[-1] / sizes[-2]) if len(sizes) > 1 else math.nan
        print(f"{name:26}" + "".join(f"{value:16.1f}" for value in row) + f"    size^{growth:.2f}")


# The report ----------------------------------------------------------------------------------------------------------


def measure_reports(sizes: list[int]) -> None:
    """Print the report's seconds at each size."""
    found = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "s"
            sweep = make_sweep(folder)
            make_teacher(folder)
            rng = np.random.default_rng(0)
            for number in range(size):
                arm = PRIMARY[number % 2]
                params = {"temperature": 1 + 15 * rng.random(), "alpha": rng.random()}
                params |= {"learning_rate": 10 ** rng.uniform(-5, -3), "batch_size": 32}
                accuracy = 0.7 + 0.2 * rng.random()
                make_trial(folder, sweep, arm, number // 2, params, accuracy)
                make_predictions(folder, arm, number // 2, rng.random(200) < accuracy)
            found[size] = {"report, whole command": seconds(lambda: run("-m", "kdsweep.report", folder))}  # noqa: B023
            found[size]["MB of report.html"] = (folder / "report.html").stat().st_size / 1e6
    print_growth("seconds", found)


# The command line ----------------------------------------------------------------------------------------------------


def main() -> None:
    """Measure the parts that are asked for."""
    described = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = described.add_argument
    add("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default all)")
    add("--trials", type=int, default=200, help="of the part trials (default 200)")
    add(
        "--sizes", type=int, nargs="+", default=[10, 100, 1000, 10000], help="of study and report (default 10 … 10,000)"
    )
    options = described.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        described.error(f"a part is one of {', '.join(PARTS)}, but got {', '.join(sorted(unknown))}")
    measures: dict[str, Callable[[], None]] = {
        "commands": measure_commands,
        "trials": lambda: measure_trials(options.trials),
        "study": lambda: measure_studies(options.sizes),
        "report": lambda: measure_reports(options.sizes),
    }
    for part in options.parts or PARTS:
        print(f"\n{part}")
        measures[part]()


if __name__ == "__main__":
    main()
