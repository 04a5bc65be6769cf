"""Fine-tune a teacher once, where the config asks for it, and compute its logits once.

Both are kept in the cache by content: a teacher under the hash of the weights it starts from, the rows, their tokens and its recipe;
logits under the hash of the weights that gave them, the tokens and the class order; both with the kind of device, and on a CPU its
threads, which decide the last bits. A trial's T, alpha and batch size are part of neither key. What the environment decides (versions
of torch and transformers, the processor) is in the record but in no key: hosts that share a cache share its teacher.
Shapes: C classes, N rows.
"""

import dataclasses
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from kdsweep.config.roles import Role
from kdsweep.config.trial import RECIPE_VERSION, ROLES, TrialConfig
from kdsweep.errors import AssetError, ModelError
from kdsweep.records.schema import EpochMetrics, StepMetrics, TeacherEpoch
from kdsweep.system.files import disk_said, locked
from kdsweep.system.wheels import cache_root
from kdsweep.training.checkpoints import NO_CHECKPOINTING, Checkpointing
from kdsweep.training.data.splits import Data, SplitName
from kdsweep.training.data.tokens import TEACHER_LOGITS, Rows, Tokens, load_tokenizer
from kdsweep.training.evaluation import all_logits
from kdsweep.training.loop import distill
from kdsweep.training.models import computation, freeze, label_columns, load_classifier, weights_sha256
from kdsweep.training.reader import check_forward
from kdsweep.training.state import Training

TEACHER_RECIPE: dict[str, float] = {"warmup_ratio": 0.1, "weight_decay": 0.01, "max_grad_norm": 1.0}
"""Settings of every teacher's fine-tuning, whatever the students' are."""

TEACHER_SETTINGS = {name: f"teacher_{name}" for name in ROLES if f"teacher_{name}" in ROLES}
"""For each field of the trial that fine-tunes the teacher, the teacher's field that sets it: `epochs` from `teacher_epochs`, …"""

_BY_CONTENT = {"teacher", "teacher_revision", "teacher_file", "teacher_threads"}
"""Fields that enter the key of the teacher's cache by their effect: the hash of the weights, and the number of threads."""
_OWN_NAMES = {source: name for name, source in TEACHER_SETTINGS.items()}
_BY_VALUE = {name for name, role in ROLES.items() if role is Role.TEACHER} - _BY_CONTENT
TEACHER_KEY = sorted((_OWN_NAMES.get(name, name) for name in _BY_VALUE), key=list(ROLES).index)
"""All other fields with the teacher's role, under their names in the trial that fine-tunes the teacher."""


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Holds a frozen classifier, and how it was made."""

    model: nn.Module
    pretrained: nn.Module
    """The model before its fine-tuning here: the same weights where `teacher_epochs` is 0."""
    columns: tuple[int, ...]
    """For each class of the dataset, the logit column of that class."""
    weights_sha256: str
    epochs: tuple[TeacherEpoch, ...]
    fine_tuned_seconds: float
    """Seconds of its fine-tuning, on whichever host did it; 0 without one."""
    from_cache: bool
    """Whether a teacher fine-tuned before was found in the cache."""


@dataclass(frozen=True, kw_only=True)
class TeacherWatch:
    """Holds what a teacher's fine-tuning calls with its steps and epochs, and how it is checkpointed."""

    on_steps: Callable[[Sequence[StepMetrics]], None]
    on_epoch: Callable[[TeacherEpoch], None]
    checkpointing: Checkpointing = NO_CHECKPOINTING


UNWATCHED = TeacherWatch(on_steps=lambda _: None, on_epoch=lambda _: None)


@dataclass(frozen=True)
class _Made:
    """Holds the content of `made.json`, which is written last, beside a cached teacher's weights."""

    weights_sha256: str
    seconds: float = 0.0
    epochs: Sequence[dict[str, Any]] = ()


def teacher_trial(config: TrialConfig) -> TrialConfig:
    """Return the config of the teacher's fine-tuning as a trial: alpha 0, and the teacher's hyperparameters in place of the student's.

    Returns `config` unchanged for a teacher that is not fine-tuned here (`teacher_epochs` 0).
    """
    if config.teacher_epochs == 0:
        return config
    settings = {name: getattr(config, source) for name, source in TEACHER_SETTINGS.items()}
    return dataclasses.replace(
        config,
        **settings,
        student=teacher_address(config),
        student_revision=config.teacher_revision,
        student_body=None,
        alpha=0.0,
        temperature=1.0,
        max_steps=None,
        unlabeled_share=None,
        warmup_ratio=TEACHER_RECIPE["warmup_ratio"],
        weight_decay=TEACHER_RECIPE["weight_decay"],
        max_grad_norm=TEACHER_RECIPE["max_grad_norm"],
    )


