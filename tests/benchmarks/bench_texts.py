"""Texts without labels, a million of them: seconds to read, tokenise, teach and train on, and memory for each token.

The texts are made of real ones: a few words of one review, a few of another. Each way of holding them, memory-mapped and in memory, has a
process of its own, for its resident set. The teacher is asked for a sample; for the others random logits stand in, which cost training as
much as real ones.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdsweep.config.sweep_file import load_sweep
from kdsweep.config.trial import TrialConfig
from kdsweep.system.hardware import available_cores
from kdsweep.system.wheels import cache_root
from kdsweep.training import joined
from kdsweep.training.data import kept
from kdsweep.training.data.rows import raw_texts
from kdsweep.training.data.tokens import TEACHER_LOGITS
from kdsweep.training.fast import machine
from kdsweep.training.loop import distill
from kdsweep.training.resolve import resolve
from kdsweep.training.shared import Materials

SWEEP = Path(__file__).parents[2] / "sweeps" / "T_alpha.yaml"
WORDS = 6
"""Words of each of the two halves of a text."""


def made_of(texts: Iterable[str], count: int, path: Path) -> None:
    """Write `count` texts, each the beginning of one of `texts` and the end of another, as a csv file."""
    words = [text.split() for text in texts]
    heads, tails = [" ".join(each[:WORDS]) for each in words], [" ".join(each[-WORDS:]) for each in words]
    rng = np.random.default_rng(0)
    pairs = zip(rng.integers(len(heads), size=count), rng.integers(len(tails), size=count), strict=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text"], *([f"{heads[first]} {tails[last]}"] for first, last in pairs)])


def bytes_held() -> dict[str, int]:
    """This process's memory now: its own pages, pages of files, and the most that there ever was of both."""
    said = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: 1024 * int(said[name].split()[0]) for name in ("RssAnon", "RssFile", "VmHWM")}


def config_of(texts: Path, steps: int) -> TrialConfig:
    """A trial of the shipped sweep with these texts, pure distillation; a random head gives other logits, but no other work."""
    fixed = {"unlabeled_file": texts, "teacher_epochs": 0, "student_init": "finetuned", "train_limit": 2000}
    fixed |= {"validation_limit": 256, "max_steps": steps, "evaluations": 1, "epochs": "null"}
    sweep = load_sweep(SWEEP, [f"fixed.{name}={value}" for name, value in fixed.items()])
    point = {name: axis.ends()[0] for name, axis in sweep.search.items()}
    config = resolve(sweep.fields("distilled", point), threads=available_cores())
    return replace(config, alpha=1.0, temperature=1.0, batch_size=32)


def measured(texts: Path, steps: int, sample: int) -> dict[str, Any]:
    """Prepare the texts and train on them in this process; seconds and bytes of each part."""
    config = config_of(texts, steps)
    machine.set_up(int(config.threads))
    materials, found = Materials(), dict[str, Any]()

    def timed(name: str, make: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        made = make()
        found[name] = time.perf_counter() - started
        return made

    teacher, student = materials.teacher(config), materials.student(config)
    _, validation = materials.teacher_rows(config)
    distill(
        student, validation, validation, replace(config, max_steps=4), on_steps=lambda _: None, on_epoch=lambda _: False
    )
    before = bytes_held()
    split = timed("read and clean", lambda: materials.unlabeled(config))
    tokens = timed("tokens", lambda: materials.teacher_tokens(config, "unlabeled"))
    found |= {"texts": len(split), "token count": len(tokens.ids)}
    told, classes = joined.teacher_targets, len(teacher.columns)
    if sample:
        timed("logits of the sample", lambda: told(teacher, tokens.part(0, sample)))
    rng = torch.Generator().manual_seed(0)
    stand_in = lambda _, part: {TEACHER_LOGITS: torch.randn(len(part.lengths), classes, generator=rng)}
    joined.teacher_targets = stand_in  # type: ignore[assignment]
    rows, validation = timed("joined to the labelled rows", lambda: materials.rows(config))
    held = bytes_held()
    run = lambda: distill(
        materials.student(config), rows, validation, config, on_steps=lambda _: None, on_epoch=lambda _: False
    )
    timed("first training", run)
    training, _ = timed("second training", run)
    found["steps a second"] = steps / training.history[-1].train_seconds
    after = bytes_held()
    for name, now in (("held", held), ("after training", after)):
        grown = {kind: now[kind] - before[kind] for kind in ("RssAnon", "RssFile")}
        found |= {f"{kind} a token, {name}": value / len(tokens.ids) for kind, value in grown.items()}
    found["most resident a token"] = (after["VmHWM"] - before["RssAnon"] - before["RssFile"]) / len(tokens.ids)
    return found


def main() -> None:
    """Measure each way in a process of its own, and print both side by side."""
    described = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    described.add_argument("--texts", type=int, default=1_000_000, help="how many (default 1,000,000)")
    described.add_argument(
        "--file", help="csv, json lines or parquet with a column text (default: the shipped reviews)"
    )
    described.add_argument("--steps", type=int, default=200, help="training steps timed (default 200)")
    described.add_argument(
        "--sample", type=int, default=4096, help="texts that the teacher is asked for (default 4,096)"
    )
    described.add_argument("--in", dest="place", choices=["file", "memory"], help=argparse.SUPPRESS)
    options = described.parse_args()
    if options.place:
        kept.MAPPED_BYTES = 0 if options.place == "file" else 2**62
        print(json.dumps(measured(Path(options.file), options.steps, options.sample)))
        return
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts.csv"
        sweep = load_sweep(SWEEP, [f"fixed.unlabeled_file={options.file}"] if options.file else [])
        source = TrialConfig(**{**sweep.fixed, "unlabeled_file": options.file or sweep.fixed["train_file"]})
        made_of(raw_texts(source, "unlabeled_file")[0], options.texts, texts)
        numbers = {}
        for place in ("file", "memory"):
            cache = Path(folder) / place
            cache.mkdir()
            (cache / "wheels").symlink_to(cache_root() / "wheels")  # these need not be fetched again
            command = [sys.executable, __file__, "--in", place, "--file", str(texts)]
            command += ["--steps", str(options.steps), "--sample", str(options.sample)]
            done = subprocess.run(
                command, stdout=subprocess.PIPE, check=True, env={**os.environ, "KDSWEEP_CACHE": str(cache)}
            )
            numbers[place] = json.loads(done.stdout.splitlines()[-1])
    print(f"{machine.processor()}, {available_cores()} threads\n{'':40}{'memory-mapped':>16}{'in memory':>16}")
    for name, value in numbers["file"].items():
        print(f"{name:40}{value:16,.2f}{numbers['memory'][name]:16,.2f}")


if __name__ == "__main__":
    main()
