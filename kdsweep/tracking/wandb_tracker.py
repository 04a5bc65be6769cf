"""Send metrics to Weights & Biases: one run a trial, in the sweep's group.

No error of W&B stops a trial. Names of metrics are `L_soft`, `L_hard`, `L_total`, `learning_rate` over `step`, `L_relation` where a
trial has it, and `val_accuracy` and the rest over `epoch`.
"""

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeGuard

import wandb

from kdsweep.config.sweep import TrackingConfig
from kdsweep.errors import ConfigError
from kdsweep.records.schema import STEP_METRICS, EpochMetrics, StepMetrics, logged_epoch
from kdsweep.records.teacher_schema import TeacherEpoch
from kdsweep.system.libraries import TESTED
from kdsweep.tracking.names import RunLabel
from kdsweep.tracking.tracker import NullRun, Run

os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

Mode = Literal["online", "offline"]
OFFLINE: Mode = "offline"
INIT_SECONDS = 30
FINISH_SECONDS = 30
STOP_CLIENT_SECONDS = 5
SETTINGS: Mapping[str, Any] = dict(
    silent=True,
    console="off",
    disable_git=True,
    save_code=False,
    init_timeout=INIT_SECONDS,
    finish_timeout=FINISH_SECONDS,
    finish_timeout_raises=True,
    x_disable_meta=True,
    x_disable_stats=True,
    x_disable_machine_info=True,
    x_save_requirements=False,
)
"""W&B prints nothing and stores nothing about the machine: no command line, no git remote, no host statistics, no console. Settings that
begin with x_ are W&B's private ones, which it may rename."""


def is_trouble(error: BaseException) -> TypeGuard[Exception]:
    """Return whether W&B caused an error: an OSError (a full disk, a client that is gone, and the TimeoutError of finish), or one whose class
    W&B defines. Most of W&B's classes are private and no wandb.errors.Error, so they are recognised by the module that defines them."""
    its_own = any(kind.__module__.split(".")[0] == "wandb" for kind in type(error).__mro__)
    return isinstance(error, OSError) or (its_own and isinstance(error, Exception))


