"""A training step with L_relation against the same step without it: what a teacher that runs in every step costs, and the loss itself.

Synthetic rows of one length; a BERT of random weights as the teacher, a DistilBERT as the student, which work as much as others. Both sides
take turns in one process; medians are compared. An epoch of `distill_epoch` is timed, the loop that every trial runs.
"""

import argparse
import statistics
from contextlib import ExitStack, nullcontext
from typing import Any

import torch
from bench_step import STEPS, seconds, synthetic_rows, training_of
from transformers import BertConfig, BertForSequenceClassification

from kdsweep.config.trial import TrialConfig
from kdsweep.system.hardware import available_cores, default_workers
from kdsweep.training.data.tokens import Rows
from kdsweep.training.fast import machine
from kdsweep.training.fast.cuda_graphs import own_stream
from kdsweep.training.loop import distill_epoch
from kdsweep.training.models import freeze
from kdsweep.training.online import OnlineTeacher
from kdsweep.training.state import Training


def teacher_of(options: argparse.Namespace, device: str) -> OnlineTeacher:
    """A BERT of the asked shape."""
    shape = {"hidden_size": options.teacher_width, "intermediate_size": 4 * options.teacher_width}
    shape |= {"num_hidden_layers": options.teacher_layers, "num_attention_heads": 12, "vocab_size": options.vocabulary}
    return OnlineTeacher(model=freeze(BertForSequenceClassification(BertConfig(**shape)).to(device)))


class Side:
    """One side: its training, and epochs of it."""

    def __init__(self, config: TrialConfig, rows: Rows, options: argparse.Namespace, teacher: OnlineTeacher) -> None:
        self.config, self.rows, self.training = config, rows, training_of(config, options)
        self.training.teacher = teacher if config.relation_weight else None

    def epoch(self) -> None:
        """An epoch of the loop."""
        training: Training = self.training
        training.epoch, training.step = training.epoch + 1, training.epoch * STEPS
        distill_epoch(training, self.rows, self.config, on_steps=lambda _: None)


def measure(batch_size: int, options: argparse.Namespace) -> float:
    """Print both steps and their ratio; return the ratio."""
    device = machine.best_device()
    precision = machine.best_precision(device) if options.precision == "auto" else options.precision
    threads = options.threads or available_cores() // default_workers(device, 1)
    facts: dict[str, Any] = {"device": device, "precision": precision, "threads": threads, "batch_size": batch_size}
    facts |= {"train_file": "-", "teacher": "-", "student": "-", "relation_heads": options.heads}
    machine.set_up(threads)
    rows, teacher = synthetic_rows(batch_size, options, device), teacher_of(options, device)
    sides = [Side(TrialConfig(**facts, relation_weight=weight), rows, options, teacher) for weight in (0.0, 1.0)]
    outputs = sides[1].training.objective.teacher_outputs
    with ExitStack() as stack:
        stack.enter_context(teacher.ready(outputs, low=precision == "bf16"))
        stack.enter_context(own_stream(device) if device != "cpu" else nullcontext())
        for side in (*sides, *sides):
            side.epoch()  # on a GPU the second records graphs
        times: list[list[float]] = [[], []]
        for _ in range(options.repeats):
            for side, taken in zip(sides, times, strict=True):
                taken.append(seconds(side.epoch, device) / STEPS)
    plain, related = map(statistics.median, times)
    print(
        f"batch {batch_size}, {options.tokens} tokens: {1e3 * plain:.1f} ms without, {1e3 * related:.1f} ms with: ratio "
        f"{related / plain:.2f}   [{precision}, {device}, {threads} threads, {torch.__version__}]",
        flush=True,
    )
    return related / plain


def main() -> None:
    """Measure at each batch size."""
    described = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python tests/benchmarks/bench_relations.py --batch 16 --batch 64 --tokens 28",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = described.add_argument
    add("--batch", type=int, action="append", help="rows a step; may be given again (default 16, 32 and 64)")
    add("--tokens", type=int, default=28, help="of a row (default 28, a review's mean)")
    add("--vocabulary", type=int, default=9000, help="word pieces of the compact vocabulary (default 9,000)")
    add("--classes", type=int, default=2, help="default 2")
    add("--layers", type=int, default=3, help="of the student (default 3)")
    add("--width", type=int, default=384, help="of the student (default 384)")
    add("--teacher-layers", type=int, default=6, help="default 6")
    add("--teacher-width", type=int, default=384, help="default 384")
    add("--heads", type=int, default=12, help="relation_heads (default 12)")
    add("--precision", choices=["auto", "fp32", "bf16"], default="auto", help="default auto")
    add("--threads", type=int, help="default: those of one of the workers that a sweep has here")
    add("--repeats", type=int, default=9, help="of both, in turns (default 9)")
    options = described.parse_args()
    for batch_size in options.batch or [16, 32, 64]:
        measure(batch_size, options)


if __name__ == "__main__":
    main()
