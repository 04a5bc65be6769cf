"""A sweep with texts without labels, from its file to its report: three arms, each with its own rows, labels and losses."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from commands import command

from kdsweep.config.arms import ARMS, THIRD
from kdsweep.records.layout import TrialId
from kdsweep.records.reading import read_steps
from kdsweep.records.schema import EpochMetrics
from kdsweep.records.whole_sweep import read_records

SHAPE = {"study": {"trials": 1, "controls": 1}, "finalists": {"top": 1, "seeds": 1}, "tracking": {"mode": "offline"}}
TEXTS = {"train_limit": 20, "max_steps": 8, "evaluations": 2, "epochs": None, "test_fraction": 0.2}


@pytest.mark.slow
def test_a_sweep_with_texts_without_labels_runs_three_arms_from_its_file_to_its_report(
    tiny_sweep_file: Callable[..., Path], tmp_path: Path
) -> None:
    three = tiny_sweep_file("three", fixed={**TEXTS, "unlabeled_rest": True}, **SHAPE)
    done = command("run", three, "--workers", "2")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "1 distilled + 1 fine-tuned + 1 pseudo-labeled" in said and "pseudo-labeled, finalist 0" in said
    assert "Is it the soft targets, or only more text?" in said
    found = read_records(tmp_path / "results" / "three")
    assert [row.id for row in (*found.trials, *found.finalists)] == [
        TrialId(arm, 0, seed) for seed in (None, 1) for arm in ARMS
    ]
    for row in (*found.trials, *found.finalists):
        steps = read_steps(row.folder)
        assert row.result and row.result.status == "complete" and len(steps) == 8 and len(row.epochs) == 2
        assert row.config.pseudo_labels == (row.arm == "pseudo_labeled")
        assert row.config.unlabeled_rest == (row.arm != "fine_tuned")
        all_labelled = all(step.hard_rows == step.soft_rows for step in steps)
        assert all_labelled == (row.arm != "distilled"), "distilled alone has rows without a label"
        weight = row.config.alpha
        assert all(
            step.L_total == pytest.approx(weight * step.L_soft + (1 - weight) * step.L_hard, abs=1e-5) for step in steps
        )
    board = json.loads((found.folder / "leaderboard.json").read_text(encoding="utf-8"))
    assert all(board["verdict"][f"{one}_against_{other}"]["word"] == "cannot tell" for one, other in THIRD), "one seed"

    two = command("run", tiny_sweep_file("two", fixed=TEXTS, **SHAPE), "--workers", "2")
    assert two.returncode == 0 and "pseudo" not in two.stdout, two.stderr
    alone = [row for row in read_records(tmp_path / "results" / "two").trials if row.arm == "fine_tuned"]
    (control,) = [row for row in found.trials if row.arm == "fine_tuned"]
    assert [(row.config, read_steps(row.folder), without_seconds(row.epochs)) for row in alone] == [
        (control.config, read_steps(control.folder), without_seconds(control.epochs))
    ], "the control is that of a sweep without such texts, to the bit"

    pseudo = found.folder / "pseudo_labels" / "0000"
    again = command("reproduce", pseudo)
    assert again.returncode == 0 and "identical (the rule: equal to the last bit)" in again.stdout, again.stdout
    audited = command("report", found.folder, "--audit")
    assert audited.returncode == 0, audited.stdout


def without_seconds(epochs: tuple[EpochMetrics, ...]) -> list[EpochMetrics]:
    """Without what a clock measured."""
    return [replace(epoch, train_seconds=0.0, evaluate_seconds=0.0) for epoch in epochs]
