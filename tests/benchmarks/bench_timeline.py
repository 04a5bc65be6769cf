"""Where a sweep's time went: a table of seconds by phase for each worker, from the results folder alone.

    python tests/benchmarks/bench_timeline.py results/T_alpha
    python tests/benchmarks/bench_timeline.py results/T_alpha --replay 2 8

The times are those at which the sweep wrote its files, so a folder that was copied must have kept them (`cp -a`, `rsync -t`, `tar`), and
a sweep that was interrupted shows its last start. Seconds of a phase are those of the process, whatever else the cores did.

`--replay WORKERS` runs the sweep's search and finalists again in virtual time, with the recorded scores and seconds: real studies, workers
that train nothing. It checks that every slot gets the recorded parameters and every finalist its seed and round, and says how long the tail
is with finalists that begin before the search's end, and without.
"""

import argparse
import heapq
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from kdsweep.config.sweep import SweepConfig
from kdsweep.records.layout import TrialId, results_root, teacher_folder
from kdsweep.records.reading import TrialRow, read_sweep, read_teacher, read_trials
from kdsweep.records.schema import Attempt
from kdsweep.search.assignment import Assignment
from kdsweep.search.studies import Studies
from kdsweep.system.files import read_lines

PHASES = ("start", "train", "evaluate", "test", "rest of a trial", "between trials", "end")
"""start    from the sweep's start to the worker's first trial: imports, rows, teacher, logits, checks
train, evaluate, test   steps; the validation split after each epoch; the test split of a finalist
rest     of a trial: the student made, measured and saved, records
between  trials: W&B, the study, memory freed, waiting for a trial that may begin
end      from the worker's last trial to the sweep's end: waiting for the others, the report"""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One trial or finalist: whose it was, from when to when, and what it did, in seconds."""

    name: str
    worker: str
    is_finalist: bool
    begun: float
    ended: float
    train: float
    evaluate: float
    test: float

    @property
    def rest(self) -> float:
        """Seconds of the run that are none of these."""
        return self.ended - self.begun - self.train - self.evaluate - self.test


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """A sweep from its start to its end."""

    begun: float
    ended: float
    teacher: dict[str, float]
    """Seconds of each part of the teacher's preparation, before the first trial; empty where the teacher came from the cache."""
    runs: tuple[Run, ...]

    def workers(self) -> dict[str, list[Run]]:
        """Each worker's runs, in their order; a worker is a process."""
        owners = dict.fromkeys(run.worker for run in self.runs)
        return {owner: [run for run in self.runs if run.worker == owner] for owner in owners}

    def phases(self, runs: Sequence[Run]) -> dict[str, float]:
        """The seconds of a worker with these runs, by phase; together, the sweep's."""
        gaps = [later.begun - earlier.ended for earlier, later in zip(runs, runs[1:], strict=False)]
        sums = (sum(getattr(run, name) for run in runs) for name in ("train", "evaluate", "test", "rest"))
        return dict(
            zip(PHASES, (runs[0].begun - self.begun, *sums, sum(gaps), self.ended - runs[-1].ended), strict=True)
        )

    def search_ended(self) -> float:
        """When the last trial of the search ended."""
        return max((run.ended for run in self.runs if not run.is_finalist), default=self.begun)

    def early(self) -> float:
        """Seconds of finalists before the search had ended, over all workers."""
        end = self.search_ended()
        return sum(max(0.0, min(run.ended, end) - run.begun) for run in self.runs if run.is_finalist)


def timeline(folder: Path) -> Timeline:
    """Read a sweep's timeline. Raises SystemExit where nothing ended there."""
    sweep = read_sweep(folder)
    rows = [row for stage in (sweep.stages if sweep else ()) for row in read_trials(folder, stage)]
    runs = sorted((run for row in rows for run in _run(row)), key=lambda run: run.begun)
    if not runs:
        raise SystemExit(f"{folder} must hold a sweep of which a trial has ended")
    ends = [_time(folder / name) for name in ("verdict.json", "report.html") if (folder / name).exists()]
    ended = max(ends[0] if ends else 0.0, max(run.ended for run in runs))  # a report may have been written again since
    return Timeline(
        begun=_time(folder / "sweep.yaml"), ended=ended, teacher=_teacher(folder, runs[0]), runs=tuple(runs)
    )


