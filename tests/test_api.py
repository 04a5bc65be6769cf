"""kdsweep from Python: its names, what it reads, and that it runs in a script, in a thread and in a notebook."""

import inspect
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas
import pytest
import yaml
from commands import steps_of, wait_for
from makers import make_finals, make_full, make_sweep

import kdsweep
from kdsweep import api
from kdsweep.config.shipped_sweeps import shipped_sweeps
from kdsweep.config.sweep_file import load_sweep
from kdsweep.errors import ConfigError, KDSweepError, ResultsError
from kdsweep.records.reading import read_trial
from kdsweep.records.schema import StepMetrics
from kdsweep.records.writing import TrialFolder
from kdsweep.reporting.answers import Verdict

# The names -----------------------------------------------------------------------------------------------------------

SIGNATURES = {
    "load": "(source, *overrides)",
    "run": "(sweep, *, workers=None, quiet=False)",
    "reproduce": "(trial, *, places=None, quiet=False)",
    "Results": "(folder, *others)",
    "Results.trial": "(self, number, arm='distilled', *, seed=None)",
    "Results.trials": "(self)",
    "Results.steps": "(self, number, arm='distilled', *, seed=None)",
    "Results.epochs": "(self, number, arm='distilled', *, seed=None)",
    "Results.finalists": "(self)",
    "Results.comparisons": "(self)",
    "Results.exports": "(self)",
    "Results.write_report": "(self)",
    "Trial.steps": "(self)",
    "Trial.epochs": "(self)",
}
PROPERTIES = {
    "Results": {"folder", "sweep", "teacher", "headline", "verdict", "best", "report"},
    "Trial": {"student"},
}
FIELDS = {
    "Trial": {"folder", "arm", "number", "seed", "config", "result"},
    "Reproduction": {"outcome", "rule", "first_difference", "facts", "receipt"},
}
OTHERS = {"KDSweepError", "SweepConfig", "TrialConfig", "__version__"}


def bare(function: Callable[..., Any]) -> str:
    """The signature without types."""
    signature = inspect.signature(function)
    parameters = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    return str(inspect.Signature(parameters))


def named(name: str) -> Any:
    found: Any = kdsweep
    for part in name.split("."):
        found = getattr(found, part)
    return found


def test_the_public_names_and_their_signatures_stay() -> None:
    assert {name: bare(named(name)) for name in SIGNATURES} == SIGNATURES
    top = {name for name in SIGNATURES if "." not in name} | set(FIELDS)
    assert set(kdsweep.__all__) == top | OTHERS == {*api.__all__, "__version__"} <= set(dir(kdsweep))
    for name, kept in FIELDS.items():
        assert {field.name for field in fields(named(name))} == kept
    for name in ("Results", "Trial"):
        public = {key for key in vars(named(name)) if not key.startswith("_")}
        methods = {key.split(".")[1] for key in SIGNATURES if key.startswith(f"{name}.")}
        assert public == methods | PROPERTIES[name]
    assert {"word", "difference", "low", "high", "p_value", "rows", "split", "provisional"} <= {
        field.name for field in fields(Verdict)
    }


def test_every_public_name_explains_itself_and_the_large_ones_by_an_example() -> None:
    for name in [*SIGNATURES, *FIELDS, *(f"{kind}.{each}" for kind, names in PROPERTIES.items() for each in names)]:
        assert len(inspect.getdoc(named(name)) or "") >= 15, name
    for name in ("load", "run", "reproduce", "Results", "Trial"):
        assert "results." in named(name).__doc__ or "kdsweep." in named(name).__doc__, name


LAZY = """
import sys
import kdsweep
large = {"torch", "optuna", "pandas", "scipy", "wandb", "transformers", "datasets", "plotly", "omegaconf", "numpy", "rich"}
print(sorted(large & {*sys.modules}))
results = kdsweep.Results(sys.argv[1])
results.trials(), results.finalists(), results.exports(), results.verdict, results.best, repr(results), results._repr_html_()
print(sorted({"torch", "optuna", "wandb", "transformers", "datasets", "plotly"} & {*sys.modules}))
"""


@pytest.mark.slow
def test_importing_kdsweep_imports_nothing_large_and_reading_results_no_torch(tmp_path: Path) -> None:
    make_full(tmp_path / "s")
    line = [sys.executable, "-c", LAZY, str(tmp_path / "s")]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n[]\n", done.stdout + done.stderr


def test_the_functions_stay_functions_when_the_commands_modules_are_imported() -> None:
    from kdsweep.reproduce import main as reproducing
    from kdsweep.run import main as running

    assert callable(reproducing) and callable(running)
    assert kdsweep.run is api.run and kdsweep.reproduce is api.reproduce
    with pytest.raises(AttributeError, match="no attribute 'rum'"):
        _ = kdsweep.rum


# A sweep -------------------------------------------------------------------------------------------------------------


