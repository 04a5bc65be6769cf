"""Teacher and student models, and the checks that make their logits comparable.

Weights come as safetensors only, no code of a checkpoint is ever run, and every class is matched by its name.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
)

from kdsweep.errors import NAMES_SHOWN, ModelError, listed
from kdsweep.system.wheels import local_path

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def model_config(address: str, revision: str | None) -> Any:
    """A checkpoint's own configuration. Raises ModelError."""
    try:
        return AutoConfig.from_pretrained(local_path(address), revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(unreadable(address, error)) from error


def resolved_revision(address: str) -> str | None:
    """The commit that a hub name means today; None for weights on disk. Raises ModelError."""
    if Path(local_path(address)).exists():
        return None
    try:
        return Path(hf_hub_download(address, "config.json")).parent.name  # the hub's cache has a folder a commit
    except (OSError, ValueError) as error:
        raise ModelError(unreadable(address, error)) from error


def load_classifier(address: str, revision: str | None, label_names: Sequence[str], *, seed: int) -> nn.Module:
    """A sequence classifier for `label_names` in their order, float32; a fresh head, where one is needed, comes from `seed`.

    Raises ModelError for weights that are missing, pickled, of another task or of other classes.
    """
    config = model_config(address, revision)
    check_task(config, address)
    names = {index: name for index, name in enumerate(label_names)}
    if is_classifier(config):
        label_columns(config, label_names, address)
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
    return model


def unreadable(address: str, error: Exception, classifies: bool = False) -> str:
    """The message for weights, of a classifier or of a body alone, that could not be loaded."""
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
    """The lines that write pickled weights as safetensors: into their folder, or what the hub has into a new one, with its tokenizer."""
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
    """Whether a checkpoint brings a classification head of its own."""
    return any(name.endswith("ForSequenceClassification") for name in config.architectures or ())


def check_task(config: Any, address: str) -> None:
    """Raises ModelError for regression and multi-label heads."""
    problem = config.problem_type
    if problem in ("regression", "multi_label_classification") or (is_classifier(config) and config.num_labels == 1):
        raise ModelError(
            f"{address!r} must choose one class of several, but is for {problem or 'regression'}: not supported"
        )


def label_columns(config: Any, label_names: Sequence[str], address: str) -> list[int]:
    """For each of `label_names`, the logit column of a model that means it: `logits[:, columns]` is in the dataset's order.

    Names are compared as they are, then without case, spaces and punctuation. Where one side only numbers its classes (LABEL_0, or 0 and 1 in
    the dataset), the number is the column. Raises ModelError, with both lists, where that does not settle it.
    """
    theirs = [str(config.id2label[index]) for index in range(config.num_labels)]
    if sorted(theirs) == sorted(label_names):
        return [theirs.index(name) for name in label_names]  # C and C++ are told apart
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
    """Both lists where they are short; of long ones how many there are, and those that the other side lacks."""
    if max(len(mine), len(theirs)) <= NAMES_SHOWN:
        return f"the dataset has {listed(mine)} and the model {listed(theirs)}"
    known = {_plain(name) for name in mine}, {_plain(name) for name in theirs}
    alone = [name for name in mine if _plain(name) not in known[1]], [n for n in theirs if _plain(n) not in known[0]]
    return (
        f"of the dataset's {len(mine)} the model lacks {len(alone[0])}: {listed(alone[0])}, and of the model's {len(theirs)} "
        f"the dataset lacks {len(alone[1])}: {listed(alone[1])}"
    )


def classes_of(model: nn.Module) -> list[str]:
    """A model's classes in the order of its logits."""
    config: Any = model.config
    return [str(config.id2label[index]) for index in range(config.num_labels)]


def is_order_assumed(model: nn.Module, label_names: Sequence[str]) -> bool:
    """Whether a model's classes, or the dataset's, are only numbered, so that `label_columns` has nothing but their order to match by."""
    return {_plain(name) for name in label_names} != {_plain(name) for name in classes_of(model)}


def _plain(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def freeze(model: nn.Module) -> nn.Module:
    """Dropout off and no gradients, for good."""
    return model.eval().requires_grad_(False)


def weights_sha256(model: nn.Module) -> str:
    """Of every parameter and buffer, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy())
    return digest.hexdigest()


def computation(model: nn.Module) -> str:
    """What a model's configuration says beside its weights that decides what it computes: activation, dropout, epsilon, …"""
    config: Any = model.config
    names = {"_name_or_path", "transformers_version", "architectures", "dtype", "id2label", "label2id"}
    said = {name: value for name, value in config.to_diff_dict().items() if name not in names}
    return json.dumps(said, sort_keys=True, default=str)


def parameter_count(model: nn.Module) -> int:
    """Numbers in the model."""
    return sum(parameter.numel() for parameter in model.parameters())


def size_mb(model: nn.Module) -> float:
    """Megabytes (10⁶ bytes) of the weights as saved."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()) / 1e6
