"""Show a finished sweep in W&B, once its runs are there: `python -m kdsweep.publish`.

    wandb sync results/T_alpha/wandb/offline-run-*
    python -m kdsweep.publish results/T_alpha

It saves the project's view and the sweep's report, or updates them, and gives the finalists' runs their ranks.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from kdsweep.errors import ConfigError, KDSweepError, ResultsError
from kdsweep.system.process import ends_with_its_reader

EPILOG = """\
examples:
  python -m kdsweep.publish results/T_alpha                    after: wandb sync results/T_alpha/wandb/offline-run-*
  python -m kdsweep.publish results/T_alpha /mnt/b/T_alpha     with what a host that shares no folder recorded

A sweep with tracking.workspace: true does the same by itself when its finalists are done and W&B is online. The view is the
project's and shows the sweep that was published last; the report is the sweep's. Both are updated, never made twice: what somebody
changed in them is overwritten, a copy keeps it. Their addresses are kept in workspace.json. It needs the extra workspace:
pip install 'kdsweep[workspace]'.

exit codes: 0 done, 2 a problem that the message explains
"""


@ends_with_its_reader
def main(arguments: Sequence[str] | None = None, *, prog: str = "python -m kdsweep.publish") -> int:
    """Publish a sweep's view, report and ranks in W&B and print the addresses; return 0, or 2 for a problem."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Save or update a sweep's view and report in W&B, for runs that are there by now.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="a sweep's results folder, such as results/T_alpha")
    parser.add_argument(
        "others", type=Path, nargs="*", help="the same sweep's folders on hosts that share no results folder"
    )
    options = parser.parse_args(arguments)
    try:
        return _publish(options.folder, options.others)
    except KDSweepError as error:
        print(error, file=sys.stderr)
        return 2


def _publish(folder: Path, others: Sequence[Path]) -> int:
    """Publish what a results folder holds, whatever its `tracking.mode` and `tracking.workspace`: the user asks for it now."""
    from kdsweep.engine.publish import publish  # this and the next take seconds to import
    from kdsweep.records.reading import read_pages, read_sweep_key
    from kdsweep.reporting.build import build_report
    from kdsweep.tracking.open import resolved_mode

    report = build_report(folder, *others)
    found = report.records
    if report.finals is None:
        raise ResultsError(f"view and report show finalists, but no finalist of {folder} is complete yet")
    key = read_sweep_key(folder)
    if key is None:
        raise ResultsError(
            f"view and report show W&B's runs, but {folder} has no sweep_key: it ran with tracking.mode=off, or under a version "
            "whose runs had no key; its sweep file draws one when the sweep is continued"
        )
    tracking = dataclasses.replace(found.sweep.tracking, mode="online", workspace=True)
    mode, why = resolved_mode(tracking)
    if mode != "online":
        raise ConfigError(
            f"W&B must be online to publish, but is not: {why}; wandb login, or WANDB_API_KEY, names an account"
        )
    sweep = dataclasses.replace(found.sweep, tracking=tracking)
    asked = dataclasses.replace(report, records=dataclasses.replace(found, sweep=sweep))
    done = publish(asked, report.finals, key, mode, lambda text: print(text, file=sys.stderr), again=True)
    pages = read_pages(folder)
    if done and pages:
        print(f"view:   {pages.view_url}\nreport: {pages.report_url}")
    return 0 if done else 2


if __name__ == "__main__":
    sys.exit(main())
