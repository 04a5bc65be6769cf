"""Re-run one trial from its saved config and prove that it comes out the same: `python -m kdsweep.reproduce results/T_alpha`.

Compared are every metric of every epoch, the result, the trained weights, the class of every validation row, and for a finalist the
test split. On a CPU the rule is equality to the last bit. On a GPU, where sums are not ordered, it is `TOLERANCE`.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from kdsweep.config.sweep import PATH_FIELDS, identity_changes
from kdsweep.config.trial import FROM_TEACHER, TrialConfig
from kdsweep.config.yaml import did_you_mean
from kdsweep.errors import ConfigError, KDSweepError, ResultsError
from kdsweep.records.reading import TrialRow, read_predictions, read_test, read_test_predictions, read_trial, torn_lines
from kdsweep.records.schema import VALIDATED, EpochMetrics, TrialResult
from kdsweep.records.whole_sweep import read_records
from kdsweep.records.writing import TrialFolder
from kdsweep.system.files import write_json
from kdsweep.system.hardware import bound_spinning
from kdsweep.system.process import for_good

TOLERANCE = 0.01
"""On a GPU: accuracies and agreement may differ by so much (1 point), losses by so much of themselves, classes on that share of rows."""

REVISIONS = {"dataset": "dataset_revision", "teacher": "teacher_revision", "student": "student_revision"}
"""Fields that say which commit of a hub name is meant."""

Verdict = Literal["identical", "within tolerance", "different"]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Something beside the epochs that the re-run must give again."""

    of: Literal["result", "student", "validation", "test"]
    what: str
    recorded: str
    again: str
    same: bool | None
    """To the last bit; None where the record does not have it, so that nothing can be compared."""
    close: bool | None
    """Within `TOLERANCE`; True for weights, which no tolerance judges."""


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What a re-run gave beside the record."""

    trial: str
    verdict: Verdict
    rule: str
    recorded: tuple[EpochMetrics, ...]
    again: tuple[EpochMetrics, ...]
    compared: tuple[Compared, ...]
    """Result, weights, predictions and test split."""
    first_difference: str | None
    """The first differing epoch and metric, or else what differs first of `compared`."""
    facts: tuple[str, ...]
    """What differs in config, places, versions, machine, data or weights; it need not have changed the result."""


# Which trial, from which places --------------------------------------------------------------------------------------


def find_trial(folder: Path) -> TrialRow:
    """A trial's folder, or the best trial of a sweep's. Raises ResultsError where there is none that finished."""
    if (folder / "config.yaml").exists():
        trial = read_trial(folder)
        if trial.result is None or not trial.result.epochs:
            raise ResultsError(f"a trial must have finished an epoch to be reproduced, but {folder} did not")
        return trial
    from kdsweep.analysis.leaderboard import leaderboard  # brings SciPy, which one trial's folder need not wait for

    ranked = [row for row in leaderboard(read_records(folder)) if row.rank == 1]
    if not ranked:
        raise ResultsError(f"a sweep must have a complete trial to be reproduced, but {folder} has none")
    return ranked[0].trial


def moved(config: TrialConfig, places: Sequence[str]) -> TrialConfig:
    """Return `config` with its data and models elsewhere, by `field=place`; weights on disk have no revision.

    Raises ConfigError for anything but the place of something that the config names.
    """
    changes: dict[str, Any] = {}
    for item in places:
        name, equals, place = item.partition("=")
        if not equals or name not in PATH_FIELDS or not place:
            raise ConfigError(
                f"--set moves data and models, such as train_file=/data/train.csv, but got {item!r}"
                f"{did_you_mean(name, PATH_FIELDS)}"
            )
        if getattr(config, name) in (None, FROM_TEACHER):
            raise ConfigError(
                f"--set gives what the trial read another place, but its {name} is {getattr(config, name)}"
            )
        is_here = Path(place).expanduser().exists()
        changes[name] = str(Path(place).expanduser().resolve()) if is_here else place
        if is_here and name in REVISIONS:
            changes[REVISIONS[name]] = None
    return replace(config, **changes)


# Running it again ----------------------------------------------------------------------------------------------------


def rerun(
    trial: TrialRow, folder: TrialFolder, on_epoch: Callable[[EpochMetrics], None], *, same_content: bool = False
) -> TrialRow:
    """Train the trial's config again into `folder`, for as many epochs as the record has, and test a finalist that was tested.

    With `same_content`, raises ResultsError before that where data or models are not those of the record.
    """
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(trial.config.threads)
    bound_spinning()
    # torch reads both when it is imported, so everything that brings it comes after that
    with for_good():
        from kdsweep.tracking.tracker import NullRun
        from kdsweep.training.fast import machine
        from kdsweep.training.shared import Materials
        from kdsweep.training.trial import Slot, Watch, run_trial
    assert trial.result is not None
    last = trial.result.epochs

    def stop_after(epoch: EpochMetrics) -> bool:
        on_epoch(epoch)
        return epoch.epoch == last < trial.config.epochs

    materials = Materials()
    if same_content:
        machine.set_up(int(trial.config.threads))
        _check_content(trial.config, trial.result, materials)
    tested = trial.result.finalist if read_test(trial.folder) else None  # a test split that it never saw stays closed
    slot = Slot(arm=trial.arm, trial=trial.trial, finalist=tested)
    watch = Watch(on_steps=lambda _: None, on_epoch=stop_after)
    run_trial(trial.config, slot, folder, materials, NullRun(), watch)
    return read_trial(folder.path)


def _check_content(config: TrialConfig, recorded: TrialResult, materials: Any) -> None:
    """Data before models, the cheapest first. A teacher that was fine-tuned on a GPU never has the same bits again: left to the receipt."""
    look: dict[str, Callable[[], str]] = {"data_sha256": lambda: materials.data(config).sha256()}
    if config.device == "cpu" or not config.teacher_epochs:
        look["teacher_weights_sha256"] = lambda: materials.teacher(config).weights_sha256
        look["initial_weights_sha256"] = lambda: materials.initial_weights_sha256(config)
    named = {"data_sha256": "rows", "teacher_weights_sha256": "teacher", "initial_weights_sha256": "initial student"}
    for name, found in look.items():
        before = getattr(recorded, name)
        if before is not None and (now := found()) != before:
            fine_tuned = config.teacher_epochs and name != "data_sha256"
            raise ResultsError(
                f"with --set, the {named[name]} must be what the trial met, {name} {before}, but got {now}"
                + (
                    ": other weights, or a teacher that another machine fine-tunes to other bits; bring the cache of the "
                    "first machine (KDSWEEP_CACHE)"
                    if fine_tuned
                    else ": name the same content"
                )
            )


# Comparing -----------------------------------------------------------------------------------------------------------


def receipt(trial: TrialRow, again: TrialRow) -> Receipt:
    """Compare a re-run with its record."""
    assert trial.result is not None and again.result is not None
    ran_on = (trial.result.config or {}).get("device", trial.config.device)
    exact = ran_on == again.config.device == "cpu"
    compared = (
        _compared_results(trial.result, again.result),
        *_compared_config(trial.result),
        _compared_weights(trial.result, again.result),
        _compared_classes("validation", read_predictions(trial.folder), read_predictions(again.folder)),
        *_compared_tests(trial, again),
    )
    other = [f"{each.of}, {each.what}: {each.recorded}, now {each.again}" for each in compared if each.same is False]
    difference = _first_difference(trial, again, tolerance=0.0) or next(iter(other), None)
    near = not exact and _first_difference(trial, again, tolerance=TOLERANCE) is None
    beyond = not near or any(each.close is False for each in compared)
    verdict: Verdict = "identical" if difference is None else "different" if beyond else "within tolerance"
    rule = f"accuracies within {TOLERANCE:g}, losses within {TOLERANCE:.0%}, {TOLERANCE:.0%} of the predictions, weights free"
    return Receipt(
        trial=f"{trial.arm} {trial.trial}" + f", seed {trial.finalist_seed}" * (trial.finalist_seed is not None),
        verdict=verdict,
        rule="equal to the last bit" if exact else rule,
        recorded=trial.epochs,
        again=again.epochs,
        compared=compared,
        first_difference=difference,
        facts=tuple(_differing_facts(trial, again)),
    )


def _first_difference(trial: TrialRow, again: TrialRow, *, tolerance: float) -> str | None:
    """Epochs are told by their number: a torn line of the record leaves one out."""
    ran = {epoch.epoch: epoch.measured() for epoch in again.epochs}
    for old in trial.epochs:
        if old.epoch not in ran:
            return f"epoch {old.epoch} was recorded, and did not run again"
        if name := _first_differing(old.measured(), ran[old.epoch], tolerance=tolerance):
            return f"epoch {old.epoch}: {name} was {old.measured()[name]!r} and is {ran[old.epoch][name]!r}"
    return None


def _first_differing(before: Mapping[str, Any], now: Mapping[str, Any], *, tolerance: float) -> str | None:
    """The first metric that differs by more than `tolerance`, for a loss of itself; None for none."""
    for name, value in before.items():
        scale = abs(value) if name.startswith("L_") or name.endswith("loss") else 1.0
        if now[name] is None or abs(now[name] - value) > tolerance * scale:
            return name
    return None


def _compared_config(old: TrialResult) -> list[Compared]:
    """Said alone where it cannot be told whether the file was edited: an edit is a fact, and what it did to the metrics is compared."""
    unknown = Compared(
        of="result",
        what="config.yaml",
        recorded="an older record does not say what ran",
        again="-",
        same=None,
        close=None,
    )
    return [unknown] if old.config is None else []


def _compared_results(old: TrialResult, new: TrialResult) -> Compared:
    """What the leaderboard ranks by stands here, and in the last epoch's line."""
    names = (*VALIDATED, "epochs", "steps", "parameters")
    before = {name: getattr(old, name) for name in names if getattr(old, name) is not None}
    return _compared_metrics("result", before, {name: getattr(new, name) for name in names})


