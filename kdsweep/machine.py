"""What a result depends on besides its config: the device, the precision that `auto` means on it, and the versions."""

import importlib.metadata
import os
import platform
from pathlib import Path

import torch

_PACKAGES = ("kdsweep", "torch", "transformers", "tokenizers", "datasets", "optuna", "wandb", "numpy")


def best_device() -> str:
    """`cuda` where there is one, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def best_precision(device: str) -> str:
    """`bf16` where the hardware multiplies matrices of bfloat16: a GPU that has it, a CPU with AMX. Else `fp32`.

    Emulated it is slower than float32, and so it is on a Xeon whose only bfloat16 is AVX-512's: a step takes 1.6 times as long.
    """
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu._is_amx_tile_supported() else "fp32"


def set_threads(threads: int) -> None:
    """Fix torch's CPU threads: their number changes the last bits of a result."""
    torch.set_num_threads(threads)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an allocation failed, on a GPU or on the CPU, where torch has no exception of its own for it."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def free_memory() -> None:
    """Give back what torch keeps for reuse on a GPU."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def environment(device: str) -> dict[str, str]:
    """Versions and hardware, for the record and the receipt."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else processor()
    return {
        **versions,
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "system": platform.platform(),
        "device": device,
        "hardware": name,
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
