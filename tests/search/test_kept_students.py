"""Which students are kept on disk: the one that is to be shipped is among them."""

from kdsweep.records.layout import TrialId
from kdsweep.search.finalists_queue import best_of_each_first


def ranked(scores: dict[int, list[float]]) -> list[tuple[TrialId, float]]:
    """Finalists of each trial on seeds 1, 2, …, best first, as the study gives them."""
    runs = [(TrialId("distilled", n, seed), s) for n, each in scores.items() for seed, s in enumerate(each, start=1)]
    return sorted(runs, key=lambda run: -run[1])


def test_the_best_of_each_configuration_comes_first_those_with_the_best_means_before_the_others() -> None:
    kept = best_of_each_first(ranked({0: [0.90, 0.89, 0.60], 1: [0.85, 0.86, 0.85], 2: [0.88, 0.80, 0.70]}))
    assert [(each.number, each.seed) for each in kept[:3]] == [(1, 2), (0, 1), (2, 1)], (
        "by luck alone all would be of 0 and 2"
    )
    assert [(each.number, each.seed) for each in kept[3:5]] == [(1, 1), (0, 2)] and len(kept) == 9


def test_trials_of_a_search_keep_their_order_and_nothing_is_nothing() -> None:
    trials = [(TrialId("distilled", number), score) for number, score in ((4, 0.9), (1, 0.8), (3, 0.8), (0, 0.1))]
    assert best_of_each_first(trials) == [trial for trial, _ in trials] and best_of_each_first([]) == []