def _compared_metrics(of: Literal["result", "test"], before: Mapping[str, Any], now: Mapping[str, Any]) -> Compared:
    first = _first_differing(before, now, tolerance=0.0)
    shown = first or next(iter(before))
    return Compared(
        of=of,
        what=shown,
        recorded=repr(before[shown]),
        again=repr(now[shown]),
        same=first is None,
        close=_first_differing(before, now, tolerance=TOLERANCE) is None,
    )


def _compared_weights(old: TrialResult, new: TrialResult) -> Compared:
    known = old.weights_sha256 is not None
    return Compared(
        of="student",
        what="weights",
        recorded=f"sha256 {old.weights_sha256}" if known else "not recorded: the trial failed, or the record is older",
        again=f"sha256 {new.weights_sha256}",
        same=old.weights_sha256 == new.weights_sha256 if known else None,
        close=True if known else None,
    )


def _compared_classes(of: Literal["validation", "test"], before: np.ndarray | None, now: np.ndarray | None) -> Compared:
    """The class that the student gives every row."""
    what = "predictions"
    if before is None:
        return Compared(of=of, what=what, recorded="not on disk", again="-", same=None, close=None)
    if now is None or now.shape != before.shape:
        rows = "none" if now is None else f"{len(now):,} rows"
        return Compared(of=of, what=what, recorded=f"{len(before):,} rows", again=rows, same=False, close=False)
    differing = int((before != now).sum())
    return Compared(
        of=of,
        what=what,
        recorded=f"{len(before):,} rows",
        again=f"{differing:,} differ",
        same=differing == 0,
        close=differing <= TOLERANCE * len(before),
    )


