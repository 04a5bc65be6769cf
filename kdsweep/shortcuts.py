"""What a model may leave out on a CPU: the same mathematics from fewer operations.

Beside the matrix products that nobody can spare, a step waits for the tokens of the last layer that nobody reads, for
dropout's random numbers, and in bfloat16 for attention's detour over float32. Shapes: B batch, L tokens, H width.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import DistilBertForSequenceClassification


@contextmanager
def shortcuts(model: nn.Module) -> Iterator[None]:
    """Inside the block `model` takes every shortcut of this module; after it, it is as before. Elsewhere than on a CPU, none."""
    with ExitStack() as stack:
        if next(model.parameters()).device.type != "cpu":
            yield
            return
        stack.enter_context(eager_attention(model))
        stack.enter_context(cheap_dropout(model))
        if isinstance(model, DistilBertForSequenceClassification):
            stack.enter_context(first_token_only(model))
        yield


@contextmanager
def eager_attention(model: nn.Module) -> Iterator[None]:
    """Attention as plain matrix products: torch's fused one has no dropout on a CPU, and falls back to them in float32."""
    facts: Any = model.config
    before = facts._attn_implementation
    model.set_attn_implementation("eager")  # type: ignore[operator]
    try:
        yield
    finally:
        model.set_attn_implementation(before)  # type: ignore[operator]


@contextmanager
def cheap_dropout(model: nn.Module) -> Iterator[None]:
    """Dropout by `CheapDropout`."""
    plain = model.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        with CheapDropout():
            return plain(*args, **kwargs)

    with _forward(model, forward):
        yield


@contextmanager
def first_token_only(student: DistilBertForSequenceClassification) -> Iterator[None]:
    """The last layer computes the first token alone, the only one that DistilBERT's classifier reads."""
    last: Any = student.distilbert.transformer.layer[-1]
    with _forward(last, partial(_first_token, last)):
        yield


@contextmanager
def _forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """`module.forward` is `forward` inside the block."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before


def _first_token(block: Any, hidden: Tensor, attention_mask: Tensor | None = None, **_: Any) -> Tensor:
    """The first token's output of a DistilBERT layer, [B, 1, H], from all tokens' input [B, L, H]."""
    attention, first = block.attention, hidden[:, :1]

    def heads(projected: Tensor) -> Tensor:
        split: Tensor = projected.unflatten(-1, (attention.n_heads, -1))
        return split.transpose(1, 2)

    mixed = functional.scaled_dot_product_attention(
        heads(attention.q_lin(first)),
        heads(attention.k_lin(hidden)),
        heads(attention.v_lin(hidden)),
        attn_mask=attention_mask[:, :, :1] if attention_mask is not None else None,
        dropout_p=attention.dropout.p if block.training else 0.0,
    )
    attended = block.sa_layer_norm(attention.out_lin(mixed.transpose(1, 2).flatten(2)) + first)
    output: Tensor = block.output_layer_norm(block.ffn(attended) + attended)
    return output


class CheapDropout(TorchFunctionMode):
    """Inside the block, dropout takes 16 random bits an element, where torch's own draws one number after the other.

    The probability is rounded to a multiple of 2**-16; as in torch, what is kept is divided by its share, in the input's type.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Every torch function passes here; dropout alone is replaced."""
        return (_dropout if func is functional.dropout else func)(*args, **(kwargs or {}))


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    dropped = round(p * 2**16)
    if inplace or not training or not 0 < dropped < 2**16:
        return functional.dropout(input, p, training, inplace)
    bits = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)  # four elements a number
    kept = bits.view(torch.int16)[: input.numel()].view(input.shape) >= dropped - 2**15
    return input * (kept * torch.tensor(2**16 / (2**16 - dropped), dtype=input.dtype))
