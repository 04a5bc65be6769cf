"""What a student costs against `study.constraints`, in the form that they mean."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import command

from kdsweep import worker
from kdsweep.config.forms import OnnxForm
from kdsweep.config.sweep_file import load_sweep
from kdsweep.config.trial import TrialConfig
from kdsweep.engine.events import Event, Phase
from kdsweep.engine.limits import Limits
from kdsweep.engine.worker_loop import Worker
from kdsweep.errors import ConfigError, ShippingError
from kdsweep.records.writing import start_sweep
from kdsweep.search.studies import Studies
from kdsweep.shipping import extra
from kdsweep.system.process import StopRequest
from kdsweep.training.shared import Materials

WriteSweep = Callable[..., Path]


class Exporter:
    """Stands for the exporter: knows what a form costs, and counts how often it is asked."""

    def __init__(self, latency_ms: float = 4.0, size_mb: float = 17.8) -> None:
        self.costs, self.asked = {"latency_ms_p50": latency_ms, "size_mb": size_mb}, list[tuple[object, str]]()

    def __call__(self, materials: Materials, config: TrialConfig, form: OnnxForm) -> dict[str, float]:
        self.asked.append((config.student_layers, form))
        return dict(self.costs)


def limits_of(path: Path, folder: Path, materials: Materials, exporter: Any, **limits: Any) -> Limits:
    sweep = load_sweep(path, [f"study.constraints.{name}={value}" for name, value in limits.items()])
    return Limits(sweep, Studies(sweep, start_sweep(folder, sweep)).agreements, materials, exporter)


def test_what_an_exported_form_costs_is_measured_once_for_all_workers_and_told_with_its_form(
    tiny_sweep_file: WriteSweep, tiny_config: Callable[..., TrialConfig], materials: Materials, memory: Path
) -> None:
    path, first, later = tiny_sweep_file(), Exporter(), Exporter(latency_ms=9.0)
    asked = {"latency_ms_p50": 3, "size_mb": 20, "form": "int8"}
    for exporter in (first, later):
        limits = limits_of(path, memory / "s", materials, exporter, **asked)
        for seed in (0, 1):
            costs = limits.costs(tiny_config(seed=seed))
            assert (costs.form, costs.values) == ("int8", {"latency_ms_p50": 4.0, "size_mb": 17.8})
            assert costs.excess == {"latency_ms_p50": 1.0, "size_mb": pytest.approx(-2.2)}
            assert costs.violates == ("latency_ms_p50 4 > 3 as int8",)
    assert len(first.asked) == 1 and later.asked == []
    other = limits.costs(tiny_config(student_layers=1))
    assert other.values["latency_ms_p50"] == 9.0 and len(later.asked) == 1


def test_without_a_form_the_student_is_meant_as_it_is_trained(
    tiny_sweep_file: WriteSweep, tiny_config: Callable[..., TrialConfig], materials: Materials, memory: Path
) -> None:
    exporter = Exporter()
    costs = limits_of(tiny_sweep_file(), memory / "s", materials, exporter, size_mb=0.001).costs(tiny_config())
    assert costs.form is None and set(costs.values) == {"size_mb"} and exporter.asked == []
    assert costs.violates == (f"size_mb {costs.values['size_mb']:.3g} > 0.001",)
    free = limits_of(tiny_sweep_file("free"), memory / "free", materials, exporter).costs(tiny_config())
    assert (free.values, free.violates) == ({}, ())


def test_a_worker_that_cannot_export_says_so(
    tiny_sweep_file: WriteSweep, tiny_config: Callable[..., TrialConfig], materials: Materials, memory: Path
) -> None:
    sweep = load_sweep(tiny_sweep_file(), ["study.constraints={size_mb: 1, form: fp32}"])
    limits = Limits(sweep, Studies(sweep, start_sweep(memory / "s", sweep)).agreements, materials)
    with pytest.raises(ConfigError, match=r"study.constraints.form fp32 needs a worker that can export"):
        limits.costs(tiny_config())


@pytest.mark.slow
def test_every_size_of_student_is_exported_before_the_first_trial(tiny_sweep_file: WriteSweep, tmp_path: Path) -> None:
    search, fixed = {"student_layers": {"choices": [1, 2]}}, {"student_layers": None}
    path = tiny_sweep_file(search=search, fixed=fixed, study={"constraints": {"size_mb": 1, "form": "int8"}})
    sweep, exporter, told = load_sweep(path), Exporter(), list[Event]()
    folder = start_sweep(tmp_path / "results" / "tiny", sweep)
    Worker(sweep, folder, "me", told.append, StopRequest(), measure_form=exporter).prepare()
    assert sorted(exporter.asked) == [(1, "int8"), (2, "int8")]
    assert "exporting the untrained students, to measure them as int8" in [e.text for e in told if isinstance(e, Phase)]


def test_without_the_extra_a_form_is_refused_before_anything_is_read(
    tiny_sweep_file: WriteSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extra, "find_spec", lambda name: None)
    path = tiny_sweep_file()
    for free in ([], ["study.constraints.size_mb=1"]):
        worker._measured_form(load_sweep(path, free))
    with pytest.raises(ShippingError, match=r"^exported students need onnx, .*: pip install 'kdsweep\[export\]'$"):
        worker._measured_form(load_sweep(path, ["study.constraints={size_mb: 1, form: int8}"]))


@pytest.mark.slow
def test_a_sweep_whose_constraints_mean_int8_ranks_by_what_int8_needs(
    tiny_sweep_file: WriteSweep, tmp_path: Path
) -> None:
    """One layer: 0.056 MB in PyTorch, 0.030 in int8; two: 0.092 and 0.049."""
    limits = {"latency_ms_p50": 1000, "size_mb": 0.04, "form": "int8"}
    study = {"trials": 6, "controls": 0, "startup_trials": 10, "constraints": limits}
    search = {"student_layers": {"choices": [1, 2]}}
    path = tiny_sweep_file(search=search, fixed={"student_layers": None, "epochs": 1}, study=study)
    done = command("run", path)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "as int8, measured before it was trained" in said and "> 0.04 as int8" in said
    rows = json.loads((tmp_path / "results" / "tiny" / "leaderboard.json").read_text())["trials"]
    assert {row["student_layers"] for row in rows if row["rank"]} == {1}
    infeasible = [row for row in rows if row["status"] == "infeasible"]
    assert infeasible and all(row["student_layers"] == 2 and "as int8" in row["reason"] for row in infeasible)
    ran = [row for row in rows if row["size_mb"]]
    assert all(row["limited_form"] == "int8" and row["limited_size_mb"] < row["size_mb"] for row in ran)
    other = command("run", path, "study.constraints.form=fp32")
    assert other.returncode == 2 and "study.constraints.form: int8, now fp32" in other.stderr
