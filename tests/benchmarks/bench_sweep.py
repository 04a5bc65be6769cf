"""Eight identical trials, each side a process of its own, timed from its start to its end: kdsweep against what users would write.

Same rows, teacher, student initial weights (checked by hash), temperatures, alphas, learning rates, batch sizes and epochs. kdsweep's
seconds hold everything that its user waits for: preflight, the teacher's logits, records, offline W&B, students saved, the
report. The peers (`peers.py`) keep no records and save nothing. The teacher is fine-tuned beforehand and is on nobody's bill.

At the end kdsweep searches by itself, the eight trials not given, with its default sampler and pruner and the three known recipes that its shipped
sweeps begin with, until one trial is as good as the best of the careful Trainer's eight (`study.target`): how long each took to have it.
"""

import argparse
import functools
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import yaml

HERE = Path(__file__).parent
SWEEP = HERE.parents[1] / "sweeps" / "clinc150.yaml"
WORKERS = {"ours": "auto", "one": "1", "two": "2", "three": "3", "four": "4"}
"""Our own sides, by `--workers`: `one` trains one trial at a time with all threads, as the peers do."""
SIDES = (*WORKERS, "good", "plain", "textbook")
TRIALS = [
    {"temperature": 1.0, "alpha": 1.0, "learning_rate": 3e-4, "batch_size": 64},
    {"temperature": 2.0, "alpha": 0.5, "learning_rate": 3e-4, "batch_size": 16},
    {"temperature": 4.0, "alpha": 0.9, "learning_rate": 5e-4, "batch_size": 32},
    {"temperature": 8.0, "alpha": 0.75, "learning_rate": 5e-4, "batch_size": 64},
    {"temperature": 4.0, "alpha": 0.5, "learning_rate": 2e-4, "batch_size": 16},
    {"temperature": 2.0, "alpha": 0.25, "learning_rate": 4e-4, "batch_size": 32},
    {"temperature": 3.0, "alpha": 0.9, "learning_rate": 4e-4, "batch_size": 64},
    {"temperature": 1.5, "alpha": 0.1, "learning_rate": 2e-4, "batch_size": 16},
]


class Side(NamedTuple):
    """One process: all its seconds, when each trial ended, counted from its start, and each trial's accuracy."""

    seconds: float
    ends: list[float]
    accuracies: list[float]
    each: list[float]
    """Seconds of each trial, over the number of trials that ran side by side."""

    def seconds_at(self, batch_size: int) -> float:
        """The machine's seconds for a trial of that batch size, the median; nan for none. The first trial is left out: on a peer's side
        it holds the start."""
        sizes = [point["batch_size"] for point in TRIALS[1 : len(self.ends)]]
        found = [seconds for seconds, size in zip(self.each[1:], sizes, strict=True) if size == batch_size]
        return statistics.median(found) if found else math.nan


