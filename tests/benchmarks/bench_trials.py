"""A study of thousands of trials: what taking, telling, resuming and reporting cost at each size, with nothing trained.

    python tests/benchmarks/bench_trials.py                                       500 to 10,000 trials, SQLite
    python tests/benchmarks/bench_trials.py --storage postgresql+psycopg:///bench --sizes 10000
    python tests/benchmarks/bench_trials.py --sizes 500 1000 --gp-up-to 1000
    python tests/benchmarks/bench_trials.py --keep FOLDER                         leaves the results folder of the largest size there

One sweep over four axes grows from size to size: its study holds the finished trials with the records that workers store there, its
results folder their files, with 60 steps and 200 predictions each. All of the trials are distilled but a tenth, which are fine-tuned.
Printed are, for each size, CPU seconds (user and system) and the most memory of a process of its own for whatever a user waits for.
"""

import argparse
import dataclasses
import json
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import sqlalchemy
from optuna.trial import TrialState

from kdsweep.config.arms import PRIMARY, Arm
from kdsweep.config.sweep import FinalistsConfig, StudyConfig, SweepConfig, TrackingConfig
from kdsweep.config.trial_file import trial_yaml
from kdsweep.records.layout import TrialId, trial_folder
from kdsweep.records.reading import packed_trial, read_trial
from kdsweep.records.schema import StepMetrics, TrialResult
from kdsweep.records.writing import write_sweep
from kdsweep.search import attributes, space
from kdsweep.search.sampler import SlotSampler
from kdsweep.search.studies import Studies

sys.path.insert(0, str(Path(__file__).parents[1]))
from makers import AXES, POINT, make_teacher, row_of  # noqa: E402

SIZES = (500, 1000, 2000, 5000, 10000)
STEPS = 60
ROWS = 200
TIMED = 5
ATTEMPT = {"attempt": 1, "owner": "host-1-aa", "from_step": 0, "steps_again": 0, "started_at": "2026-01-01"}
CONTROLS = 10
"""One trial in so many is fine-tuned."""


def sweep_of(name: str, storage: str | None, sampler: Any = "tpe") -> SweepConfig:
    """A sweep with room for every size."""
    fixed = {"train_file": "reviews.csv", "teacher": "bert", "teacher_epochs": 2, "epochs": 3}
    study = StudyConfig(trials=10**6, controls=10**5, storage=storage, sampler=sampler, pruner="median")
    off = {"finalists": FinalistsConfig(top=0), "tracking": TrackingConfig(mode="off")}
    return SweepConfig(name=name, fixed=fixed, search=AXES, study=study, **off)  # type: ignore[arg-type]


def arm_of(place: int) -> tuple[Arm, int]:
    """The arm and the number in it of the trial that is made as the `place`th."""
    if place % CONTROLS == CONTROLS - 1:
        return PRIMARY[1], place // CONTROLS
    return PRIMARY[0], place - place // CONTROLS


# Records and study, made without training ----------------------------------------------------------------------------


