"""Say before anything runs what true difference a choice of finalists and seeds will find, without numpy: --dry-run is fast.

The assumed variances are those of `tests/study_simulator.py` at an accuracy of 85 %: shares of rows on which students
disagree, a seed's effect of 0.3 points, and two sizes of the spread of an arm's finalists: 0.3 points, no less than those of
sweeps/T_alpha.yaml show, and 0.75 points, as the best of configurations that differ by 1.3 points. They serve for the F1 of labels
too: in `tests/score_simulator.py` the mean square of a row's differences is 0.048, 0.058 and 0.068, against shares of 0.045, 0.054 and
0.063 here. How far squared errors vary depends on the labels, so nothing is said of them before there are any.
"""

from collections.abc import Sequence
from statistics import NormalDist

SAME, NEAR, ACROSS = 0.045, 0.054, 0.063
"""Shares of rows on which two seeds of a configuration, two configurations of an arm, and students of two arms disagree."""
SEED_SD = 0.003
"""Standard deviation of a student's true accuracy over seeds."""
ALIKE, UNLIKE = 0.003, 0.0075
"""Standard deviations of the true accuracies of an arm's finalists: where settings matter little, and where they matter."""


def choice_factor(finalists: int, searched: int) -> float:
    """Return how much more the mean of the best `finalists` of `searched` configurations varies than their spread says.

    The best lie close together because they were chosen, while the threshold above which they lie varies from search to
    search. Where accuracies fall off exponentially with a scale s, those of the best vary by s^2 around their mean, and the
    threshold by s^2 (1 / (F + 1)^2 + … + 1 / n^2): spacings are independent (Rényi 1953, Acta Math. Hung. 4, 191).
    """
    return 1 + finalists * sum(1 / place**2 for place in range(finalists + 1, searched + 1))


def found_difference(
    finalists: Sequence[int], searched: Sequence[int], *, seeds: int, rows: int, spread: float, chance: float = 0.8
) -> float | None:
    """Return the true difference of two arms that `compare_arms` is to call `better` with probability `chance`.

    `finalists` and `searched` count the configurations of each arm. With one finalist in each it is the difference of these
    two. None where an arm has a single run, which gives no verdict.
    """
    if min(finalists) * seeds < 2:
        return None
    pair = max(finalists) == 1
    configuration, noise = (NEAR - SAME) / 2, SAME / 2
    total = uncertain = 0.0
    by_rows = (ACROSS - NEAR) / rows
    for count, among in zip(finalists, searched, strict=True):
        by_rows += (configuration / count + noise / count / seeds) / rows
        share = 1.0 if pair else choice_factor(count, among) / count
        spread_here = SEED_SD**2 / seeds + (0.0 if pair else spread**2)
        flips = ((0.0 if pair else configuration) + noise / seeds) / rows
        df = 2 * (seeds - 1) / 2 if pair else max(1, (count if count > 1 else max(finalists)) - 1)
        total += spread_here * share
        uncertain += ((spread_here + flips) * share) ** 2 / df
    total += by_rows
    df = total**2 / (by_rows**2 / max(1, rows - 1) + uncertain)
    return float(total**0.5 * (_t_quantile(0.975, df) + _t_quantile(chance, df)))


def ranked_rightly(rows: int, chance: float = 0.95) -> float:
    """Return the true difference of two students of an arm, each of one seed, of whom the better one scores higher on `rows` rows with
    probability `chance`."""
    return float(NormalDist().inv_cdf(chance) * (NEAR / rows + 2 * SEED_SD**2) ** 0.5)


def _t_quantile(probability: float, df: float) -> float:
    """Return Student's t quantile by Cornish and Fisher's expansion: within 4 % from 2 degrees of freedom on."""
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / df**power for power, term in enumerate(terms, start=1))
