"""The page in a real browser: it opens without network, sorts, filters, hovers, copies, changes colours, fits a phone.

Chromium is the machine's own (Debian's package `chromium`, or Chrome); without one the tests are skipped.
"""

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports import an_export
from makers import ROWS, make_finals, make_full, make_predictions, make_sweep, make_teacher, make_trial

from kdsweep.analysis.shipped import shipped
from kdsweep.config.arms import PRIMARY
from kdsweep.records.layout import TrialId, export_folder
from kdsweep.records.whole_sweep import read_records
from kdsweep.records.writing import write_export
from kdsweep.reporting.write import write_report

playwright = pytest.importorskip("playwright.sync_api", reason="the browser is driven by playwright: kdsweep[test]")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt install chromium")]

Point = dict[str, Any]
PHONE = {"width": 400, "height": 800}
DESK = {"width": 1320, "height": 900}


def point(draw: random.Random) -> Point:
    return {
        "temperature": 16 ** draw.random(),
        "alpha": draw.random(),
        "learning_rate": 10 ** draw.uniform(-5, -3),
        "batch_size": draw.choice((32, 64)),
    }


def finished(folder: Path, trials: int = 60) -> None:
    """Both arms, good where temperature is high; a sixth pruned, some failed, students of two sizes."""
    sweep, draw = make_sweep(folder), random.Random(0)
    make_teacher(folder)
    for arm in PRIMARY:
        for trial in range(trials):
            chosen = point(draw)
            right = np.array([draw.random() for _ in range(ROWS)]) < 0.5 + 0.02 * chosen["temperature"] * (
                arm == "distilled"
            )
            changes: dict[str, Any] = {
                "parameters": draw.choice((12_000_000, 16_000_000)),
                "latency_ms_p50": 3 + draw.random(),
            }
            if trial % 6 == 5:
                changes |= {"status": "pruned", "error": "below the median at epoch 1", "epochs": 1}
            elif trial % 25 == 24:
                changes |= {"status": "failed", "error": "L_total is nan at step 7", "epochs": 0, "val_accuracy": None}
            make_trial(folder, sweep, arm, trial, chosen, float(right.mean()), **changes)
            if trials <= 100:
                make_predictions(folder, arm, trial, right)


def only_one(folder: Path) -> None:
    sweep = make_sweep(folder)
    make_teacher(folder)
    make_trial(folder, sweep, "distilled", 0, point(random.Random(0)), 0.8)


