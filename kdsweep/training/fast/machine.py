"""Find what a result depends on besides its config: the device, the precision that `auto` means on it, and the versions."""

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
"""A faster way to multiply matrices is used where the others take at least this many times its seconds. No measured CPU is near this
factor (bfloat16 with AMX: 2.5 to 5, without: 0.6), so that measuring again gives the same answer, on a busy machine too."""

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""From glibc's malloc.h."""

_PACKAGES = ("torch", "transformers", "tokenizers", "datasets", "optuna", "wandb", "numpy")


def best_device() -> str:
    """Return `cuda` where there is a CUDA device, otherwise `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def best_precision(device: str) -> str:
    """Return `bf16` where a GPU has bfloat16, or a CPU multiplies matrices of it `PAYS` times as fast when measured; otherwise `fp32`.

    A Xeon without AMX has instructions for bfloat16, but a step with them takes 1.6 times as long. With AMX, or on an EPYC with Zen 5
    cores, it takes half the time or less.
    """
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    seconds = product_seconds()
    return "bf16" if min(seconds["blas"], seconds["onednn"]) >= PAYS * seconds["bf16"] else "fp32"


def blas_is_slow() -> bool:
    """Return whether oneDNN multiplies float32 matrices `PAYS` times as fast as torch's BLAS: MKL uses no AVX-512 on AMD's CPUs."""
    seconds = product_seconds()
    return seconds["blas"] >= PAYS * seconds["onednn"]


@functools.cache
def product_seconds() -> dict[str, float]:
    """Measure CPU seconds of a linear layer on one thread, the best of ten: float32 by torch's BLAS and by oneDNN, and bfloat16.

    The thread's own CPU time is measured, so that other load on the machine changes the answer little. The layer is of a step's size: on
    fewer rows, and with a transposed weight, bfloat16 would spend most of its seconds on rearranging the weight.
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
    """Compute `torch.nn.functional.linear` by oneDNN, which torch itself uses for float32 only inside compiled code. No gradient."""
    product = part_of(torch.ops.mkldnn, "_linear_pointwise", "torch", "a float32 product on this CPU")
    output: Tensor = product(input, weight, bias, "none", [], "")
    return output


def set_up(threads: int) -> None:
    """Set up this process for training: set the number of torch's CPU threads, which changes the last bits of a result, and keep freed memory.

    A step frees memory that the next one needs again. By default glibc returns it to the system, and every page of it costs a page fault
    again: a tenth to a fifth of a step. https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    torch.set_num_threads(threads)
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run the block with `count` CPU threads of torch."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether `error` is a failed allocation: torch's, the CUDA driver's or the CPU's; torch has no exception class for the last two."""
    told = ("DefaultCPUAllocator", "CUDA error: out of memory")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in told)


def free_memory() -> None:
    """Free the GPU memory that torch keeps for reuse."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def hardware(device: str) -> str:
    """Return the name of the GPU or CPU."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else processor()


def environment(device: str) -> dict[str, str]:
    """Return versions, threads and hardware, for the record and the receipt."""
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
    """Return the CPU's name, or its architecture where Linux does not give the name, and the number of its cores."""
    facts = Path("/proc/cpuinfo")
    named = (
        [line.partition(":")[2].strip() for line in facts.read_text().splitlines() if line.startswith("model name")]
        if facts.exists()
        else []
    )
    return f"{named[0] if named else platform.machine()}, {os.cpu_count()} cores"
