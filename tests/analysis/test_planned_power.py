"""The difference that finalists and seeds are to find: against the statistic itself."""

import subprocess
import sys

import pytest
from scipy.stats import t

from kdsweep.analysis.planned_power import ALIKE, UNLIKE, _t_quantile, choice_factor, found_difference
from kdsweep.analysis.ranking import power


@pytest.mark.parametrize("df", [2, 3, 5, 20, 1000])
@pytest.mark.parametrize("probability", [0.8, 0.975])
def test_students_quantile_is_near_enough(df: int, probability: float) -> None:
    assert _t_quantile(probability, df) == pytest.approx(t.ppf(probability, df), rel=0.04)


def test_many_configurations_of_one_seed_find_less_than_few_of_three() -> None:
    """One arm's ten on one seed by hand: rows, then finalists and the threshold above which they were chosen."""
    few = found_difference((3, 3), (24, 24), seeds=3, rows=3000, spread=UNLIKE)
    many = found_difference((10, 10), (24, 24), seeds=1, rows=3000, spread=UNLIKE)
    assert few and many and many < few / 2
    rows = (0.063 - 0.054 + (0.054 - 0.045) / 10 + 0.045 / 10) / 3000
    across = 2 * choice_factor(10, 24) / 10 * (0.003**2 + UNLIKE**2)
    assert power(many, (rows + across) ** 0.5, 21) == pytest.approx(0.8, abs=0.02)


def test_more_rows_and_alike_finalists_find_less_and_a_single_run_nothing() -> None:
    found = [found_difference((6, 6), (10, 10), seeds=1, rows=rows, spread=ALIKE) for rows in (300, 3000, 30_000)]
    assert found[0] and found[1] and found[2] and found[0] > found[1] > found[2]
    assert found_difference((9, 1), (24, 1), seeds=1, rows=3000, spread=ALIKE) is None
    pair = [found_difference((1, 1), (24, 24), seeds=3, rows=3000, spread=spread) for spread in (ALIKE, UNLIKE)]
    assert pair[0] == pair[1]


def test_the_plan_imports_no_numpy() -> None:
    code = (
        "import sys, kdsweep.engine.planned_verdict; sys.exit(any(name in sys.modules for name in ('numpy', 'scipy')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
