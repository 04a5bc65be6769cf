"""Find the machine's cores and CUDA devices without torch, and choose how many workers run and how their threads wait."""

import os
import subprocess
from shutil import which

WORKERS_ON_A_CPU = 2
"""Workers on a CPU. A step's small operations run on one core for any number of threads: two workers with half of the cores each train
1.2 to 1.6 times as fast as one with all of them."""

SPIN_COUNT = 4000
"""Rounds that an OpenMP thread spins at a barrier before it sleeps: 0.1 to 0.2 ms. libgomp's own 300,000 take 10 ms and more. Beside another
busy process, a spinning thread takes that time from the thread that it waits for: a training step of two threads on two cores took
2.0 to 2.3 times one thread's time with libgomp's number, and takes 1.4 times with this one. See tests/benchmarks/bench_busy.py."""


def bound_spinning() -> None:
    """Bound how long this process's threads spin, by libgomp's `GOMP_SPINCOUNT`; what the environment sets already is kept.

    libgomp reads the variable once, when torch is imported. https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cuda_devices() -> list[str]:
    """Return the CUDA devices that may be used, as `CUDA_VISIBLE_DEVICES` names them up to a -1, else all that nvidia-smi lists."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        named = [device.strip() for device in chosen.split(",") if device.strip()]
        return named[: named.index("-1")] if "-1" in named else named
    if which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)
    return [str(place) for place, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU ")]


def device_groups(device: str, devices_per_trial: int) -> list[str]:
    """Return the CUDA devices of each worker, written as for `CUDA_VISIBLE_DEVICES`; none unless `device` is auto."""
    found = cuda_devices() if device == "auto" else []
    last = len(found) - devices_per_trial
    return [",".join(found[first : first + devices_per_trial]) for first in range(0, last + 1, devices_per_trial)]


def default_workers(device: str, devices_per_trial: int) -> int:
    """Return how many workers to start: one a group of CUDA devices, one on a CUDA device that is named, up to two on a CPU."""
    if groups := device_groups(device, devices_per_trial):
        return len(groups)
    if device.startswith("cuda"):
        return 1
    return max(1, min(WORKERS_ON_A_CPU, available_cores() // devices_per_trial))
