"""Run one trial again from its saved config and compare it with its record: `python -m kdsweep.reproduce results/T_alpha`."""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kdsweep.analysis.formats import plural
from kdsweep.analysis.receipt import Receipt, receipt
from kdsweep.config.lengths import evaluations_of, unit_of
from kdsweep.config.tasks import METRICS
from kdsweep.config.trial import FROM_TEACHER, TrialConfig
from kdsweep.config.trial_fields import PATH_FIELDS, REVISIONS
from kdsweep.config.yaml import did_you_mean
from kdsweep.errors import ConfigError, KDSweepError, ResultsError
from kdsweep.records.layout import TrialId
from kdsweep.records.reading import TrialRow, read_test, read_trial, torn_lines
from kdsweep.records.schema import EpochMetrics, TrialResult
from kdsweep.records.whole_sweep import read_records
from kdsweep.records.writing import TrialFolder
from kdsweep.system.files import drafting, write_json
from kdsweep.system.hardware import bound_spinning
from kdsweep.system.process import ends_with_its_reader, for_good

# Which trial, from which places --------------------------------------------------------------------------------------


def find_trial(folder: Path) -> TrialRow:
    """Read the trial in `folder`; in a sweep's folder, the run to ship. Raises ResultsError where no trial finished an epoch or completed."""
    if (folder / "config.yaml").exists():
        trial = read_trial(folder)
        if trial.result is None or not trial.result.epochs:
            raise ResultsError(f"a trial must have finished an epoch to be reproduced, but {folder} did not")
        return trial
    from kdsweep.analysis.shipped import shipped  # imports SciPy, which one trial's folder does not need

    best = shipped(read_records(folder))
    if best is None:
        raise ResultsError(f"a sweep must have a complete trial to be reproduced, but {folder} has none")
    return best


def moved(config: TrialConfig, places: Sequence[str]) -> TrialConfig:
    """Return `config` with the data and models that `places` name by `field=place`; weights on disk have no revision.

    Raises ConfigError for a field that is no place, or that `config` does not use.
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

    With `same_content`, raises ResultsError before training where data or models are not those of the record.
    """
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(trial.config.threads)
    bound_spinning()
    # torch reads both when it is imported, so everything that imports it follows
    with for_good():
        from kdsweep.tracking.tracker import NullRun
        from kdsweep.training.fast import machine
        from kdsweep.training.shared import Materials
        from kdsweep.training.trial import Slot, Watch, run_trial
    assert trial.result is not None
    last = trial.result.epochs

    def stop_after(epoch: EpochMetrics) -> bool:
        on_epoch(epoch)
        return epoch.epoch == last < evaluations_of(trial.config)

    materials = Materials()
    if same_content:
        machine.set_up(int(trial.config.threads))
        _check_content(trial.config, trial.result, materials)
    finalist = trial.result.finalist if read_test(trial.folder) else None  # an untested trial leaves the split closed
    again = TrialId(trial.arm, trial.trial, finalist.seed if finalist else None)
    slot = Slot(id=again, round=finalist.round if finalist else 0)
    watch = Watch(on_steps=lambda _: None, on_epoch=stop_after)
    run_trial(trial.config, slot, folder, materials, NullRun(), watch)
    return read_trial(folder.path)


def _check_content(config: TrialConfig, recorded: TrialResult, materials: Any) -> None:
    """Check the hashes of data, then of models, the cheapest first; not those of a teacher fine-tuned on a GPU, whose bits always differ."""
    look: dict[str, Callable[[], str]] = {"data_sha256": lambda: materials.data(config).sha256()}
    if config.has_unlabeled:
        look["unlabeled_sha256"] = lambda: materials.unlabeled(config).sha256
    fine_tuned_here = config.teacher_epochs and not config.teacher_file
    if config.device == "cpu" or not fine_tuned_here:
        look["teacher_weights_sha256"] = lambda: materials.teacher_sha256(config)
        look["initial_weights_sha256"] = lambda: materials.initial_weights_sha256(config)
    named = {"data_sha256": "rows", "teacher_weights_sha256": "teacher", "initial_weights_sha256": "initial student"}
    named["unlabeled_sha256"] = "texts without labels"
    for name, found in look.items():
        before = getattr(recorded, name)
        if before is not None and (now := found()) != before:
            fine_tuned = fine_tuned_here and name in ("teacher_weights_sha256", "initial_weights_sha256")
            raise ResultsError(
                f"with --set, the {named[name]} must be what the trial met, {name} {before}, but got {now}"
                + (
                    ": other weights, or a teacher that another machine fine-tunes to other bits; bring the cache of the "
                    "first machine (KDSWEEP_CACHE)"
                    if fine_tuned
                    else ": name the same content"
                )
            )


