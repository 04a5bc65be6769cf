"""kdsweep: sweeps of classical knowledge distillation for text classifiers."""

import sys

if sys.platform == "win32":  # before a module of POSIX's is missed by name
    raise ImportError(
        "kdsweep runs on Linux and macOS: its locks, signals and worker processes are POSIX's. On Windows, install it inside WSL "
        "(https://learn.microsoft.com/windows/wsl)"
    )

__version__ = "0.1.0"
