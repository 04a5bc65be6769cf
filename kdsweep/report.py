"""Write a sweep's report from its results folder alone: `python -m kdsweep.report`.

    python -m kdsweep.report results/T_alpha
    python -m kdsweep.report results/T_alpha /elsewhere/T_alpha      with the trials of a host that shares no folder
    python -m kdsweep.report results/T_alpha --audit                 W&B's runs beside the records

A half-finished sweep has a report too, which says what is missing.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kdsweep.errors import KDSweepError
from kdsweep.system.process import ends_with_its_reader, for_good

EPILOG = """\
examples:
  python -m kdsweep.report results/T_alpha                     the page is results/T_alpha/report.html
  python -m kdsweep.report results/T_alpha /mnt/b/T_alpha      with students and steps of a host that shares no folder
  python -m kdsweep.report results/T_alpha --audit             is every row of the records in W&B's runs on this disk?

Of another host's folder the report takes trials that the first one lacks or has unfinished, and the records, students and
predictions of those that it knows from the study alone. An audit reads every run in results/T_alpha/wandb by W&B's own reader
(half a second each), and names each missing or different step, epoch, config and summary, each run without record and each
record without run; W&B writes an online run's log up to 15 seconds late while its worker lives.

exit codes: 0 done, 2 a problem that the message explains or a gap
"""


@ends_with_its_reader
def main(arguments: Sequence[str] | None = None, *, prog: str = "python -m kdsweep.report") -> int:
    """Write a sweep's report and print its summary, or print an audit; return 0, or 2 for a problem or a gap."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Rank a sweep's trials and say whether distilling helped; works on a sweep that still runs.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folder", type=Path, help="a sweep's results folder, such as results/T_alpha; the report goes here"
    )
    parser.add_argument(
        "others", type=Path, nargs="*", help="the same sweep's folders on hosts that share no results folder"
    )
    parser.add_argument("--audit", action="store_true", help="compare W&B's runs with the records; writes nothing")
    options = parser.parse_intermixed_args(arguments)
    with for_good():
        from kdsweep.reporting.markdown import terminal_text
        from kdsweep.reporting.write import write_report
        from kdsweep.tracking.audit import audit, audit_text
    try:
        if options.audit:
            done = audit(options.folder, *options.others)
            print(audit_text(done))
            return 2 if done.gaps() else 0
        print(terminal_text(write_report(options.folder, *options.others)))
    except KDSweepError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
