"""All that is to be measured on a CUDA device, in one command of under ten minutes: tests, start-up, workers on one device, NCCL, steps.

    python tests/benchmarks/bench_gpu.py                 # prints the tables of tests/benchmarks/README.md
    python tests/benchmarks/bench_gpu.py --check         # the same parts on a CPU with tiny models: does the script work?

Models and rows are made here from their configs (random weights: what a step costs does not depend on them), so that nothing is downloaded:
a BERT of 6 layers of 384 with a student of 3, and BERT-base with a student of DistilBERT's size. `--parts` names the parts to run, `--minutes`
how long they may take together. Exit code 2 where there is no CUDA device.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PARTS = ("tests", "workers", "nccl", "steps")


class Size(NamedTuple):
    """A teacher, its student and the rows."""

    name: str
    layers: int
    width: int
    student_layers: int
    pieces: int
    rows: int
    batch_sizes: tuple[int, ...]


SIZES = (
    Size("small", layers=6, width=384, student_layers=3, pieces=9000, rows=12_000, batch_sizes=(16, 64)),
    Size("distilbert", layers=12, width=768, student_layers=6, pieces=13_500, rows=6000, batch_sizes=(32, 128)),
)
TINY = (Size("tiny", layers=2, width=32, student_layers=1, pieces=200, rows=64, batch_sizes=(8, 16)),)


class Swept(NamedTuple):
    """One whole `python -m kdsweep.run`."""

    whole_seconds: float
    first_trial_seconds: float
    """From the command to the start of the first trial."""
    trial_seconds: float
    """The median trial's own."""
    trials_a_minute: float
    """From the first trial's start to the last one's end, all workers together."""


def write_rows(folder: Path, size: Size, tokens: int = 28) -> Path:
    """Rows of random words, of which a first one tells the class."""
    rng, path = random.Random(0), folder / f"{size.name}.jsonl"
    words = [f"w{number}" for number in range(size.pieces - 6)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(size.rows):
            text = " ".join([words[number % 2], *rng.choices(words[2:], k=tokens - 3)])
            file.write(json.dumps({"text": text, "label": ("odd", "even")[number % 2]}) + "\n")
    return path


def write_teacher(folder: Path, size: Size) -> Path:
    """A BERT of that size with a head, of random weights, and its tokenizer."""
    import torch
    from tiny import write_tokenizer
    from transformers import BertConfig, BertForSequenceClassification

    path = folder / f"{size.name}-teacher"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(size.pieces - 6))]
    write_tokenizer(path, pieces)
    heads = max(2, size.width // 64)
    shape = {"hidden_size": size.width, "num_hidden_layers": size.layers, "num_attention_heads": heads}
    names: dict[str, Any] = {"id2label": {0: "even", 1: "odd"}, "label2id": {"even": 0, "odd": 1}}
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(pieces), intermediate_size=4 * size.width, **shape, **names)
    BertForSequenceClassification(config).save_pretrained(path)
    return path


def write_sweep(folder: Path, size: Size, teacher: Path, rows: Path, *, trials: int, devices: int, device: str) -> Path:
    """A sweep of equal halves of small and large batches, nothing pruned."""
    points = [{"batch_size": size.batch_sizes[n % 2], "temperature": 1.0 + n, "alpha": 0.5} for n in range(trials)]
    fixed = {"train_file": str(rows), "validation_fraction": 0.1, "teacher": str(teacher), "epochs": 1}
    fixed |= {"student_layers": size.student_layers, "student_init": "finetuned", "max_length": 64, "device": device}
    content = {
        "name": "gpu",
        "study": {"trials": trials, "controls": 0, "pruner": "none", "lag": 8, "accept_weak_teacher": True},
        "fixed": {**fixed, "devices_per_trial": devices, "threads": 1 if device == "cpu" else "auto"},
        "search": {
            "temperature": {"low": 1.0, "high": 16.0},
            "alpha": {"low": 0.0, "high": 1.0},
            "batch_size": {"choices": list(size.batch_sizes)},
        },
        "enqueue": points,
        "finalists": {"top": 0},
        "tracking": {"mode": "off"},
    }
    path = folder / "gpu.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def sweep(folder: Path, file: Path, workers: int, seconds: float) -> Swept:
    """Run a sweep with an empty results folder, and the cache that the runs before it left."""
    world = {"KDSWEEP_RESULTS": str(folder / f"results-{time.monotonic_ns()}"), "KDSWEEP_CACHE": str(folder / "cache")}
    began, started = time.time(), time.perf_counter()
    line = [sys.executable, "-m", "kdsweep.run", str(file), "--workers", str(workers)]
    with (folder / "run.log").open("w") as log:
        done = subprocess.run(line, stdout=log, stderr=log, env={**os.environ, **world}, timeout=seconds, check=False)
    if done.returncode:
        raise SystemExit(f"the sweep must end with 0, but: {(folder / 'run.log').read_text()[-2000:]}")
    return swept(Path(world["KDSWEEP_RESULTS"]) / "gpu", began, time.perf_counter() - started)


