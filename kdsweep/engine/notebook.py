"""Live progress in a Jupyter notebook: one output of the cell, replaced whenever something has happened."""

import time
from collections.abc import Callable
from typing import Any

from rich.console import RenderableType
from rich.jupyter import JupyterMixin

SECONDS = 0.5
"""At most so often: every replacement is a message to the browser."""


class NotebookLive(JupyterMixin):
    """What rich's Live is on a terminal; that one shows nothing in a notebook without ipywidgets, this one needs IPython alone."""

    def __init__(self, view: Callable[[], RenderableType]) -> None:
        self._view = view
        self._handle: Any = None
        self._shown_at = 0.0

    def __rich__(self) -> RenderableType:
        return self._view()

    def start(self) -> None:
        """Add the output to the cell."""
        from IPython.display import display  # a notebook's kernel has it; nobody else needs it

        self._handle = display(self, display_id=True)

    def refresh(self) -> None:
        """Replace it, unless that was done a moment ago."""
        if self._handle and time.monotonic() - self._shown_at >= SECONDS:
            self._handle.update(self)
            self._shown_at = time.monotonic()

    def stop(self) -> None:
        """Replace it a last time; it stays in the notebook."""
        self._shown_at = 0.0
        self.refresh()
