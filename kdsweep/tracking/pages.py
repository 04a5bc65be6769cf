"""Save a project's view and a sweep's report in W&B: each is updated where it is there already, and never made twice.

The view has one name in every project, so all sweeps of a project find the same one, on whatever machine they run; the report is found
by its id, which the results folder keeps. What somebody changed in W&B's app in either is overwritten: a copy there keeps it.
wandb-workspaces is in public preview, and has no public way to look for a view: its private parts are used here alone.
"""

import io
from contextlib import redirect_stderr
from typing import Any
from urllib.parse import quote

import wandb

from kdsweep.records.schema import Pages
from kdsweep.tracking.workspace import Shown, build_report, build_view, internal

VIEW_ID = "kdsweepview"
"""What W&B's address of the view ends with, `?nw=kdsweepview`; W&B stores it under the name `nw-kdsweepview-v`."""
SERVER_SECONDS = 30
FIND_VIEW = """
query KdsweepView($entity: String, $project: String, $view: String) {
    project(name: $project, entityName: $entity) {
        allViews(viewType: "project-view", viewName: $view) { edges { node { id } } }
    }
}
"""
FIND_REPORT = "query KdsweepReport($id: ID!) { view(id: $id) { id } }"


def save_pages(shown: Shown, before: Pages | None) -> Pages:
    """Save view and report, and return where they are; `before` is where they were. Raises whatever W&B and its packages raise."""
    api: Any = wandb.Api(timeout=SERVER_SECONDS)
    entity = shown.sweep.tracking.entity or api.default_entity
    with redirect_stderr(io.StringIO()):  # the package says what it saved, a line each
        view_url = _save_view(api, build_view(shown, entity))
        known = before if before and _has_report(api, before.report_id) else None
        report = build_report(shown, entity, known, view_url).save()
    return Pages(view_url=view_url, report_url=_address(report.url), report_id=report.id)


def _save_view(api: Any, workspace: Any) -> str:
    """Save the view in the place of the one of its name, if there is one; return its address."""
    view = grouped_in_the_table_alone(workspace)
    view.name = f"nw-{VIEW_ID}-v"
    asked = {"entity": view.entity, "project": view.project, "view": view.name}
    project = internal.execute_graphql(api, FIND_VIEW, asked).get("project") or {}
    edges = (project.get("allViews") or {}).get("edges") or []
    view.id = edges[0]["node"]["id"] if edges else ""
    workspace._internal_name = internal.upsert_view2(view)["upsertView"]["view"]["name"]
    return _address(workspace.url)


def grouped_in_the_table_alone(workspace: Any) -> Any:
    """Return the model of a view whose panels show single runs, although its table groups them: a group would be one point of a plot."""
    view = workspace._to_model()
    view.spec.section.settings.use_runs_table_grouping_in_panels = False
    for section in view.spec.section.panel_bank_config.sections:
        section.local_panel_settings.use_runs_table_grouping_in_panels = False
    return view


def _has_report(api: Any, report_id: str) -> bool:
    """Return whether W&B still has a report: somebody may have deleted it."""
    return bool(internal.execute_graphql(api, FIND_REPORT, {"id": report_id}).get("view"))


def _address(url: str) -> str:
    """Return an address in which blanks and their like are escaped, as those of a project's name."""
    return quote(url, safe=":/?&=%")
