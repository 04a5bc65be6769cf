"""Build a sweep's report as plain data from its results folders: what every format shows."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdsweep.analysis import leaderboard
from kdsweep.analysis.advice import Advice, advice
from kdsweep.analysis.by_class import ByClass, read_by_class
from kdsweep.analysis.exports import Exported, placed_exports
from kdsweep.analysis.finalists import Finals
from kdsweep.analysis.formats import TWO_LABELS, duration, percent, plural, taught, truncated, unlabeled
from kdsweep.analysis.leaderboard import ArmProgress, Row
from kdsweep.analysis.patience import Patience, read_patience
from kdsweep.analysis.predicted_numbers import Numbers, read_numbers
from kdsweep.analysis.read_finals import read_finals
from kdsweep.analysis.shipped import shipped
from kdsweep.analysis.two_students import Comparison, compare_by_task
from kdsweep.analysis.weak_teacher import WeakTeacher, weak_teacher
from kdsweep.analysis.work import Given, given_work
from kdsweep.config.arms import PRIMARY, Arm
from kdsweep.config.tasks import TaskName
from kdsweep.records import layout, reading
from kdsweep.records.reading import TrialRow
from kdsweep.records.schema import FinalTest, TrialResult
from kdsweep.records.teacher_schema import TeacherResult
from kdsweep.records.whole_sweep import SweepRecords, read_records
from kdsweep.reporting.answers import Verdict, answer, conventions, headline, verdict_of
from kdsweep.reporting.commands import next_commands
from kdsweep.reporting.final_answers import final_answer
from kdsweep.reporting.questions import questions
from kdsweep.reporting.task_words import LABELS_SAID
from kdsweep.reporting.work import work_questions
from kdsweep.system.files import shown_path


@dataclass(frozen=True, kw_only=True)
class Report:
    """Holds a sweep's report as plain data: what every format shows."""

    folder: str
    """The results folder as a command on this machine names it."""
    records: SweepRecords
    rows: tuple[Row, ...]
    """Trials of all arms, best first, then those without a rank."""
    searched: tuple[str, ...]
    arms: tuple[ArmProgress, ...]
    bests: Mapping[Arm, Row]
    """The best complete trial of each arm that has one."""
    comparison: Comparison | None
    """Best distilled against best fine-tuned, on the validation rows; None where a test is not possible."""
    finals: Finals | None
    """The best of each arm on fresh seeds and on the test split; None before the first of them is complete."""
    patience: Patience | None
    """The finalists beside their trials in the search; None where they were trained no longer."""
    work: tuple[Given, ...]
    """What each arm's search was given, then what each arm's finalists were."""
    shipped: TrialRow | None
    """The run whose student is the one to ship; None before the first complete trial."""
    exports: tuple[Exported, ...]
    """The exported students, that of `shipped` first; empty without any."""
    verdict: Verdict | None
    """The verdict that every format repeats, on the split that it names; None where no test is possible."""
    weak_teacher: WeakTeacher | None
    """Why distilling has nothing to teach; None where the teacher is good enough, as far as is known."""
    teacher_test: FinalTest | None
    """The teacher on the test split; None before the first finalist opened it."""
    by_class: ByClass | None
    """The teacher and the best students class by class; None where no student's predictions are on disk."""
    numbers: Numbers | None
    """What teacher and best student of a regression predict; None for other tasks, and where the student's predictions are not on disk."""
    headline: str
    answer: str
    """One paragraph in words with numbers."""
    questions: tuple[tuple[str, str], ...]
    """What else a user asks, and the answers."""
    conventions: str
    """How students start and what alpha means."""
    doubts: tuple[str, ...]
    """Why the records may mislead: configs edited after their run, torn lines."""
    advice: tuple[Advice, ...]
    """What the next sweep might change."""
    provenance: tuple[tuple[str, str], ...]
    commands: tuple[tuple[str, str], ...]
    """The purpose of each command, and its text."""

    @property
    def task(self) -> TaskName:
        """Return the task of the rows' labels, whose words and metrics every format uses."""
        return self.records.task


