"""Show live progress in a Jupyter notebook: one output of the cell, replaced whenever something has happened."""

import time
from collections.abc import Callable
from typing import Any

from rich.console import RenderableType
from rich.jupyter import JupyterMixin

SECONDS = 0.5
"""Least time between two replacements: each is a message to the browser."""


class NotebookLive(JupyterMixin):
    """Shows live progress in a notebook with IPython alone; rich's Live, for terminals, shows nothing there without ipywidgets."""

    def __init__(self, view: Callable[[], RenderableType]) -> None:
        self._view = view
        self._handle: Any = None
        self._shown_at = 0.0

    def __rich__(self) -> RenderableType:
        return self._view()

    def start(self) -> None:
        """Add the output to the cell."""
        from IPython.display import display  # every notebook's kernel has it; nothing else needs it

        self._handle = display(self, display_id=True)

    def refresh(self) -> None:
        """Replace the output, unless it was replaced less than `SECONDS` ago."""
        if self._handle and time.monotonic() - self._shown_at >= SECONDS:
            self._handle.update(self)
            self._shown_at = time.monotonic()

    def stop(self) -> None:
        """Replace the output a last time; it stays in the notebook."""
        self._shown_at = 0.0
        self.refresh()
