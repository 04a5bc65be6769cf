"""An Optuna that lacks a private part is refused in one message, before anything is made."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from optuna.storages._rdb import models

from kdsweep.errors import LibraryError
from kdsweep.run import main
from kdsweep.search import optuna_parts


@pytest.fixture(autouse=True)
def looked_at_anew() -> Iterator[None]:
    optuna_parts.rows.cache_clear()
    yield
    optuna_parts.rows.cache_clear()


def without_rows(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "optuna.storages._rdb.models", None)


def without_heartbeats(patch: pytest.MonkeyPatch) -> None:
    patch.delattr(models, "TrialHeartbeatModel")


def with_a_column_renamed(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(optuna_parts.ROWS, "TrialModel", ("trial_id", "status"))


def without_ids(patch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study()
    renamed = SimpleNamespace(ask=study.ask, get_trials=study.get_trials, _storage=study._storage)
    patch.setattr(optuna, "create_study", lambda: renamed)


GONE: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "optuna.storages._rdb.models": without_rows,
    "TrialHeartbeatModel": without_heartbeats,
    "TrialModel.status": with_a_column_renamed,
    "._study_id": without_ids,
}


def test_this_optuna_has_every_part() -> None:
    assert optuna_parts.rows() is models


@pytest.mark.parametrize("part", GONE)
def test_a_part_that_is_gone_is_named(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    GONE[part](monkeypatch)
    with pytest.raises(LibraryError, match=rf"needs \S*{part}, .* optuna>=5.* pip install 'optuna>=5"):
        optuna_parts.rows()


def test_a_run_says_it_in_one_line_and_trains_nothing(
    tiny_sweep_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_rows(monkeypatch)
    assert main([str(tiny_sweep_file())]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and "optuna.storages._rdb.models" in told[0] and "pip install 'optuna>=5" in told[0]
