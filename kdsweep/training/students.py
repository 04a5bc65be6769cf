"""Make students: load named ones, and build others from a teacher's own layers, as a DistilBERT or of the teacher's class."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DistilBertConfig

from kdsweep.config.layers import Layers, place_and_count
from kdsweep.config.tasks import TaskName
from kdsweep.config.trial import FROM_TEACHER, TrialConfig
from kdsweep.errors import ModelError
from kdsweep.training.fast.families import BERT, BERT_NAMES, DISTILBERT, DISTILBERT_NAMES
from kdsweep.training.fewer_layers import check_encoder, fewer_layers
from kdsweep.training.models import label_columns, load_classifier
from kdsweep.training.teacher import teacher_address

_EMBEDDINGS = ("word_embeddings.weight", "LayerNorm.weight", "LayerNorm.bias")
"""Embedding weights that BERT and DistilBERT both have, under the same names."""


def student_source(config: TrialConfig) -> tuple[str, str | None]:
    """Return the address and revision of the student's tokenizer: for a from_teacher student that of the model whose layers it copies."""
    if config.student != FROM_TEACHER:
        return config.student, config.student_revision
    if config.student_body is not None:
        return config.student_body, config.student_body_revision
    return teacher_address(config), config.teacher_revision


def spread_layers(count: int, teacher_layers: int) -> tuple[int, ...]:
    """Choose `count` of a teacher's layers, evenly from first to last: 6 of 12 are DistilBERT's 0, 2, 4, 7, 9, 11.

    Raises ModelError for more layers than the teacher has.
    """
    if not 1 <= count <= teacher_layers:
        raise ModelError(f"1 <= student_layers <= {teacher_layers} (the teacher's) must hold, but got {count}")
    step = (teacher_layers - 1) / max(count - 1, 1)
    return tuple(round(index * step) for index in range(count))


def load_student(
    address: str,
    revision: str | None,
    label_names: Sequence[str],
    *,
    seed: int,
    task: TaskName = "single_label",
    start: Sequence[float] | None = None,
) -> nn.Module:
    """Load a named student, and put its logits and id2label into the dataset's class order; `start` as in `load_classifier`.

    Raises ModelError where that fails.
    """
    student = load_classifier(address, revision, label_names, seed=seed, task=task, start=start)
    config: Any = student.config
    columns = label_columns(config, label_names, address, task)
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


def student_from_teacher(teacher: nn.Module, layers: Layers, label_names: Sequence[str], *, seed: int) -> nn.Module:
    """Make a student of the teacher's embeddings and chosen layers; its head is fresh, from `seed`.

    Of a BERT it is a `DistilBertForSequenceClassification`: the teacher's segment-0 embedding is added to the position embeddings, because
    DistilBERT has no segments. Of any other encoder it is of the teacher's own class. With all layers the student gives the teacher's own
    last hidden states, of single texts. Raises ModelError for a teacher whose layers cannot be copied.
    """
    config: Any = teacher.config
    chosen = chosen_layers(config, layers)
    if not becomes_distilbert(config):
        return fewer_layers(teacher, chosen, label_names, seed=seed)
    torch.manual_seed(seed)
    student: nn.Module = DISTILBERT.classifier_class()(_distilbert_config(config, len(chosen), label_names))
    student.load_state_dict(_copied_weights(teacher.state_dict(), chosen), strict=False)
    return student


def becomes_distilbert(config: Any) -> bool:
    """Return whether the from_teacher student of a model of this configuration is a DistilBERT, whose layer_norm_eps is always 1e-12."""
    return bool(config.model_type == "bert" and config.layer_norm_eps == 1e-12)


def reads_segments(config: Any) -> bool:
    """Return whether the from_teacher student of a model of this configuration tells the two texts of a pair apart by token type ids."""
    return not becomes_distilbert(config) and getattr(config, "type_vocab_size", 0) > 1


def chosen_layers(config: Any, layers: Layers) -> tuple[int, ...]:
    """Return the teacher's layers that its from_teacher student copies, counted from 0, from the teacher's `config` alone.

    Raises ModelError for a teacher whose layers cannot be copied, and for layers that it does not have.
    """
    check_encoder(config)
    count = config.num_hidden_layers
    if isinstance(layers, tuple):
        if max(layers) >= count:
            raise ModelError(
                f"student_layers must lie in 0 … {count - 1} (the teacher's layers), but got {list(layers)}"
            )
        return layers
    place, wanted = place_and_count(layers)
    spread = spread_layers(wanted, count)
    return {"first": tuple(range(wanted)), "last": tuple(range(count - wanted, count)), "spread": spread}[place]


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


def _copied_weights(bert: dict[str, Tensor], layers: Sequence[int]) -> dict[str, Tensor]:
    """Return the weights of a DistilBERT, by DistilBERT's names: the embeddings of `bert`, and those of its `layers` in that order."""
    source, target = BERT.embeddings, DISTILBERT.embeddings
    copied = {f"{target}.{name}": bert[f"{source}.{name}"] for name in _EMBEDDINGS}
    segment = bert[f"{source}.token_type_embeddings.weight"][0]
    copied[f"{target}.position_embeddings.weight"] = bert[f"{source}.position_embeddings.weight"] + segment
    for place, layer in enumerate(layers):
        for theirs, ours in zip(BERT_NAMES, DISTILBERT_NAMES, strict=True):
            for kind in ("weight", "bias"):
                name = f"{DISTILBERT.layers}.{place}.{ours}.{kind}"
                copied[name] = bert[f"{BERT.layers}.{layer}.{theirs}.{kind}"]
    return copied
