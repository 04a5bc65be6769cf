"""What all workers and hosts of a sweep agree on: teacher and rows, a student's latency, a machine's precision."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from optuna.study import Study

from kdsweep.config.sweep import SweepConfig
from kdsweep.errors import ResultsError
from kdsweep.records.layout import new_sweep_key
from kdsweep.records.writing import keep_sweep_key
from kdsweep.search import attributes
from kdsweep.search.storage import Storage

Value = TypeVar("Value", str, int, float)


class Agreements:
    """What was found first, kept beside a `study` and taken by all that come later."""

    def __init__(self, sweep: SweepConfig, study: Study, storage: Storage, folder: Path) -> None:
        self._sweep, self._study, self._storage, self._folder = sweep, study, storage, folder

    def agree(self, facts: Mapping[str, str]) -> None:
        """All hosts must bring the same teacher and rows. Raises ResultsError with what differs."""
        study = self._study
        with self._storage.alone():
            stored = study.user_attrs.get(attributes.MATERIALS)
            if stored is None:
                study.set_user_attr(attributes.MATERIALS, dict(facts))
        changes = [
            f"  {name}: {stored[name]}, here {facts[name]}" for name in facts if stored and stored[name] != facts[name]
        ]
        if changes:
            raise ResultsError(
                f"every trial of {self._sweep.name} must meet the same teacher and rows, but these differ from what its first "
                "trials met:\n"
                + "\n".join(changes)
                + "\nBring the cache of the first run (KDSWEEP_CACHE), name a teacher "
                "that is fine-tuned already (teacher_epochs: 0), or start afresh with --fork NEW_NAME"
            )

    def has_agreed(self) -> bool:
        """Whether trials have met a teacher and rows before."""
        return attributes.MATERIALS in self._study.user_attrs

    def agreed_latency(self, architecture: str, measure: Callable[[], float]) -> float:
        """The latency of a size of student as it was measured first: one number for all trials, so that proposals repeat."""
        return self._agreed(attributes.LATENCIES, architecture, measure)

    def agreed_precision(self, hardware: str, measure: Callable[[], str]) -> str:
        """What `precision: auto` means on a kind of machine, as it was measured there first: the same for all trials that run on it."""
        return self._agreed(attributes.PRECISIONS, hardware, measure)

    def agreed_teacher_threads(self, count: Callable[[], int]) -> int:
        """What `teacher_threads: auto` means, as the first worker had it: the same teacher to the last bit on every host and later day."""
        return self._agreed(attributes.TEACHER_THREADS, "auto", count)

    def sweep_key(self) -> str:
        """What the ids of the sweep's W&B runs end with, drawn once for all hosts; the results folder keeps a copy."""
        key = self._agreed(attributes.TRACKING, "sweep_key", new_sweep_key)
        keep_sweep_key(self._folder, key)
        return key

    def _agreed(self, name: str, key: str, measure: Callable[[], Value]) -> Value:
        """What was measured (or drawn) first, of all workers and hosts."""
        study = self._study
        with self._storage.alone():
            known: dict[str, Value] = study.user_attrs.get(name, {})
            if key not in known:
                known = {**known, key: measure()}
                study.set_user_attr(name, known)
        return known[key]
