"""What each arm was given, and whether that is equal work."""

from dataclasses import replace
from typing import Any

from makers import POINT, make_epoch, row_of, sweep_of

from kdsweep.analysis.work import Given, given, given_work, same_length
from kdsweep.config.arms import Arm
from kdsweep.records.layout import TrialId
from kdsweep.records.reading import TrialRow
from kdsweep.records.whole_sweep import SweepRecords
from kdsweep.reporting.work import work_said, work_table

SWEEP = sweep_of()


def trial_of(arm: Arm, number: int, *steps: int, rows: tuple[int, int] | None = None, **changes: Any) -> TrialRow:
    """A trial whose epochs end after `steps`, each with `rows`: all, and those with a label."""
    row = row_of(SWEEP, arm, number, POINT, 0.8, **changes)
    counts = dict(zip(("soft_rows", "hard_rows"), rows, strict=True)) if rows else {}
    epochs = [replace(make_epoch(place, 0.8), step=step, **counts) for place, step in enumerate(steps)]
    return replace(row, epochs=tuple(epochs))


def test_steps_rows_and_seconds_are_added_up_over_what_was_trained() -> None:
    trials = [
        trial_of("distilled", 0, 100, 200, rows=(3200, 400)),
        trial_of("distilled", 1, 100, rows=(3200, 400), status="pruned"),
        trial_of("distilled", 2, 100, 200),  # an older record: batches of 32, every row with a label
        trial_of("distilled", 3, 100, rows=(3200, 400), status=None),  # it runs
    ]
    found = given(trials)
    assert (found.trials, found.pruned, found.steps, found.evaluations) == (4, 1, 600, 6)
    assert found.rows == 6 * 3200 and found.labeled_rows == 4 * 400 + 2 * 3200
    assert (found.whole_steps, found.whole_rows) == (200, 6400)
    assert found.train_seconds == 6 * 6.0


def test_duplicates_and_trials_without_an_epoch_were_given_nothing_and_finalists_stand_apart() -> None:
    trials = [
        trial_of("distilled", 0, 100),
        trial_of("distilled", 1, status="failed"),
        trial_of("distilled", 2, status="duplicate"),
        trial_of("fine_tuned", 0, 50, status="pruned"),
    ]
    finalist = replace(trial_of("distilled", 0, 100, 200, 300), id=TrialId("distilled", 0, 7))
    records = SweepRecords(
        folder=trials[0].folder, sweep=SWEEP, teacher=None, trials=tuple(trials), finalists=(finalist,)
    )
    found = given_work(records)
    told = [(each.arm, each.finalists, each.trials, each.steps, each.whole_steps) for each in found]
    assert told == [
        ("distilled", False, 1, 100, 100),
        ("fine_tuned", False, 1, 50, None),
        ("distilled", True, 1, 300, 300),
    ]
    assert [line[0] for line in work_table(found)] == ["arm", "distilled", "fine-tuned", "distilled, finalists"]
    assert "labelled" not in work_table(found)[0] and work_said(found) == ""


def given_of(arm: Arm, steps: int, rows: int, **changes: Any) -> Given:
    values: dict[str, Any] = {"trials": 8, "pruned": 0, "steps": 8 * steps, "rows": 8 * rows, "labeled_rows": 8 * rows}
    values |= {"evaluations": 24, "train_seconds": 60.0, "whole_steps": steps, "whole_rows": rows, **changes}
    return Given(arm=arm, finalists=False, **values)


def test_equal_work_is_read_off_and_unequal_work_is_named() -> None:
    distilled = given_of("distilled", 600, 19200, labeled_rows=20_000)
    assert same_length([distilled, given_of("fine_tuned", 600, 38400)]) == "steps"
    assert same_length([distilled, given_of("fine_tuned", 300, 19200)]) == "rows"  # twice the batch size
    short = given_of("fine_tuned", 75, 2400, pruned=3)
    assert same_length([distilled, short]) is None
    assert work_said([distilled, short]) == (
        "No: a whole training took 600 steps on 19,200 rows (distilled) and 75 steps on 2,400 rows (fine-tuned), at the median; a fixed "
        "max_steps gives all arms the same. Pruning stopped 0 of 8 distilled and 3 of 8 fine-tuned trials early. The searches were given 4,800 "
        "steps in 1 min 0 s (distilled) and 600 steps in 1 min 0 s (fine-tuned)."
    )
    said = work_said([distilled, given_of("fine_tuned", 600, 19200)])
    assert said.startswith("Yes, by trial: a whole training took 600 steps in every arm. The searches were given")
    header, first, *_ = work_table([distilled])
    assert first[header.index("labelled")] == "20,000" and first[header.index("rows")] == "153,600"
