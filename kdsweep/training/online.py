"""Read more of a model than its logits, and run a frozen teacher beside its student in every step.

Shapes: B batch, L tokens, H width.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdsweep.training.data.tokens import Batch, Tokens
from kdsweep.training.fast.families import RELATIONS, family_of
from kdsweep.training.fast.shortcuts import shortcuts, weights_in_bfloat16
from kdsweep.training.relations import NAMES, of_no_family


def outputs_of(model: nn.Module, inputs: Mapping[str, Tensor], names: frozenset[str]) -> dict[str, Any]:
    """Return a model's outputs for `inputs`: its logits, and those that `names` ask for, by name."""
    flags = {f"output_{name}": True for name in names if name != RELATIONS}
    catching: AbstractContextManager[dict[str, Tensor]] = caught(model) if RELATIONS in names else nullcontext({})
    with catching as relations:
        outputs = model(**inputs, **flags)
    return {name: relations if name == RELATIONS else outputs[name] for name in ("logits", *names)}


@contextmanager
def caught(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Run the block, a forward pass of `model`; the dictionary then holds the last layer's queries, keys and values by `NAMES`.

    Hooks on the layer's own projections take them, so that attention is computed as ever. Raises ModelError for an unknown family.
    """
    family, found = family_of(model), dict[str, Tensor]()
    if family is None or family.names is None:
        raise of_no_family("a model", str(model.config.model_type))  # type: ignore[union-attr]
    layer, names = family.last_layer(model), family.names
    hooks = [
        layer.get_submodule(path).register_forward_hook(partial(_keep, found, name))
        for name, path in zip(NAMES, (names.query, names.key, names.value), strict=True)
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _keep(found: dict[str, Tensor], name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
    found.setdefault(name, output)  # DeBERTa's may project distances after the tokens


def same_tokens(one: Tokens, other: Tokens) -> bool:
    """Return whether two models read the same tokens of the same rows, segments aside."""
    equal = np.array_equal(one.lengths, other.lengths) and one.pads_left == other.pads_left
    return equal and torch.equal(one.ids, other.ids)


@dataclass(frozen=True, kw_only=True)
class OnlineTeacher:
    """Runs a frozen teacher on its student's batches, for the outputs that a loss reads of it."""

    model: nn.Module
    segments: Tensor | None = None
    """Token type ids of the rows' tokens, end to end as the ids are; None where the teacher reads none."""
    pieces: Tensor | None = None
    """By the id that batches hold, the teacher's own; None: the same."""

    @contextmanager
    def ready(self, outputs: Collection[str], *, low: bool) -> Iterator[None]:
        """Run the block, a whole training, with every shortcut that spares `outputs` and, with `low`, bfloat16 weights; then restore the model."""
        with ExitStack() as stack:
            stack.enter_context(shortcuts(self.model, outputs=outputs))
            if low:
                stack.enter_context(weights_in_bfloat16(self.model))  # one copy: a CUDA graph reads it at one address
            yield

    def outputs(self, batch: Batch, tokens: Tokens, names: frozenset[str]) -> dict[str, Any]:
        """Return the outputs `names` for a batch of `tokens`, without a gradient."""
        ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
        inputs = {"input_ids": ids if self.pieces is None else self.pieces[ids], "attention_mask": mask}
        if self.segments is not None:
            places = tokens.starts[batch.rows][:, None] + (mask.cumsum(dim=1) - 1).clamp(min=0)
            inputs["token_type_ids"] = self.segments[places].long().masked_fill(mask == 0, 0)
        with torch.no_grad():
            return outputs_of(self.model, inputs, names)
