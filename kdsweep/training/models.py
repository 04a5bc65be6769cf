"""Teacher and student models, and the checks that make their logits comparable.

Weights come as safetensors only, no code of a checkpoint is ever run, and every class is matched by its name.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from kdsweep.errors import NAMES_SHOWN, ModelError, listed
from kdsweep.system.wheels import local_path
from kdsweep.training.data.tokens import EVALUATION_ROWS, Batch, Tokens, padded

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

LATENCY_PASSES = 30
THROUGHPUT_PASSES = 3
"""Timed forward passes whose median counts, after one to warm up."""


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
        "(README: which were tried); pickled weights (.bin) are refused: convert them first"
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


# Students ------------------------------------------------------------------------------------------------------------


def spread_layers(count: int, teacher_layers: int) -> tuple[int, ...]:
    """`count` of a teacher's layers from first to last, evenly: 6 of 12 are DistilBERT's 0, 2, 4, 7, 9, 11."""
    if not 1 <= count <= teacher_layers:
        raise ModelError(f"1 <= student_layers <= {teacher_layers} (the teacher's) must hold, but got {count}")
    step = (teacher_layers - 1) / max(count - 1, 1)
    return tuple(round(index * step) for index in range(count))


def load_student(address: str, revision: str | None, label_names: Sequence[str], *, seed: int) -> nn.Module:
    """A named student whose logits, and id2label, are in the dataset's class order. Raises ModelError."""
    student = load_classifier(address, revision, label_names, seed=seed)
    config: Any = student.config
    columns = label_columns(config, label_names, address)
    if columns != list(range(len(columns))):
        heads = [m for m in student.modules() if isinstance(m, nn.Linear) and m.out_features == len(columns)]
        if not heads:
            raise ModelError(
                f"{address!r} must have its classes in the dataset's order, {list(label_names)}, or a linear head"
            )
        with torch.no_grad():
            for tensor in heads[-1].parameters():
                tensor.copy_(tensor[columns].clone())
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: index for index, name in enumerate(label_names)}
    return student


def student_from_teacher(
    teacher: nn.Module, layers: int | tuple[int, ...], label_names: Sequence[str], *, seed: int
) -> nn.Module:
    """A `DistilBertForSequenceClassification` of the teacher's embeddings and the chosen layers; its head is fresh, from `seed`.

    The teacher's segment-0 embedding is added to the position embeddings, since DistilBERT has none. With all layers it
    gives the teacher's own last hidden states. Raises ModelError for a teacher that is no BERT.
    """
    config: Any = teacher.config
    chosen = chosen_layers(config, layers)
    torch.manual_seed(seed)
    student: nn.Module = DistilBertForSequenceClassification(_distilbert_config(config, len(chosen), label_names))
    student.load_state_dict(_copied_weights(teacher.state_dict(), chosen), strict=False)
    return student


def chosen_layers(config: Any, layers: int | tuple[int, ...]) -> tuple[int, ...]:
    """The layers of a teacher that its from_teacher student copies, by the teacher's configuration alone. Raises ModelError."""
    if config.model_type != "bert" or config.layer_norm_eps != 1e-12:
        found = f"{config.model_type} with layer_norm_eps {getattr(config, 'layer_norm_eps', None)}"
        raise ModelError(
            f"student: from_teacher needs a BERT (layer_norm_eps 1e-12), but the teacher is {found}; name a student: as that, "
            "as for a teacher, any encoder works that transformers has a sequence classifier for"
        )
    chosen = spread_layers(layers, config.num_hidden_layers) if isinstance(layers, int) else layers
    if max(chosen) >= config.num_hidden_layers:
        last = config.num_hidden_layers - 1
        raise ModelError(f"student_layers must lie in 0 … {last} (the teacher's layers), but got {list(chosen)}")
    return chosen


def _distilbert_config(config: Any, layers: int, label_names: Sequence[str]) -> DistilBertConfig:
    return DistilBertConfig(
        vocab_size=config.vocab_size,
        max_position_embeddings=config.max_position_embeddings,
        dim=config.hidden_size,
        hidden_dim=config.intermediate_size,
        n_layers=layers,
        n_heads=config.num_attention_heads,
        activation=config.hidden_act,
        dropout=config.hidden_dropout_prob,
        attention_dropout=config.attention_probs_dropout_prob,
        initializer_range=config.initializer_range,
        pad_token_id=config.pad_token_id,
        id2label=dict(enumerate(label_names)),
        label2id={name: index for index, name in enumerate(label_names)},
    )


