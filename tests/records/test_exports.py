"""The record of an exported student: written, read back, refused where it is torn."""

import json
from pathlib import Path

import pytest
from exports import an_export

from kdsweep.errors import ResultsError
from kdsweep.records.export_schema import Export
from kdsweep.records.layout import TrialId, export_folder, exports_folder, run_name
from kdsweep.records.reading import read_export, read_exports
from kdsweep.records.writing import write_export


def test_an_export_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    folder = export_folder(tmp_path, TrialId("distilled", 7, 1))
    folder.mkdir(parents=True)
    assert read_exports(tmp_path) == () and read_export(folder) is None
    export = an_export()
    write_export(folder, export)
    assert read_exports(tmp_path) == (export,)
    found = export.form("int8")
    assert found is not None and found.test is not None and found.test.word == "no worse"
    assert found.at(1) == found.speed[0] and found.at(3) is None and export.form("gguf") is None


NEWER = ("macro_f1", "micro_f1", "example_f1", "map", "pearson", "spearman", "rmse", "r2")
"""Fields of a quality that exports of classes alone did not have."""


def test_an_export_from_before_there_were_tasks_is_of_classes(tmp_path: Path) -> None:
    write_export(tmp_path, an_export())
    path = tmp_path / "export.json"
    content = json.loads(path.read_text("utf-8"))
    del content["task"]
    for form in content["forms"]:
        for split in ("validation", "test"):
            form[split] = {name: value for name, value in form[split].items() if name not in NEWER}
    path.write_text(json.dumps(content), "utf-8")
    found = read_export(tmp_path)
    assert found == an_export() and found is not None and found.task == "single_label"


def test_an_exports_folder_is_named_after_its_run(tmp_path: Path) -> None:
    assert run_name(TrialId("distilled", 7)) == "distilled-0007"
    assert export_folder(tmp_path, TrialId("fine_tuned", 3, 2)) == exports_folder(tmp_path) / "fine_tuned-0003-seed2"


@pytest.mark.parametrize(
    "harm", [lambda text: text[:50], lambda text: "[]", lambda text: json.dumps({**json.loads(text), "unknown": 1})]
)
def test_a_record_that_no_version_wrote_is_refused_by_name(tmp_path: Path, harm) -> None:
    write_export(tmp_path, an_export())
    path = tmp_path / "export.json"
    path.write_text(harm(path.read_text("utf-8")), "utf-8")
    with pytest.raises(ResultsError, match=r"export\.json must be an export"):
        read_export(tmp_path)


def test_drafts_beside_finished_exports_are_left_out(tmp_path: Path) -> None:
    draft = exports_folder(tmp_path) / ".distilled-0007.draft"
    draft.mkdir(parents=True)
    write_export(draft, an_export())
    assert read_exports(tmp_path) == ()
    assert isinstance(read_export(draft), Export)
