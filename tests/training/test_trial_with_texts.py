"""Trials trained on texts without labels too: same bits after a break, in memory or from a file, and beside trials without such texts."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import PIECES, write_tokenizer

from kdsweep.analysis.receipt import receipt
from kdsweep.config.trial import TrialConfig
from kdsweep.errors import Interrupted, ResultsError
from kdsweep.records.layout import TrialId
from kdsweep.records.reading import read_steps, read_trial
from kdsweep.records.schema import TrialResult
from kdsweep.records.writing import TrialFolder
from kdsweep.reproduce import rerun
from kdsweep.system.process import StopRequest
from kdsweep.tracking.tracker import NullRun
from kdsweep.training import readout
from kdsweep.training.checkpoints import Checkpointing
from kdsweep.training.data import kept
from kdsweep.training.shared import Materials
from kdsweep.training.trial import Slot, Watch, run_trial

Config = Callable[..., TrialConfig]
TEXTS: dict[str, Any] = {"train_limit": 20, "unlabeled_rest": True, "unlabeled_share": 0.7}


def run(
    config: TrialConfig, folder: Path, materials: Materials | None = None, stop_at: int | None = None
) -> TrialResult:
    """One attempt, asked to stop at a step."""
    stop, count = StopRequest(), itertools.count(1)

    def on_steps(steps: Any) -> None:
        stop.requested |= any(next(count) == stop_at for _ in steps)

    watch = Watch(on_steps=on_steps, on_epoch=lambda _: False)
    keep = Checkpointing(every_seconds=1e9, stop=stop)
    slot = Slot(id=TrialId("distilled", 0))
    return run_trial(config, slot, TrialFolder(folder, "me"), materials or Materials(), NullRun(), watch, keep)


def outcome(folder: Path) -> Any:
    """All that must not differ."""
    row = read_trial(folder)
    return [epoch.measured() for epoch in row.epochs], read_steps(folder), row.measured()


@pytest.mark.slow
def test_a_trial_stopped_and_continued_on_rows_of_a_file_ends_with_the_bits_of_one_in_memory(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readout, "READ_EVERY", 1)
    config = tiny_config(**TEXTS)
    result = run(config, tmp_path / "whole" / "trials" / "0000")
    monkeypatch.setattr(kept, "MAPPED_BYTES", 0)
    folder = tmp_path / "cut" / "trials" / "0000"
    with pytest.raises(Interrupted):
        run(config, folder, stop_at=4)
    run(config, folder)
    assert outcome(folder) == outcome(tmp_path / "whole" / "trials" / "0000")
    counts = {"empty": 0, "duplicates": 0, "labelled": 0, "held_out": 0}
    assert (result.unlabeled_rows, result.unlabeled_dropped) == (52, counts) and result.unlabeled_sha256
    assert result.truncated_rows == {"train": 0, "validation": 0, "unlabeled": 0}


@pytest.mark.slow
def test_a_trial_with_texts_comes_out_the_same_again(tiny_config: Config, tmp_path: Path) -> None:
    folder = tmp_path / "trials" / "0007"
    run(tiny_config(**TEXTS, alpha=1.0, temperature=1.0), folder)
    again = rerun(
        read_trial(folder), TrialFolder(tmp_path / "again" / "trials" / "0007"), lambda _: None, same_content=True
    )
    assert receipt(read_trial(folder), again).verdict == "identical"


def test_other_texts_than_those_of_the_record_are_refused_before_training(
    tiny_config: Config, write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    texts = write_rows("texts.csv", [{"text": f"the film was quite new {number}"} for number in range(30)])
    folder = tmp_path / "trials" / "0007"
    run(tiny_config(unlabeled_file=str(texts)), folder)
    texts.write_text("text\nanother film\n")
    again = TrialFolder(tmp_path / "again" / "trials" / "0007")
    with pytest.raises(ResultsError, match="the texts without labels must be what the trial met, unlabeled_sha256"):
        rerun(read_trial(folder), again, lambda _: None, same_content=True)


@pytest.mark.slow
def test_a_fine_tuned_trial_beside_texts_equals_one_of_a_sweep_without_them(
    tiny_config: Config, tmp_path: Path
) -> None:
    control, materials = tiny_config(train_limit=20, alpha=0.0, temperature=1.0), Materials()
    run(tiny_config(**TEXTS), tmp_path / "distilled" / "trials" / "0000", materials)
    result = run(control, tmp_path / "beside" / "trials" / "0000", materials)
    run(control, tmp_path / "alone" / "trials" / "0000")
    assert outcome(tmp_path / "beside" / "trials" / "0000") == outcome(tmp_path / "alone" / "trials" / "0000")
    assert (result.unlabeled_sha256, result.unlabeled_rows, result.unlabeled_dropped) == (None, 0, {})


def test_a_student_with_its_own_tokenizer_reads_the_texts_in_its_own_tokens(
    tiny_config: Config, tiny_body: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(tiny_body, tmp_path / "other")
    for file in other.glob("tokenizer*"):
        file.unlink()
    write_tokenizer(other, [*PIECES.split(), "film", "story"])
    config = tiny_config(**TEXTS, student=str(other))
    materials = Materials()
    assert materials.student_tokens(config, "unlabeled").unknown_share > 0.05
    assert materials.teacher_tokens(config, "unlabeled").unknown_share == 0
    rows, _ = materials.rows(config)
    assert rows.tokens.lengths[20:].tolist() == materials.student_tokens(config, "unlabeled").lengths.tolist()