def all_failed(folder: Path) -> None:
    sweep, draw = make_sweep(folder), random.Random(0)
    make_teacher(folder)
    for trial in range(8):
        error = (
            "a loss that is not finite: L_total is nan at step 7, epoch 1, with learning_rate 0.00098 and batch_size 64"
        )
        changes: dict[str, Any] = {"status": "failed", "error": error, "epochs": 0, "val_accuracy": None}
        changes |= {
            "parameters": None,
            "size_mb": None,
            "latency_ms_p50": None,
            "rows_per_second": None,
            "val_agreement": None,
        }
        make_trial(folder, sweep, PRIMARY[trial % 2], trial // 2, point(draw), 0.0, **changes)


def running(folder: Path) -> None:
    sweep = make_full(folder)
    make_trial(folder, sweep, "distilled", 4, point(random.Random(1)), 0.7, status=None, epochs=1)


def thousand(folder: Path) -> None:
    finished(folder, trials=500)


def exported(folder: Path) -> None:
    """Few trials, finalists, and the exports of the run to ship and of a fine-tuned one."""
    make_finals(folder, 0.8, 0.79)
    run = shipped(read_records(folder))
    assert run is not None
    for trial in (run.id, TrialId("fine_tuned", 0, 1)):
        there = export_folder(folder, trial)
        there.mkdir(parents=True)
        write_export(there, an_export(run=there.name, arm=trial.arm, trial=trial.number, seed=trial.seed))


CASES: dict[str, Callable[[Path], None]] = {
    "finished": finished,
    "only_one": only_one,
    "all_failed": all_failed,
    "running": running,
    "thousand": thousand,
    "exported": exported,
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`written("finished")`: the page of a case, written once."""
    root = tmp_path_factory.mktemp("pages")

    def write(case: str) -> Path:
        folder = root / case
        if not folder.exists():
            CASES[case](folder)
            write_report(folder)
        return folder / "report.html"

    return write


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Closed with this file: while it runs, nothing else in the process can run an event loop."""
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


class Opened:
    """A page that was opened, with everything that it asked for or complained of."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": DESK, **options})
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.said: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.goto(path.as_uri())

    def column(self, number: int) -> list[str]:
        """Texts of a column of the leaderboard's visible rows, from 1."""
        return list(self.page.locator(f".board tbody tr:visible td:nth-child({number})").all_inner_texts())

    def columns(self) -> list[str]:
        return list(self.page.locator(".board thead th").all_inner_texts())


Open = Callable[..., Opened]


@pytest.fixture
def opened(browser: Any, written: Callable[[str], Path]) -> Iterator[Open]:
    """`opened("finished", viewport=PHONE)`; keywords are the browser context's."""
    contexts: list[Any] = []

    def open_case(case: str, **options: Any) -> Opened:
        found = Opened(browser, written(case), **options)
        contexts.append(found.context)
        return found

    yield open_case
    for context in contexts:
        context.close()


@pytest.mark.parametrize("case", CASES)
def test_every_case_opens_without_a_request_or_a_complaint_and_draws_what_it_has(opened: Open, case: str) -> None:
    found = opened(case)
    assert [url for url in found.asked if not url.startswith(("file:", "blob:", "data:"))] == []
    assert len([url for url in found.asked if url.startswith("file:")]) == 1, "the page itself and nothing else"
    assert found.said == []
    figures = found.page.locator(".plot").count()
    assert found.page.locator(".plot .main-svg").count() >= figures and (figures > 0) == (case != "all_failed")
    assert all(
        found.page.locator(f"{link}").count() == 1
        for link in found.page.locator("nav a").evaluate_all("links => links.map(link => link.hash)")
    )


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("case", CASES)
def test_a_phone_of_400_pixels_scrolls_no_page_sideways(opened: Open, case: str, colours: str) -> None:
    page = opened(case, viewport=PHONE, color_scheme=colours).page
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_every_column_sorts_numbers_as_numbers_in_both_directions(opened: Open) -> None:
    found = opened("finished")
    headers = found.page.locator(".board thead th")
    for number in range(1, headers.count() + 1):
        button = headers.nth(number - 1).locator("button")
        orders = []
        for way in ("ascending", "descending"):
            for _ in range(2):
                if headers.nth(number - 1).get_attribute("aria-sort") != way:
                    button.click()
            assert headers.nth(number - 1).get_attribute("aria-sort") == way
            assert found.page.locator(".board th[aria-sort]").count() == 1
            keys = found.page.evaluate(
                "n => [...document.querySelectorAll('.board tbody tr')].map(r => r.cells[n].dataset.v ?? r.cells[n].textContent)",
                number - 1,
            )
            known = [key for key in keys if key != "–"]
            assert keys == known + ["–"] * (len(keys) - len(known)), "unknown values stand last"
            orders.append(list(map(float, known)) if known[0][0].isdigit() else known)
        assert orders[0] == sorted(orders[0]) and orders[1] == sorted(orders[0], reverse=True)


def test_the_keyboard_sorts_and_skips_to_the_answer(opened: Open) -> None:
    page = opened("finished").page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "answer"
    page.locator(".board thead button").nth(4).focus()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert page.locator(".board th").nth(4).get_attribute("aria-sort") == "ascending"


def test_the_leaderboard_is_filtered_by_text_arm_and_status(opened: Open) -> None:
    found = opened("finished")
    total = found.page.locator(".board tbody tr").count()
    found.page.locator("select[name=arm]").select_option("fine-tuned")
    assert set(found.column(2)) == {"fine-tuned"}
    found.page.get_by_label("Status").select_option("pruned")
    assert set(found.column(4)) == {"pruned"} and len(found.column(4)) == 10
    assert found.page.locator(".filters output").inner_text() == f"10 of {total} trials"
    found.page.get_by_label("Filter").fill("Fine-Tuned no-such-word")
    assert found.column(1) == []


def test_a_long_leaderboard_is_folded_until_someone_asks(opened: Open) -> None:
    found = opened("thousand")
    assert len(found.column(1)) == 50
    found.page.get_by_role("button", name="Show all 1,000").click()
    assert len(found.column(1)) == 1000


def test_hovering_a_figure_tells_the_trial(opened: Open) -> None:
    page = opened("finished").page
    plot = page.locator(".plot[data-figure=data-map]")
    plot.scroll_into_view_if_needed()
    page.locator(".plot[data-figure=data-map] .point").last.hover(force=True)
    page.wait_for_selector(".plot[data-figure=data-map] .hoverlayer .hovertext")
    text = page.locator(".plot[data-figure=data-map] .hoverlayer").text_content()
    assert "trial" in text and "temperature" in text and "val_accuracy" in text


FORMS = """width => {
  const plots = [...document.querySelectorAll("section[aria-labelledby=forms] .plot")];
  const inside = box => box.left >= 0 && box.right <= width + 1;
  return plots.map(plot => ({
    marks: plot.querySelectorAll(".scatterlayer .point").length,
    colours: new Set([...plot.querySelectorAll(".scatterlayer .point")].map(p => getComputedStyle(p).fill + getComputedStyle(p).stroke)).size,
    names: [...plot.querySelectorAll(".annotation-text")].map(text => text.textContent),
    inside: [...plot.querySelectorAll(".annotation-text, .point")].every(each => inside(each.getBoundingClientRect())),
  }));
}"""


@pytest.mark.parametrize(("width", "colours"), [(1320, "light"), (390, "dark")])
def test_forms_are_drawn_named_and_told_on_a_desk_a_phone_and_paper(opened: Open, width: int, colours: str) -> None:
    page = opened("exported", viewport={"width": width, "height": 800}, color_scheme=colours).page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    latency, size = page.evaluate(FORMS, width)
    assert latency["marks"] == size["marks"] == 7 and latency["colours"] >= 3
    assert {*latency["names"]} == {"int8", "ONNX", "PyTorch", "teacher", "margin"}
    assert latency["inside"] and size["inside"]
    page.locator(".plot[data-figure=data-forms-size] .point").last.hover(force=True)
    page.wait_for_selector(".plot[data-figure=data-forms-size] .hoverlayer .hovertext")
    assert "teacher" in page.locator(".plot[data-figure=data-forms-size] .hoverlayer").text_content()
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.set_viewport_size({"width": 690, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= 690


LOOK = """() => ({
  page: getComputedStyle(document.body).backgroundColor,
  text: getComputedStyle(document.querySelector('.plot .xtick text')).fill,
  curve: getComputedStyle(document.querySelector('.plot[data-figure=data-val_accuracy] .js-line')).stroke,
  grid: getComputedStyle(document.querySelector('.plot .gridlayer path')).stroke,
})"""


@pytest.mark.parametrize("system", ["light", "dark"])
def test_the_button_changes_the_page_and_its_figures_and_back(opened: Open, system: str) -> None:
    page = opened("finished", color_scheme=system).page
    first = page.evaluate(LOOK)
    page.locator("#theme").click()
    second = page.evaluate(LOOK)
    assert all(first[key] != second[key] for key in first)
    page.reload()
    assert page.evaluate(LOOK) == second, "the choice is kept"
    page.locator("#theme").click()
    assert page.evaluate(LOOK) == first


def test_the_system_changes_the_page_and_its_figures(opened: Open) -> None:
    page = opened("finished", color_scheme="light").page
    first = page.evaluate(LOOK)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(
        "before => getComputedStyle(document.querySelector('.plot .xtick text')).fill !== before", arg=first["text"]
    )
    second = page.evaluate(LOOK)
    assert all(first[key] != second[key] for key in first)


def test_every_command_has_a_button_that_copies_it(opened: Open) -> None:
    found = opened("finished", permissions=["clipboard-read", "clipboard-write"])
    commands = found.page.locator(".commands code").all_text_contents()
    buttons = found.page.locator(".commands .copy")
    assert buttons.count() == len(commands) > 1
    for number, command in enumerate(commands):
        buttons.nth(number).click()
        found.page.wait_for_function("n => document.querySelectorAll('.copy')[n].textContent === 'Copied'", arg=number)
        assert found.page.evaluate("navigator.clipboard.readText()") == command


def test_without_javascript_every_row_and_reason_is_there_and_no_dead_button(opened: Open) -> None:
    found = opened("finished", java_script_enabled=False)
    assert len(found.column(1)) == 120
    assert found.page.locator("button:visible").count() == 0 and found.page.locator("form:visible").count() == 0
    assert "need JavaScript" in found.page.inner_text("main")
    assert "L_total is nan at step 7" in found.page.inner_text("main")


def test_print_is_light_without_buttons_and_cuts_no_figure(opened: Open) -> None:
    page = opened("finished", color_scheme="dark").page
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator(".quiet:visible, .filters:visible, nav:visible").count() == 0
    assert page.evaluate(
        "[...document.querySelectorAll('figure')].every(f => getComputedStyle(f).breakInside === 'avoid')"
    )
    assert page.evaluate(
        "[...document.querySelectorAll('.plot .main-svg')].every(f => f.getBoundingClientRect().width <= 700)"
    )
    page.set_viewport_size({"width": 690, "height": 900})  # the paper's width without its margins
    assert page.evaluate("document.documentElement.scrollWidth") <= 690
    assert len(page.pdf()) > 10_000


def test_the_headings_step_by_one_and_every_landmark_is_there_once(opened: Open) -> None:
    page = opened("finished").page
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))
    for role in ("banner", "navigation", "main", "contentinfo"):
        assert page.get_by_role(role).count() == 1
    unnamed = "[...document.querySelectorAll('input, select, button, [role=img], [role=region]')].filter(e => !(e.labels?.length"
    unnamed += " || e.ariaLabel || e.title || e.getAttribute('aria-labelledby') || e.textContent.trim())).length"
    assert page.evaluate(unnamed) == 0


def test_a_thousand_trials_make_a_page_under_6_megabytes(written: Callable[[str], Path]) -> None:
    assert written("thousand").stat().st_size < 6_000_000
