"""A training step beside a process that never rests, and on a machine that does nothing else: with libgomp's own spinning and with ours.

Threads that share an operation wait for each other at its end. libgomp lets them spin for 10 ms and more, which pays while every thread has a
core; where another process wants one, whoever spins takes it from the thread that all wait for. `hardware.bound_spinning` lets them
spin for 0.1 to 0.2 ms. Each cell is a process of its own, as a worker is; cells take turns, medians are compared. One thread waits for nobody: its
time is what threads that wait badly should be held against.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator

from kdsweep.system.hardware import available_cores, bound_spinning, default_workers

WAYS = ("libgomp's own", "ours")


def step_ms(role: str, threads: int, options: argparse.Namespace) -> float:
    """Return the median milliseconds of a step in this process: a teacher's fine-tuning (6 layers) or a trial's (3 layers)."""
    from bench_step import STEPS, seconds, synthetic_rows, training_of
    from transformers import BertConfig, BertForSequenceClassification

    from kdsweep.config.trial import TrialConfig
    from kdsweep.training import loop, state
    from kdsweep.training.fast import machine

    precision = machine.best_precision("cpu")
    machines = {"device": "cpu", "precision": precision, "threads": threads, "batch_size": options.batch}
    config = TrialConfig(train_file="-", teacher="-", student="-", **machines)  # type: ignore[arg-type]
    machine.set_up(threads)
    training = training_of(config, options)
    if role == "teacher":
        shape = {"hidden_size": options.width, "intermediate_size": 4 * options.width, "num_labels": options.classes}
        facts = BertConfig(vocab_size=options.vocabulary, num_hidden_layers=6, num_attention_heads=12, **shape)
        training.student = BertForSequenceClassification(facts)
        training.optimizer, training.schedule = state.optimizer_and_schedule(training.student, config, steps=10**6)
    rows, taken = synthetic_rows(options.batch, options, "cpu"), []

    def epoch() -> None:
        training.epoch, training.step = training.epoch + 1, training.epoch * STEPS
        loop.distill_epoch(training, rows, config, on_steps=lambda _: None)

    for _ in range(options.epochs + 1):
        taken.append(1000 * seconds(epoch, "cpu") / STEPS)
    return statistics.median(taken[1:])


@contextlib.contextmanager
def neighbour(is_there: bool) -> Iterator[None]:
    """Inside the block, a foreign process keeps one core busy."""
    if not is_there:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def cell(role: str, threads: int, way: str, *, busy: bool) -> float:
    """Measure one cell in a process of its own."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    line = [sys.executable, __file__, *sys.argv[1:], "--cell", role, str(threads), way]
    with neighbour(busy):
        done = subprocess.run(line, capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout)


def compare(options: argparse.Namespace) -> None:
    """Print each cell's median milliseconds a step, and the ratios to libgomp's own and to one thread."""
    cores = available_cores()
    share = cores // default_workers("auto", 1)
    cells = [
        ("teacher", cores),
        ("teacher", 1),
        ("trial", cores),
        *([("trial", share)] if share > 1 else []),
        ("trial", 1),
    ]
    for role, threads in dict.fromkeys(cells):
        for busy in (False, True):
            ways = WAYS if threads > 1 else WAYS[1:]
            taken: dict[str, list[float]] = {way: [] for way in ways}
            for turn in range(options.repeats):
                for way in ways[:: 1 if turn % 2 else -1]:
                    taken[way].append(cell(role, threads, way, busy=busy))
            medians = {way: statistics.median(values) for way, values in taken.items()}
            said = ", ".join(f"{way} {value:.0f} ms" for way, value in medians.items())
            ratio = f", ratio {medians[WAYS[0]] / medians[WAYS[1]]:.2f}" if threads > 1 else ""
            print(
                f"{role}, {threads} threads, {'beside a busy process' if busy else 'idle machine'}: {said}{ratio}",
                flush=True,
            )


def main() -> None:
    """Compare, or measure one cell for the process that compares."""
    described = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = described.add_argument
    add("--batch", type=int, default=16, help="rows a step (default 16, of T_alpha's teacher)")
    add("--tokens", type=int, default=28, help="of a row (default 28, a review's mean)")
    add("--vocabulary", type=int, default=9000, help="word pieces of the compact vocabulary (default 9,000)")
    add("--classes", type=int, default=2, help="default 2")
    add("--layers", type=int, default=3, help="of the student (default 3)")
    add("--width", type=int, default=384, help="of both (default 384)")
    add("--epochs", type=int, default=3, help="timed in each process, of 8 steps (default 3)")
    add("--repeats", type=int, default=3, help="processes of each cell (default 3)")
    add("--cell", nargs=3, help=argparse.SUPPRESS)
    options = described.parse_args()
    if options.cell is None:
        compare(options)
        return
    role, threads, way = options.cell
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = threads
    if way == WAYS[1]:
        bound_spinning()
    print(step_ms(role, int(threads), options))


if __name__ == "__main__":
    main()
