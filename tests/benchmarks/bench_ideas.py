"""What an idea is worth on your rows: several recipes with one thing changed, against the same recipes as they are, on the same seeds.

Every recipe is trained on a fresh seed, with and without the idea (same head, same order of rows), and judged on the test rows. The interval
of 95 % counts rows and recipes as random. Results are kept line by line in a file, so that the same command continues after Ctrl-C.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from kdsweep.analysis.two_arms import FinalComparison, compare_finalists
from kdsweep.config.lengths import length_of, lengthened
from kdsweep.config.roles import Role
from kdsweep.config.shipped_sweeps import find_sweep
from kdsweep.config.sweep_file import load_sweep
from kdsweep.config.trial import TrialConfig
from kdsweep.config.trial_fields import decided_by
from kdsweep.system.hardware import available_cores
from kdsweep.training.evaluation import evaluate
from kdsweep.training.fast import machine
from kdsweep.training.loop import distill
from kdsweep.training.resolve import resolve
from kdsweep.training.shared import Materials

SEED = 1_000
"""Seed of the first recipe; that of the next is one more."""

RECIPES: tuple[Mapping[str, Any], ...] = (
    {"temperature": 1.0, "alpha": 1.0, "learning_rate": 4e-4},
    {"temperature": 1.0, "alpha": 0.5, "learning_rate": 3e-4},
    {"temperature": 2.0, "alpha": 1.0, "learning_rate": 3e-4},
    {"temperature": 2.0, "alpha": 0.8, "learning_rate": 5e-4},
    {"temperature": 2.5, "alpha": 0.2, "learning_rate": 4e-4},
    {"temperature": 4.0, "alpha": 0.9, "learning_rate": 3e-4},
    {"temperature": 4.0, "alpha": 0.2, "learning_rate": 5e-4},
    {"temperature": 3.0, "alpha": 0.5, "learning_rate": 4e-4},
)

KL, FINE_TUNED = "KL alone", "fine-tuned"

IDEAS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    FINE_TUNED: ("", {"alpha": 0.0, "temperature": 1.0}),
    KL: (FINE_TUNED, {}),
    "relations, weight 0.1": (KL, {"relation_weight": 0.1}),
    "relations, weight 1": (KL, {"relation_weight": 1.0}),
    "teacher_folds 5": (KL, {"teacher_folds": 5}),
    "teacher of the lowest loss": (KL, {"teacher_keep": "lowest_loss"}),
    "T from 8 to 1": (KL, {"temperature": 8.0, "temperature_end": 1.0}),
    "alpha from 1 to 0": (KL, {"alpha": 1.0, "alpha_end": 0.0}),
    "mse in place of KL": (KL, {"soft_loss": "mse"}),
    "label smoothing 0.1": (KL, {"label_smoothing": 0.1}),
    "three times as long": (KL, {"length": 3}),
    "fine-tuned, label smoothing 0.1": (FINE_TUNED, {"alpha": 0.0, "temperature": 1.0, "label_smoothing": 0.1}),
    "fine-tuned, three times as long": (FINE_TUNED, {"alpha": 0.0, "temperature": 1.0, "length": 3}),
}
"""Each idea: with what it is compared, and what it changes; `length` multiplies the epochs, or the steps."""


def config_of(base: TrialConfig, idea: str, recipe: int) -> TrialConfig:
    """The config of an idea's run with one recipe."""
    changes = {**RECIPES[recipe], **IDEAS[idea][1], "seed": SEED + recipe}
    length = changes.pop("length", 1)
    return lengthened(replace(base, **changes), length)


_MATERIALS = Materials()


def run(base: TrialConfig, idea: str, recipe: int) -> dict[str, Any]:
    """Train and test one; which test rows are right is kept as bits."""
    config = config_of(base, idea, recipe)
    machine.set_up(int(config.threads))
    rows, validation = _MATERIALS.rows(config)
    student, test = _MATERIALS.student(config), _MATERIALS.test_rows(config)
    if test is None:
        raise SystemExit("ideas are judged on test rows: name test_file, test_split or test_fraction under fixed")
    online = _MATERIALS.online_teacher(config) if config.relation_weight else None
    started = time.perf_counter()
    distill(student, rows, validation, config, teacher=online, on_steps=lambda _: None, on_epoch=lambda _: False)
    seconds = time.perf_counter() - started
    right = (evaluate(student, test).logits.argmax(dim=1).cpu() == test.labels.cpu()).numpy()
    taught = (test.teacher_logits.argmax(dim=1) == test.labels).float().mean().item()
    return {
        "layers": config.student_layers,
        "idea": idea,
        "recipe": recipe,
        "length": length_of(config),
        "accuracy": float(right.mean()),
        "teacher": taught,
        "seconds": round(seconds, 2),
        "rows": len(right),
        "right": np.packbits(right).tobytes().hex(),
    }