_EMBEDDINGS = {"word_embeddings.weight", "LayerNorm.weight", "LayerNorm.bias"}
_BLOCK = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}
"""BERT's name of each module of a layer, and DistilBERT's."""


def _copied_weights(bert: dict[str, Tensor], layers: Sequence[int]) -> dict[str, Tensor]:
    source, target = "bert.embeddings.", "distilbert.embeddings."
    copied = {target + name: bert[source + name] for name in _EMBEDDINGS}
    positions, segment = bert[source + "position_embeddings.weight"], bert[source + "token_type_embeddings.weight"][0]
    copied[target + "position_embeddings.weight"] = positions + segment
    for place, layer in enumerate(layers):
        for theirs, ours in _BLOCK.items():
            for kind in ("weight", "bias"):
                name = f"distilbert.transformer.layer.{place}.{ours}.{kind}"
                copied[name] = bert[f"bert.encoder.layer.{layer}.{theirs}.{kind}"]
    return copied


# A compact vocabulary ------------------------------------------------------------------------------------------------


class Vocabulary(NamedTuple):
    """A model's whole embedding table [V, H], set aside while it trains on the rows `pieces` [K] of it."""

    table: nn.Embedding
    pieces: Tensor


def compact_vocabulary(model: nn.Module, splits: Sequence[Tokens]) -> Vocabulary:
    """Let `model` train on the word pieces that `splits` hold: all others get no gradient, yet cost every optimizer step.

    Exact: `restore_vocabulary` puts the trained rows back. Pieces up to the padding keep their numbers, because some
    models know the padding by its number.
    """
    table: nn.Embedding = model.get_input_embeddings()  # type: ignore[operator]
    first = torch.arange(splits[0].pad_id + 1, device=table.weight.device)
    pieces = torch.cat([first, *(tokens.ids for tokens in splits)]).unique()
    rows = table.weight.detach()[pieces].clone()
    small = nn.Embedding.from_pretrained(rows, freeze=False, padding_idx=table.padding_idx)
    model.set_input_embeddings(small)  # type: ignore[operator]
    return Vocabulary(table, pieces)


def restore_vocabulary(model: nn.Module, vocabulary: Vocabulary, *, decay: float) -> None:
    """Put the trained rows back into the whole table, whose other rows only weight decay would have changed: times `decay`."""
    trained: nn.Embedding = model.get_input_embeddings()  # type: ignore[operator]
    with torch.no_grad():
        vocabulary.table.weight.mul_(decay)
        vocabulary.table.weight[vocabulary.pieces] = trained.weight
    model.set_input_embeddings(vocabulary.table)  # type: ignore[operator]


# Facts about a model -------------------------------------------------------------------------------------------------


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


class Speed(NamedTuple):
    """Of a forward pass in float32 on warm caches: milliseconds of one row (median and 95th percentile), rows a second in batches."""

    latency_ms_p50: float
    latency_ms_p95: float
    rows_per_second: float


def measure_speed(model: nn.Module, tokens: Tokens) -> Speed:
    """Time `model` on one row of median length, and on the batch of rows around it."""
    model.eval()
    by_length = np.argsort(tokens.lengths, kind="stable")
    middle = len(by_length) // 2
    batch = by_length[max(0, middle - EVALUATION_ROWS // 2) :][:EVALUATION_ROWS]
    single = 1000 * _seconds(model, padded(tokens, by_length[middle : middle + 1]), LATENCY_PASSES)
    many = float(np.median(_seconds(model, padded(tokens, batch), THROUGHPUT_PASSES)))
    middle_ms, slow_ms = (float(value) for value in np.percentile(single, [50, 95]))
    return Speed(latency_ms_p50=middle_ms, latency_ms_p95=slow_ms, rows_per_second=len(batch) / many)


def _seconds(model: nn.Module, batch: Batch, passes: int) -> np.ndarray:
    """Of each of `passes` forward passes, after one that is not counted."""
    times = []
    with torch.inference_mode():
        for _ in range(passes + 1):
            started = time.perf_counter()
            model(**batch.inputs).logits.cpu()
            times.append(time.perf_counter() - started)
    return np.array(times[1:])
