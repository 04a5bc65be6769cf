"""The student becomes a version of the sweep's model artifact: only where the file says so, with aliases, linked where a registry is named."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import inspected
from exports import an_export
from makers import make_full, sweep_of
from servers import WandbServer

from kdsweep.analysis.shipped import shipped
from kdsweep.config.sweep import SweepConfig, TrackingConfig
from kdsweep.config.trial_file import trial_yaml
from kdsweep.export import _send
from kdsweep.records.layout import exports_folder, run_name, teacher_folder
from kdsweep.records.whole_sweep import read_records
from kdsweep.records.writing import keep_sweep_key, write_export, write_sweep
from kdsweep.tracking.artifacts import export_facts, exported_model, send_export, trained_model
from kdsweep.tracking.audit import audit
from kdsweep.tracking.names import tracked_runs

KEY = "k3x9qz"


def tracked(**options: Any) -> SweepConfig:
    return replace(sweep_of(), tracking=TrackingConfig(**{"mode": "offline", "log_model": True, **options}))


def make_exported(folder: Path, **options: Any) -> Path:
    """A sweep's results with the folder of an exported student."""
    write_sweep(folder, replace(make_full(folder), tracking=tracked(**options).tracking))
    there = exports_folder(folder) / an_export().run
    for name in ("config.json", "model.safetensors", "onnx/model_int8.onnx", "README.md"):
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_text(name, encoding="utf-8")
    write_export(there, an_export())
    config = trial_yaml(read_records(folder).trials[0].config)
    (teacher_folder(folder) / "config.yaml").write_text(config, encoding="utf-8")  # an audit reads it
    return folder


def test_an_artifact_has_the_sweeps_aliases_and_facts(tmp_path: Path) -> None:
    model = exported_model(tracked(), tmp_path / "x", an_export())
    assert (model.name, model.aliases, model.files) == ("s-student", ("best", "s"), {".": tmp_path / "x"})
    assert model.collection is None and model.metadata["run"] == "distilled-0007-seed1"
    facts = export_facts(an_export())
    assert (facts["int8.size_mb"], facts["int8.latency_ms_p50"], facts["int8.word"]) == (17.8, 2.25, "no worse")
    assert (facts["int8.split"], facts["int8.accuracy"]) == ("test", 0.869) and "pytorch.word" not in facts
    trained = trained_model(tracked(), tmp_path / "0007", {"layers": (0, 2)})
    assert trained.files["student"] == tmp_path / "0007" / "student" and trained.metadata["layers"] == [0, 2]


@pytest.mark.parametrize("name", ["latest", "best", "v3"])
def test_a_sweeps_name_that_w_and_b_gives_itself_is_no_alias(name: str, tmp_path: Path) -> None:
    assert trained_model(replace(tracked(), name=name), tmp_path, {}).aliases == ("best",)


@pytest.mark.parametrize(
    ("registry", "collection"),
    [
        ("model", "wandb-registry-model/s-student"),
        ("wandb-registry-model", "wandb-registry-model/s-student"),
        ("model/reviews", "wandb-registry-model/reviews"),
    ],
)
def test_a_registry_is_named_with_or_without_a_collection(registry: str, collection: str, tmp_path: Path) -> None:
    assert trained_model(tracked(registry=registry), tmp_path, {}).collection == collection


@pytest.mark.slow
def test_nothing_is_sent_unless_the_file_says_so(tmp_path: Path) -> None:
    for options in ({"log_model": False}, {"mode": "off"}):
        said: list[str] = []
        folder = make_exported(tmp_path / str(len(list(tmp_path.iterdir()))), **options)
        keep_sweep_key(folder, KEY)
        send_export(read_records(folder), an_export(), said.append)
        assert said == [] and not (folder / "wandb").exists()
    folder = make_exported(tmp_path / "untracked")
    send_export(read_records(folder), an_export(), said.append)
    assert len(said) == 1 and "was not tracked" in said[0]


def test_the_export_command_sends_the_run_to_ship_where_it_was_made_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_exported(tmp_path / "s")
    found = read_records(folder)
    best = shipped(found)
    assert best is not None
    export = an_export(run=run_name(best.id))
    _send(found, {})  # another run is exported
    assert capsys.readouterr().out == ""
    there = exports_folder(folder) / export.run
    there.mkdir()
    write_export(there, export)
    _send(found, {export.run: export.made_at})
    assert capsys.readouterr().out == ""
    _send(found, {export.run: "2026-01-01"})
    assert "was not tracked" in capsys.readouterr().out


@pytest.mark.slow
def test_an_exported_student_is_sent_whole_and_again_as_another_version(tmp_path: Path) -> None:
    folder, said = make_exported(tmp_path / "s", registry="model"), list[str]()
    keep_sweep_key(folder, KEY)
    for _ in range(2):
        send_export(read_records(folder), an_export(), said.append)
    runs = dict(tracked_runs(folder))
    assert set(runs) == {f"export-{KEY}", f"export-2-{KEY}"}
    (artifact,) = [r["artifact"] for r in inspected(runs[f"export-{KEY}"]) if r["type"] == "artifact"]
    kept = {entry["path"] for entry in artifact["manifest"]["contents"]}
    assert kept == {"config.json", "model.safetensors", "onnx/model_int8.onnx", "README.md", "export.json"}
    assert (artifact["name"], set(artifact["aliases"])) == ("s-student", {"best", "latest", "s"})
    assert len(said) == 2 and "is not linked to wandb-registry-model/s-student" in said[0]
    found = [each for each in audit(folder).findings if each.run_id in runs]
    assert [(each.what, each.gaps) for each in found] == [("export", ())] * 2


@pytest.mark.slow
def test_an_artifact_is_linked_to_the_registry_and_a_registry_that_fails_costs_a_warning(
    tmp_path: Path, wandb_server: WandbServer
) -> None:
    folder, said = make_exported(tmp_path / "s", registry="model/reviews", mode="online"), list[str]()
    keep_sweep_key(folder, KEY)
    send_export(read_records(folder), an_export(), said.append)
    (asked,) = [
        json.loads(body)["variables"]["input"] for body in wandb_server.received if b"mutation LinkArtifact" in body
    ]
    assert (asked["projectName"], asked["artifactPortfolioName"]) == ("wandb-registry-model", "reviews")
    assert {each["alias"] for each in asked["aliases"]} == {"best", "s"} and said == []
    wandb_server.refused = "LinkArtifact"
    send_export(read_records(folder), an_export(), said.append)
    assert len(said) == 1 and "W&B did not link the model to wandb-registry-model/reviews" in said[0]
