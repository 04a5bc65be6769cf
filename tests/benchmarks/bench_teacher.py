"""The teacher's logits of a training set: rows a second against the floor, against a notebook's way, and the second time.

The floor is the matrix products of the same batches, caught in a real pass and run again by themselves. The notebook's way is a pass in
file order, batches of 64 padded to their longest row, under `no_grad`. All take turns; medians are compared. The second sweep reads
the logits from the cache: its seconds are those of the hash, the file and the check of its bytes.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from bench_step import Catch, again, replay, seconds

from kdsweep.config.sweep_file import load_sweep
from kdsweep.system.hardware import available_cores
from kdsweep.training.data.tokens import Tokens, padded
from kdsweep.training.evaluation import all_logits
from kdsweep.training.fast import machine
from kdsweep.training.resolve import resolve
from kdsweep.training.shared import Materials
from kdsweep.training.teacher import Teacher
from kdsweep.training.teacher_logits import teacher_logits

SWEEP = Path(__file__).parents[2] / "sweeps" / "T_alpha.yaml"
NOTEBOOK_ROWS = 64


def notebook(teacher: Teacher, tokens: Tokens) -> torch.Tensor:
    """Every row in file order."""
    found = []
    with torch.no_grad():
        for first in range(0, len(tokens.lengths), NOTEBOOK_ROWS):
            rows = torch.arange(first, min(first + NOTEBOOK_ROWS, len(tokens.lengths))).numpy()
            found.append(teacher.model(**padded(tokens, rows).inputs).logits)
    return torch.cat(found)


def measure(rows: int, repeats: int) -> None:
    """Print seconds, rows a second and ratios."""
    # a random head gives other logits, but no other work
    overrides = [f"fixed.train_limit={rows}", "fixed.teacher_epochs=0", "fixed.student_init=finetuned"]
    sweep = load_sweep(SWEEP, overrides)
    point = {name: axis.ends()[0] for name, axis in sweep.search.items()}
    config = resolve(sweep.fields("distilled", point), threads=available_cores())
    machine.set_up(int(config.threads))
    materials = Materials()
    teacher = materials.teacher(config)
    tokens = materials.teacher_tokens(config, "train")
    count, device = len(tokens.lengths), config.device
    classes: Any = teacher.model.config.num_labels
    with Catch() as caught:
        all_logits(teacher.model, tokens, classes=classes)
    calls = again(caught.products, device)
    taken: dict[str, list[float]] = {"products alone": [], "ours": [], "ours, second sweep": [], "notebook": []}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as cache:
            os.environ["KDSWEEP_CACHE"] = cache
            taken["ours"].append(seconds(lambda: teacher_logits(teacher, tokens), device))
            taken["ours, second sweep"].append(seconds(lambda: teacher_logits(teacher, tokens), device))
        with torch.inference_mode():
            taken["products alone"].append(seconds(lambda: replay(calls), device))
        taken["notebook"].append(seconds(lambda: notebook(teacher, tokens), device))
    floor = statistics.median(taken["products alone"])
    print(
        f"{count:,} rows of {tokens.lengths.mean():.1f} tokens, {device}, {config.threads} threads, {machine.processor()}"
    )
    print("                       seconds    rows/s   of the floor")
    for name, values in taken.items():
        middle = statistics.median(values)
        print(f"{name:20} {middle:9.3f} {count / middle:9,.0f} {middle / floor:14.2f}")


def main() -> None:
    """Measure."""
    described = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    described.add_argument("--rows", type=int, default=2000, help="reviews of the shipped sweep (default 2,000)")
    described.add_argument("--repeats", type=int, default=5, help="of each, in turns (default 5)")
    options = described.parse_args()
    measure(options.rows, options.repeats)


if __name__ == "__main__":
    main()
