"""The report tells what the records say, whatever state the sweep is in, and lets no text from data become markup."""

import csv
import json
import re
import shutil
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers import (
    AXES,
    ENVIRONMENT,
    POINT,
    ROWS,
    make_full,
    make_predictions,
    make_sweep,
    make_teacher,
    make_trial,
    page_of,
    row_of,
    sweep_of,
)

from kdsweep import report
from kdsweep.analysis import leaderboard
from kdsweep.config.arms import PRIMARY
from kdsweep.config.axis import Axis
from kdsweep.config.sweep import FinalistsConfig
from kdsweep.config.yaml import plain_values
from kdsweep.records.layout import TrialId, teacher_folder, trial_folder
from kdsweep.records.reading import read_trial
from kdsweep.records.whole_sweep import SweepRecords, read_records
from kdsweep.records.writing import TrialFolder, write_sweep
from kdsweep.reporting import page, write
from kdsweep.reporting.answers import conventions
from kdsweep.reporting.build import build_report
from kdsweep.reporting.figures import style
from kdsweep.reporting.markdown import render_markdown, terminal_text


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `make_full` leaves it, for tests that only read."""
    folder = tmp_path_factory.mktemp("results") / "s"
    make_full(folder)
    return folder


@pytest.fixture
def copied(full: Path, tmp_path: Path) -> Path:
    """The same for a test that changes it: `s` in its own folder."""
    return shutil.copytree(full, tmp_path / "s")


@pytest.fixture(scope="module")
def written(full: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with its report written, for tests that only read."""
    folder = shutil.copytree(full, tmp_path_factory.mktemp("written") / "s")
    write.write_report(folder)
    return folder


def test_a_cell_is_empty_where_a_field_was_not_searched() -> None:
    search = {"temperature": Axis(low=1.0, high=8.0, when={"soft_loss": ("kl",)})}
    sweep = sweep_of({**search, "soft_loss": Axis(choices=("kl", "mse"))})
    points = ({"soft_loss": "kl", "temperature": 4.0}, {"soft_loss": "mse"})
    trials = tuple(row_of(sweep, "distilled", n, point, 0.9 - 0.1 * n) for n, point in enumerate(points))
    rows = leaderboard.leaderboard(SweepRecords(folder=Path("s"), sweep=sweep, teacher=None, trials=trials))
    assert [row.searched["temperature"] for row in rows] == [4.0, None]
    table = csv.DictReader(leaderboard.leaderboard_csv(rows, tuple(sweep.search)).splitlines())
    assert [line["temperature"] for line in table] == ["4.0", ""]


def test_complete_trials_are_ranked_together_by_val_accuracy_and_the_others_follow_without_rank(full: Path) -> None:
    rows = build_report(full).rows
    assert [(row.rank, row.arm, row.trial.trial) for row in rows[:4]] == [
        (1, "distilled", 0),
        (2, "fine_tuned", 0),
        (3, "fine_tuned", 1),
        (4, "distilled", 1),
    ]
    assert [(row.rank, row.status, row.reason) for row in rows[4:]] == [
        (None, "pruned", "below the median at epoch 1"),
        (None, "failed", "a nan"),
        (None, "unfinished", "running or cut off, 2 of 3 epochs done"),
    ]


