"""What a result depends on besides its config: the device, the precision that `auto` means on it, and the versions."""

import ctypes
import functools
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from kdsweep import __version__
from kdsweep.system.libraries import part_of, version

PAYS = 1.5
"""A way to multiply matrices is taken where the others need this many times its seconds: CPUs lie to both sides of it (bfloat16 with AMX
at 2.5 to 5, without at 0.6), so that measuring again gives the same answer, on a busy machine too."""

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""From glibc's malloc.h."""

_PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "optuna", "wandb", "numpy")


def best_device() -> str:
    """`cuda` where there is one, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def best_precision(device: str) -> str:
    """`bf16` where the hardware multiplies matrices of bfloat16 faster: a GPU that has it, a CPU that shows it. Else `fp32`.

    A Xeon without AMX has instructions for it that do not pay: a step takes 1.6 times as long. With AMX, or on an EPYC of the Zen 5
    kind, it takes half the time or less.
    """
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    seconds = product_seconds()
    return "bf16" if min(seconds["blas"], seconds["onednn"]) >= PAYS * seconds["bf16"] else "fp32"


def blas_is_slow() -> bool:
    """Whether oneDNN's float32 products beat those of torch's BLAS here: MKL has no AVX-512 for AMD's CPUs."""
    seconds = product_seconds()
    return seconds["blas"] >= PAYS * seconds["onednn"]


@functools.cache
def product_seconds() -> dict[str, float]:
    """CPU seconds of a linear layer on one thread, the best of several: float32 by torch's BLAS and by oneDNN, and bfloat16.

    One thread's own time, so that what else the machine does changes the answer little. A layer of a step's size: on fewer rows, and
    of a weight that lies the other way round, most of bfloat16's seconds would go into rearranging the weight.
    """
    input, weight = torch.ones(512, 512), torch.ones(512, 512)
    low_input, low_weight = input.bfloat16(), weight.bfloat16()
    ways: dict[str, Callable[[], Tensor]] = {
        "blas": lambda: functional.linear(input, weight),
        "bf16": lambda: functional.linear(low_input, low_weight),
    }
    ways["onednn"] = (
        functools.partial(onednn_linear, input, weight) if torch.backends.mkldnn.is_available() else ways["blas"]
    )
    seconds = dict.fromkeys(ways, float("inf"))
    with threads(1):
        for _ in range(10):
            for name, product in ways.items():
                started = time.thread_time()
                product()
                seconds[name] = min(seconds[name], time.thread_time() - started)
    return seconds


def onednn_linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear` by oneDNN, which torch itself asks for float32 only inside compiled code. No gradient."""
    product = part_of(torch.ops.mkldnn, "_linear_pointwise", "torch", "a float32 product on this CPU")
    output: Tensor = product(input, weight, bias, "none", [], "")
    return output


def set_up(threads: int) -> None:
    """Make the process one that trains: fix torch's CPU threads, whose number changes the last bits of a result, and keep memory.

    A step frees what the next one needs again. glibc would give it back to the system in between, and every page of it would cost a
    fault anew: a tenth to a fifth of a step. https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    torch.set_num_threads(threads)
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Inside the block, torch computes with so many CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an allocation failed: torch's, the CUDA driver's or the CPU's, for which torch has no exception of its own."""
    told = ("DefaultCPUAllocator", "CUDA error: out of memory")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in told)


def free_memory() -> None:
    """Give back what torch keeps for reuse on a GPU."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def hardware(device: str) -> str:
    """The name of the GPU or CPU."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else processor()


def environment(device: str) -> dict[str, str]:
    """Versions and hardware, for the record and the receipt."""
    return {
        "kdsweep": __version__,
        **{name: version(name) for name in _PACKAGES},
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "system": platform.platform(),
        "device": device,
        "hardware": hardware(device),
    }


def processor() -> str:
    """The CPU's own name where the system tells it."""
    facts = Path("/proc/cpuinfo")
    named = (
        [line.partition(":")[2].strip() for line in facts.read_text().splitlines() if line.startswith("model name")]
        if facts.exists()
        else []
    )
    return f"{named[0] if named else platform.machine()}, {os.cpu_count()} cores"