def test_a_mapping_a_file_and_a_shipped_name_load_with_overrides(tiny_sweep_file: Callable[..., Path]) -> None:
    path = tiny_sweep_file()
    content = yaml.safe_load(path.read_text())
    content["fixed"]["teacher"] = Path(content["fixed"]["teacher"])
    assert kdsweep.load(content) == kdsweep.load(path) == kdsweep.load(str(path)) == load_sweep(path)
    assert kdsweep.load(content, "study.trials=7").study.trials == 7
    assert kdsweep.load("smoke", "name=mine") == load_sweep(shipped_sweeps()["smoke"], ["name=mine"])


def test_what_is_wrong_with_a_mapping_is_said_without_a_file_that_nobody_wrote() -> None:
    with pytest.raises(ConfigError) as told:
        kdsweep.load({"nam": "x", "fixed": {}, "search": {}})
    assert told.value.problems[0] == "unknown key 'nam'; did you mean 'name'?"
    assert not any("/" in problem.split("name must")[0] for problem in told.value.problems)
    with pytest.raises(ConfigError, match="a sweep holds mappings, lists, texts"):
        kdsweep.load({"name": "x", "fixed": {"teacher": object()}})
    with pytest.raises(ConfigError, match=r"\$\{key\} for another key's value, but: no viable"):
        kdsweep.load({"name": "x", "fixed": {"label_names": ["${a", "b"]}})
    with pytest.raises(ConfigError, match=r"an override reads key=value.*but got \['study.trials=4'\]"):
        kdsweep.load("smoke", ["study.trials=4"])  # type: ignore[arg-type]


def test_run_refuses_what_is_no_sweep_and_no_number_of_workers(tiny_sweep_file: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="kdsweep.load returns"):
        kdsweep.run({"name": "x"})  # type: ignore[arg-type]
    for workers in (-1, 1.5, "2", True):
        with pytest.raises(ConfigError, match="workers must be a whole number from 0, or None"):
            kdsweep.run(kdsweep.load("smoke"), workers=workers)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="workers >= 1 must hold without study.storage"):  # it would watch for ever
        kdsweep.run(kdsweep.load(tiny_sweep_file()), workers=0)


# Its results ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with finalists that were tested, and a student of the best run."""
    folder = tmp_path_factory.mktemp("results") / "s"
    make_finals(folder, 0.8, 0.7)
    best = kdsweep.Results(folder).best
    assert best is not None
    (best.folder / "student").mkdir()
    there = TrialFolder(best.folder)
    losses = {"L_soft": 1.0, "L_hard": 0.5, "L_total": 0.75, "learning_rate": 1e-4}
    there.add_steps([StepMetrics(step=step, epoch=1, **losses) for step in (1, 2)])
    return folder


@pytest.fixture
def results(finals: Path) -> kdsweep.Results:
    return kdsweep.Results(finals)


@pytest.mark.slow
def test_trials_are_the_leaderboard(results: kdsweep.Results) -> None:
    results.write_report()
    trials, written = results.trials(), pandas.read_csv(results.folder / "leaderboard.csv")
    assert list(trials.columns) == list(written.columns) and len(trials) == len(written) == 7
    assert trials["rank"].dropna().tolist() == [1, 2, 3, 4] and trials["rank"].dtype == "Int64"
    assert set(trials["arm"]) == {"distilled", "fine_tuned"} and "unfinished" in set(trials["status"])
    assert results.report.read_text().startswith("<!") and results.report == results.folder / "report.html"


def test_finalists_have_search_confirmed_and_test_scores(results: kdsweep.Results) -> None:
    frame = results.finalists()
    assert len(frame) == 4 and frame["seeds"].map(len).tolist() == [3] * 4
    scores = frame[["search_score", "confirmed_score", "test_accuracy", "test_mcc"]]
    assert scores.notna().all(axis=None) and {"temperature", "alpha", "compared"} <= set(frame.columns)


def test_the_verdict_and_the_best_are_the_reports(results: kdsweep.Results) -> None:
    verdict, best = results.verdict, results.best
    assert verdict is not None and best is not None
    assert (verdict.word, verdict.provisional, verdict.split) == ("better", False, "test")
    assert verdict.low <= verdict.difference <= verdict.high
    assert (best.arm, best.seed in (1, 2, 3)) == ("distilled", True)
    assert best.student == best.folder / "student" and best.config == read_trial(best.folder).config
    assert best.steps()["step"].tolist() == [1, 2] and list(best.steps().columns)[2:5] == [
        "L_soft",
        "L_hard",
        "L_total",
    ]
    assert results.steps(best.number, seed=best.seed).equals(best.steps())


def test_epochs_and_steps_of_one_trial_by_arm_and_number(results: kdsweep.Results) -> None:
    assert results.epochs(0)["epoch"].tolist() == [1, 2, 3] and "val_accuracy" in results.epochs(0).columns
    assert len(results.steps(0, "fine_tuned")) == 0 and "L_soft" in results.steps(0, "fine_tuned").columns
    with pytest.raises(ResultsError, match="has no distilled trial 99; it has 0, 1, 2, 3"):
        results.steps(99)
    with pytest.raises(ResultsError, match="an arm is distilled or fine_tuned or pseudo_labeled, but got 'tuned'"):
        results.steps(0, "tuned")  # type: ignore[arg-type]
    with pytest.raises(ResultsError, match="has no distilled finalist 0 with seed 9; it has 0 seed 1"):
        results.trial(0, seed=9)
    with pytest.raises(ResultsError, match="study.keep_students"):
        _ = results.trial(0).student


