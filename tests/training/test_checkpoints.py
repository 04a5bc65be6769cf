"""Checkpoints: a training cut off between any two steps ends with the same bits, and a torn checkpoint is never used."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kdsweep.config.trial import TrialConfig
from kdsweep.errors import DoesNotFit, Interrupted
from kdsweep.records.layout import TrialId
from kdsweep.records.reading import read_steps, read_trial
from kdsweep.records.writing import TrialFolder
from kdsweep.system.process import StopRequest
from kdsweep.tracking.tracker import NullRun
from kdsweep.training import readout
from kdsweep.training.checkpoints import KEPT, NOT_KEPT, Checkpointing, Checkpoints
from kdsweep.training.loop import distill
from kdsweep.training.models import weights_sha256
from kdsweep.training.shared import Materials
from kdsweep.training.trial import Slot, Watch, run_trial

Config = Callable[..., TrialConfig]


def run(config: TrialConfig, folder: Path, stop: StopRequest, stop_at: int | None = None, every: float = 1e9) -> Any:
    """One attempt, asked to stop at a step."""
    count = itertools.count(1)

    def on_steps(steps: Any) -> None:
        stop.requested |= stop_at is not None and any(next(count) == stop_at for _ in steps)

    watch = Watch(on_steps=on_steps, on_epoch=lambda _: False)
    keep = Checkpointing(every_seconds=every, stop=stop)
    slot = Slot(id=TrialId("distilled", 0))
    return run_trial(config, slot, TrialFolder(folder, "me"), Materials(), NullRun(), watch, keep)


def outcome(folder: Path) -> Any:
    """All that must not differ."""
    row = read_trial(folder)
    assert row.result is not None
    weights = (folder / "student" / "model.safetensors").read_bytes()
    return [epoch.measured() for epoch in row.epochs], read_steps(folder), weights, row.measured()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_trial_stopped_after_every_few_steps_ends_with_the_bits_of_one_never_stopped(
    precision: str, tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readout, "READ_EVERY", 1)
    config = tiny_config(precision=precision, epochs=3)
    run(config, tmp_path / "whole" / "trials" / "0000", StopRequest())
    folder = tmp_path / "cut" / "trials" / "0000"
    stops = 0
    while True:
        try:
            run(config, folder, StopRequest(), stop_at=4)
            break
        except Interrupted:
            stops += 1
    assert stops == 3  # of 15 steps
    assert outcome(folder) == outcome(tmp_path / "whole" / "trials" / "0000")
    result = read_trial(folder).result
    assert result is not None and result.steps_again == 0
    assert not (folder / "checkpoints").exists() and not (folder / "owner").exists()


@pytest.mark.slow
def test_a_killed_trial_goes_on_from_the_newest_checkpoint_that_is_whole(tiny_config: Config, tmp_path: Path) -> None:
    config = tiny_config(epochs=4)
    run(config, tmp_path / "whole" / "trials" / "0000", StopRequest())
    folder = tmp_path / "cut" / "trials" / "0000"

    class Killed(BaseException):
        pass

    def die(epoch: Any) -> bool:
        if epoch.epoch == 3:
            raise Killed
        return False

    keep = Checkpointing(every_seconds=0.0, stop=StopRequest())
    watch = Watch(on_steps=lambda _: None, on_epoch=die)
    with pytest.raises(Killed):
        run_trial(
            config, Slot(id=TrialId("distilled", 0)), TrialFolder(folder, "a"), Materials(), NullRun(), watch, keep
        )
    newest, *older = sorted((folder / "checkpoints").iterdir(), reverse=True)
    assert len(older) == KEPT - 1
    newest.write_bytes(newest.read_bytes()[:-100])
    with (folder / "steps.jsonl").open("a") as file:
        file.write('{"step": 99, "ep')
    run(config, folder, StopRequest())
    assert outcome(folder) == outcome(tmp_path / "whole" / "trials" / "0000")
    result = read_trial(folder).result
    assert result is not None and result.steps_again == 1  # the step of the torn checkpoint


def test_a_checkpoint_of_another_config_is_not_used(tiny_config: Config, tmp_path: Path) -> None:
    folder = tmp_path / "x" / "trials" / "0000"
    with pytest.raises(Interrupted):
        run(tiny_config(epochs=2), folder, StopRequest(), stop_at=1)
    changed = tiny_config(epochs=2, alpha=0.9)
    run(changed, folder, StopRequest())
    run(changed, tmp_path / "y" / "trials" / "0000", StopRequest())
    assert outcome(folder) == outcome(tmp_path / "y" / "trials" / "0000")


def test_a_batch_that_does_not_fit_runs_in_pieces_with_the_same_mean_gradient(
    tiny_config: Config, materials: Materials, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(epochs=1, batch_size=24, max_grad_norm=1e9)
    rows, validation = materials.rows(config)

    def trained(memory: int) -> tuple[Any, Any]:
        student: Any = materials.student(config)
        for module in student.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        forward = student.forward

        def limited(input_ids: torch.Tensor, **inputs: torch.Tensor) -> Any:
            if student.training and len(input_ids) > memory:
                raise torch.OutOfMemoryError("tried to allocate more than there is")
            return forward(input_ids=input_ids, **inputs)

        monkeypatch.setattr(student, "forward", limited)
        steps: list[Any] = []
        training, _ = distill(student, rows, validation, config, on_steps=steps.extend, on_epoch=lambda _: False)
        return training, [step.L_total for step in steps]

    whole, whole_losses = trained(memory=24)
    pieces, piece_losses = trained(memory=7)
    assert (whole.micro_batches, pieces.micro_batches) == (1, 4)
    assert piece_losses == pytest.approx(whole_losses, rel=1e-5)
    for (name, one), other in zip(whole.student.named_parameters(), pieces.student.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-4), name
    with pytest.raises(DoesNotFit, match="at step 1 one of"):
        trained(memory=0)


def test_a_request_to_stop_interrupts_at_once_but_where_it_is_deferred() -> None:
    stop = StopRequest()
    with stop.deferred():
        stop.ask()
    assert stop.requested
    with pytest.raises(Interrupted):
        stop.ask()


def test_weights_after_a_resumed_training_are_those_of_the_checkpointed_one(
    tiny_config: Config, materials: Materials, tmp_path: Path
) -> None:
    """Through `distill` alone: the training object says where it stands."""
    config = tiny_config(epochs=2)
    rows, validation = materials.rows(config)
    hashes, started = [], []
    for stop_at in (None, 5, None):
        stop = StopRequest()
        keep = Checkpointing(every_seconds=1e9, stop=stop).of(tmp_path / str(len(hashes) > 0), "x")
        student = materials.student(config)
        told: dict[str, Any] = {"on_steps": lambda _: None, "on_start": lambda training: started.append(training.step)}
        ask = lambda epoch, stop=stop, stop_at=stop_at: setattr(stop, "requested", stop_at is not None) or False  # noqa: B023
        try:
            distill(student, rows, validation, config, **told, on_epoch=ask, checkpoints=keep)
            hashes.append(weights_sha256(student))
        except Interrupted:
            pass
    assert started == [0, 0, 5] and hashes[0] == hashes[1]


def test_the_rows_of_a_checkpoint_of_the_version_before_count_for_every_loss(
    tiny_config: Config, materials: Materials
) -> None:
    """A teacher's fine-tuning that it had begun goes on: its key is the same."""
    config, told = tiny_config(epochs=1), {"on_steps": lambda _: None, "on_epoch": lambda _: False}
    training, _ = distill(materials.student(config), *materials.rows(config), config, **told)
    training.load_state_dict({**training.state_dict(), "rows_seen": 24})
    assert training.rows_seen.tolist() == [24.0] * len(training.objective.names)


def test_a_training_without_a_folder_keeps_nothing_and_finds_nothing(tmp_path: Path) -> None:
    """Not even where a folder of that name turns up: it would go on from another training's weights."""
    stop = StopRequest()
    none, kept = (
        Checkpoints(None, "", every_seconds=0.0, stop=stop),
        Checkpoints(tmp_path / "kept", "", every_seconds=0.0, stop=stop),
    )
    for each, found in ((none, None), (kept, 5)):
        each.save({"step": 5}, step=5)
        state = each.latest("cpu")
        assert (state and state["step"]) == found
        each.clear()
    stop.requested = True
    with pytest.raises(Interrupted):
        none.save({"step": 6}, step=6)
    assert NOT_KEPT._paths() == []


def test_a_checkpoint_of_another_training_is_not_gone_on_with(tmp_path: Path) -> None:
    mine, other = (Checkpoints(tmp_path, name, every_seconds=0, stop=StopRequest()) for name in ("mine", "other"))
    mine.save({"step": torch.tensor(7)}, step=7)
    found = mine.latest("cpu")
    assert found is not None and found["step"] == 7 and other.latest("cpu") is None
