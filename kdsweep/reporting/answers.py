"""Whether distilling helped: the one verdict that every format repeats, and the words with numbers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from kdsweep.analysis import two_arms as statistics
from kdsweep.analysis.advice import FEWEST_TRIALS, Advice
from kdsweep.analysis.budget import FEWEST_TRIALS as FEWEST_SCORES
from kdsweep.analysis.budget import next_gain
from kdsweep.analysis.finalists import Finalist, Finals, SplitName, titled
from kdsweep.analysis.formats import compact, number, p_text, percent, plural, points, signed
from kdsweep.analysis.leaderboard import ArmProgress, Row, complete
from kdsweep.analysis.ranking import Estimate
from kdsweep.analysis.score import difference_text, majority_score, named_score, score, teacher_score
from kdsweep.analysis.two_arms import FinalComparison
from kdsweep.analysis.two_students import Comparison, Word
from kdsweep.analysis.weak_teacher import WeakTeacher
from kdsweep.config.sweep import ARM_NAMES, ARMS
from kdsweep.config.trial import FROM_TEACHER
from kdsweep.records.reading import TrialRow
from kdsweep.records.whole_sweep import SweepRecords

ALPHA = "alpha weighs the soft term: L = alpha · L_soft + (1 − alpha) · L_hard, so alpha 0 is plain fine-tuning."
PROVISIONAL = (
    "Provisional: chosen and compared on the same validation rows, and the best of many trials flatters itself."
)
OPENINGS: dict[Word, str] = {
    "better": "Distilling beat plain fine-tuning on the {split} rows",
    "not better": "Distilling did not beat plain fine-tuning on the {split} rows",
    "cannot tell": "These {split} rows cannot tell whether distilling beats plain fine-tuning",
}
ONE_SEED = "A single seed cannot tell whether distilling beats plain fine-tuning"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Distilled students against fine-tuned ones, on the split that it names."""

    split: SplitName
    word: Word
    provisional: bool
    """Whether they were chosen on the rows that compare them."""
    one_seed: bool
    """Whether an arm has a single seed: it cannot tell luck from recipe, so the word is `cannot tell`."""
    distilled: tuple[str, ...]
    """Folders of the runs compared, relative to the results folder."""
    fine_tuned: tuple[str, ...]
    rows: int
    difference: float
    low: float
    high: float
    p_value: float
    counted: str
    """What interval and p-value count as random."""


def verdict_of(
    first: Row | None, second: Row | None, comparison: Comparison | None, finals: Finals | None
) -> Verdict | None:
    """The finalists' verdict where both arms have them, else that of both best trials; None where neither was compared."""
    numbers = ("rows", "difference", "low", "high", "p_value")
    if finals and finals.primary:
        facts: dict[str, Any] = {key: getattr(finals.primary, key) for key in (*numbers, "word", "one_seed", "counted")}
        folders: dict[str, Any] = {arm: finals.folders(arm) for arm in ARMS}
        return Verdict(split=finals.split, provisional=finals.split == "validation", **facts, **folders)
    if comparison is None or first is None or second is None:
        return None
    return Verdict(
        split="validation",
        word="cannot tell",
        provisional=True,
        one_seed=True,
        distilled=(first.folder,),
        fine_tuned=(second.folder,),
        **{key: getattr(comparison, key) for key in numbers},
        counted="rows",
    )


def verdict_json(headline: str, verdict: Verdict | None, weak: WeakTeacher | None) -> dict[str, Any]:
    """The verdict as leaderboard.json has it; nulls where there is none."""
    known = asdict(verdict) if verdict else {field.name: None for field in fields(Verdict)}
    return {"headline": headline, "weak_teacher": asdict(weak) if weak else None, **known}


def headline(first: Row | None, second: Row | None, verdict: Verdict | None, weak: WeakTeacher | None = None) -> str:
    """The shortest true answer, without its full stop; before it a teacher that has nothing to teach, and what to do."""
    said = _opening(first, second, verdict)
    return f"{weak.text()}. {said}" if weak else said