def test_a_sweep_that_has_not_begun_has_empty_tables_and_no_best(tmp_path: Path) -> None:
    make_sweep(tmp_path / "s")
    results = kdsweep.Results(str(tmp_path / "s"))
    assert (results.best, results.verdict, results.teacher) == (None, None, None)
    assert len(results.trials()) == len(results.finalists()) == 0 and "val_accuracy" in results.trials().columns
    assert "0 of 12 distilled" in repr(results) and "No trial is complete yet" in results._repr_html_()
    with pytest.raises(KDSweepError, match="holds sweep.yaml"):
        kdsweep.Results(tmp_path / "nowhere")


def test_it_shows_itself_in_a_line_and_in_a_notebook_as_a_table(results: kdsweep.Results) -> None:
    assert "2 of 12 distilled trials complete" in repr(results) and results.headline in repr(results)
    assert results._repr_html_().count("<tr") == 8 and "<b>Distilling beat" in results._repr_html_()
    assert repr(results.best).startswith("Trial(distilled 0, seed ")


# Running -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_plain_script_runs_a_sweep_and_reproduces_its_best(
    tiny_sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import kdsweep
results = kdsweep.run(kdsweep.load({str(tiny_sweep_file())!r}), workers=2)
print("outcome:", kdsweep.reproduce(results.best).outcome)
"""
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "val_accuracy" in done.stdout and "epoch 1:" in done.stdout and "outcome: identical" in done.stdout


THREAD = """
import threading, kdsweep
told = []
def work():
    try:
        told.append(kdsweep.run(kdsweep.load(PATH), workers=1, quiet=True))
    except BaseException as error:
        told.append(error)
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(repr(told[0]))
"""


@pytest.mark.slow
def test_a_thread_that_is_not_the_main_one_runs_a_sweep_quietly(
    tiny_sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(THREAD.replace("PATH", repr(str(tiny_sweep_file()))))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout.startswith("Results(") and done.stdout.count("\n") == 1, done.stdout + done.stderr
    assert "2 of 2 distilled trials complete; 1 of 1 fine-tuned" in done.stdout


@pytest.mark.slow
def test_ctrl_c_checkpoints_and_raises_and_the_same_call_continues(
    tiny_sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    path = tiny_sweep_file(fixed={"epochs": 100_000}, study={"trials": 1, "controls": 0})
    line = [sys.executable, "-c", f"import kdsweep; kdsweep.run(kdsweep.load({str(path)!r}), workers=1, quiet=True)"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        trial = tmp_path / "results" / "tiny" / "trials" / "0000"
        wait_for(lambda: steps_of(trial) > 20)
        process.send_signal(signal.SIGINT)
        said, told = process.communicate(timeout=60)
    assert "KeyboardInterrupt: stopped; nothing is lost" in told and said == ""
    assert list((trial / "checkpoints").iterdir()) and kdsweep.Results(tmp_path / "results" / "tiny").best is None


CELLS = """
import kdsweep
sweep = kdsweep.load(PATH)
results = kdsweep.run(sweep, workers=1)
---
results
---
results.trials()[["rank", "arm", "trial", "status"]]
---
print(results.verdict, results.best)
---
from transformers import AutoModelForSequenceClassification
student = AutoModelForSequenceClassification.from_pretrained(results.best.student)
print(type(student).__name__, sum(p.numel() for p in student.parameters()) == results.best.result.parameters)
"""


@pytest.mark.slow
def test_a_notebook_runs_a_sweep_shows_it_and_loads_the_student(
    tiny_sweep_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = executed(CELLS.replace("PATH", repr(str(tiny_sweep_file()))), tmp_path, monkeypatch)
    run, shown, table, said, student = cells
    live = [each for each in run if "1/1" in each and "2/2" in each]
    assert len(live) == 1, "the bars are one output, which ends full"
    assert any("val_accuracy" in each for each in run) and any("all trials are done" in each for each in run)
    assert "<table" in shown[0] and "2 of 2 distilled trials complete" in shown[0]
    assert "<table" in table[0] and "fine_tuned" in table[0]
    assert "Verdict(" in said[0] and "Trial(" in said[0]
    assert "DistilBertForSequenceClassification True\n" in student


def executed(cells: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Run cells as Jupyter does; what each shows, as HTML where it can."""
    import nbclient
    import nbformat
    from jupyter_client.kernelspec import KernelSpecManager

    spec = folder / "kernels" / "this"
    spec.mkdir(parents=True)
    line = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": line, "display_name": "this", "language": "python"}))
    monkeypatch.setattr(KernelSpecManager, "kernel_dirs", [str(spec.parent)])
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in cells.split("---")])
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="this", resources=resources).execute()
    text = lambda out: (
        out["text"] if out["output_type"] == "stream" else out["data"].get("text/html", out["data"]["text/plain"])
    )
    return [[text(out) for out in cell["outputs"]] for cell in notebook["cells"]]
