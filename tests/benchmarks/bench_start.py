"""From the command to the first training step: where the seconds go, on a first and on a second sweep of the same rows and models.

    python tests/benchmarks/bench_start.py
    python tests/benchmarks/bench_start.py --second-alone --cache kept --tracking off offline --workers 2 1 --repeats 5

Each sweep is `python -m kdsweep.run` of `--file` as its user would run it, in a results folder and under a name of its own, stopped by Ctrl-C
after its first step. The first sweep finds an empty cache (but the wheels, which are the network's time), the second one what the first has
left in it. Each is measured beside `python -c "import torch, transformers"`, in turns with it: the ratio is of wall seconds, which need an idle
machine; CPU seconds of the process in the table need none. Shown is the fastest of `--repeats`. With `--cache` a folder is kept between calls.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
WATCH = (
    f"import sys; sys.path.append({str(Path(__file__).parent)!r})\nimport start_watch; start_watch.begin({{path!r}})\n"
)
LONGEST_SECONDS = 1800
"""A sweep that has no step by then is ended."""


@dataclass
class Stage:
    """Seconds that one process spent in one stage, and not in another inside it."""

    wall: float = 0.0
    cpu: float = 0.0


@dataclass
class Process:
    """What one process did until the sweep's first step."""

    what: str
    began: float
    """Seconds after the command."""
    stages: dict[str, Stage] = field(default_factory=dict)
    first_step: float | None = None
    """Seconds after the command until its first step has ended; None where it took none."""


def measured_import() -> Stage:
    """Return the seconds of `import torch, transformers` in a Python of its own."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([sys.executable, "-c", "import torch, transformers"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Stage(time.monotonic() - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def traced(options: argparse.Namespace, cache: Path, tracking: str, workers: str) -> list[Process]:
    """Run a sweep until its first step; return what its processes did until then."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "sitecustomize.py").write_text(WATCH.format(path=str(folder / "trace")), encoding="utf-8")
        paths = os.pathsep.join([scratch, str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        where = {"PYTHONPATH": paths, "KDSWEEP_CACHE": str(cache), "KDSWEEP_RESULTS": str(folder / "results")}
        command = [sys.executable, "-m", "kdsweep.run", str(options.file), *options.overrides]
        command += ["name=start", f"tracking.mode={tracking}", "--workers", workers]
        began = time.monotonic()
        with (folder / "output").open("wb") as output:
            sweep = subprocess.Popen(command, env={**os.environ, **where}, stdout=output, stderr=output)
            wanted = int(workers) if options.all_workers and workers.isdigit() else 1
            while sweep.poll() is None and time.monotonic() < began + LONGEST_SECONDS:
                if has_stepped(folder / "trace", wanted):
                    break
                time.sleep(0.05)
            else:
                sweep.kill()
                raise SystemExit(f"no step was taken:\n{(folder / 'output').read_text(encoding='utf-8')}")
            sweep.send_signal(signal.SIGINT)
            sweep.wait()
        return list(read_trace(folder / "trace", began).values())


def events(path: Path) -> list[tuple[int, int, float, float, str, str]]:
    """Return what the processes wrote; an incomplete last line is left out."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [tuple(json.loads(line)) for line in lines if line.endswith("\n")]


def has_stepped(path: Path, wanted: int) -> bool:
    """Return whether so many processes have ended their first step of a trial."""
    return sum(process.first_step is not None for process in read_trace(path, 0.0).values()) >= wanted


def read_trace(path: Path, began: float) -> dict[int, Process]:
    """Return what each process did until its first step of a trial, by its number."""
    processes: dict[int, Process] = {}
    running: dict[int, list[str]] = {}
    last: dict[int, tuple[float, float]] = {}
    main: dict[int, int] = {}
    for pid, thread, at, cpu, kind, stage in events(path):
        if kind == "process":
            processes[pid], main[pid] = Process(stage, at - began), thread
            running[pid], last[pid] = [], (at, 0.0 if stage == "forked" else cpu)
            processes[pid].stages["python"] = Stage(cpu=0.0 if stage == "forked" else cpu)
            continue
        process = processes[pid]
        if thread != main[pid] or process.first_step is not None:
            continue
        stack = running[pid]
        spent = process.stages.setdefault(stack[-1] if stack else "else", Stage())
        spent.wall += at - last[pid][0]
        spent.cpu += cpu - last[pid][1]
        last[pid] = (at, cpu)
        if kind == "enter":
            of_teacher = stage == "first step" and "trial begins" not in stack
            stack.append("fine-tuning" if of_teacher else stage)
        elif stack.pop() == "first step":
            process.first_step = at - began
    return processes


def show(title: str, runs: Sequence[tuple[Stage, list[Process]]]) -> None:
    """Print the table of the fastest run, and its ratio to the import beside it."""
    first = lambda processes: min(each.first_step for each in processes if each.first_step is not None)
    best = min(range(len(runs)), key=lambda place: first(runs[place][1]))
    processes = runs[best][1]
    imported = Stage(min(run[0].wall for run in runs), min(run[0].cpu for run in runs))
    step = first(processes)
    print(f"\n{title}: the first step after {step:.2f} s, {step / imported.wall:.2f} times the import")
    print(f"  {'':44} {'wall s':>8} {'CPU s':>8} {'of the import':>14}")
    print(f"  {'import torch, transformers':44} {imported.wall:8.2f} {imported.cpu:8.2f} {1:14.2f}")
    for process in processes:
        when = "" if process.first_step is None else f", first step after {process.first_step:.2f} s"
        print(f"  {process.what}: from {process.began:.2f} s{when}")
        for stage, spent in process.stages.items():
            if max(spent.wall, spent.cpu) >= 0.005:
                print(f"    {stage:42} {spent.wall:8.2f} {spent.cpu:8.2f} {spent.wall / imported.wall:14.2f}")
        print(f"    {'all':42} {'':8} {sum(spent.cpu for spent in process.stages.values()):8.2f}")


def main() -> None:
    """Measure, and print one table for each sweep, tracking and number of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--file", type=Path, default=ROOT / "sweeps" / "T_alpha.yaml")
    parser.add_argument("--tracking", nargs="+", default=["off", "offline"])
    parser.add_argument("--workers", nargs="+", default=["auto", "1"])
    parser.add_argument("--repeats", type=int, default=3, help="of the second sweep; the first is measured once")
    parser.add_argument("--cache", type=Path, help="a folder to keep; without one, a new one each call")
    parser.add_argument("--second-alone", action="store_true", help="the cache is full: leave the first sweep out")
    parser.add_argument("--all-workers", action="store_true", help="wait for the first step of every worker")
    options = parser.parse_intermixed_args()
    with ExitStack() as stack:
        cache = options.cache or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        wheels = Path(os.environ.get("KDSWEEP_CACHE") or Path.home() / ".cache" / "kdsweep") / "wheels"
        if wheels.exists() and not (cache / "wheels").exists():
            shutil.copytree(wheels, cache / "wheels")
        print(f"load {os.getloadavg()[0]:.1f}; {len(os.sched_getaffinity(0))} cores")
        if not options.second_alone:
            tracking, workers = options.tracking[0], options.workers[0]
            run = measured_import(), traced(options, cache, tracking, workers)
            show(f"first sweep, tracking {tracking}, workers {workers}", [run])
        for tracking in options.tracking:
            for workers in options.workers:
                runs = [(measured_import(), traced(options, cache, tracking, workers)) for _ in range(options.repeats)]
                show(f"second sweep, tracking {tracking}, workers {workers}", runs)
        print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