def _opening(first: Row | None, second: Row | None, verdict: Verdict | None) -> str:
    if verdict:
        return ONE_SEED if verdict.one_seed else OPENINGS[verdict.word].format(split=verdict.split)
    if first and second:
        return "Distilling and plain fine-tuning, side by side"
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
    sentences = [_best_sentence(found, row, arm) for row, arm in zip((first, second), arms, strict=True) if row]
    if comparison:
        sentences.append(_difference(comparison, found.sweep.finalist_runs()))
    elif first and second:
        sentences.append("No paired test: the predictions of both and the validation labels are not all on disk.")
    return " ".join([*sentences, _yardsticks(found)])


def _yardsticks(found: SweepRecords) -> str:
    """Return what the teacher and always naming one class reach, as a sentence."""
    if found.teacher is None:
        return "The teacher has not been measured yet."
    metric, teacher = found.sweep.study.metric, teacher_score(found)
    majority = f"always naming the commonest class gives {named_score(metric, majority_score(found))}."
    if teacher is None:
        return f"The teacher's {metric} is not known, for its predictions are not on this disk; {majority}"
    return f"The teacher reaches {named_score(metric, teacher)}; {majority}"


def _best_sentence(found: SweepRecords, row: Row, arm: ArmProgress) -> str:
    metric = found.sweep.study.metric
    chosen = ", ".join(f"{name} {compact(value)}" for name, value in row.searched.items())
    interval = f" (95 % interval {percent(row.interval[0])} to {percent(row.interval[1])})" if row.interval else ""
    complete = arm.counts["complete"]
    kind = ARM_NAMES[arm.arm]
    which = f"The best of {complete} {kind} trials" if complete > 1 else f"The only complete {kind} trial"
    accuracy = f"{percent(row.val_accuracy)}{interval}"
    if metric != "val_accuracy":
        accuracy = f"{named_score(metric, score(row.trial, found.sweep))} and an accuracy of {accuracy}"
    return f"{which}, trial {row.trial.trial} with {chosen}, reaches {accuracy}."


def _difference(comparison: Comparison, finalist_runs: int) -> str:
    way = "finalists on fresh seeds are to come" if finalist_runs else "finalists would: finalists.top, finalists.seeds"
    return (
        f"Of {comparison.rows:,} rows, {comparison.gains} are right with distilling alone and {comparison.losses} with "
        f"fine-tuning alone: {signed(comparison.difference)} points (95 % interval {signed(comparison.low)} to "
        f"{signed(comparison.high)}, exact McNemar {p_text(comparison.p_value)}, counting rows alone as random). "
        f"But these are two runs of one seed each, which cannot tell luck from recipe ({way}): cannot tell."
    )


# Finalists -----------------------------------------------------------------------------------------------------------


def final_answer(finals: Finals, metric: str) -> str:
    """Both bests on fresh seeds, their difference, and the share of the gap to the teacher."""
    sentences = [sentence for arm in ARMS if (sentence := _finalist_sentence(finals, finals.best(arm), metric))]
    if finals.primary:
        sentences.append(_final_difference(finals, finals.primary, metric))
        sentences += [] if finals.primary.one_seed else [_ratio_sentence(finals.ratio)]
    return " ".join(sentences)


def _finalist_sentence(finals: Finals, best: Finalist | None, metric: str) -> str | None:
    if best is None:
        return None
    reached = named_score(metric, best.confirmed_score)
    if finals.split == "test":
        metric = metric.removeprefix("val_")
        reached = named_score(metric, best.mean(metric))
        reached += "" if metric == "accuracy" else f" and an accuracy of {percent(best.mean('accuracy'))}"
    chosen = ", ".join(f"{name} {compact(value)}" for name, value in best.searched.items())
    rows = f" of {best.tests[0].rows:,} rows" if best.tests else ""
    return (
        f"The best {ARM_NAMES[best.arm]} configuration, trial {best.trial} with {chosen}, reaches {reached} on the "
        f"{finals.split} split{rows} (mean of {plural(len(best.runs), 'fresh seed')})."
    )


