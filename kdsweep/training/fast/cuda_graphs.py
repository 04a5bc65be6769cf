"""Run training steps on a GPU as CUDA graphs: each is recorded once for each shape of a batch, and from then on launched whole.

A step of a small student is hundreds of kernels of a few microseconds each; to launch them one by one takes Python several times as
long as the GPU computes. https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs

The caller defines the update, by one code with and without graphs: the first batch of each shape is trained on without a graph, the
second is recorded. A graph is kept as long as its training: the weights, moments and rows that it reads stay at one address until then.

A step of any model is recorded where it needs no number from the GPU: one that does is found out while it is recorded, and no more are.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from kdsweep.training.data.tokens import Batch
from kdsweep.training.fast import machine

Update = Callable[[Batch], Tensor]
"""Makes one optimizer step from a batch, and returns its losses, on the device."""
MEMORY = "memory was too short for it"
"""A reason for recording no more graphs."""


class Graphs:
    """Holds the graphs of one training, and runs its steps by them."""

    def __init__(self, optimizer: Optimizer, device: str) -> None:
        self._optimizer = optimizer
        self._rate = torch.zeros((), device=device)
        self._pool = torch.cuda.graph_pool_handle()
        self._recorded: dict[torch.Size, _Recorded | None] = {}
        """Each shape's graph; None after its first batch, or where memory was too short to record one."""
        self.why_not: str | None = None
        """Why no more graphs are recorded; None while they are."""

    def step(self, batch: Batch, update: Update) -> Tensor:
        """Do what `update(batch)` does and return its losses: by the graph of the batch's shape where one was or can be recorded."""
        self._rate.fill_(self._optimizer.param_groups[0]["lr"])
        shape = batch.inputs["input_ids"].shape
        if recorded := self._recorded.get(shape):
            return recorded.replay(batch)
        with self._groups(lr=self._rate):  # a graph reads it from one address; every group has one rate
            if shape in self._recorded and self.why_not is None:
                if recorded := self._record(batch, update):
                    self._recorded[shape] = recorded
                    return recorded.replay(batch)
                self.forget(self.why_not or MEMORY)
            self._recorded[shape] = None  # a graph must not make what is made on first use, such as the moments
            return update(batch)

    def forget(self, why: str = MEMORY) -> bool:
        """Free the memory of every graph and record no more, for the reason `why`; return whether there was a graph."""
        had = any(self._recorded.values())
        if had:
            torch.cuda.synchronize()
        self._recorded, self.why_not = dict.fromkeys(self._recorded), why
        machine.free_memory()
        return had

    def _record(self, batch: Batch, update: Update) -> "_Recorded | None":
        """Record the update for batches of the shape of `batch`, without computing it; return None, and keep why, where that fails."""
        mine = Batch(batch.rows.clone(), {name: values.clone() for name, values in batch.inputs.items()})
        graph = torch.cuda.CUDAGraph()
        with self._groups(capturable=True):
            try:
                with torch.cuda.graph(graph, pool=self._pool, stream=torch.cuda.current_stream()), _no_waiting():
                    losses = update(mine)
            except RuntimeError as error:
                self.why_not = _why_not(error)
                if self.why_not is None:
                    raise
                self._optimizer.zero_grad(set_to_none=True)
                return None
        return _Recorded(graph, mine, losses)

    @contextmanager
    def _groups(self, **values: Any) -> Iterator[None]:
        """Run the block with `values` in every parameter group of the optimizer, then restore the earlier ones."""
        groups = self._optimizer.param_groups
        before = [{name: group[name] for name in values} for group in groups]
        for group in groups:
            group.update(values)
        try:
            yield
        finally:
            for group, old in zip(groups, before, strict=True):
                group.update(old)


class _Recorded:
    """Holds one shape's graph, the batch that it reads and the losses that it writes."""

    def __init__(self, graph: torch.cuda.CUDAGraph, batch: Batch, losses: Tensor) -> None:
        self._graph, self._batch, self._losses = graph, batch, losses

    def replay(self, batch: Batch) -> Tensor:
        """Copy `batch` to where the graph reads it, launch the graph, and return a copy of the losses."""
        self._batch.rows.copy_(batch.rows)
        for name, values in batch.inputs.items():
            self._batch.inputs[name].copy_(values)
        self._graph.replay()
        return self._losses.clone()


@contextmanager
def own_stream(device: str) -> Iterator[None]:
    """Run the block with its GPU work on a separate stream, because the default stream cannot be recorded. On a CPU, change nothing."""
    if not device.startswith("cuda"):
        yield
        return
    outside, own = torch.cuda.current_stream(device), _stream(device)
    own.wait_stream(outside)
    try:
        with torch.cuda.stream(own):
            yield
    finally:
        outside.wait_stream(own)


def recording() -> bool:
    """Return whether a CUDA graph is being recorded."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


def why_not_recorded(config: Any) -> str | None:
    """Return why no step of a model of this configuration may be recorded; None where it may be tried."""
    dropped = [name for name in ("layerdrop", "encoder_layerdrop", "decoder_layerdrop") if getattr(config, name, 0)]
    return f"the host leaves out layers at random ({dropped[0]})" if dropped else None


@contextmanager
def _no_waiting() -> Iterator[None]:
    """Run the block, in which what would wait for the GPU raises RuntimeError before it breaks the recording."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _why_not(error: RuntimeError) -> str | None:
    """Return why a step could not be recorded; None for an error of another kind."""
    if machine.is_out_of_memory(error):
        return MEMORY
    told = str(error).strip().partition("\n")[0]
    if "synchronizing" in told:
        return "its step waits for a number from the GPU"
    return f"CUDA cannot record its step: {told}" if "captur" in told else None


@functools.cache
def _stream(device: str) -> torch.cuda.Stream:
    """Return the stream for training on `device`, one for all trainings, so that its memory is used again."""
    return torch.cuda.Stream(device)
