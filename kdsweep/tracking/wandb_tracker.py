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
from typing import Any, Literal

import wandb

from kdsweep.config.sweep import TrackingConfig
from kdsweep.config.tasks import BEST_AND_LAST
from kdsweep.errors import ConfigError
from kdsweep.records.reading import read_pages
from kdsweep.records.schema import STEP_METRICS, Pages
from kdsweep.system.libraries import TESTED
from kdsweep.tracking.in_words import links, report_links
from kdsweep.tracking.names import RunLabel
from kdsweep.tracking.tracker import NullRun, Run
from kdsweep.tracking.wandb_run import WandbRun, is_trouble, one_line

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
SYSTEM_METRICS_OFF = ("x_disable_stats", "x_disable_machine_info")
"""Those of `SETTINGS` that must be off for system metrics, both; a command line, a host's name and its parts stay out all the same."""


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

    def amend(self, run_id: str, values: Mapping[str, Any], pages: Pages | None = None) -> None:
        """Add values to the summary, and links to `pages` to the notes, of an ended run by W&B's public API. After a failure, which is reported,
        nothing more is tried: each try may wait in vain for a server."""
        if self.mode == "offline":
            return
        owner = f"{self._tracking.entity}/" if self._tracking.entity else ""
        try:
            run: Any = wandb.Api(timeout=INIT_SECONDS).run(f"{owner}{self._tracking.project}/{run_id}")
            if pages and pages.report_url not in (run.notes or ""):
                run.notes = "\n\n".join([*([run.notes] if run.notes else []), *report_links(pages)])
                run.update()
            if values:
                run.summary.update(dict(values))
        except Exception as error:
            if not (is_trouble(error) or isinstance(error, ValueError)):  # ValueError: no key
                raise
            self.mode = "offline"
            self._say(
                f"W&B did not take what is new for {run_id} ({one_line(error)}), nor the runs after it; the report has it"
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
                missing = one_line(error)
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
                f"W&B is in trouble ({one_line(error)}); training goes on, the records have every number, runs are kept "
                "offline from here on and wandb sync sends them later"
            )

    def _init(self, label: RunLabel, config: Mapping[str, Any], mode: Mode) -> WandbRun:
        pages = read_pages(self._folder)
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
            notes="\n\n".join([label.notes, *links(pages, None, self._group)]).strip() or None,
            reinit="finish_previous",  # the default returns the run that is open
            settings=_settings(system_metrics=self._tracking.system_metrics),
        )
        if label.notes and mode == "online":  # its project's address is known only now
            run.notes = "\n\n".join([label.notes, *links(pages, run.project_url, self._group)])
        for name in STEP_METRICS:
            run.define_metric(name, step_metric="step")
        run.define_metric("val_*", step_metric="epoch")
        for metric in BEST_AND_LAST:
            run.define_metric(metric, step_metric="epoch", summary="max,last")
        return WandbRun(run, self._trouble, self._say, online=mode == "online")


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


def _settings(*, system_metrics: bool) -> wandb.Settings:
    """Return those of `SETTINGS` that this W&B has, with system metrics where they are wanted; `reach` reports the others."""
    wanted = dict(SETTINGS) | dict.fromkeys(SYSTEM_METRICS_OFF, not system_metrics)
    return wandb.Settings(**{name: value for name, value in wanted.items() if name in wandb.Settings.model_fields})


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
        return "offline", f"W&B did not let us in: {one_line(error)}"


def _lacks(settings: Sequence[str]) -> str:
    known = f"{TESTED['wandb']} has {'it' if len(settings) == 1 else 'them'}"
    return f"wandb {wandb.__version__} has no setting {', '.join(settings)} ({known})"


def _check_settings() -> None:
    try:
        wandb.setup()
    except (ValueError, wandb.errors.UsageError) as error:  # in the environment or W&B's settings file
        raise ConfigError(
            f"W&B's settings must be valid, but got: {one_line(error)}; mend the variable WANDB_… that it names, or say "
            "tracking.mode=off"
        ) from error