def _final_difference(finals: Finals, found: FinalComparison, metric: str) -> str:
    of = "" if metric == "val_accuracy" else " of accuracy"
    over = "the finalists of the latest choice" if finals.earlier else "all finalists"
    said = (
        f"Over {over}, distilling makes {signed(found.difference)} points{of} (95 % interval {signed(found.low)} to "
        f"{signed(found.high)}, {p_text(found.p_value)}, counting {found.counted} as random): {found.word}."
    )
    return f"{said} {one_seed(finals)}" if found.one_seed else said


def one_seed(finals: Finals) -> str:
    """Why a single seed an arm gives no verdict, and the way out, as a sentence."""
    more = 2 + min(row.wanted for row in finals.rows if row.compared)
    way = "more are still to come" if finals.unfinished else f"finalists.seeds={more} and the same command run more"
    return f"One seed cannot tell luck from recipe, whatever p says: {way}."


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


def questions(
    found: SweepRecords, finals: Finals | None, shipped: TrialRow | None, advice: Sequence[Advice]
) -> tuple[tuple[str, str], ...]:
    """Question and answer, in the order in which they are asked."""
    return (
        ("Which student to ship?", _which(found, finals, shipped)),
        ("How sure is that?", _how_sure(found, finals)),
        ("Which settings matter?", _what_matters(found, advice)),
        ("Is more search worth it?", _more(found, finals)),
    )


def _which(found: SweepRecords, finals: Finals | None, run: TrialRow | None) -> str:
    if run is None or run.result is None:
        return "None yet: no trial is complete."
    size, teacher = f"{number(run.result.size_mb)} MB, {number(run.result.latency_ms_p50)} ms a row", found.teacher
    if run.result.latency_ms_p95 is not None:
        size += f" at the median, {number(run.result.latency_ms_p95)} at the 95th percentile"
    if teacher:
        size += f" (the teacher: {number(teacher.size_mb)} MB, {number(teacher.latency_ms_p50)} ms)"
    limits = found.sweep.study.constraints.limits()
    kept = (
        f" of those that keep {' and '.join(f'{key} <= {limit:g}' for key, limit in limits.items())}" if limits else ""
    )
    if not finals:
        what = f"{ARM_NAMES[run.arm]} trial {run.trial}"
        return f"By the search alone {what}, the best on validation{kept}: {size}. Its score flatters it."
    chosen = finals.chosen
    seeds = f"the best on validation over {plural(len(chosen.runs), 'fresh seed')}{kept}"
    load = "The command that loads it stands at the end." if run.has_student() else "Its student is not on this disk."
    return f"{titled(chosen).capitalize()}, {seeds}, with seed {run.finalist_seed}: {size}. {load}"


def _how_sure(found: SweepRecords, finals: Finals | None) -> str:
    if not complete(found.trials):
        return "There is nothing to be sure of yet."
    if not finals:
        return f"{PROVISIONAL} {_finalists_to_come(found)}"
    sentences = []
    if finals.primary and finals.primary.one_seed:
        sentences.append(f"{_study_size(finals, finals.primary)} gives no verdict. {one_seed(finals)}")
    if finals.primary and finals.detectable is not None:
        primary = finals.primary
        sentences.append(
            f"{_study_size(finals, primary)} finds a true difference of "
            f"{points(finals.detectable)} points with a chance of {100 * statistics.POWER:.0f} %; {primary.counted} count as random."
        )
        ways = [f"{primary.rows_to_settle:,} rows"] if primary.rows_to_settle else []
        ways += [f"{primary.seeds_to_settle} seeds"] if primary.seeds_to_settle else []
        if ways:
            sentences.append(f"It would take about {' or '.join(ways)} to settle a difference of this size.")
    if finals.shrinkage:
        lost, metric = finals.shrinkage.value, found.sweep.study.metric
        flattered = f"had flattered its finalists: fresh seeds score {difference_text(metric, lost)} less"
        not_so = f"had not flattered its finalists: fresh seeds score {difference_text(metric, abs(lost))} more"
        sentences.append(f"The search {flattered if lost > 0 else not_so}.")
    sentences += _left_out(finals)
    if finals.split == "validation":
        sentences.append("Provisional: there is no test split, so they were chosen and compared on the same rows.")
    elif len(finals.opened) > 1:
        sentences.append(f"The test split was opened {len(finals.opened)} times, so the later verdicts are not clean.")
    elif finals.opened:
        sentences.append(f"The test split was opened once, on {finals.opened[0][:10]}, for the finalists alone.")
    return " ".join([*sentences, "All of it holds for this one teacher and this start of the students."])


