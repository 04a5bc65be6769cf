"""Which sampler finds the better student from as few trials: searches replayed on recorded trials of CLINC150 and SST-2.

A surrogate of each table of `record_trials.py` says what a configuration is worth, and a trial's score is that with the recorded noise. The
proposals are those of kdsweep's own sampler, which sees as with two workers (`study.lag: 2`). Told is the CONFIRMED accuracy: of the 3 best
by score, the one that is best on a fresh seed, at its true value. Every seed draws the search and the noise anew. No trial is pruned.

  recipes     the three known recipes of sweeps/T_alpha.yaml are tried first
  warm        then the five best configurations of the OTHER data set's table (study.warm_start)
  prior       in place of these, five random points between the ends of the other data set's best tenth, on every axis
  prior lr    the same, on the axis of the learning rate alone

Results are kept line by line in a file, so that the same command continues after Ctrl-C; --minutes ends it in between.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from surrogate import AXES, Noise, Point, Recorded, Surrogate, fit, held_out, noise_of, read, surrogate_of, unit

from kdsweep.config.sweep import StudyConfig
from kdsweep.search import space
from kdsweep.search.sampler import SlotSampler

HERE = Path(__file__).parent
DATASETS = ("clinc150", "sst2")
OTHER = {"clinc150": "sst2", "sst2": "clinc150"}
SAMPLERS, HEADS = ("tpe", "gp", "random"), ("recipes", "nothing", "warm", "recipes, warm", "prior", "prior lr")
TRIALS, TOLD, SHRUNK = 50, (5, 10, 20, 50), (10, 20, 50)
TOP = 3
"""Finalists, each with one fresh seed."""
TODAY = ("tpe", "recipes")
AIM_AT = 20
"""Trials of today's default whose accuracy the others are to reach."""
RECIPES: tuple[Point, ...] = (
    {"alpha": 1.0, "temperature": 1.0},
    {"alpha": 0.5, "temperature": 2.0},
    {"alpha": 0.9, "temperature": 4.0},
)


@dataclass(frozen=True, kw_only=True)
class World:
    """A data set to search on, and what is known of another one."""

    surrogate: Surrogate
    noise: Noise
    warm: tuple[Point, ...]
    """The best distinct configurations of the other data set."""
    ends: dict[str, tuple[Any, Any]]
    """The lowest and the highest value of each axis among its best tenth."""


