"""Export a sweep's student for production, and judge every form of it: `python -m kdsweep.export results/T_alpha`."""

import argparse
import os
import shlex
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdsweep.config.forms import ExportConfig
from kdsweep.config.tasks import TaskName
from kdsweep.errors import KDSweepError
from kdsweep.records.layout import export_folder, run_name
from kdsweep.records.reading import TrialRow, read_export, read_exports
from kdsweep.records.whole_sweep import SweepRecords, read_records
from kdsweep.system.files import shown_path
from kdsweep.system.hardware import bound_spinning
from kdsweep.system.process import ends_with_its_reader, for_good

if TYPE_CHECKING:
    from kdsweep.shipping.wanted import Wanted

DESCRIPTION = """\
Export a student for production: the folder that the trial saved, ONNX in float32 and ONNX with weights in 8-bit integers, each
form judged on this machine, with a model card. Folders lie in results/NAME/exports and load with plain transformers and ONNX Runtime.
"""
EPILOG = """\
examples:
  python -m kdsweep.export results/T_alpha                        the run to ship and, to judge it fairly, the best fine-tuned one
  python -m kdsweep.export results/T_alpha 7                      trial 7 of arm distilled; fine_tuned-0003, distilled-0007-seed1
                                                                  and a trial's folder name others
  python -m kdsweep.export results/T_alpha --to reviews-model   and a copy of its folder, to hand on or to upload
  python -m kdsweep.export results/T_alpha --forms int8 --margin 1

int8 is quantised twice, with activations scaled for every batch (dynamic) and once for all from 512 training rows (static); the
validation rows choose one. Then every form is compared with the float32 student on the test split, where the run is a finalist:
`no worse` means that it loses less than the margin (export.margin in the sweep file, 0.5 points) with 97.5 % confidence, `worse` that
it loses something, `cannot tell` that the rows are too few. Points are of accuracy, of example F1 where a row has several labels, of R²
where it has a number. int8 is right for the machine that it was judged on: its speed
and, without VNNI, its labels are others elsewhere; export again there with --again.

What was exported is not made again while the student, the forms and the margin are the same. A folder is replaced whole: one
killed at any moment leaves the old one or the new one. Needs pip install 'kdsweep[export]'; takes a minute or two a student.

exit codes: 0 done, 2 a problem that the message explains
"""
ANSWERS: dict[TaskName, str] = {"single_label": "the classes", "multi_label": "the labels", "regression": "the numbers"}
"""What `predict` says of texts, by task."""
INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended, as a shell shows it."""


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a sweep's results folder, such as results/T_alpha")
    parser.add_argument("trial", nargs="?", metavar="TRIAL", help="another trial than the one to ship")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="copy the exported folder there, whole")
    parser.add_argument(
        "--forms", nargs="+", choices=("fp32", "int8"), help="ONNX forms (default: the sweep file's export.forms)"
    )
    parser.add_argument(
        "--margin", type=_points, metavar="POINTS", help="points that a form may lose (default: export.margin)"
    )
    parser.add_argument("--again", action="store_true", help="make and judge again what is already exported")
    return parser


def _points(text: str) -> float:
    try:
        points = float(text)
    except ValueError:
        points = 0.0
    if not 0 < points <= 100:
        raise argparse.ArgumentTypeError(f"0 < points <= 100 must hold, but got {text!r}")
    return points


def export(options: argparse.Namespace) -> None:
    """Export what the command line asks for, write the sweep's report again, and print what was found. Raises KDSweepError."""
    from kdsweep.shipping.choice import named, to_export
    from kdsweep.shipping.extra import EXPORTING, need
    from kdsweep.shipping.folder import alone, copy_export

    need(*EXPORTING)
    found = read_records(options.folder)
    runs = (named(found, options.trial),) if options.trial else to_export(found)
    before = {each.run: each.made_at for each in read_exports(found.folder)}
    with alone(found.folder):
        done = _all_exported(found, runs, options)
        copied = copy_export(done[0], options.to) if options.to else None
    _print_report(found.folder, done)
    _send(found, before)
    _print_next(done[0], copied)