def _time(path: Path) -> float:
    return path.stat().st_mtime


def _run(row: TrialRow) -> Iterator[Run]:
    result, config, test = row.result, row.folder / "config.yaml", row.folder / "test.json"
    attempts = [Attempt(**line) for line in read_lines(row.folder / "attempts.jsonl")]
    if result is None or result.status == "duplicate" or not attempts:
        return
    last = attempts[-1]
    begun = _time(config) if len(attempts) == 1 else datetime.fromisoformat(last.started_at).timestamp()
    tested = _time(test) - _time(row.folder / "predictions.npy") if test.exists() else 0.0
    yield Run(
        name=f"{row.arm}-{row.trial:04d}" + (f"-seed{row.finalist_seed}" if row.finalist_seed else ""),
        worker=last.owner,
        is_finalist=row.finalist_seed is not None,
        begun=begun,
        ended=_time(row.folder / "result.json"),
        train=result.train_seconds,
        evaluate=result.evaluate_seconds,
        test=tested,
    )


def _teacher(folder: Path, first: Run) -> dict[str, float]:
    there, known = teacher_folder(folder), read_teacher(teacher_folder(folder))
    if known is None or known.from_cache or not (there / "epochs.jsonl").exists():
        return {}
    times = [
        _time(folder / "sweep.yaml"),
        *(_time(there / name) for name in ("config.yaml", "epochs.jsonl", "result.json")),
    ]
    names = ("downloads, imports, rows", "fine-tuning", "logits, speed", "test logits, checks, estimate")
    return {name: after - before for name, before, after in zip(names, times, [*times[1:], first.begun], strict=True)}


# Replayed ------------------------------------------------------------------------------------------------------------

BETWEEN_SECONDS, LOOK_SECONDS = 0.15, 0.25
"""Between two trials of a worker, as recorded; from when one could begin to when a waiting worker sees it, on average."""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A sweep run again in virtual time, from its first trial on."""

    tail: float
    """Seconds from the end of the search's last trial to that of the last finalist."""
    whole: float
    idle: float
    """Seconds of all workers without a trial, until the last run ends."""


def replay(folder: Path, sweep: SweepConfig, workers: int, *, early: bool) -> Replay:
    """Run a recorded sweep again in virtual time. Raises AssertionError where a slot gets other parameters, or a finalist another seed or round."""
    rows = {row.id: row for stage in sweep.stages for row in read_trials(folder, stage)}
    seconds = {run: _time(row.folder / "result.json") - _time(row.folder / "config.yaml") for run, row in rows.items()}
    order, search_ended, busy = itertools.count(), 0.0, 0.0
    moments: list[tuple[float, int, int, Assignment | None]] = [
        (0.0, next(order), place, None) for place in range(workers)
    ]
    ended, ran = 0.0, set[TrialId]()
    with tempfile.TemporaryDirectory() as there:
        studies = [Studies(sweep, Path(there), f"w{place}") for place in range(workers)]
        for each in studies:
            each.finalists._seconds = lambda run: seconds[replace(run, seed=None)]  # type: ignore[method-assign]
            if not early:
                each.finalists.certain = list  # type: ignore[method-assign, assignment]
        while moments:
            now, _, place, mine = heapq.heappop(moments)
            if mine is not None:
                result = rows[mine.id].result
                assert result is not None and studies[place].finish(mine, result, {})
                ended, busy = now, busy + seconds[mine.id]
                search_ended = now if mine.id.seed is None else search_ended
            if (taken := studies[place].take()) is not None:
                _check(taken, rows[taken.id])
                ran.add(taken.id)
                heapq.heappush(moments, (now + BETWEEN_SECONDS + seconds[taken.id], next(order), place, taken))
            elif studies[place].is_open():
                heapq.heappush(moments, (now + LOOK_SECONDS, next(order), place, None))
    assert ran == set(rows), f"other runs than the recorded ones: {ran ^ set(rows)}"
    return Replay(tail=ended - search_ended, whole=ended, idle=workers * ended - busy)


