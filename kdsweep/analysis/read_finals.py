"""Read the finalists from the records and judge them: confirmed on fresh seeds, ranked, compared on the test split.

The primary comparison was fixed before the search: the finalists of the distilled arm against those of the fine-tuned
one, chosen on validation, compared on test. Those of a third arm, pseudo-labeled, are compared with both of them among the secondary
comparisons (Holm). A comparison of the best finalist of each arm is only a secondary one: it
returns `better` in up to 6 % of studies in which the arms are equal, because chosen configurations still differ.

Where the search was continued after its finalists had run, other configurations may be the best. The primary comparison
then counts the best `finalists.top` of each arm, by the search so far, of those that have run; earlier finalists stay in
the table.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from kdsweep.analysis.finalists import Finalist, Finals, SplitName, titled
from kdsweep.analysis.leaderboard import complete, status
from kdsweep.analysis.other_scores import pearson, subset_accuracy
from kdsweep.analysis.ranking import distillation_ratio, minimal_detectable_difference, ranks, shrinkage
from kdsweep.analysis.row_reading import right_rows, scored
from kdsweep.analysis.score import score
from kdsweep.analysis.secondary import Asked, Secondary, adjusted, third_arm
from kdsweep.analysis.shipped import Place, confirmed, confirmed_score
from kdsweep.analysis.tasks import ROW_SCORES, RowScore
from kdsweep.analysis.two_arms import compare_arms, compare_finalists
from kdsweep.analysis.variances import SeedVariance, run_variance, seed_variance
from kdsweep.config.arms import ARMS, PRIMARY, THIRD, Arm
from kdsweep.config.lengths import length_of
from kdsweep.records import layout, reading
from kdsweep.records.reading import TrialRow
from kdsweep.records.whole_sweep import SweepRecords


def read_finals(found: SweepRecords) -> Finals | None:
    """Read and judge the finalists of a sweep; None before the first run of one is complete."""
    groups = confirmed(found)
    if not groups:
        return None
    validation, tested = scored(found, groups, "validation"), scored(found, groups, "test")
    by_score = ranks(list(validation.values()), _per_run(validation), ROW_SCORES[found.task])
    placed = dict(zip(validation, by_score, strict=True))
    split: SplitName = "test" if len(tested) == len(groups) else "validation"
    right = tested if split == "test" else validation
    compared = {place for arm in found.sweep.arms for place in _best_first(found, (p for p in right if p[0] == arm))}
    rows = tuple(
        _finalist(found, place, runs, placed.get(place, 1), place in compared) for place, runs in groups.items()
    )
    return _verdicts(found, rows, right, split)


def _per_run(right: Mapping[Place, np.ndarray]) -> SeedVariance | None:
    """Return the variance over seeds, pooled over all finalists, or where each has only one, that between the finalists of an arm."""
    seeds = seed_variance(list(right.values()))
    if not seeds.df:
        seeds = run_variance([[rows for place, rows in right.items() if place[0] == arm] for arm in ARMS])
    return seeds if seeds.df else None


def searched(found: SweepRecords, arm: Arm) -> int:
    """Return how many trials of `arm` its finalists are the best of: the complete and the pruned ones, which lost on the way."""
    return sum(trial.arm == arm and status(trial) in ("complete", "pruned") for trial in found.trials)


def _best_first(found: SweepRecords, places: Iterable[Place]) -> list[Place]:
    """Return the best `finalists.top` of `places` by search score, ties by trial number as the study chooses; all where that is 0."""
    scores = {(trial.arm, trial.trial): score(trial, found.sweep) for trial in complete(found.trials)}
    ranked = sorted(places, key=lambda place: (-scores.get(place, -math.inf), place[1]))
    return ranked[: found.sweep.finalists.top or None]


def _to_come(found: SweepRecords, groups: Mapping[Place, Sequence[TrialRow]]) -> tuple[int, int]:
    """Count the runs of finalists that are still to come, by the search so far, and the chosen finalists' runs that did not complete."""
    top, seeds, target = found.sweep.finalists.top, found.sweep.finalists.seeds, found.sweep.study.target
    reached = target is not None and any(score(trial, found.sweep) >= target for trial in complete(found.trials))
    wanted = done = failed = 0
    for arm in found.sweep.arms if top else ():
        mine = [trial for trial in found.trials if trial.arm == arm]
        able = [(arm, trial.trial) for trial in complete(mine)]
        ended = sum(trial.result is not None for trial in mine)
        open_ = 0 if reached else max(0, found.sweep.budget(arm) - ended)
        wanted += seeds * min(top, len(able) + open_)
        chosen = _best_first(found, able)
        done += sum(min(seeds, len(groups.get(place, ()))) for place in chosen)
        failed += sum(
            run.result is not None and run.result.status != "complete" and (run.arm, run.trial) in chosen
            for run in found.finalists
        )
    return max(0, wanted - done - failed), failed


