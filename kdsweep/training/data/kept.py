"""Keep large arrays in the cache: made once, checked by their hash, and memory-mapped by every process that uses them.

Memory-mapped numbers lie in the system's cache of the disk, once for all workers; they take no memory that others need.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdsweep.system.files import drafting, locked, naming
from kdsweep.system.wheels import cache_root

MAPPED_BYTES = 2**26
"""Arrays of up to so many bytes are joined in memory, larger ones in a file."""

Arrays = Mapping[str, np.ndarray]


def kept(key: str, make: Callable[[], Iterable[Arrays]]) -> dict[str, np.ndarray]:
    """Return the arrays of the cache's entry `key`, memory-mapped: of each name, the pieces that `make` yields, end to end.

    An entry that is missing or torn is made, by one process while others wait, and is there whole or not at all. Changes of the arrays
    reach neither file nor other processes. Raises ResultsError where the cache cannot be written.
    """
    folder = cache_root() / "arrays" / key
    found = _read(folder)
    if found is None:
        with locked(cache_root() / "locks" / f"{key}.lock"):
            found = _read(folder)
            if found is None:
                _write(folder, make())
                found = _read(folder)
                assert found is not None
    return found


def end_to_end(pieces: Callable[[], Iterable[Mapping[str, Tensor]]]) -> dict[str, Tensor]:
    """Return, for each name, the tensors of all pieces end to end: in memory, or where they are large and on the CPU, memory-mapped.

    `pieces` is called a second time for those that are written to a file.
    """
    held: list[Mapping[str, Tensor]] = []
    size, digest = 0, hashlib.sha256()
    for piece in pieces():
        held.append(piece)
        for name, values in piece.items():
            if values.device.type == "cpu":
                size += values.nbytes
                digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
                digest.update(_bytes(values.numpy()))
        if size > MAPPED_BYTES:
            held.clear()
    if held:
        return {name: torch.cat([piece[name] for piece in held]) for name in held[0]}
    arrays = kept(digest.hexdigest(), lambda: ({name: each.numpy() for name, each in one.items()} for one in pieces()))
    return {name: torch.from_numpy(values) for name, values in arrays.items()}


def _write(folder: Path, pieces: Iterable[Arrays]) -> None:
    """Write an entry whole or not at all; `made.json` says what each array is."""
    with naming(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
    made: dict[str, dict[str, Any]] = {}
    with drafting(folder) as draft, ExitStack() as stack:
        files = {}
        digests = {}
        for piece in pieces:
            for name, values in piece.items():
                if name not in files:
                    files[name] = stack.enter_context((draft / f"{name}.bin").open("wb"))
                    digests[name] = hashlib.sha256()
                    made[name] = {"dtype": values.dtype.str, "shape": [0, *values.shape[1:]]}
                content = _bytes(values)
                files[name].write(content)
                digests[name].update(content)
                made[name]["shape"][0] += len(values)
        for name, digest in digests.items():
            made[name]["sha256"] = digest.hexdigest()
        (draft / "made.json").write_text(json.dumps(made), encoding="utf-8")


def _bytes(values: np.ndarray) -> memoryview:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def _read(folder: Path) -> dict[str, np.ndarray] | None:
    """Map an entry's arrays; return None where there is none, or where a file is not what was written."""
    try:
        made = json.loads((folder / "made.json").read_text(encoding="utf-8"))
        return {name: _mapped(folder / f"{name}.bin", **facts) for name, facts in made.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _mapped(path: Path, *, dtype: str, shape: list[int], sha256: str) -> np.ndarray:
    """Map a file as an array. Raises ValueError where its bytes are others than those written, OSError where there is no file."""
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise ValueError(f"{path} is torn")
    return np.memmap(path, dtype, "c", shape=tuple(shape)) if path.stat().st_size else np.empty(shape, dtype)
