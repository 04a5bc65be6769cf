"""Store what all workers and hosts of a sweep must share: teacher and rows, a student's latency, a machine's precision."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from optuna.study import Study

from kdsweep.config.forms import OnnxForm
from kdsweep.config.sweep import SweepConfig
from kdsweep.errors import ResultsError
from kdsweep.records.layout import new_sweep_key
from kdsweep.records.writing import keep_sweep_key
from kdsweep.search import attributes
from kdsweep.search.storage import Storage

Value = TypeVar("Value", str, int, float, dict[str, float])


class Agreements:
    """Stores in a `study` the values that the first worker found, and gives them to all later workers and hosts."""

    def __init__(self, sweep: SweepConfig, study: Study, storage: Storage, folder: Path) -> None:
        self._sweep, self._study, self._storage, self._folder = sweep, study, storage, folder
        self._known: dict[tuple[str, str], Any] = {}
        """What this process has asked for before: nothing that was agreed ever changes."""

    def agree(self, facts: Mapping[str, str]) -> None:
        """Store the hashes of teacher and rows at the first call, and compare them later. Raises ResultsError with what differs."""

        def stored_or_mine() -> dict[str, str] | None:
            with self._storage.alone():
                stored: dict[str, str] | None = self._study.user_attrs.get(attributes.MATERIALS)
                if stored is None:
                    self._study.set_user_attr(attributes.MATERIALS, dict(facts))
            return stored

        stored = self._storage.patiently(stored_or_mine)
        changes = [
            f"  {name}: {stored[name]}, here {facts[name]}" for name in facts if stored and stored[name] != facts[name]
        ]
        if changes:
            ways = "Bring the cache of the first run (KDSWEEP_CACHE), name a teacher that is fine-tuned already (teacher_epochs: 0), "
            if any(self._sweep.values("teacher_file")):
                ways = "Bring back the numbers that they met (teacher_file), "
            raise ResultsError(
                f"every trial of {self._sweep.name} must meet the same teacher and rows, but these differ from what its first "
                "trials met:\n" + "\n".join(changes) + f"\n{ways}or start afresh with --fork NEW_NAME"
            )

    def has_agreed(self) -> bool:
        """Return whether an earlier worker has stored its teacher and rows."""
        return attributes.MATERIALS in self._storage.patiently(lambda: self._study.user_attrs)

    def agreed_latency(self, architecture: str, measure: Callable[[], float]) -> float:
        """Return a student architecture's latency as it was measured first: one number for all trials, so that proposals repeat."""
        return self._agreed(attributes.LATENCIES, architecture, measure)

    def agreed_form_cost(
        self, form: OnnxForm, architecture: str, measure: Callable[[], dict[str, float]]
    ) -> dict[str, float]:
        """Return what a student architecture costs in an exported form, as it was measured first, by the names of the constraints.

        It takes half a minute, during which nobody waits: of workers that measure at once, all take what the first one stored.
        """
        key = f"{form} {architecture}"
        if (attributes.FORM_COSTS, key) in self._known:
            return self._agreed(attributes.FORM_COSTS, key, measure)
        known = self._storage.patiently(lambda: self._study.user_attrs).get(attributes.FORM_COSTS, {}).get(key)
        found: dict[str, float] = known or measure()
        return self._agreed(attributes.FORM_COSTS, key, lambda: found)

    def agreed_precision(self, hardware: str, measure: Callable[[], str]) -> str:
        """Return what `precision: auto` means on a kind of machine, as measured there first: one precision for all its trials."""
        return self._agreed(attributes.PRECISIONS, hardware, measure)

    def agreed_teacher_threads(self, count: Callable[[], int]) -> int:
        """Return what `teacher_threads: auto` meant to the first worker, so that every host trains the same teacher to the last bit."""
        return self._agreed(attributes.TEACHER_THREADS, "auto", count)

    def sweep_key(self) -> str:
        """Return what the ids of the sweep's W&B runs end with, drawn once for all hosts; write a copy into the results folder."""
        key = self._agreed(attributes.TRACKING, "sweep_key", new_sweep_key)
        keep_sweep_key(self._folder, key)
        return key

    def _agreed(self, name: str, key: str, measure: Callable[[], Value]) -> Value:
        """Return the value stored under `key` of the attribute `name`; measure (or draw) and store it where there is none."""

        def stored_or_measured() -> Value:
            study = self._study
            known: dict[str, Value] = study.user_attrs.get(name, {})
            if key not in known:
                with self._storage.alone():
                    known = study.user_attrs.get(name, {})
                    if key not in known:
                        known = {**known, key: measure()}
                        study.set_user_attr(name, known)
            return known[key]

        if (name, key) not in self._known:
            self._known[name, key] = self._storage.patiently(stored_or_measured)
        found: Value = self._known[name, key]
        return found
