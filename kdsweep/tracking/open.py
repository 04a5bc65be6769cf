"""Whether and how a sweep is tracked by Weights & Biases.

W&B is the view, the results folder is the truth. Its client, which takes a second to import, comes when a sweep is tracked.
"""

from collections.abc import Callable
from pathlib import Path

from kdsweep.config.sweep import Resolved, TrackingConfig
from kdsweep.tracking.tracker import NullTracker, Tracker


def resolved_mode(tracking: TrackingConfig) -> tuple[Resolved, str]:
    """`online`, `offline` or `off`, and why in a few words; asks the server once, so that no trial has to wait for it.

    Raises ConfigError where W&B's own settings are not valid.
    """
    if tracking.mode == "off":
        return "off", "as the sweep file says"
    from kdsweep.tracking.wandb_tracker import reach

    return reach(tracking.mode)


def open_tracker(
    folder: Path,
    group: str,
    tracking: TrackingConfig,
    mode: Resolved,
    say: Callable[[str], None] = print,
) -> Tracker:
    """The tracker for a resolved mode."""
    if mode == "off":
        return NullTracker()
    from kdsweep.tracking.wandb_tracker import WandbTracker

    return WandbTracker(folder, group, tracking, mode, say)
