"""Names of the processes that own trials: host, number, and a word that no other has had."""

import os
import socket
from uuid import uuid4


def new_owner() -> str:
    """A name for a worker that this process is or starts."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"


def is_of_this_host(owner: str) -> bool:
    """Whether the owner runs, or ran, on this machine."""
    return owner.rsplit("-", 2)[0] == socket.gethostname()
