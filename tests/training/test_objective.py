"""A loss of one's own through the loop's public seam: it gets all that it asks for, and what it does not have is said."""

import dataclasses
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kdsweep.config.trial import TrialConfig
from kdsweep.errors import ConfigError, NonFiniteLoss
from kdsweep.records.layout import TrialId
from kdsweep.records.reading import read_steps
from kdsweep.records.schema import StepMetrics
from kdsweep.records.writing import TrialFolder
from kdsweep.tracking.tracker import NullRun
from kdsweep.training.data.tokens import TEACHER_LOGITS, Rows, padded
from kdsweep.training.fast import machine
from kdsweep.training.fast import shortcuts as shortcuts_module
from kdsweep.training.fast.shortcuts import shortcuts
from kdsweep.training.loop import distill
from kdsweep.training.losses import hard_loss
from kdsweep.training.objective import Inputs, Objective, objective_of
from kdsweep.training.shared import Materials
from kdsweep.training.state import Training
from kdsweep.training.trial import Slot, Watch, run_trial

Config = Callable[..., TrialConfig]
cuda = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"))
QUIET = Watch(on_steps=lambda _: None, on_epoch=lambda _: False)


def hidden_loss(batch: Inputs) -> dict[str, Tensor]:
    """The mean square error of the last hidden states [B, L, H], over the tokens of a row, then over rows."""
    hidden = batch.student["hidden_states"][-1].float()
    errors = (hidden - batch.targets["hidden"][:, : hidden.shape[1]]).square().mean(dim=-1)
    return {"L_total": ((errors * batch.mask).sum(dim=1) / batch.mask.sum(dim=1)).mean()}


TOY = Objective(
    loss=hidden_loss, parts=(), student_outputs=frozenset({"hidden_states"}), targets=frozenset({"hidden", "row"})
)


def with_hidden(rows: Rows) -> Rows:
    """The rows with a random target for every token, and their own numbers."""
    count, longest = len(rows.labels), int(rows.tokens.lengths.max())
    hidden = torch.randn(count, longest + 8, 32, generator=torch.Generator().manual_seed(0)).to(rows.labels.device)
    more = {"hidden": hidden, "row": torch.arange(count, device=rows.labels.device)}
    return dataclasses.replace(rows, targets={**rows.targets, **more})


def steady(student: Any) -> Any:
    """Without dropout, so that two forward passes agree."""
    for module in student.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return student


def train(
    config: TrialConfig, objective: Objective | None, student: Any | None = None
) -> tuple[list[StepMetrics], Training]:
    """One training on rows that have hidden targets; its steps first."""
    materials, steps = Materials(), list[StepMetrics]()
    rows, validation = materials.rows(config)
    student = student or steady(materials.student(config))
    watch: Any = {"on_steps": steps.extend, "on_epoch": lambda _: False}
    return steps, distill(student, with_hidden(rows), validation, config, **watch, objective=objective)[0]


@pytest.fixture(params=["distilbert", "bert"])
def student_config(request: pytest.FixtureRequest, tiny_config: Config, tiny_body: Path) -> Config:
    """Configs of a student of either family whose last layer has a shortcut."""
    return partial(tiny_config, student=str(tiny_body)) if request.param == "bert" else tiny_config


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", cuda])
def test_a_loss_on_hidden_states_gets_those_of_every_token_and_trains_on_them(
    student_config: Config, device: str
) -> None:
    config, materials, met = student_config(epochs=8, device=device), Materials(), []

    def spied(batch: Inputs) -> Any:
        if not met:
            read = (batch.student["hidden_states"][-1], batch.targets["row"], batch.mask)
            met.extend(tensor.detach().clone() for tensor in read)
        return hidden_loss(batch)

    steps, _ = train(config, dataclasses.replace(TOY, loss=spied))
    (hidden, rows, mask), plain = met, steady(materials.student(config)).train()
    batch = padded(materials.rows(config)[0].tokens, rows.cpu().numpy())
    expected = plain(**batch.inputs, output_hidden_states=True).hidden_states[-1]
    assert mask.shape[1] > 1 and torch.equal(mask, batch.inputs["attention_mask"])
    assert hidden.shape == expected.shape and torch.allclose(hidden[mask > 0], expected[mask > 0], atol=1e-5)
    assert steps[-1].L_total < 0.95 * steps[0].L_total and {step.L_soft for step in steps} == {0.0}