def world(mine: Recorded, other: Recorded) -> World:
    """The world of `mine` for somebody who has `other`."""
    best_first = [other.points[index] for index in np.argsort(-other.validation)]
    distinct = list({tuple(point[name] for name in AXES): point for point in reversed(best_first)}.values())[::-1]
    tenth = distinct[: max(5, len(distinct) // 10)]
    ends = {name: (min(point[name] for point in tenth), max(point[name] for point in tenth)) for name in AXES}
    warm = tuple({name: point[name] for name in AXES} for point in distinct[: StudyConfig().startup_trials])
    return World(surrogate=surrogate_of(mine), noise=noise_of(mine), warm=warm, ends=ends)


def head(name: str, here: World, seed: int) -> list[Point]:
    """What a search tries first."""
    recipes = list(RECIPES) if "recipes" in name else []
    if "warm" in name:
        return recipes + list(here.warm)
    if "prior" not in name:
        return recipes
    draw, names = np.random.default_rng(seed), ["learning_rate"] if name == "prior lr" else list(AXES)
    return [
        {name: _between(draw, name, *here.ends[name]) for name in names} for _ in range(StudyConfig().startup_trials)
    ]


def _between(draw: np.random.Generator, name: str, low: Any, high: Any) -> Any:
    axis = AXES[name]
    if axis.choices:
        return int(draw.choice([choice for choice in axis.choices if low <= choice <= high]))
    return float(low * (high / low) ** draw.random()) if axis.log else float(draw.uniform(low, high))


def replay(here: World, sampler: str, first: str, seed: int, trials: int = TRIALS) -> dict[str, list[float]]:
    """Search once; the confirmed accuracy by the number of trials, finalists chosen by score and by a shrunk score."""
    settings = StudyConfig(sampler=sampler, seed=seed)  # type: ignore[arg-type]
    study = optuna.create_study(direction="maximize", sampler=SlotSampler(settings, arm_index=0))
    for point in head(first, here, seed):
        study.enqueue_trial(point)
    draw = np.random.default_rng(seed)
    seeds, rows, flips, fresh = draw.standard_normal((4, trials))
    always = here.noise.rows * rows
    points, truths, scores = list[Point](), list[float](), list[float]()
    for number in range(trials):
        trial = study.ask()
        points.append({name: space.suggest(trial, name, axis) for name, axis in AXES.items()})
        truths.append(float(here.surrogate.accuracy(points[-1:])[0]))
        own = here.noise.seed * seeds[number] + here.noise.flips * flips[number]
        scores.append(truths[-1] + always[number] + own)
        study.tell(trial, scores[-1])
    again = np.array(truths) + always + np.hypot(here.noise.seed, here.noise.flips) * fresh
    raw = [confirmed(scores[:count], truths, again) for count in range(1, trials + 1)]
    shrunk = [confirmed(shrink(points[:n], scores[:n]), truths, again) for n in SHRUNK if n <= trials]
    return {"raw": raw, "shrunk": shrunk}


def confirmed(scores: Sequence[float], truths: Sequence[float], again: np.ndarray) -> float:
    """The true accuracy of the configuration that is best on a fresh seed, among the best by `scores`."""
    finalists = np.argsort(-np.asarray(scores), kind="stable")[:TOP]
    return truths[finalists[np.argmax(again[finalists])]]


def shrink(points: list[Point], scores: list[float]) -> list[float]:
    """The scores as a Gaussian process of all of them sees them: nearer to what neighbours scored."""
    places = unit(points)
    return [float(value) for value in fit(places, np.array(scores)).at(places)]


Key = tuple[str, str, str, int]


def kept(out: Path) -> dict[Key, dict[str, list[float]]]:
    """The searches that a file holds."""
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] if out.exists() else []
    return {(line["dataset"], line["sampler"], line["first"], line["seed"]): line for line in lines}


def search(worlds: dict[str, World], wanted: list[Key], out: Path, minutes: float, trials: int) -> None:
    """Run the searches that the file lacks, for at most so many minutes."""
    done, started = kept(out), time.monotonic()
    with out.open("a", encoding="utf-8") as lines:
        for key in wanted:
            if key in done:
                continue
            if time.monotonic() - started > 60 * minutes:
                print("more to do: the same command continues")
                return
            dataset, sampler, first, seed = key
            found = replay(worlds[dataset], sampler, first, seed, trials)
            said = {"dataset": dataset, "sampler": sampler, "first": first, "seed": seed}
            rounded = {name: [round(value, 6) for value in values] for name, values in found.items()}
            print(json.dumps(said | rounded), file=lines, flush=True)


def told(values: np.ndarray) -> str:
    """A mean in points with the half width of its interval of 95 %."""
    half = 196 * values.std(ddof=1) / len(values) ** 0.5
    return f"{100 * values.mean():+.2f} ± {half:.2f}"


def tables(done: dict[Key, dict[str, list[float]]], dataset: str) -> Iterator[str]:
    """A data set's lines: accuracy, and the difference from today's default on the same seeds; finalists by a shrunk score."""
    curves: dict[tuple[str, str], dict[int, list[float]]] = {}
    for (where, sampler, first, seed), found in done.items():
        if where == dataset:
            curves.setdefault((sampler, first), {})[seed] = found["raw"]
    today = curves.get(TODAY, {})
    if not today:
        return
    aim = np.mean([curve[AIM_AT - 1] for curve in today.values()])
    yield f"\n{dataset}: {100 * aim:.2f} % after {AIM_AT} trials of today's default, {', '.join(TODAY)}\n"
    yield (
        "| sampler | first | seeds | "
        + " | ".join(f"{n} trials" for n in TOLD)
        + f" | trials to the default's {AIM_AT} |"
    )
    yield "|---|---|---|" + "---|" * (len(TOLD) + 1)
    for (sampler, first), runs in sorted(curves.items(), key=lambda each: each[0] != TODAY):
        shared = sorted(set(runs) & set(today))
        if len(shared) < 2:
            continue
        length = min(len(curve[seed]) for curve in (runs, today) for seed in shared)
        mine, theirs = (np.array([curve[seed][:length] for seed in shared]) for curve in (runs, today))
        cells = [_cell(mine[:, :n], theirs[:, :n], (sampler, first) == TODAY) if n <= length else "" for n in TOLD]
        reached = np.flatnonzero(mine.mean(axis=0) >= theirs[:, AIM_AT - 1].mean())
        trials = str(reached[0] + 1) if len(reached) else f"> {length}"
        yield "| " + " | ".join([sampler, first, str(len(shared)), *cells, trials]) + " |"
    gains = [
        [
            found["shrunk"][place] - found["raw"][n - 1]
            for (where, *_), found in done.items()
            if where == dataset and n <= len(found["raw"])
        ]
        for place, n in enumerate(SHRUNK)
    ]
    yield "\nfinalists by a shrunk score in place of the score, all searches: " + ", ".join(
        f"{told(np.array(gain))} after {n}" for n, gain in zip(SHRUNK, gains, strict=True) if len(gain) > 1
    )


def _cell(mine: np.ndarray, theirs: np.ndarray, is_today: bool) -> str:
    return f"{100 * mine[:, -1].mean():.2f} %" if is_today else told(mine[:, -1] - theirs[:, -1])


def table_of(folder: Path, dataset: str) -> Path:
    """The table of a data set."""
    table = folder / f"trials_{dataset}.csv"
    if not table.exists():
        command = f"python tests/benchmarks/record_trials.py {dataset} --data FOLDER --out {table}"
        raise SystemExit(f"a table of recorded trials must be there, but got no {table}; {command} makes it")
    return table


def describe(dataset: str, found: Recorded, here: World) -> str:
    """A table, its surrogate's error and its noise, in a line."""
    guessed, true = np.array(list(held_out(found))).T
    error, spread = (100 * float(np.sqrt(np.mean((true - other) ** 2))) for other in (guessed, true.mean()))
    best = float(here.surrogate.accuracy(found.points).max())
    parts = ", ".join(f"{name} {100 * getattr(here.noise, name):.2f}" for name in ("seed", "rows", "flips", "whole"))
    return (
        f"{dataset}: {len(found.points)} trials, {100 * found.pooled.min():.1f} to {100 * found.pooled.max():.1f} %; the surrogate errs by "
        f"{error:.2f} points on configurations that it has not seen (their spread: {spread:.2f}), its best is {100 * best:.1f} %; "
        f"noise of a trial in points: {parts}"
    )


def main() -> None:
    """Run what the file lacks, then print the tables."""
    described = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = described.add_argument
    add("--dataset", action="append", choices=DATASETS, help="may be given again (default: both)")
    add("--sampler", action="append", choices=SAMPLERS, help="may be given again (default: all)")
    add("--first", action="append", choices=HEADS, help="may be given again (default: all)")
    add("--seeds", type=int, default=200, help="searches of each kind (default 200; gp takes seconds for each)")
    add("--trials", type=int, default=TRIALS, help="of each search (default 50; 20 of gp take a quarter of the time)")
    add("--quick", action="store_true", help="5 searches of each kind by tpe and random, in a minute")
    add("--minutes", type=float, default=1e9, help="stop after so many; the same command continues")
    add(
        "--tables",
        type=Path,
        default=HERE,
        help="folder with trials_clinc150.csv and trials_sst2.csv (default this one)",
    )
    add("--out", type=Path, default=Path("search.jsonl"), help="where results are kept (default search.jsonl)")
    options = described.parse_args()
    if options.trials < AIM_AT:
        described.error(f"--trials must be {AIM_AT} or more, which all are compared with, but got {options.trials}")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    tabled = {name: read(table_of(options.tables, name)) for name in DATASETS}
    worlds = {name: world(tabled[name], tabled[OTHER[name]]) for name in DATASETS}
    chosen = options.dataset or DATASETS
    for name in chosen:
        print(describe(name, tabled[name], worlds[name]), flush=True)
    samplers = options.sampler or (("tpe", "random") if options.quick else SAMPLERS)
    seeds = range(5 if options.quick else options.seeds)
    wanted = [
        (name, sampler, first, seed)
        for seed in seeds
        for name in chosen
        for sampler in samplers
        for first in options.first or HEADS
    ]
    search(worlds, wanted, options.out, options.minutes, options.trials)
    for name in chosen:
        print("\n".join(tables(kept(options.out), name)))


if __name__ == "__main__":
    main()
