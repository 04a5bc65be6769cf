"""Suggest changes for the next sweep from a finished one: axes to widen, and axes without a visible effect, with the size of
effect that the search could have missed.

Every function is pure; thresholds are in its docstring.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from kdsweep.analysis import number_metrics
from kdsweep.analysis.leaderboard import ranked
from kdsweep.analysis.score import difference_text, score
from kdsweep.config.arms import ARM_NAMES, Arm
from kdsweep.config.axis import Axis
from kdsweep.config.conditions import condition_text
from kdsweep.config.sweep import SweepConfig
from kdsweep.config.trial_fields import NUMBERS
from kdsweep.errors import ConfigError
from kdsweep.records.reading import TrialRow
from kdsweep.records.whole_sweep import SweepRecords

FEWEST_TRIALS = 10
"""Complete trials of an arm below which no advice is given about it."""
BEST = 3
"""How many of the best trials must lie at one end of an interval."""
BEST_OF_CHOICES = 5
"""How many of the best trials must have the least, or the greatest, of a list of choices: more than `BEST`, as each choice is likelier by chance."""
EDGE = 0.1
"""Share of an interval that counts as its end."""
FLAT_P = 0.5
"""p-value from which an axis is reported to show no effect."""
FOUND_P = 0.05
"""p-value below which a simulated effect counts as found."""
CHANCE = 0.8
"""Chance with which the smallest effect that is reported as detectable would have been found."""
SHUFFLES = 2000
BLOCK = 200
"""Shuffled or simulated searches held at once."""
MOST_DRAWN = 1_000_000
"""Scores that a simulation draws: `SHUFFLES` searches of up to 500 trials."""
DOUBT = 5.5
"""Standard deviations by which a share of simulated searches must lie beyond `CHANCE` for the other searches to be spared."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """Holds one piece of advice about one axis of one arm."""

    kind: Literal["edge", "flat"]
    arm: Arm
    name: str
    """The searched field."""
    short: str
    """A few words, such as `widen temperature upward`."""
    why: str
    """The numbers behind the advice, in sentences."""


def advice(records: SweepRecords) -> tuple[Advice, ...]:
    """Return the advice about every arm's axes, edges before flat axes; an arm with fewer than `FEWEST_TRIALS` complete trials gives none."""
    found: list[Advice] = []
    sweep = records.sweep
    for arm in sweep.arms:
        trials = [trial for trial in ranked(records.trials, sweep) if trial.arm == arm]
        if len(trials) >= FEWEST_TRIALS:
            for name, axis in sweep.axes(arm).items():
                able = [trial for trial in trials if axis.applies(vars(trial.config))]
                if len(able) >= FEWEST_TRIALS:
                    found += [item for item in (_edge(able, arm, name, axis), _flat(able, sweep, name, axis)) if item]
    return tuple(sorted(found, key=lambda item: item.kind))


# Ends ----------------------------------------------------------------------------------------------------------------


def _edge(trials: Sequence[TrialRow], arm: Arm, name: str, axis: Axis) -> Advice | None:
    values = [getattr(trial.config, name) for trial in trials]
    end = edge_hit(values, axis)
    if end is None:
        return None
    way = "upward" if end == "high" else "downward"
    where = f"The best {_agreeing(axis)} of {_these(trials, axis)} all lie {_place(axis, end)}"
    if _can_go_on(trials[0], name, axis, end):
        return Advice(kind="edge", arm=arm, name=name, short=f"widen {name} {way}", why=f"{where}.")
    return Advice(kind="edge", arm=arm, name=name, short=f"{name} is best at its end", why=f"{where}, its limit.")


def edge_hit(values: Sequence[Any], axis: Axis) -> Literal["low", "high"] | None:
    """Return the end of an axis at which the best of at least ten trials lie, None where there is none; `values` are ranked, best first.

    An end is the outermost tenth of an interval (of its logarithm, where the axis is logarithmic), where the best three
    must lie, or the least or greatest of at least three numeric choices, where the best five must. If the axis made no
    difference and its trials were spread evenly, an end would be returned for an interval in 0.2 % of sweeps, for three
    choices in 0.8 %.
    """
    if len(values) < FEWEST_TRIALS or not _has_ends(axis):
        return None
    best = values[: _agreeing(axis)]
    if axis.choices:
        least, greatest = min(axis.choices), max(axis.choices)
        at_low, at_high = [v == least for v in best], [v == greatest for v in best]
    else:
        shares = [_share(value, axis) for value in best]
        at_low, at_high = [share <= EDGE for share in shares], [share >= 1 - EDGE for share in shares]
    return "low" if all(at_low) else "high" if all(at_high) else None


