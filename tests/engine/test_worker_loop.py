"""A worker's own doing: what it opens and hands on."""

import gc
import io
import json
import re
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from commands import config_of, inspected
from rich.console import Console

from kdsweep.config.lengths import lengthened
from kdsweep.config.sweep import TrackingConfig
from kdsweep.config.sweep_file import load_sweep
from kdsweep.config.trial import FIELD_TYPES, TrialConfig
from kdsweep.config.trial_file import read_trial_config
from kdsweep.engine import trial_configs
from kdsweep.engine.display import SweepDisplay
from kdsweep.engine.events import Event, Note, Offline, Phase, RowsDone, TeacherStep, TrialEnded, TrialStarted
from kdsweep.engine.messages import Messages
from kdsweep.engine.worker_loop import Worker
from kdsweep.errors import KDSweepError, ModelError, ResultsError
from kdsweep.records.layout import teacher_folder
from kdsweep.records.reading import read_teacher
from kdsweep.records.schema import missing_result
from kdsweep.records.whole_sweep import read_records
from kdsweep.records.writing import TrialFolder, start_sweep
from kdsweep.reporting.build import build_report
from kdsweep.search.studies import Studies
from kdsweep.system.process import StopRequest, for_good
from kdsweep.system.wheels import cache_root
from kdsweep.tracking.audit import audit, audit_text
from kdsweep.training.fast import machine


def test_what_is_imported_for_good_is_never_looked_at_by_the_collector() -> None:
    made: list[list[object]] = []
    with for_good():
        assert not gc.isenabled()
        made.append([made])
    assert gc.isenabled() and not any(each is made[0] for each in gc.get_objects())
    with pytest.raises(ImportError), for_good():
        import kdsweep.missing  # type: ignore[import-not-found] # noqa: F401
    assert gc.isenabled()


