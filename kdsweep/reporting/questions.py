"""Answer what else a reader asks: which student to ship, how sure that is, which settings matter, whether to search on."""

from collections.abc import Mapping, Sequence

from kdsweep.analysis import two_arms as statistics
from kdsweep.analysis.advice import FEWEST_TRIALS, Advice
from kdsweep.analysis.budget import FEWEST_TRIALS as FEWEST_SCORES
from kdsweep.analysis.budget import next_gain
from kdsweep.analysis.exports import Exported, to_ship
from kdsweep.analysis.finalists import Finals, titled
from kdsweep.analysis.formats import number, p_text, percent, plural
from kdsweep.analysis.leaderboard import complete
from kdsweep.analysis.score import difference_text, row_number, row_unit, score
from kdsweep.analysis.secondary import Secondary
from kdsweep.analysis.shipped_form import FORM_NAMES
from kdsweep.analysis.tasks import ROW_SCORES
from kdsweep.analysis.two_arms import FinalComparison
from kdsweep.analysis.two_students import Word
from kdsweep.config.arms import ARM_NAMES, PRIMARY, Arm
from kdsweep.config.tasks import TaskName
from kdsweep.records.reading import TrialRow
from kdsweep.records.schema import TrialResult
from kdsweep.records.whole_sweep import SweepRecords
from kdsweep.reporting.final_answers import one_seed
from kdsweep.reporting.forms import form_said, limits_said, passed_over, stale_said
from kdsweep.reporting.task_words import HARD_LABELS, ends, made

WHICH = "Which student to ship?"
WHICH_FORM = "Which student to ship, and in which form?"
PROVISIONAL = (
    "Provisional: chosen and compared on the same validation rows, and the best of many trials flatters itself."
)

THIRD_OPENINGS: dict[tuple[Arm, Arm], dict[Word, str]] = {
    ("distilled", "pseudo_labeled"): {
        "better": "Soft targets are worth more than the teacher's {labels} on the same texts",
        "not better": "Soft targets are not worth more than the teacher's {labels} on the same texts",
        "cannot tell": "These rows cannot tell soft targets from the teacher's {labels} on the same texts",
    },
    ("pseudo_labeled", "fine_tuned"): {
        "better": "More text helps with {labels} alone",
        "not better": "More text does not help with {labels} alone",
        "cannot tell": "Whether more text helps with {labels} alone, these rows cannot tell",
    },
}
"""How the answer to the third arm's question begins, by the arms compared and the word; an arm of one configuration is told otherwise."""


def questions(
    found: SweepRecords,
    finals: Finals | None,
    shipped: TrialRow | None,
    advice: Sequence[Advice],
    exports: Sequence[Exported] = (),
) -> tuple[tuple[str, str], ...]:
    """Return questions and their answers, in the order in which the report shows them."""
    third = (
        [("Is it the soft targets, or only more text?", _third(finals, found.task))]
        if "pseudo_labeled" in found.sweep.arms
        else []
    )
    return (
        (WHICH_FORM if to_ship(exports) else WHICH, _which(found, finals, shipped, exports)),
        ("How sure is that?", _how_sure(found, finals)),
        *third,
        ("Which settings matter?", _what_matters(found, advice)),
        ("Is more search worth it?", _more(found, finals)),
    )


def _which(found: SweepRecords, finals: Finals | None, run: TrialRow | None, exports: Sequence[Exported]) -> str:
    """Return which run to ship, and in which form where it was exported: then all its numbers are those of the export."""
    if run is None or run.result is None:
        return "None yet: no trial is complete."
    exported = to_ship(exports)
    size = form_said(exported, found.teacher.folds if found.teacher else 1) if exported else _size(run.result, found)
    form = f", as {FORM_NAMES[exported.form.form]}" if exported else ""
    constraints = found.sweep.study.constraints
    others = (
        f"{passed_over(exported)} {limits_said(exported, constraints)}".strip() if exported else stale_said(exports)
    )
    others = " ".join(filter(None, (_pieces(run.result), others)))
    limits = constraints.text()
    kept = f" of those that keep {limits}" if limits else ""
    if not finals:
        what = f"{ARM_NAMES[run.arm]} trial {run.trial}"
        said = f"By the search alone {what}, the best on validation{kept}{form}: {size}. Its score flatters it."
        return f"{said} {others}".rstrip()
    chosen = finals.chosen
    seeds = f"the best on validation over {plural(len(chosen.runs), 'fresh seed')}{kept}"
    load = "The command that loads it stands at the end." if run.has_student() else "Its student is not on this disk."
    load = "The command that tries it stands at the end." if exported else load
    said = f"{titled(chosen).capitalize()}, {seeds}, with seed {run.finalist_seed}{form}: {size}."
    return " ".join(filter(None, (said, others, load)))


