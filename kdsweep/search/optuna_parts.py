"""Check before a study is opened that Optuna has the private parts that a sweep needs: database tables, ids of studies and trials.

Optuna has no public way to give a running trial back to the queue under its own number, nor to show a sampler only a part of a study.
"""

import importlib
from functools import cache
from types import ModuleType

import optuna

from kdsweep.system.libraries import lacks, part_of

ROWS = {
    "TrialModel": ("trial_id", "study_id", "state", "datetime_start", "datetime_complete"),
    "TrialUserAttributeModel": ("trial_id", "key", "value_json"),
    "TrialHeartbeatModel": ("trial_id", "heartbeat"),
    "TrialValueModel": ("trial_id", "objective", "value", "value_type", "value_to_stored_repr"),
    "TrialIntermediateValueModel": ("trial_id", "step", "intermediate_value"),
}
"""Tables and their columns that `TrialRows` uses."""
PURPOSE = "giving an interrupted trial back to its study"


@cache
def rows() -> ModuleType:
    """Return Optuna's module of tables. Raises LibraryError where Optuna lacks a private part that the studies need."""
    _check_ids()
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
    """Check the private ids and the storage on a study in memory, in a millisecond. Raises LibraryError where one is missing."""
    study = optuna.create_study()
    trial = study.ask()
    part_of(study, "_study_id", "optuna", "messages which hosts have died")
    part_of(study, "_storage", "optuna", "study.lag, which shows a sampler the first trials alone,")
    for either in (trial, study.get_trials(deepcopy=False)[0]):
        part_of(either, "_trial_id", "optuna", PURPOSE)