@pytest.mark.parametrize(("objective", "is_one"), [(None, True), (TOY, False)])
def test_todays_objective_alone_computes_one_token_of_the_last_layer(
    student_config: Config, objective: Objective | None, is_one: bool
) -> None:
    config, widths = student_config(epochs=1), list[int]()
    student: Any = Materials().student(config)
    layers = [module for name, module in student.named_modules() if re.search(r"\blayer\.\d+$", name)]
    note = lambda _, __, output: widths.append(output.shape[1]) if student.training else None
    layers[-1].register_forward_hook(note)
    train(config, objective, student)
    assert len(widths) == 5 and all((width == 1) is is_one for width in widths)


@pytest.mark.slow
@pytest.mark.parametrize(("device", "slow_blas"), [("cpu", False), ("cpu", True), ("cuda", False)])
def test_no_shortcut_changes_hidden_states_that_somebody_reads(
    student_config: Config, device: str, slow_blas: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "blas_is_slow", lambda: slow_blas)
    monkeypatch.setattr(shortcuts_module, "_device_type", lambda _: device)  # a GPU's are mathematics, too
    config, materials = student_config(), Materials()
    batch, model = padded(materials.rows(config)[0].tokens, np.arange(24)), steady(materials.student(config))
    real = batch.inputs["attention_mask"].bool()
    plain = model(**batch.inputs, output_hidden_states=True)
    with shortcuts(model, outputs=TOY.student_outputs):
        short = model(**batch.inputs, output_hidden_states=True)
    for mine, theirs in zip(short.hidden_states, plain.hidden_states, strict=True):
        assert torch.allclose(mine[real], theirs[real], atol=1e-5)
    assert torch.allclose(short.logits, plain.logits, atol=1e-5)


def test_what_an_objective_does_not_name_it_does_not_get(tiny_config: Config) -> None:
    """Whatever the student's own configuration says: the last hidden states would be of the first token alone."""
    met: dict[str, set[str]] = {}

    def loss(batch: Inputs) -> dict[str, Tensor]:
        met.update(outputs=set(batch.student), teacher=set(batch.teacher), targets=set(batch.targets))
        return {"L_total": hard_loss(batch.student["logits"], batch.labels)}

    student: Any = Materials().student(tiny_config())
    student.config.output_hidden_states = True
    train(tiny_config(epochs=1), Objective(loss=loss, parts=()), student)
    assert met == {"outputs": {"logits"}, "teacher": set(), "targets": set()}


