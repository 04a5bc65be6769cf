"""Show a sweep in W&B as its users browse: the project's saved view, and a report in words."""

import re
from collections.abc import Callable

from kdsweep.analysis.finalists import Finalist, Finals
from kdsweep.analysis.shipped import best_run
from kdsweep.records.reading import read_pages
from kdsweep.records.schema import Pages
from kdsweep.records.writing import write_pages
from kdsweep.reporting.build import Report
from kdsweep.reporting.markdown import render_markdown
from kdsweep.tracking.open import WORKSPACE_NEEDS

NOT_SENT = ("Provenance",)
"""Parts of the report that tell of this machine."""


def show_pages(report: Report, finals: Finals, say: Callable[[str], None]) -> Pages | None:
    """Save view and report in W&B, keep where they are, and return that; after a failure, which `say` is told in one line, return None.

    Nothing is lost by a failure, whatever it is: W&B's package for views is in public preview, and a server answers it.
    """
    folder = report.records.folder
    again = f"python -m kdsweep.publish {report.folder}"
    try:
        from kdsweep.tracking.pages import save_pages
        from kdsweep.tracking.workspace import Shown

        best = finals.best("fine_tuned")
        shown = Shown(
            sweep=report.records.sweep,
            baseline=_run_ids(report, best)[0] if best and _run_ids(report, best) else None,
            pinned=tuple(name for row in finals.best_first for name in _run_ids(report, row)),
            headline=report.headline,
            sections=sections(report),
            task=report.records.task,
        )
        pages = save_pages(shown, read_pages(folder))
        write_pages(folder, pages)
    except ModuleNotFoundError:
        say(f"{WORKSPACE_NEEDS}, then {again}")
    except Exception as error:
        why = " ".join(str(error).split())[:200]
        say(
            f"tracking.workspace: W&B has no new view and report ({type(error).__name__}: {why}); all else is there, and {again} "
            "tries again"
        )
    else:
        return pages
    return None


def sections(report: Report) -> tuple[tuple[str, str], ...]:
    """Return the report as headings and what stands below each in Markdown: all but what tells of this machine."""
    first, *rest = re.split(r"^## ", render_markdown(report), flags=re.MULTILINE)
    told = [("Verdict", first.partition("\n")[2].strip())]
    for part in rest:
        heading, _, text = part.partition("\n")
        told.append((heading.strip(), text.strip()))
    return tuple(part for part in told if part[0] not in NOT_SENT)


def _run_ids(report: Report, row: Finalist) -> list[str]:
    """Return the W&B runs of a finalist, that of its best run first."""
    best = best_run(row.runs, report.records.sweep)
    runs = [best, *(run for run in row.runs if run is not best)]
    return [run.result.run_id for run in runs if run.result and run.result.run_id]