def teacher_address(config: TrialConfig) -> str:
    """Return where the weights of the teacher are, which must be a model: asked for nothing where it is a file."""
    assert config.teacher is not None, "a teacher_file has no weights"
    return config.teacher


def prepare_teacher(
    config: TrialConfig,
    data: Data,
    tokens: Mapping[str, Tokens],
    watch: TeacherWatch,
) -> Teacher:
    """Return the teacher that `config` names, frozen on its device; with `teacher_epochs` > 0, fine-tuned first or taken from the cache.

    `tokens` are the teacher's own, of train and validation. Computes with the CPU threads that torch is set to.
    """
    address = teacher_address(config)
    pretrained = load_classifier(address, config.teacher_revision, data.label_names, seed=config.teacher_seed)
    columns = label_columns(pretrained.config, data.label_names, address)
    pretrained = freeze(pretrained.to(config.device))
    check_forward(pretrained, tokens["train"], address)
    if config.teacher_epochs == 0:
        model, made, from_cache = pretrained, _Made(weights_sha256(pretrained)), False
    else:
        folder = cache_root() / "teachers" / _teacher_key(config, data, tokens, columns, pretrained)
        with locked(cache_root() / "locks" / f"{folder.name}.lock"):  # a second process waits, and finds it made
            cached = _read_teacher(folder, data)
            from_cache = cached is not None
            if cached is None:
                _fine_tune(teacher_trial(config), data, tokens, columns, folder, watch)
                cached = _read_teacher(folder, data)
                assert cached is not None
        model, made = freeze(cached[0].to(config.device)), cached[1]
    return Teacher(
        model=model,
        pretrained=pretrained,
        columns=tuple(columns),
        weights_sha256=made.weights_sha256,
        epochs=tuple(TeacherEpoch(**epoch) for epoch in made.epochs),
        fine_tuned_seconds=made.seconds,
        from_cache=from_cache,
    )


def _teacher_key(
    config: TrialConfig, data: Data, tokens: Mapping[str, Tokens], columns: Sequence[int], pretrained: nn.Module
) -> str:
    """Return the SHA-256 of everything but the environment that decides the fine-tuned weights to the last bit.

    It names the teacher's folder in the cache, and identifies its checkpoints.
    """
    trial = teacher_trial(config)
    recipe = [getattr(trial, name) for name in TEACHER_KEY]
    model = (weights_sha256(pretrained), computation(pretrained), list(columns))
    rows = (data.sha256(), [tokens[name].sha256() for name in ("train", "validation")])
    parts = [model, rows, recipe, sorted(TEACHER_RECIPE.items()), _arithmetic(trial.device), RECIPE_VERSION]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _arithmetic(device: str) -> str:
    """Describe what decides the order of sums, and with it the last bits: the kind of device, and on a CPU torch's threads."""
    return device.partition(":")[0] if device != "cpu" else f"cpu, {torch.get_num_threads()} threads"