def _finalist(found: SweepRecords, place: Place, runs: Sequence[TrialRow], rank: int, compared: bool) -> Finalist:
    origin = next((trial for trial in found.trials if (trial.arm, trial.trial) == place), None)
    tests = [test for run in runs if (test := reading.read_test(run.folder)) is not None]
    mean = confirmed_score(runs, found.sweep)
    started = sum((run.arm, run.trial) == place for run in found.finalists)
    return Finalist(
        arm=place[0],
        trial=place[1],
        searched=found.sweep.searched((origin or runs[0]).config),
        runs=tuple(runs),
        wanted=max(found.sweep.finalists.seeds if found.sweep.finalists.top else 0, len(runs)) if compared else started,
        compared=compared,
        rank=rank,
        search_score=score(origin, found.sweep) if origin and origin.result else mean,
        confirmed_score=mean,
        factor=length_of(runs[0].config) / length_of(origin.config) if origin else 1.0,
        tests=tuple(tests),
    )


def _verdicts(
    found: SweepRecords, best_first: tuple[Finalist, ...], right: Mapping[Place, np.ndarray], split: SplitName
) -> Finals:
    rows = tuple(sorted(best_first, key=lambda row: row.rank))
    seeds = _per_run(right)
    best = [next((row for row in best_first if row.arm == arm), None) for arm in PRIMARY]
    pair = [right.get((row.arm, row.trial)) if row else None for row in best]
    counted = {(row.arm, row.trial): row.runs for row in rows if row.compared}
    compared = list(counted)
    arms = {arm: [right[place] for place in sorted(compared) if place[0] == arm] for arm in found.sweep.arms}
    teacher = next(
        (r for there in found.folders if (r := right_rows(found, layout.teacher_folder(there), split)) is not None),
        None,
    )
    chosen_of = {arm: max(len(each), searched(found, arm)) for arm, each in arms.items()}
    primary = ratio = None
    task, row_score = found.task, ROW_SCORES[found.task]
    if pair[0] is not None and pair[1] is not None:
        among = (chosen_of["distilled"], chosen_of["fine_tuned"])
        primary = compare_arms(arms["distilled"], arms["fine_tuned"], searched=among, score=row_score)
        if teacher is not None and not primary.one_seed:
            ratio = distillation_ratio(arms["distilled"], arms["fine_tuned"], teacher, searched=among, score=row_score)
    unfinished, failed = _to_come(found, {(row.arm, row.trial): row.runs for row in rows})
    return Finals(
        folder=found.folder,
        rows=rows,
        best_first=best_first,
        split=split,
        primary=primary,
        secondary=_secondary(
            *(best_first, right, teacher, seeds),
            [*_third_arm(arms, chosen_of, row_score), *subset_accuracy(found, counted, split, chosen_of)],
            _pairs_of_arms(compared),
            row_score,
        ),
        task=task,
        pearson=pearson(found, counted, split),
        ratio=ratio,
        shrinkage=None
        if any(row.factor != 1 for row in rows)
        else shrinkage([row.search_score for row in rows], [row.confirmed_score for row in rows]),
        detectable=minimal_detectable_difference(primary.standard_error, primary.df)
        if primary and not primary.one_seed
        else None,
        opened=_openings(rows),
        unfinished=unfinished,
        failed=failed,
        earlier=tuple(titled(row) for row in rows if (row.arm, row.trial) in right and not row.compared),
    )


