"""Compare a re-run of a trial with its record: equal to the last bit, within a tolerance, or different, and where first.

Compared are every metric of every epoch, the result, the trained weights, the prediction of every validation row, and for a finalist the
test split. On a CPU the rule is equality to the last bit. On a GPU, where sums are not ordered, it is `TOLERANCE`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from kdsweep.config.lengths import unit_of
from kdsweep.config.sweep import identity_changes
from kdsweep.records.reading import TrialRow, read_predictions, read_test, read_test_predictions, torn_lines
from kdsweep.records.schema import VALIDATED, EpochMetrics, TrialResult

TOLERANCE = 0.01
"""How far a re-run on a GPU may differ: losses and errors by this share of themselves, other metrics by this much, predictions on this share of
rows. A predicted number differs where it does by more than this share of the range of all."""

Verdict = Literal["identical", "within tolerance", "different"]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Holds one part of the record, beside the epochs, that the re-run must give again, and what it gave."""

    of: Literal["result", "student", "validation", "test"]
    what: str
    recorded: str
    again: str
    same: bool | None
    """Whether both are equal to the last bit; None where the record does not have it, so that nothing can be compared."""
    close: bool | None
    """Whether both are within `TOLERANCE`; True for weights, which have no tolerance; None where `same` is None."""


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """Holds the results of a re-run beside the record, and the verdict."""

    trial: str
    verdict: Verdict
    rule: str
    unit: str
    """What the record calls the part of a training that ends with an evaluation: `epoch` or `evaluation`."""
    recorded: tuple[EpochMetrics, ...]
    again: tuple[EpochMetrics, ...]
    compared: tuple[Compared, ...]
    """Result, config, weights, predictions and test split."""
    first_difference: str | None
    """The first epoch and metric that differ, else the first of `compared` that differs; None where nothing differs."""
    facts: tuple[str, ...]
    """Differences in config, places, versions, machine, data or weights, which need not have changed the result."""


def receipt(trial: TrialRow, again: TrialRow) -> Receipt:
    """Compare the re-run `again` with the record `trial`."""
    assert trial.result is not None and again.result is not None
    ran_on = (trial.result.config or {}).get("device", trial.config.device)
    exact = ran_on == again.config.device == "cpu"
    compared = (
        _compared_results(trial.result, again.result),
        *_compared_config(trial.result),
        _compared_weights(trial.result, again.result),
        _compared_predictions("validation", read_predictions(trial.folder), read_predictions(again.folder)),
        *_compared_tests(trial, again),
    )
    other = [f"{each.of}, {each.what}: {each.recorded}, now {each.again}" for each in compared if each.same is False]
    difference = _first_difference(trial, again, tolerance=0.0) or next(iter(other), None)
    near = not exact and _first_difference(trial, again, tolerance=TOLERANCE) is None
    beyond = not near or any(each.close is False for each in compared)
    verdict: Verdict = "identical" if difference is None else "different" if beyond else "within tolerance"
    rule = f"accuracies within {TOLERANCE:g}, losses within {TOLERANCE:.0%}, {TOLERANCE:.0%} of the predictions, weights free"
    return Receipt(
        trial=f"{trial.arm} {trial.trial}" + f", seed {trial.finalist_seed}" * (trial.finalist_seed is not None),
        verdict=verdict,
        rule="equal to the last bit" if exact else rule,
        unit=unit_of(trial.config),
        recorded=trial.epochs,
        again=again.epochs,
        compared=compared,
        first_difference=difference,
        facts=tuple(_differing_facts(trial, again)),
    )


def _first_difference(trial: TrialRow, again: TrialRow, *, tolerance: float) -> str | None:
    """Return the first epoch and metric that differ by more than `tolerance`, in words; None where none does.

    Epochs are matched by their number, as a torn line of the record leaves one out.
    """
    ran, unit = {epoch.epoch: epoch.measured() for epoch in again.epochs}, unit_of(trial.config)
    for old in trial.epochs:
        if old.epoch not in ran:
            return f"{unit} {old.epoch} was recorded, and did not run again"
        if name := _first_differing(old.measured(), ran[old.epoch], tolerance=tolerance):
            return f"{unit} {old.epoch}: {name} was {old.measured()[name]!r} and is {ran[old.epoch].get(name)!r}"
    return None


def _first_differing(before: Mapping[str, Any], now: Mapping[str, Any], *, tolerance: float) -> str | None:
    """Return the first metric that differs by more than `tolerance`, a loss by more than that share of itself; None where none does."""
    for name, value in before.items():
        scale = abs(value) if name.startswith("L_") or name.endswith(("loss", "rmse")) else 1.0
        again = now.get(name)
        if again is None or not abs(again - value) <= tolerance * scale:  # nan is never close
            return name
    return None