def make_records(folder: Path, sweep: SweepConfig, places: range) -> None:
    """Write the folders of these trials, as a worker leaves them, but in a tenth of the time: texts are made once and edited."""
    steps, template = steps_text(), trial_yaml(sweep.trial("distilled", POINT))
    for place in places:
        arm, number = arm_of(place)
        rng = np.random.default_rng(place)
        params = {"temperature": float(16 ** rng.random()), "alpha": float(rng.random())}
        params |= {"learning_rate": float(10 ** rng.uniform(-5, -3)), "batch_size": (32, 64)[place % 2]}
        peak = np.log10(params["learning_rate"]) + 4
        right = rng.random(ROWS) < 0.85 - 0.1 * peak**2 + 0.02 * rng.standard_normal()
        row = row_of(sweep, arm, number, params, float(right.mean()), folder)
        assert row.result is not None
        row.folder.mkdir(parents=True)
        text = template
        for name in AXES:
            text = re.sub(rf"^{name}: .*$", f"{name}: {getattr(row.config, name)!r}", text, flags=re.MULTILINE)
        (row.folder / "config.yaml").write_text(text, encoding="utf-8")
        config = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(row.config).items()}
        result = json.dumps(vars(dataclasses.replace(row.result, config=config)))
        (row.folder / "result.json").write_text(result, encoding="utf-8")
        lines = (json.dumps(vars(epoch)) for epoch in row.epochs)
        (row.folder / "epochs.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        (row.folder / "attempts.jsonl").write_text(json.dumps(ATTEMPT) + "\n", encoding="utf-8")
        (row.folder / "steps.jsonl").write_text(steps, encoding="utf-8")
        np.save(row.folder / "predictions.npy", right.astype(np.int64))


def steps_text() -> str:
    """The steps.jsonl of a trial."""
    rates = [1e-4 * step / STEPS for step in range(1, STEPS + 1)]
    losses = np.random.default_rng(0).random((STEPS, 3)).tolist()
    steps = [
        StepMetrics(
            step=step, epoch=1 + 3 * (step - 1) // STEPS, L_soft=soft, L_hard=hard, L_total=total, learning_rate=rate
        )
        for step, ((soft, hard, total), rate) in enumerate(zip(losses, rates, strict=True), start=1)
    ]
    return "".join(json.dumps(vars(step)) + "\n" for step in steps)


def fill_study(studies: Studies, folder: Path, sweep: SweepConfig, places: range) -> None:
    """Store these trials in the sweep's studies as finished ones, by Optuna's own tables: its calls take milliseconds a trial."""
    from optuna.storages._rdb import models

    rdb = studies._storage.rdb
    with rdb.engine.begin() as connection:
        first = connection.execute(sqlalchemy.select(sqlalchemy.func.max(models.TrialModel.trial_id))).scalar() or 0
        tables: dict[Any, list[dict[str, Any]]] = {}
        for trial_id, place in enumerate(places, start=first + 1):
            arm, number = arm_of(place)
            for table, row in _rows(models, studies, folder, sweep, TrialId(arm, number), trial_id):
                tables.setdefault(table, []).append(row)
        for table, rows in tables.items():
            connection.execute(sqlalchemy.insert(table), rows)
        if connection.dialect.name == "postgresql":  # ids were given by hand
            name = "pg_get_serial_sequence('trials', 'trial_id')"
            connection.exec_driver_sql(f"SELECT setval({name}, (SELECT max(trial_id) FROM trials))")


def _rows(
    models: Any, studies: Studies, folder: Path, sweep: SweepConfig, id_: TrialId, trial_id: int
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield the rows of every table that hold one finished trial."""
    path = trial_folder(folder, id_)
    row, record = read_trial(path), packed_trial(path)
    assert isinstance(row.result, TrialResult) and row.result.val_accuracy is not None
    study_id, now = studies._studies[id_.arm]._study_id, datetime.now()
    times = {"datetime_start": now, "datetime_complete": now}
    yield (
        models.TrialModel,
        {
            "trial_id": trial_id,
            "number": id_.number,
            "study_id": study_id,
            "state": TrialState.COMPLETE,
            **times,
        },
    )
    value = {"value": row.result.val_accuracy, "value_type": models.TrialValueModel.TrialValueType.FINITE}
    yield models.TrialValueModel, {"trial_id": trial_id, "objective": 0, **value}
    for name, axis in sweep.axes(id_.arm).items():
        sampled = space.distribution(name, axis)
        stored = {"param_name": name, "param_value": sampled.to_internal_repr(space.encode(getattr(row.config, name)))}
        text = optuna.distributions.distribution_to_json(sampled)
        yield models.TrialParamModel, {"trial_id": trial_id, **stored, "distribution_json": text}
    for key, kept in {attributes.ATTEMPT: 1, attributes.OWNER: "host-1-aa", attributes.RECORD: record}.items():
        yield models.TrialUserAttributeModel, {"trial_id": trial_id, "key": key, "value_json": json.dumps(kept)}
    for epoch in row.epochs:
        finite = models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE
        between = {"intermediate_value": epoch.val_accuracy, "intermediate_value_type": finite}
        yield models.TrialIntermediateValueModel, {"trial_id": trial_id, "step": epoch.epoch, **between}


# Each thing that a user waits for, in a process of its own -------------------------------------------------------------


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of an action, and its result."""
    before = time.process_time()
    found = action()
    return time.process_time() - before, found


def measure_resume(folder: Path, sweep: SweepConfig) -> dict[str, float]:
    """From an open Python to the first trial taken: what a worker does with its study, then one look of the supervisor."""
    opened, studies = timed(lambda: Studies(sweep, folder, "bench"))
    took, assignment = timed(studies.take)
    looked, _ = timed(lambda: (studies.is_open(), studies.is_done(), studies.finished("distilled")))
    studies.put_back(assignment)
    return {"resume: study opened": opened, "resume: first take": took, "a look": looked}


def measure_takes(folder: Path, sweep: SweepConfig, sampler: str) -> dict[str, float]:
    """Medians of taking a trial and telling its end, once everything is read."""
    studies = Studies(sweep, folder, "bench")
    for place, arm in enumerate(PRIMARY):
        settings = dataclasses.replace(sweep.study, sampler=sampler)  # type: ignore[arg-type]
        studies._studies[arm].sampler = SlotSampler(settings, place)
    studies.put_back(_taken(studies))
    record = packed_trial(trial_folder(folder, TrialId("distilled", 0)))
    result = read_trial(trial_folder(folder, TrialId("distilled", 0))).result
    assert result is not None
    takes, tells = [], []
    for _ in range(TIMED):
        took, assignment = timed(lambda: _taken(studies))
        for epoch in (1, 2, 3):
            assignment.report(0.8, epoch)
            assignment.should_prune()
        told, _ = timed(lambda: studies.finish(assignment, result, record))  # noqa: B023
        takes, tells = [*takes, took], [*tells, told]
    return {f"take ({sampler})": statistics.median(takes), f"tell ({sampler})": statistics.median(tells)}


def _taken(studies: Studies) -> Any:
    taken = studies.take_from("distilled")
    assert taken is not None
    return taken


def measure_report(folder: Path, sweep: SweepConfig) -> dict[str, float]:
    """The four files."""
    from kdsweep.reporting.write import write_report

    spent, _ = timed(lambda: write_report(folder))
    return {"report": spent, "report.html, MB": (folder / "report.html").stat().st_size / 1e6}


def measure_results(folder: Path, sweep: SweepConfig) -> dict[str, float]:
    """kdsweep.Results and its table."""
    import kdsweep

    spent, _ = timed(lambda: kdsweep.Results(folder).trials())
    return {"Results(...).trials()": spent}


PARTS: dict[str, Callable[[Path, SweepConfig], dict[str, float]]] = {
    "resume": measure_resume,
    "random": lambda folder, sweep: measure_takes(folder, sweep, "random"),
    "tpe": lambda folder, sweep: measure_takes(folder, sweep, "tpe"),
    "gp": lambda folder, sweep: measure_takes(folder, sweep, "gp"),
    "report": measure_report,
    "results": measure_results,
}


def measured_apart(part: str, folder: Path, storage: str | None) -> dict[str, float]:
    """Run one part in a process of its own, which prints its numbers; add its most resident memory."""
    line = [
        sys.executable,
        __file__,
        "--part",
        part,
        "--folder",
        str(folder),
        *(["--storage", storage] if storage else []),
    ]
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Grow the sweep, and measure each part at each size."""
    described = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = described.add_argument
    add("--sizes", type=int, nargs="+", default=list(SIZES))
    add("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    add(
        "--gp-up-to",
        type=int,
        default=1000,
        help="largest size at which gp is measured: its cost is cubic (default 1000)",
    )
    add("--storage", help="a PostgreSQL database in place of SQLite")
    add("--keep", type=Path, help="an empty folder for the results, which stay there")
    add("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    add("--folder", type=Path, help=argparse.SUPPRESS)
    options = described.parse_args()
    if options.part:
        found = PARTS[options.part](options.folder, sweep_of(options.folder.name, options.storage))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(json.dumps(found | {f"{options.part}: most resident, MB": memory}))
        return
    scratch = options.keep or Path(tempfile.mkdtemp())
    try:
        grow(scratch / "trials", options.sizes, options.parts, options.gp_up_to, options.storage)
    finally:
        if not options.keep:
            shutil.rmtree(scratch)


def grow(folder: Path, sizes: Sequence[int], parts: Sequence[str], gp_up_to: int, storage: str | None) -> None:
    """Print a line for each number as it is measured: its name, the size, the number."""
    sweep = sweep_of(folder.name, storage)
    write_sweep(folder, sweep)
    make_teacher(folder)
    made = 0
    if storage and len(sizes) > 1:
        raise SystemExit(
            "with --storage, measured takes stay in the database: one size, and a database of its own for each"
        )
    for size in sizes:
        started = time.perf_counter()
        make_records(folder, sweep, range(made, size))
        studies = Studies(sweep, folder, "bench")
        fill_study(studies, folder, sweep, range(made, size))
        studies._storage.rdb.engine.dispose()
        made = size
        print(f"{size:>6,} trials made in {time.perf_counter() - started:.0f} s", flush=True)
        for part in parts:
            if part == "gp" and size > gp_up_to:
                continue
            kept = _copied(folder) if storage is None and part in ("resume", "random", "tpe", "gp") else folder
            for name, value in measured_apart(part, kept, storage).items():
                print(f"{size:>6,}  {name:32} {value:10.3f}", flush=True)


def _copied(folder: Path) -> Path:
    """A copy of the study, so that what is measured leaves the next size as it was made; the trials' folders are linked."""
    there = folder.parent / "copy" / folder.name
    shutil.rmtree(there, ignore_errors=True)
    there.mkdir(parents=True)
    for path in folder.iterdir():
        if path.is_file():
            shutil.copy(path, there)
        else:
            (there / path.name).symlink_to(path)
    return there


if __name__ == "__main__":
    main()
