"""Compare finalists that were trained longer (`finalists.epochs_factor`) with their trials in the search, on the validation rows.

A trial of the search was chosen for its score, which therefore flatters it; its finalist's seeds are fresh. So a gain is rather larger
than it is measured here, and none that is measured may still be one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdsweep.analysis.finalists import Finalist, Finals
from kdsweep.analysis.row_reading import right_rows
from kdsweep.analysis.tasks import ROW_SCORES, RowScore
from kdsweep.analysis.two_arms import FinalComparison, compare_finalists
from kdsweep.analysis.variances import SeedVariance, seed_variance
from kdsweep.config.arms import Arm
from kdsweep.config.trial import TrialConfig
from kdsweep.records.reading import TrialRow
from kdsweep.records.whole_sweep import SweepRecords


@dataclass(frozen=True, kw_only=True)
class Longer:
    """Holds one finalist that was trained longer than its trial in the search."""

    finalist: Finalist
    searched: TrialConfig
    trained: TrialConfig
    gain: FinalComparison | None
    """Mean score of a row over its seeds minus that of its trial in the search; None where predictions are missing on this disk."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Holds the finalists that were trained longer, by arm."""

    rows: tuple[Longer, ...]
    gains: Mapping[Arm, FinalComparison]
    """The mean gain over an arm's finalists, where predictions are on this disk."""


def read_patience(found: SweepRecords, finals: Finals | None) -> Patience | None:
    """Compare a sweep's finalists with their trials in the search; None where none was trained longer."""
    trials = {(trial.arm, trial.trial): trial for trial in found.trials}
    pairs = [
        (row, origin)
        for row in (finals.rows if finals else ())
        if row.factor > 1 and (origin := trials.get((row.arm, row.trial)))
    ]
    if not pairs:
        return None
    known = [(row, right) for row, origin in pairs if (right := _right(found, row, origin))]
    seeds, row_score = seed_variance([longer for _, (longer, _) in known]), ROW_SCORES[found.task]
    by_place = {(row.arm, row.trial): right for row, right in known}
    arms = dict.fromkeys(row.arm for row, _ in known)
    return Patience(
        rows=tuple(
            Longer(
                finalist=row,
                searched=origin.config,
                trained=row.runs[0].config,
                gain=_gain(by_place.get((row.arm, row.trial)), seeds, row_score),
            )
            for row, origin in pairs
        ),
        gains={arm: mean_gain([right for row, right in known if row.arm == arm], seeds, row_score) for arm in arms},
    )


def _right(found: SweepRecords, row: Finalist, origin: TrialRow) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the scores of the validation rows by a finalist's seeds [S, N], and by its trial in the search [N]; None without a file."""
    read = [right_rows(found, run.folder, "validation") for run in (*row.runs, origin)]
    known = [rows for rows in read if rows is not None]
    return (np.stack(known[:-1]), known[-1]) if len(known) == len(read) else None


def _gain(
    right: tuple[np.ndarray, np.ndarray] | None, seeds: SeedVariance, row_score: RowScore
) -> FinalComparison | None:
    return mean_gain([right], seeds, row_score) if right else None


def mean_gain(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], seeds: SeedVariance, row_score: RowScore = "accuracy"
) -> FinalComparison:
    """Compare configurations trained longer, row scores [S, N] each, with their trials in the search, [N] each, on the same rows.

    Rows and seeds count as random, by the variance over `seeds`; the configurations do not: the gain is that of these. Where all have one
    seed, several configurations count as random in place of their seeds, which vary with them.
    """
    fewest = min(len(longer) for longer, _ in pairs)  # as many seeds of each: all configurations weigh alike
    longer, searched = np.concatenate([longer[:fewest] for longer, _ in pairs]), np.stack([each for _, each in pairs])
    if seeds.df or len(pairs) == 1:
        return compare_finalists(longer, searched, seeds=seeds if seeds.df else None, score=row_score)
    gains = longer.astype(np.float64) - searched
    return compare_finalists(gains, np.zeros((1, gains.shape[1])), given_baseline=True, score=row_score)


def patience_json(patience: Patience) -> dict[str, Any]:
    """Return the comparison in the form of leaderboard.json."""
    rows = [
        {
            "arm": row.finalist.arm,
            "trial": row.finalist.trial,
            "factor": row.finalist.factor,
            "search_score": row.finalist.search_score,
            "longer_score": row.finalist.confirmed_score,
            **_interval(row.gain),
        }
        for row in patience.rows
    ]
    return {"finalists": rows, "arms": [{"arm": arm, **_interval(gain)} for arm, gain in patience.gains.items()]}


def _interval(gain: FinalComparison | None) -> dict[str, float | None]:
    return {name: getattr(gain, name) if gain else None for name in ("difference", "low", "high")}
