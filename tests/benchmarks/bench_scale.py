"""Many labelled rows: seconds and memory of each stage from the file to the end of a short training, at several numbers of rows.

The rows are made of real ones: the beginnings of three sentences of one class, about 30 tokens; 2 % are copies of others, so that some cross
the splits. Each number of rows has processes of its own, with a cache of their own: a `first`, and a `second`, which finds what the
first has cached. The teacher is a small one with random weights, which costs what it costs and knows nothing; `--teacher` names another.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import BertConfig, BertForSequenceClassification

from kdsweep.config.sweep_file import load_sweep
from kdsweep.config.trial import TrialConfig
from kdsweep.system.hardware import available_cores
from kdsweep.system.wheels import cache_root
from kdsweep.training.data.rows import raw_rows
from kdsweep.training.data.tokens import load_tokenizer
from kdsweep.training.fast import machine
from kdsweep.training.loop import distill
from kdsweep.training.resolve import resolve
from kdsweep.training.shared import Materials

SWEEP = Path(__file__).parents[2] / "sweeps" / "T_alpha.yaml"
PARTS, WORDS = 3, 8
"""Sentences of which a row is made, and words of each: about 30 tokens."""
COPIES = 0.02
"""Share of the rows that are copies of other rows."""


# Rows ----------------------------------------------------------------------------------------------------------------


def made_rows(sentences: dict[str, list[str]], count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Return `count` rows, each the beginnings of `PARTS` sentences of its class, drawn at random."""
    begun = [[" ".join(text.split()[:WORDS]) for text in texts] for texts in sentences.values()]
    classes, drawn = rng.integers(len(begun), size=count), rng.random((count, PARTS))
    numbers = (drawn * np.array([len(texts) for texts in begun])[classes, None]).astype(int)
    names = list(sentences)
    return [
        (" ".join(begun[own][each] for each in row), names[own])
        for own, row in zip(classes.tolist(), numbers.tolist(), strict=True)
    ]


def write_rows(sentences: dict[str, list[str]], count: int, path: Path, kind: str) -> None:
    """Write `count` rows as json lines, `COPIES` of them copies of earlier ones; with `kind` pairs, each text cut in two."""
    rng = np.random.default_rng(0)
    rows = made_rows(sentences, round(count * (1 - COPIES)), rng)
    rows += [rows[place] for place in rng.integers(len(rows), size=count - len(rows))]
    with path.open("w", encoding="utf-8") as file:
        for place in rng.permutation(count):
            text, label = rows[place]
            words = text.split()
            half = {"text": " ".join(words[::2]), "pair": " ".join(words[1::2])} if kind == "pairs" else {"text": text}
            file.write(json.dumps({**half, "label": label}) + "\n")


def sentences_of(file: str | None, text: str, label: str) -> dict[str, list[str]]:
    """Return the distinct texts of the two commonest classes of `file`, or of the reviews that the main job uses."""
    named = {"train_file": file, "text_column": text, "label_column": label, "label_names": []} if file else {}
    fixed = load_sweep(SWEEP).fixed | named
    rows = raw_rows(TrialConfig(**fixed), "train")
    found: dict[str, list[str]] = {}
    for each, name in zip(rows.texts, rows.labels.values, strict=True):
        found.setdefault(str(name), []).append(each)
    commonest = sorted(found, key=lambda name: len(found[name]), reverse=True)[:2]
    return {name: list(dict.fromkeys(found[name])) for name in commonest}


