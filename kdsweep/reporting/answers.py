"""Answer whether distilling helped: the verdict that every format repeats, and sentences with numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from kdsweep.analysis.finalists import Finals, SplitName
from kdsweep.analysis.formats import compact, number, p_text, percent, taught
from kdsweep.analysis.leaderboard import ArmProgress, Row
from kdsweep.analysis.score import (
    majority_score,
    named_score,
    score,
    teacher_score,
)
from kdsweep.analysis.tasks import RowScore
from kdsweep.analysis.two_students import Comparison, Word
from kdsweep.analysis.weak_teacher import WeakTeacher
from kdsweep.config.arms import ARM_NAMES, PRIMARY, Arm
from kdsweep.config.trial import FROM_TEACHER
from kdsweep.records.teacher_schema import TeacherResult
from kdsweep.records.whole_sweep import SweepRecords
from kdsweep.reporting.task_words import ONE_ANSWER, ends, gained, share_of

ALPHA = "alpha weighs the soft term: L = alpha · L_soft + (1 − alpha) · L_hard, so alpha 0 is plain fine-tuning."
BALANCED = "In L_hard every class has the same weight in all, however few its rows are (class_weights: balanced)."
OPENINGS: dict[Word, str] = {
    "better": "Distilling beat plain fine-tuning on the {split} rows",
    "not better": "Distilling did not beat plain fine-tuning on the {split} rows",
    "cannot tell": "These {split} rows cannot tell whether distilling beats plain fine-tuning",
    "better of this pair": "Of these two configurations, the distilled one beat the fine-tuned one on the {split} rows",
    "not better of this pair": "Of these two configurations, the distilled one did not beat the fine-tuned one on the {split} rows",
}
PAIR_CANNOT_TELL = "These {split} rows cannot tell which of these two configurations is better"
ONE_SEED = "A single seed cannot tell whether distilling beats plain fine-tuning"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Compares distilled students with fine-tuned ones on the rows of `split`."""

    split: SplitName
    word: Word
    provisional: bool
    """Whether the students were chosen on the rows that compare them."""
    one_seed: bool
    """Whether an arm has a single seed, which cannot tell luck from recipe: `word` is then `cannot tell`."""
    pair: bool
    """Whether each arm has a single configuration, so that nothing is said of distilling but of these two alone."""
    distilled: tuple[str, ...]
    """Folders of the runs compared, relative to the results folder."""
    fine_tuned: tuple[str, ...]
    rows: int
    score: RowScore
    """What the mean score of a row is, and so the unit of difference and interval: more of each is better."""
    baseline_score: float | None
    """That of the fine-tuned side; None where only the rows were counted that one side alone has right."""
    difference: float
    low: float
    high: float
    p_value: float
    counted: str
    """What interval and p-value count as random."""


def verdict_of(
    first: Row | None, second: Row | None, comparison: Comparison | None, finals: Finals | None
) -> Verdict | None:
    """Return the finalists' verdict where both arms have finalists, else that of both best trials; None where no comparison is possible."""
    numbers = ("rows", "score", "baseline_score", "difference", "low", "high", "p_value")
    if finals and finals.primary:
        facts: dict[str, Any] = {key: getattr(finals.primary, key) for key in (*numbers, "word", "one_seed", "counted")}
        folders: dict[str, Any] = {arm: finals.folders(arm) for arm in PRIMARY}
        return Verdict(
            split=finals.split,
            provisional=finals.split == "validation",
            pair=finals.primary.of_a_pair,
            **facts,
            **folders,
        )
    if comparison is None or first is None or second is None:
        return None
    return Verdict(
        split="validation",
        word="cannot tell",
        provisional=True,
        one_seed=True,
        pair=True,
        distilled=(first.folder,),
        fine_tuned=(second.folder,),
        **{key: getattr(comparison, key) for key in numbers},
        counted="rows",
    )


def verdict_json(headline: str, verdict: Verdict | None, weak: WeakTeacher | None) -> dict[str, Any]:
    """Return the verdict as leaderboard.json holds it; its values are None where there is no verdict."""
    known = asdict(verdict) if verdict else {field.name: None for field in fields(Verdict)}
    return {"headline": headline, "weak_teacher": asdict(weak) if weak else None, **known}


def headline(first: Row | None, second: Row | None, verdict: Verdict | None, weak: WeakTeacher | None = None) -> str:
    """Return the shortest true answer, without its full stop; a weak teacher, and what to do about it, comes first."""
    said = _opening(first, second, verdict)
    return f"{weak.text()}. {said}" if weak else said


def _opening(first: Row | None, second: Row | None, verdict: Verdict | None) -> str:
    if verdict:
        if verdict.one_seed:
            return ONE_SEED
        said = PAIR_CANNOT_TELL if verdict.pair and verdict.word == "cannot tell" else OPENINGS[verdict.word]
        return said.format(split=verdict.split)
    if first and second:
        return "Distilling and plain fine-tuning, side by side"
    if first is None and second is None:
        return "No trial is complete yet, so there is no answer"
    missing = "distilled" if first is None else "fine-tuned"
    return f"No {missing} trial is complete yet, so whether distilling helps is open"


