"""Answer from the finalists whether distilling helped: each arm's best on fresh seeds, the difference of the arms, the gap to the teacher."""

from kdsweep.analysis.finalists import Finalist, Finals
from kdsweep.analysis.formats import compact, number, p_text, percent, plural
from kdsweep.analysis.ranking import Estimate
from kdsweep.analysis.score import named_score
from kdsweep.analysis.two_arms import FinalComparison
from kdsweep.config.arms import ARM_NAMES, ARMS, PRIMARY
from kdsweep.records.teacher_schema import TeacherResult
from kdsweep.reporting.answers import not_known
from kdsweep.reporting.task_words import correlation, ends, made, share_of

ONLY_A_PAIR = "These two alone do not tell whether distilling helps: another pair may differ the other way"


def final_answer(finals: Finals, metric: str, teacher: TeacherResult | None = None) -> str:
    """Return one paragraph: each arm's best finalist, the difference of the arms, and the share of the gap to the teacher."""
    sentences = [sentence for arm in ARMS if (sentence := _finalist_sentence(finals, finals.best(arm), metric))]
    if (factor := finals.chosen.factor) != 1:
        sentences.append(f"All finalists were trained {factor:g} times as long as in the search.")
    if finals.primary:
        sentences.append(_final_difference(finals, finals.primary, metric))
        lacks = teacher is not None and teacher.lacks(finals.split)
        told = finals.primary.one_seed or lacks
        sentences += [] if told else [_ratio_sentence(finals.ratio, finals.primary.of_a_pair)]
    if teacher is not None and teacher.lacks(finals.split):
        sentences.append(not_known(teacher, finals.split))
    return " ".join(sentences)


def _finalist_sentence(finals: Finals, best: Finalist | None, metric: str) -> str | None:
    if best is None:
        return None
    reached = _confirmed(finals, best, metric)
    chosen = ", ".join(f"{name} {compact(value)}" for name, value in best.searched.items() if value is not None)
    rows = f" of {best.tests[0].rows:,} rows" if best.tests else ""
    return (
        f"The best {ARM_NAMES[best.arm]} configuration, trial {best.trial} with {chosen}, reaches {reached} on the "
        f"{finals.split} split{rows} (mean of {plural(len(best.runs), 'fresh seed')})."
    )


def _confirmed(finals: Finals, best: Finalist, metric: str) -> str:
    """Return a finalist's score by `study.metric`; on the test split, with another metric, its accuracy or the typical error of its numbers too."""
    task = finals.task
    if finals.split == "validation":
        return named_score(metric, best.confirmed_score, task=task)
    metric = metric.removeprefix("val_")
    reached = named_score(metric, best.mean(metric), task=task)
    if metric == "accuracy":
        return reached
    if task == "regression":
        return f"{reached} and a root mean squared error of {number(best.mean('rmse'), 3)}"
    accuracy = named_score("accuracy", best.mean("accuracy"), task=task)
    return f"{reached} and {'an accuracy of ' if task == 'single_label' else ''}{accuracy}"


def _final_difference(finals: Finals, found: FinalComparison, metric: str) -> str:
    unit = "points of accuracy" if found.score == "accuracy" and metric != "val_accuracy" else None
    over = "the finalists of the latest choice" if finals.earlier else "all finalists"
    what = "Of these two configurations, the distilled one" if found.of_a_pair else f"Over {over}, distilling"
    said = (
        f"{what} {made(found, unit=unit)} ({share_of(found, found.baseline_score)}95 % interval {ends(found)}, "
        f"{p_text(found.p_value)}, counting {found.counted} as random): {found.word}."
    )
    said = " ".join([said, *_correlation(finals)])
    if found.one_seed:
        return f"{said} {one_seed(finals)}"
    return f"{said} {only_a_pair(finals)}" if found.of_a_pair else said


def _correlation(finals: Finals) -> list[str]:
    """Return the difference of Pearson's correlations, which is no mean over rows and is therefore resampled, as a sentence; none without it."""
    if finals.pearson is None:
        return []
    found = finals.pearson
    difference, low, high = (correlation(value, sign=True) for value in (found.value, found.low, found.high))
    return [f"Pearson's r changes by {difference} (95 % interval {low} to {high}, {found.counted})."]


def only_a_pair(finals: Finals) -> str:
    """Return that one configuration an arm answers for itself alone, and what to do about it, as a sentence."""
    way = "more are still to come" if finals.unfinished else "finalists.top above 1 compares more, if there are more"
    return f"{ONLY_A_PAIR} ({way})."


def one_seed(finals: Finals) -> str:
    """Return why a single seed an arm gives no verdict, and what to do about it, as a sentence."""
    more = 2 + min(row.wanted for row in finals.rows if row.compared and row.arm in PRIMARY)
    way = "more are still to come" if finals.unfinished else f"finalists.seeds={more} and the same command run more"
    return f"One seed cannot tell luck from recipe, whatever p says: {way}."


def _ratio_sentence(ratio: Estimate | None, of_a_pair: bool) -> str:
    if ratio is None:
        return (
            "The share of the gap to the teacher that distilling closes is undefined: fine-tuning leaves no clear gap."
        )
    return (
        f"{'It' if of_a_pair else 'Distilling'} closes {percent(ratio.value, 0)} of the gap between fine-tuning and the teacher "
        f"(95 % interval {percent(ratio.low, 0)} to {percent(ratio.high, 0)})."
    )
