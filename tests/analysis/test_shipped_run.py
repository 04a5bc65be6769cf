"""One run is the best of a sweep, and the report, reproduce and W&B's artifact name the same one."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from makers import POINT, make_finalist, make_full, make_sweep, make_trial

from kdsweep.analysis.read_finals import read_finals
from kdsweep.analysis.shipped import shipped
from kdsweep.config.sweep import SweepConfig
from kdsweep.engine import publish
from kdsweep.errors import ResultsError
from kdsweep.records.reading import read_trial
from kdsweep.records.whole_sweep import read_records
from kdsweep.records.writing import TrialFolder, write_sweep
from kdsweep.reporting.build import build_report
from kdsweep.reproduce import find_trial
from kdsweep.tracking.tracker import Model, NullRun


class SentModels(NullRun):
    """Keeps what W&B would be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Mapping[str, Path]] = []

    def log_model(self, model: Model) -> None:
        self.sent.append(model.files)


@pytest.fixture
def overtaken(tmp_path: Path) -> Path:
    """Trial 0 is the best of the search, trial 1 the best on fresh seeds; of its seeds the second is the best."""
    folder = tmp_path / "s"
    sweep = make_full(folder)
    for seed, share in ((1, 0.90), (2, 0.97), (3, 0.90)):
        make_finalist(folder, sweep, "distilled", 0, seed, 0.70)
        make_finalist(folder, sweep, "distilled", 1, seed, share)
        make_finalist(folder, sweep, "fine_tuned", 0, seed, 0.75)
    return folder


def changed(folder: Path, **changes: Any) -> None:
    """Change the result that a trial's folder has."""
    result = read_trial(folder).result
    assert result is not None
    TrialFolder(folder).finish(replace(result, **changes))


@pytest.mark.slow
def test_report_reproduce_and_the_artifact_name_the_same_run(overtaken: Path) -> None:
    best = overtaken / "finalists" / "distilled-0001-seed2"
    (best / "student").mkdir()
    report, sent = build_report(overtaken), SentModels()
    assert report.rows[0].trial.trial == 0, "the search would have another"
    assert report.finals is not None
    publish._log_student(sent, report, pytest.fail)
    assert find_trial(overtaken).folder == best
    assert report.shipped is not None and report.shipped.folder == best
    assert (report.finals.chosen.arm, report.finals.chosen.trial) == ("distilled", 1)
    assert publish.verdict_summary(report, report.finals)["ship"] == best.name
    assert [files["student"] for files in sent.sent] == [best / "student"]
    told = dict(report.questions)["Which student to ship?"]
    assert told.startswith("Distilled 1, ") and "with seed 2" in told
    assert report.commands[0][1] == f"python -m kdsweep.reproduce {best}"


def test_of_a_configurations_runs_one_with_its_student_on_disk_is_shipped(overtaken: Path) -> None:
    (overtaken / "finalists" / "distilled-0001-seed3" / "student").mkdir()
    (overtaken / "finalists" / "distilled-0000-seed1" / "student").mkdir()
    assert find_trial(overtaken).folder.name == "distilled-0001-seed3"


@pytest.mark.slow
def test_another_configuration_is_not_shipped_because_its_student_alone_is_on_disk(overtaken: Path) -> None:
    (overtaken / "finalists" / "distilled-0000-seed1" / "student").mkdir()
    assert find_trial(overtaken).folder.name == "distilled-0001-seed2"
    assert "Its student is not on this disk." in dict(build_report(overtaken).questions)["Which student to ship?"]


@pytest.mark.slow
def test_a_run_that_breaks_a_constraint_is_not_shipped_and_its_score_does_not_count(overtaken: Path) -> None:
    changed(overtaken / "finalists" / "distilled-0001-seed2", violates=("latency_ms_p50 9 > 5",))
    assert find_trial(overtaken).folder.name in ("distilled-0001-seed1", "distilled-0001-seed3")
    for seed in (1, 3):
        changed(overtaken / "finalists" / f"distilled-0001-seed{seed}", violates=("latency_ms_p50 9 > 5",))
    assert find_trial(overtaken).folder.name.startswith("fine_tuned-0000")


@pytest.mark.slow
def test_of_equal_configurations_the_smaller_student_is_shipped(overtaken: Path) -> None:
    for place in ("distilled-0000", "distilled-0001", "fine_tuned-0000"):
        for seed in (1, 2, 3):
            size = 9 if place.startswith("fine_tuned") else 10
            changed(overtaken / "finalists" / f"{place}-seed{seed}", val_accuracy=0.8, parameters=size)
    found = read_records(overtaken)
    run, finals = shipped(found), read_finals(found)
    assert run is not None and finals is not None and run.folder.name == "fine_tuned-0000-seed1"
    assert (finals.chosen.arm, finals.chosen) == ("fine_tuned", finals.best("fine_tuned"))


def test_before_any_finalist_rank_1_of_the_search_is_shipped_by_the_metric(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s")
    write_sweep(tmp_path / "s", by_mcc(sweep))
    make_trial(tmp_path / "s", sweep, "distilled", 0, POINT, 0.9, val_mcc=0.1)
    make_trial(tmp_path / "s", sweep, "fine_tuned", 0, POINT, 0.7, val_mcc=0.5)
    best = build_report(tmp_path / "s").rows[0]
    assert best.rank == 1 and find_trial(tmp_path / "s") == best.trial == shipped(read_records(tmp_path / "s"))
    assert best.arm == "fine_tuned"


def test_a_sweep_without_a_complete_trial_has_no_best(tmp_path: Path) -> None:
    make_sweep(tmp_path / "s")
    assert shipped(read_records(tmp_path / "s")) is build_report(tmp_path / "s").shipped is None
    with pytest.raises(ResultsError, match="must have a complete trial to be reproduced"):
        find_trial(tmp_path / "s")


def by_mcc(sweep: SweepConfig) -> SweepConfig:
    return replace(sweep, study=replace(sweep.study, metric="val_mcc"))
