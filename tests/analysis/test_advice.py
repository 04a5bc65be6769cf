"""Advice is given where its lines are crossed, and nowhere else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers import row_of, sweep_of

from kdsweep.analysis import advice as module
from kdsweep.analysis.advice import CHANCE, FOUND_P, Advice, advice, dependence, edge_hit, least_share, span
from kdsweep.config.axis import Axis
from kdsweep.records.whole_sweep import SweepRecords

LOG = Axis(low=1.0, high=16.0, log=True)
REST = [4.0] * 7


@pytest.mark.parametrize(
    ("best", "axis", "end"),
    [
        ([13.0, 14.0, 16.0], LOG, "high"),
        ([13.0, 14.0, 12.0], LOG, None),
        ([1.0, 1.2, 1.3], LOG, "low"),
        ([1.0, 1.2, 16.0], LOG, None),
        ([0.95, 0.9, 1.0], Axis(low=0.0, high=1.0), "high"),
        ([64] * 5, Axis(choices=(16, 64, 32)), "high"),
        ([16] * 5, Axis(choices=(16, 64, 32)), "low"),
        ([16] * 4 + [32], Axis(choices=(16, 64, 32)), None),
        ([64, 64, 64], Axis(choices=(16, 64)), None),
        (["b", "b", "b"], Axis(choices=("a", "b", "c")), None),
    ],
)
def test_an_edge_is_hit_when_the_best_three_lie_in_the_outermost_tenth_or_the_best_five_at_the_last_choice(
    best: list[Any], axis: Axis, end: str | None
) -> None:
    assert edge_hit(best + REST, axis) == end
    assert edge_hit((best + REST)[:9], axis) is None, "nine trials are too few"


def test_dependence_sees_slopes_optima_and_groups_and_nothing_where_nothing_is() -> None:
    values = list(np.linspace(1, 16, 20))
    slope, p_slope = dependence(values, [0.5 + 0.01 * value for value in values])
    peak, p_peak = dependence(values, [0.9 - 0.01 * (value - 8) ** 2 for value in values])
    assert slope == pytest.approx(1) and p_slope < 0.001 and peak > 0.8 and p_peak < 0.001
    share, p_value = dependence(["a", "b"] * 10, [0.6, 0.8] * 10)
    assert share == pytest.approx(1) and p_value < 0.001
    assert dependence(values, [0.8] * 20) == (0.0, 1.0)
    assert dependence([1, 1, 2, 2] * 5, [0.6, 0.8] * 10)[1] == 1.0


@pytest.mark.parametrize(
    ("trials", "share", "most", "least"), [(10, 0.5, 0.1, 0), (20, 0.5, 0.02, 0), (20, 0, 0.6, 0.4)]
)
def test_an_axis_that_explains_half_of_the_variance_is_rarely_called_flat(
    trials: int, share: float, most: float, least: float
) -> None:
    draw = np.random.default_rng(1)
    flat = 0
    for _ in range(100):
        x = draw.uniform(-1, 1, trials)
        y = np.sqrt(share) * x * np.sqrt(3) + np.sqrt(1 - share) * draw.normal(size=trials)
        flat += dependence(list(x), list(y))[1] >= 0.5
    assert least <= flat / 100 <= most


def advice_on(alphas: list[float], temperatures: list[float], accuracies: list[float]) -> tuple[Advice, ...]:
    sweep = sweep_of({"temperature": LOG, "alpha": Axis(low=0.0, high=1.0)}, learning_rate=1e-4)
    trials = [
        row_of(sweep, "distilled", trial, {"temperature": temperature, "alpha": alpha}, accuracy)
        for trial, (alpha, temperature, accuracy) in enumerate(zip(alphas, temperatures, accuracies, strict=True))
    ]
    return advice(SweepRecords(folder=Path("s"), sweep=sweep, teacher=None, trials=tuple(trials)))


def test_a_field_with_a_condition_is_judged_by_the_trials_that_searched_it() -> None:
    search = {"temperature": Axis(low=1.0, high=16.0, log=True, when={"soft_loss": ("kl",)})}
    sweep = sweep_of({**search, "soft_loss": Axis(choices=("kl", "mse"))}, learning_rate=1e-4)
    mse = [row_of(sweep, "distilled", n, {"soft_loss": "mse"}, 0.9) for n in range(10)]
    kl: list[dict[str, Any]] = [{"soft_loss": "kl", "temperature": 1.0 + 1.6 * n} for n in range(10)]
    done = [row_of(sweep, "distilled", 10 + n, params, 0.6 + 0.02 * n) for n, params in enumerate(kl)]
    found = {}
    for count in (9, 10):
        records = SweepRecords(folder=Path("s"), sweep=sweep, teacher=None, trials=(*mse, *done[-count:]))
        found[count] = [item for item in advice(records) if item.name == "temperature"]
    (edge,) = found[10]
    assert found[9] == [] and edge.short == "widen temperature upward"
    assert edge.why.startswith("The best 3 of 10 complete distilled trials where soft_loss is kl all lie above 12.1")


def test_the_advice_says_what_to_widen_and_what_does_not_matter() -> None:
    temperatures = [1.0 + 1.5 * trial for trial in range(10)]
    alphas = [0.5, 0.2, 0.4, 0.6, 0.3, 0.7, 0.35, 0.45, 0.65, 0.25]
    found = advice_on(alphas, [*temperatures[:7], 13.0, 14.5, 15.9], [0.6 + 0.02 * n for n in range(10)])
    assert [(item.kind, item.name) for item in found] == [("edge", "temperature"), ("flat", "alpha")]
    assert found[0].short == "widen temperature upward"
    assert found[0].why == (
        "The best 3 of 10 complete distilled trials all lie above 12.1, in the outermost tenth of [1, 16] log."
    )
    accuracies = np.array([0.6 + 0.02 * n for n in range(10)])
    best_first = alphas[::-1]
    least = least_share(best_first)
    assert least is not None
    missed = 100 * float(accuracies.std(ddof=1)) * span(best_first, least)
    assert found[1].short == f"10 trials show no effect of alpha, but may have missed one below {missed:.1f} points"
    assert "a permutation test" in found[1].why and f"{100 * least:.0f} % of the variance" in found[1].why
    assert "does not matter" not in found[1].short + found[1].why


GROUPS: list[Any] = ["a", "b", "b", "c"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "trials"), [("interval", 10), ("interval", 24), ("choices", 12), ("groups", 16)], ids=str
)
def test_an_effect_as_large_as_may_have_been_missed_is_found_in_four_of_five_sweeps(kind: str, trials: int) -> None:
    draw = np.random.default_rng(2)
    values: list[Any] = list(draw.uniform(0, 1, trials))
    if kind == "choices":
        values = [(16, 32, 64)[place % 3] for place in range(trials)]
    elif kind == "groups":
        values = [GROUPS[place % 4] for place in range(trials)]
    share = least_share(values)
    assert share is not None and 0.1 < share < 0.8
    if kind == "groups":
        effect = np.array([value == "b" for value in values], float)
    else:
        effect = np.argsort(np.argsort(values, kind="stable")) if kind == "interval" else np.log2(np.array(values))
        effect = effect.astype(float)
    effect *= span(values, share) / (effect.max() - effect.min())  # in standard deviations of the accuracies
    assert effect.var() == pytest.approx(share)
    noise = draw.normal(size=(300, trials)) * np.sqrt(1 - share)
    found = sum(dependence(values, list(effect + line))[1] < FOUND_P for line in noise)
    assert found / 300 == pytest.approx(CHANCE, abs=0.07)


def test_what_cannot_be_compared_is_not_called_without_effect() -> None:
    assert least_share([f"recipe {number}" for number in range(10)]) is None  # every trial its own group
    assert least_share([4.0] * 10) is None


def test_trials_that_all_score_the_same_show_no_effect_and_no_number() -> None:
    (temperature, alpha) = advice_on([0.1 * n for n in range(10)], [4.0 + n for n in range(10)], [0.8] * 10)
    assert temperature.short == "10 trials show no effect of temperature" and "the same val_accuracy" in alpha.why


def test_alpha_is_not_to_be_widened_beyond_1() -> None:
    alphas = [0.1 * trial for trial in range(7)] + [0.93, 0.97, 1.0]
    (found,) = advice_on(alphas, [4.0] * 10, [0.6 + 0.02 * n for n in range(10)])
    assert found.short == "alpha is best at its end" and found.why.endswith(", its limit.")


def test_fewer_than_ten_complete_trials_give_no_advice() -> None:
    assert advice_on([0.5] * 9, [15.9] * 9, [0.8] * 9) == ()


def test_the_smallest_effect_of_a_thousand_trials_takes_no_more_draws_than_that_of_five_hundred(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With N trials a straight line is found in four of five searches where it makes about 8 / N of the variance."""
    drawn, shuffled = list[int](), module._shuffled
    monkeypatch.setattr(module, "_shuffled", lambda *given: drawn.append(given[1].size * given[3]) or shuffled(*given))
    for trials in (500, 1000):
        least = least_share(list(np.random.default_rng(0).random(trials)))
        assert least is not None and 6 / trials < least < 13 / trials
    assert drawn == [1_000_000, 1_000_000]
