"""A W&B whose private parts have other names tracks on, and what cannot be had of it is said."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import wandb

from kdsweep.config.sweep import TrackingConfig
from kdsweep.config.trial import TrialConfig
from kdsweep.errors import LibraryError
from kdsweep.tracking import wandb_reader, wandb_tracker
from kdsweep.tracking.names import RunLabel
from kdsweep.tracking.open import open_tracker, resolved_mode
from kdsweep.tracking.wandb_reader import read_run

TRAINING = """
import builtins, pickle, sys
from pathlib import Path

import wandb

plain = builtins.__import__  # W&B itself needs what is private to it, so the names are gone for kdsweep alone

def private_is_gone(name, globals=None, locals=None, fromlist=(), level=0):
    parts = [*name.split("."), *(fromlist or ())]
    if (globals or {}).get("__name__", "").startswith("kdsweep") and parts[0] == "wandb":
        if "sdk" in parts or any(part.startswith("_") for part in parts):
            raise ModuleNotFoundError(f"No module named {name!r}")
    return plain(name, globals, locals, fromlist, level)

builtins.__import__ = private_is_gone

from kdsweep.config.sweep import TrackingConfig
from kdsweep.records.layout import TrialId
from kdsweep.records.writing import TrialFolder
from kdsweep.tracking.names import RunLabel
from kdsweep.tracking.open import open_tracker, resolved_mode
from kdsweep.tracking.wandb_tracker import stop_client
from kdsweep.training.shared import Materials
from kdsweep.training.trial import Slot, Watch, run_trial

here = Path(sys.argv[1])
config = pickle.loads((here / "config.pickle").read_bytes())
tracking = TrackingConfig(mode="offline")
mode, why = resolved_mode(tracking)
label = RunLabel(run_id="d0-a1", name="distilled 0", job_type="trial", facts={})
watch = Watch(on_steps=lambda _: None, on_epoch=lambda _: False)
with open_tracker(here, "group", tracking, mode).run(label, {}) as run:
    result = run_trial(config, Slot(id=TrialId("distilled", 0)), TrialFolder(here / "0000"), Materials(), run, watch)
stop_client()
print(mode, why, result.status, run.run_id, run.missing, run.is_whole, wandb.run)
"""


@pytest.mark.slow
def test_a_trial_is_tracked_by_a_w_and_b_without_the_private_names(
    tiny_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    (tmp_path / "config.pickle").write_bytes(pickle.dumps(tiny_config(epochs=1)))
    line = [sys.executable, "-c", TRAINING, str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "offline as the sweep file says complete d0-a1 None True None"
    (path,) = tmp_path.rglob("*.wandb")
    assert len(read_run(path).rows) == 5 and read_run(path).torn is None


def test_an_error_of_w_and_b_is_known_by_where_its_class_stands() -> None:
    def kind(module: str, base: type[Exception] = Exception) -> type[Exception]:
        return type("Renamed", (base,), {"__module__": module})

    its_own = kind("wandb.sdk.mailbox.somewhere_else")
    trouble = [its_own("gone"), kind("elsewhere", its_own)(), wandb.errors.CommError("no"), TimeoutError(), OSError()]
    assert all(wandb_tracker.is_trouble(error) for error in trouble)
    others = [kind("wandbox")(), ValueError(), AssertionError(), KeyboardInterrupt(), MemoryError()]
    assert not any(wandb_tracker.is_trouble(error) for error in others)


@pytest.mark.parametrize("mode", ["auto", "online", "offline"])
def test_a_setting_that_w_and_b_has_lost_keeps_runs_on_this_disk_and_is_said(
    mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(wandb_tracker, "SETTINGS", {**wandb_tracker.SETTINGS, "x_disable_gone": True})
    resolved, why = resolved_mode(TrackingConfig(mode=mode))  # type: ignore[arg-type]
    assert resolved == "offline" and f"wandb {wandb.__version__} has no setting x_disable_gone" in why
    label = RunLabel(run_id="d0-a1", name="distilled 0", job_type="trial", facts={})
    said: list[str] = []
    with open_tracker(tmp_path, "group", TrackingConfig(), "offline", said.append).run(label, {}) as run:
        assert (run.run_id, run.missing, said) == ("d0-a1", None, [])


@pytest.mark.slow
@pytest.mark.parametrize("reader", [("leet", "look", "--json"), ("leet", "inspect", "--jason"), ("--version",)])
def test_the_audit_says_that_this_w_and_b_cannot_read_runs(
    reader: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "run-d0-a1.wandb").write_bytes(b"")
    monkeypatch.setattr(wandb_reader, "READER", reader)
    with pytest.raises(LibraryError, match=rf"wandb>=0\.31,<1 has, but this W&B, {wandb.__version__}.*only the audit"):
        read_run(tmp_path / "run-d0-a1.wandb")


@pytest.mark.parametrize("record", [{}, {"type": "history"}, {"type": "history", "history": {"rows": []}}])
def test_the_audit_says_that_this_w_and_b_writes_runs_otherwise(
    record: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "run-d0-a1.wandb").write_bytes(b"")
    monkeypatch.setattr(wandb_reader, "wandb_records", lambda path: ([record], None))
    with pytest.raises(LibraryError, match="has it otherwise"):
        read_run(tmp_path / "run-d0-a1.wandb")
