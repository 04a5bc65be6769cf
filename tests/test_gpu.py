"""On a CUDA device: the numbers of a CPU, the same with graphs and without, no step that waits, memory given back. Skipped where there is none."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoders import write_encoder
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from kdsweep.config.trial import TrialConfig
from kdsweep.errors import Interrupted
from kdsweep.records.layout import TrialId
from kdsweep.records.reading import TrialRow, read_trial
from kdsweep.records.schema import StepMetrics
from kdsweep.records.writing import TrialFolder
from kdsweep.system.process import StopRequest
from kdsweep.tracking.tracker import NullRun
from kdsweep.training import loop, state
from kdsweep.training.checkpoints import Checkpointing
from kdsweep.training.data.tokens import TEACHER_LOGITS, Rows, Tokens, padded
from kdsweep.training.fast import cuda_graphs
from kdsweep.training.fast.cuda_graphs import own_stream
from kdsweep.training.fast.shortcuts import shortcuts, weights_in_bfloat16
from kdsweep.training.loop import distill, distill_epoch
from kdsweep.training.objective import objective_of
from kdsweep.training.shared import Materials
from kdsweep.training.state import Training
from kdsweep.training.trial import Slot, Watch, run_trial

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

Config = Callable[..., TrialConfig]
RELATED = {"relation_weight": 0.5, "relation_heads": 4}
"""A loss for which the teacher runs in every step."""


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Rows of every step that was a graph's."""
    plain, seen = cuda_graphs._Recorded.replay, []

    def replay(self: Any, batch: Any) -> torch.Tensor:
        seen.append(len(batch.rows))
        return plain(self, batch)

    monkeypatch.setattr(cuda_graphs._Recorded, "replay", replay)
    yield seen


def train(config: TrialConfig, materials: Materials, *, dropout: float | None = None) -> tuple[Training, list[float]]:
    """One training; the losses of its steps."""
    rows, validation = materials.rows(config)
    student: Any = materials.student(config)
    for module in student.modules():
        if isinstance(module, torch.nn.Dropout) and dropout is not None:
            module.p = dropout
    steps: list[StepMetrics] = []
    teacher = materials.online_teacher(config) if config.relation_weight else None
    watch: Any = {"on_steps": steps.extend, "on_epoch": lambda _: False}
    training, _ = distill(student, rows, validation, config, teacher=teacher, **watch)
    return training, [step.L_total for step in steps]


def weights(training: Training) -> dict[str, torch.Tensor]:
    """Of every parameter that has a gradient worth the name: a key's bias has none, and AdamW makes steps of its rounding."""
    named = training.student.named_parameters()
    return {name: tensor.detach().cpu() for name, tensor in named if not name.endswith("k_lin.bias")}


@pytest.mark.parametrize(
    "extra",
    [{}, RELATED, {"temperature": 8.0, "temperature_end": 1.0, "alpha": 0.0, "alpha_end": 1.0}],
    ids=["plain", "related", "scheduled"],
)
def test_float32_gives_the_numbers_of_a_cpu(extra: dict[str, Any], tiny_config: Config, replays: list[int]) -> None:
    config = tiny_config(epochs=3, **extra)
    (here, losses), (there, on_gpu) = (
        train(replace(config, device=device), Materials(), dropout=0.0) for device in ("cpu", "cuda")
    )
    assert on_gpu == pytest.approx(losses, rel=1e-4)
    assert len(replays) > len(losses) // 2
    for name, tensor in weights(here).items():
        torch.testing.assert_close(weights(there)[name], tensor, rtol=1e-3, atol=5e-5)
    for mine, other in zip(here.history, there.history, strict=True):
        assert other.val_accuracy == mine.val_accuracy and other.val_loss == pytest.approx(mine.val_loss, rel=1e-4)