def _fine_tune(
    trial: TrialConfig,
    data: Data,
    tokens: Mapping[str, Tokens],
    columns: Sequence[int],
    folder: Path,
    watch: TeacherWatch,
) -> None:
    """Fine-tune the teacher and save it in the cache as `folder`, by rename, so that no half-written teacher is ever used."""
    started = time.perf_counter()
    model = load_classifier(trial.student, trial.student_revision, data.label_names, seed=trial.seed).to(trial.device)
    train, validation = (_untaught(data, tokens, columns, name, trial.device) for name in ("train", "validation"))
    epochs: list[dict[str, Any]] = []

    def record(epoch: EpochMetrics) -> bool:
        epochs.append({field.name: getattr(epoch, field.name) for field in dataclasses.fields(TeacherEpoch)})
        watch.on_epoch(TeacherEpoch(**epochs[-1]))
        return False

    def start(training: Training) -> None:
        for epoch in training.history:
            record(epoch)

    checkpoints = watch.checkpointing.of(cache_root() / "checkpoints" / folder.name, folder.name)
    distill(
        model,
        train,
        validation,
        trial,
        on_start=start,
        on_steps=watch.on_steps,
        on_epoch=record,
        checkpoints=checkpoints,
    )
    made = _Made(weights_sha256(model), time.perf_counter() - started, epochs)
    with _scratch(folder.parent) as scratch:
        model.save_pretrained(scratch / "teacher")  # type: ignore[operator]
        load_tokenizer(trial.student, trial.student_revision).save_pretrained(scratch / "teacher")
        (scratch / "teacher" / "made.json").write_text(json.dumps(dataclasses.asdict(made)), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        (scratch / "teacher").rename(folder)
    checkpoints.clear()


def _untaught(data: Data, tokens: Mapping[str, Tokens], columns: Sequence[int], name: SplitName, device: str) -> Rows:
    """Return the rows of a split with the model's own columns as classes, and zeros as teacher's logits, which alpha 0 leaves unused."""
    split = data.split(name)
    labels = torch.tensor(columns, device=device)[torch.from_numpy(split.labels).to(device)]
    nobody = torch.zeros(len(split), len(columns), device=device)
    return Rows(tokens=tokens[name], labels=labels, targets={TEACHER_LOGITS: nobody})


def _read_teacher(folder: Path, data: Data) -> tuple[nn.Module, _Made] | None:
    """Read a cached teacher; return None where there is none or its weights are not those that were written."""
    try:
        made = _Made(**json.loads((folder / "made.json").read_text(encoding="utf-8")))
        model = load_classifier(str(folder), None, data.label_names, seed=0)
    except (OSError, ValueError, TypeError, ModelError):
        return None
    return (model, made) if weights_sha256(model) == made.weights_sha256 else None


@contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    """Run the block with a temporary folder inside `parent`. Raises AssetError where the cache cannot be written."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent) as scratch:
            yield Path(scratch)
    except Exception as error:
        if (said := disk_said(error)) is None:
            raise
        raise AssetError(
            f"the cache {parent} must be writable, but: {said}; the same command continues once it is (KDSWEEP_CACHE moves it)"
        ) from error


# Targets -------------------------------------------------------------------------------------------------------------


def teacher_targets(teacher: Teacher, tokens: Tokens) -> dict[str, Tensor]:
    """Return the students' targets of every row, by name, each [N, …]: the teacher's logits, computed once for each split, and cached."""
    return {TEACHER_LOGITS: teacher_logits(teacher, tokens)}


def teacher_logits(teacher: Teacher, tokens: Tokens) -> Tensor:
    """Return the teacher's logits of every row in the dataset's class order, float32 [N, C]: from the cache, or computed and cached.

    A cache entry that is torn or of another shape is computed again. Raises ModelError where a logit is not finite.
    """
    path = cache_root() / "logits" / f"{_logits_key(teacher, tokens)}.safetensors"
    shape = (len(tokens.lengths), len(teacher.columns))
    device = tokens.ids.device
    cached = _read_logits(path, shape)
    if cached is not None:
        return cached.to(device)
    classes = int(teacher.model.config.num_labels)  # type: ignore[union-attr, arg-type]
    logits = all_logits(teacher.model, tokens, classes=classes)[:, list(teacher.columns)].contiguous()
    bad = int((~logits.isfinite()).any(dim=-1).sum())
    if bad:
        raise ModelError(f"the teacher's logits must be finite, but {bad} of {shape[0]} rows hold nan or inf")
    _write_logits(path, logits.cpu())
    return logits


def _logits_key(teacher: Teacher, tokens: Tokens) -> str:
    parts = [teacher.weights_sha256, computation(teacher.model), teacher.columns, tokens.sha256()]
    return hashlib.sha256(json.dumps([*parts, _arithmetic(tokens.ids.device.type)]).encode()).hexdigest()


def _read_logits(path: Path, shape: tuple[int, int]) -> Tensor | None:
    """Read cached logits, float32 of `shape`; return None for no entry, a torn one, one of another shape, or one whose bytes do not match
    their hash."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            logits: Tensor = file.get_tensor("logits")
            expected = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        return None
    intact = tuple(logits.shape) == shape and logits.dtype == torch.float32 and _sha256(logits) == expected
    return logits if intact else None


def _write_logits(path: Path, logits: Tensor) -> None:
    with _scratch(path.parent) as scratch:
        safetensors.torch.save_file({"logits": logits}, scratch / path.name, metadata={"sha256": _sha256(logits)})
        (scratch / path.name).replace(path)


def _sha256(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
