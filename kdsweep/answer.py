"""Whether distilling helped, in words with numbers."""

from collections.abc import Sequence
from pathlib import Path

from kdsweep.config import FROM_TEACHER
from kdsweep.finalists import Finalist, Finals
from kdsweep.finals import FinalComparison
from kdsweep.gathered import SweepRecords
from kdsweep.leaderboard import ArmProgress, Row
from kdsweep.standings import Estimate
from kdsweep.sweep_config import ARMS
from kdsweep.verdicts import Comparison
from kdsweep.words import ARM_NAMES, compact, percent, plural, signed

ALPHA = "alpha weighs the soft term: L = alpha · L_soft + (1 − alpha) · L_hard, so alpha 0 is plain fine-tuning."
PROVISIONAL = (
    "Provisional: chosen and compared on the same validation rows, and the best of many trials flatters itself."
)
OPENINGS = {
    "better": "Distilling beat plain fine-tuning on the validation rows",
    "not better": "Distilling did not beat plain fine-tuning on the validation rows",
    "cannot tell": "These validation rows cannot tell whether distilling beats plain fine-tuning",
    None: "Distilling and plain fine-tuning, side by side",
}


def headline(first: Row | None, second: Row | None, comparison: Comparison | None, finals: Finals | None = None) -> str:
    """The shortest true answer, without its full stop."""
    if finals and finals.primary:
        return OPENINGS[finals.primary.word].replace("validation", finals.split)
    if first and second:
        return OPENINGS[comparison.word if comparison else None]
    if first is None and second is None:
        return "No trial is complete yet, so there is no answer"
    missing = "distilled" if first is None else "fine-tuned"
    return f"No {missing} trial is complete yet, so whether distilling helps is open"


def answer(
    found: SweepRecords,
    first: Row | None,
    second: Row | None,
    comparison: Comparison | None,
    arms: Sequence[ArmProgress],
) -> str:
    """One paragraph: the two best, their difference and what that is worth, then the yardsticks."""
    sentences = [_best_sentence(row, arm) for row, arm in zip((first, second), arms, strict=True) if row]
    if comparison:
        sentences.append(_difference(comparison))
    elif first and second:
        sentences.append("No paired test: the predictions of both and the validation labels are not all on disk.")
    if found.teacher:
        sentences.append(
            f"The teacher reaches {percent(found.teacher.val_accuracy)}; always naming the commonest class gives "
            f"{percent(found.teacher.majority_accuracy)}."
        )
    else:
        sentences.append("The teacher has not been measured yet.")
    return " ".join(sentences)


def _best_sentence(row: Row, arm: ArmProgress) -> str:
    chosen = ", ".join(f"{name} {compact(value)}" for name, value in row.searched.items())
    interval = f" (95 % interval {percent(row.interval[0])} to {percent(row.interval[1])})" if row.interval else ""
    complete = arm.counts["complete"]
    kind = ARM_NAMES[arm.arm]
    which = f"The best of {complete} {kind} trials" if complete > 1 else f"The only complete {kind} trial"
    return f"{which}, trial {row.trial.trial} with {chosen}, reaches {percent(row.val_accuracy)}{interval}."


def _difference(comparison: Comparison) -> str:
    p_value = "p < 0.001" if comparison.p_value < 0.001 else f"p = {comparison.p_value:.3f}"
    return (
        f"Of {comparison.rows:,} rows, {comparison.gains} are right with distilling alone and {comparison.losses} with "
        f"fine-tuning alone: {signed(comparison.difference)} points (95 % interval {signed(comparison.low)} to "
        f"{signed(comparison.high)}, exact McNemar {p_value}): "
        f"{comparison.word}."
    )


# Finalists -----------------------------------------------------------------------------------------------------------


def final_answer(finals: Finals) -> str:
    """Both bests on fresh seeds, their difference, and the share of the gap to the teacher."""
    sentences = [sentence for arm in ARMS if (sentence := _finalist_sentence(finals, finals.best(arm)))]
    if finals.primary:
        sentences += [_final_difference(finals.primary), _ratio_sentence(finals.ratio)]
    return " ".join(sentences)


def _finalist_sentence(finals: Finals, best: Finalist | None) -> str | None:
    if best is None:
        return None
    accuracy = best.mean("accuracy") if finals.split == "test" else best.confirmed_score
    chosen = ", ".join(f"{name} {compact(value)}" for name, value in best.searched.items())
    rows = f" of {best.tests[0].rows:,} rows" if best.tests else ""
    return (
        f"The best {ARM_NAMES[best.arm]} configuration, trial {best.trial} with {chosen}, reaches {percent(accuracy)} on the "
        f"{finals.split} split{rows} (mean of {plural(len(best.runs), 'fresh seed')})."
    )


def _final_difference(found: FinalComparison) -> str:
    p_value = "p < 0.001" if found.p_value < 0.001 else f"p = {found.p_value:.3f}"
    return (
        f"Over all finalists, distilling makes {signed(found.difference)} points (95 % interval {signed(found.low)} to "
        f"{signed(found.high)}, {p_value}, counting {found.counted} as random): {found.word}."
    )


def _ratio_sentence(ratio: Estimate | None) -> str:
    if ratio is None:
        return (
            "The share of the gap to the teacher that distilling closes is undefined: fine-tuning leaves no clear gap."
        )
    return (
        f"Distilling closes {percent(ratio.value, 0)} of the gap between fine-tuning and the teacher "
        f"(95 % interval {percent(ratio.low, 0)} to {percent(ratio.high, 0)})."
    )


def conventions(found: SweepRecords) -> str:
    """What a reader must know to read the numbers: how students start, and which term alpha weighs."""
    return f"{initial(found)} {ALPHA}"


def initial(found: SweepRecords) -> str:
    """How students start, as a sentence."""
    if "student" in found.sweep.search or "student_init" in found.sweep.search:
        return "How students start is searched: see student and student_init in the table."
    configs = [trial.config for trial in found.trials]
    student = configs[0].student if configs else found.sweep.fixed.get("student", FROM_TEACHER)
    if student != FROM_TEACHER:
        return f"Students start from {Path(student).name if student.startswith('/') else student}."
    start = configs[0].student_init if configs else found.sweep.fixed.get("student_init", "pretrained")
    when = "before" if start == "pretrained" else "after"
    return f"Students start from the teacher's layers {when} its fine-tuning (student_init: {start})."
