"""Estimate, before the first trial, how long one takes here."""

from dataclasses import replace

import numpy as np

from kdsweep.config.lengths import evaluations_of
from kdsweep.config.trial import TrialConfig
from kdsweep.records.schema import EpochMetrics
from kdsweep.training.data.order import labeled_share, steps_per_pass
from kdsweep.training.data.tokens import Rows
from kdsweep.training.loop import distill
from kdsweep.training.objective import objective_of
from kdsweep.training.shared import Materials
from kdsweep.training.state import total_steps

TIMED_BATCHES = 4
"""Batches of training rows that `estimated_seconds` times."""


def estimated_seconds(materials: Materials, config: TrialConfig) -> float:
    """Estimate the seconds that one trial of `config` takes here, from `TIMED_BATCHES` batches of a throwaway student on one device.

    (steps · seconds of a timed step + evaluations · seconds of an evaluation, scaled from the timed rows to all rows) / devices_per_trial.
    """
    train, validation = materials.rows(config)
    rng = np.random.default_rng(0)
    timed = train.take(_timed_rows(train, config, rng, TIMED_BATCHES))
    held_out = rng.permutation(len(validation.labels))[: len(timed.labels)]

    def trained(rows: Rows, evaluated: np.ndarray, passes: int) -> EpochMetrics:
        """Train a throwaway student; return its last pass over the `rows`, and that over the validation rows `evaluated`."""
        training, _ = distill(
            materials.student(config),
            rows,
            validation.take(evaluated),
            replace(config, epochs=passes, max_steps=None, learning_rate=1e-6),  # so small that the loss stays finite
            on_steps=lambda _: None,
            on_epoch=lambda _: False,
            teacher=materials.online_teacher(config) if objective_of(config).teacher_outputs else None,
        )
        return training.history[-1]

    if config.device.startswith("cuda"):
        last = trained(timed, held_out, passes=3)  # the second records graphs
    else:
        trained(train.take(_timed_rows(train, config, rng, batches=1)), held_out[:1], passes=1)  # warms up
        last = trained(timed, held_out, passes=1)
    step_seconds = last.train_seconds / steps_per_pass(timed, config)
    evaluate_seconds = last.evaluate_seconds * len(validation.labels) / len(held_out)
    seconds = total_steps(train, config) * step_seconds + evaluations_of(config) * evaluate_seconds
    return seconds / config.devices_per_trial


def _timed_rows(train: Rows, config: TrialConfig, rng: np.random.Generator, batches: int) -> np.ndarray:
    """Draw so many `batches` of rows, with as many texts without labels as the batches of the training have; such texts last."""
    wanted, known = batches * config.batch_size, len(train.labels) - train.extra
    labeled = max(1, round(wanted * labeled_share(train, config))) if train.extra else wanted
    others = known + rng.permutation(train.extra)[: wanted - labeled]
    return np.concatenate([rng.permutation(known)[:labeled], others])
