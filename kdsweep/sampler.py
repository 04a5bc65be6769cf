"""Where the search's proposals come from: a sampler that a slot alone decides, and the pruner of the sweep's choice."""

from typing import Any

from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from kdsweep.sweep_config import StudyConfig, SweepConfig

WARM_UP_EPOCHS = 1
"""Epochs that the median pruner lets everybody finish: a high temperature or alpha starts slowly."""


def pruner(sweep: SweepConfig) -> BasePruner:
    """Optuna's pruner of that name."""
    if sweep.study.pruner == "median":
        return MedianPruner(n_startup_trials=sweep.study.startup_trials, n_warmup_steps=WARM_UP_EPOCHS + 1)
    if sweep.study.pruner == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=max(sweep.values("epochs")), reduction_factor=3)
    return NopPruner()


class SlotSampler(BaseSampler):
    """TPE or random search whose randomness comes from (study seed, arm, slot) alone."""

    def __init__(self, study: StudyConfig, arm_index: int) -> None:
        self._study, self._arm_index = study, arm_index
        self._inner: BaseSampler = RandomSampler(seed=study.seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Build the sampler of this slot."""
        seed = (self._study.seed * 2 + self._arm_index) * 1_000_003 + trial.number
        if self._study.sampler == "tpe":
            self._inner = TPESampler(seed=seed % 2**32, n_startup_trials=self._study.startup_trials)
        else:
            self._inner = RandomSampler(seed=seed % 2**32)
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The inner sampler's."""
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The inner sampler's."""
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The inner sampler's."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        """The inner sampler's."""
        self._inner.after_trial(study, trial, state, values)
