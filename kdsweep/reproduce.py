"""Re-run one trial from its saved config and prove that it comes out the same: `python -m kdsweep.reproduce results/T_alpha`.

On a CPU the rule is equality to the last bit, for every metric of every epoch. On a GPU, where sums are not ordered, it is
`TOLERANCE`.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from kdsweep.config import TrialConfig
from kdsweep.errors import KDSweepError, ResultsError
from kdsweep.files import write_json
from kdsweep.gathered import read_records
from kdsweep.hardware import bound_spinning
from kdsweep.imports import for_good
from kdsweep.records import TrialFolder, TrialRow, read_trial
from kdsweep.results import EpochMetrics

TOLERANCE = 0.01
"""On a GPU: accuracies and agreement may differ by so much (1 point), losses by so much of themselves."""

Verdict = Literal["identical", "within tolerance", "different"]


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What a re-run gave beside the record."""

    trial: str
    verdict: Verdict
    rule: str
    recorded: tuple[EpochMetrics, ...]
    again: tuple[EpochMetrics, ...]
    first_difference: str | None
    """The first differing epoch and metric."""
    facts: tuple[str, ...]
    """What differs in versions, machine, data or weights; it need not have changed the result."""


def find_trial(folder: Path) -> TrialRow:
    """A trial's folder, or the best trial of a sweep's. Raises ResultsError where there is none that finished."""
    if (folder / "config.yaml").exists():
        trial = read_trial(folder)
        if trial.result is None or not trial.epochs:
            raise ResultsError(f"a trial must have finished an epoch to be reproduced, but {folder} did not")
        return trial
    from kdsweep.leaderboard import leaderboard  # brings SciPy, which one trial's folder need not wait for

    ranked = [row for row in leaderboard(read_records(folder)) if row.rank == 1]
    if not ranked:
        raise ResultsError(f"a sweep must have a complete trial to be reproduced, but {folder} has none")
    return ranked[0].trial


def rerun(trial: TrialRow, folder: TrialFolder, on_epoch: Callable[[EpochMetrics], None]) -> TrialRow:
    """Train the trial's config again into `folder`, for as many epochs as the record has."""
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(trial.config.threads)
    bound_spinning()
    # torch reads both when it is imported, so everything that brings it comes after that
    with for_good():
        from kdsweep.materials import Materials
        from kdsweep.runs import NullRun
        from kdsweep.trial import Slot, Watch, run_trial

    def stop_after(epoch: EpochMetrics) -> bool:
        on_epoch(epoch)
        return epoch.epoch == len(trial.epochs) < trial.config.epochs

    slot = Slot(arm=trial.arm, trial=trial.trial)
    watch = Watch(on_steps=lambda _: None, on_epoch=stop_after)
    run_trial(trial.config, slot, folder, Materials(), NullRun(), watch)
    return read_trial(folder.path)


def receipt(trial: TrialRow, again: TrialRow) -> Receipt:
    """Compare a re-run with its record."""
    exact = trial.config.device == "cpu"
    difference = _first_difference(trial.epochs, again.epochs, tolerance=0.0)
    beyond = difference if exact else _first_difference(trial.epochs, again.epochs, tolerance=TOLERANCE)
    verdict: Verdict = "identical" if difference is None else "different" if beyond else "within tolerance"
    rule = "equal to the last bit" if exact else f"accuracies within {TOLERANCE:g}, losses within {TOLERANCE:.0%}"
    return Receipt(
        trial=f"{trial.arm} {trial.trial}",
        verdict=verdict,
        rule=rule,
        recorded=trial.epochs,
        again=again.epochs,
        first_difference=difference,
        facts=tuple(_differing_facts(trial, again)),
    )


def _first_difference(before: Sequence[EpochMetrics], after: Sequence[EpochMetrics], *, tolerance: float) -> str | None:
    for old, new in zip(before, after, strict=False):
        for name, value in old.measured().items():
            scale = abs(value) if name.startswith("L_") or name == "val_loss" else 1.0
            if abs(new.measured()[name] - value) > tolerance * scale:
                return f"epoch {old.epoch}: {name} was {value!r} and is {new.measured()[name]!r}"
    if len(before) != len(after):
        return f"{len(before)} epochs were recorded, and {len(after)} ran again"
    return None


def _differing_facts(trial: TrialRow, again: TrialRow) -> list[str]:
    assert trial.result is not None and again.result is not None
    old, new = trial.result, again.result
    pairs = {
        "data": (old.data_sha256, new.data_sha256),
        "teacher's weights": (old.teacher_weights_sha256, new.teacher_weights_sha256),
        "student's initial weights": (old.initial_weights_sha256, new.initial_weights_sha256),
        **{name: (value, new.environment.get(name, "-")) for name, value in old.environment.items()},
    }
    return [f"{name}: {before}, now {after}" for name, (before, after) in pairs.items() if before != after]


def print_receipt(console: Console, found: Receipt) -> None:
    """Each epoch's metrics side by side, the verdict and what differs."""
    table = Table(title=f"Receipt: {found.trial}", title_justify="left")
    for heading in ("epoch", "metric", "recorded", "again", ""):
        table.add_column(heading, justify="right" if heading in ("recorded", "again") else "left")
    for old, new in zip(found.recorded, found.again, strict=False):
        for name, value in old.measured().items():
            if name not in ("epoch", "step"):
                same = new.measured()[name] == value
                table.add_row(str(old.epoch), name, repr(value), repr(new.measured()[name]), "=" if same else "≠")
    console.print(table)
    console.print(f"{found.verdict} (the rule: {found.rule})", style="bold")
    if found.first_difference:
        console.print(f"first difference: {found.first_difference}", highlight=False, soft_wrap=True)
    for fact in found.facts:
        console.print(f"differs: {fact}", highlight=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 for the same, 1 for different, 2 with a message."""
    parser = argparse.ArgumentParser(
        prog="python -m kdsweep.reproduce",
        description="Run a trial again from its saved config.yaml and compare every epoch's metrics with the record.",
        epilog="examples: python -m kdsweep.reproduce results/T_alpha (the best trial); "
        "python -m kdsweep.reproduce results/T_alpha/trials/0007. Exit code 0: identical or within tolerance, "
        "1: different, 2: could not run.",
    )
    parser.add_argument("folder", type=Path, help="a sweep's results folder, or one trial's")
    console = Console()
    try:
        trial = find_trial(parser.parse_args(arguments).folder.resolve())
        _announce(console, trial.config, trial)
        with tempfile.TemporaryDirectory() as scratch:
            folder = TrialFolder(Path(scratch) / trial.folder.parent.name / trial.folder.name)
            shown = lambda epoch: console.print(f"epoch {epoch.epoch}: val_accuracy {epoch.val_accuracy:.4f}")
            found = receipt(trial, rerun(trial, folder, shown))
        write_json(trial.folder / "receipt.json", asdict(found))
    except KDSweepError as error:
        print(error, file=sys.stderr)
        return 2
    print_receipt(console, found)
    return 1 if found.verdict == "different" else 0


def _announce(console: Console, config: TrialConfig, trial: TrialRow) -> None:
    machine = f"{config.device}, {config.precision}, {config.threads} threads"
    console.print(
        f"Running {trial.folder} again ({len(trial.epochs)} epochs, {machine}) …", highlight=False, soft_wrap=True
    )


if __name__ == "__main__":
    sys.exit(main())
