"""Hold the finalists, confirmed on fresh seeds, and the verdicts about them; `read_finals.py` computes both from the records."""

import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kdsweep.analysis.bootstrap import Bootstrapped
from kdsweep.analysis.ranking import Estimate
from kdsweep.analysis.secondary import Secondary
from kdsweep.analysis.tasks import ROW_SCORES
from kdsweep.analysis.two_arms import FinalComparison
from kdsweep.config.arms import ARM_NAMES, THIRD, Arm
from kdsweep.config.tasks import TaskName
from kdsweep.records.reading import TrialRow
from kdsweep.records.schema import FinalTest

SplitName = Literal["test", "validation"]
TEST_MEANS: dict[TaskName, tuple[str, ...]] = {
    "single_label": ("accuracy", "macro_f1", "mcc", "loss", "ece", "agreement", "kl"),
    "multi_label": (
        *("example_f1", "micro_f1", "macro_f1", "map", "accuracy"),
        *("loss", "ece", "agreement", "kl"),
    ),
    "regression": ("pearson", "spearman", "rmse", "loss"),
}
"""Metrics of a finalist on the test split that are shown, as means over its seeds, by task."""


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """Holds one configuration of the search that ran again on fresh seeds, with its scores."""

    arm: Arm
    trial: int
    searched: Mapping[str, Any]
    """The searched fields with the values of its trial in the search, which `finalists.epochs_factor` does not lengthen."""
    runs: tuple[TrialRow, ...]
    """Its complete runs, by seed."""
    wanted: int
    """How many seeds it is to run on: those configured if it is compared, else those on which it was started."""
    compared: bool
    """Whether the comparisons of arms count it."""
    rank: int
    """1 + the number of finalists that are significantly better on validation; 1 where predictions of one of its runs are missing."""
    search_score: float
    """`study.metric` of its trial in the search; the confirmed score where that trial's result is missing."""
    confirmed_score: float
    """Mean of `study.metric` over the fresh seeds."""
    factor: float
    """How many times as long as its trial in the search it was trained; 1 where that trial's record is missing."""
    tests: tuple[FinalTest, ...]
    """Results on the test split, by seed; empty where there is none."""

    def mean(self, name: str) -> float | None:
        """Return the mean over seeds of metric `name` on the test split; None where no run was tested, or it could not be measured."""
        values = [value for test in self.tests if (value := getattr(test, name)) is not None]
        return float(np.mean(values)) if values else None


@dataclass(frozen=True, kw_only=True)
class Finals:
    """Holds all finalists, and the verdicts about them."""

    folder: Path
    """The results folder."""
    rows: tuple[Finalist, ...]
    """All finalists by rank, then by confirmed score."""
    best_first: tuple[Finalist, ...]
    """All finalists by confirmed score alone; `shipped` returns a run of the first."""
    split: SplitName
    """The split that verdicts are computed on; on validation they are provisional."""
    primary: FinalComparison | None
    """The distilled finalists against the fine-tuned ones; None while an arm has none."""
    secondary: tuple[Secondary, ...]
    ratio: Estimate | None
    """Share of the gap between fine-tuning and the teacher that distilling closes; None: undefined, an arm has one seed, or the teacher is
    not known on the split."""
    shrinkage: Estimate | None
    """Mean over the finalists of search score minus confirmed score; None below two finalists, and where they were trained longer."""
    detectable: float | None
    """The true difference that the primary comparison would have called better with a chance of 80 %; None: no comparison, or one seed."""
    opened: tuple[str, ...]
    """The times at which the test split was first opened, one for each round of finalists."""
    unfinished: int
    """Runs of finalists that are still to come."""
    failed: int
    """Runs of the chosen finalists that did not complete."""
    task: TaskName = "single_label"
    """What the rows' labels ask of a model, and so what a row's score is, on which all comparisons rest."""
    pearson: Bootstrapped | None = None
    """The difference of the primary comparison in Pearson's r; None but for a regression."""
    earlier: tuple[str, ...]
    """Titles of finalists that are no longer among the best since the search was continued: the primary comparison leaves them out."""

    def best(self, arm: Arm) -> Finalist | None:
        """Return the finalist of an arm that is best on validation over the fresh seeds; None where the arm has none."""
        return next((row for row in self.best_first if row.arm == arm), None)

    def between(self, arm: Arm, baseline: Arm) -> Secondary | None:
        """Return the secondary comparison of two arms' finalists; None where there is none."""
        return next((each for each in self.secondary if each.arms == (arm, baseline)), None)

    def folders(self, arm: Arm) -> tuple[str, ...]:
        """Return the folders, relative to the results folder, of an arm's runs that the primary comparison counts."""
        runs = [run for row in self.rows if row.arm == arm and row.compared for run in row.runs]
        return tuple(sorted(Path(os.path.relpath(run.folder, self.folder)).as_posix() for run in runs))

    @property
    def chosen(self) -> Finalist:
        """Return the configuration to ship by quality alone: of all arms, the best on validation over the fresh seeds."""
        return self.best_first[0]


def titled(finalist: Finalist) -> str:
    """Name a finalist by arm and trial: `distilled 7`."""
    return f"{ARM_NAMES[finalist.arm]} {finalist.trial}"


def finals_json(finals: Finals) -> dict[str, Any]:
    """Return the finalists and their verdicts in the form of leaderboard.json."""
    rows = [
        {
            **{key: getattr(row, key) for key in ("rank", "arm", "trial", "search_score", "confirmed_score")},
            **row.searched,
            "compared": row.compared,
            "seeds": [run.finalist_seed for run in row.runs],
            "run_urls": [run.result.run_url if run.result else None for run in row.runs],
            "test": {key: row.mean(key) for key in TEST_MEANS[finals.task]},
        }
        for row in finals.rows
    ]
    return {
        "split": finals.split,
        "task": finals.task,
        "score": ROW_SCORES[finals.task],
        "primary": asdict(finals.primary) if finals.primary else None,
        "pearson": asdict(finals.pearson) if finals.pearson else None,
        "secondary": [{**asdict(each.comparison), **_corrected(each)} for each in finals.secondary],
        "distillation_ratio": asdict(finals.ratio) if finals.ratio else None,
        "shrinkage": asdict(finals.shrinkage) if finals.shrinkage else None,
        "detectable_difference": finals.detectable,
        "test_opened": list(finals.opened),
        "finalists": rows,
    }


def third_arm_json(arms: Collection[Arm], finals: Finals | None) -> dict[str, Any]:
    """Return the third arm's part of the verdict, each comparison None before it is possible; empty where the sweep's `arms` are two."""
    facts = ("rows", "difference", "low", "high", "p_value", "one_seed")
    told = {pair: finals.between(*pair) if finals else None for pair in THIRD if set(pair) <= set(arms)}
    return {
        f"{arm}_against_{baseline}": each
        and {
            "word": each.word,
            "adjusted_p": each.adjusted_p,
            **{name: getattr(each.comparison, name) for name in facts},
        }
        for (arm, baseline), each in told.items()
    }


def _corrected(each: Secondary) -> dict[str, Any]:
    arms = {"arms": list(each.arms)} if each.arms else {}
    return {"what": each.what, **arms, "adjusted_p": each.adjusted_p, "word": each.word}
