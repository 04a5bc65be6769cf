"""Say in the plan which shortcuts the models of a sweep can take, as far as each one's config.json tells without a download."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kdsweep.config.sweep import SweepConfig
from kdsweep.config.trial import FROM_TEACHER
from kdsweep.system import wheels
from kdsweep.training.fast.families import family_named, why_every_token


def planned_shortcuts(sweep: SweepConfig) -> str | None:
    """Return which shortcuts the student and the teacher can take, and why not the others, in words; None where no config.json is here."""
    told = {f"{role} ({config.model_type}): {_text(config)}": None for role, config in _models(sweep)}
    return "; ".join(told) or None


def _text(config: Any) -> str:
    family = family_named(config.model_type)
    why = why_every_token(family, config)
    layer = f"every token of the last layer ({why})" if why else "the last layer's first token alone"
    return f"{layer}, compact vocabulary" if family else layer


def _models(sweep: SweepConfig) -> Iterator[tuple[str, Any]]:
    """Yield role and configuration of each model whose config.json is here."""
    places = {role: list(_named(sweep, role)) for role in ("student", "student_body", "teacher")}
    for place in places["student"]:
        if place[0] != FROM_TEACHER:
            yield from (("student", config) for config in _config(*place))
            continue
        for source in places["student_body"] or places["teacher"]:
            yield from (("student", _shortened(config)) for config in _config(*source))
    for place in places["teacher"]:
        yield from (("teacher", config) for config in _config(*place))


def _named(sweep: SweepConfig, role: str) -> Iterator[tuple[str, str]]:
    """Yield address and revision of each model that the field `role` names."""
    for address in sweep.values(role):
        if address is not None:
            yield str(address), str(sweep.fixed.get(f"{role}_revision") or "auto")


def _shortened(config: Any) -> Any:
    """Return what matters here of the configuration of a from_teacher student: of a BERT it is a DistilBERT, else the teacher's class."""
    if config.model_type != "bert" or getattr(config, "layer_norm_eps", 1e-12) != 1e-12:
        return config
    return SimpleNamespace(**{**vars(config), "model_type": "distilbert"})


def _config(address: str, revision: str) -> Iterator[Any]:
    """Yield what the config.json of a model says, where it is on disk or in the hub's cache."""
    if address.startswith(wheels.PREFIX):
        folder = wheels.parse(address).cached
    elif not (folder := Path(address).expanduser()).is_dir():
        folder = _cached(address, revision)
    try:
        said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not here, or torn: the sweep itself says so where it needs the file
        return
    if isinstance(said, dict) and "model_type" in said:
        yield SimpleNamespace(**said)


def _cached(name: str, revision: str) -> Path:
    """Return the folder in the hub's cache of a model's commit: https://huggingface.co/docs/huggingface_hub/guides/manage-cache.

    huggingface_hub finds it too, but takes as long to import as the whole plan.
    """
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    model = Path(os.environ.get("HF_HUB_CACHE") or home / "hub") / f"models--{name.replace('/', '--')}"
    newest = model / "refs" / "main"
    commit = revision
    if revision == "auto":
        commit = newest.read_text(encoding="utf-8").strip() if newest.is_file() else "-"
    return model / "snapshots" / commit
