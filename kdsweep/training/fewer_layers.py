"""Make a student of its teacher's own class, with some of the teacher's layers and everything else but the classification head copied.

A family in the table of families has its list of layers there. Of any other, the list is the one `nn.ModuleList` as long as the config
says, and the student must prove that it computes what the teacher does without its other layers.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from kdsweep.errors import ModelError
from kdsweep.training.fast import machine
from kdsweep.training.fast.families import NOT_CUT, family_named

TOLERANCE = 1e-5
"""Largest difference, absolute and relative, between a student's hidden states and those of its teacher without the other layers."""
PER_LAYER = ("layer_types", "mlp_layer_types", "attention_window")
"""Fields of transformers' configurations that may be a list with an item for each layer."""
_PROOF_ROWS, _PROOF_TOKENS = 2, 8
_WAY_OUT = (
    "name a student: as that, as for a teacher, any encoder works that transformers has a sequence classifier for"
)


def check_encoder(config: Any) -> None:
    """Check that a model of this configuration has layers of its own that a student can copy. Raises ModelError with the reason where not."""
    kind = config.model_type
    if kind in NOT_CUT:
        raise not_cut(kind, NOT_CUT[kind])
    if getattr(config, "is_encoder_decoder", False):
        raise not_cut(kind, "an encoder with a decoder, of which each has its own layers")
    causal = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if getattr(config, "is_decoder", False) or (causal and not is_known(config)):
        raise not_cut(kind, "a decoder, which answers from its last token")


def not_cut(kind: str, reason: str) -> ModelError:
    """Return the error for a model of the `kind` whose layers no student can copy, with the reason and the way out."""
    return ModelError(
        f"student: from_teacher copies some of an encoder's layers, but the teacher (or student_body) is {kind}, {reason}; {_WAY_OUT}"
    )


def check_layers(config: Any, chosen: Sequence[int]) -> None:
    """Check, without weights, that a student can have the layers `chosen` of a model of this configuration. Raises ModelError where not."""
    with torch.device("meta"):
        teacher: nn.Module = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
        _copied_weights(teacher, type(teacher)(_shorter(config, chosen)), chosen)


def fewer_layers(teacher: nn.Module, chosen: Sequence[int], label_names: Sequence[str], *, seed: int) -> nn.Module:
    """Return a student of the teacher's class with its layers `chosen`, float32; the head is fresh, from `seed`.

    Raises ModelError where the class cannot have them, or where a student of an unknown family fails its proof.
    """
    config = _shorter(teacher.config, chosen)
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: index for index, name in enumerate(label_names)}
    torch.manual_seed(seed)
    student: nn.Module = type(teacher)(config)
    student.load_state_dict(_copied_weights(teacher, student, chosen), strict=False)
    if not is_known(config):
        _prove(teacher, student, chosen)
    return student


def is_known(config: Any) -> bool:
    """Return whether the family of this configuration is in the table, so that its students need no proof."""
    return family_named(config.model_type) is not None


def _shorter(config: Any, chosen: Sequence[int]) -> Any:
    """Return a copy of a teacher's configuration for the layers `chosen`: their number, and of lists with an item a layer theirs."""
    count, shorter = config.num_hidden_layers, copy.deepcopy(config)
    for name in PER_LAYER:
        items = getattr(config, name, None)
        if isinstance(items, list | tuple) and len(items) == count:
            setattr(shorter, name, [items[layer] for layer in chosen])
    try:
        shorter.num_hidden_layers = len(chosen)
    except NotImplementedError as error:
        raise not_cut(config.model_type, "whose layers are not counted by one number") from error
    shorter._name_or_path = ""
    return shorter


def _layer_list(model: nn.Module) -> str:
    """Return the path of a classifier's list of layers. Raises ModelError where there is no one list as long as the config says."""
    config: Any = model.config
    family = family_named(config.model_type)
    if family is not None:
        return family.layers
    layers = config.num_hidden_layers
    lists = [name for name, part in model.named_modules() if isinstance(part, nn.ModuleList) and len(part) == layers]
    outer = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    if len(outer) != 1:
        raise not_cut(
            config.model_type, f"in which {len(outer)} lists of {layers} layers were found, where one is needed"
        )
    return str(outer[0])


