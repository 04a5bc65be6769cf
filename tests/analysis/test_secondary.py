"""The third arm's comparisons, and the correction that all secondary comparisons share."""

import pytest
from samples import finalist

from kdsweep.analysis.ranking import holm
from kdsweep.analysis.secondary import adjusted, third_arm
from kdsweep.analysis.two_arms import compare_arms

DISTILLED, FINE_TUNED, PSEUDO_LABELED = (
    [finalist(level, 2, seed=number) for number in range(3)] for level in (0.85, 0.7, 0.8)
)


def test_the_third_arm_is_compared_with_both_others_and_corrected_with_the_rest() -> None:
    asked = third_arm(DISTILLED, FINE_TUNED, PSEUDO_LABELED, searched=(9, 8, 7))
    assert [what for what, *_ in asked] == [
        "distilled finalists against pseudo-labeled ones",
        "pseudo-labeled finalists against fine-tuned ones",
    ]
    assert asked[0][1] == compare_arms(DISTILLED, PSEUDO_LABELED, searched=(9, 7))
    assert asked[1][1] == compare_arms(PSEUDO_LABELED, FINE_TUNED, searched=(7, 8))
    told = adjusted(asked)
    assert [each.adjusted_p for each in told] == pytest.approx(holm([one.p_value for _, one, _ in asked]))
    assert [each.word for each in told] == ["better", "better"]


def test_an_arm_without_finalists_is_compared_with_none() -> None:
    assert third_arm(DISTILLED, FINE_TUNED, []) == [] and adjusted([]) == ()
    assert [what for what, *_ in third_arm([], FINE_TUNED, PSEUDO_LABELED)] == [
        "pseudo-labeled finalists against fine-tuned ones"
    ]
