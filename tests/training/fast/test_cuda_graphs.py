"""Which step is recorded, replayed or launched by itself, and what happens where memory is short. What a graph computes: test_gpu.py."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from encoders import encoder, padded_batch
from torch.utils._python_dispatch import TorchDispatchMode

from kdsweep.config.trial import TrialConfig
from kdsweep.training.data.tokens import Batch, training_batches
from kdsweep.training.fast import cuda_graphs
from kdsweep.training.fast import shortcuts as shortcuts_module
from kdsweep.training.fast.cuda_graphs import Graphs, why_not_recorded
from kdsweep.training.fast.shortcuts import shortcuts
from kdsweep.training.loop import _backward
from kdsweep.training.objective import objective_of
from kdsweep.training.shared import Materials
from kdsweep.training.state import Training, optimizer_and_schedule


class Told:
    """Graphs whose recordings are told here and compute nothing; `room` of them fit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.done: list[str] = []
        self.optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: self.done.append("wait"))
        self.graphs = Graphs(self.optimizer, "cpu")
        told = self

        class Recorded:
            def replay(self, batch: Batch) -> torch.Tensor:
                told.done.append(f"replay {len(batch.rows)} at {told.graphs._rate.item():.2f}")
                return torch.zeros(3)

        def record(batch: Batch, update: cuda_graphs.Update) -> Any:
            told.done.append(f"record {len(batch.rows)}")
            return Recorded() if sum(text.startswith("record") for text in told.done) <= room else None

        monkeypatch.setattr(self.graphs, "_record", record)

    def step(self, rows: int, rate: float = 0.5) -> None:
        self.optimizer.param_groups[0]["lr"] = rate
        batch = Batch(torch.arange(rows), {"input_ids": torch.zeros(rows, 8)})

        def update(batch: Batch) -> torch.Tensor:
            assert self.optimizer.param_groups[0]["lr"] is self.graphs._rate
            self.done.append(f"launch {len(batch.rows)}")
            return torch.zeros(3)

        self.graphs.step(batch, update)
        assert self.optimizer.param_groups[0]["lr"] is rate  # the number again, no tensor that equals it


def test_the_first_batch_of_a_shape_is_launched_the_second_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch, room=9)
    for rows, rate in ((4, 0.5), (6, 0.5), (4, 0.25), (4, 0.125), (6, 0.5)):
        told.step(rows, rate)
    assert told.done == [
        *("launch 4", "launch 6", "record 4", "replay 4 at 0.25", "replay 4 at 0.12"),
        *("record 6", "replay 6 at 0.50"),
    ]


def test_where_a_graph_does_not_fit_all_give_their_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch, room=1)
    for rows in (4, 4, 6, 6, 4, 6, 8, 8):
        told.step(rows)
    assert told.done == [
        *("launch 4", "record 4", "replay 4 at 0.50", "launch 6", "record 6", "wait", "launch 6"),
        *("launch 4", "launch 6", "launch 8", "launch 8"),
    ]


def test_a_batch_that_fits_without_graphs_is_not_cut(
    tiny_config: Callable[..., TrialConfig], materials: Materials, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, told = tiny_config(), Told(monkeypatch, room=9)
    rows, _ = materials.rows(config)
    student: Any = materials.student(config)
    told.step(4)
    told.step(4)
    optimizer, schedule = optimizer_and_schedule(student, config, steps=1)
    training = Training(
        student=student, objective=objective_of(config), optimizer=optimizer, schedule=schedule, graphs=told.graphs
    )
    plain, sizes = student.forward, []

    def forward(input_ids: torch.Tensor, **inputs: torch.Tensor) -> Any:
        sizes.append(len(input_ids))
        if any(told.graphs._recorded.values()) or len(input_ids) > 12:
            raise torch.OutOfMemoryError("tried to allocate more than there is")
        return plain(input_ids=input_ids, **inputs)

    monkeypatch.setattr(student, "forward", forward)
    batches = training_batches(rows.tokens, batch_size=12, seed=0, epoch=1)
    _backward(training, next(batches), rows, config)
    assert (sizes, training.micro_batches) == ([12, 12], 1)
    _backward(training, next(training_batches(rows.tokens, batch_size=16, seed=0, epoch=1)), rows, config)
    assert (sizes[2:], training.micro_batches) == ([16, 8, 8], 2)


class Silent:
    """Stands for a recording on a machine without a GPU: the block runs."""

    def __init__(self, *_: Any, **__: Any) -> None: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("called a synchronizing CUDA operation", "its step waits for a number from the GPU"),
        (
            "CUDA error: operation not permitted when stream is capturing\nsee …",
            "CUDA cannot record its step: CUDA error: operation not permitted when stream is capturing",
        ),
        ("CUDA error: out of memory", "memory was too short for it"),
        ("mat1 and mat2 must have the same dtype", None),
    ],
)
def test_a_step_that_cannot_be_recorded_is_launched_and_the_reason_kept(
    told: str, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    mode, modes = ["default"], []
    for name in ("CUDAGraph", "graph"):
        monkeypatch.setattr(torch.cuda, name, Silent)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: mode[0])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda new: mode.__setitem__(0, new))
    weight = torch.nn.Parameter(torch.zeros(1))
    graphs = Graphs(torch.optim.AdamW([weight]), "cpu")

    def update(batch: Batch) -> torch.Tensor:
        modes.append(mode[0])
        weight.grad = torch.ones(1)
        if mode[0] == "error":
            raise RuntimeError(told)
        return torch.ones(3)

    batch = Batch(torch.arange(4), {"input_ids": torch.zeros(4, 8)})
    graphs.step(batch, update)
    if reason is None:
        with pytest.raises(RuntimeError, match="same dtype"):
            graphs.step(batch, update)
        assert mode == ["default"]
        return
    assert [graphs.step(batch, update).tolist() for _ in range(2)] == [[1.0] * 3] * 2
    assert modes == ["default", "error", "default", "default"] and mode == ["default"]
    assert graphs.why_not == reason


WAITS = {"longformer"}
"""Families of which a step needs a number from the GPU."""


@pytest.mark.parametrize("kind", ["roberta", "mpnet", "deberta-v2", "modernbert", "convbert", "xlnet", "longformer"])
def test_a_step_under_recording_needs_no_number_from_the_gpu(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.utils.import_utils.is_cuda_stream_capturing", lambda: True)
    monkeypatch.setattr(shortcuts_module, "_device_type", lambda _: "cuda")
    model = encoder(kind, layers=1).to("meta")  # whose tensors have no numbers: to read one raises an error
    batch = {name: values.to("meta") for name, values in padded_batch(model).items()}
    with shortcuts(model), _NothingFromTheHost():
        if kind in WAITS:
            with pytest.raises(RuntimeError, match="cannot be called on meta"):
                model(**batch)
        else:
            model(**batch).logits.sum().backward()


class _NothingFromTheHost(TorchDispatchMode):
    """In the block no tensor may be copied to the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func._schema.name in ("aten::_to_copy", "aten::copy_"):
            source = args[-1] if func._schema.name == "aten::copy_" else args[0]
            assert source.device == output.device, f"{func} copies {source.device} to {output.device}"
        return output


def test_layers_left_out_at_random_are_not_recorded() -> None:
    assert why_not_recorded(encoder("bert").config) is None
    reason = "the host leaves out layers at random (encoder_layerdrop)"
    assert why_not_recorded(SimpleNamespace(encoder_layerdrop=0.1)) == reason