def _these(trials: Sequence[TrialRow], axis: Axis) -> str:
    """Return which trials of one arm an axis was judged by: those in which its condition holds."""
    where = f" where {condition_text(axis.when)}" if axis.when else ""
    return f"{len(trials)} complete {ARM_NAMES[trials[0].arm]} trials{where}"


def _agreeing(axis: Axis) -> int:
    return BEST_OF_CHOICES if axis.choices else BEST


def _has_ends(axis: Axis) -> bool:
    """Return whether an axis is an interval or has at least three choices, all numbers."""
    plain = [c for c in axis.choices if isinstance(c, int | float) and not isinstance(c, bool)]
    return not axis.choices or len(axis.choices) == len(plain) >= 3


def _share(value: float, axis: Axis) -> float:
    low, high, value = (float(np.log(x)) if axis.log else float(x) for x in (axis.low or 0.0, axis.high or 0.0, value))
    return (value - low) / (high - low)


def _place(axis: Axis, end: Literal["low", "high"]) -> str:
    if axis.choices:
        return f"at {min(axis.choices) if end == 'low' else max(axis.choices):g}"
    assert axis.low is not None and axis.high is not None
    share = EDGE if end == "low" else 1 - EDGE
    line = axis.low * (axis.high / axis.low) ** share if axis.log else axis.low + share * (axis.high - axis.low)
    return f"{'below' if end == 'low' else 'above'} {line:.3g}, in the outermost tenth of {axis.text()}"


def _can_go_on(trial: TrialRow, name: str, axis: Axis, end: Literal["low", "high"]) -> bool:
    """Return whether the trial's config stays valid with `name` a little beyond the axis' end: an alpha above 1 is not."""
    ends = (min(axis.choices), max(axis.choices)) if axis.choices else (axis.low or 0.0, axis.high or 0.0)
    step = 1.0 if NUMBERS.get(name) is int else EDGE * (ends[1] - ends[0])
    beyond = ends[1] + step if end == "high" else ends[0] / 2 if axis.log else ends[0] - step
    changed: dict[str, Any] = {name: int(beyond) if NUMBERS.get(name) is int else beyond}
    try:
        dataclasses.replace(trial.config, **changed)
    except ConfigError:
        return False
    return True


# Flat axes -----------------------------------------------------------------------------------------------------------


def _flat(trials: Sequence[TrialRow], sweep: SweepConfig, name: str, axis: Axis) -> Advice | None:
    arm, metric = trials[0].arm, sweep.study.metric
    values = [getattr(trial.config, name) for trial in trials]
    if len(set(values)) < 2:
        return None
    scores = [score(trial, sweep) for trial in trials]
    share, p_value = dependence(values, scores)
    if p_value < FLAT_P or (least := least_share(values)) is None:
        return None
    if len(set(scores)) == 1:
        why = f"All {_these(trials, axis)} have the same {metric}."
        return Advice(kind="flat", arm=arm, name=name, short=f"{len(trials)} trials show no effect of {name}", why=why)
    missed = difference_text(metric, span(values, least) * float(np.std(scores, ddof=1)))
    straight, apart = "from one end to the other in a straight line", "between the commonest value and the others"
    shape = straight if _is_ordered(values) else apart
    why = (
        f"It explains {100 * share:.0f} % of the order of {_these(trials, axis)}; shuffled values explain as much "
        f"in {100 * p_value:.0f} % of cases (a permutation test). So many trials find an effect with a chance of {100 * CHANCE:.0f} % if it makes "
        f"{100 * least:.0f} % of the variance of their {metric}, here about {missed} {shape} (simulated); a smaller one, or one that "
        "other axes hide, may be there."
    )
    short = f"{len(trials)} trials show no effect of {name}, but may have missed one below {missed}"
    return Advice(kind="flat", arm=arm, name=name, short=short, why=why)


