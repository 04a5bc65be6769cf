"""A sweep's report as plain data, read from its results folders: what every format shows."""

import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdsweep import leaderboard, records
from kdsweep.advice import Advice, advice
from kdsweep.answer import answer, conventions, final_answer, headline
from kdsweep.finalists import Finals, read_finals
from kdsweep.gathered import SweepRecords, read_records
from kdsweep.leaderboard import ArmProgress, Row
from kdsweep.questions import questions, shipped
from kdsweep.records import TrialRow
from kdsweep.verdicts import Comparison, compare_predictions
from kdsweep.words import duration


@dataclass(frozen=True, kw_only=True)
class Report:
    """A sweep as plain data: what every format shows."""

    folder: str
    """The results folder as a command on this machine names it."""
    records: SweepRecords
    rows: tuple[Row, ...]
    """Both arms, best first, then those without rank."""
    searched: tuple[str, ...]
    arms: tuple[ArmProgress, ...]
    best_distilled: Row | None
    best_fine_tuned: Row | None
    comparison: Comparison | None
    """Best distilled against best fine-tuned, on the validation rows; None where a test is not possible."""
    finals: Finals | None
    """The best of both arms on fresh seeds and on the test split; None before the first of them is complete."""
    headline: str
    answer: str
    """One paragraph in words with numbers."""
    questions: tuple[tuple[str, str], ...]
    """What else a user asks, and the answers."""
    conventions: str
    """How students start and what alpha means."""
    advice: tuple[Advice, ...]
    """What the next sweep might change."""
    provenance: tuple[tuple[str, str], ...]
    commands: tuple[tuple[str, str], ...]
    """What each is for, and its text."""


def build_report(folder: Path, *others: Path) -> Report:
    """Read a results folder, and what other hosts' folders of the same sweep add. Raises ResultsError where there is none."""
    found = read_records(folder, *others)
    rows = leaderboard.leaderboard(found)
    first, second = leaderboard.best(rows, "distilled"), leaderboard.best(rows, "fine_tuned")
    comparison = _comparison(found, first, second)
    arms = leaderboard.progress(found, rows)
    finals, advised = read_finals(found), advice(found)
    return Report(
        folder=_shown_path(folder),
        records=found,
        rows=rows,
        searched=tuple(found.sweep.search),
        arms=arms,
        best_distilled=first,
        best_fine_tuned=second,
        comparison=comparison,
        finals=finals,
        headline=headline(first, second, comparison, finals),
        answer=final_answer(finals) if finals else answer(found, first, second, comparison, arms),
        questions=questions(found, finals, rows, advised),
        conventions=conventions(found),
        advice=advised,
        provenance=_provenance(found),
        commands=_commands(found, shipped(found, finals, rows)),
    )


def _comparison(found: SweepRecords, first: Row | None, second: Row | None) -> Comparison | None:
    """The paired test of the best of both arms; None where predictions or labels are not on disk."""
    if first is None or second is None:
        return None
    labels = records.read_validation_labels(*found.folders)
    both = [records.read_predictions(row.trial.folder) for row in (first, second)]
    if labels is None or both[0] is None or both[1] is None:
        return None
    return compare_predictions(both[0], both[1], np.asarray(labels))


def _shown_path(folder: Path) -> str:
    """The folder from here where it lies below here, so that a shared report names no home directory."""
    resolved = folder.resolve()
    return resolved.relative_to(Path.cwd()).as_posix() if resolved.is_relative_to(Path.cwd()) else str(folder)


# Where it comes from, and where to go --------------------------------------------------------------------------------


def _provenance(found: SweepRecords) -> tuple[tuple[str, str], ...]:
    teacher, done = found.teacher, [trial.result for trial in found.trials if trial.result]
    lines: list[tuple[str, str]] = []
    if teacher:
        split = f"{teacher.train_rows:,} train, {teacher.validation_rows:,} validation, {teacher.test_rows:,} test"
        lines += [
            ("teacher", teacher.teacher),
            ("teacher weights", f"sha256 {teacher.weights_sha256}"),
            ("data", f"sha256 {teacher.data_sha256}"),
            ("classes", ", ".join(teacher.label_names)),
            ("rows", split),
            ("duplicates dropped", f"{teacher.duplicates_dropped:,} training rows, in validation or test too"),
            ("teacher's fine-tuning", duration(teacher.fine_tuned_seconds) + ", from the cache" * teacher.from_cache),
            ("teacher's logits", duration(teacher.logits_seconds)),
        ]
        lines += [("teacher's W&B run", teacher.run_url)] if teacher.run_url else []
    lines += _folders(found)
    for name in ("device", "threads", "precision"):
        used = Counter(str(getattr(trial.config, name)) for trial in found.trials)
        if used:
            listed = [f"{value} ({n} trials)" if len(used) > 1 else value for value, n in used.items()]
            lines.append((name, ", ".join(listed)))
    if done:
        lines.append(("all trials", f"{duration(sum(result.seconds for result in done))} of training and evaluation"))
    environments = [dict(item.environment) for item in ([teacher] if teacher else []) + done]
    for name in dict.fromkeys(key for environment in environments for key in environment):
        seen = dict.fromkeys(environment[name] for environment in environments if name in environment)
        lines.append((name, " and ".join(seen)))
    return tuple(lines)


def _folders(found: SweepRecords) -> list[tuple[str, str]]:
    """Which trials lie in other hosts' folders, and results that do not count."""
    lines = [
        (f"trials in {_shown_path(other)}", str(sum(trial.folder.is_relative_to(other) for trial in found.trials)))
        for other in found.others
    ]
    if found.spares:
        listed = ", ".join(_shown_path(folder) for folder in found.spares)
        lines.append(("spare results, not counted", f"{listed}: finished twice, with another result"))
    return lines


def _commands(found: SweepRecords, run: TrialRow | None) -> tuple[tuple[str, str], ...]:
    """The next commands, ready to paste; those of the best trial are left out where there is none."""
    commands = []
    folders = [shlex.quote(_shown_path(folder)) for folder in found.folders]
    if run:
        path, what = shlex.quote(_shown_path(run.folder)), f"trial {run.trial}"
        what += "" if run.finalist_seed is None else f" with seed {run.finalist_seed}"
        commands.append((f"Run {what} again and compare", f"python -m kdsweep.reproduce {path}"))
        if run.has_student():
            commands.append(("Load the student, without kdsweep", _load_snippet(_shown_path(run.folder / "student"))))
    commands.append(("Write this report again", f"python -m kdsweep.report {' '.join(folders)}"))
    if found.sweep.study.storage is None:
        address = f"sqlite:///{shlex.quote(records.study_path(Path(_shown_path(found.folder))).as_posix())}"
        commands.append(("Look at the search (pip install optuna-dashboard)", f"optuna-dashboard {address}"))
    runs = {shown: records.tracked_runs(folder) for shown, folder in zip(folders, found.folders, strict=True)}
    commands += [("Browse the runs in a terminal", f"wandb leet {shown}/wandb") for shown in folders if runs[shown]]
    offline = [shown for shown in folders if any(path.parent.name.startswith("offline-") for _, path in runs[shown])]
    if offline:
        listed = " ".join(f"{shown}/wandb/offline-run-*" for shown in offline)
        commands.append(("Send offline runs to W&B", f"wandb sync {listed}"))
    return tuple(commands)


def _load_snippet(student: str) -> str:
    return (
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n"
        f"student = AutoModelForSequenceClassification.from_pretrained({student!r})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({student!r})"
    )