def _size(result: TrialResult, found: SweepRecords) -> str:
    """Return size and latency of a student as its trial measured them, beside the teacher's."""
    size, teacher = f"{number(result.size_mb)} MB, {number(result.latency_ms_p50)} ms a row", found.teacher
    if result.latency_ms_p95 is not None:
        size += f" at the median, {number(result.latency_ms_p95)} at the 95th percentile"
    if teacher and not teacher.is_file:
        whose = "the teacher" if teacher.folds == 1 else f"each of the teacher's {teacher.folds} models"
        size += f" ({whose}: {number(teacher.size_mb)} MB, {number(teacher.latency_ms_p50)} ms)"
    if result.limited_form:
        limited = f"{number(result.limited_size_mb)} MB and {number(result.limited_latency_ms_p50)} ms"
        size += f"; {limited} as {result.limited_form}, measured before it was trained"
    return size


def _pieces(result: TrialResult) -> str:
    """Return how a student with fewer pieces than its tokenizer reads the rows that it was measured on; nothing for one that has them all."""
    if result.vocabulary_pieces is None or result.vocabulary_whole is None:
        return ""
    tested = result.test_recut_share is not None
    unknown, recut = (
        (result.test_unknown_share, result.test_recut_share)
        if tested
        else (result.val_unknown_share, result.val_recut_share)
    )
    return (
        f"It has {result.vocabulary_pieces:,} of its tokenizer's {result.vocabulary_whole:,} pieces: of the "
        f"{'test' if tested else 'validation'} texts {percent(recut)} are cut otherwise, and {percent(unknown, 2)} of their pieces are "
        "unknown to it."
    )


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
            f"{_study_size(finals, primary)} finds {_least(primary, finals.detectable)} with a chance of {100 * statistics.POWER:.0f} %; "
            f"{primary.counted} count as random."
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


def _least(primary: FinalComparison, difference: float) -> str:
    """Return the least true difference that a study finds, in words; of squared errors with its share of the baseline's."""
    said = row_number(primary.score, difference)
    if primary.score != "minus_squared_error":
        return f"a true difference of {said} {row_unit(primary.score)}"
    share = f" ({percent(difference / -primary.baseline_score, 0)} of fine-tuning's)" if primary.baseline_score else ""
    return f"a squared error truly lower by {said}{share}"


def _third(finals: Finals | None, task: TaskName) -> str:
    """Return what soft targets add to the texts without labels, and what these add alone, by the finalists of three arms."""
    known = [(openings, finals.between(*arms)) for arms, openings in THIRD_OPENINGS.items()] if finals else []
    labels = HARD_LABELS[task]
    sentences = [_third_sentence(openings, each, labels) for openings, each in known if each]
    return (
        " ".join(sentences)
        or f"It takes finalists of the third arm to say: the same texts with the teacher's {labels}."
    )


def _third_sentence(openings: Mapping[Word, str], each: Secondary, labels: str) -> str:
    assert each.arms is not None
    found, (one, other) = each.comparison, (ARM_NAMES[arm] for arm in each.arms)
    interval = f"95 % interval {ends(found)}, {p_text(each.adjusted_p)} after Holm"
    over = "beside" if found.score == "minus_squared_error" else "over"
    if found.of_a_pair:
        said = f"Of these two configurations alone, the {one} one {made(found)} {over} the {other} one"
    else:
        opening = openings[each.word].format(labels=labels)
        said = f"{opening}: {one} finalists {made(found, several=True)} {over} {other} ones"
    return f"{said} ({interval}): {each.word}."


def _left_out(finals: Finals) -> list[str]:
    """Return sentences about runs and finalists that the verdict leaves out: unfinished, failed, or no longer among the best."""
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
    """Return the size of the comparison in words: its rows, finalists and seeds."""
    one, other = primary.finalists, primary.baseline_finalists
    listed = (
        f"{plural(one, 'finalist')} an arm" if one == other else f"{one} distilled and {other} fine-tuned finalists"
    )
    seeds = sorted({len(row.runs) for row in finals.rows if row.compared and row.arm in PRIMARY})
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
    for arm in found.sweep.arms:
        scores = [score(trial, found.sweep) for trial in complete(found.trials) if trial.arm == arm]
        if scores and (gain := next_gain(scores, len(scores))) is not None:
            added = difference_text(metric, gain)
            gains.append((f"{len(scores)} more {ARM_NAMES[arm]} trials would add about {added}", gain))
    if not gains:
        return f"Too few complete trials to say: an estimate needs {FEWEST_SCORES} of an arm."
    text = f"{'; '.join(words for words, _ in gains)} (by the trials so far, as if independent)."
    known = finals.detectable if finals and metric == f"val_{ROW_SCORES[finals.task]}" else None  # of the same score
    if known is not None and max(gain for _, gain in gains) < known:
        return f"Hardly: {text} That is less than such a study can tell from chance."
    return text
