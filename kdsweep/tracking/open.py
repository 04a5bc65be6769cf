"""Decide whether and how Weights & Biases tracks a sweep, and open the tracker.

W&B only shows a sweep; results are computed from the results folder. Its client takes a second to import, so it is imported only where a
sweep is tracked.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from kdsweep.config.sweep import Resolved, TrackingConfig
from kdsweep.tracking.tracker import NullTracker, Tracker

WORKSPACE_NEEDS = "tracking.workspace needs the package wandb-workspaces: pip install 'kdsweep[workspace]'"


def resolved_mode(tracking: TrackingConfig) -> tuple[Resolved, str]:
    """Return `online`, `offline` or `off`, and why in a few words; ask the server once, so that no trial has to wait for it.

    Raises ConfigError where W&B's own settings are not valid.
    """
    if tracking.mode == "off":
        return "off", "as the sweep file says"
    from kdsweep.tracking.wandb_tracker import reach

    return reach(tracking.mode)


def lacks_package(tracking: TrackingConfig) -> str | None:
    """Return what to install for `tracking.workspace`, without importing it; None where nothing is missing."""
    if not tracking.workspace or tracking.mode == "off" or find_spec("wandb_workspaces"):
        return None
    return WORKSPACE_NEEDS


def open_tracker(
    folder: Path,
    group: str,
    tracking: TrackingConfig,
    mode: Resolved,
    say: Callable[[str], None] = print,
) -> Tracker:
    """Return the tracker for a resolved mode; it calls `say` with W&B's first error."""
    if mode == "off":
        return NullTracker()
    from kdsweep.tracking.wandb_tracker import WandbTracker

    return WandbTracker(folder, group, tracking, mode, say)
