"""Say what each arm was given, whether that is equal work, and whether longer training paid."""

from collections.abc import Sequence

from kdsweep.analysis.finalists import titled
from kdsweep.analysis.formats import duration, enumerated, number, plural
from kdsweep.analysis.patience import Patience
from kdsweep.analysis.score import score_text
from kdsweep.analysis.tasks import RowScore
from kdsweep.analysis.two_arms import FinalComparison
from kdsweep.analysis.work import Given, same_length
from kdsweep.config.arms import ARM_NAMES
from kdsweep.config.lengths import length_of
from kdsweep.config.trial import TrialConfig
from kdsweep.reporting.task_words import ends, gained, heading, signed_numbers

GIVEN_CAPTION = (
    "The training that each arm was given in all: rows count each time that a step took them; a whole trial's steps are the median of those "
    "that ran to their end; seconds are of training alone."
)
LABELLED_CAPTION = "Labelled rows of the pseudo-labeled arm include those that have the teacher's label."
PATIENCE_CAPTION = (
    "Finalists that were trained longer, beside their trials in the search, on the validation rows: the search's score is of one run, "
    "which was chosen for it, that of the longer training a mean over fresh seeds."
)


def work_questions(work: Sequence[Given], patience: Patience | None) -> tuple[tuple[str, str], ...]:
    """Return questions about lengths of training and their answers: of equal work between arms, of patience where finalists were trained longer."""
    asked = [("Was the work equal?", said)] if (said := work_said(work)) else []
    return (*asked, *([("Does patience pay?", patience_said(patience))] if patience else []))


def work_caption(work: Sequence[Given]) -> str:
    """Return the caption of `work_table`; of three arms it says which rows count as labelled."""
    has_third = any(each.arm == "pseudo_labeled" for each in work)
    return f"{GIVEN_CAPTION} {LABELLED_CAPTION}" if has_third else GIVEN_CAPTION


def work_table(work: Sequence[Given]) -> list[list[str]]:
    """Return what each arm's search and each arm's finalists were given as a table; labelled rows have a column where others had no label."""
    some = any(each.labeled_rows < each.rows for each in work)
    lines = [
        [
            "arm",
            "trials",
            "pruned",
            "steps",
            "of a whole trial",
            "rows",
            *(["labelled"] * some),
            "evaluations",
            "training",
        ]
    ]
    for each in work:
        name = ARM_NAMES[each.arm] + ", finalists" * each.finalists
        labelled = [f"{each.labeled_rows:,}"] * some
        counts = [str(each.trials), str(each.pruned), f"{each.steps:,}", number(each.whole_steps, 0), f"{each.rows:,}"]
        lines.append([name, *counts, *labelled, f"{each.evaluations:,}", duration(each.train_seconds)])
    return lines


def work_said(work: Sequence[Given]) -> str:
    """Return whether the arms' searches were given equal work, in a sentence or three; empty where no two arms have a whole trial."""
    searches = [each for each in work if not each.finalists and each.whole_steps]
    if len(searches) < 2:
        return ""
    alike, first = same_length(searches), searches[0]
    if alike:
        count = number(first.whole_steps if alike == "steps" else first.whole_rows, 0)
        sentences = [f"Yes, by trial: a whole training took {count} {alike} in every arm."]
    else:
        listed = enumerated(
            [
                f"{number(each.whole_steps, 0)} steps on {number(each.whole_rows, 0)} rows ({ARM_NAMES[each.arm]})"
                for each in searches
            ]
        )
        sentences = [f"No: a whole training took {listed}, at the median; a fixed max_steps gives all arms the same."]
    if any(each.pruned for each in searches):
        stopped = enumerated([f"{each.pruned} of {each.trials} {ARM_NAMES[each.arm]}" for each in searches])
        sentences.append(f"Pruning stopped {stopped} trials early.")
    steps = enumerated(
        [f"{each.steps:,} steps in {duration(each.train_seconds)} ({ARM_NAMES[each.arm]})" for each in searches]
    )
    return " ".join([*sentences, f"The searches were given {steps}."])


def patience_table(patience: Patience, metric: str) -> list[list[str]]:
    """Return the finalists that were trained longer as a table, each arm's mean gain last."""
    lines = [["finalist", "in the search", metric, "longer", metric, _heading(patience), "95 % interval"]]
    for row in patience.rows:
        scores = [score_text(metric, value, 2) for value in (row.finalist.search_score, row.finalist.confirmed_score)]
        lengths = [_length(row.searched), _length(row.trained)]
        pairs = [cell for pair in zip(lengths, scores, strict=True) for cell in pair]
        lines.append([titled(row.finalist), *pairs, *_gain(row.gain)])
    for arm, gain in patience.gains.items():
        if (count := _count(patience, arm)) > 1:
            lines.append([f"{ARM_NAMES[arm]}, mean of {count}", *["–"] * 4, *_gain(gain)])
    return lines


def _length(config: TrialConfig) -> str:
    count, unit = length_of(config), "epoch" if config.max_steps is None else "step"
    return f"{count:,} {unit}{'s' * (count != 1)}"


def _heading(patience: Patience) -> str:
    """Return the heading of the gains' column."""
    score: RowScore = next((row.gain.score for row in patience.rows if row.gain), "accuracy")
    return "points of accuracy" if score == "accuracy" else heading(score)


def _gain(gain: FinalComparison | None) -> list[str]:
    """Return the cells of a gain and its interval."""
    if gain is None:
        return ["–", "–"]
    difference, low, high = signed_numbers(gain)
    return [difference, f"{low} to {high}"]


def patience_said(patience: Patience) -> str:
    """Return what longer training gave each arm's finalists, and why that is a lower bound."""
    factors = sorted({row.finalist.factor for row in patience.rows})
    times = " to ".join(f"{factor:g}" for factor in dict.fromkeys((factors[0], factors[-1])))
    known = [
        f"{gained(gain)} for {plural(_count(patience, arm), f'{ARM_NAMES[arm]} finalist')} (95 % interval {ends(gain)})"
        for arm, gain in patience.gains.items()
    ]
    if not known:
        return f"Finalists were trained {times} times as long, but predictions that would show the gain are not on this disk."
    return (
        f"Trained {times} times as long, on fresh seeds: {enumerated(known)} {_over(patience)} their trials in the search, "
        f"{_of_what(patience)} the validation rows. Those trials were chosen for their scores, which flatters them: the gain is rather "
        "larger, and an interval around 0 does not exclude one."
    )


def _of_what(patience: Patience) -> str:
    """Return what the gains are of and on, up to the rows: `in accuracy on`; points of F1 and squared errors say it themselves."""
    return "in accuracy on" if _heading(patience) == "points of accuracy" else "on"


def _over(patience: Patience) -> str:
    """Return the preposition between gains and what they are compared with."""
    return "beside" if _heading(patience) == heading("minus_squared_error") else "over"


def _count(patience: Patience, arm: str) -> int:
    return sum(row.finalist.arm == arm and row.gain is not None for row in patience.rows)