def _third_arm(
    arms: Mapping[Arm, Sequence[np.ndarray]], chosen_of: Mapping[Arm, int], row_score: RowScore
) -> list[Asked]:
    if "pseudo_labeled" not in arms:
        return []
    distilled, fine_tuned, third = (arms[arm] for arm in ARMS)
    searched = (chosen_of[ARMS[0]], chosen_of[ARMS[1]], chosen_of[ARMS[2]])
    return third_arm(distilled, fine_tuned, third, searched=searched, score=row_score)


def _pairs_of_arms(compared: Sequence[Place]) -> set[frozenset[Place]]:
    """Return the pairs that comparisons of arms are about already: those of arms with one finalist each."""
    of_arm = {arm: [place for place in compared if place[0] == arm] for arm in ARMS}
    alone = {arm: places[0] for arm, places in of_arm.items() if len(places) == 1}
    return {frozenset(alone[arm] for arm in pair) for pair in (PRIMARY, *THIRD) if alone.keys() >= set(pair)}


def _secondary(
    best_first: Sequence[Finalist],
    right: Mapping[Place, np.ndarray],
    teacher: np.ndarray | None,
    seeds: SeedVariance | None,
    of_arms: Sequence[Asked],
    pairs_of_arms: Collection[frozenset[Place]],
    row_score: RowScore,
) -> tuple[Secondary, ...]:
    """Add to the comparisons `of_arms` those of the best finalists of the two primary arms, the two best of all, and the best of
    each arm with the teacher.

    The second pair of finalists is left out where it is the first one, and each where it is one of the `pairs_of_arms`, so that no
    question is asked twice. Comparisons of arms, which were planned before the search, are corrected among themselves, as those of
    single finalists are.
    """
    known = [(row, right[row.arm, row.trial]) for row in best_first if (row.arm, row.trial) in right]
    best = [each for arm in ARMS for each in known if each[0] is _first(known, arm)]
    main = [each for each in best if each[0].arm in PRIMARY]
    pairs = [pair for pair in (main, known[:2]) if len(pair) == 2]
    if len(pairs) == 2 and {id(row) for row, _ in main} == {id(row) for row, _ in known[:2]}:
        pairs = pairs[:1]
    pairs = [pair for pair in pairs if frozenset((row.arm, row.trial) for row, _ in pair) not in pairs_of_arms]
    asked = [
        Asked(
            f"{titled(one[0])} against {titled(other[0])}",
            compare_finalists(one[1], other[1], seeds=seeds, score=row_score),
        )
        for one, other in pairs
    ]
    for mine in best:
        if teacher is not None:
            compared = compare_finalists(mine[1], teacher, seeds=seeds, given_baseline=True, score=row_score)
            asked.append(Asked(f"{titled(mine[0])} against the teacher", compared))
    return (*adjusted(of_arms), *adjusted(asked))


def _first(known: Sequence[tuple[Finalist, np.ndarray]], arm: Arm) -> Finalist | None:
    return next((row for row, _ in known if row.arm == arm), None)


def _openings(rows: Iterable[Finalist]) -> tuple[str, ...]:
    """Return when the test split was first opened in each round of finalists."""
    times: dict[int, str] = {}
    for row in rows:
        for run, test in zip(row.runs, row.tests, strict=False):
            turn = run.result.finalist.round if run.result and run.result.finalist else 1
            times[turn] = min(times.get(turn, test.opened_at), test.opened_at)
    return tuple(times[turn] for turn in sorted(times))
