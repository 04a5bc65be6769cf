"""Private parts of other libraries: which versions they were tested with, and one message where a part is gone.

A private part may be renamed in any release. It is used where nothing public does the same, and it is asked for here, so that a new
release says in one message what it lacks. W&B needs none of it: without W&B a sweep goes on.
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
"""As pyproject.toml has them."""


def part_of(owner: Any, name: str, library: str, purpose: str) -> Any:
    """`owner`'s private attribute `name`. Raises LibraryError with the `purpose` where the installed library lacks it."""
    try:
        return getattr(owner, name)
    except AttributeError as error:
        raise lacks(library, f"{getattr(owner, '__name__', type(owner).__name__)}.{name}", purpose) from error


def lacks(library: str, part: str, purpose: str) -> LibraryError:
    """What to raise where a `library` has no `part`."""
    return LibraryError(
        f"{purpose} needs {part}, a private part that {library} has in the versions {TESTED[library]}, but not in this one, "
        f"{version(library)}: pip install '{TESTED[library]}'"
    )


def version(library: str) -> str:
    """The installed version; a dash where a package was only put on the path."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "-"