def _compared_tests(trial: TrialRow, again: TrialRow) -> list[Compared]:
    """A finalist's test result, measured once more on the same split; none for a trial that was not tested."""
    before, now = read_test(trial.folder), read_test(again.folder)
    if before is None:
        return []
    classes = read_test_predictions(trial.folder), read_test_predictions(again.folder)
    found = _compared_classes("test", *classes)
    return [found, _compared_metrics("test", before.measured(), now.measured())] if now else [found]


def _differing_facts(trial: TrialRow, again: TrialRow) -> list[str]:
    assert trial.result is not None and again.result is not None
    old, new = trial.result, again.result
    facts = [f"config.yaml was edited after the run, {edit}" for edit in trial.edits()]
    facts += [f"--set {change.strip()}" for change in identity_changes(asdict(trial.config), asdict(again.config))]
    facts += [f"{line} of the record is torn, what it held is not compared" for line in torn_lines(trial.folder)]
    pairs: dict[str, tuple[Any, Any]] = {
        "data": (old.data_sha256, new.data_sha256),
        "teacher's weights": (old.teacher_weights_sha256, new.teacher_weights_sha256),
        "student's initial weights": (old.initial_weights_sha256, new.initial_weights_sha256),
        "pieces of a batch": (old.micro_batches, new.micro_batches),
        **{name: (value, new.environment.get(name, "-")) for name, value in old.environment.items()},
    }
    return facts + [f"{name}: {before}, now {after}" for name, (before, after) in pairs.items() if before != after]