def answer(
    found: SweepRecords,
    bests: Mapping[Arm, Row],
    comparison: Comparison | None,
    arms: Sequence[ArmProgress],
) -> str:
    """Return one paragraph: the best trial of each arm, the difference of the first two and how sure it is, then teacher and majority class."""
    sentences = [_best_sentence(found, bests[arm.arm], arm) for arm in arms if arm.arm in bests]
    if comparison:
        sentences.append(_difference(comparison, found.sweep.finalist_runs()))
    elif all(arm in bests for arm in PRIMARY):
        sentences.append("No paired test: the predictions of both and the validation labels are not all on disk.")
    return " ".join([*sentences, _yardsticks(found)])


def _yardsticks(found: SweepRecords) -> str:
    """Return the scores of the teacher and of always naming the commonest class, as a sentence."""
    if found.teacher is None:
        return "The teacher has not been measured yet."
    metric, teacher, task = found.sweep.study.metric, teacher_score(found), found.task
    majority = f"{ONE_ANSWER[task]} gives {named_score(metric, majority_score(found), task=task)}."
    if found.teacher.lacks("validation"):
        return f"{not_known(found.teacher, 'validation')} {majority[0].upper()}{majority[1:]}"
    if teacher is None:
        return f"The teacher's {metric} is not known, for its predictions are not on this disk; {majority}"
    return f"The teacher reaches {named_score(metric, teacher, task=task)}; {majority}"


def not_known(teacher: TeacherResult, split: SplitName) -> str:
    """Say what is not known of a teacher that is a file without numbers for some rows of `split`, as a sentence."""
    rows = {"validation": teacher.validation_rows, "test": teacher.test_rows}[split]
    lacking = rows - teacher.taught_rows.get(split, 0)
    return (
        f"How good the teacher is on the {split} rows, how often students agree with it and which share of the gap to it distilling closes "
        f"is not known, for its file has no numbers for {lacking:,} of these {rows:,}."
    )


def _best_sentence(found: SweepRecords, row: Row, arm: ArmProgress) -> str:
    chosen = ", ".join(f"{name} {compact(value)}" for name, value in row.searched.items() if value is not None)
    complete = arm.counts["complete"]
    kind = ARM_NAMES[arm.arm]
    which = f"The best of {complete} {kind} trials" if complete > 1 else f"The only complete {kind} trial"
    return f"{which}, trial {row.trial.trial} with {chosen}, reaches {_reached(found, row)}."


def _reached(found: SweepRecords, row: Row) -> str:
    """Return a trial's score by `study.metric`, and with another metric its accuracy, or the typical error of its numbers."""
    metric, task, result = found.sweep.study.metric, found.task, row.trial.result
    said = named_score(metric, score(row.trial, found.sweep), task=task)
    if task == "regression":
        return f"{said} and a root mean squared error of {number(result.val_rmse if result else None, 3)}"
    interval = f" (95 % interval {percent(row.interval[0])} to {percent(row.interval[1])})" if row.interval else ""
    accuracy = f"{named_score('val_accuracy', row.val_accuracy, task=task)}{interval}"
    if metric == "val_accuracy":
        return accuracy
    return f"{said} and {'an accuracy of ' if task == 'single_label' else ''}{accuracy}"


def _difference(comparison: Comparison, finalist_runs: int) -> str:
    way = "finalists on fresh seeds are to come" if finalist_runs else "finalists would: finalists.top, finalists.seeds"
    test = "exact McNemar" if comparison.score == "accuracy" else "paired t test"
    share = share_of(comparison, comparison.baseline_score)
    return (
        f"Of {comparison.rows:,} rows, {_better_rows(comparison)}: {gained(comparison)} ({share}95 % interval {ends(comparison)}, {test} "
        f"{p_text(comparison.p_value)}, counting rows alone as random). "
        f"But these are two runs of one seed each, which cannot tell luck from recipe ({way}): cannot tell."
    )


def _better_rows(found: Comparison) -> str:
    """Return on how many rows each of two runs is the better one."""
    if found.score == "accuracy":
        return f"{found.gains} are right with distilling alone and {found.losses} with fine-tuning alone"
    what = "a smaller error" if found.score == "minus_squared_error" else "a higher F1"
    return f"{found.gains} have {what} with distilling and {found.losses} with fine-tuning"


def conventions(found: SweepRecords) -> str:
    """Return what a reader must know to read the numbers: how students start, and which term alpha weighs."""
    teacher = found.teacher
    terms = f"{ALPHA} {BALANCED}" if found.sweep.fixed.get("class_weights") == "balanced" else ALPHA
    if teacher is None or not teacher.is_file:
        return f"{initial(found)} {terms}"
    file = f"The teacher is a file with numbers for {taught(teacher)} rows; a row without any has L_hard alone. Its size and speed are not known."
    return f"{file} {initial(found)} {terms}"


def initial(found: SweepRecords) -> str:
    """Return how students start, as a sentence."""
    if "student" in found.sweep.search or "student_init" in found.sweep.search:
        return "How students start is searched: see student and student_init in the table."
    configs = [trial.config for trial in found.trials]
    student = configs[0].student if configs else found.sweep.fixed.get("student", FROM_TEACHER)
    if student != FROM_TEACHER:
        return f"Students start from {Path(student).name if student.startswith('/') else student}."
    body = configs[0].student_body if configs else found.sweep.fixed.get("student_body")
    if body is not None:
        return f"Students start from the layers of {Path(body).name if body.startswith('/') else body.partition('#')[0]} (student_body)."
    start = configs[0].student_init if configs else found.sweep.fixed.get("student_init", "pretrained")
    when = "before" if start == "pretrained" else "after"
    return f"Students start from the teacher's layers {when} its fine-tuning (student_init: {start})."