def build_report(folder: Path, *others: Path) -> Report:
    """Build the report of a results folder and of `others`, other hosts' folders of this sweep. Raises ResultsError where there is none."""
    found = read_records(folder, *others)
    rows = leaderboard.leaderboard(found)
    bests = {arm: row for arm in found.sweep.arms if (row := leaderboard.best(rows, arm))}
    first, second = (bests.get(arm) for arm in PRIMARY)
    comparison = _comparison(found, first, second)
    arms = leaderboard.progress(found, rows)
    finals, advised = read_finals(found), advice(found)
    verdict, ship = verdict_of(first, second, comparison, finals), shipped(found)
    work, patience = given_work(found), read_patience(found, finals)
    weak, exports = weak_teacher(found.sweep, found.folders, found.trials), placed_exports(found)
    return Report(
        folder=shown_path(folder),
        records=found,
        rows=rows,
        searched=tuple(found.sweep.search),
        arms=arms,
        bests=bests,
        comparison=comparison,
        finals=finals,
        patience=patience,
        work=work,
        shipped=ship,
        exports=exports,
        verdict=verdict,
        weak_teacher=weak,
        teacher_test=_teacher_test(found),
        by_class=read_by_class(found, finals, rows),
        numbers=read_numbers(found, finals, rows),
        headline=headline(first, second, verdict, weak),
        answer=final_answer(finals, found.sweep.study.metric, found.teacher)
        if finals
        else answer(found, bests, comparison, arms),
        questions=(*questions(found, finals, ship, advised, exports), *work_questions(work, patience)),
        conventions=conventions(found),
        doubts=_doubts(found),
        advice=advised,
        provenance=provenance(found),
        commands=next_commands(found, ship, finals, exports),
    )


def _comparison(found: SweepRecords, first: Row | None, second: Row | None) -> Comparison | None:
    """Return the paired test of the best distilled and fine-tuned trials; None where one, its predictions or the labels are missing."""
    if first is None or second is None:
        return None
    labels = reading.read_validation_labels(*found.folders)
    both = [reading.read_predictions(row.trial.folder) for row in (first, second)]
    if labels is None or both[0] is None or both[1] is None:
        return None
    return compare_by_task(both[0], both[1], np.asarray(labels), found.task)


def _teacher_test(found: SweepRecords) -> FinalTest | None:
    tests = (reading.read_test(layout.teacher_folder(folder)) for folder in found.folders)
    return next((test for test in tests if test is not None), None)


def _doubts(found: SweepRecords) -> tuple[str, ...]:
    """Return a line about edited configs and a line about torn records, each only where there are any."""
    rows = (*found.trials, *found.finalists)
    edited = [f"{shown_path(row.folder)} ({'; '.join(edits)})" for row in rows if (edits := row.edits())]
    folders = [*(layout.teacher_folder(there) for there in found.folders), *(row.folder for row in rows)]
    torn = [f"{shown_path(folder)}/{line}" for folder in folders for line in reading.torn_lines(folder)]
    lines = []
    if edited:
        what = "config.yaml was edited after the run: tables show what it says now, scores are of what ran"
        lines.append(f"{what}. {_listed(edited)}.")
    if torn:
        what = "Torn lines in the records, left out of curves and audit; ranking and verdicts read none of them"
        lines.append(f"{what}. {_listed(torn)}.")
    return tuple(lines)


def _listed(items: list[str], most: int = 5) -> str:
    more = f"; and {len(items) - most} more" if len(items) > most else ""
    return "; ".join(items[:most]) + more


# Provenance ----------------------------------------------------------------------------------------------------------