# The command line ----------------------------------------------------------------------------------------------------


def print_receipt(console: Console, found: Receipt) -> None:
    """Each epoch's metrics and all else side by side, the verdict and what differs."""
    table = Table(title=f"Receipt: {found.trial}", title_justify="left")
    for heading in ("of", "what", "recorded", "again", ""):
        table.add_column(heading, justify="right" if heading in ("recorded", "again") else "left")
    ran = {epoch.epoch: epoch.measured() for epoch in found.again}
    for old in found.recorded:
        for name, value in old.measured().items():
            if name not in ("epoch", "step") and old.epoch in ran:
                now = ran[old.epoch][name]
                table.add_row(f"epoch {old.epoch}", name, repr(value), repr(now), _sign(now == value))
    for each in found.compared:
        sides = [side[:19] if each.what == "weights" else side for side in (each.recorded, each.again)]
        if each.same is not None:
            table.add_row(each.of, each.what, *sides, _sign(each.same))
    console.print(table)
    console.print(f"{found.verdict} (the rule: {found.rule})", style="bold")
    if found.first_difference:
        console.print(f"first difference: {found.first_difference}", highlight=False, soft_wrap=True)
    for each in found.compared:
        if each.same is None:
            console.print(f"not compared: {each.of}, {each.what} ({each.recorded})", highlight=False, soft_wrap=True)
    for fact in found.facts:
        console.print(f"differs: {fact}", highlight=False, soft_wrap=True)


def _sign(same: bool) -> str:
    return "=" if same else "≠"


DESCRIPTION = """\
Run a trial again from its saved config.yaml and compare with the record: every epoch's metrics, the result, the trained
weights, the class of every validation row, and a finalist's test result. The receipt stands in its folder, as receipt.json.
"""
EPILOG = """\
examples:
  python -m kdsweep.reproduce results/T_alpha                  the best trial of the search
  python -m kdsweep.reproduce results/T_alpha/trials/0007      this one; controls/0003 and finalists/… likewise
  python -m kdsweep.reproduce trials/0007 --set train_file=/data/train.csv teacher=/models/bert
                                                               one from another machine, whose files lie elsewhere here

A trial's folder is enough: it may be copied without its sweep, as trials/0007. --set moves data and models only (dataset,
train_file, validation_file, test_file, teacher, student); rows and weights there must be those that the record names by
their hashes, or nothing is trained. A config.yaml that was edited after the run is run as it is now; that it was, and what
was edited, is said before and in the receipt. Of a finalist that was tested, the same student is measured on the test split
once more: that chooses nothing.

exit codes: 0 identical or within tolerance, 1 different, 2 could not run
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kdsweep.reproduce",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="a sweep's results folder, or one trial's")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="FIELD=PLACE",
        help="where data and models lie on this machine",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 for the same, 1 for different, 2 with a message."""
    options = _parser().parse_args(arguments)
    console = Console()
    try:
        trial = find_trial(options.folder.resolve())
        here = replace(trial, config=moved(trial.config, options.set))
        _announce(console, trial, here.config)
        with tempfile.TemporaryDirectory() as scratch:
            folder = TrialFolder(Path(scratch) / trial.folder.parent.name / trial.folder.name)
            shown = lambda epoch: console.print(f"epoch {epoch.epoch}: val_accuracy {epoch.val_accuracy:.4f}")
            found = receipt(trial, rerun(here, folder, shown, same_content=bool(options.set)))
        write_json(trial.folder / "receipt.json", asdict(found))
    except KDSweepError as error:
        print(error, file=sys.stderr)
        return 2
    print_receipt(console, found)
    return 1 if found.verdict == "different" else 0


def _announce(console: Console, trial: TrialRow, config: TrialConfig) -> None:
    """Say what runs, before minutes are spent on it: also that it is not what ran."""
    assert trial.result is not None
    machine = f"{config.device}, {config.precision}, {config.threads} threads"
    lines = [f"Running {trial.folder} again ({trial.result.epochs} epochs, {machine}) …"]
    lines += [f"config.yaml is not what ran, {edit}" for edit in trial.edits()]
    lines += [f"torn in the record: {line}" for line in torn_lines(trial.folder)]
    if read_test(trial.folder):
        lines.append("The test split is measured once more, with the same student: that chooses nothing")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