def keep_student(student: Path, trial: TrialRow, found: Receipt) -> bool:
    """Put the student trained again where the trial's was, unless it is another one; return whether it is there. Raises ResultsError."""
    if found.verdict == "different" or not student.is_dir():
        return False
    with drafting(trial.folder / "student") as draft:
        shutil.copytree(student, draft, dirs_exist_ok=True)
    return True


# The command line ----------------------------------------------------------------------------------------------------


def print_receipt(console: Console, found: Receipt) -> None:
    """Print a receipt: recorded and new values side by side, the verdict, and what differs."""
    table = Table(title=f"Receipt: {found.trial}", title_justify="left")
    for heading in ("of", "what", "recorded", "again", ""):
        table.add_column(heading, justify="right" if heading in ("recorded", "again") else "left")
    ran = {epoch.epoch: epoch.measured() for epoch in found.again}
    for old in found.recorded:
        for name, value in old.measured().items():
            if name not in ("epoch", "step") and old.epoch in ran:
                now = ran[old.epoch].get(name)
                table.add_row(f"{found.unit} {old.epoch}", name, repr(value), repr(now), _sign(now == value))
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
weights, what is predicted for every validation row, and a finalist's test result. The comparison is written to receipt.json in its folder.
"""
EPILOG = """\
examples:
  python -m kdsweep.reproduce results/T_alpha                  the run that the report ships
  python -m kdsweep.reproduce results/T_alpha/trials/0007      this one; controls/0003 and finalists/… likewise
  python -m kdsweep.reproduce trials/0007 --set train_file=/data/train.csv teacher=/models/bert
                                                               one from another machine, whose files lie elsewhere here

A trial's folder is enough: it may be copied without its sweep, as trials/0007. --set moves data and models only (dataset,
train_file, validation_file, test_file, unlabeled_file, teacher, teacher_file, student, student_body); rows, weights and numbers
there must be those that the record names by their hashes, or nothing is trained. Where config.yaml was edited after the run, the
edited config is run, and every edit is listed before training and in the receipt. For a finalist that was tested, the student
trained again is measured on the test split too; this chooses nothing.

exit codes: 0 identical or within tolerance, 1 different, 2 could not run
"""


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folder", type=Path, help="a sweep's results folder, for the run that its report ships, or one trial's"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="FIELD=PLACE",
        help="where data and models lie on this machine",
    )
    parser.add_argument(
        "--keep-student", action="store_true", help="put the student back where study.keep_students deleted it"
    )
    return parser


@ends_with_its_reader
def main(arguments: Sequence[str] | None = None, *, prog: str = "python -m kdsweep.reproduce") -> int:
    """Run the command line; return 0 for the same result, 1 for a different one, 2 for a problem that is printed."""
    options = _parser(prog).parse_args(arguments)
    console = Console()
    try:
        trial = find_trial(options.folder.resolve())
        here = replace(trial, config=moved(trial.config, options.set))
        _announce(console, trial, here.config)
        with tempfile.TemporaryDirectory() as scratch:
            folder = TrialFolder(Path(scratch) / trial.folder.parent.name / trial.folder.name)
            unit = unit_of(here.config)
            shown = lambda epoch: console.print(f"{unit} {epoch.epoch}: {first_metric(epoch)}")
            found = receipt(trial, rerun(here, folder, shown, same_content=bool(options.set)))
            write_json(trial.folder / "receipt.json", asdict(found))
            kept = options.keep_student and keep_student(folder.student, trial, found)
    except KDSweepError as error:
        print(error, file=sys.stderr)
        return 2
    print_receipt(console, found)
    if options.keep_student:
        said = "is on disk again" if kept else "was not kept: it is not the one that the record is of"
        console.print(f"The student of {trial.folder} {said}", highlight=False, soft_wrap=True)
    return 1 if found.verdict == "different" else 0


def first_metric(epoch: EpochMetrics) -> str:
    """Return the first metric of the task that an epoch measured, with its value: `val_accuracy 0.8750`."""
    values = {name: getattr(epoch, name) for name, *_ in METRICS.values()}
    name, value = [(name, value) for name, value in values.items() if value is not None][
        -1
    ]  # others have val_accuracy too
    return f"{name} {value:.4f}"


def _announce(console: Console, trial: TrialRow, config: TrialConfig) -> None:
    """Print what is about to run, and where config.yaml or the record is not what the trial left."""
    assert trial.result is not None
    machine = f"{config.device}, {config.precision}, {config.threads} threads"
    lines = [f"Running {trial.folder} again ({plural(trial.result.epochs, unit_of(config))}, {machine}) …"]
    lines += [f"config.yaml is not what ran, {edit}" for edit in trial.edits()]
    lines += [f"torn in the record: {line}" for line in torn_lines(trial.folder)]
    if read_test(trial.folder):
        lines.append("The test split is measured once more, with the same student: that chooses nothing")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
