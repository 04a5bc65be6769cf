"""Ask an exported student for the class of each text (or its labels, or its number): `python -m kdsweep.predict FOLDER reviews.txt`.

    python -m kdsweep.predict results/T_alpha/exports/distilled-0007-seed1 reviews.txt
    echo "a gripping film" | python -m kdsweep.predict results/T_alpha

ONNX Runtime alone answers, and every text alone: an 8-bit form may answer a row in a batch otherwise than alone.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdsweep.config.tasks import TaskName
from kdsweep.errors import KDSweepError, ShippingError, listed
from kdsweep.records.export_schema import Export
from kdsweep.records.layout import EXPORT_FILE, export_folder, exports_folder, run_name
from kdsweep.records.reading import read_export, read_exports
from kdsweep.system.process import ends_with_its_reader

EPILOG = """\
examples:
  python -m kdsweep.predict results/T_alpha reviews.txt              the student that the sweep's report ships
  python -m kdsweep.predict results/T_alpha/exports/distilled-0007-seed1 reviews.csv --json
  head -1000 reviews.txt | python -m kdsweep.predict FOLDER          answers each line as it comes

FILE has a text on each line; between the two texts of a pair stands a tab. Of a .csv, .tsv, .jsonl or .ndjson file the columns are
read that the student was trained on. An empty line is answered by an empty line. Without --json, a line is the class, its
probability and the text, with tabs between them. A student of several labels gives all of a probability above 0.5, the most
probable first, and their probabilities, each list with commas (both are empty where there is none); one of numbers its number.

This smoke test imports neither torch nor transformers. It answers each text alone, so a service that pads texts into batches is
faster; what int8 does to rows of one batch stands in the folder's README.md.

exit codes: 0 done, 2 a problem that the message explains
"""
ONNX_FORMS = ("fp32", "int8")
INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended, as a shell shows it."""


def exported(folder: Path) -> tuple[Path, Export]:
    """Return the exported folder that `folder` is or, in a sweep's results folder, that of the run to ship; and its record.

    Raises ShippingError where there is none.
    """
    if found := read_export(folder):
        return folder, found
    if not (folder / "sweep.yaml").exists():
        raise ShippingError(
            f"an exported student's folder holds {EXPORT_FILE}, but {folder} {'does not' if folder.is_dir() else 'is no folder'}; "
            "python -m kdsweep.export results/NAME makes one, in results/NAME/exports"
        )
    from kdsweep.analysis.shipped import shipped  # imports SciPy, which an exported folder does not need
    from kdsweep.records.whole_sweep import read_records

    run = shipped(read_records(folder))
    exports = {each.run: each for each in read_exports(folder)}
    if run is None or run_name(run.id) not in exports:
        what = "it has no complete trial" if run is None else f"the run to ship is {run_name(run.id)}"
        raise ShippingError(
            f"a sweep's exported student is asked for, but {folder} has exported {listed(list(exports))} and {what}; "
            f"python -m kdsweep.export {folder} exports that, and a folder in {exports_folder(folder)} can be named instead"
        )
    return export_folder(folder, run.id), exports[run_name(run.id)]


def chosen_form(export: Export, asked: str | None) -> str:
    """Return the form to run: the one that `asked` names; else the one to ship, fp32 where that is no ONNX. Raises ShippingError."""
    there = [form.form for form in export.forms if form.form in ONNX_FORMS]
    if not there or (asked and asked not in there):
        raise ShippingError(
            f"predict runs an ONNX form of {export.run}, {'any' if asked is None else asked}, but it has {listed(there)}; "
            "python -m kdsweep.export with --forms makes others"
        )
    if asked:
        return asked
    from kdsweep.analysis.shipped_form import shipped_form

    shipped = shipped_form(export).form
    return shipped if shipped in there else there[0]


def outputs(logits: np.ndarray, task: TaskName) -> np.ndarray:
    """Compute what one row's logits [C] mean: the softmax of classes, the sigmoid of labels, the number itself."""
    wide: np.ndarray = logits.astype(np.float64)
    if task == "regression":
        return wide
    if task == "multi_label":
        each: np.ndarray = np.exp(-np.logaddexp(0, -wide))
        return each
    raised = np.exp(wide - wide.max())
    shares: np.ndarray = raised / raised.sum()
    return shares