def test_a_batch_in_pieces_has_the_losses_of_a_whole_one_whatever_the_objective(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, taken = tiny_config(epochs=1, batch_size=24, max_grad_norm=1e9), []
    for memory, pieces in ((24, 1), (7, 4)):
        student: Any = steady(Materials().student(config))

        def limited(
            input_ids: Tensor, student: Any = student, plain: Any = student.forward, memory: int = memory, **inputs: Any
        ) -> Any:
            if student.training and len(input_ids) > memory:
                raise torch.OutOfMemoryError("tried to allocate more than there is")
            return plain(input_ids=input_ids, **inputs)

        monkeypatch.setattr(student, "forward", limited)
        steps, training = train(config, TOY, student)
        assert training.micro_batches == pieces
        taken.append([step.L_total for step in steps])
    assert taken[1] == pytest.approx(taken[0], rel=1e-5)


def test_a_trial_of_another_objective_is_recorded_in_the_same_columns(tiny_config: Config, tmp_path: Path) -> None:
    def fine_tuning(_: TrialConfig) -> Objective:
        def loss(batch: Inputs) -> dict[str, Tensor]:
            hard = hard_loss(batch.student["logits"], batch.labels)
            return {"L_total": 2 * hard, "L_hard": hard}

        return Objective(loss=loss, parts=("L_hard",))

    folder, slot = TrialFolder(tmp_path / "trials" / "0000"), Slot(id=TrialId("distilled", 0))
    result = run_trial(tiny_config(), slot, folder, Materials(), NullRun(), QUIET, make_objective=fine_tuning)
    steps = read_steps(folder.path)
    assert result.status == "complete" and len(steps) == 10
    assert all(step.L_total == 2 * step.L_hard > 0 and step.L_soft == 0 for step in steps)
    with pytest.raises(ConfigError, match=r"devices_per_trial must be 1 for an objective that .* but got 2"):
        shared = tiny_config(devices_per_trial=2)
        run_trial(shared, slot, folder, Materials(), NullRun(), QUIET, make_objective=fine_tuning)


def test_a_loss_that_is_not_finite_is_named_by_its_parts(tiny_config: Config) -> None:
    broken = lambda batch: {"L_total": batch.student["logits"].sum() * torch.nan}
    with pytest.raises(NonFiniteLoss, match="at step 1 L_total was nan; "):
        train(tiny_config(), Objective(loss=broken, parts=()))


def test_what_an_objective_cannot_have_is_said_before_a_step(tiny_config: Config, materials: Materials) -> None:
    with pytest.raises(
        ValueError,
        match=r"parts must be among \['L_soft', 'L_hard', 'L_total', 'L_relation', 'temperature', 'alpha'\].*got \['L_new'\]",
    ):
        Objective(loss=hidden_loss, parts=("L_new",))
    with pytest.raises(
        ValueError, match=r"student_outputs must be among \['hidden_states', 'relations'\], but got \['attentions'\]"
    ):
        Objective(loss=hidden_loss, student_outputs=frozenset({"attentions"}))
    config = tiny_config()
    rows, validation = materials.rows(config)
    with pytest.raises(ValueError, match=r"among the rows', \['teacher_logits'\], but got \['hidden', 'row'\]"):
        distill(
            materials.student(config),
            rows,
            validation,
            config,
            on_steps=QUIET.on_steps,
            on_epoch=QUIET.on_epoch,
            objective=TOY,
        )


def test_the_objective_of_a_config_reads_logits_alone_and_has_its_temperature_and_alpha(tiny_config: Config) -> None:
    objective: Any = objective_of(tiny_config(temperature=3.0, alpha=0.25))
    assert objective.student_outputs == frozenset() and objective.targets == {TEACHER_LOGITS}
    assert objective.names == ("L_total", "L_soft", "L_hard")
    logits, labels = torch.tensor([[1.0, -1.0], [0.0, 2.0]]), torch.tensor([0, 1])
    batch = Inputs(
        student={"logits": logits},
        teacher={},
        targets={TEACHER_LOGITS: logits.flip(1)},
        labels=labels,
        mask=torch.ones(2, 4),
        weights={},
        progress=torch.tensor(0.0),
    )
    parts = objective.loss(batch)
    assert parts["L_total"] == 0.25 * parts["L_soft"] + 0.75 * parts["L_hard"]
    assert objective.loss.keywords == {
        "temperature": 3.0,
        "temperature_end": None,
        "alpha": 0.25,
        "alpha_end": None,
        "soft_loss": "kl",
        "label_smoothing": 0.0,
    }


def test_rows_that_are_chosen_keep_every_target(tiny_config: Config, materials: Materials) -> None:
    rows = with_hidden(materials.rows(tiny_config())[0])
    some = rows.take(np.array([5, 2]))
    assert some.targets["row"].tolist() == [5, 2] and some.targets.keys() == rows.targets.keys()
    assert torch.equal(some.teacher_logits, rows.teacher_logits[[5, 2]])
