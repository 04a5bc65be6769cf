"""Run sweeps of classical knowledge distillation for text classifiers.

    import kdsweep
    results = kdsweep.run(kdsweep.load("smoke"))
    results.trials(), results.verdict, results.best

The names in `__all__` are imported from `kdsweep.api` at first use, so that importing kdsweep costs nothing.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if sys.platform == "win32":  # before the import of a POSIX module fails with a less clear message
    raise ImportError(
        "kdsweep runs on Linux and macOS: its locks, signals and worker processes are POSIX's. On Windows, install it inside WSL "
        "(https://learn.microsoft.com/windows/wsl)"
    )

if TYPE_CHECKING:
    from kdsweep.api import (
        KDSweepError,
        Reproduction,
        Results,
        SweepConfig,
        Trial,
        TrialConfig,
        load,
        reproduce,
        run,
    )

__version__ = "0.1.0"
__all__ = [
    "KDSweepError",
    "Reproduction",
    "Results",
    "SweepConfig",
    "Trial",
    "TrialConfig",
    "__version__",
    "load",
    "reproduce",
    "run",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("kdsweep.api"), name)
    raise AttributeError(f"module 'kdsweep' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps `kdsweep.run` and `kdsweep.reproduce` functions, even after the commands' modules of these names are imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