def _send(found: SweepRecords, before: Mapping[str, str]) -> None:
    """Send the exported student to ship to W&B, if the sweep has `tracking.log_model`; not one that was made at its time in `before`."""
    from kdsweep.analysis.shipped import shipped
    from kdsweep.tracking.artifacts import send_export

    best = shipped(found)
    record = read_export(export_folder(found.folder, best.id)) if best else None
    if record and record.made_at != before.get(record.run):
        send_export(found, record, print)


def _all_exported(found: SweepRecords, runs: Sequence[TrialRow], options: argparse.Namespace) -> list[Path]:
    """Export the runs that are not exported as asked, and return the folders. The first must succeed; a problem of another is printed."""
    wanted = _wanted(found.sweep.export, options)
    done = []
    for run in runs:
        try:
            _exported(found, run, wanted, again=options.again)
            done.append(export_folder(found.folder, run.id))
        except KDSweepError as error:
            if run is runs[0]:
                raise
            print(f"{run_name(run.id)} is not exported, and the rest is kept: {error}", file=sys.stderr)
    return done


def _wanted(config: ExportConfig, options: argparse.Namespace) -> "Wanted":
    from kdsweep.shipping.wanted import Wanted

    margin = config.margin_share if options.margin is None else options.margin / 100
    return Wanted(forms=tuple(dict.fromkeys(options.forms or config.forms)), margin=margin)


def _exported(found: SweepRecords, run: TrialRow, wanted: "Wanted", *, again: bool) -> None:
    """Export one run, and print each step with the seconds since the first."""
    from kdsweep.shipping.wanted import current

    name, started = run_name(run.id), time.perf_counter()
    if not again and current(run, found, wanted):
        print(f"{name}: exported already, as asked; --again makes and judges it again")
        return
    bound_spinning()
    with for_good():
        from kdsweep.shipping.export import export as export_run
        from kdsweep.training.shared import Materials

    def tell(what: str) -> None:
        print(f"{name}, {time.perf_counter() - started:4.0f} s: {what}", flush=True)

    tell("the student and its rows")
    export_run(run, found, wanted, Materials(), tell)
    tell("exported")


def _print_report(sweep_folder: Path, done: Sequence[Path]) -> None:
    """Write the report again, and print from it the table of each of the exported folders."""
    from kdsweep.reporting.markdown import export_tables
    from kdsweep.reporting.tables import TERMINAL_WIDTH, terminal_tables
    from kdsweep.reporting.write import write_report

    report = write_report(sweep_folder)
    for each, (title, table, measured) in zip(report.exports, export_tables(report), strict=True):
        if each.export.run in {folder.name for folder in done}:
            print(f"\n{textwrap.fill(title, TERMINAL_WIDTH)}\n{terminal_tables(table, keys=1)}")
            print(textwrap.fill(measured, TERMINAL_WIDTH))
    print(
        f"\nWritten: {', '.join(map(shown_path, done))}, and the report again: {shown_path(sweep_folder)}/report.html"
    )


def _print_next(folder: Path, copied: Path | None) -> None:
    from kdsweep.shipping.card import upload_command

    there, export = Path(os.path.relpath(copied)) if copied else Path(shown_path(folder)), read_export(folder)
    answers = ANSWERS[export.task if export else "single_label"]
    lines = {
        f"python -m kdsweep.predict {shlex.quote(str(there))} texts.txt": f"{answers} of a file of texts, a line each",
        upload_command(there): "to the Hub, once you have read README.md and filled in its licence",
    }
    print("Next:\n" + "\n".join(f"  {line}    # {purpose}" for line, purpose in lines.items()))


@ends_with_its_reader
def main(arguments: Sequence[str] | None = None, *, prog: str = "python -m kdsweep.export") -> int:
    """Run the command line; return 0, or 2 for a problem that is printed."""
    options = _parser(prog).parse_args(arguments)
    try:
        export(options)
    except KDSweepError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped: what was exported before is as it was", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