def _compared_config(old: TrialResult) -> list[Compared]:
    """Return an entry for config.yaml only where the record does not tell whether it was edited: an edit is among `Receipt.facts`."""
    unknown = Compared(
        of="result",
        what="config.yaml",
        recorded="an older record does not say what ran",
        again="-",
        same=None,
        close=None,
    )
    return [unknown] if old.config is None else []


def _compared_results(old: TrialResult, new: TrialResult) -> Compared:
    """Compare the results' metrics, by which the leaderboard ranks; the last epoch's line holds them a second time."""
    names = (*VALIDATED, "epochs", "steps", "parameters")
    before = {name: getattr(old, name) for name in names if getattr(old, name) is not None}
    return _compared_metrics("result", before, {name: getattr(new, name) for name in names})


def _compared_metrics(of: Literal["result", "test"], before: Mapping[str, Any], now: Mapping[str, Any]) -> Compared:
    first = _first_differing(before, now, tolerance=0.0)
    shown = first or next(iter(before))
    return Compared(
        of=of,
        what=shown,
        recorded=repr(before[shown]),
        again=repr(now.get(shown)),
        same=first is None,
        close=_first_differing(before, now, tolerance=TOLERANCE) is None,
    )


def _compared_weights(old: TrialResult, new: TrialResult) -> Compared:
    known = old.weights_sha256 is not None
    return Compared(
        of="student",
        what="weights",
        recorded=f"sha256 {old.weights_sha256}" if known else "not recorded: the trial failed, or the record is older",
        again=f"sha256 {new.weights_sha256}",
        same=old.weights_sha256 == new.weights_sha256 if known else None,
        close=True if known else None,
    )


def _compared_predictions(
    of: Literal["validation", "test"], before: np.ndarray | None, now: np.ndarray | None
) -> Compared:
    """Compare what the student predicts for every row; `before` None: not on disk, so nothing is compared."""
    what = "predictions"
    if before is None:
        return Compared(of=of, what=what, recorded="not on disk", again="-", same=None, close=None)
    if now is None or now.shape != before.shape:
        rows = "none" if now is None else f"{len(now):,} rows"
        return Compared(of=of, what=what, recorded=f"{len(before):,} rows", again=rows, same=False, close=False)
    differing, far = _rows_differing(before, now), _rows_differing(before, now, tolerance=TOLERANCE)
    return Compared(
        of=of,
        what=what,
        recorded=f"{len(before):,} rows",
        again=f"{differing:,} differ",
        same=differing == 0,
        close=far <= TOLERANCE * len(before),
    )


def _rows_differing(before: np.ndarray, now: np.ndarray, *, tolerance: float = 0.0) -> int:
    """Count the rows whose class, any of whose labels, or whose number differs, the number by more than `tolerance` of the range of all."""
    if np.issubdtype(before.dtype, np.floating):
        return int((~(np.abs(now - before) <= tolerance * np.ptp(before))).sum())  # nan is never close
    return int((before != now).reshape(len(before), -1).any(axis=1).sum())


def _compared_tests(trial: TrialRow, again: TrialRow) -> list[Compared]:
    """Compare a finalist's test result with one that was measured again on the same split; empty for a trial that was not tested."""
    before, now = read_test(trial.folder), read_test(again.folder)
    if before is None:
        return []
    predictions = read_test_predictions(trial.folder), read_test_predictions(again.folder)
    found = _compared_predictions("test", *predictions)
    return [found, _compared_metrics("test", before.measured(), now.measured())] if now else [found]


def _differing_facts(trial: TrialRow, again: TrialRow) -> list[str]:
    assert trial.result is not None and again.result is not None
    old, new = trial.result, again.result
    facts = [f"config.yaml was edited after the run, {edit}" for edit in trial.edits()]
    facts += [f"--set {change.strip()}" for change in identity_changes(asdict(trial.config), asdict(again.config))]
    facts += [f"{line} of the record is torn, what it held is not compared" for line in torn_lines(trial.folder)]
    pairs: dict[str, tuple[Any, Any]] = {
        "data": (old.data_sha256, new.data_sha256),
        "texts without labels": (old.unlabeled_sha256, new.unlabeled_sha256),
        "teacher's weights": (old.teacher_weights_sha256, new.teacher_weights_sha256),
        "student's initial weights": (old.initial_weights_sha256, new.initial_weights_sha256),
        "pieces of a batch": (old.micro_batches, new.micro_batches),
        **{name: (value, new.environment.get(name, "-")) for name, value in old.environment.items()},
    }
    return facts + [f"{name}: {before}, now {after}" for name, (before, after) in pairs.items() if before != after]
