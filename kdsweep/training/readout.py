"""Copy losses from the device to the host in blocks, because reading them one by one would wait for each step.

On a GPU a block is read after the copy of the next one has been queued, so that the GPU has work while the host writes records.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

READ_EVERY = 10
"""Steps in a block."""


class Taken(NamedTuple):
    """Holds one step: its number, the number of rows that each loss is a mean over, its learning rate, and its losses, the total first."""

    step: int
    rows: tuple[int, ...]
    rate: float
    losses: Any
    """One tensor on the device; once read, a list of numbers."""


class Readout:
    """Collects an epoch's steps, copies their losses to the host in blocks, and passes each block to `on_steps`."""

    def __init__(self, on_steps: Callable[[Sequence[Taken]], None]) -> None:
        self._on_steps = on_steps
        self._steps: list[Taken] = []
        self._sent: list[tuple[list[Taken], Tensor, torch.cuda.Event | None]] = []

    def add(self, step: Taken) -> None:
        """Add a step that was just taken; every `READ_EVERY` steps, send them as a block and read: on a GPU, all blocks but the newest."""
        self._steps.append(step)
        if len(self._steps) == READ_EVERY:
            self._send()
            self._read(all_but=1 if step.losses.is_cuda else 0)

    def finish(self) -> None:
        """Send and read all steps that are left."""
        if self._steps:
            self._send()
        self._read(all_but=0)

    def _send(self) -> None:
        """Start to copy the losses of the collected steps to the host."""
        values, arrived = torch.stack([step.losses for step in self._steps]), None
        if values.is_cuda:
            values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        self._sent.append((self._steps, values, arrived))
        self._steps = []

    def _read(self, *, all_but: int) -> None:
        while len(self._sent) > all_but:
            steps, values, arrived = self._sent.pop(0)
            if arrived is not None:
                arrived.synchronize()
            told = zip(steps, values.double().tolist(), strict=True)
            self._on_steps([step._replace(losses=losses) for step, losses in told])
