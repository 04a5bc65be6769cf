"""Define what is recorded of an exported student: each of its forms, what it is worth, how fast and how large it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kdsweep.config.arms import Arm
from kdsweep.config.forms import Form
from kdsweep.config.tasks import TaskName

Word = Literal["no worse", "worse", "cannot tell"]
"""What a form is beside the float32 student, by non-inferiority with the margin of its `Export`."""
RECIPE = 1
"""The version of how students are exported and judged: an export of a lower one is made again."""


@dataclass(frozen=True, kw_only=True)
class FormSpeed:
    """Holds the speed of a warm form on the CPU: milliseconds of one row of median length, and rows a second in batches of 32."""

    threads: int
    latency_ms_p50: float
    latency_ms_p95: float
    rows_per_second: float


@dataclass(frozen=True, kw_only=True)
class FormQuality:
    """Holds what a form is worth on one split, each row alone, T = 1, in the metrics of its task: those that it lacks are None.

    The float32 PyTorch student's own numbers are those of its record, from batches.
    """

    rows: int
    accuracy: float | None
    """Share of rows whose label is right (multi_label: all of whose labels are), in [0, 1]; None for regression."""
    loss: float
    """Cross-entropy in nats per row; multi_label: of the decisions; regression: mean squared error."""
    ece: float | None
    """Expected calibration error, in [0, 1]; None for regression."""
    agreement: float | None
    """Share of rows (multi_label: of decisions) with the same label as the float32 PyTorch student's; None for regression."""
    largest_logit_difference: float
    """Largest absolute difference of one logit from the float32 PyTorch student's."""
    batch_dependent: int
    """Rows whose label (multi_label: any of whose labels) differs between the row alone and the row in a batch of 32; regression: whose
    number does by more than a hundredth of the labels' standard deviation."""
    difference: float | None = None
    """The task's score minus that of the float32 PyTorch student on the same rows: accuracy; multi_label: example_f1; regression: r2. None,
    as the next three, for that student itself and where the comparison was not asked for or not possible."""
    low: float | None = None
    high: float | None = None
    """The ends of the paired 95% interval of `difference`."""
    word: Word | None = None
    macro_f1: float | None = None
    """Mean F1 over the labels, in [0, 1]; this and the next three of multi_label alone."""
    micro_f1: float | None = None
    """F1 of all decisions together, in [0, 1]."""
    example_f1: float | None = None
    """Mean over rows of the F1 of a row's labels, in [0, 1]."""
    map: float | None = None
    """Mean average precision over the labels that occur, in [0, 1]."""
    pearson: float | None = None
    """Correlation of numbers and labels, in [-1, 1]; this and the next three of regression alone."""
    spearman: float | None = None
    """Correlation of their ranks, in [-1, 1]."""
    rmse: float | None = None
    """Root of the mean squared error, in the labels' unit."""
    r2: float | None = None
    """1 minus the mean squared error over the labels' variance, at most 1; None where all labels are equal."""


@dataclass(frozen=True, kw_only=True)
class FormRecord:
    """Records one form of a student: its file, its size, its quality and its speed."""

    form: Form
    file: str
    """Its weights, relative to the exported folder."""
    size_mb: float
    """Megabytes (10⁶ bytes) of `file`."""
    resident_mb: float | None
    """Megabytes (10⁶ bytes) of resident memory of a process that has this form alone, libraries included, and has answered one row; None
    where the system does not tell."""
    quantization: str | None
    """How weights became 8 bits, such as `dynamic per channel`; None for a form in float32."""
    validation: FormQuality
    test: FormQuality | None
    """None where the test split was not opened."""
    speed: tuple[FormSpeed, ...]
    """At one thread, then at all cores."""
    batch_cause: str | None = None
    """Why rows depend on their batch, as a sentence; None where none does."""

    def at(self, threads: int) -> FormSpeed | None:
        """Return the speed at `threads` threads; None where it was not measured."""
        return next((speed for speed in self.speed if speed.threads == threads), None)


@dataclass(frozen=True, kw_only=True)
class Export:
    """Records an exported student: where it comes from, its forms, and the machine that measured them."""

    run: str
    """The name of its folder: `distilled-0007`, or `distilled-0007-seed1` for a finalist."""
    arm: Arm
    trial: int
    seed: int | None
    max_length: int
    """The most tokens of a row, the same as in training: what is longer is cut."""
    text_column: str
    text_pair_column: str | None
    """The columns of its texts in the data that it was trained on; no pair column for a student of single texts."""
    student_sha256: str
    """SHA-256 of model.safetensors, by which an export is made again or not."""
    margin: float
    """The accuracy (multi_label: example F1; regression: R²) in [0, 1] that a form may lose and still be `no worse`."""
    forms: tuple[FormRecord, ...]
    """`pytorch` first."""
    teacher_speed: tuple[FormSpeed, ...]
    """The teacher in PyTorch, measured in turns with the forms; empty where the teacher is no model."""
    teacher_size_mb: float | None
    tested_at: str | None
    """When the test split was opened for this export, after the finalists; None where it was not."""
    hardware: str
    """The processor."""
    cpu_flags: tuple[str, ...]
    """Of vnni, amx, avx512 and their like, those that the processor has."""
    cpu_note: str | None
    """What weights of 8 bits cost on a processor without VNNI, as a sentence; None where it has VNNI."""
    threads_all: int
    """The threads of the speeds at all cores."""
    versions: Mapping[str, str]
    """The versions of the libraries that made and ran the forms, by name."""
    rejected: tuple[str, ...]
    """What was tried and not kept, with its numbers, a sentence each."""
    made_at: str
    recipe: int
    """The `RECIPE` that made and judged it."""
    busy_note: str | None = None
    """That other processes slowed the speeds, as a sentence; None where they did not."""
    task: TaskName = "single_label"
    """What its labels ask of it; older records hold students of classes."""

    def form(self, name: str) -> FormRecord | None:
        """Return the record of one form; None where the export lacks it."""
        return next((form for form in self.forms if form.form == name), None)


def revived_export(content: Mapping[str, Any]) -> Export:
    """Build an `Export` from its JSON. Raises TypeError, KeyError or AttributeError for what no version wrote."""
    revived = {
        "forms": tuple(_form(form) for form in content["forms"]),
        "teacher_speed": _speeds(content["teacher_speed"]),
    }
    tuples = {name: tuple(content[name]) for name in ("cpu_flags", "rejected")}
    return Export(**{**content, **revived, **tuples})


def _form(content: Mapping[str, Any]) -> FormRecord:
    qualities = {name: content[name] and FormQuality(**content[name]) for name in ("validation", "test")}
    return FormRecord(**{**content, **qualities, "speed": _speeds(content["speed"])})


def _speeds(content: list[Mapping[str, Any]]) -> tuple[FormSpeed, ...]:
    return tuple(FormSpeed(**speed) for speed in content)