def right_of(done: Mapping[tuple[Any, ...], Mapping[str, Any]], layers: Any, idea: str, recipes: int) -> np.ndarray:
    """Which test rows an idea's runs predict right, float [recipes, rows]."""
    lines = [done[str(layers), idea, recipe] for recipe in range(recipes)]
    bits = [
        np.unpackbits(np.frombuffer(bytes.fromhex(line["right"]), dtype=np.uint8))[: line["rows"]] for line in lines
    ]
    return np.stack(bits).astype(np.float64)


def gain(one: np.ndarray, other: np.ndarray) -> FinalComparison:
    """The mean difference of pairs of runs, rows and recipes random."""
    return compare_finalists(one - other, np.zeros((1, one.shape[1])), given_baseline=True)


def table(done: Mapping[tuple[Any, ...], Mapping[str, Any]], layers: Any, recipes: int) -> Iterator[str]:
    """The lines of one student's table."""
    first = next(iter(done.values()))
    yield f"\nstudent_layers {layers}: {recipes} recipes, {first['rows']} test rows, teacher {100 * first['teacher']:.1f} %\n"
    yield "| idea | test accuracy | against | points (95 % interval) | seconds a run |"
    yield "|---|---|---|---|---|"
    for idea, (against, _) in IDEAS.items():
        if any((str(layers), idea, recipe) not in done for recipe in range(recipes)):
            continue
        right = right_of(done, layers, idea, recipes)
        seconds = np.median([done[str(layers), idea, recipe]["seconds"] for recipe in range(recipes)])
        cells = [idea, f"{100 * right.mean():.2f} %", against, "", f"{seconds:.1f}"]
        if against and all((str(layers), against, recipe) in done for recipe in range(recipes)):
            found = gain(right, right_of(done, layers, against, recipes))
            cells[3] = f"{100 * found.difference:+.2f} ({100 * found.low:+.2f} to {100 * found.high:+.2f})"
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    """Run what the file lacks, then print the tables."""
    described = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python tests/benchmarks/bench_ideas.py sweeps/T_alpha.yaml --layers 2 --layers 3 --out ideas.jsonl",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = described.add_argument
    add("sweep", help="a sweep file or name, whose `fixed` describes rows and teacher")
    add("overrides", nargs="*", help="key=value, as for kdsweep run")
    add("--layers", type=int, action="append", help="student_layers; may be given again (default: the sweep's)")
    add("--idea", action="append", choices=list(IDEAS), help="may be given again (default: all)")
    add("--recipes", type=int, default=len(RECIPES), help=f"how many of the {len(RECIPES)} recipes (default all)")
    add("--workers", type=int, default=2, help="processes (default 2)")
    add("--out", type=Path, default=Path("ideas.jsonl"), help="where results are kept (default ideas.jsonl)")
    options = described.parse_args()
    sweep = load_sweep(find_sweep(Path(options.sweep)), options.overrides)
    base = resolve(sweep.fixed, threads=max(1, available_cores() // options.workers))
    lines = options.out.read_text(encoding="utf-8").splitlines() if options.out.exists() else []
    done = {(str(line["layers"]), line["idea"], line["recipe"]): line for line in map(json.loads, lines)}
    jobs = [
        (replace(base, student_layers=layers), idea, recipe)
        for recipe in range(options.recipes)
        for layers in options.layers or [base.student_layers]
        for idea in options.idea or IDEAS
        if (str(layers), idea, recipe) not in done
    ]
    teachers = {tuple(getattr(config, name) for name in decided_by(Role.TEACHER)): config for config in _configs(jobs)}
    for config in teachers.values():
        started = time.perf_counter()
        _MATERIALS.rows(config), _MATERIALS.test_rows(config)
        what = f"teacher_folds {config.teacher_folds}, teacher_keep {config.teacher_keep}"
        print(f"{what}: ready after {time.perf_counter() - started:.1f} s", flush=True)
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool, options.out.open("a") as kept:
        for future in as_completed([pool.submit(run, *job) for job in jobs]):
            line = future.result()
            done[str(line["layers"]), line["idea"], line["recipe"]] = line
            print(json.dumps(line), file=kept, flush=True)
            print(
                f"{line['layers']} {line['idea']} {line['recipe']}: {line['accuracy']:.4f}, {line['seconds']} s",
                flush=True,
            )
    for layers in options.layers or [base.student_layers]:
        print("\n".join(table(done, layers, options.recipes)))


def _configs(jobs: list[tuple[TrialConfig, str, int]]) -> list[TrialConfig]:
    return [config_of(base, idea, recipe) for base, idea, recipe in jobs]


if __name__ == "__main__":
    main()