class WandbRun:
    """Sends metrics to one open W&B run. After W&B's first error, which is passed to `trouble`, no more metrics are sent."""

    missing: str | None = None

    def __init__(self, run: Any, trouble: Callable[[Exception], None], *, online: bool) -> None:
        self._run, self._trouble, self.is_whole = run, trouble, True
        self.run_id: str | None = run.id
        self.url: str | None = run.url if online else None

    def log_steps(self, steps: Sequence[StepMetrics]) -> None:
        """Log one row a step, of what it has."""
        with self._sending():
            for step in steps if self.is_whole else ():
                self._run.log(step.logged(), step=step.step)

    def log_epoch(self, epoch: EpochMetrics | TeacherEpoch) -> None:
        """Log an epoch's metrics into the row of its last step."""
        with self._sending():
            if self.is_whole:
                self._run.log(logged_epoch(epoch), step=epoch.step)

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Add the values that are not None to the run's summary."""
        with self._sending():
            if self.is_whole:
                self._run.summary.update({name: value for name, value in values.items() if value is not None})

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Log a wandb.Table under `name`."""
        with self._sending():
            if self.is_whole:
                self._run.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def log_model(self, name: str, files: Mapping[str, Path], metadata: Mapping[str, Any]) -> None:
        """Log a wandb.Artifact of type `model`; its files are copied to W&B's staging folder first."""
        with self._sending():
            if self.is_whole:
                artifact = wandb.Artifact(name, type="model", metadata=dict(metadata))
                for inside, path in files.items():
                    add = artifact.add_dir if path.is_dir() else artifact.add_file
                    add(str(path), name=inside)
                self._run.log_artifact(artifact)

    def finish(self, *, exit_code: int) -> None:
        """Close the run, also after an error of W&B."""
        with self._sending():
            self._run.finish(exit_code=exit_code)

    @contextmanager
    def _sending(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not is_trouble(error):
                raise
            self.is_whole = False
            self._trouble(error)


class WandbTracker:
    """Opens runs in `folder`/wandb, online or offline. After W&B's first error, which is reported by `say`, all later runs are offline."""

    def __init__(
        self, folder: Path, group: str, tracking: TrackingConfig, mode: Mode, say: Callable[[str], None] = print
    ) -> None:
        self._folder, self._group, self._tracking = folder, group, tracking
        self.mode, self._say, self._has_said = mode, say, False
        self._went_offline: Exception | None = None
        """The error for which runs are now offline; reported as soon as a run is open on this disk."""

    @contextmanager
    def run(self, label: RunLabel, config: Mapping[str, Any]) -> Iterator[Run]:
        """Run the block with one open W&B run, finished when the block ends: as failed where it ends by an exception.

        Where W&B cannot even write a run to this disk, it is a `NullRun` with the reason in `missing`.
        """
        made = self._folders_from_here(label.run_id)
        opened = self._open(label, config)
        try:
            yield opened
        except BaseException:
            self._close(opened, made, exit_code=1)
            raise
        self._close(opened, made, exit_code=0)

    def amend(self, run_id: str, values: Mapping[str, Any]) -> None:
        """Add values to the summary of an ended run by W&B's public API. After a failure, which is reported, nothing more is tried: each try may
        wait in vain for a server."""
        if self.mode == "offline":
            return
        owner = f"{self._tracking.entity}/" if self._tracking.entity else ""
        try:
            run: Any = wandb.Api(timeout=INIT_SECONDS).run(f"{owner}{self._tracking.project}/{run_id}")
            run.summary.update(dict(values))
        except Exception as error:
            if not (is_trouble(error) or isinstance(error, ValueError)):  # ValueError: no key
                raise
            self.mode = "offline"
            self._say(
                f"W&B did not take what is new for {run_id} ({_one_line(error)}), nor the runs after it; the report has it"
            )

    def _open(self, label: RunLabel, config: Mapping[str, Any]) -> WandbRun | NullRun:
        """Open a run, online where that is the mode, otherwise or after an error offline; return a `NullRun` where both fail."""
        missing = ""
        for mode in dict.fromkeys((self.mode, OFFLINE)):
            made = self._folders_from_here(label.run_id)
            try:
                opened = self._init(label, config, mode)
            except BaseException as error:
                if not is_trouble(error):  # such as a request to stop: the exit must not wait for a server
                    stop_client()
                    raise
                missing = _one_line(error)
                self._went_offline, self.mode = self._went_offline or (error if mode == "online" else None), OFFLINE
            else:
                if self._went_offline:
                    self._tell(self._went_offline)
                return opened
            stop_client()  # it keeps the run's id in use, and would continue to send the run
            for empty in made():
                shutil.rmtree(empty, ignore_errors=True)
        return NullRun(missing=missing)

    def _close(self, opened: WandbRun | NullRun, made: Callable[[], set[Path]], *, exit_code: int) -> None:
        """Finish a run; rename the folder of an online run that was not sent whole to that of an offline run, so that wandb sync finds it."""
        if isinstance(opened, NullRun):
            return
        opened.finish(exit_code=exit_code)
        if opened.is_whole:
            return
        stop_client()
        for unsent in made():
            with suppress(OSError):
                unsent.rename(unsent.with_name(f"offline-{unsent.name}"))

    def _folders_from_here(self, run_id: str) -> Callable[[], set[Path]]:
        """Return a function that finds the folders of online runs of this id made after this call."""

        def found() -> set[Path]:
            return set((self._folder / "wandb").glob(f"run-*-{run_id}"))

        before = found()
        return lambda: found() - before

    def _trouble(self, error: Exception) -> None:
        """Switch to offline after an error in an open run, and report it; the run's file stays on this disk."""
        self.mode = OFFLINE
        self._tell(error)

    def _tell(self, error: Exception) -> None:
        if not self._has_said:
            self._has_said = True
            self._say(
                f"W&B is in trouble ({_one_line(error)}); training goes on, the records have every number, runs are kept "
                "offline from here on and wandb sync sends them later"
            )

    def _init(self, label: RunLabel, config: Mapping[str, Any], mode: Mode) -> WandbRun:
        run: Any = wandb.init(
            mode=mode,
            entity=self._tracking.entity,
            project=self._tracking.project,
            dir=str(self._folder),
            id=label.run_id,
            name=label.name,
            group=self._group,
            job_type=label.job_type,
            tags=list(dict.fromkeys((*self._tracking.tags, *label.tags))),
            config={**config, **label.facts},
            reinit="finish_previous",  # the default returns the run that is open
            settings=_settings(),
        )
        for name in STEP_METRICS:
            run.define_metric(name, step_metric="step")
        run.define_metric("val_*", step_metric="epoch")
        run.define_metric("val_accuracy", step_metric="epoch", summary="max,last")
        return WandbRun(run, self._trouble, online=mode == "online")


def stop_client() -> None:
    """Stop W&B's client process; wait at most `STOP_CLIENT_SECONDS` for its end, because it may itself wait for a server that does not answer.

    The next run starts a new client in either case.
    """
    stopping = threading.Thread(target=_teardown, daemon=True)
    stopping.start()
    stopping.join(STOP_CLIENT_SECONDS)
    wandb.run = None  # finish() does not reset it where the client died before the call


def _teardown() -> None:
    try:
        wandb.teardown()
    except Exception as error:
        if not is_trouble(error):
            raise


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _settings() -> wandb.Settings:
    """Return those of `SETTINGS` that this W&B has; `reach` reports the others."""
    return wandb.Settings(**{name: value for name, value in SETTINGS.items() if name in wandb.Settings.model_fields})


def reach(mode: Literal["auto", "online", "offline"]) -> tuple[Mode, str]:
    """Return how W&B can be reached, and why in a few words. Raises ConfigError where W&B's own settings are not valid.

    Where W&B lacks some of `SETTINGS`, runs are written to this disk alone: they might hold facts about the machine, and the user decides
    whether to send them with wandb sync.
    """
    _check_settings()
    lacked = [name for name in SETTINGS if name not in wandb.Settings.model_fields]
    if lacked:
        return "offline", f"{_lacks(lacked)}, so runs may tell of this machine: none is sent before wandb sync"
    if mode == "offline":
        return "offline", "as the sweep file says"
    try:
        if wandb.login(prompt=False, verify=True):
            return "online", "the server answered"
        return "offline", "no W&B key is configured"
    except Exception as error:
        if not is_trouble(error):
            raise
        return "offline", f"W&B did not let us in: {_one_line(error)}"


def _lacks(settings: Sequence[str]) -> str:
    known = f"{TESTED['wandb']} has {'it' if len(settings) == 1 else 'them'}"
    return f"wandb {wandb.__version__} has no setting {', '.join(settings)} ({known})"


def _check_settings() -> None:
    try:
        wandb.setup()
    except (ValueError, wandb.errors.UsageError) as error:  # in the environment or W&B's settings file
        raise ConfigError(
            f"W&B's settings must be valid, but got: {_one_line(error)}; mend the variable WANDB_… that it names, or say "
            "tracking.mode=off"
        ) from error