def _copied_weights(teacher: nn.Module, student: nn.Module, chosen: Sequence[int]) -> dict[str, Tensor]:
    """Return the student's weights by their names, without those of its head: everything of the teacher's body, of its layers those `chosen`.

    Raises ModelError where a layer's weights are not those that the student has in its place.
    """
    body, layers, weights = f"{teacher.base_model_prefix}.", f"{_layer_list(teacher)}.", teacher.state_dict()
    places = {f"{layers}{layer}.": f"{layers}{place}." for place, layer in enumerate(chosen)}
    copied: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if name.startswith(layers):
            source = f"{layers}{name.removeprefix(layers).partition('.')[0]}."
            copied |= {places[source] + name.removeprefix(source): tensor} if source in places else {}
        elif name.startswith(body):
            copied[name] = tensor
    shapes = {name: tensor.shape for name, tensor in copied.items()}
    wanted = {name: tensor.shape for name, tensor in student.state_dict().items() if name.startswith(body)}
    if shapes != wanted:
        differing = min(name for name in {*shapes, *wanted} if shapes.get(name) != wanted.get(name))
        raise _unlike(_kind(teacher), differing, f"{layers}0.", chosen)
    return copied


def _unlike(kind: str, differing: str, first: str, chosen: Sequence[int]) -> ModelError:
    """Return the error for a weight that the teacher's class has otherwise with the layers `chosen`; `first`: the path of layer 0."""
    if differing.startswith(first) and chosen[0] != 0:
        return ModelError(
            f"layer 0 of a {kind} has other weights than its other layers ({differing.removeprefix(first)}), so the layers of a from_teacher "
            f"student must begin with it, as first:N, spread:N and a list with 0 do, but got {list(chosen)}"
        )
    return not_cut(kind, f"whose class has other weights with {len(chosen)} layers ({differing})")


def _kind(model: nn.Module) -> str:
    config: Any = model.config
    return str(config.model_type)


# Proof ---------------------------------------------------------------------------------------------------------------


def _prove(teacher: nn.Module, student: nn.Module, chosen: Sequence[int]) -> None:
    """Check that the student's last hidden states of a few random tokens are the teacher's without its other layers. Raises ModelError."""
    kind, device = _kind(teacher), next(teacher.parameters()).device
    pieces = teacher.get_input_embeddings().num_embeddings  # type: ignore[operator]
    ids = torch.randint(pieces, (_PROOF_ROWS, _PROOF_TOKENS), generator=torch.Generator().manual_seed(0)).to(device)
    was_training = teacher.training
    try:
        with torch.inference_mode(), _only(teacher, chosen):
            theirs, ours = (_hidden(model.eval(), ids) for model in (teacher, student.to(device)))
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        if isinstance(error, RuntimeError) and machine.is_out_of_memory(error):
            raise
        raise not_cut(
            kind, f"which does not run with some of its layers ({' '.join(str(error).split())[:200]})"
        ) from error
    finally:
        teacher.train(was_training)
        student.to("cpu").train()
    if theirs.shape != ours.shape or not torch.allclose(theirs, ours, rtol=TOLERANCE, atol=TOLERANCE):
        raise not_cut(kind, "whose class with fewer layers computes other hidden states from the same weights")


def _hidden(model: nn.Module, ids: Tensor) -> Tensor:
    """Return the last hidden states of a classifier's body."""
    body: Any = model.base_model
    hidden: Tensor = body(input_ids=ids, attention_mask=torch.ones_like(ids))[0]
    return hidden


@contextmanager
def _only(model: nn.Module, chosen: Sequence[int]) -> Iterator[None]:
    """Run the block with the layers `chosen` of a classifier alone; then put the others back."""
    parent, _, name = _layer_list(model).rpartition(".")
    owner, whole = model.get_submodule(parent), model.get_submodule(f"{parent}.{name}")
    setattr(owner, name, nn.ModuleList([whole[layer] for layer in chosen]))  # type: ignore[index]
    try:
        yield
    finally:
        setattr(owner, name, whole)
