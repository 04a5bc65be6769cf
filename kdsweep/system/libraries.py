"""Fetch private parts of other libraries, and raise one error with the tested versions where a part is missing.

A private part may be renamed in any release. It is used where nothing public does its work, and is fetched here, so that one message
names what a new release lacks. W&B's parts are not fetched here: a sweep continues without W&B.
"""

import importlib.metadata
from typing import Any

from kdsweep.errors import LibraryError

TESTED = {
    "accelerate": "accelerate>=1.15,<2",
    "optuna": "optuna>=5.0,<6",
    "torch": "torch>=2.6,<3",
    "transformers": "transformers>=5.0,<6",
    "wandb": "wandb>=0.31,<1",
}
"""Requirements of the tested versions, as in pyproject.toml."""


def part_of(owner: Any, name: str, library: str, purpose: str) -> Any:
    """Return `owner`'s private attribute `name`. Raises LibraryError with the `purpose` where the installed library lacks it."""
    try:
        return getattr(owner, name)
    except AttributeError as error:
        raise lacks(library, f"{getattr(owner, '__name__', type(owner).__name__)}.{name}", purpose) from error


def lacks(library: str, part: str, purpose: str) -> LibraryError:
    """Return the error to raise where a `library` has no `part`, which `purpose` needs."""
    return LibraryError(
        f"{purpose} needs {part}, a private part that {library} has in the versions {TESTED[library]}, but not in this one, "
        f"{version(library)}: pip install '{TESTED[library]}'"
    )


def version(library: str) -> str:
    """Return the installed version of `library`; a dash where it has no metadata, as when it was only put on the path."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "-"