def _left_out(finals: Finals) -> list[str]:
    """Of runs and finalists that the verdict does not count: to come, failed, passed by the search."""
    sentences = []
    if finals.unfinished:
        runs = plural(finals.unfinished, "run")
        sentences.append(f"{runs} of finalists {'is' if finals.unfinished == 1 else 'are'} still to come.")
    if finals.failed:
        sentences.append(f"{plural(finals.failed, 'run')} of finalists failed.")
    if finals.earlier:
        passed = ", ".join(finals.earlier)
        sentences.append(f"The search went on after {passed} had run and found better ones: left out of the verdict.")
    return sentences


def _study_size(finals: Finals, primary: FinalComparison) -> str:
    """How large a study is: its rows, and the finalists and seeds that it compares."""
    one, other = primary.finalists, primary.baseline_finalists
    listed = (
        f"{plural(one, 'finalist')} an arm" if one == other else f"{one} distilled and {other} fine-tuned finalists"
    )
    seeds = sorted({len(row.runs) for row in finals.rows if row.compared})
    on = plural(seeds[0], "seed") if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    return f"A study of {primary.rows:,} rows and {listed} on {on}"


def _finalists_to_come(found: SweepRecords) -> str:
    if not found.sweep.finalists.top:
        return "Finalists are switched off (finalists.top is 0), so nothing confirms it."
    return "Finalists on fresh seeds will confirm it when the search is over."


def _what_matters(found: SweepRecords, advice: Sequence[Advice]) -> str:
    if advice:
        short = "; ".join(f"{item.short} ({ARM_NAMES[item.arm]})" for item in advice)
        return f"{short[0].upper()}{short[1:]}. The numbers behind it stand under What mattered."
    done = sum(trial.arm == "distilled" for trial in complete(found.trials))
    if done < FEWEST_TRIALS:
        known = f"{plural(done, 'distilled trial')} {'is' if done == 1 else 'are'} complete"
        return f"Too few trials to say: {known}, and advice starts at {FEWEST_TRIALS}."
    return f"No axis is visibly flat and none has its best at an end, over {done} complete distilled trials."


def _more(found: SweepRecords, finals: Finals | None) -> str:
    gains, metric = [], found.sweep.study.metric
    for arm in ARMS:
        scores = [score(trial, found.sweep) for trial in complete(found.trials) if trial.arm == arm]
        if scores and (gain := next_gain(scores, len(scores))) is not None:
            added = difference_text(metric, gain)
            gains.append((f"{len(scores)} more {ARM_NAMES[arm]} trials would add about {added}", gain))
    if not gains:
        return f"Too few complete trials to say: an estimate needs {FEWEST_SCORES} of an arm."
    text = f"{'; '.join(words for words, _ in gains)} (by the trials so far, as if independent)."
    known = finals.detectable if finals and metric == "val_accuracy" else None  # a difference of accuracies
    if known is not None and max(gain for _, gain in gains) < known:
        return f"Hardly: {text} That is less than such a study can tell from chance."
    return text
