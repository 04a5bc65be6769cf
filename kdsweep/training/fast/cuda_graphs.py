"""Training steps on a GPU as CUDA graphs: recorded once for each shape of a batch, and from then on launched whole.

A step of a small student is hundreds of kernels of a few microseconds each; launched one by one they take Python several times as
long as the GPU. https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs

The update itself is the caller's, and the same code with and without graphs: the first batch of each shape is trained on as it is, the
second is recorded. A graph lives as long as its training: the weights, moments and rows that it names do not move before.
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
"""One step of an optimizer by a batch; its losses, on the device."""


class Graphs:
    """The graphs of one training."""

    def __init__(self, optimizer: Optimizer, device: str) -> None:
        self._optimizer = optimizer
        self._rate = torch.zeros((), device=device)
        self._pool = torch.cuda.graph_pool_handle()
        self._recorded: dict[torch.Size, _Recorded | None] = {}
        """None of a shape that came once, or that has no graph for want of memory."""
        self._room = True
        """Whether the memory has held every graph so far."""

    def step(self, batch: Batch, update: Update) -> Tensor:
        """What `update(batch)` does and gives."""
        self._rate.fill_(self._optimizer.param_groups[0]["lr"])
        shape = batch.inputs["input_ids"].shape
        if recorded := self._recorded.get(shape):
            return recorded.replay(batch)
        with self._groups(lr=self._rate):  # a graph names it; the same in every group
            if shape in self._recorded and self._room:
                if recorded := self._record(batch, update):
                    self._recorded[shape] = recorded
                    return recorded.replay(batch)
                self.forget()
            self._recorded[shape] = None  # what is made on first use, such as the moments, cannot be made in a graph
            return update(batch)

    def forget(self) -> bool:
        """Give the memory of every graph back, and record no more; whether there was a graph."""
        had = any(self._recorded.values())
        if had:
            torch.cuda.synchronize()
        self._recorded, self._room = dict.fromkeys(self._recorded), False
        machine.free_memory()
        return had

    def _record(self, batch: Batch, update: Update) -> "_Recorded | None":
        """The update of such a batch, nothing of it computed yet; None where memory is too short for it."""
        mine = Batch(batch.rows.clone(), {name: values.clone() for name, values in batch.inputs.items()})
        graph = torch.cuda.CUDAGraph()
        with self._groups(capturable=True):
            try:
                with torch.cuda.graph(graph, pool=self._pool, stream=torch.cuda.current_stream()):
                    losses = update(mine)
            except RuntimeError as error:
                if not machine.is_out_of_memory(error):
                    raise
                self._optimizer.zero_grad(set_to_none=True)
                return None
        return _Recorded(graph, mine, losses)

    @contextmanager
    def _groups(self, **values: Any) -> Iterator[None]:
        """Inside the block, every parameter group of the optimizer has these values."""
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
    """One shape's graph, with the batch that it reads and the losses that it writes."""

    def __init__(self, graph: torch.cuda.CUDAGraph, batch: Batch, losses: Tensor) -> None:
        self._graph, self._batch, self._losses = graph, batch, losses

    def replay(self, batch: Batch) -> Tensor:
        """The step, of this batch."""
        self._batch.rows.copy_(batch.rows)
        for name, values in batch.inputs.items():
            self._batch.inputs[name].copy_(values)
        self._graph.replay()
        return self._losses.clone()


@contextmanager
def own_stream(device: str) -> Iterator[None]:
    """Inside the block, work goes to a stream of its own: the default one cannot be recorded. Elsewhere than on a GPU, nothing."""
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
    """Whether a graph is being recorded."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


@functools.cache
def _stream(device: str) -> torch.cuda.Stream:
    """The same for every training, so that its memory is used again."""
    return torch.cuda.Stream(device)
