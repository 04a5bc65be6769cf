"""Name the next commands, ready to paste: the export, a re-run, the report again, the search and W&B's runs, loading the student."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from kdsweep.analysis.exports import Exported, to_ship
from kdsweep.analysis.finalists import Finals
from kdsweep.records import layout
from kdsweep.records.reading import TrialRow
from kdsweep.records.whole_sweep import SweepRecords
from kdsweep.system.files import shown_path
from kdsweep.tracking import names


def next_commands(
    found: SweepRecords, run: TrialRow | None, finals: Finals | None, exports: Sequence[Exported]
) -> tuple[tuple[str, str], ...]:
    """Return the next commands, ready to paste, the one that loads the student last; commands about `run` only where there is one."""
    commands = _of_export(found, run, finals, exports) if run else []
    folders = [shlex.quote(shown_path(folder)) for folder in found.folders]
    if run:
        path, what = shlex.quote(shown_path(run.folder)), f"trial {run.trial}"
        what += "" if run.finalist_seed is None else f" with seed {run.finalist_seed}"
        commands.append((f"Run {what} again and compare", f"python -m kdsweep.reproduce {path}"))
    commands.append(("Write this report again", f"python -m kdsweep.report {' '.join(folders)}"))
    if found.sweep.study.storage is None:
        address = f"sqlite:///{shlex.quote(layout.study_path(Path(shown_path(found.folder))).as_posix())}"
        commands.append(("Look at the search (pip install optuna-dashboard)", f"optuna-dashboard {address}"))
    runs = {shown: names.tracked_runs(folder) for shown, folder in zip(folders, found.folders, strict=True)}
    commands += [("Browse the runs in a terminal", f"wandb leet {shown}/wandb") for shown in folders if runs[shown]]
    offline = [shown for shown in folders if any(path.parent.name.startswith("offline-") for _, path in runs[shown])]
    if offline:
        listed = " ".join(f"{shown}/wandb/offline-run-*" for shown in offline)
        commands.append(("Send offline runs to W&B", f"wandb sync {listed}"))
    if run and run.has_student():
        commands.append(("Load the student, without kdsweep", _load_snippet(shown_path(run.folder / "student"))))
    return tuple(commands)


def _of_export(
    found: SweepRecords, run: TrialRow, finals: Finals | None, exports: Sequence[Exported]
) -> list[tuple[str, str]]:
    """Return the command that tries the exported student; without an export the one that makes it, once `run` is confirmed."""
    if to_ship(exports):
        there = next(there for folder in found.folders if (there := layout.export_folder(folder, run.id)).is_dir())
        return [
            (
                "Try the exported student on a file of texts, a line each",
                f"python -m kdsweep.predict {_quoted(there)} texts.txt",
            )
        ]
    if run.finalist_seed is None or finals is None or finals.unfinished or not run.has_student():
        return []
    return [
        (
            "Export the student to ship, and judge each of its forms",
            f"python -m kdsweep.export {_quoted(run.folder.parent.parent)}",
        )
    ]


def _quoted(folder: Path) -> str:
    return shlex.quote(shown_path(folder))


def _load_snippet(student: str) -> str:
    return (
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n"
        f"student = AutoModelForSequenceClassification.from_pretrained({student!r})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({student!r})"
    )
