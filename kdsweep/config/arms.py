"""Name the arms of a sweep: the searches that it compares, and the fields that each of them fixes."""

from collections.abc import Mapping
from typing import Any, Literal

Arm = Literal["distilled", "fine_tuned", "pseudo_labeled"]
ARMS: tuple[Arm, ...] = ("distilled", "fine_tuned", "pseudo_labeled")
"""Every arm that a sweep can have, in the order in which all is shown; `SweepConfig.arms` are those of one sweep."""
ARM_NAMES: dict[Arm, str] = {
    "distilled": "distilled",
    "fine_tuned": "fine-tuned",
    "pseudo_labeled": "pseudo-labeled",
}
PRIMARY: tuple[Arm, Arm] = ("distilled", "fine_tuned")
"""The arms of the primary comparison, which every sweep has."""
THIRD: tuple[tuple[Arm, Arm], ...] = (("distilled", "pseudo_labeled"), ("pseudo_labeled", "fine_tuned"))
"""The comparisons of a sweep with a third arm, each with its baseline: is it the soft targets, or only more text?"""
Stage = Arm | Literal["finalists"]
"""The search of one arm, or the finalists: the best configurations of all arms, run once more on fresh seeds."""

NO_TEACHER: dict[str, Any] = {
    "alpha": 0.0,
    "temperature": 1.0,
    "alpha_end": None,
    "temperature_end": None,
    "soft_loss": "kl",
    "relation_weight": 0.0,
    "relation_heads": 12,
}
"""Fields with which the teacher's outputs have no weight in the loss; temperature is then only the unit of L_soft."""
NO_UNLABELED: dict[str, Any] = {
    "unlabeled_file": None,
    "unlabeled_split": None,
    "unlabeled_rest": False,
    "unlabeled_limit": None,
    "unlabeled_share": None,
}
"""Fields with which a trial has no texts without labels."""
FINE_TUNED: dict[str, Any] = {**NO_TEACHER, **NO_UNLABELED, "pseudo_labels": False}
"""Fields that the fine-tuned arm fixes: the labelled rows alone, with no weight for the teacher."""
PSEUDO_LABELED: dict[str, Any] = {**NO_TEACHER, "pseudo_labels": True}
"""Fields that the pseudo-labeled arm fixes: all texts, where the class that the teacher predicts is the label of those without one."""
FIXED_BY: Mapping[Arm, Mapping[str, Any]] = {
    "distilled": {},
    "fine_tuned": FINE_TUNED,
    "pseudo_labeled": PSEUDO_LABELED,
}
"""The fields that each arm fixes, whatever the sweep file says."""
