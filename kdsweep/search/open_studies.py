"""Create a sweep's studies or open them again: one for each arm and one for the finalists. Another sweep of the same name is refused."""

import json
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler
from optuna.study import Study

from kdsweep.config.arms import ARMS, Arm, Stage
from kdsweep.config.sweep import SweepConfig, identity_changes
from kdsweep.errors import ResultsError
from kdsweep.search import attributes, space
from kdsweep.search.sampler import SlotSampler, pruner
from kdsweep.search.storage import Storage
from kdsweep.search.warm_start import warm_points
from kdsweep.system.process import uncollected


def open_studies(sweep: SweepConfig, storage: Storage) -> dict[Stage, Study]:
    """Return every study of a sweep, created where missing. Raises ResultsError where another sweep created them."""
    with uncollected(), storage.alone():
        studies: dict[Stage, Study] = {arm: _searching(sweep, arm, storage) for arm in _arms(sweep)}
        studies["finalists"] = _confirming(sweep, storage)
    return studies


def _arms(sweep: SweepConfig) -> tuple[Arm, ...]:
    """Return the arms that have studies: the sweep's, and the pseudo-labeled one whose budget may have been above 0 before."""
    return ARMS if sweep.has_unlabeled() else sweep.arms


def _searching(sweep: SweepConfig, arm: Arm, storage: Storage) -> Study:
    study = optuna.create_study(
        study_name=f"{sweep.name}-{arm}",
        storage=storage.rdb,
        direction="maximize",
        sampler=SlotSampler(sweep.study, ARMS.index(arm)),
        pruner=pruner(sweep),
        load_if_exists=True,
    )
    _check_identity(sweep, study)
    queue = [*_queue(sweep, arm), *_warm_points(sweep, arm, study)]
    for point in queue[len(study.get_trials(deepcopy=False)) :]:
        study.enqueue_trial({name: space.encode(value) for name, value in point.items()})
    return study


def _warm_points(sweep: SweepConfig, arm: Arm, study: Study) -> list[dict[str, Any]]:
    """Return the points of earlier sweeps that an arm tries first, as its study holds them since the first start."""
    if not sweep.warm_starts():
        return []
    if (stored := study.user_attrs.get(attributes.WARM_START)) is None:
        points = [{name: space.encode(value) for name, value in point.items()} for point in warm_points(sweep, arm)]
        study.set_user_attr(attributes.WARM_START, stored := json.dumps(points))
    held: list[dict[str, Any]] = json.loads(stored)
    return held


def warm_start(sweep: SweepConfig, studies: Mapping[Stage, Study]) -> dict[Arm, list[dict[str, Any]]]:
    """Return the points that each arm took from earlier sweeps, in the fields' own values, as its study holds them."""
    if not sweep.warm_starts():
        return {}
    found = {}
    for arm in sweep.arms:
        axes, stored = sweep.axes(arm), json.loads(studies[arm].user_attrs.get(attributes.WARM_START, "[]"))
        found[arm] = [{name: space.decode(axes[name], value) for name, value in point.items()} for point in stored]
    return found


def _confirming(sweep: SweepConfig, storage: Storage) -> Study:
    return optuna.create_study(
        study_name=f"{sweep.name}-finalists",
        storage=storage.rdb,
        direction="maximize",
        sampler=RandomSampler(seed=0),  # never used: a finalist takes the parameters of the trial that it repeats
        pruner=NopPruner(),
        load_if_exists=True,
    )


def _check_identity(sweep: SweepConfig, study: Study) -> None:
    stored, now = study.user_attrs.get(attributes.IDENTITY), _plain(sweep.identity())
    if stored is None:
        study.set_user_attr(attributes.IDENTITY, json.dumps(now))
        return
    changes = identity_changes(json.loads(stored), now)
    if changes:
        raise ResultsError(
            f"the study {study.study_name!r} was made by another sweep file:\n" + "\n".join(changes) + "\n"
            "Undo the change to continue that sweep, or start a new one beside it with --fork NEW_NAME"
        )


def _plain(identity: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in identity.items()}


def _queue(sweep: SweepConfig, arm: Arm) -> list[Mapping[str, Any]]:
    """Return the points to queue: the known recipes, or a grid's every point once, those of known recipes first.

    A grid is queued whole because Optuna's own grid sampler breaks beside a queue.
    """
    known = sweep.enqueue if arm == "distilled" else ()
    if sweep.study.sampler != "grid":
        return list(known)

    def place(point: Mapping[str, Any]) -> int:
        return next((index for index, item in enumerate(known) if item.items() <= point.items()), len(known))

    return sorted(sweep.grid(arm), key=place)