def swept(results: Path, began: float, whole_seconds: float) -> Swept:
    """What the records of a sweep tell, whose command was typed at `began`."""
    paths = sorted(results.glob("trials/*/result.json"))
    found = [json.loads(path.read_text()) for path in paths]
    if any(result["status"] != "complete" for result in found) or not found:
        raise SystemExit(f"every trial must complete, but: {[(r['status'], r['error']) for r in found]}")
    start = min(datetime.fromisoformat(result["started_at"]).timestamp() for result in found)
    last = max(path.stat().st_mtime for path in paths)
    seconds = statistics.median(result["seconds"] for result in found)
    return Swept(whole_seconds, start - began, seconds, 60 * len(found) / (last - start))


def part_workers(folder: Path, options: argparse.Namespace, left: "Clock") -> None:
    """Trials a minute by the number of workers on one device; the first run of a size fills its caches, and its line tells so."""
    print("\nstudent       workers   trials a minute   a trial, s   first trial after, s   whole, s")
    for size in options.sizes:
        rows, teacher = write_rows(folder, size), write_teacher(folder, size)
        file = write_sweep(folder, size, teacher, rows, trials=options.trials, devices=1, device=options.device)
        for workers in options.workers:
            found = sweep(folder, file, workers, left.seconds())
            print(
                f"{size.name:<13} {workers:7} {found.trials_a_minute:17.1f} {found.trial_seconds:12.2f} "
                f"{found.first_trial_seconds:22.1f} {found.whole_seconds:10.1f}"
                + ("   (nothing cached)" if workers == options.workers[0] else ""),
                flush=True,
            )


def part_nccl(folder: Path, options: argparse.Namespace, left: "Clock") -> None:
    """The last size's trials on two devices each."""
    if options.devices < 2:
        print(f"\nnccl: devices_per_trial: 2 needs two CUDA devices, but there is {options.devices}: not run")
        return
    size = options.sizes[-1]
    rows, teacher = write_rows(folder, size), write_teacher(folder, size)
    file = write_sweep(folder, size, teacher, rows, trials=2, devices=2, device=options.device)
    found = sweep(folder, file, 1, left.seconds())
    print(f"\nnccl: a {size.name} trial on two devices {found.trial_seconds:.2f} s (above: on one)")


def part_steps(_: Path, options: argparse.Namespace, left: "Clock") -> None:
    """`bench_step.py` for each size of student."""
    for size in options.sizes:
        print(f"\nstep of {size.name}", flush=True)
        shape = ["--layers", str(size.student_layers), "--width", str(size.width), "--vocabulary", str(size.pieces)]
        batches = [word for batch in size.batch_sizes for word in ("--batch", str(batch))]
        line = [sys.executable, str(HERE / "bench_step.py"), *shape, *batches, "--repeats", str(options.repeats)]
        subprocess.run(line, timeout=left.seconds(), check=True)


def part_tests(_: Path, __: argparse.Namespace, left: "Clock") -> None:
    """`tests/test_gpu.py`: a failure is told, and the other parts run all the same."""
    line = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "tests/test_gpu.py"]
    done = subprocess.run(line, cwd=ROOT, timeout=left.seconds(), check=False)
    print(f"tests/test_gpu.py: exit code {done.returncode}", flush=True)


class Clock:
    """The time that is left."""

    def __init__(self, minutes: float) -> None:
        self._until = time.monotonic() + 60 * minutes

    def seconds(self) -> float:
        """At least a second, so that a part that has none fails by its own time limit."""
        return max(1.0, self._until - time.monotonic())


RUN = {"tests": part_tests, "workers": part_workers, "nccl": part_nccl, "steps": part_steps}


def devices() -> list[str]:
    """The names of the CUDA devices, as nvidia-smi lists them."""
    from kdsweep.system.hardware import cuda_devices

    return cuda_devices()


def main() -> int:
    """The command line; 2 without a CUDA device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    add("--minutes", type=float, default=9.5, help="that all parts may take together (default 9.5)")
    add("--check", action="store_true", help="run on a CPU with tiny models, to see that the script works")
    options = parser.parse_args()
    sys.path.insert(0, str(HERE.parent))
    found = devices()
    if not found and not options.check:
        print(
            "bench_gpu.py needs a CUDA device, but nvidia-smi lists none here; --check runs its parts on a CPU",
            file=sys.stderr,
        )
        return 2
    tiny = options.check
    vars(options).update(sizes=TINY if tiny else SIZES, device="cpu" if tiny else "auto", devices=len(found))
    vars(options).update(trials=2 if tiny else 8, workers=(1, 2) if tiny else (1, 2, 3, 4), repeats=1 if tiny else 9)
    left, failed = Clock(options.minutes), 0
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as scratch:
        for name in options.parts:
            began = time.perf_counter()
            try:
                RUN[name](Path(scratch), options, left)
            except subprocess.TimeoutExpired:
                print(f"{name}: cut off, all {options.minutes:g} minutes are over", flush=True)
                failed = 1
            print(f"[{name}: {time.perf_counter() - began:.0f} s]", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