def least_share(values: Sequence[Any], chance: float = CHANCE) -> float | None:
    """Return the smallest share of the scores' variance at which an effect of the shape `_shape(values)` is found with `chance`.

    Found means p < 0.05 in the test of `dependence`; how often that happens is simulated, with normal noise around the effect: in
    `SHUFFLES` searches, and in fewer of more than `MOST_DRAWN` trials together, so that the time stays the same. None where all values
    are equal, or where too few trials are left beside the columns of `_basis`.
    """
    basis, count = _basis(values), len(values)
    if not 0 < basis.shape[1] < count - 1:
        return None
    searches = min(SHUFFLES, max(BLOCK, MOST_DRAWN // count))
    draw, ordered = np.random.default_rng(0), np.arange(count) - (count - 1) / 2
    line = float(np.quantile(_shuffled(draw, ordered, basis, searches), 1 - FOUND_P))
    effect, noise = _shape(values), draw.standard_normal((searches, count))
    least, most = 0.0, 1.0
    while most - least > 0.001:
        share = (least + most) / 2
        enough = _is_found(share, effect, noise, basis, line=line, chance=chance)
        least, most = (least, share) if enough else (share, most)
    return most


def _is_found(
    share: float, effect: np.ndarray, noise: np.ndarray, basis: np.ndarray, *, line: float, chance: float
) -> bool:
    """Return whether an effect [N] that makes `share` of the variance is found in `chance` of the searches, each with one line of `noise` [M, N].

    The first searches decide where they leave no doubt.
    """
    ordered, found, seen = np.arange(effect.size) - (effect.size - 1) / 2, 0, 0
    for first in range(0, len(noise), BLOCK):
        order = np.argsort(np.sqrt(share) * effect + np.sqrt(1 - share) * noise[first : first + BLOCK], axis=1)
        ranks = np.empty(order.shape)
        np.put_along_axis(ranks, order, ordered[np.newaxis], axis=1)
        found, seen = found + int((_explained(ranks, basis) > line + 1e-9).sum()), seen + len(order)
        if abs(found / seen - chance) > DOUBT * np.sqrt(chance * (1 - chance) / seen):
            break
    return found / seen >= chance


def _shuffled(draw: np.random.Generator, ranks: np.ndarray, basis: np.ndarray, times: int) -> np.ndarray:
    """Return the sum of squares [times] that the columns of `basis` explain of the ranks [N] in random orders; few are held at once."""
    blocks = [min(BLOCK, times - first) for first in range(0, times, BLOCK)]
    return np.concatenate([_explained(draw.permuted(np.tile(ranks, (size, 1)), axis=1), basis) for size in blocks])


def span(values: Sequence[Any], share: float) -> float:
    """Return the range of an effect that makes `share` of the variance, in standard deviations of the scores."""
    effect = _shape(values)
    return float(np.sqrt(share) * (effect.max() - effect.min()))


def _shape(values: Sequence[Any]) -> np.ndarray:
    """Return an effect [N] of mean 0 and variance 1: a straight line over the ranks of numbers, else the commonest value against the others."""
    common = Counter(values).most_common(1)[0][0]
    effect = (
        number_metrics.ranks(np.asarray(values))
        if _is_ordered(values)
        else np.array([value == common for value in values], float)
    )
    return np.asarray((effect - effect.mean()) / effect.std())


def _explained(ranks: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return the sum of squares [M] that the columns of `basis` [N, K] explain of each line of centred ranks [M, N]."""
    return np.asarray(((ranks @ basis) ** 2).sum(axis=1))


def _is_ordered(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def dependence(values: Sequence[Any], scores: Sequence[float]) -> tuple[float, float]:
    """Return the share of the variance of the scores' ranks that the values explain, and its permutation p-value.

    Numbers enter as a parabola of their ranks, so that an optimum in the middle is found as well as a slope; up to five
    distinct values, and values that are not numbers, enter as groups. p is the share of shuffles that explain as much. An
    axis is reported to show no effect from p = 0.5 on: a truly flat one in half of sweeps. One that explains half of the
    variance is reported so in 5 % of sweeps of 10 trials and in under 1 % of 20, as the test measures.
    """
    ranks = number_metrics.ranks(np.asarray(scores))
    centred = ranks - ranks.mean()
    if not centred.any():
        return 0.0, 1.0
    basis = _basis(values)
    shuffled = _shuffled(np.random.default_rng(0), centred, basis, SHUFFLES)
    observed = float(_explained(centred[None], basis)[0])
    p_value = (1 + int((shuffled >= observed - 1e-9).sum())) / (SHUFFLES + 1)
    return observed / float(centred @ centred), p_value


def _basis(values: Sequence[Any]) -> np.ndarray:
    """Return orthonormal columns [N, K], each of mean 0, that span the values' parabola of ranks or their groups."""
    distinct = list(dict.fromkeys(values))
    if _is_ordered(distinct) and len(distinct) > 5:
        ranks = number_metrics.ranks(np.asarray(values))
        columns = np.stack([ranks, ranks**2], axis=1)
    else:
        columns = np.array([[value == group for group in distinct[1:]] for value in values], float)
    basis, weights = np.linalg.qr(columns - columns.mean(axis=0))
    return np.asarray(basis[:, np.abs(np.diag(weights)) > 1e-9])
