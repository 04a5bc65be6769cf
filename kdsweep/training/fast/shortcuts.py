"""Leave out or replace operations of a model: the same mathematics at less cost.

Beside the matrix products, which are necessary, a step spends time on outputs of the last layer that are not read; on a CPU on dropout's
random numbers, in bfloat16 on attention's conversions to float32, in float32 on a BLAS that is slow on this CPU; on a GPU on the host's check
whether a batch has padding, and on the gradients of biases.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from kdsweep.system.libraries import part_of
from kdsweep.training.fast import machine
from kdsweep.training.fast.families import RELATIONS, family_of, why_every_token
from kdsweep.training.fast.first_token import first_token_of

TAKEN = "taken"
"""What is said of a shortcut that a training took."""


@contextmanager
def shortcuts(model: nn.Module, *, outputs: Collection[str] = ()) -> Iterator[None]:
    """Run the block with every shortcut of this module that fits `model` and its device; then restore the model.

    `weights_in_bfloat16` is not among them. Where the caller reads `outputs` besides logits, the last layer computes every token; for
    `RELATIONS` alone, no more than every token's query, key and value.
    """
    family = family_of(model)
    with ExitStack() as stack:
        if _device_type(model) == "cpu":
            stack.enter_context(attention(model, "eager"))
            modes: list[type[TorchFunctionMode]] = [CheapDropout]
            if machine.blas_is_slow():
                modes.append(OneDNNProducts)
            stack.enter_context(forward_inside(model, modes))
        else:
            if family and family.one_mask:
                stack.enter_context(attention(model, "sdpa"))  # which accepts the mask of `ready_mask`
                stack.enter_context(ready_mask(model))
            if family and family.first_token == "deberta-v2":
                stack.enter_context(ready_distances(model))
            stack.enter_context(forward_inside(model, [BiasByProduct]))
        if family and family.first_token and why_every_token(family, model.config, outputs) is None:
            first_token = partial(first_token_of(family.first_token), projected=RELATIONS in outputs)
            stack.enter_context(first_token_only(family.last_layer(model), first_token))
        yield


def shortcuts_taken(
    model: nn.Module, outputs: Collection[str], *, low: bool, whole_vocabulary: str | None, no_graphs: str | None
) -> dict[str, str]:
    """Return, for each shortcut that there is on the model's device, `taken`, or why it is not: of this module's, of a compact vocabulary and of
    CUDA graphs, whose reasons are given. `low`: in bfloat16."""
    family = family_of(model)
    why_not = {"first_token": why_every_token(family, model.config, outputs), "compact_vocabulary": whole_vocabulary}
    if _device_type(model) == "cpu":
        slow = machine.blas_is_slow()
        fast = None if slow else "torch multiplies matrices as fast on this CPU"
        why_not |= {"cheap_dropout": None, "onednn_products": "it trains in bfloat16" if low else fast}
    else:
        masks = None if family and family.one_mask else "not every layer takes one mask of tokens"
        why_not |= {"ready_mask": masks, "cuda_graphs": no_graphs}
    return {name: reason or TAKEN for name, reason in why_not.items()}


def _device_type(model: nn.Module) -> str:
    return next(model.parameters()).device.type


@contextmanager
def weights_in_bfloat16(model: nn.Module) -> Iterator[None]:
    """Run the block, a forward and backward pass, with bfloat16 copies of the linear layers' weights; then add the copies' gradients to
    those of the weights. The numbers are those of autocast, which would cast every weight and every gradient one by one."""
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    places = [(linear, name) for linear in linears for name, _ in linear.named_parameters(recurse=False)]
    weights = [getattr(linear, name) for linear, name in places]
    copies: list[Tensor] = [
        nn.Parameter(torch.empty_like(weight, dtype=torch.bfloat16), weight.requires_grad) for weight in weights
    ]
    with torch.no_grad():
        if copies:
            _copy_all(copies, weights)
    try:
        for (linear, name), copied in zip(places, copies, strict=True):
            setattr(linear, name, copied)
        yield
    finally:
        for (linear, name), weight in zip(places, weights, strict=True):
            setattr(linear, name, weight)
    found = [(weight, copied.grad) for weight, copied in zip(weights, copies, strict=True) if copied.grad is not None]
    gradients = [torch.empty_like(weight) for weight, _ in found]
    if found:
        _copy_all(gradients, [gradient for _, gradient in found])
    for (weight, _), gradient in zip(found, gradients, strict=True):
        weight.grad = gradient if weight.grad is None else weight.grad + gradient


def _copy_all(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    part_of(torch, "_foreach_copy_", "torch", "training in bfloat16")(targets, sources)


@contextmanager
def ready_mask(model: nn.Module) -> Iterator[None]:
    """Run the block with the mask in the form that attention needs: transformers would wait for the GPU to find and drop a mask of ones."""
    plain = model.forward

    def forward(*args: Any, attention_mask: Tensor, **kwargs: Any) -> Any:
        return plain(*args, attention_mask=attention_mask[:, None, None, :].bool(), **kwargs)

    with _forward(model, forward):
        yield


@contextmanager
def ready_distances(model: nn.Module) -> Iterator[None]:
    """Run the block with DeBERTa's distances between tokens computed once, for the longest rows: to compute them takes a number from the host,
    which makes the GPU wait. They depend on nothing but two tokens' places."""
    encoder: Any = model.get_submodule("deberta.encoder")
    facts: Any = model.config
    plain = part_of(encoder, "get_rel_pos", "transformers", "DeBERTa on a GPU")
    longest: int = facts.max_position_embeddings
    every = plain(torch.empty(1, longest, 0, device=next(model.parameters()).device))  # [1, longest, longest]

    def ready(hidden: Tensor, *others: Any) -> Any:
        length = hidden.shape[1]
        if every is None or length > longest or any(other is not None for other in others):
            return plain(hidden, *others)
        return every[:, :length, :length]

    encoder.get_rel_pos = ready
    try:
        yield
    finally:
        del encoder.get_rel_pos


