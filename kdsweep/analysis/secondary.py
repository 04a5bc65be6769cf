"""Ask what stands beside the primary comparison, with p-values corrected for the number of such questions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kdsweep.analysis.ranking import holm
from kdsweep.analysis.tasks import RowScore
from kdsweep.analysis.two_arms import FinalComparison, compare_arms
from kdsweep.analysis.two_students import CONFIDENCE, Word
from kdsweep.config.arms import ARM_NAMES, Arm


class Asked(NamedTuple):
    """Holds one secondary comparison before its correction: what is compared, in words, and how it came out."""

    what: str
    comparison: FinalComparison
    arms: tuple[Arm, Arm] | None = None
    """The arms whose finalists are compared, the baseline second; None where single finalists are."""


@dataclass(frozen=True, kw_only=True)
class Secondary:
    """Holds one secondary comparison, with its p-value corrected for the number of secondary comparisons (Holm)."""

    what: str
    comparison: FinalComparison
    adjusted_p: float
    word: Word
    """The comparison's word; `cannot tell` where the corrected p-value is 0.05 or above."""
    arms: tuple[Arm, Arm] | None = None
    """The arms whose finalists are compared, the baseline second; None where single finalists are."""


def adjusted(asked: Sequence[Asked]) -> tuple[Secondary, ...]:
    """Correct the p-values of all secondary comparisons of a study together, and hold back the words that do not stand."""
    corrected = holm([each.comparison.p_value for each in asked])
    return tuple(
        Secondary(
            what=each.what,
            comparison=each.comparison,
            adjusted_p=p,
            word=each.comparison.word if p < 1 - CONFIDENCE else "cannot tell",
            arms=each.arms,
        )
        for each, p in zip(asked, corrected, strict=True)
    )


def third_arm(
    distilled: Sequence[np.ndarray],
    fine_tuned: Sequence[np.ndarray],
    pseudo_labeled: Sequence[np.ndarray],
    *,
    searched: tuple[int, int, int] | None = None,
    score: RowScore = "accuracy",
) -> list[Asked]:
    """Compare the pseudo-labeled finalists, each row scores [S, N], with those of both other arms: is it the soft targets or only more text?

    `searched` is the number of configurations that each arm's finalists are the best of, in the order of the arms here.
    Both comparisons are secondary ones: pass them to `adjusted` with the others. An arm without finalists is compared with none.
    """
    one, other, third = searched or (len(distilled), len(fine_tuned), len(pseudo_labeled))
    asked: list[Asked] = []
    if len(distilled) and len(pseudo_labeled):
        found = compare_arms(distilled, pseudo_labeled, searched=(one, third), score=score)
        asked.append(Asked(of_arms("distilled", "pseudo_labeled", found), found, ("distilled", "pseudo_labeled")))
    if len(pseudo_labeled) and len(fine_tuned):
        found = compare_arms(pseudo_labeled, fine_tuned, searched=(third, other), score=score)
        asked.append(Asked(of_arms("pseudo_labeled", "fine_tuned", found), found, ("pseudo_labeled", "fine_tuned")))
    return asked


def of_arms(arm: Arm, baseline: Arm, found: FinalComparison) -> str:
    """Return what a comparison of two arms compares, in words: their finalists, or the one of each."""
    if found.of_a_pair:
        return f"the {ARM_NAMES[arm]} finalist against the {ARM_NAMES[baseline]} one"
    return f"{ARM_NAMES[arm]} finalists against {ARM_NAMES[baseline]} ones"
