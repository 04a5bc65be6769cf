"""View and report are saved once the verdict is there, updated and never made twice; a failure is one warning and costs nothing."""

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from makers import make_finals
from rich.console import Console
from servers import WandbServer

from kdsweep.config.sweep import TrackingConfig
from kdsweep.engine.pages import sections, show_pages
from kdsweep.engine.publish import publish
from kdsweep.engine.sweep import _publish
from kdsweep.publish import main
from kdsweep.records.reading import read_pages, read_trials
from kdsweep.records.schema import Pages
from kdsweep.records.writing import TrialFolder, keep_sweep_key, write_sweep
from kdsweep.reporting.build import build_report
from kdsweep.tracking.open import lacks_package

KEY = "k3x9qz"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a tracked sweep with `tracking.workspace`, whose finalists are done."""
    return tracked(tmp_path / "s")


class FakeStudies:
    """The studies of a sweep whose key is drawn."""

    @property
    def agreements(self) -> "FakeStudies":
        return self

    def sweep_key(self) -> str:
        return KEY


@pytest.fixture(scope="module")
def read_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, for tests that save nothing."""
    return tracked(tmp_path_factory.mktemp("shown") / "s")


def tracked(folder: Path) -> Path:
    sweep = make_finals(folder, 0.85, 0.80)
    write_sweep(folder, replace(sweep, tracking=replace(sweep.tracking, workspace=True)))
    keep_sweep_key(folder, KEY)
    for run in read_trials(folder, "finalists"):
        assert run.result is not None
        run_id = f"{run.arm[0]}{run.trial}s{run.finalist_seed}-a1-{KEY}"
        TrialFolder(run.folder).finish(replace(run.result, run_id=run_id))
    return folder


def shown(folder: Path) -> tuple[Pages | None, list[str]]:
    said: list[str] = []
    report = build_report(folder)
    assert report.finals is not None
    return show_pages(report, report.finals, said.append), said


def told(folder: Path, mode: Any, *, again: bool = False) -> tuple[bool, list[str]]:
    said: list[str] = []
    report = build_report(folder)
    assert report.finals is not None
    return publish(report, report.finals, KEY, mode, said.append, again=again), said


def spec_of(server: WandbServer, kind: str) -> dict[str, Any]:
    (view,) = [view for view in server.views.values() if view["type"] == kind]
    spec: dict[str, Any] = json.loads(view["spec"])
    return spec


@pytest.mark.slow
def test_the_report_in_words_has_all_but_what_tells_of_this_machine(read_only: Path) -> None:
    told = dict(sections(build_report(read_only)))
    assert list(told)[:3] == ["Verdict", "Finalists", "Leaderboard"]
    assert told["Verdict"].startswith("**Distilling beat plain fine-tuning") and "| rank |" in told["Finalists"]
    text = "\n".join(told.values())
    assert list(told)[-1] == "Next" and "a processor" not in text and "device name" not in text