@pytest.mark.parametrize("extra", [{}, RELATED], ids=["plain", "related"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_graphs_train_what_single_launches_train_dropout_included(
    precision: str,
    extra: dict[str, Any],
    tiny_config: Config,
    monkeypatch: pytest.MonkeyPatch,
    replays: list[int],
) -> None:
    config, materials = tiny_config(epochs=3, device="cuda", precision=precision, **extra), Materials()
    recorded, losses = train(config, materials)
    assert len(replays) > len(losses) // 2
    monkeypatch.setattr(loop, "why_no_graphs", lambda *_: "told so")
    plain, expected = train(config, materials)
    assert plain.graphs is None
    close = {"fp32": 1e-5, "bf16": 1e-2}[precision]
    assert losses == pytest.approx(expected, rel=close)
    for name, tensor in weights(plain).items():
        torch.testing.assert_close(weights(recorded)[name], tensor, rtol=close, atol=close)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "family", ["roberta", "electra", "mpnet", "deberta-v2", "modernbert", "convbert", "xlnet", "albert", "longformer"]
)
def test_a_step_of_any_family_is_a_graph_where_it_can_be(
    family: str,
    precision: str,
    tiny_config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    replays: list[int],
) -> None:
    """A Longformer's step reads a number, and is launched with the reason kept."""
    folder = write_encoder(tmp_path, family, layers=2, label_names=("negative", "positive"))
    config = tiny_config(epochs=3, device="cuda", precision=precision, student=str(folder))
    recorded, losses = train(config, Materials())
    waits = family == "longformer"
    assert (len(replays) > len(losses) // 2) != waits
    assert (recorded.shortcuts["cuda_graphs"] == "taken") != waits
    monkeypatch.setattr(loop, "why_no_graphs", lambda *_: "told so")
    plain, expected = train(config, Materials())
    assert plain.shortcuts["cuda_graphs"] == "told so"
    assert losses == pytest.approx(expected, rel={"fp32": 1e-4, "bf16": 2e-2}[precision])


def test_bfloat16_gradients_are_those_of_autocast(tiny_config: Config) -> None:
    config, materials = tiny_config(device="cuda", precision="bf16"), Materials()
    rows, _ = materials.rows(config)
    batch = padded(rows.tokens, np.arange(24))
    student: Any = materials.student(config).eval()

    def gradients(*contexts: Any) -> list[torch.Tensor]:
        student.zero_grad()
        with ExitStack() as stack:
            for context in contexts:
                stack.enter_context(context(student))
            with torch.autocast("cuda", dtype=torch.bfloat16):
                logits = student(**batch.inputs).logits
            torch.nn.functional.cross_entropy(logits.float(), rows.labels[batch.rows]).backward()
        return [parameter.grad.clone() for parameter in student.parameters()]

    names = [name for name, _ in student.named_parameters()]
    for name, plain, ours in zip(names, gradients(), gradients(shortcuts, weights_in_bfloat16), strict=True):
        if not name.endswith("k_lin.bias"):  # nothing but rounding
            assert (plain - ours).norm() < 0.05 * plain.norm(), name


@pytest.mark.parametrize("extra", [{}, RELATED], ids=["plain", "related"])
def test_no_step_waits_for_the_gpu(extra: dict[str, Any], tiny_config: Config) -> None:
    materials = Materials()

    def waits(epochs: int, batch_size: int) -> int:
        config = tiny_config(epochs=epochs, batch_size=batch_size, device="cuda", **extra)
        rows, validation = materials.rows(config)
        student, teacher = materials.student(config), materials.online_teacher(config) if extra else None
        told: list[Any] = []
        watch: Any = {"on_steps": told.extend, "on_epoch": lambda _: False}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            distill(student, rows, validation, config, teacher=teacher, **watch)
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing" in str(warning.message) for warning in caught)

    waits(1, 16)
    assert waits(1, 4) == waits(1, 16)  # 18 steps and 5
    assert waits(2, 4) == waits(2, 16)


def trial(config: TrialConfig, folder: Path, materials: Materials, stop_at: int | None = None) -> TrialRow:
    """One attempt of a trial, asked to stop once so many steps were told."""
    stop, told = StopRequest(), []

    def on_steps(steps: Any) -> None:
        told.extend(steps)
        stop.requested |= stop_at is not None and len(told) >= stop_at

    watch, keep = Watch(on_steps=on_steps, on_epoch=lambda _: False), Checkpointing(every_seconds=1e9, stop=stop)
    run_trial(config, Slot(id=TrialId("distilled", 0)), TrialFolder(folder, "me"), materials, NullRun(), watch, keep)
    return read_trial(folder)


@pytest.mark.parametrize("extra", [{}, RELATED], ids=["plain", "related"])
def test_a_trial_gives_its_memory_back(extra: dict[str, Any], tiny_config: Config, tmp_path: Path) -> None:
    materials, kept = Materials(), []
    for number in range(4):
        trial(tiny_config(device="cuda", epochs=2, **extra), tmp_path / "trials" / f"{number:04}", materials)
        kept.append(torch.cuda.memory_allocated())
    assert kept[1] == kept[2] == kept[3]


def test_a_trial_that_was_stopped_goes_on(tiny_config: Config, tmp_path: Path) -> None:
    config, materials = tiny_config(device="cuda", epochs=6, precision="bf16"), Materials()
    whole = trial(config, tmp_path / "whole" / "trials" / "0000", materials)
    cut = tmp_path / "cut" / "trials" / "0000"
    with pytest.raises(Interrupted):
        trial(config, cut, materials, stop_at=10)
    again = trial(config, cut, materials)
    assert again.result is not None and again.result.steps_again == 0
    for mine, other in zip(again.epochs, whole.epochs, strict=True):
        assert mine.L_total == pytest.approx(other.L_total, rel=1e-2)


def test_a_batch_that_does_not_fit_runs_in_pieces(tiny_config: Config, replays: list[int]) -> None:
    length, count = 128, 512
    facts = DistilBertConfig(
        vocab_size=1000, dim=384, hidden_dim=1536, n_layers=3, n_heads=12, dropout=0.0, attention_dropout=0.0
    )
    tokens = Tokens(
        ids=torch.randint(1, 1000, (count * length,)),
        segments=None,
        starts=torch.arange(count) * length,
        lengths=np.full(count, length, dtype=np.int64),
        pad_id=0,
    ).to("cuda")
    labels, logits = torch.randint(0, 2, (count,), device="cuda"), torch.randn(count, 2, device="cuda")
    rows = Rows(tokens=tokens, labels=labels, targets={TEACHER_LOGITS: logits})
    torch.manual_seed(0)
    initial = DistilBertForSequenceClassification(facts).state_dict()

    def losses(gigabytes: float) -> tuple[list[float], Training]:
        config = tiny_config(device="cuda", batch_size=128, epochs=1)
        student = DistilBertForSequenceClassification(facts)
        student.load_state_dict(initial)
        student.dropout.p = 0.0
        steps: list[StepMetrics] = []
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, gigabytes * 1e9 / total))
        try:
            training = _training(student.to("cuda"), config)
            with own_stream("cuda"):
                distill_epoch(training, rows, config, on_steps=steps.extend)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return [step.L_total for step in steps], training

    whole, roomy = losses(1e3)
    most = torch.cuda.max_memory_allocated() / 1e9
    assert roomy.micro_batches == 1 and len(replays) == 3
    replays.clear()
    del roomy
    pieces, narrow = losses(0.6 * most)
    assert narrow.micro_batches > 1 and not replays
    assert pieces == pytest.approx(whole, rel=1e-4)


def _training(student: Any, config: TrialConfig) -> Training:
    optimizer, schedule = state.optimizer_and_schedule(student, config, steps=4)
    return Training(
        student=student,
        objective=objective_of(config),
        optimizer=optimizer,
        schedule=schedule,
        graphs=cuda_graphs.Graphs(optimizer, "cuda"),
    )
