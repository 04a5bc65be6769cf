"""Suggest parameters and prune trials by a sampler and a pruner that depend only on the slot and on the results of earlier slots.

With `study.lag`, slot n uses the results of slots 0 to n - lag - 1, which have all ended when it starts, and no others:
so the search is the same for any number of workers and whichever is faster.
"""

import copy
from collections.abc import Container, Sequence
from itertools import takewhile
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from kdsweep.config.lengths import most_evaluations
from kdsweep.config.sweep import StudyConfig, SweepConfig

WARM_UP_EVALUATIONS = 1
"""Evaluations (epochs, or parts of max_steps) that the median pruner lets every trial finish: a high temperature or alpha starts slowly."""


def known_slots(study: StudyConfig, slot: int) -> int | None:
    """Return how many trials `slot` may use: trials 0 to slot - lag - 1. None without `study.lag`: all that have ended."""
    return None if study.lag is None else max(0, slot - study.lag)


def pruner(sweep: SweepConfig) -> BasePruner:
    """Return the pruner that `study.pruner` names, limited to the trials that each slot may use."""
    if sweep.study.pruner == "median":
        median = MedianPruner(n_startup_trials=sweep.study.startup_trials, n_warmup_steps=WARM_UP_EVALUATIONS + 1)
        return SlotPruner(sweep.study, median)
    if sweep.study.pruner == "hyperband":
        hyperband = HyperbandPruner(min_resource=1, max_resource=most_evaluations(sweep), reduction_factor=3)
        return SlotPruner(sweep.study, hyperband)
    return NopPruner()


class _FirstSlots:
    """Wraps a storage, of which it shows only the first `slots` trials of a study; all else is passed through.

    Those that have `ended` never change again: the list keeps them, so that the study is not read for every parameter and epoch.
    """

    def __init__(self, storage: BaseStorage, slots: int, ended: list[FrozenTrial]) -> None:
        self._storage, self._slots, self._ended = storage, slots, ended

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the trials of the first slots only."""
        shown = self._ended[: self._slots]
        if len(shown) < self._slots:
            trials = self._storage.get_all_trials(study_id, deepcopy=False)
            self._ended[:] = takewhile(lambda trial: trial.state.is_finished(), trials)
            shown = [trial for trial in trials if trial.number < self._slots]
        shown = [trial for trial in shown if states is None or trial.state in states]
        return copy.deepcopy(shown) if deepcopy else shown


class _TheseTrials(_FirstSlots):
    """Wraps a storage, in place of whose trials it shows others."""

    def __init__(self, storage: BaseStorage, trials: Sequence[FrozenTrial]) -> None:
        super().__init__(storage, slots=0, ended=[])
        self._trials = [copy.copy(trial) for trial in trials]
        for place, trial in enumerate(
            self._trials
        ):  # a trial may be shown twice, and Optuna tells trials apart by this
            trial.number = trial._trial_id = place

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the trials in any of `states`, never copied."""
        return [trial for trial in self._trials if states is None or trial.state in states]


def with_trials(study: Study, trials: Sequence[FrozenTrial]) -> Study:
    """Return the study as one that holds `trials` and no others, numbered in their order; their parameters are shared, not copied."""
    shown = copy.copy(study)
    shown._storage = _TheseTrials(study._storage, trials)  # type: ignore[assignment]
    return shown


def seen_by(slot: int, study: Study, settings: StudyConfig, ended: list[FrozenTrial] | None = None) -> Study:
    """Return the study with only the trials that `slot` may use; `ended` keeps those of them that have ended for later slots."""
    known = known_slots(settings, slot)
    if known is None:
        return study
    seen = copy.copy(study)
    seen._storage = _FirstSlots(study._storage, known, [] if ended is None else ended)  # type: ignore[assignment]
    return seen


class SlotPruner(BasePruner):
    """Asks another pruner, which is shown only the trials that the slot may use."""

    def __init__(self, study: StudyConfig, inner: BasePruner) -> None:
        self._study, self._inner = study, inner
        self._ended: list[FrozenTrial] = []

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Return whether the trial ends here."""
        return self._inner.prune(seen_by(trial.number, study, self._study, self._ended), trial)


class SlotSampler(BaseSampler):
    """Samples as `study.sampler` says, seeded from (study seed, arm, slot), and learns only from the trials that the slot may use."""

    def __init__(self, study: StudyConfig, arm_index: int) -> None:
        self._study, self._arm_index = study, arm_index
        self._inner: BaseSampler = RandomSampler(seed=study.seed)
        self._ended: list[FrozenTrial] = []

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Build the inner sampler of this trial's slot, and the part of the study that it may use."""
        self._inner = self._built(seed=((self._study.seed * 2 + self._arm_index) * 1_000_003 + trial.number) % 2**32)
        self._seen = seen_by(trial.number, study, self._study, self._ended)
        self._inner.before_trial(self._seen, trial)

    def _built(self, seed: int) -> BaseSampler:
        startup = self._study.startup_trials
        if self._study.sampler == "tpe":
            return TPESampler(seed=seed, n_startup_trials=startup)
        if self._study.sampler == "gp":
            return GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
        return RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the inner sampler's relative search space, from the part of the study that the slot may use."""
        return self._inner.infer_relative_search_space(self._seen, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the inner sampler's values of the fields in `search_space`."""
        return self._inner.sample_relative(self._seen, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the inner sampler's value of one field, `param_name`, sampled by itself."""
        return self._inner.sample_independent(self._seen, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        """Pass the ended trial to the inner sampler."""
        self._inner.after_trial(study, trial, state, values)