def test_the_workers_of_a_sweep_take_the_precision_that_the_first_of_them_measured(
    tiny_sweep_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = load_sweep(tiny_sweep_file(fixed={"precision": "auto"}))
    folder = start_sweep(tmp_path / "results" / "tiny", sweep)
    for measured in ("bf16", "fp32"):
        monkeypatch.setattr(machine, "best_precision", lambda _: measured)  # noqa: B023
        worker = Worker(sweep, folder, measured, lambda event: None, StopRequest())
        assert {corner.precision for corner in worker._configs.corners()} == {"bf16"}


def test_a_duplicate_whose_worker_was_killed_before_it_told_the_study_is_told_by_the_next_one(
    tiny_sweep_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = {"temperature": None, "learning_rate": None, "alpha": {"choices": [0.5]}}
    sweep = load_sweep(tiny_sweep_file(study={"lag": 0}, fixed={"learning_rate": 1e-3}, search=search))
    told: list[Event] = []
    folder = start_sweep(tmp_path / "results" / "tiny", sweep)
    worker = Worker(sweep, folder, "me", told.append, StopRequest(), "off")
    studies = worker._studies

    def killed_now(*_: object) -> bool:
        raise KeyboardInterrupt

    first = studies.take_from("distilled")
    assert first is not None
    result = missing_result("distilled", 0, status="complete", error="", attempt=1)
    assert studies.finish(first, replace(result, val_accuracy=0.5), {})
    for killed in (True, False):
        duplicate = studies.take_from("distilled")
        assert duplicate is not None and duplicate.id.number == 1
        if killed:
            with monkeypatch.context() as before_it_tells, pytest.raises(KeyboardInterrupt):
                before_it_tells.setattr(studies, "finish_like", killed_now)
                worker._run(duplicate)
            studies.put_back(duplicate)
        else:
            worker._run(duplicate)
    assert studies.finished("distilled") == 2
    assert [event.status for event in told if isinstance(event, TrialEnded)] == ["duplicate"]


@pytest.mark.slow
def test_what_the_reader_of_the_rows_met_is_said_and_recorded(
    tiny_sweep_file: Callable[..., Path],
    tiny_body: Path,
    tiny_rows: list[tuple[str, str]],
    write_rows: Callable[..., Path],
    tmp_path: Path,
) -> None:
    conflicting = [(text, "positive") for text, label in tiny_rows if label == "negative"][:3]
    rows = write_rows("odd.csv", [*tiny_rows, *conflicting, ("", "positive"), (" ", "negative")])
    fixed = {"train_file": str(rows), "drop_empty_texts": True, "max_length": 9, "student": str(tiny_body)}
    sweep = load_sweep(tiny_sweep_file(fixed={**fixed, "student_layers": None, "student_init": None}))
    folder = start_sweep(tmp_path / "results" / "tiny", sweep)
    console = Console(record=True, width=300, file=io.StringIO())
    display = SweepDisplay(console, sweep, dict.fromkeys(sweep.stages, 0))
    Worker(sweep, folder, "me", display.show, StopRequest()).prepare()
    told, teacher = console.export_text(), read_teacher(teacher_folder(folder))
    assert teacher is not None
    assert (teacher.empty_texts_dropped, teacher.conflicting_texts) == (2, 3)
    cut, train_rows = teacher.truncated_rows["train"], teacher.train_rows
    assert 0.05 * train_rows < cut < train_rows and set(teacher.truncated_rows) == {"train", "validation"}
    assert "; 2 rows with an empty text left out; 3 texts with two labels or more" in told
    for who in ("the teacher", "the student"):
        line = rf"9 cuts {cut} of {train_rows} train [^;\n]*? for {who}"
        assert re.search(rf"^max_length {line}: what stands behind is not read", told, re.MULTILINE)
        assert re.search(rf"^  max_length  .*{line}", told, re.MULTILINE)
    provenance = dict(build_report(folder).provenance)
    assert provenance["empty texts"] == "2 rows left out"
    assert provenance["two labels or more"].startswith("3 texts")
    assert provenance["cut by max_length"].startswith(f"{cut} of {train_rows} train")


@pytest.mark.parametrize("stopping", [False, True])
def test_a_worker_that_is_asked_to_stop_does_not_complain_of_the_client_that_is_stopped_with_it(
    stopping: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, events = StopRequest(), list[Event]()
    monkeypatch.setattr(time, "sleep", lambda _: setattr(stop, "requested", stopping))
    Messages(events.append, stop).offline("W&B is in trouble")
    assert events == ([] if stopping else [Offline("W&B is in trouble")])


@pytest.mark.slow
def test_finalists_train_longer_as_their_records_say(tiny_sweep_file: Callable[..., Path], tmp_path: Path) -> None:
    length = {"epochs": None, "max_steps": 8, "evaluations": 1}
    finalists = {"top": 1, "seeds": 1, "epochs_factor": 3}
    path = tiny_sweep_file(study={"trials": 1, "controls": 0}, finalists=finalists, fixed=length)
    sweep, events = load_sweep(path), list[Event]()
    folder = start_sweep(tmp_path / "results" / "tiny", sweep)
    worker = Worker(sweep, folder, "me", events.append, StopRequest())
    worker.prepare()
    worker.work()
    found = read_records(folder)
    for run, trial in zip(found.finalists, found.trials, strict=True):
        assert run.result is not None and trial.result is not None
        assert run.config == replace(lengthened(trial.config, 3), seed=1)
        assert (trial.result.epochs, run.result.epochs) == (1, 3)
        assert run.result.steps == 3 * trial.result.steps
        assert [epoch.step for epoch in run.epochs] == [trial.result.steps * n for n in (1, 2, 3)]
    assert [event.evaluations for event in events if isinstance(event, TrialStarted)] == [1, 3]


@pytest.mark.slow
def test_runs_that_w_and_b_cannot_open_are_said_recorded_and_gaps_of_the_audit(
    tiny_sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    sweep = load_sweep(tiny_sweep_file(study={"trials": 1}))
    sweep = replace(
        sweep, tracking=TrackingConfig(project="team/proj", mode="offline")
    )  # which no file may say any more
    folder, events = start_sweep(tmp_path / "results" / "tiny", sweep), list[Event]()
    worker = Worker(sweep, folder, "me", events.append, StopRequest())
    worker.prepare()
    worker.work()
    said = [event.text for event in events if isinstance(event, Phase | Note | Offline)]
    missing = [text for text in said if text.startswith("W&B has no run of ")]
    assert [text.removeprefix("W&B has no run of ").split(" ")[0] for text in missing] == ["teacher", "d0", "f0"]
    assert all("Invalid project name 'team/proj'" in text and "nothing to sync" in text for text in missing)
    assert not any("offline" in text for text in said)
    done = audit(folder)
    assert [finding.what for finding in done.findings] == ["teacher", "distilled trial 0", "fine-tuned trial 0"]
    assert done.gaps() == 3 and audit_text(done).endswith("0 runs, 3 gaps")
    assert "W&B could open no run, not even offline" in audit_text(done)
    assert "wandb" not in "".join(text for _, text in build_report(folder).commands)


def test_relations_that_some_trial_could_not_have_are_refused_before_the_teacher(
    tiny_sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    heads: dict[str, Any] = {"relation_weight": {"low": 0.0, "high": 1.0}, "relation_heads": {"choices": [4, 12]}}
    when = {"relation_weight": {"choices": [0.0, 1.0]}}
    when["relation_heads"] = {"choices": [4, 8], "when": {"relation_weight": [1.0]}}
    refused, able = (
        Worker(sweep, start_sweep(tmp_path / "results" / sweep.name, sweep), "me", lambda _: None, StopRequest())
        for sweep in (
            load_sweep(tiny_sweep_file(name, search=search)) for name, search in (("refused", heads), ("able", when))
        )
    )
    with pytest.raises(ModelError, match=r"width 32 and the student's 32, but got 12; these do: 1, 2, 4"):
        refused.prepare()
    assert read_teacher(teacher_folder(tmp_path / "results" / "refused")) is None
    asked = {(corner.relation_weight, corner.relation_heads) for corner in able._configs.corners()}
    assert asked == {(0.0, 12), (1.0, 4), (1.0, 8)}


def test_the_teachers_threads_are_those_of_the_worker_that_began_the_sweep(
    tiny_sweep_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = load_sweep(tiny_sweep_file(fixed={"teacher_threads": "auto", "threads": "auto"}))
    folder = start_sweep(tmp_path / "results" / "tiny", sweep)
    for cores in (6, 2):
        monkeypatch.setattr(trial_configs, "available_cores", lambda: cores)  # noqa: B023
        worker = Worker(sweep, folder, str(cores), lambda event: None, StopRequest())
        assert {corner.teacher_threads for corner in worker._configs.corners()} == {6}


def test_a_sweep_that_an_older_version_began_keeps_its_teachers_threads(
    tiny_sweep_file: Callable[..., Path], tiny_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    sweep = load_sweep(tiny_sweep_file(fixed={"teacher_threads": "auto", "threads": 1}))
    folder = start_sweep(tmp_path / "results" / "tiny", sweep)
    TrialFolder(teacher_folder(folder)).start(tiny_config(teacher_threads=2))  # all cores, whatever threads said
    worker = Worker(sweep, folder, "newer", lambda event: None, StopRequest())
    assert {(corner.teacher_threads, corner.threads) for corner in worker._configs.corners()} == {(2, 1)}


def test_a_teacher_that_the_sweeps_trials_did_not_meet_leaves_no_record(
    tiny_sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    sweep = load_sweep(tiny_sweep_file())
    folder = start_sweep(tmp_path / "results" / "tiny", sweep)
    Studies(sweep, folder, "first", lambda _: None).agreements.agree({"teacher weights": "other", "rows": "other"})
    with pytest.raises(ResultsError, match="must meet the same teacher and rows"):
        Worker(sweep, folder, "second", lambda event: None, StopRequest()).prepare()
    assert not (folder / "teacher").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 500}, "batch_size <= training rows must hold, but got 500 and 72 rows"),
        ({"max_length": 128}, "max_length <= 64 .* must hold, but got 128, and a row of 7"),
    ],
)
def test_what_a_sweep_refuses_is_refused_before_its_teacher_is_fine_tuned(
    changes: dict[str, int],
    message: str,
    tiny_sweep_file: Callable[..., Path],
    tiny_body: Path,
    write_rows: Callable[..., Path],
    tiny_rows: list[tuple[str, str]],
    tmp_path: Path,
) -> None:
    train = write_rows("train.csv", tiny_rows)
    test = write_rows("test.csv", [("film " * 68, "positive"), ("dull " * 3, "negative")])
    fixed = {
        "teacher": str(tiny_body),
        "teacher_epochs": 1,
        "train_file": str(train),
        "test_file": str(test),
        **changes,
    }
    sweep = load_sweep(tiny_sweep_file(fixed=fixed, finalists={"top": 1}))
    folder = start_sweep(tmp_path / "results" / "tiny", sweep)
    with pytest.raises(KDSweepError, match=message):
        Worker(sweep, folder, "me", lambda event: None, StopRequest()).prepare()
    assert not (cache_root() / "teachers").exists() and not teacher_folder(folder).exists()


@pytest.mark.slow
def test_a_worker_says_what_it_goes_on_with_all_the_same(
    tiny_sweep_file: Callable[..., Path], tiny_body: Path, tmp_path: Path
) -> None:
    events: list[Event] = []
    path = tiny_sweep_file(fixed={"teacher": str(tiny_body)}, study={"accept_weak_teacher": True})
    sweep, refusing = load_sweep(path), load_sweep(path, ["study.accept_weak_teacher=false"])
    assert sweep.identity() == refusing.identity()
    folder = start_sweep(tmp_path / "results" / "tiny", sweep)
    with pytest.raises(KDSweepError, match="it has nothing to teach"):
        Worker(refusing, folder, "me", events.append, StopRequest()).prepare()
    Worker(sweep, folder, "me", events.append, StopRequest()).prepare()
    told = [event.text for event in events if isinstance(event, Note)]
    assert len(told) == 1 and "this teacher is taken: the teacher must close 4%" in told[0]


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [6, 0])
def test_the_teachers_run_has_the_config_that_stands_in_its_folder(
    epochs: int, tiny_sweep_file: Callable[..., Path], tiny_body: Path, tiny_classifier: Path, tmp_path: Path
) -> None:
    fixed = {"teacher": str(tiny_body if epochs else tiny_classifier), "teacher_epochs": epochs}
    fixed |= {"teacher_learning_rate": 3e-3, "teacher_batch_size": 8}
    sweep = load_sweep(tiny_sweep_file(fixed=fixed, tracking={"mode": "offline"}))
    folder = start_sweep(tmp_path / "results" / "tiny", sweep)
    events: list[Event] = []
    Worker(sweep, folder, "me", events.append, StopRequest()).prepare()
    steps = [(event.step, event.steps) for event in events if isinstance(event, TeacherStep)]
    assert steps[-1:] == (
        [(54, 54)] if epochs else []
    )  # 72 rows, 8 a step: what a display says the teacher still takes
    written = read_trial_config(teacher_folder(folder) / "config.yaml")
    (path,) = (folder / "wandb").glob("offline-run-*-teacher-*/*.wandb")
    tracked = config_of(inspected(path))
    assert {name: tracked[name] for name in FIELD_TYPES} == json.loads(json.dumps(asdict(written)))
    if epochs:
        assert (written.alpha, written.epochs, written.learning_rate, written.batch_size) == (0.0, 6, 3e-3, 8)


@pytest.mark.slow
def test_texts_without_labels_are_prepared_said_and_recorded(
    tiny_sweep_file: Callable[..., Path],
    tmp_path: Path,
    write_rows: Callable[..., Path],
    tiny_rows: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kdsweep.training.data.progress.TOLD_SECONDS", 0.0)
    known = tiny_rows[0][0]
    new = [
        f"the film was {word}"
        for word in ("really great", "so very dull", "not so funny", "quite weak", "clever yet empty")
    ]
    texts = write_rows("texts.csv", [{"text": text} for text in (*new, new[0], known, "")])
    sweep = load_sweep(
        tiny_sweep_file(fixed={"unlabeled_file": str(texts)}, study={"trials": 1, "controls": 0, "sampler": "random"})
    )
    folder, events = start_sweep(tmp_path / "results" / "tiny", sweep), list[Event]()
    console = Console(record=True, width=300, file=io.StringIO())
    display = SweepDisplay(console, sweep, dict.fromkeys(sweep.stages, 0))
    show: Callable[[Event], None] = lambda event: (events.append(event), display.show(event))  # type: ignore[func-returns-value]
    worker = Worker(sweep, folder, "me", show, StopRequest())
    worker.prepare()
    worker.work()
    told = console.export_text()
    phases = [event.text for event in events if isinstance(event, Phase)]
    assert "reading the texts without labels" in phases and "preparing the texts without labels" in phases
    done = {event.what: event.done for event in events if isinstance(event, RowsDone) and event.unit == "texts"}
    assert done == {"tokens": 5, "the teacher's logits": 5}
    counts = "5 texts; left out: 1 empty, 1 given twice, 1 of "
    assert re.search(rf"^  without labels +{counts}", told, re.MULTILINE)
    assert dict(build_report(folder).provenance)["texts without labels"].startswith(counts)
    later, again = Worker(sweep, folder, "later", events.append, StopRequest(), "off"), len(events)
    later.prepare()
    assert len(events) == again  # another worker tells nothing of it
    texts.write_text("text\nsomething else\n")
    with pytest.raises(ResultsError, match="texts without labels: "):
        Worker(sweep, folder, "other", events.append, StopRequest(), "off").prepare()
