"""Define the forms of a student: what the search may ask of one, and what is exported and judged."""

from dataclasses import dataclass
from typing import Annotated, Literal

from kdsweep.config.roles import POSITIVE, Range

Form = Literal["pytorch", "fp32", "int8"]
"""A form of a student: as its trial saved it, and two for ONNX Runtime, in 32-bit floats and in 8-bit integers."""
OnnxForm = Literal["fp32", "int8"]


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """Limits what a student may need to be ranked; a trial above a limit is run (or pruned) all the same, so that the search learns from it."""

    latency_ms_p50: Annotated[float | None, POSITIVE] = None
    """Median milliseconds for one row, batch 1, measured once for each size of student; null: no limit."""
    size_mb: Annotated[float | None, POSITIVE] = None
    """Megabytes of the student's weights; null: no limit."""
    form: Form = "pytorch"
    """The form that is meant. pytorch: the student as it is trained, on its device; fp32, int8: as exported for ONNX Runtime, on the CPU;
    then each size of student is exported once before it is trained, which needs the extra `export`."""

    def limits(self) -> dict[str, float]:
        """Return the limits that are set, by name."""
        limits = {"latency_ms_p50": self.latency_ms_p50, "size_mb": self.size_mb}
        return {name: limit for name, limit in limits.items() if limit is not None}

    @property
    def onnx_form(self) -> OnnxForm | None:
        """Return the form that is meant; None where it is the student as it is trained, and without a limit."""
        return None if self.form == "pytorch" or not self.limits() else self.form

    def text(self) -> str:
        """Return the limits in words, such as `latency_ms_p50 <= 5 and size_mb <= 20, as int8`; empty without one."""
        limits = " and ".join(f"{name} <= {limit:g}" for name, limit in self.limits().items())
        return f"{limits}, as {self.form}" if self.onnx_form else limits


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Describes the forms in which `python -m kdsweep.export` exports a student, and how they are judged; it may change at any time."""

    margin: Annotated[float, Range(above=0, most=100)] = 0.5
    """Points of accuracy (multi_label: of example F1; regression: of R², in hundredths) by which a form may be worse than the float32 student
    and still count as `no worse`; fix it before the test split is opened. A smaller one needs more test rows."""
    forms: tuple[OnnxForm, ...] = ("fp32", "int8")
    """Forms to export for ONNX Runtime. fp32: the same numbers up to rounding; int8: weights in 8-bit integers, a quarter of the size."""

    @property
    def margin_share(self) -> float:
        """Return the margin as a share of rows, as accuracies are."""
        return self.margin / 100


def constraint_problems(constraints: Constraints) -> list[str]:
    """List what is wrong with the form that constraints mean; ranges are checked with all others."""
    if constraints.form == "pytorch" or constraints.limits():
        return []
    rule = "study.constraints.form says of what latency_ms_p50 and size_mb are limits, so one of them must be set"
    return [f"{rule} beside it, but got form {constraints.form} alone"]


def export_problems(export: ExportConfig) -> list[str]:
    """List what is wrong with the forms to export; ranges are checked with all others."""
    if export.forms and len(set(export.forms)) == len(export.forms):
        return []
    return [f"export.forms names at least one form, and none twice, but got {list(export.forms)}"]