@contextmanager
def attention(model: nn.Module, kind: Literal["eager", "sdpa"]) -> Iterator[None]:
    """Run the block with one kind of attention: on a CPU plain matrix products, since torch's fused attention has no dropout there, and falls
    back to such products in float32. A model with one kind alone keeps it."""
    facts: Any = model.config
    before = part_of(facts, "_attn_implementation", "transformers", "choosing a model's attention")
    if not part_of(model, "_can_set_attn_implementation", "transformers", "choosing a model's attention")():
        yield
        return
    model.set_attn_implementation(kind)  # type: ignore[operator]
    try:
        yield
    finally:
        model.set_attn_implementation(before)  # type: ignore[operator]


@contextmanager
def forward_inside(model: nn.Module, modes: Sequence[type[TorchFunctionMode]]) -> Iterator[None]:
    """Run the block with `model`'s forward pass under each of `modes`."""
    plain = model.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        with ExitStack() as stack:
            for mode in modes:
                stack.enter_context(mode())
            return plain(*args, **kwargs)

    with _forward(model, forward):
        yield


@contextmanager
def first_token_only(layer: nn.Module, first_token: Callable[..., Any]) -> Iterator[None]:
    """Run the block with a last layer that computes the first token alone, the only one that the classifier reads."""
    with _forward(layer, partial(first_token, layer)):
        yield


@contextmanager
def _forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Run the block with `forward` as `module.forward`."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before


class CheapDropout(TorchFunctionMode):
    """Replaces dropout inside its block by one of 16 random bits an element, since torch on a CPU draws one number after the other.

    The probability is rounded to a multiple of 2**-16; as in torch, kept elements are divided by their share, in the input's type.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call `func`, or in place of dropout the one of this module."""
        return (_dropout if func is functional.dropout else func)(*args, **(kwargs or {}))


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    dropped = round(p * 2**16)
    if inplace or not training or not 0 < dropped < 2**16:
        return functional.dropout(input, p, training, inplace)
    bits = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)  # four elements a number
    kept = bits.view(torch.int16)[: input.numel()].view(input.shape).ge_(dropped - 2**15)  # 1 or 0
    return input * kept.to(input.dtype).mul_(2**16 / (2**16 - dropped))


class OneDNNProducts(TorchFunctionMode):
    """Replaces float32 linear layers inside its block by oneDNN's, forwards and backwards; under autocast they stay torch's."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call `func`, or in place of a linear layer outside autocast oneDNN's."""
        if func is functional.linear and not torch.is_autocast_enabled("cpu"):
            return _OneDNNLinear.apply(*args, **(kwargs or {}))  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))


class BiasByProduct(TorchFunctionMode):
    """Computes a linear layer's bias gradient as a product with ones, inside its block: torch's sum over rows takes a GPU several times as long."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call `func`, or `_Linear` in place of a linear layer with a bias where gradients are enabled."""
        if func is functional.linear and torch.is_grad_enabled() and len(args) == 3 and args[2] is not None:
            return _Linear.apply(*args)  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))


class _Linear(torch.autograd.Function):
    """Computes y = x Wᵀ + b, with dx = dy W, dW = dyᵀ x and db = 1ᵀ dy."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda", cast_inputs=torch.bfloat16)  # type: ignore[untyped-decorator]
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return the output y, and save what the gradients need."""
        ctx.save_for_backward(input, weight)
        return functional.linear(input, weight, bias)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cuda")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients of input, weight and bias; None for each that needs none."""
        (input, weight), (of_input, of_weight, of_bias) = ctx.saved_tensors, ctx.needs_input_grad
        flat = gradient.reshape(-1, gradient.shape[-1])
        return (
            gradient @ weight if of_input else None,
            flat.t() @ input.reshape(-1, input.shape[-1]) if of_weight else None,
            (flat.new_ones(1, len(flat)) @ flat)[0] if of_bias else None,
        )


class _OneDNNLinear(torch.autograd.Function):
    """Computes y = x Wᵀ + b by oneDNN, with dx = dy W, dW = dyᵀ x and db = Σ dy."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the output y, and save what the gradients need."""
        ctx.save_for_backward(input, weight)
        return machine.onednn_linear(input, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients of input, weight and bias; None for each that needs none. dW is torch's: for some of its strides oneDNN takes ten
        times as long."""
        (input, weight), (of_input, of_weight, of_bias) = ctx.saved_tensors, ctx.needs_input_grad
        flat = gradient.reshape(-1, gradient.shape[-1])
        return (
            machine.onednn_linear(gradient, weight.t()) if of_input else None,
            flat.t() @ input.reshape(-1, input.shape[-1]) if of_weight else None,
            flat.sum(0) if of_bias else None,
        )
