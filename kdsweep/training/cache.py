"""Write entries of the caches of teachers and of their logits, and describe what decides their last bits."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from kdsweep.errors import AssetError
from kdsweep.system.files import disk_said


def arithmetic(device: str) -> str:
    """Describe what decides the order of sums, and with it the last bits: the kind of device, and on a CPU torch's threads."""
    return device.partition(":")[0] if device != "cpu" else f"cpu, {torch.get_num_threads()} threads"


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Run the block with a temporary folder inside `parent`. Raises AssetError where the cache cannot be written."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent) as scratch:
            yield Path(scratch)
    except Exception as error:
        if (said := disk_said(error)) is None:
            raise
        raise AssetError(
            f"the cache {parent} must be writable, but: {said}; the same command continues once it is (KDSWEEP_CACHE moves it)"
        ) from error
