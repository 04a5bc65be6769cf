"""Find the sweep files that are shipped with kdsweep: in a clone beside the package, once installed inside it."""

import difflib
import os
from pathlib import Path

from kdsweep.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]


def shipped_sweeps() -> dict[str, Path]:
    """Return the path of every shipped sweep file by the sweep's name, which has the folder in front where there is one: `glue/rte`."""
    inside = _PACKAGE / "sweeps"
    folder = inside if inside.is_dir() else _PACKAGE.parent / "sweeps"
    files = [*sorted(folder.glob("*.yaml")), *sorted(folder.glob("*/*.yaml"))]
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}


def find_sweep(asked: Path) -> Path:
    """Return the sweep file that a command line names: `asked` where this file exists, otherwise the shipped sweep of that name.

    Raises ConfigError where `asked` is neither.
    """
    if os.path.exists(asked) and not os.path.isdir(asked):
        return asked
    shipped, name = shipped_sweeps(), str(asked)
    if name in shipped:
        return shipped[name]
    if os.path.isdir(asked):
        raise ConfigError(f"{asked} must be a sweep file, but is a folder; shipped sweeps: {', '.join(shipped)}")
    ends = {name.rpartition("/")[2]: name for name in shipped}
    if asked.stem in ends:
        raise ConfigError(
            f"{asked} must be a sweep file, but there is none; the shipped one is called by its name, {ends[asked.stem]}"
        )
    near = difflib.get_close_matches(asked.stem, shipped, n=1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigError(
        f"{asked} must be a sweep file or the name of a shipped sweep, but is neither; {meant}shipped: {', '.join(shipped)}"
    )
