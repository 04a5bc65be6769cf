"""Which students are exported, what names another, and when an export is not made again."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from exports import an_export
from makers import make_finals, make_full, make_sweep, make_trial

from kdsweep.errors import ShippingError
from kdsweep.export import main
from kdsweep.records.export_schema import RECIPE, Export
from kdsweep.records.layout import export_folder, run_name
from kdsweep.records.whole_sweep import SweepRecords, read_records
from kdsweep.records.writing import write_export
from kdsweep.shipping.choice import named, student_of, to_export
from kdsweep.shipping.folder import weights_file_sha256
from kdsweep.shipping.wanted import Wanted, current


@pytest.fixture(scope="module")
def finals(tmp_path_factory: pytest.TempPathFactory) -> SweepRecords:
    """A sweep with two finalists an arm, of which the best distilled ones are better."""
    folder = tmp_path_factory.mktemp("s")
    make_finals(folder / "s", 0.85, 0.83)
    return read_records(folder / "s")


def names(found: SweepRecords) -> list[str]:
    return [run_name(run.id) for run in to_export(found)]


@pytest.mark.slow
def test_the_run_to_ship_and_the_best_fine_tuned_one_are_exported(finals: SweepRecords, tmp_path: Path) -> None:
    ship, twin = names(finals)
    assert ship.startswith("distilled-0000-seed") and twin.startswith("fine_tuned-0000-seed")
    make_full(tmp_path / "searched")
    assert names(read_records(tmp_path / "searched")) == ["distilled-0000", "fine_tuned-0000"]
    make_full(tmp_path / "worse", gain=-20)
    assert names(read_records(tmp_path / "worse")) == ["fine_tuned-0000"]


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("1", "distilled-0001"),
        ("0001", "distilled-0001"),
        ("fine_tuned-0001", "fine_tuned-0001"),
        ("distilled-0001-seed2", "distilled-0001-seed2"),
        ("controls/0001", "fine_tuned-0001"),
        ("results/s/trials/0001/", "distilled-0001"),
        ("/far/s/finalists/fine_tuned-0001-seed3", "fine_tuned-0001-seed3"),
    ],
)
def test_a_trial_is_named_by_number_name_or_folder(name: str, run: str, finals: SweepRecords) -> None:
    assert run_name(named(finals, name).id) == run


@pytest.mark.parametrize(("name", "said"), [("9", "does not have"), ("best", "got 'best'"), ("7.5", "got '7.5'")])
def test_what_names_no_trial_is_refused(name: str, said: str, finals: SweepRecords) -> None:
    with pytest.raises(ShippingError, match=f"TRIAL names a trial .*{said}"):
        named(finals, name)


@pytest.mark.parametrize(
    ("name", "said"), [("2", "was pruned"), ("3", "was failed"), ("fine_tuned-2", "has not ended")]
)
def test_a_trial_that_is_not_complete_is_refused(name: str, said: str, finals: SweepRecords) -> None:
    with pytest.raises(ShippingError, match=f"must be complete to be exported, but .* {said}"):
        named(finals, name)


def test_a_student_that_is_gone_is_got_back_by_a_command(finals: SweepRecords) -> None:
    with pytest.raises(ShippingError) as caught:
        student_of(named(finals, "0"))
    folder = finals.folder / "trials" / "0000"
    assert str(caught.value).endswith(f"python -m kdsweep.reproduce {folder} --keep-student")
    assert "study.keep_students" in str(caught.value)


def test_an_export_is_made_again_for_another_student_other_forms_margin_or_recipe(tmp_path: Path) -> None:
    make_full(tmp_path / "s")
    found = read_records(tmp_path / "s")
    (run, _), wanted = to_export(found), Wanted(forms=("fp32", "int8"), margin=0.005)
    (run.folder / "student").mkdir()
    (run.folder / "student" / "model.safetensors").write_bytes(b"weights")
    assert current(run, found, wanted) is None
    sha256 = weights_file_sha256(run.folder / "student")
    facts: dict[str, Any] = {"run": "distilled-0000", "student_sha256": sha256, "margin": 0.005, "recipe": RECIPE}

    def is_current(wanted: Wanted = wanted, **changes: Any) -> Export | None:
        export_folder(found.folder, run.id).mkdir(parents=True, exist_ok=True)
        write_export(export_folder(found.folder, run.id), an_export(**{**facts, **changes}))
        return current(run, found, wanted)

    export = is_current()
    assert export is not None and export.run == "distilled-0000"
    assert is_current(replace(wanted, margin=0.01)) is None and is_current(replace(wanted, forms=("int8",))) is None
    assert is_current(recipe=RECIPE - 1) is None
    (run.folder / "student" / "model.safetensors").write_bytes(b"other weights")
    assert is_current() is None


# The command ---------------------------------------------------------------------------------------------------------


def test_a_sweep_without_complete_trial_and_a_folder_without_sweep_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = make_sweep(tmp_path / "s")
    make_trial(tmp_path / "s", sweep, "distilled", 0, {"temperature": 2.0}, 0.5, status="pruned")
    assert main([str(tmp_path / "s")]) == 2
    assert capsys.readouterr().err == (
        f"a sweep must have a complete trial to be exported, but {tmp_path / 's'} has none\n"
    )
    assert main([str(tmp_path / "none")]) == 2 and "holds sweep.yaml" in capsys.readouterr().err


def test_without_the_extra_one_line_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kdsweep.shipping.extra.find_spec", lambda name: None if name.startswith("onnx") else "there")
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        "exported students need onnx, onnxscript, onnxruntime: pip install 'kdsweep[export]'\n"
    )


def test_a_student_that_is_gone_ends_the_command_and_changes_nothing(
    finals: SweepRecords, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(finals.folder)]) == 2
    assert "--keep-student" in capsys.readouterr().err and not (finals.folder / "exports").exists()


@pytest.mark.parametrize("words", [("--margin", "0"), ("--margin", "much"), ("--margin", "101"), ("--forms", "fp16")])
def test_a_margin_or_form_that_cannot_be_is_refused(words: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["s", *words])
    assert re.search("0 < points <= 100 must hold|invalid choice", capsys.readouterr().err)
