"""T and alpha that move during a training, the squared soft loss and smoothed labels: through the loop, the record and a checkpoint."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdsweep.config.trial import TrialConfig
from kdsweep.errors import Interrupted
from kdsweep.records.schema import StepMetrics
from kdsweep.system.process import StopRequest
from kdsweep.training.checkpoints import NOT_KEPT, Checkpointing, Checkpoints
from kdsweep.training.loop import distill
from kdsweep.training.models import weights_sha256
from kdsweep.training.shared import Materials
from kdsweep.training.teacher import teacher_trial

Config = Callable[..., TrialConfig]
MOVING: dict[str, Any] = {"temperature": 8.0, "temperature_end": 1.0, "alpha": 0.0, "alpha_end": 1.0}


def train(
    config: TrialConfig,
    materials: Materials,
    *,
    checkpoints: Checkpoints = NOT_KEPT,
    tell: Callable[[Sequence[StepMetrics]], None] = lambda _: None,
) -> tuple[list[StepMetrics], str]:
    """One training; its steps, and the hash of the trained weights."""
    (rows, validation), student, steps = materials.rows(config), materials.student(config), list[StepMetrics]()

    def on_steps(some: Sequence[StepMetrics]) -> None:
        steps.extend(some)
        tell(some)

    watch: dict[str, Any] = {"on_steps": on_steps, "on_epoch": lambda _: False}
    distill(student, rows, validation, config, **watch, checkpoints=checkpoints)
    return steps, weights_sha256(student)


@pytest.mark.parametrize("length", [{"epochs": 2}, {"max_steps": 9, "evaluations": 4}])
def test_each_step_has_its_own_temperature_and_alpha_from_the_first_to_the_last(
    tiny_config: Config, materials: Materials, length: dict[str, int]
) -> None:
    steps, _ = train(tiny_config(**MOVING, **length), materials)
    on_the_way = np.arange(len(steps)) / (len(steps) - 1)
    assert [step.temperature for step in steps] == pytest.approx(list(8 - 7 * on_the_way), rel=1e-6)
    assert [step.alpha for step in steps] == pytest.approx(list(on_the_way), rel=1e-6)
    assert (steps[0].temperature, steps[-1].temperature, steps[0].alpha, steps[-1].alpha) == (8.0, 1.0, 0.0, 1.0)
    for step in steps:
        assert step.alpha is not None
        total = step.alpha * step.L_soft + (1 - step.alpha) * step.L_hard
        assert step.L_total == pytest.approx(total, rel=1e-5)


def test_what_does_not_move_is_a_number_and_in_no_column(tiny_config: Config, materials: Materials) -> None:
    plain = tiny_config(epochs=1, temperature=3.0, alpha=0.5)
    steps, weights = train(plain, materials)
    assert {(step.temperature, step.alpha) for step in steps} == {(None, None)}
    assert train(replace(plain, temperature_end=3.0, alpha_end=0.5), materials) == (steps, weights)
    (moved, _) = train(replace(plain, soft_loss="mse", temperature_end=1.0, alpha_end=1.0), materials)
    assert {step.temperature for step in moved} == {None}, "idle"
    assert [moved[0].alpha, moved[-1].alpha] == [0.5, 1.0]


def test_a_training_cut_off_on_its_way_ends_with_the_same_bits(
    tiny_config: Config, materials: Materials, tmp_path: Path
) -> None:
    config, stop = tiny_config(max_steps=6, evaluations=3, **MOVING, label_smoothing=0.1), StopRequest()
    whole = train(config, materials)
    keep = Checkpointing(every_seconds=0.0, stop=stop).of(tmp_path, "x")

    def stop_at_three(steps: Sequence[StepMetrics]) -> None:
        stop.requested = steps[-1].step == 3

    with pytest.raises(Interrupted):
        train(config, materials, checkpoints=keep, tell=stop_at_three)
    stop.requested = False
    steps, weights = train(config, materials, checkpoints=keep)
    assert 0 < len(steps) < len(whole[0])
    assert (steps, weights) == (whole[0][-len(steps) :], whole[1])


def test_the_recorded_losses_are_those_of_the_config(tiny_config: Config, materials: Materials) -> None:
    config = tiny_config(epochs=1, alpha=1.0, temperature=1e4)
    (kl, *_), _ = train(config, materials)
    (mse, *_), _ = train(replace(config, soft_loss="mse", label_smoothing=0.2), materials)
    assert mse.L_soft == mse.L_total == pytest.approx(kl.L_soft, rel=1e-2), "kl's limit, of the same initial weights"
    assert mse.L_hard != pytest.approx(kl.L_hard, rel=1e-3)


def test_a_teacher_is_fine_tuned_without_what_a_student_searches(tiny_config: Config, tiny_body: Path) -> None:
    student = tiny_config(
        teacher=str(tiny_body), teacher_epochs=1, **{**MOVING, "soft_loss": "mse", "label_smoothing": 0.1}
    )
    found = teacher_trial(student)
    assert (found.temperature_end, found.alpha_end, found.soft_loss, found.label_smoothing) == (None, None, "kl", 0.0)
