"""Send a sweep's student to W&B as a version of its model artifact, where `tracking.log_model` says so."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kdsweep.config.sweep import SweepConfig, TrackingConfig
from kdsweep.records.export_schema import Export
from kdsweep.records.layout import exports_folder
from kdsweep.records.reading import read_sweep_key
from kdsweep.records.whole_sweep import SweepRecords
from kdsweep.tracking.names import export_label, export_number, tracked_runs
from kdsweep.tracking.open import open_tracker, resolved_mode
from kdsweep.tracking.tracker import Model

REGISTRY = "wandb-registry-"
"""What W&B puts before the name of a registry, in the name of the project that holds it."""


def trained_model(sweep: SweepConfig, run_folder: Path, metadata: Mapping[str, Any]) -> Model:
    """Return the model artifact of a student that has not been exported: its folder `student` and its config."""
    files = {"student": run_folder / "student", "config.yaml": run_folder / "config.yaml"}
    return _model(sweep, files, {**metadata, "run": run_folder.name})


def exported_model(sweep: SweepConfig, export_folder: Path, export: Export) -> Model:
    """Return the model artifact of an exported student: the content of its folder, with all forms and the card, at the top."""
    return _model(sweep, {".": export_folder}, export_facts(export))


def export_facts(export: Export) -> dict[str, Any]:
    """Return what the artifact's page shows of an export: of each form its size, its speed at one thread and its quality."""
    facts: dict[str, Any] = {"run": export.run, "margin": export.margin, "hardware": export.hardware}
    for form in export.forms:
        speed, quality = form.at(1), form.test or form.validation
        said: dict[str, Any] = {
            "size_mb": form.size_mb,
            "latency_ms_p50": speed and speed.latency_ms_p50,
            "word": quality.word,
        }
        said |= {"accuracy": quality.accuracy, "example_f1": quality.example_f1, "r2": quality.r2}
        said |= {"split": "test" if form.test else "validation"}
        facts |= {f"{form.form}.{name}": value for name, value in said.items() if value is not None}
    return facts


def _model(sweep: SweepConfig, files: Mapping[str, Path], metadata: Mapping[str, Any]) -> Model:
    name, plain = f"{sweep.name}-student", json.loads(json.dumps(metadata))
    aliases = ("best", *(() if _reserved(sweep.name) else (sweep.name,)))
    collection = _collection(sweep.tracking, name)
    return Model(name=name, files=files, metadata=plain, aliases=aliases, collection=collection)


def _reserved(alias: str) -> bool:
    """Return whether W&B itself gives an alias: `latest`, and `v0` and its like, which are versions."""
    return alias in ("best", "latest") or re.fullmatch(r"v\d+", alias) is not None


def _collection(tracking: TrackingConfig, name: str) -> str | None:
    """Return where the artifact `name` is linked: the registry's collection that the sweep names, else the one with the artifact's name."""
    if tracking.registry is None:
        return None
    registry, _, collection = tracking.registry.partition("/")
    return f"{REGISTRY}{registry.removeprefix(REGISTRY)}/{collection or name}"


def send_export(found: SweepRecords, export: Export, say: Callable[[str], None]) -> None:
    """Send an exported student to W&B, in a run of its own; do nothing unless the sweep has `tracking.log_model`.

    `say` shows the user a message. W&B's failures are said and cost nothing.
    """
    sweep = found.sweep
    if sweep.tracking.mode == "off" or not sweep.tracking.log_model:
        return
    key = read_sweep_key(found.folder)
    if key is None:
        say(f"tracking.log_model: {sweep.name} was not tracked when it ran, so W&B does not get what was exported")
        return
    numbers = [export_number(run_id) or 0 for run_id, _ in tracked_runs(found.folder)]
    label = export_label(sweep, key, max(numbers, default=0) + 1)
    model = exported_model(sweep, exports_folder(found.folder) / export.run, export)
    tracker = open_tracker(found.folder, sweep.name, sweep.tracking, resolved_mode(sweep.tracking)[0], say)
    with tracker.run(label, json.loads(json.dumps(sweep.identity()))) as run:
        run.log_model(model)
        run.summarise(model.metadata)
        if run.missing:
            say(f"tracking.log_model: W&B has no run for what was exported ({run.missing})")
