"""Find what the processor has for multiplying 8-bit integers."""

import platform
from pathlib import Path

FLAGS = {
    "avx2": ("avx2",),
    "avx512": ("avx512f",),
    "vnni": ("avx_vnni", "avx512_vnni"),
    "amx": ("amx_int8",),
    "dotprod": ("asimddp",),
    "i8mm": ("i8mm",),
}
"""By the name in the record, the flags of Linux of which one says that the processor has it; the last two are of ARM."""
MULTIPLIES = {"vnni", "dotprod", "i8mm"}
"""Any of them multiplies and adds 8-bit integers in one instruction."""


def cpu_flags(facts: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """Return the names in `FLAGS` of what the processor has; nothing where the system is not Linux."""
    if not facts.exists():
        return ()
    lines = [line.partition(":") for line in facts.read_text(encoding="utf-8").splitlines()]
    found = {flag for name, _, flags in lines if name.strip() in ("flags", "Features") for flag in flags.split()}
    return tuple(name for name, any_of in FLAGS.items() if found.intersection(any_of))


def without_vnni(flags: tuple[str, ...], int8_ms: float, fp32_ms: float) -> str | None:
    """Return what 8 bits cost on a processor with `flags` that lacks VNNI, from the milliseconds of one row; None where it does not lack it,
    or where nothing is known of it."""
    if not flags or MULTIPLIES.intersection(flags) or platform.machine() not in ("x86_64", "AMD64", "i686"):
        return None
    return (
        f"This processor has no VNNI, so that a product of 8-bit integers takes several instructions, which may overflow 16 bits: int8 "
        f"takes {int8_ms / fp32_ms:.2f} times the time of ONNX in float32 here, and its labels may be others on a processor with VNNI; "
        "measure it again where it will run"
    )
