"""Load teacher and student models, and check that their logits can be compared.

Weights are read from safetensors only, no code of a checkpoint is ever run, and classes are matched by name.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
import transformers
import transformers.masking_utils  # what every model imports: here, so that whoever imports in `for_good` has all of it
import transformers.modeling_layers
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
)

from kdsweep.config.tasks import TaskName
from kdsweep.errors import NAMES_SHOWN, ModelError, listed
from kdsweep.system.wheels import local_path

PROBLEM_TYPES: Final[dict[TaskName, str]] = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}
"""What transformers calls the tasks, in `problem_type` of a model's config."""
_MUST: Final[dict[TaskName, str]] = {
    "single_label": "choose one class of several",
    "multi_label": "decide on each of several labels",
    "regression": "give one number",
}

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def model_config(address: str, revision: str | None) -> Any:
    """Return the configuration beside the weights at `address`. Raises ModelError where it cannot be read."""
    try:
        return AutoConfig.from_pretrained(local_path(address), revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(unreadable(address, error)) from error


def resolved_revision(address: str) -> str | None:
    """Return the commit that a model's hub name means today; None for weights on disk. Raises ModelError where it cannot be fetched."""
    if Path(local_path(address)).exists():
        return None
    try:
        return Path(hf_hub_download(address, "config.json")).parent.name  # the cache has one folder per commit
    except (OSError, ValueError) as error:
        raise ModelError(unreadable(address, error)) from error


def load_classifier(
    address: str,
    revision: str | None,
    label_names: Sequence[str],
    *,
    seed: int,
    task: TaskName = "single_label",
    start: Sequence[float] | None = None,
) -> nn.Module:
    """Load the sequence classifier at `address` for the classes `label_names`, float32; its config says the task where that is another.

    A checkpoint's own head keeps its class order (`label_columns` maps it); a body without one gets a fresh head, from `seed`, in the
    order of `label_names`, whose outputs begin at `start` [C] where that is given. Raises ModelError for weights that are missing,
    pickled, of another task or of other classes.
    """
    config = model_config(address, revision)
    check_task(config, address, task)
    names = {index: name for index, name in enumerate(label_names)}
    if is_classifier(config):
        label_columns(config, label_names, address, task)
        names = dict(config.id2label)
    torch.manual_seed(seed)
    try:
        model: nn.Module = AutoModelForSequenceClassification.from_pretrained(
            local_path(address),
            revision=revision,
            id2label=names,
            label2id={name: index for index, name in names.items()},
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(unreadable(address, error, is_classifier(config))) from error
    say_task(model, task)
    if start is not None and not is_classifier(config):
        begin_at(model, start)
    return model


def say_task(model: nn.Module, task: TaskName) -> None:
    """Write the task into a model's config, so that plain transformers knows it; for single_label, which it takes for granted, nothing."""
    if task != "single_label":
        model.config.problem_type = PROBLEM_TYPES[task]  # type: ignore[union-attr]


def begin_at(model: nn.Module, start: Sequence[float]) -> None:
    """Set the bias of a fresh head to `start` [C], so that training does not begin by moving there. Raises ModelError for a model that does
    not end with a linear layer of so many outputs with a bias."""
    heads = [
        module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == len(start)
    ]
    if not heads or heads[-1].bias is None or (len(start) == 1 and len(heads) > 1):
        config: Any = model.config
        raise ModelError(
            f"a fresh head of {len(start)} outputs for numbers or several labels must be a linear layer with a bias, but {config.model_type} "
            "has another; name a model that was fine-tuned for this task"
        )
    with torch.no_grad():
        heads[-1].bias.copy_(torch.tensor(start))


def unreadable(address: str, error: Exception, classifies: bool = False) -> str:
    """Return the message for weights that could not be loaded; `classifies` where they hold a classifier, not a body alone."""
    cause, path = " ".join(str(error).split())[:400], local_path(address)
    said = f"{address!r} must be a sequence classifier or the body of one, with weights as safetensors, but: {cause}\n"
    is_folder = Path(path).is_dir()
    if any(Path(path).glob("pytorch_model*.bin")) if is_folder else "file named model.safetensors" in cause:
        return said + _conversion(path, "AutoModelForSequenceClassification" if classifies else "AutoModel", is_folder)
    return said + (
        "Check the name and the network, or name a local folder; any encoder works that transformers has a sequence classifier for "
        "(kdsweep/training/README.md: which were tried); pickled weights (.bin) are refused: convert them first"
    )


def _conversion(path: str, kind: str, is_folder: bool) -> str:
    """Return the lines of Python that save pickled weights as safetensors, with an introduction: in their own folder or, for a hub name,
    in a new one with the tokenizer."""
    target = path if is_folder else Path(path).name
    lines = [f"from transformers import {kind}" + ("" if is_folder else ", AutoTokenizer")]
    lines += [f"{kind}.from_pretrained({path!r}, use_safetensors=False).save_pretrained({target!r})"]
    lines += [] if is_folder else [f"AutoTokenizer.from_pretrained({path!r}).save_pretrained({target!r})"]
    where = "" if is_folder else f" into the folder {target}, to be named instead"
    return (
        "Its weights are pickled (.bin), and reading them runs whatever code they hold; where you trust them, these lines of Python "
        f"convert them{where}:\n" + "\n".join(f"  {line}" for line in lines)
    )


def is_classifier(config: Any) -> bool:
    """Return whether a checkpoint has a classification head of its own."""
    return any(name.endswith("ForSequenceClassification") for name in config.architectures or ())


def check_task(config: Any, address: str, task: TaskName = "single_label") -> None:
    """Check that a model is one for `task`, as far as its config says what it is for. Raises ModelError for a head of another task."""
    problem = config.problem_type
    if problem is None and is_classifier(config) and (config.num_labels == 1) != (task == "regression"):
        problem = "regression" if config.num_labels == 1 else f"one or several of {config.num_labels} classes"
    if problem not in (None, PROBLEM_TYPES[task]):
        raise ModelError(
            f"{address!r} must {_MUST[task]} (task: {task}, which the rows' labels say), but is for {problem}; name a model of that task, or "
            "say which task it is: task"
        )


def label_columns(config: Any, label_names: Sequence[str], address: str, task: TaskName = "single_label") -> list[int]:
    """Return, for each of `label_names`, the model's logit column of that class: `logits[:, columns]` is in the dataset's order. A regression
    has one column, whatever its name.

    Names are compared as they are, then without case, spaces and punctuation. Where one side only numbers its classes (LABEL_0, … in the
    model, or 0, 1, … in the dataset), both have the same order. Raises ModelError, which lists the classes of both sides, where they
    cannot be matched so.
    """
    theirs = [str(config.id2label[index]) for index in range(config.num_labels)]
    if task == "regression" and len(theirs) == 1:
        return [0]
    if sorted(theirs) == sorted(label_names):
        return [theirs.index(name) for name in label_names]  # keeps C and C++ apart
    mine, other = [_plain(name) for name in label_names], [_plain(name) for name in theirs]
    if len(set(other)) == len(other) and set(mine) <= set(other):
        if len(set(mine)) == len(label_names) == len(other):
            return [other.index(name) for name in mine]
    elif len(mine) == len(other):
        if [f"label{index}" for index in range(len(other))] == other:
            return list(range(len(other)))
        if [str(index) for index in range(len(mine))] == mine:
            return list(range(len(other)))
    raise ModelError(
        f"{address!r} must have the dataset's classes, but {_mismatch(label_names, theirs)}; "
        "choose classes with label_names, rename one side's, or name another model"
    )


def _mismatch(mine: Sequence[str], theirs: Sequence[str]) -> str:
    """Describe how the classes `mine` of the dataset and `theirs` of the model differ: short lists whole; of long ones the number of
    classes, and those that the other side lacks."""
    if max(len(mine), len(theirs)) <= NAMES_SHOWN:
        return f"the dataset has {listed(mine)} and the model {listed(theirs)}"
    known = {_plain(name) for name in mine}, {_plain(name) for name in theirs}
    alone = [name for name in mine if _plain(name) not in known[1]], [n for n in theirs if _plain(n) not in known[0]]
    return (
        f"of the dataset's {len(mine)} the model lacks {len(alone[0])}: {listed(alone[0])}, and of the model's {len(theirs)} "
        f"the dataset lacks {len(alone[1])}: {listed(alone[1])}"
    )


def classes_of(model: nn.Module) -> list[str]:
    """Return the names of a model's classes in the order of its logits."""
    config: Any = model.config
    return [str(config.id2label[index]) for index in range(config.num_labels)]


def is_order_assumed(model: nn.Module, label_names: Sequence[str]) -> bool:
    """Return whether `label_columns` matched a model's classes with the dataset's by order alone, because one side only numbers them."""
    return {_plain(name) for name in label_names} != {_plain(name) for name in classes_of(model)}


def _plain(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def freeze(model: nn.Module) -> nn.Module:
    """Turn off a model's dropout and gradients for good, and return it."""
    return model.eval().requires_grad_(False)


def weights_sha256(model: nn.Module) -> str:
    """Compute the SHA-256 of a model's parameters and buffers, sorted by name, names included."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy())
    return digest.hexdigest()


def computation(model: nn.Module) -> str:
    """Return, as JSON, the settings that decide what a model computes beside its weights: activation, dropout, epsilon, …"""
    config: Any = model.config
    names = {"_name_or_path", "transformers_version", "architectures", "dtype", "id2label", "label2id"}
    said = {name: value for name, value in config.to_diff_dict().items() if name not in names}
    return json.dumps(said, sort_keys=True, default=str)


def parameter_count(model: nn.Module) -> int:
    """Count the numbers in a model's parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def size_mb(model: nn.Module) -> float:
    """Compute the megabytes (10⁶ bytes) of a model's parameters."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()) / 1e6