def provenance(found: SweepRecords) -> tuple[tuple[str, str], ...]:
    """Return what ran, on which rows and with which software, as names and texts."""
    teacher, done = found.teacher, [trial.result for trial in found.trials if trial.result]
    lines: list[tuple[str, str]] = []
    if teacher:
        split = f"{teacher.train_rows:,} train, {teacher.validation_rows:,} validation, {teacher.test_rows:,} test"
        lines += [
            ("teacher", teacher.teacher),
            ("teacher's numbers" if teacher.is_file else "teacher weights", f"sha256 {teacher.weights_sha256}"),
            ("data", f"sha256 {teacher.data_sha256}"),
            (LABELS_SAID[teacher.task], ", ".join(teacher.label_names)),
            ("rows", split),
            (
                "duplicates dropped",
                f"{teacher.duplicates_dropped:,} rows of training or validation that a later split has too",
            ),
            *_unlabeled(found),
            *_oddities(found, teacher),
            *(_numbers(teacher) if teacher.is_file else _fine_tuning(teacher)),
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
        line = (name, " and ".join(seen))
        lines += [line] if line not in lines else []
    return tuple(lines)


def _fine_tuning(teacher: TeacherResult) -> list[tuple[str, str]]:
    return [
        ("teacher's fine-tuning", duration(teacher.fine_tuned_seconds) + ", from the cache" * teacher.from_cache),
        ("teacher's logits", duration(teacher.logits_seconds)),
    ]


def _numbers(teacher: TeacherResult) -> list[tuple[str, str]]:
    """Return lines about a teacher that is a file: the rows that it has numbers for, how good and how hard these are."""
    known = teacher.numbers
    lines = [("rows with the teacher's numbers", taught(teacher))]
    quality = ""
    if "accuracy" in known:
        name = "subset accuracy" if teacher.task == "multi_label" else "accuracy"
        quality = (
            f"{name} {percent(known['accuracy'])}, loss {known['loss']:.3f}, calibration error {percent(known['ece'])}"
        )
    elif "loss" in known:
        quality = f"mean squared error {known['loss']:.3f}"
    if quality:
        lines.append(("teacher on labelled rows", f"{quality}, on {known['labeled_rows']:,} of train and validation"))
    if teacher.task == "regression":
        return lines
    hard = f"{percent(known['zeros'])} of the probabilities are exactly 0, {percent(known['one_hot'])} of the rows name one class alone"
    return [*lines, ("teacher's hard labels", hard)]


def _oddities(found: SweepRecords, teacher: TeacherResult) -> list[tuple[str, str]]:
    """Return lines about empty texts, texts with several labels and rows cut by `max_length`, where there are any."""
    lines = []
    if teacher.empty_texts_dropped:
        lines.append(("empty texts", f"{plural(teacher.empty_texts_dropped, 'row')} left out"))
    if teacher.conflicting_texts:
        told = f"{plural(teacher.conflicting_texts, 'text')} of the files, before limits and dropped duplicates"
        lines.append((TWO_LABELS[teacher.task], told))
    if teacher.truncated_rows:
        lines.append(
            ("cut by max_length", f"{truncated(teacher.truncated_rows, teacher.sizes())}, as the teacher reads them")
        )
    own = [trial for trial in found.trials if trial.result and _reads_otherwise(trial.result, teacher)]
    if own:
        most = max(own, key=lambda trial: sum(trial.result.truncated_rows.values()) if trial.result else 0)
        assert most.result is not None
        told = ", ".join(f"{count:,} {name}" for name, count in most.result.truncated_rows.items())
        lines.append(("cut by max_length, students", f"at most {told}, with max_length {most.config.max_length}"))
    return lines


def _unlabeled(found: SweepRecords) -> list[tuple[str, str]]:
    """Return lines about the texts without labels, of the trial that had most; empty where no trial had any."""
    results = [trial.result for trial in found.trials if trial.result and trial.result.unlabeled_rows]
    if not results:
        return []
    most = max(results, key=lambda result: result.unlabeled_rows)
    told = unlabeled(most.unlabeled_rows, most.unlabeled_dropped)
    return [("texts without labels", told), ("their data", f"sha256 {most.unlabeled_sha256}")]


def _reads_otherwise(result: TrialResult, teacher: TeacherResult) -> bool:
    cut = result.truncated_rows
    return any(cut[name] != teacher.truncated_rows.get(name, 0) for name in cut if name != "unlabeled")


def _folders(found: SweepRecords) -> list[tuple[str, str]]:
    """Return how many trials each of the other hosts' folders holds, and which results are not counted."""
    lines = [
        (f"trials in {shown_path(other)}", str(sum(trial.folder.is_relative_to(other) for trial in found.trials)))
        for other in found.others
    ]
    if found.spares:
        listed = ", ".join(shown_path(folder) for folder in found.spares)
        lines.append(("spare results, not counted", f"{listed}: finished twice, with another result"))
    return lines
