"""A sweep's progress in a notebook, and its supervision in a thread, where no signal can be heard."""

import io
import threading
from pathlib import Path
from typing import Any

import IPython.display
import pytest
from rich.console import Console
from searches import run_next, sweep_of

from kdsweep.engine import notebook
from kdsweep.engine.display import SweepDisplay
from kdsweep.engine.events import Phase
from kdsweep.engine.notebook import NotebookLive
from kdsweep.engine.supervisor import Supervisor
from kdsweep.engine.worker_process import WorkerStarter
from kdsweep.search.studies import Studies


class Cell:
    """The output of a notebook's cell: what it shows, and how often that was replaced."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def display(self, shown: Any, **_: Any) -> "Cell":
        self.update(shown)
        return self

    def update(self, shown: Any) -> None:
        self.shown.append(shown._repr_mimebundle_((), ())["text/plain"])


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Cell:
    made = Cell()
    monkeypatch.setattr(IPython.display, "display", made.display)
    return made


def test_bars_and_the_running_trial_are_one_output_that_is_replaced_now_and_then(cell: Cell) -> None:
    console = Console(file=io.StringIO(), force_jupyter=True)
    with SweepDisplay(console, sweep_of(trials=4), dict.fromkeys(sweep_of().stages, 0)) as display:
        assert "distilled" in cell.shown[0] and "0/4" in cell.shown[0]
        display.show(Phase("looking around"))
        display.show(Phase("fetching"))
        assert len(cell.shown) == 2 and "looking around" in cell.shown[1]
    assert "fetching" in cell.shown[-1], "what came last is shown at the end"
    assert "…" not in console.file.getvalue(), "a line a phase is for log files"  # type: ignore[attr-defined]


def test_a_moment_later_it_is_replaced_again(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    live = NotebookLive(lambda: "bars")
    live.refresh()
    assert cell.shown == [], "not before it was started"
    live.start()
    monkeypatch.setattr(notebook, "SECONDS", 0.0)
    live.refresh()
    live.refresh()
    assert len(cell.shown) == 3


def test_a_quiet_console_shows_nothing_live(cell: Cell) -> None:
    console = Console(file=io.StringIO(), force_jupyter=True, quiet=True)
    with SweepDisplay(console, sweep_of(), dict.fromkeys(sweep_of().stages, 0)) as display:
        display.show(Phase("fetching"))
    assert cell.shown == []


def test_a_sweep_is_supervised_in_a_thread_that_hears_no_signals(memory: Path) -> None:
    raised: list[BaseException] = []

    def supervise() -> None:
        sweep = sweep_of(trials=1)
        studies, display = (
            Studies(sweep, memory),
            SweepDisplay(Console(quiet=True), sweep, dict.fromkeys(sweep_of().stages, 0)),
        )
        run_next(studies, "distilled", lambda *_: 0.5)
        try:
            starter = WorkerStarter(memory, workers=0, devices=[])
            Supervisor(sweep, memory, studies, display, workers=0, starter=starter).run()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=supervise, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive() and raised == []