def _check(taken: Assignment, row: TrialRow) -> None:
    """Compare what a slot is given with its record."""
    recorded = {name: getattr(row.config, name) for name in taken.params}
    assert taken.params == recorded, f"{row.folder.name}: {taken.params}, but recorded {recorded}"
    finalist = row.result.finalist if row.result else None
    assert taken.round == (finalist.round if finalist else 0), row.folder.name


def replayed(folder: Path, workers: Sequence[int]) -> Iterator[str]:
    """Yield the lines of a table: tails with and without finalists that begin early, for so many workers."""
    sweep = read_sweep(folder)
    assert sweep is not None
    yield "  replayed, every run with its recorded parameters, seed and round:"
    yield "  workers   finalists   first trial to last finalist   tail   idle, all workers"
    for count in workers:
        for early in (False, True):
            found = replay(folder, sweep, count, early=early)
            name = "early" if early else "afterwards"
            yield f"  {count:7d}   {name:<10}{found.whole:28.1f} s{found.tail:7.1f}{found.idle:16.1f}"


def main() -> None:
    """Print the timelines of the folders that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help=f"results folders (yours are in {results_root()})")
    parser.add_argument("--runs", action="store_true", help="every trial and finalist too")
    parser.add_argument("--replay", nargs="+", type=int, default=[], metavar="WORKERS", help="numbers of workers")
    options = parser.parse_args()
    for folder in options.folders:
        print("\n".join(shown(timeline(folder), folder.name, runs=options.runs)))
        for line in replayed(folder, options.replay) if options.replay else ():
            print(line, flush=True)


def shown(found: Timeline, name: str, *, runs: bool = False) -> list[str]:
    """Return the lines that show a timeline."""
    whole, workers = found.ended - found.begun, found.workers()
    lines = [f"{name}: {whole:.1f} s from its start to its report and verdict", ""]
    lines += [f"  {'before the first trial':<30}  seconds"] if found.teacher else []
    lines += [f"  {part:<30} {seconds:8.1f}" for part, seconds in found.teacher.items()]
    lines += ["", f"  {'worker':<24}{'runs':>6}" + "".join(f"{phase:>{max(9, len(phase) + 2)}}" for phase in PHASES)]
    total = dict.fromkeys(PHASES, 0.0)
    for worker, its in workers.items():
        phases = found.phases(its)
        total = {phase: total[phase] + phases[phase] for phase in PHASES}
        lines.append(_line(worker, len(its), phases))
    lines.append(_line("together", len(found.runs), total))
    lines.append(_line("share, %", None, {phase: 100 * total[phase] / sum(total.values()) for phase in PHASES}))
    last = max(run.ended for run in found.runs)
    idle = sum(last - its[-1].ended for its in workers.values())
    lines += [
        "",
        f"  tail: {found.ended - found.search_ended():.1f} s from the end of the search's last trial to the report and verdict,",
        f"        {found.ended - last:.1f} s of them after the last finalist; finalists that began before it: {found.early():.1f} s of work;",
        f"        {idle:.1f} s of a worker without a trial while another had its last one",
    ]
    for run in found.runs if runs else ():
        span = f"{run.begun - found.begun:7.1f} – {run.ended - found.begun:6.1f}"
        parts = f"train {run.train:5.1f}   evaluate {run.evaluate:4.1f}   test {run.test:4.1f}   rest {run.rest:4.1f}"
        lines.append(f"  {span}   {run.worker[-8:]}   {run.name:<26} {parts}")
    return lines


def _line(name: str, runs: int | None, seconds: dict[str, float]) -> str:
    cells = "".join(f"{seconds[phase]:{max(9, len(phase) + 2)}.1f}" for phase in PHASES)
    return f"  {name:<24}{'' if runs is None else runs:>6}{cells}"


if __name__ == "__main__":
    main()
