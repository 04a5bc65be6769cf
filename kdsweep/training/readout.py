"""Losses on their way from the device to the record: in blocks, since reading one by one would wait for each step.

On a GPU a block is read when the next one is on its way, so that the GPU has work while the host writes records.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

READ_EVERY = 10
"""Steps of a block."""


class Taken(NamedTuple):
    """One step: its number, its rows, its learning rate, and its losses, the total first."""

    step: int
    rows: int
    rate: float
    losses: Any
    """On the device one tensor; once read, a list of numbers."""


class Readout:
    """The steps of an epoch whose losses nobody has read yet; `on_steps` gets each block of them."""

    def __init__(self, on_steps: Callable[[Sequence[Taken]], None]) -> None:
        self._on_steps = on_steps
        self._steps: list[Taken] = []
        self._sent: list[tuple[list[Taken], Tensor, torch.cuda.Event | None]] = []

    def add(self, step: Taken) -> None:
        """A step that was just taken."""
        self._steps.append(step)
        if len(self._steps) == READ_EVERY:
            self._send()
            self._read(all_but=1 if step.losses.is_cuda else 0)

    def finish(self) -> None:
        """Read whatever is left."""
        if self._steps:
            self._send()
        self._read(all_but=0)

    def _send(self) -> None:
        """Start the block on its way to the host."""
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
