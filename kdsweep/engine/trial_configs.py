"""Build the configs of a sweep's trials on this machine: what `auto` means is found first, so that no value is replaced later."""

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kdsweep.config.arms import Arm
from kdsweep.config.sweep import SweepConfig
from kdsweep.config.trial import TrialConfig
from kdsweep.records.layout import teacher_folder
from kdsweep.records.reading import read_teacher_config
from kdsweep.search.agreements import Agreements
from kdsweep.system.hardware import available_cores
from kdsweep.training.fast import machine
from kdsweep.training.resolve import resolve


class TrialConfigs:
    """Builds the configs of one worker's trials; the workers agree on values that must be the same for all trials."""

    def __init__(self, sweep: SweepConfig, folder: Path, agreements: Agreements) -> None:
        self._sweep, self._folder, self._agreements = sweep, folder, agreements
        self._threads = int(os.environ.get("OMP_NUM_THREADS") or available_cores())
        self._precision_on: Callable[[str], str] = functools.cache(self._agreed_precision)
        self._teacher_threads: Callable[[int | None], int] = functools.cache(self._agreed_teacher_threads)

    def of(self, arm: Arm, params: Mapping[str, Any]) -> TrialConfig:
        """Return a trial's config, with every `auto` resolved. Raises ConfigError where a value is not allowed."""
        return resolve(
            self._sweep.fields(arm, params),
            threads=self._threads,
            precision_on=self._precision_on,
            teacher_threads=self._teacher_threads,
        )

    def corners(self) -> list[TrialConfig]:
        """Return configs that together need every teacher, student and kind of rows that the sweep can ask for, distilled ones first."""
        arms = [arm for arm in self._sweep.arms if self._sweep.budget(arm) and self._needs_more(arm)]
        return list(
            dict.fromkeys(
                self.of(arm, point) for arm in arms for point in self._with_relations(self._sweep.corners(arm))
            )
        )

    def _with_relations(self, points: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return `points`, and each with the highest relation_weight: above 0, it asks more of teachers, students and relation_heads."""
        search = self._sweep.search
        if "relation_weight" not in search or any("relation_weight" in axis.when for axis in search.values()):
            return points
        highest = {"relation_weight": max(search["relation_weight"].ends())}
        return points + [point | highest for point in points if "relation_weight" in point]

    def _needs_more(self, arm: Arm) -> bool:
        """Return whether trials of `arm` can need what no distilled one does: other rows, or values of an axis that these do not search."""
        limited = any(axis.arms for axis in self._sweep.axes(arm).values())
        return arm == "distilled" or limited or self._sweep.has_unlabeled()

    def _agreed_precision(self, device: str) -> str:
        return self._agreements.agreed_precision(machine.hardware(device), lambda: machine.best_precision(device))

    def _agreed_teacher_threads(self, named: int | None) -> int:
        """Return the threads that fine-tune the teacher: as agreed, else as recorded (older versions used all cores), else `named`, else
        all, or with folds a worker's share: workers fine-tune teachers of folds side by side."""
        folder = teacher_folder(self._folder)

        def count() -> int:
            if (folder / "config.yaml").exists():
                return int(read_teacher_config(folder).teacher_threads)
            folds = max(self._sweep.values("teacher_folds"))
            return named or (self._threads if folds > 1 else available_cores())

        return self._agreements.agreed_teacher_threads(count)