def test_without_the_package_one_line_says_how_to_install_it(read_only: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("kdsweep.tracking.pages", "kdsweep.tracking.workspace"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    pages, (said,) = shown(read_only)
    assert pages is None and read_pages(read_only) is None
    assert "pip install 'kdsweep[workspace]'" in said and f"python -m kdsweep.publish {read_only}" in said


def test_a_missing_package_is_said_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lacks_package(TrackingConfig(workspace=True)) is None
    monkeypatch.setattr("kdsweep.tracking.open.find_spec", lambda name: None)
    assert "pip install 'kdsweep[workspace]'" in str(lacks_package(TrackingConfig(workspace=True)))
    assert lacks_package(TrackingConfig()) is lacks_package(TrackingConfig(workspace=True, mode="off")) is None


def test_any_failure_is_one_line(read_only: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Pages:
        raise KeyError("a name that the package no longer has\n" * 9)

    monkeypatch.setattr("kdsweep.tracking.pages.save_pages", fail)
    pages, (said,) = shown(read_only)
    assert pages is None and "KeyError" in said and "tries again" in said and "\n" not in said


@pytest.mark.slow
def test_view_and_report_are_updated_and_never_made_twice(tmp_path: Path, wandb_server: WandbServer) -> None:
    first, second = tracked(tmp_path / "first"), tracked(tmp_path / "second")
    pages, said = shown(first)
    assert pages == read_pages(first) and said == [] and len(wandb_server.views) == 2
    assert pages and pages.view_url == f"{wandb_server.url}/entity/kdsweep?nw=kdsweepview"
    assert shown(first) == (pages, []) and len(wandb_server.views) == 2
    (runs,) = spec_of(wandb_server, "project-view")["section"]["runSets"]
    assert runs["filters"]["filters"][0]["value"] == "first" and len(runs["pinnedRunIds"]) == 12
    texts = [block["content"] for block in spec_of(wandb_server, "runs")["blocks"] if block["type"] == "markdown-block"]
    assert texts[0].startswith("**Distilling beat") and any("| distilled 0" in text for text in texts)

    others, said = shown(second)  # of the same project: the view is its own now, the report a new one
    assert said == [] and others and others.view_url == pages.view_url and others.report_id != pages.report_id
    assert len(wandb_server.views) == 3
    del wandb_server.views[pages.report_id]  # somebody did so in the app
    assert shown(first)[0] != pages and len(wandb_server.views) == 3


@pytest.mark.slow
def test_a_server_that_fails_costs_one_warning_and_keeps_the_addresses(
    folder: Path, wandb_server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdsweep.tracking.pages.SERVER_SECONDS", 2)
    pages, _ = shown(folder)
    wandb_server.break_down()
    failed, (said,) = shown(folder)
    assert failed is None and "no new view and report" in said and "\n" not in said
    assert read_pages(folder) == pages is not None


@pytest.mark.slow
def test_a_sweep_that_ends_online_has_its_pages_and_its_runs_lead_to_them(
    folder: Path, wandb_server: WandbServer
) -> None:
    assert told(folder, "online") == (True, [])
    pages = read_pages(folder)
    assert pages and len(wandb_server.views) == 2
    updates = [json.loads(body)["variables"] for body in wandb_server.received if b"UpsertBucket(" in body]
    notes = [asked["notes"] for asked in updates if pages.report_url in (asked.get("notes") or "")]
    assert len(notes) == 12 + 1 and all(text.startswith("What it is.\n\n[Report](") for text in notes)
    asked, shown = wandb_server.requests, io.StringIO()
    _publish(build_report(folder), FakeStudies(), "online", Console(file=shown, width=200))  # type: ignore[arg-type]
    assert pages.report_url in shown.getvalue() and pages.view_url in shown.getvalue()
    assert told(folder, "online") == (True, []) and wandb_server.requests == asked
    assert told(folder, "online", again=True) == (True, []) and len(wandb_server.views) == 2


@pytest.mark.slow
def test_an_offline_sweep_is_published_once_its_runs_are_synced(
    folder: Path, wandb_server: WandbServer, capsys: pytest.CaptureFixture[str]
) -> None:
    done, (said,) = told(folder, "offline")
    assert not done and "after wandb sync, python -m kdsweep.publish" in said and read_pages(folder) is None
    assert main([str(folder)]) == 0
    pages, printed = read_pages(folder), capsys.readouterr()
    assert pages and printed.out == f"view:   {pages.view_url}\nreport: {pages.report_url}\n"
    assert main([str(folder)]) == 0 and len(wandb_server.views) == 2
    ranked = [body for body in wandb_server.received if b"confirmed_score" in body]
    assert len(ranked) == 2 * 12


@pytest.mark.slow
def test_what_cannot_be_published_is_refused(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdsweep.tracking.open.resolved_mode", lambda _: ("offline", "no W&B key is configured"))
    assert main([str(folder)]) == 2 and "no W&B key is configured" in capsys.readouterr().err
    (folder / "sweep_key").unlink()
    assert main([str(folder)]) == 2 and "sweep_key" in capsys.readouterr().err
    assert main([str(tmp_path / "nothing")]) == 2 and "sweep.yaml" in capsys.readouterr().err
    for run in read_trials(folder, "finalists"):
        (run.folder / "result.json").unlink()
    assert main([str(folder)]) == 2 and "no finalist" in capsys.readouterr().err