def above_even(shares: Mapping[str, float]) -> list[str]:
    """Return the labels of a probability above 0.5, the most probable first."""
    return sorted((name for name, share in shares.items() if share > 0.5), key=lambda name: -shares[name])


def _line(texts: Sequence[str], found: Mapping[str, float] | None, task: TaskName) -> str:
    """Return what was found for a row, and its texts, with tabs between them; an empty line for an empty row."""
    if found is None:
        return ""
    if task == "regression":
        answer = [f"{value:.4f}" for value in found.values()]
    else:
        labels = above_even(found) if task == "multi_label" else [max(found, key=lambda name: found[name])]
        answer = [", ".join(labels), ", ".join(f"{found[name]:.4f}" for name in labels)]
    return "\t".join([*answer, *(" ".join(text.split()) for text in texts)])


def _json(texts: Sequence[str], found: Mapping[str, float] | None, task: TaskName) -> str:
    """Return a row as a JSON object: its texts, and its class or its labels with the probability of every one, or its number; what was found
    is None of an empty row."""
    named = dict(zip(("text", "text_pair"), texts, strict=False))
    rounded = None if found is None else {name: round(value, 6) for name, value in found.items()}
    answer: dict[str, Any]
    if task == "regression":
        answer = {"prediction": None if rounded is None else next(iter(rounded.values()))}
    elif task == "multi_label":
        answer = {"labels": None if found is None else above_even(found), "probabilities": rounded}
    else:
        label = None if found is None else max(found, key=lambda name: found[name])
        answer = {"label": label, "probabilities": rounded}
    return json.dumps({**named, **answer}, ensure_ascii=False)


def predict(folder: Path, file: Path | None, *, form: str | None, threads: int, as_json: bool) -> None:
    """Print the answer to every row of `file`, or of standard input, one after the other. Raises KDSweepError."""
    there, export = exported(folder)
    from kdsweep.shipping.session import OnnxClassifier
    from kdsweep.shipping.text_rows import read_rows

    student = OnnxClassifier(there, chosen_form(export, form), threads)
    if student.task != export.task:
        raise ShippingError(
            f"{there / 'config.json'} and {EXPORT_FILE} beside it must be of one export, but the first is for {student.task} and the "
            f"second for {export.task}; export the student again"
        )
    show = _json if as_json else _line
    for row in read_rows(file, column=export.text_column, pair_column=export.text_pair_column):
        texts = [row.text] if row.pair is None else [row.text, row.pair]
        found = None
        if not row.is_empty():
            logits = student.logits(texts if row.pair is None else [(row.text, row.pair)])[0]
            found = dict(zip(student.label_names, outputs(logits, export.task).tolist(), strict=True))
        print(show(texts, found, export.task), flush=True)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description=(
            "Ask an exported student for the class of each text, and how probable it is (or for its labels, or its number), by ONNX Runtime "
            "alone."
        ),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folder",
        type=Path,
        help="an exported student's folder; or a sweep's results folder, for the run that its report ships",
    )
    parser.add_argument("file", type=Path, nargs="?", help="the texts; without it, standard input")
    parser.add_argument("--form", choices=ONNX_FORMS, help="which ONNX model runs (default: the one to ship)")
    parser.add_argument("--threads", type=_count, default=1, help="CPU threads (default: 1)")
    parser.add_argument(
        "--json", action="store_true", help="a JSON object a row, with the probability of every class or label"
    )
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number of threads is 1 or more, but got {text!r}")
    return int(text)


@ends_with_its_reader
def main(arguments: Sequence[str] | None = None, *, prog: str = "python -m kdsweep.predict") -> int:
    """Run the command line; return 0, or 2 for a problem that is printed."""
    options = _parser(prog).parse_args(arguments)
    if options.file is None and sys.stdin.isatty():
        print("Reading texts from the terminal, one a line; Ctrl-D ends", file=sys.stderr)
    try:
        predict(options.folder, options.file, form=options.form, threads=options.threads, as_json=options.json)
    except KDSweepError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