def test_ties_go_to_fewer_parameters_then_to_the_lower_trial_number(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s")
    for trial, parameters in enumerate((9, 5, 5)):
        point = {"temperature": 2.0, "alpha": 0.5, "learning_rate": 1e-4, "batch_size": 32}
        make_trial(tmp_path / "s", sweep, "distilled", trial, point, 0.8, parameters=parameters)
    rows = build_report(tmp_path / "s").rows
    assert [row.trial.trial for row in rows] == [1, 2, 0]


def test_the_fine_tuned_arm_shows_the_alpha_and_temperature_that_it_ran_with(full: Path) -> None:
    best = build_report(full).bests["fine_tuned"]
    assert best and best.searched == {"temperature": 1.0, "alpha": 0.0, "learning_rate": 2e-4, "batch_size": 32}


@pytest.mark.parametrize(
    ("gain", "word"),
    [(20, "better"), (-20, "not better"), (3, "cannot tell")],
)
def test_the_answer_is_the_paired_test_of_both_best_trials_whose_one_seed_cannot_tell(
    tmp_path: Path, gain: int, word: str
) -> None:
    make_full(tmp_path / "s", gain=gain)
    built = build_report(tmp_path / "s")
    assert built.comparison and built.comparison.word == word
    assert (built.comparison.gains, built.comparison.losses) == (max(gain, 0), max(-gain, 0))
    assert built.verdict and (built.verdict.word, built.verdict.one_seed) == ("cannot tell", True)
    assert built.headline == "A single seed cannot tell whether distilling beats plain fine-tuning"
    assert "two runs of one seed each, which cannot tell luck from recipe (finalists on fresh seeds" in built.answer
    assert built.answer.count(": cannot tell.") == 1 and ": better." not in built.answer


def test_the_answer_names_teacher_majority_init_alpha_and_that_it_is_provisional(written: Path) -> None:
    text = page_of(written).text.replace("\N{NO-BREAK SPACE}", " ")
    for part in ("teacher reaches 88.0 %", "commonest class gives 50.0 %", "reaches 85.0 %", "reaches 75.0 %"):
        assert part in text
    for part in ("Provisional: chosen and compared on the same validation rows", "student_init: pretrained"):
        assert part in text
    assert "alpha weighs the soft term" in text


def test_classes_of_the_same_weight_are_said_where_they_are(written: Path, tmp_path: Path) -> None:
    make_sweep(tmp_path / "s", class_weights="balanced")
    assert conventions(read_records(tmp_path / "s")).endswith("(class_weights: balanced).")
    assert "class_weights" not in conventions(read_records(written))


def test_without_predictions_there_is_no_verdict(copied: Path) -> None:
    (trial_folder(copied, TrialId("fine_tuned", 0)) / "predictions.npy").unlink()
    built = build_report(copied)
    assert built.comparison is None
    assert "No paired test" in built.answer


def test_the_page_has_its_sections_in_order_and_balanced_tags(written: Path) -> None:
    page = page_of(written)
    assert page.headings == [
        "A single seed cannot tell whether distilling beats plain fine-tuning",
        "Leaderboard",
        "Class by class",
        "Temperature and alpha",
        "Learning curves",
        "Accuracy against size and speed",
        "Is more search worth it",
        "What mattered",
        "Every trial as a line",
        "Pruned, failed and unfinished trials",
        "Provenance",
        "Next",
    ]
    assert page.inside == []
    assert ("html", {"lang": "en"}) in page.tags
    tables = [tag for tag, _ in page.tags if tag == "table"]
    assert len(tables) == len([tag for tag, _ in page.tags if tag == "caption"]) == 6
    drawn = [attributes for tag, attributes in page.tags if attributes.get("class") == "plot"]
    captions = {attributes["id"] for tag, attributes in page.tags if tag == "figcaption"}
    assert drawn and all(attributes["role"] == "img" for attributes in drawn)
    assert {attributes["aria-labelledby"] for attributes in drawn} == captions
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [
        str(attributes["href"])[1:] for tag, attributes in page.tags if tag == "a" and "#" in str(attributes["href"])
    ]
    headings = [attributes["id"] for tag, attributes in page.tags if tag == "h2"]
    assert links == ["answer", *headings], "the skip link, then the navigation names every section in order"


def test_markdown_has_the_sections_that_need_no_figure_and_a_line_for_each_trial_without_rank(written: Path) -> None:
    text = (written / "report.md").read_text(encoding="utf-8")
    headings = ["Leaderboard", "What each arm was given", "Class by class", "Pruned, failed and unfinished trials"]
    headings += ["Provenance", "Next"]
    assert re.findall("^## (.*)$", text, flags=re.MULTILINE) == headings
    for line in (
        "- distilled 2, pruned: below the median at epoch 1",
        "- distilled 3, failed: a nan",
        "- fine-tuned 2, unfinished: running or cut off, 2 of 3 epochs done",
    ):
        assert f"\n{line}\n" in text


def test_the_page_asks_the_network_for_nothing_and_inlines_plotly_once(written: Path) -> None:
    html = (written / "report.html").read_text(encoding="utf-8")
    page = page_of(written)
    assert not [tag for tag, attributes in page.tags if tag in ("link", "img", "iframe") or "src" in attributes]
    assert all("://" not in (attributes.get("href") or "") for _, attributes in page.tags)
    policy = [attributes["content"] or "" for tag, attributes in page.tags if "http-equiv" in attributes]
    assert policy and policy[0].startswith("default-src 'none';") and "http" not in policy[0]
    assert html.count("* plotly.js v") == 1 and "</script" not in style.plotly_js().lower()
    assert "</script" not in (files("kdsweep.reporting") / "page.js").read_text(encoding="utf-8").lower()
    assert len(html.encode()) < 6_000_000


def test_no_text_from_data_becomes_markup(tmp_path: Path) -> None:
    bad = "</script><script>alert('x')</script><img src=x>|\n# heading"
    sweep = make_sweep(tmp_path / "s", {"student": Axis(choices=("from_teacher", bad)), **AXES})
    make_teacher(tmp_path / "s", label_names=(bad, "b"), teacher=bad, environment={bad: bad})
    point = {"temperature": 2.0, "alpha": 0.5, "learning_rate": 1e-4, "batch_size": 32, "student": bad}
    for trial in range(5):
        make_trial(tmp_path / "s", sweep, "distilled", trial, point, 0.7 + 0.01 * trial, parameters=trial + 1)
    make_trial(tmp_path / "s", sweep, "distilled", 5, point, 0.7, status="failed", error=bad, epochs=0)
    built = write.write_report(tmp_path / "s")
    page = page_of(tmp_path / "s")
    assert "img" not in [tag for tag, _ in page.tags] and page.inside == []
    assert len([tag for tag, attributes in page.tags if tag == "script" and not attributes]) == 3
    assert "alert('x')" in page.text
    markdown = render_markdown(built)
    outside_code = re.sub(r"```.*?```", "", markdown, flags=re.DOTALL)
    assert "<script" not in outside_code and "<img" not in outside_code and "\n# heading" not in markdown


@pytest.mark.slow
@pytest.mark.parametrize("state", ["no teacher", "no trials", "pruned only", "failed only", "running only", "one arm"])
def test_an_unfinished_sweep_has_a_report_without_verdict(tmp_path: Path, state: str) -> None:
    folder = tmp_path / "s"
    sweep = make_sweep(folder)
    point = {"temperature": 2.0, "alpha": 0.5, "learning_rate": 1e-4, "batch_size": 32}
    ends: dict[str, dict[str, Any]] = {
        "pruned only": {"status": "pruned", "error": "too slow", "epochs": 1},
        "failed only": {"status": "failed", "error": "a nan", "epochs": 0, "val_accuracy": None},
        "running only": {"status": None, "epochs": 1},
        "one arm": {},
    }
    if state != "no teacher":
        make_teacher(folder)
    if state in ends:
        make_trial(folder, sweep, "distilled", 0, point, 0.8, **ends[state])
    built = write.write_report(folder)
    assert built.comparison is None
    assert built.headline == (
        "No fine-tuned trial is complete yet, so whether distilling helps is open"
        if state == "one arm"
        else "No trial is complete yet, so there is no answer"
    )
    assert (dict(built.questions)["How sure is that?"] == "There is nothing to be sure of yet.") == (state != "one arm")
    assert page_of(folder).inside == []


def test_json_and_csv_hold_every_trial_best_first_with_searched_fields_by_their_own_names(written: Path) -> None:
    listed = json.loads((written / "leaderboard.json").read_text(encoding="utf-8"))["trials"]
    assert list(listed[0])[:10] == [
        *("rank", "arm", "trial", "status", "val_accuracy", "temperature", "alpha", "learning_rate", "batch_size"),
        "parameters",
    ]
    expected = {"rank": 1, "val_accuracy": 0.85, "temperature": 4.0, "latency_ms_p50": 4.0, "folder": "trials/0000"}
    assert expected.items() <= listed[0].items()
    assert [item["rank"] for item in listed] == [1, 2, 3, 4, None, None, None]
    with (written / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["folder"] for row in read] == [item["folder"] for item in listed]
    assert list(read[0]) == list(listed[0])


MANY: dict[str, Axis] = {
    **AXES,
    **{name: Axis(low=0.1, high=0.5) for name in ("weight_decay", "warmup_ratio", "max_grad_norm")},
    "student": Axis(choices=("from_teacher", "/a/folder/of/students/" + "with-a-long-name-" * 12)),
}


@pytest.mark.slow
@pytest.mark.parametrize("search", [AXES, MANY], ids=["four", "many"])
def test_tables_fit_the_terminal_and_markdowns_lines_are_short_whatever_is_searched(
    tmp_path: Path, search: dict[str, Axis]
) -> None:
    sweep = make_sweep(tmp_path / "s", search)
    make_teacher(tmp_path / "s", label_names=tuple(f"a class of many, {n}" for n in range(150)))
    point = {name: axis.choices[-1] if axis.choices else axis.low for name, axis in search.items()}
    for arm in PRIMARY:
        make_trial(tmp_path / "s", sweep, arm, 0, point, 0.8)
    make_trial(tmp_path / "s", sweep, "distilled", 1, point, 0.0, status="failed", error="a nan " * 99, epochs=0)
    built = write.write_report(tmp_path / "s")
    printed = terminal_text(built)
    assert "report.html" in printed and all(len(line) <= 100 for line in printed.splitlines() if line[:1] == "|")
    assert "No room here for" in printed
    outside_code = re.sub(r"```.*?```", "", render_markdown(built), flags=re.DOTALL)
    long = [line for line in outside_code.splitlines() if len(line) > 120]
    assert [line for line in long if max(map(len, line.split())) < 100] == [], "only a word can be longer"


def test_json_has_a_schema_number_and_the_verdict(written: Path) -> None:
    board = json.loads((written / "leaderboard.json").read_text(encoding="utf-8"))
    assert (
        list(board)
        == ["schema", "sweep", "verdict", "trials", "finals", "teacher", "work", "patience", "classes", "exports"]
        and board["schema"] == 2
        and board["sweep"] == "s"
    )
    documented = (leaderboard.__doc__ or "").split("verdict ")[1].split("\n    trials ")[0]
    assert all(key in documented for key in board["verdict"])
    expected: dict[str, Any] = {"split": "validation", "word": "cannot tell", "provisional": True, "one_seed": True}
    expected |= {"distilled": ["trials/0000"], "fine_tuned": ["controls/0000"], "weak_teacher": None}
    expected |= {"rows": ROWS, "difference": 0.1, "counted": "rows"}
    assert expected.items() <= board["verdict"].items() and board["verdict"]["p_value"] < 0.001


def test_json_of_a_sweep_without_answer_has_a_verdict_of_nulls(tmp_path: Path) -> None:
    make_sweep(tmp_path / "s")
    write.write_report(tmp_path / "s")
    board = json.loads((tmp_path / "s" / "leaderboard.json").read_text(encoding="utf-8"))
    assert board["trials"] == [] and board["verdict"].pop("headline").startswith("No trial is complete")
    assert set(board["verdict"].values()) == {None}


def test_a_searched_field_that_is_measured_too_keeps_the_configs_value(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s", {"epochs": Axis(choices=(2, 3))}, epochs=None)
    make_trial(tmp_path / "s", sweep, "distilled", 0, {"epochs": 3}, 0.8, epochs=1, status="pruned", error="low")
    write.write_report(tmp_path / "s")
    listed = json.loads((tmp_path / "s/leaderboard.json").read_text(encoding="utf-8"))["trials"]
    assert listed[0]["epochs"] == 3 and list(listed[0]).count("epochs") == 1


def test_a_searched_list_stays_a_list(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s", {"student_layers": Axis(choices=(2, (0, 5)))})
    make_trial(tmp_path / "s", sweep, "distilled", 0, {"student_layers": (0, 5)}, 0.8)
    write.write_report(tmp_path / "s")
    listed = json.loads((tmp_path / "s/leaderboard.json").read_text(encoding="utf-8"))["trials"]
    assert listed[0]["student_layers"] == [0, 5]
    with (tmp_path / "s/leaderboard.csv").open(encoding="utf-8", newline="") as file:
        assert next(csv.DictReader(file))["student_layers"] == "[0, 5]"


@pytest.mark.slow
def test_an_edited_config_and_torn_lines_are_said_on_the_page_in_markdown_and_in_the_terminal(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copied.parent)
    assert build_report(copied).doubts == ()
    there = trial_folder(copied, TrialId("distilled", 0))
    result = json.loads((there / "result.json").read_text(encoding="utf-8"))
    result["config"] = plain_values(asdict(read_trial(there).config)) | {"alpha": 0.25}
    (there / "result.json").write_text(json.dumps(result), encoding="utf-8")
    epochs = trial_folder(copied, TrialId("fine_tuned", 1)) / "epochs.jsonl"
    lines = epochs.read_bytes().splitlines(keepends=True)
    epochs.write_bytes(lines[0] + b"\0" * 9 + b"\n" + lines[2])
    with (trial_folder(copied, TrialId("fine_tuned", 2)) / "epochs.jsonl").open("a") as file:
        file.write('{"epoch": 3')  # it runs
    built = write.write_report(copied)
    edited, torn = built.doubts
    assert edited.startswith("config.yaml was edited") and edited.endswith("s/trials/0000 (alpha: 0.25, now 0.75).")
    assert torn.startswith("Torn lines") and torn.endswith(" s/controls/0001/epochs.jsonl, line 2.")
    for text in (page_of(copied).text, render_markdown(built), terminal_text(built)):
        said = " ".join(text.split())  # Markdown's lines are short
        assert edited in said and torn in said
    assert [(row.rank, row.trial.trial) for row in built.rows[:4]] == [(1, 0), (2, 0), (3, 1), (4, 1)]


@pytest.mark.slow
def test_many_doubtful_trials_make_one_short_line(copied: Path) -> None:
    for number in range(20):
        make_trial(copied, sweep_of(), "fine_tuned", number, POINT, 0.7)
        (trial_folder(copied, TrialId("fine_tuned", number)) / "steps.jsonl").write_text("x")
    (torn,) = build_report(copied).doubts
    assert torn.endswith("controls/0004/steps.jsonl, line 1; and 15 more.")


def make_run(folder: Path, name: str) -> None:
    """The folder of a W&B run, as far as a report looks at it."""
    (folder / "wandb" / name).mkdir(parents=True)


def test_commands_name_the_best_trial_and_load_a_student_that_is_on_disk(copied: Path) -> None:
    TrialFolder(trial_folder(copied, TrialId("distilled", 0))).student.mkdir()
    make_run(copied, "offline-run-20260102_030405-d0-a1-k3x9qz")
    commands = "\n".join(text for _, text in build_report(copied).commands)
    assert "kdsweep.reproduce" in commands and "trials/0000" in commands
    assert "AutoModelForSequenceClassification.from_pretrained(" in commands and "trials/0000/student" in commands
    assert "wandb leet" in commands and "wandb sync" in commands


@pytest.mark.parametrize(
    ("run", "offered"),
    [(None, []), ("run-20260102_030405-d0-a1-k3x9qz", ["leet"]), ("offline-run-20260102_030405-x", ["leet", "sync"])],
)
def test_commands_for_runs_of_w_and_b_are_offered_where_such_runs_lie_on_disk(
    run: str | None, offered: list[str], copied: Path
) -> None:
    if run:
        make_run(copied, run)
    commands = [text for _, text in build_report(copied).commands]
    assert [text.split()[1] for text in commands if text.startswith("wandb ")] == offered


def test_a_trials_page_in_w_and_b_is_a_link_and_no_other_address_is(tmp_path: Path) -> None:
    folder, address = tmp_path / "s", "https://wandb.ai/team/proj/runs/d0-a1-k3x9qz"
    sweep = make_sweep(folder)
    point = {"temperature": 4.0, "alpha": 0.75, "learning_rate": 2e-4, "batch_size": 32}
    for number, url in enumerate((address, "javascript:alert(1)", None)):
        make_trial(folder, sweep, "distilled", number, point, 0.8, run_url=url)
    make_teacher(folder, run_url=address)
    assert dict(write.write_report(folder).provenance)["teacher's W&B run"] == address
    links = [attributes.get("href") for tag, attributes in page_of(folder).tags if tag == "a"]
    assert [link for link in links if link and ":" in link] == [address]
    listed = json.loads((folder / "leaderboard.json").read_text(encoding="utf-8"))["trials"]
    assert [row["run_url"] for row in listed] == [address, "javascript:alert(1)", None]
    assert address in (folder / "leaderboard.csv").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_report_over_two_hosts_folders_names_every_trial_by_a_path_that_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = tmp_path / "a" / "s", tmp_path / "host b" / "s"
    sweep = make_sweep(here)
    make_sweep(there)
    make_teacher(there)
    point = {"temperature": 4.0, "alpha": 0.75, "learning_rate": 2e-4, "batch_size": 32}
    make_trial(here, sweep, "fine_tuned", 0, point, 0.75)
    make_predictions(here, "fine_tuned", 0, np.arange(ROWS) < 150)
    make_trial(there, sweep, "distilled", 0, point, 0.85)
    make_predictions(there, "distilled", 0, np.arange(ROWS) < 170)
    TrialFolder(trial_folder(there, TrialId("distilled", 0))).student.mkdir()
    make_trial(there, sweep, "fine_tuned", 0, point, 0.7)
    for folder in (here, there):
        make_run(folder, "offline-run-20260102_030405-d0-a1-k3x9qz")
    monkeypatch.chdir(tmp_path / "a")
    assert report.main(["s", str(there)]) == 0
    printed = capsys.readouterr().out
    assert "s/report.html" in printed and not (there / "report.html").exists()
    listed = json.loads((here / "leaderboard.json").read_text(encoding="utf-8"))["trials"]
    assert [row["folder"] for row in listed] == ["../../host b/s/trials/0000", "controls/0000"]
    assert all((here / row["folder"] / "result.json").exists() for row in listed)
    page = page_of(here)
    assert "../../host%20b/s/trials/0000/" in [attributes.get("href") for tag, attributes in page.tags if tag == "a"]
    built = build_report(Path("s"), there)
    assert built.comparison and built.comparison.word == "better"
    commands = dict(built.commands)
    assert commands["Run trial 0 again and compare"] == f"python -m kdsweep.reproduce '{there}/trials/0000'"
    assert f"from_pretrained('{there}/trials/0000/student')" in commands["Load the student, without kdsweep"]
    assert commands["Write this report again"] == f"python -m kdsweep.report s '{there}'"
    assert commands["Send offline runs to W&B"] == f"wandb sync s/wandb/offline-run-* '{there}'/wandb/offline-run-*"
    told = dict(built.provenance)
    assert told[f"trials in {there}"] == "1"
    assert told["spare results, not counted"].startswith(f"{there}/controls/0000")


def test_provenance_says_what_the_rows_hold_and_nothing_that_an_old_record_does_not_know(
    full: Path, tmp_path: Path
) -> None:
    names = {"empty texts", "two labels or more", "cut by max_length", "cut by max_length, students"}
    assert names & dict(build_report(full).provenance).keys() == set()
    folder, point = tmp_path / "s", {"temperature": 4.0, "alpha": 0.75, "learning_rate": 2e-4, "batch_size": 32}
    sweep = make_sweep(folder)
    make_teacher(folder, empty_texts_dropped=1, conflicting_texts=7, truncated_rows={"train": 30, "validation": 0})
    for trial, cut in enumerate(({"train": 30, "validation": 0}, {"train": 31, "validation": 2, "test": 5})):
        make_trial(folder, sweep, "distilled", trial, point, 0.8, truncated_rows=cut)
    told = dict(build_report(folder).provenance)
    assert told["empty texts"] == "1 row left out" and told["two labels or more"].startswith("7 texts of the files")
    assert told["cut by max_length"] == "30 of 1,000 train (3.0\N{NO-BREAK SPACE}%), as the teacher reads them"
    assert told["cut by max_length, students"] == "at most 31 train, 2 validation, 5 test, with max_length 128"


def test_provenance_says_nothing_twice_and_keeps_what_differs(tmp_path: Path) -> None:
    folder, ran = tmp_path / "s", {"environment": {**ENVIRONMENT, "threads": "2", "device": "cpu"}}
    sweep = make_sweep(folder, threads=2, device="cpu")
    make_teacher(folder, environment={**ENVIRONMENT, "threads": "2", "device": "cpu"})
    make_trial(folder, sweep, "distilled", 0, POINT, 0.8, **ran)
    told = build_report(folder).provenance
    assert ("threads", "2") in told and ("device", "cpu") in told and len(set(told)) == len(told)
    shutil.rmtree(teacher_folder(folder))
    make_teacher(folder, environment={**ENVIRONMENT, "threads": "4", "device": "cpu"})
    told = build_report(folder).provenance
    assert ("threads", "2") in told and ("threads", "4 and 2") in told


def test_one_trial_without_finalists_is_counted_in_the_singular_and_what_is_switched_off_is_said(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "s"
    sweep = replace(sweep_of(), finalists=FinalistsConfig(top=0))
    write_sweep(folder, sweep)
    make_teacher(folder)
    make_trial(folder, sweep, "distilled", 0, POINT, 0.8)
    said = dict(build_report(folder).questions)
    assert said["Which settings matter?"].startswith("Too few trials to say: 1 distilled trial is complete")
    assert said["How sure is that?"].endswith(
        "Finalists are switched off (finalists.top is 0), so nothing confirms it."
    )


def test_the_cards_name_the_rows_that_their_scores_are_of(written: Path) -> None:
    text = page_of(written).text
    assert "on validation: trial 0, rank 1" in text and "on validation: 22.0" in text


def test_a_folder_that_is_no_sweep_is_one_message_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main([str(tmp_path / "nothing")]) == 2
    captured = capsys.readouterr()
    assert "sweep.yaml" in captured.err and "Traceback" not in captured.err and captured.out == ""


def test_the_command_line_prints_the_answer_a_table_and_what_it_wrote(
    copied: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copied.parent)
    assert report.main(["s"]) == 0
    printed = capsys.readouterr().out
    assert "A single seed cannot tell whether distilling" in printed and "| rank | arm " in printed
    for name in ("report.html", "report.md", "leaderboard.csv", "leaderboard.json"):
        assert f"s/{name}" in printed and (copied / name).exists()


@pytest.mark.slow
def test_a_page_of_very_many_trials_shows_the_first_rows_and_says_where_the_others_are(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "more are in leaderboard.csv" not in page.render_html(build_report(written))
    monkeypatch.setattr(page, "MOST_ROWS", 2)
    monkeypatch.setattr(style, "MOST_TRIALS", 3)
    found = build_report(written)
    text = page.render_html(found)
    rows, others = len(found.rows), sum(row.rank is None for row in found.rows)
    assert (
        f"holds the first 2 trials, and a filter finds none but these; {rows - 2} more are in leaderboard.csv." in text
    )
    assert "<option>complete</option>" in text and "<option>failed</option>" not in text, "no row here has it"
    assert f"{others - 2} more are in leaderboard.csv." in text and text.count("its best 0 are drawn") == 4
