"""Run a trial on several devices: each of its processes computes a share of every batch, and gradients are summed to those of the batch.

The worker leads, and starts the others (`python -m kdsweep.training.follower`), which do not use the study, W&B and records. accelerate,
which is imported here alone, chooses how they communicate: by NCCL between CUDA devices, by gloo between CPU processes.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, distributed

from kdsweep.config.trial import TrialConfig
from kdsweep.errors import ConfigError
from kdsweep.system.libraries import part_of
from kdsweep.training.data.tokens import Batch, split_batch
from kdsweep.training.fast import machine

SETTLE_SECONDS = 2.0
"""Longest time between a broken connection and the notice that the process at its other end has died."""


@dataclass(frozen=True)
class Team:
    """Connects a process to the others of its trial. All must call its methods in one order; in a team of one, they change nothing."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def leads(self) -> bool:
        """Return whether this is the process that records the trial."""
        return self.rank == 0

    def share(self, batch: Batch) -> Batch | None:
        """Return the rows of `batch` that this process computes; None where `split_batch` cuts fewer pieces than there are processes."""
        shares = split_batch(batch, self.size)
        return shares[self.rank] if self.rank < len(shares) else None

    def sum(self, *tensors: Tensor) -> None:
        """Replace every tensor by its sum over the processes, in one exchange."""
        if self.size > 1:
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
            distributed.all_reduce(flat)
            for tensor, summed in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
                tensor.copy_(summed.view_as(tensor))

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is true in at least one of the processes."""
        if self.size == 1:
            return flag
        raised = torch.tensor(float(flag), device=self.device)
        self.sum(raised)
        return raised.item() > 0


ALONE = Team()
"""The team of a trial on one device."""


def check_devices(config: TrialConfig) -> None:
    """Check that a trial can have its `devices_per_trial` here. Raises ConfigError where accelerate or CUDA devices are missing."""
    wanted = config.devices_per_trial
    if wanted > 1 and find_spec("accelerate") is None:
        raise ConfigError(
            f"devices_per_trial > 1 needs accelerate, which is not installed, but got {wanted}: pip install accelerate"
        )
    if config.device.startswith("cuda") and wanted > (seen := torch.cuda.device_count()):
        raise ConfigError(
            f"devices_per_trial <= {seen} (the CUDA devices that a worker sees) must hold, but got {wanted}"
        )


@contextmanager
def leading(config: TrialConfig, folder: Path) -> Iterator[Team]:
    """Run the block as the leader of a trial whose config is in `folder`; start its other processes before, and stop them after the block.

    Where one of them dies during the block, this process exits too: the trial of a worker that died is tried again.
    """
    if config.devices_per_trial == 1:
        yield ALONE
        return
    check_devices(config)
    port, over = _free_port(), threading.Event()
    followers = [_start(config, folder, rank, port, over) for rank in range(1, config.devices_per_trial)]
    try:
        with joined(config, rank=0, port=port) as team:
            try:
                yield team
            except RuntimeError:  # perhaps a broken connection to one that died: then `_die_with` ends this process
                time.sleep(SETTLE_SECONDS)
                raise
            finally:
                over.set()  # from here on the others may end in any way
    finally:
        over.set()
        for follower in followers:
            follower.kill()
            follower.communicate()


@contextmanager
def joined(config: TrialConfig, *, rank: int, port: int) -> Iterator[Team]:
    """Run the block as process number `rank` of a trial, after all of the trial's processes have connected at `port`."""
    from accelerate import PartialState

    forget = part_of(PartialState, "_reset_state", "accelerate", "a trial on several devices")
    size = config.devices_per_trial
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    place["OMP_NUM_THREADS"] = int(config.threads)
    with _environment({"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in place.items()}}):
        state = PartialState(cpu=config.device == "cpu")
        machine.set_up(int(config.threads))
        try:
            yield Team(rank, size, str(state.device))
        finally:
            distributed.destroy_process_group()
            forget()


def _start(config: TrialConfig, folder: Path, rank: int, port: int, over: threading.Event) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [sys.executable, "-m", "kdsweep.training.follower", str(folder), str(rank), str(port)],
        stdin=subprocess.PIPE,  # closed when this process ends, for whatever reason
        stdout=sys.stderr.fileno(),
        env={**os.environ, "OMP_NUM_THREADS": str(config.threads), "MKL_NUM_THREADS": str(config.threads)},
        start_new_session=True,  # Ctrl-C reaches the leader alone
    )
    threading.Thread(target=_die_with, args=(process, rank, over), daemon=True).start()
    return process


def _die_with(process: "subprocess.Popen[bytes]", rank: int, over: threading.Event) -> None:
    """Wait for another process of the trial, and exit if it dies before `over` is set: a library's call that needs it would wait for ever."""
    code = process.wait()
    if code and not over.is_set():
        print(
            f"process {rank} of this trial died (exit code {code}), and this one with it", file=sys.stderr, flush=True
        )
        os._exit(1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Run the block with these environment variables, then restore the earlier ones."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
