"""Optuna's private parts, looked at before a study is opened: the rows of its database, and who has which id.

Optuna has no public way to give a running trial back to the queue under its own number, nor to show a sampler a part of a study.
"""

import importlib
from functools import cache
from types import ModuleType

import optuna
from optuna.storages import RDBStorage

from kdsweep.system.libraries import lacks, part_of

ROWS = {
    "TrialModel": ("trial_id", "state"),
    "TrialUserAttributeModel": ("trial_id", "key"),
    "TrialHeartbeatModel": ("trial_id",),
}
"""Tables and their columns that `Storage.put_back` changes."""
PURPOSE = "giving an interrupted trial back to its study"


@cache
def rows() -> ModuleType:
    """Optuna's tables, once all that the studies need of Optuna is known to be there. Raises LibraryError."""
    _check_ids()
    part_of(RDBStorage, "_get_stale_trial_ids", "optuna", "telling which hosts have died")
    module = "optuna.storages._rdb.models"
    try:
        models = importlib.import_module(module)
    except ImportError as error:
        raise lacks("optuna", module, PURPOSE) from error
    for name, columns in ROWS.items():
        table = part_of(models, name, "optuna", PURPOSE)
        for column in columns:
            part_of(table, column, "optuna", PURPOSE)
    return models


def _check_ids() -> None:
    """On a study in memory, which costs a millisecond."""
    study = optuna.create_study()
    trial = study.ask()
    part_of(study, "_study_id", "optuna", "telling which hosts have died")
    part_of(study, "_storage", "optuna", "study.lag, which shows a sampler the first trials alone,")
    for either in (trial, study.get_trials(deepcopy=False)[0]):
        part_of(either, "_trial_id", "optuna", PURPOSE)