def small_teacher(tokens_of: str, labels: list[str], folder: Path) -> None:
    """Save a BERT of one layer of 32 with random weights, and the tokenizer of `tokens_of`."""
    tokenizer = load_tokenizer(tokens_of, None)
    config = BertConfig(
        vocab_size=len(tokenizer),
        id2label=dict(enumerate(labels)),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=128,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


# Measuring -----------------------------------------------------------------------------------------------------------


class Stages:
    """Measures stages of this process: seconds of the clock and of all cores, and the resident memory during and after each."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, float]] = {}
        self._most, self._over = 0, threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self._most = max(self._most, resident())

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the block."""
        self._most, started, used = resident(), time.perf_counter(), time.process_time()
        yield
        now = resident()
        self.found[name] = {
            "seconds": time.perf_counter() - started,
            "cpu": time.process_time() - used,
            "after": now,
            "most": max(self._most, now),
        }


def resident() -> int:
    """Return the bytes of this process that are in memory and are not pages of files."""
    pages = Path("/proc/self/statm").read_text().split()
    return (int(pages[1]) - int(pages[2])) * resource.getpagesize()


def mapped() -> int:
    """Return the bytes of files that are mapped and in memory, which the system may drop."""
    return int(Path("/proc/self/statm").read_text().split()[2]) * resource.getpagesize()


def config_of(options: argparse.Namespace) -> TrialConfig:
    """Return the config of a trial of a one-layer student on the rows."""
    fixed: dict[str, Any] = {"train_file": options.rows_file, "text_column": "text", "label_column": "label"}
    fixed |= {"label_names": "[]", "train_limit": "null", "validation_limit": "null", "test_fraction": 0.1}
    fixed |= {"validation_fraction": 0.1, "teacher": options.teacher, "teacher_epochs": 0, "student_layers": 1}
    fixed |= {"student_init": "finetuned", "max_steps": options.steps, "evaluations": 1, "epochs": "null"}
    fixed |= {"text_pair_column": "pair"} if options.kind == "pairs" else {}
    fixed |= {"unlabeled_file": options.texts_file} if options.texts_file else {}
    sweep = load_sweep(SWEEP, [f"fixed.{name}={value}" for name, value in fixed.items()])
    point = {name: axis.ends()[0] for name, axis in sweep.search.items()}
    config = resolve(sweep.fields("distilled", point), threads=available_cores())
    return replace(config, alpha=1.0, temperature=1.0, batch_size=32)


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Take every stage in this process; return what each cost, and what stays."""
    config, stages = config_of(options), Stages()
    machine.set_up(int(config.threads))
    begun, materials = resident(), Materials()
    with stages.stage("read, cut, compare"):
        data = materials.data(config)
    with stages.stage("hash of the rows"):
        data.sha256()
    if config.has_unlabeled:
        with stages.stage("read texts without labels"):
            materials.unlabeled(config)
    with stages.stage("tokens"):
        for name in data.splits():
            materials.teacher_tokens(config, name)
        if config.has_unlabeled:
            materials.teacher_tokens(config, "unlabeled")
    materials.teacher(config)
    with stages.stage("teacher's logits"):
        materials.teacher_rows(config)
        materials.test_rows(config)
        rows, validation = materials.rows(config)
    with stages.stage("teacher on rows it has seen"):
        materials.teacher_on_seen_rows(config)
    student, told = materials.student(config), dict[str, Any]()
    with stages.stage("training and evaluation"):
        training, _ = distill(
            student,
            rows,
            validation,
            config,
            on_steps=lambda _: None,
            on_epoch=lambda epoch: bool(told.update(vars(epoch))),
        )
    tokens = sum(len(materials.teacher_tokens(config, name).ids) for name in data.splits())
    return {
        "stages": stages.found,
        "begun": begun,
        "after": resident() - begun,
        "mapped": mapped(),
        "tokens": tokens,
        "train_seconds": told["train_seconds"],
        "evaluate_seconds": told["evaluate_seconds"],
        "sizes": data.sizes(),
        "duplicates": data.duplicates_dropped,
        "steps": training.step,
    }


# Command line --------------------------------------------------------------------------------------------------------


def run_once(options: argparse.Namespace, folder: Path, rows: Path, texts: Path | None) -> dict[str, Any]:
    """Run `measured` in a process of its own, with the cache in `folder`."""
    command = [sys.executable, __file__, "--rows-file", str(rows), "--teacher", options.teacher]
    command += ["--steps", str(options.steps), "--kind", options.kind]
    command += ["--texts-file", str(texts)] if texts else []
    done = subprocess.run(
        command, stdout=subprocess.PIPE, check=True, env={**os.environ, "KDSWEEP_CACHE": str(folder / "cache")}
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def shown(count: int, name: str, found: dict[str, Any]) -> str:
    """Return one process's stages as a table."""
    gib = lambda value: f"{value / 2**30:10.2f}"
    lines = [
        f"{count:,} rows, {name}: {found['tokens']:,} tokens, {found['sizes']}, {found['duplicates']:,} duplicates"
    ]
    lines.append(f"{'':32}{'seconds':>10}{'CPU':>10}{'us a row':>10}{'GiB after':>10}{'GiB most':>10}")
    for stage, cost in found["stages"].items():
        each = f"{cost['seconds']:10.2f}{cost['cpu']:10.2f}{1e6 * cost['cpu'] / count:10.2f}"
        lines.append(f"{stage:32}{each}{gib(cost['after'])}{gib(cost['most'])}")
    lines.append(
        f"{found['steps']} steps {found['train_seconds']:.2f} s, evaluation {found['evaluate_seconds']:.2f} s; before the rows "
        f"{found['begun'] / 2**30:.2f} GiB, of files in memory {found['mapped'] / 2**30:.2f} GiB"
    )
    return "\n".join(lines)


def options_of(described: argparse.ArgumentParser) -> argparse.Namespace:
    """Return what the command line asks for."""
    described.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="numbers of rows")
    described.add_argument("--file", help="where sentences are drawn from (default: the main job's reviews)")
    described.add_argument("--text-column", default="text")
    described.add_argument("--label-column", default="label")
    described.add_argument("--kind", choices=["texts", "pairs"], default="texts", help="one text a row, or two")
    described.add_argument("--unlabeled", action="store_true", help="as many texts without labels too")
    described.add_argument("--teacher", help="a teacher's weights (default: one layer of 32, random)")
    described.add_argument("--steps", type=int, default=100, help="steps of the student's training (default 100)")
    described.add_argument("--rows-file", help=argparse.SUPPRESS)
    described.add_argument("--texts-file", help=argparse.SUPPRESS)
    return described.parse_args()


def main() -> None:
    """Measure each number of rows in processes of their own, and print a table for each."""
    options = options_of(
        argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    )
    if options.rows_file:
        print(json.dumps(measured(options)))
        return
    print(f"{machine.processor()}, {available_cores()} threads", flush=True)
    sentences = sentences_of(options.file, options.text_column, options.label_column)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        if options.teacher is None:
            small_teacher(str(load_sweep(SWEEP).fixed["teacher"]), list(sentences), base / "teacher")
            options.teacher = str(base / "teacher")
        for count in options.rows:
            place = base / str(count)
            (place / "cache").mkdir(parents=True)
            (place / "cache" / "wheels").symlink_to(cache_root() / "wheels")
            rows, texts = place / "rows.jsonl", place / "texts.jsonl" if options.unlabeled else None
            write_rows(sentences, count, rows, options.kind)
            if texts:
                write_rows(sentences, count + 1, texts, options.kind)  # another number draws other texts
            for name in ("first", "second"):
                print(shown(count, name, run_once(options, place, rows, texts)), flush=True)


if __name__ == "__main__":
    main()
