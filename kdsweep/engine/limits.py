"""Hold what a student costs against `study.constraints`: one number for all workers, in the form that the constraints mean."""

from collections.abc import Callable
from dataclasses import dataclass

from kdsweep.config.forms import OnnxForm
from kdsweep.config.sweep import SweepConfig
from kdsweep.config.trial import TrialConfig
from kdsweep.errors import ConfigError
from kdsweep.search.agreements import Agreements
from kdsweep.training.architecture import architecture
from kdsweep.training.shared import Materials

MeasureForm = Callable[[Materials, TrialConfig, OnnxForm], dict[str, float]]
"""Measures what the untrained student of a config costs in an exported form, by the names of the constraints."""


def no_exporter(materials: Materials, config: TrialConfig, form: OnnxForm) -> dict[str, float]:
    """Refuse to measure an exported form: what a worker does that was given no exporter. Raises ConfigError."""
    raise ConfigError(
        f"study.constraints.form {form} needs a worker that can export students: start it by python -m kdsweep.run or kdsweep.worker"
    )


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Holds what a student costs, by the names of the constraints, and in which form."""

    form: OnnxForm | None
    """None: the student as it is trained."""
    values: dict[str, float]
    limits: dict[str, float]

    @property
    def excess(self) -> dict[str, float]:
        """Return by how much each constraint is broken; at most 0 where it is kept."""
        return {name: self.values[name] - limit for name, limit in self.limits.items()}

    @property
    def violates(self) -> tuple[str, ...]:
        """Return the constraints that are broken, in words: `latency_ms_p50 9.1 > 5`, with ` as int8` behind it."""
        form = f" as {self.form}" if self.form else ""
        return tuple(
            f"{name} {self.values[name]:.3g} > {limit:g}{form}"
            for name, limit in self.limits.items()
            if self.values[name] > limit
        )


class Limits:
    """Finds out what the students of one sweep cost, each size of student once for all workers."""

    def __init__(
        self, sweep: SweepConfig, agreements: Agreements, materials: Materials, measure_form: MeasureForm = no_exporter
    ) -> None:
        self._constraints, self._agreements, self._materials = sweep.study.constraints, agreements, materials
        self._measure_form = measure_form

    @property
    def form(self) -> OnnxForm | None:
        """Return the exported form that the constraints mean; None where it is the student as it is trained, and without a limit."""
        return self._constraints.onnx_form

    def costs(self, config: TrialConfig) -> Costs:
        """Return what the student of `config` costs. Raises ShippingError where it cannot be exported in the form that is meant."""
        limits = self._constraints.limits()
        return Costs(form=self.form, values=self._values(config, self.form, limits), limits=limits)

    def _values(self, config: TrialConfig, form: OnnxForm | None, limits: dict[str, float]) -> dict[str, float]:
        if not limits:
            return {}
        fields = architecture(config)
        if form is not None:
            measure_form = lambda: self._measure_form(self._materials, config, form)
            return self._agreements.agreed_form_cost(form, fields, measure_form)
        values = {"size_mb": self._materials.size_mb(config)}
        if "latency_ms_p50" in limits:
            measure = lambda: self._materials.speed(config).latency_ms_p50
            values["latency_ms_p50"] = self._agreements.agreed_latency(fields, measure)
        return values
