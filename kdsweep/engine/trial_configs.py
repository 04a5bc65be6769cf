"""Build the configs of a sweep's trials on this machine: what `auto` means is found first, so that no value is replaced later."""

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kdsweep.config.sweep import Arm, SweepConfig
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
        """Return configs that together need every teacher and student that the sweep can ask for."""
        search, points = self._sweep.search, self._sweep.corners()
        if "relation_weight" in search and not any("relation_weight" in axis.when for axis in search.values()):
            highest = max(
                search["relation_weight"].ends()
            )  # above 0 it asks more of teachers, students and relation_heads
            points += [{**point, "relation_weight": highest} for point in points if "relation_weight" in point]
        return list(dict.fromkeys(self.of("distilled", point) for point in points))

    def _agreed_precision(self, device: str) -> str:
        return self._agreements.agreed_precision(machine.hardware(device), lambda: machine.best_precision(device))

    def _agreed_teacher_threads(self, named: int | None) -> int:
        """Return the threads that fine-tune the teacher: as agreed, else as recorded (older versions used all cores), else `named` or all."""
        folder = teacher_folder(self._folder)

        def count() -> int:
            if (folder / "config.yaml").exists():
                return int(read_teacher_config(folder).teacher_threads)
            return named or available_cores()

        return self._agreements.agreed_teacher_threads(count)
