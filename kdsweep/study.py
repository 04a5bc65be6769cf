"""Optuna's part: one study an arm in one storage, trials proposed by slot, and nothing counted twice.

A slot is an Optuna trial number. It never moves: a trial that was cut off goes back to the queue under its own number. The
sampler is built anew for each slot from (study seed, slot), so that a resumed sweep proposes what an undisturbed one would.
"""

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from kdsweep import space
from kdsweep.errors import ResultsError, TrialFailed
from kdsweep.records import study_path
from kdsweep.sweep_config import ARMS, Arm, StudyConfig, SweepConfig, identity_changes

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=ExperimentalWarning)
warnings.filterwarnings("ignore", message="The reported value is ignored because this `step`")  # an attempt run again

WARM_UP_EPOCHS = 1
"""Epochs that the median pruner lets everybody finish: a high temperature or alpha starts slowly."""
LOCK_SECONDS = 60

Objective = Callable[[optuna.trial.Trial, dict[str, Any]], float]
"""Runs one trial of the given parameters; the value to maximise. Raises optuna.TrialPruned or TrialFailed."""


class Studies:
    """A sweep's two studies. Creating them twice is harmless; another sweep under the same name is refused."""

    def __init__(self, sweep: SweepConfig, folder: Path) -> None:
        self._sweep = sweep
        self._storage = _open_storage(sweep.study, folder)
        self._studies = {arm: self._create(arm) for arm in ARMS}

    def remaining(self, arm: Arm) -> int:
        """Trials still to finish."""
        return max(0, self._sweep.budget(arm) - self.finished(arm))

    def finished(self, arm: Arm) -> int:
        """Trials that completed, were pruned or failed by themselves."""
        return sum(trial.state.is_finished() for trial in self._trials(arm))

    def next_arm(self) -> Arm | None:
        """The arm that is further behind its budget; None when both are done."""
        open_arms = [arm for arm in ARMS if self.remaining(arm)]
        return min(open_arms, key=lambda arm: self.finished(arm) / self._sweep.budget(arm), default=None)

    def settle(self) -> int:
        """Put every trial that a dead process left running back into the queue; how many those were.

        Only for somebody who knows that no process of this sweep is alive.
        """
        left = [trial for arm in ARMS for trial in self._trials(arm) if trial.state == TrialState.RUNNING]
        for trial in left:
            self._put_back(trial)
        return len(left)

    def run_next(self, arm: Arm, objective: Objective) -> None:
        """Ask, run, tell. A TrialFailed is the trial's own failure and counts; any other exception puts the trial back."""
        study, axes = self._studies[arm], self._sweep.axes(arm)

        def guarded(trial: optuna.trial.Trial) -> float:
            trial.set_user_attr("attempt", int(trial.user_attrs.get("attempt", 0)) + 1)
            try:
                params = {name: _suggest(trial, name, space.distribution(name, axis)) for name, axis in axes.items()}
                return objective(trial, {name: space.decode(axis, params[name]) for name, axis in axes.items()})
            except (optuna.TrialPruned, TrialFailed):
                raise
            except BaseException as error:
                raise _Halt(trial.number) from error  # Optuna would tell FAIL for an Exception

        try:
            study.optimize(guarded, n_trials=1, catch=(TrialFailed,))
        except _Halt as halt:
            self._put_back(study.get_trials(deepcopy=False)[halt.number])
            assert halt.__cause__ is not None
            raise halt.__cause__ from None

    def _create(self, arm: Arm) -> Study:
        study = optuna.create_study(
            study_name=f"{self._sweep.name}-{arm}",
            storage=self._storage,
            direction="maximize",
            sampler=SlotSampler(self._sweep.study, ARMS.index(arm)),
            pruner=_pruner(self._sweep),
            load_if_exists=True,
        )
        self._check_identity(study)
        for point in self._queue(arm)[len(study.get_trials(deepcopy=False)) :]:
            study.enqueue_trial({name: space.encode(value) for name, value in point.items()})
        return study

    def _check_identity(self, study: Study) -> None:
        stored = study.user_attrs.get("identity")
        if stored is None:
            study.set_user_attr("identity", json.dumps(_plain(self._sweep.identity())))
            return
        changes = identity_changes(json.loads(stored), _plain(self._sweep.identity()))
        if changes:
            raise ResultsError(f"the study {study.study_name!r} was made by another sweep file:\n" + "\n".join(changes))

    def _queue(self, arm: Arm) -> list[Mapping[str, Any]]:
        """Known recipes first; Optuna's own grid sampler breaks beside a queue, so a grid is queued whole, each point once."""
        known = self._sweep.enqueue if arm == "distilled" else ()
        if self._sweep.study.sampler != "grid":
            return list(known)

        def place(point: Mapping[str, Any]) -> int:
            return next((index for index, item in enumerate(known) if item.items() <= point.items()), len(known))

        return sorted(self._sweep.grid(arm), key=place)

    def _trials(self, arm: Arm) -> list[FrozenTrial]:
        return self._studies[arm].get_trials(deepcopy=False)

    def _put_back(self, trial: FrozenTrial) -> None:
        self._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)


class _Halt(BaseException):
    """Carries an exception past Optuna, which would otherwise count the trial as failed."""

    def __init__(self, number: int) -> None:
        self.number = number


def _suggest(trial: optuna.trial.Trial, name: str, wanted: BaseDistribution) -> Any:
    match wanted:
        case FloatDistribution():
            return trial.suggest_float(name, wanted.low, wanted.high, step=wanted.step, log=wanted.log)
        case IntDistribution():
            return trial.suggest_int(name, wanted.low, wanted.high, step=wanted.step, log=wanted.log)
        case CategoricalDistribution():
            return trial.suggest_categorical(name, wanted.choices)
    raise AssertionError(wanted)


def _plain(identity: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in identity.items()}


def _open_storage(study: StudyConfig, folder: Path) -> RDBStorage:
    """The storage; an SQLite file gets a write-ahead log and transactions that lock at once.

    Without BEGIN IMMEDIATE two workers can take the same queued trial (Optuna documents both settings as engine events).
    """
    url = study.storage or f"sqlite:///{study_path(folder)}"
    embedded = url.startswith("sqlite")
    storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": LOCK_SECONDS}} if embedded else None)
    if embedded:
        sqlalchemy.event.listen(storage.engine, "connect", _on_connect)
        sqlalchemy.event.listen(storage.engine, "begin", _on_begin)
        storage.engine.dispose()
    return storage


def _on_connect(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy's begin event starts the transactions
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _on_begin(connection: sqlalchemy.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _pruner(sweep: SweepConfig) -> BasePruner:
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