def prepare(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Write rows, teacher and initial student, all as kdsweep makes them, where `folder` does not have them yet; facts about them."""
    known = folder / "facts.json"
    if not known.exists():
        known.write_text(json.dumps(made(folder, options)))
    facts: dict[str, Any] = json.loads(known.read_text())
    print(f"{facts['text']}, {options.epochs} epochs; seconds from process start to its end\n", flush=True)
    return facts


def made(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The same, anew."""
    from kdsweep.config.sweep_file import load_sweep
    from kdsweep.system.hardware import available_cores
    from kdsweep.training.data.tokens import load_tokenizer
    from kdsweep.training.fast import machine
    from kdsweep.training.models import weights_sha256
    from kdsweep.training.resolve import resolve
    from kdsweep.training.shared import Materials

    fields = {"dataset": None, "dataset_config": None, "validation_split": None, "test_split": None}
    fields |= {"train_file": options.data[0], "validation_file": options.data[1], "label_column": "label"}
    if options.teacher:
        fields |= {"teacher": str(options.teacher.resolve())}
    fields |= {"train_limit": options.rows, "teacher_epochs": options.teacher_epochs, "max_length": 128}
    overrides = [f"fixed.{name}={'null' if value is None else value}" for name, value in fields.items()]
    sweep = load_sweep(SWEEP, overrides)
    config = resolve(sweep.fields("distilled", TRIALS[0]), threads=available_cores())
    machine.set_up(int(config.threads))
    materials = Materials()
    data = materials.data(config)
    for name in ("train", "validation"):
        split = data.split(name)  # type: ignore[arg-type]
        rows = zip(split.texts, split.labels.tolist(), strict=True)
        lines = [json.dumps({"text": text, "label": data.label_names[label]}) for text, label in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    teacher, student = materials.teacher(config), materials.student(config)
    tokenizer = load_tokenizer(config.teacher, None)
    for name, model in (("teacher", teacher.model), ("student", student)):
        model.save_pretrained(folder / name)  # type: ignore[operator]
        tokenizer.save_pretrained(folder / name)
    (folder / "trials.json").write_text(json.dumps(TRIALS))
    last = teacher.epochs[-1].val_accuracy
    text = (
        f"{len(data.train):,} + {len(data.validation):,} rows of {len(data.label_names)} classes; teacher {last:.1%}; "
        f"{config.precision}, {config.threads} threads, {machine.environment(config.device)['hardware']}"
    )
    return {"text": text, "weights": weights_sha256(student), "validation_rows": len(data.validation)}


def sweep_file(folder: Path, name: str, trials: int, epochs: int, **study: Any) -> Path:
    """A sweep over the same space."""
    content = {
        "name": name,
        "study": {"trials": trials, "controls": 0, **study},
        "finalists": {"top": 0},
        "fixed": {
            "train_file": str(folder / "train.jsonl"),
            "validation_file": str(folder / "validation.jsonl"),
            "teacher": str(folder / "teacher"),
            "student": str(folder / "student"),
            "epochs": epochs,
        },
        "search": {
            "temperature": {"low": 1.0, "high": 16.0, "log": True},
            "alpha": {"low": 0.0, "high": 1.0},
            "learning_rate": {"low": 1e-4, "high": 1e-3, "log": True},
            "batch_size": {"choices": [16, 32, 64]},
        },
        "tracking": {"mode": "offline"},
    }
    if name == "search":
        content |= {"enqueue": yaml.safe_load(SWEEP.read_text())["enqueue"]}
    else:  # nor do the peers prune
        content |= {"enqueue": TRIALS[:trials], "study": {"trials": trials, "controls": 0, "pruner": "none", **study}}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def ours(
    folder: Path, trials: int, epochs: int, *, weights: str, name: str, workers: str = "auto", **study: Any
) -> Side:
    """`python -m kdsweep.run`, as its user runs it, nothing in its cache."""
    from kdsweep.records.reading import read_trials

    for left in (f"results/{name}", f"cache of {name}"):  # of a run that was cut off
        shutil.rmtree(folder / left, ignore_errors=True)
    path = sweep_file(folder, name, trials, epochs, **study)
    world = {"KDSWEEP_RESULTS": str(folder / "results"), "KDSWEEP_CACHE": str(folder / f"cache of {name}")}
    began, started = time.time(), time.perf_counter()
    line = [sys.executable, "-m", "kdsweep.run", str(path), "--workers", workers]
    with (folder / "ours.log").open("w") as log:
        subprocess.run(line, check=True, stdout=log, stderr=log, env={**os.environ, **world})
    seconds = time.perf_counter() - started
    rows = [row for row in read_trials(folder / "results" / name, "distilled") if row.result]
    results = [row.result for row in rows if row.result]
    assert {result.initial_weights_sha256 for result in results} == {weights}, "other initial weights than the peers'"
    ends = [(row.folder / "result.json").stat().st_mtime - began for row in rows]
    running = len({(row.folder / "attempts.jsonl").read_text().split('"owner"')[1].split(",")[0] for row in rows})
    each = [result.seconds / running for result in results]
    return Side(seconds, ends, [result.val_accuracy or math.nan for result in results], each)


def search(folder: Path, trials: int, epochs: int, weights: str, good: Side) -> None:
    """Print how long our own search takes to be as good as the careful Trainer's best trial."""
    best = max(good.accuracies)
    mine = ours(folder, trials, epochs, weights=weights, name="search", target=best)
    reached = max(mine.accuracies) >= best
    print(
        f"\nsearch: the good Trainer's best trial has {best:.1%}, known after {good.seconds:.1f} s (all {len(good.ends)} trials; the "
        f"trial itself ended after {good.ends[good.accuracies.index(best)]:.1f} s)\n"
        f"  ours, sampled and pruned by itself: {max(mine.accuracies):.1%} after {len(mine.ends)} trials, {mine.seconds:.1f} s with the report: "
        + (f"{good.seconds / mine.seconds:.2f} times as fast" if reached else "NOT reached")
    )


def peer(side: str, folder: Path, trials: int, epochs: int) -> Side:
    """`peers.py`, whole."""
    started = time.perf_counter()
    line = [sys.executable, str(HERE / "peers.py"), side, str(folder), "--trials", str(trials), "--epochs", str(epochs)]
    accuracies, ends = [], []
    with (folder / f"{side}.log").open("w") as log:
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=log, text=True) as process:
            assert process.stdout is not None
            for told in process.stdout:
                if told.startswith('{"accuracy"'):
                    accuracies.append(json.loads(told)["accuracy"])
                    ends.append(time.perf_counter() - started)
        if process.returncode:
            raise SystemExit(f"{side} failed: {(folder / f'{side}.log').read_text()[-2000:]}")
    told_each = len(ends) // trials  # Trainer tells every epoch's accuracy, the textbook's loop the last one's
    ends = ends[told_each - 1 :: told_each]
    each = [end - before for before, end in zip([0.0, *ends], ends, strict=False)]
    return Side(time.perf_counter() - started, ends, accuracies[told_each - 1 :: told_each], each)


def compare(options: argparse.Namespace, folder: Path) -> None:
    """Run every side that `folder` does not have yet, and print a table."""
    facts = prepare(folder, options)
    sides: dict[str, Side] = {}
    print(
        "side      trials   seconds   first trial ended   a trial of batch 64 / 32 / 16   accuracy   ours is faster by"
    )
    for name in options.sides:
        trials = options.trials if name in (*WORKERS, "good") else min(options.trials, options.few)
        run = functools.partial(peer, name)
        if name in WORKERS:
            run = functools.partial(ours, weights=facts["weights"], name=f"bench-{name}", workers=WORKERS[name])
        kept = folder / f"{name}, {trials} trials of {options.epochs} epochs.json"
        if not kept.exists():
            kept.write_text(json.dumps(run(folder, trials, options.epochs)))
        sides[name] = side = Side(*json.loads(kept.read_text()))
        base = sides.get("ours")
        ratio = ratio_text(side, base) if base and name != "ours" else ""
        sizes = " / ".join(f"{side.seconds_at(size):.1f}" for size in (64, 32, 16))
        print(
            f"{name:<9} {trials:6} {side.seconds:9.1f} {min(side.ends):19.1f} {sizes:>31} "
            f"{statistics.fmean(side.accuracies):10.1%}   {ratio}",
            flush=True,
        )
    if "ours" in sides:
        print_accuracies(sides, facts["validation_rows"])
    if "good" in sides and options.search:
        search(folder, options.trials, options.epochs, facts["weights"], sides["good"])


def ratio_text(side: Side, base: Side) -> str:
    """Whole processes where both ran the same trials; else until the same trial had ended. Then trials of one batch size."""
    last = len(side.ends)
    whole = side.seconds / base.seconds if last == len(base.ends) else side.ends[-1] / max(base.ends[:last])
    each = [(size, side.seconds_at(size) / base.seconds_at(size)) for size in (64, 32, 16)]
    told = ", ".join(f"batch {size} {ratio:.2f}" for size, ratio in each if not math.isnan(ratio))
    return f"{whole:.2f} ({told})"


def print_accuracies(sides: dict[str, Side], rows: int) -> None:
    """Each trial's accuracy on every side, and whether the means are within one standard error."""
    print("\naccuracy of each trial")
    for name, side in sides.items():
        print(f"  {name:<9}" + " ".join(f"{100 * accuracy:6.2f}" for accuracy in side.accuracies))
    for name, side in sides.items():
        if name == "ours":
            continue
        count = len(side.accuracies)
        mine, other = (statistics.fmean(each.accuracies[:count]) for each in (sides["ours"], side))
        error = math.sqrt(other * (1 - other) / rows)
        apart = mine - other
        print(
            f"  ours - {name}: {100 * apart:+.2f} points over {count} trials, "
            f"{'within' if abs(apart) <= error else 'NOT within'} one standard error of {rows} rows ({100 * error:.2f})"
        )


def main() -> None:
    """Compare."""
    described = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python tests/benchmarks/bench_sweep.py train.jsonl.gz validation.jsonl.gz --rows 20000 --epochs 1",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = described.add_argument
    add("data", nargs=2, metavar="PATH", help="training and validation rows, columns text and label")
    add("--rows", type=int, help="training rows, drawn at random, stratified by class (default all)")
    add("--epochs", type=int, default=2, help="passes over the rows (default 2)")
    add("--trials", type=int, default=len(TRIALS), help=f"of ours and the good Trainer (default {len(TRIALS)})")
    add(
        "--few",
        type=int,
        default=4,
        help="trials of the two slow peers (default 4: each batch size at least once beyond the first)",
    )
    add(
        "--sides",
        nargs="+",
        choices=SIDES,
        default=["ours", "good", "plain", "textbook"],
        help="default ours and the peers",
    )
    add("--no-search", dest="search", action="store_false", help="leave out the search at the end")
    add("--folder", type=Path, help="keep rows, models and what each side gave there, and run only what it lacks")
    add("--teacher", type=Path, help="a pretrained BERT to fine-tune (default the shipped sweep's)")
    add("--teacher-epochs", type=int, default=3, help="of its fine-tuning, beforehand (default 3)")
    options = described.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        compare(options, folder.resolve())


if __name__ == "__main__":
    main()
