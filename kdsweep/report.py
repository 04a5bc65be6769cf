"""The report of a sweep, read from its results folder alone: a page, Markdown, and the leaderboard as CSV and JSON.

    python -m kdsweep.report results/T_alpha
    python -m kdsweep.report results/T_alpha /elsewhere/T_alpha      with the trials of a host that shares no folder
    python -m kdsweep.report results/T_alpha --audit                 W&B's runs beside the records

A half-finished sweep has a report too, which says what is missing.
"""

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from kdsweep import figures, leaderboard, records, search_figures, study_figures
from kdsweep.advice import Advice, advice
from kdsweep.answer import answer, compact, conventions, duration, final_answer, headline, number, percent, signed
from kdsweep.audit import audit, audit_text
from kdsweep.errors import KDSweepError
from kdsweep.files import write_atomically, write_json
from kdsweep.finalists import Finals, finals_json, read_finals, titled
from kdsweep.gathered import SweepRecords, read_records
from kdsweep.leaderboard import ARM_NAMES, ArmProgress, Row
from kdsweep.questions import questions, shipped
from kdsweep.records import TrialRow, read_test
from kdsweep.sweep_config import ARMS
from kdsweep.verdicts import Comparison, compare_predictions


@dataclass(frozen=True, kw_only=True)
class Report:
    """A sweep as plain data: what every format shows."""

    folder: str
    """The results folder as a command on this machine names it."""
    records: SweepRecords
    rows: tuple[Row, ...]
    """Both arms, best first, then those without rank."""
    searched: tuple[str, ...]
    arms: tuple[ArmProgress, ...]
    best_distilled: Row | None
    best_fine_tuned: Row | None
    comparison: Comparison | None
    """Best distilled against best fine-tuned, on the validation rows; None where a test is not possible."""
    finals: Finals | None
    """The best of both arms on fresh seeds and on the test split; None before the first of them is complete."""
    headline: str
    answer: str
    """One paragraph in words with numbers."""
    questions: tuple[tuple[str, str], ...]
    """What else a user asks, and the answers."""
    conventions: str
    """How students start and what alpha means."""
    advice: tuple[Advice, ...]
    """What the next sweep might change."""
    provenance: tuple[tuple[str, str], ...]
    commands: tuple[tuple[str, str], ...]
    """What each is for, and its text."""


def build_report(folder: Path, *others: Path) -> Report:
    """Read a results folder, and what other hosts' folders of the same sweep add. Raises ResultsError where there is none."""
    found = read_records(folder, *others)
    rows = leaderboard.leaderboard(found)
    first, second = leaderboard.best(rows, "distilled"), leaderboard.best(rows, "fine_tuned")
    comparison = _comparison(found, first, second)
    arms = leaderboard.progress(found, rows)
    finals, advised = read_finals(found), advice(found)
    return Report(
        folder=_shown_path(folder),
        records=found,
        rows=rows,
        searched=tuple(found.sweep.search),
        arms=arms,
        best_distilled=first,
        best_fine_tuned=second,
        comparison=comparison,
        finals=finals,
        headline=headline(first, second, comparison, finals),
        answer=final_answer(finals) if finals else answer(found, first, second, comparison, arms),
        questions=questions(found, finals, rows, advised),
        conventions=conventions(found),
        advice=advised,
        provenance=_provenance(found),
        commands=_commands(found, shipped(found, finals, rows)),
    )


def _comparison(found: SweepRecords, first: Row | None, second: Row | None) -> Comparison | None:
    """The paired test of the best of both arms; None where predictions or labels are not on disk."""
    if first is None or second is None:
        return None
    labels = records.read_validation_labels(*found.folders)
    both = [records.read_predictions(row.trial.folder) for row in (first, second)]
    if labels is None or both[0] is None or both[1] is None:
        return None
    return compare_predictions(both[0], both[1], np.asarray(labels))


def _shown_path(folder: Path) -> str:
    """The folder from here where it lies below here, so that a shared report names no home directory."""
    resolved = folder.resolve()
    return resolved.relative_to(Path.cwd()).as_posix() if resolved.is_relative_to(Path.cwd()) else str(folder)


# Where it comes from, and where to go --------------------------------------------------------------------------------


def _provenance(found: SweepRecords) -> tuple[tuple[str, str], ...]:
    teacher, done = found.teacher, [trial.result for trial in found.trials if trial.result]
    lines: list[tuple[str, str]] = []
    if teacher:
        split = f"{teacher.train_rows:,} train, {teacher.validation_rows:,} validation, {teacher.test_rows:,} test"
        lines += [
            ("teacher", teacher.teacher),
            ("teacher weights", f"sha256 {teacher.weights_sha256}"),
            ("data", f"sha256 {teacher.data_sha256}"),
            ("classes", ", ".join(teacher.label_names)),
            ("rows", split),
            ("duplicates dropped", f"{teacher.duplicates_dropped:,} training rows, in validation or test too"),
            ("teacher's fine-tuning", duration(teacher.fine_tuned_seconds) + ", from the cache" * teacher.from_cache),
            ("teacher's logits", duration(teacher.logits_seconds)),
        ]
    lines += _folders(found)
    for name in ("device", "threads", "precision"):
        used = Counter(str(getattr(trial.config, name)) for trial in found.trials)
        if used:
            listed = [f"{value} ({n} trials)" if len(used) > 1 else value for value, n in used.items()]
            lines.append((name, ", ".join(listed)))
    if done:
        lines.append(("all trials", f"{duration(sum(result.seconds for result in done))} of training and evaluation"))
    environments = [dict(item.environment) for item in ([teacher] if teacher else []) + done]
    for name in dict.fromkeys(key for environment in environments for key in environment):
        seen = dict.fromkeys(environment[name] for environment in environments if name in environment)
        lines.append((name, " and ".join(seen)))
    return tuple(lines)


def _folders(found: SweepRecords) -> list[tuple[str, str]]:
    """Which trials lie in other hosts' folders, and results that do not count."""
    lines = [
        (f"trials in {_shown_path(other)}", str(sum(trial.folder.is_relative_to(other) for trial in found.trials)))
        for other in found.others
    ]
    if found.spares:
        listed = ", ".join(_shown_path(folder) for folder in found.spares)
        lines.append(("spare results, not counted", f"{listed}: finished twice, with another result"))
    return lines


def _commands(found: SweepRecords, run: TrialRow | None) -> tuple[tuple[str, str], ...]:
    """The next commands, ready to paste; those of the best trial are left out where there is none."""
    commands = []
    folders = [shlex.quote(_shown_path(folder)) for folder in found.folders]
    if run:
        path, what = shlex.quote(_shown_path(run.folder)), f"trial {run.trial}"
        what += "" if run.finalist_seed is None else f" with seed {run.finalist_seed}"
        commands.append((f"Run {what} again and compare", f"python -m kdsweep.reproduce {path}"))
        if run.has_student():
            commands.append(("Load the student, without kdsweep", _load_snippet(_shown_path(run.folder / "student"))))
    commands.append(("Write this report again", f"python -m kdsweep.report {' '.join(folders)}"))
    if found.sweep.tracking.mode != "off":
        commands += [("Browse the runs in a terminal", f"wandb leet {folder}/wandb") for folder in folders]
        offline = " ".join(f"{folder}/wandb/offline-run-*" for folder in folders)
        commands.append(("Send offline runs to W&B", f"wandb sync {offline}"))
    return tuple(commands)


def _load_snippet(student: str) -> str:
    return (
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n"
        f"student = AutoModelForSequenceClassification.from_pretrained({student!r})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({student!r})"
    )


# Formats -------------------------------------------------------------------------------------------------------------


def render_html(report: Report) -> str:
    """The page: self-contained (plotly.js is inlined once), every text from data escaped."""
    found = report.records
    drawn = {
        "search": search_figures.search_maps(found),
        "curves": figures.learning_curves(found.trials),
        "cost": figures.accuracy_versus_cost(found),
        "calibration": (figures.calibration(_calibrated(report.finals)),),
        "importances": (study_figures.parameter_importances(found),),
        "parallel": (search_figures.parallel_coordinates(found),),
    }
    ranked = [row for row in report.rows if row.rank is not None]
    return _template().render(
        report=report,
        ranked=ranked,
        others=[row for row in report.rows if row.rank is None],
        verdict=report.finals.primary if report.finals and report.finals.primary else report.comparison,
        finalists=_finalists_table(report.finals) if report.finals else [],
        verdicts=_verdicts_table(report.finals) if report.finals else [],
        statuses=dict.fromkeys(row.status for row in report.rows),
        one_size=len({row.trial.result.parameters for row in ranked if row.trial.result}) == 1,
        drawn=drawn,
        arm_names=ARM_NAMES,
        whisker=partial(_whisker, _scale(ranked)),
        css=_beside("report.css"),
        js=_beside("report.js"),
        plotly_js=figures.plotly_js(),
    )


def _calibrated(finals: Finals | None) -> dict[str, tuple[tuple[float, float, int], ...]]:
    """The reliability bins of each arm's best confirmed student on the test split, by its name."""
    best = [finals.best(arm) for arm in ARMS] if finals else []
    tested = [(row, test) for row in best if row and (test := read_test(row.best_run("val_accuracy").folder))]
    return {titled(row): test.reliability for row, test in tested}


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": percent,
        "compact": compact,
        "number": number,
        "key": _key,
        "millions": _millions,
    }
    return environment.from_string(_beside("report.html.j2"))


def _beside(name: str) -> str:
    """The text of a file of the package: the page's template, style and script."""
    return files("kdsweep").joinpath(name).read_text(encoding="utf-8")


def _key(value: Any) -> str:
    """What the page sorts a cell by: a number's digits, or the text."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _millions(value: int) -> str:
    return number(value / 1e6)


def _scale(ranked: Sequence[Row]) -> tuple[float, float]:
    """Both ends of the scale on which the page draws the intervals."""
    ends = [end for row in ranked for end in row.interval or ()]
    return (min(ends), max(ends)) if ends else (0.0, 1.0)


def _whisker(scale: tuple[float, float], row: Row) -> str:
    """Where a row's interval starts, how long it is, and its accuracy, in percent of the scale: CSS variables."""
    low, high = row.interval or (0.0, 0.0)
    span = (scale[1] - scale[0]) or 1.0
    start, length = 100 * (low - scale[0]) / span, 100 * (high - low) / span
    return f"--l:{start:.0f}%;--w:{length:.0f}%;--m:{100 * ((row.val_accuracy or 0.0) - scale[0]) / span:.0f}%"


def _ranked_table(report: Report) -> list[list[str]]:
    header = ["rank", "arm", "trial", "val_accuracy", "95 % interval", *report.searched]
    lines = [[*header, "parameters", "ms a row", "agreement", "seconds"]]
    for row in report.rows:
        result = row.trial.result
        if row.rank is None or result is None:
            continue
        interval = f"{percent(row.interval[0])} to {percent(row.interval[1])}" if row.interval else "–"
        cells = [str(row.rank), ARM_NAMES[row.arm], str(row.trial.trial), percent(row.val_accuracy, 2), interval]
        cells += [compact(value) for value in row.searched.values()]
        cells += [f"{result.parameters:,}", number(result.latency_ms_p50), percent(result.val_agreement)]
        lines.append([*cells, number(result.seconds)])
    return lines


def _finalists_table(finals: Finals) -> list[list[str]]:
    """Means over the fresh seeds; what the search had said stands first."""
    measures = ("accuracy", "macro_f1", "mcc", "loss", "ece", "agreement", "kl")
    header = ["rank", "arm", "trial", *finals.rows[0].searched, "seeds", "search", "confirmed"]
    lines = [[*header, *(f"test {name}" for name in measures)]]
    for row in finals.rows:
        cells = [str(row.rank), ARM_NAMES[row.arm], str(row.trial), *map(compact, row.searched.values())]
        cells += [f"{len(row.runs)} of {row.wanted}", percent(row.search_score, 2), percent(row.confirmed_score, 2)]
        lines.append([*cells, percent(row.mean("accuracy"), 2), *(number(row.mean(name), 3) for name in measures[1:])])
    return lines


def _verdicts_text(finals: Finals) -> str:
    lines = _verdicts_table(finals)
    return _markdown_table(lines) if len(lines) > 1 else "No comparison is possible yet."


def _verdicts_table(finals: Finals) -> list[list[str]]:
    """The primary comparison and the others."""
    asked = [("distilled finalists against fine-tuned ones (primary)", finals.primary, None)] if finals.primary else []
    lines = [["comparison", "points", "95 % interval", "p", "verdict"]]
    for what, found, corrected in [*asked, *((each.what, each.comparison, each) for each in finals.secondary)]:
        ends = f"{signed(found.low)} to {signed(found.high)}"
        p_value = f"{found.p_value:.3f}" if corrected is None else f"{corrected.adjusted_p:.3f} (Holm)"
        word = found.word if corrected is None else corrected.word
        lines.append([what, signed(found.difference), ends, p_value, word])
    return lines


def _markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """Padded, so that it reads in a terminal too."""
    safe = [[_plain(cell).replace("|", "\\|") for cell in line] for line in lines]
    widths = [max(len(line[column]) for line in safe) for column in range(len(safe[0]))]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in safe]
    texts = [f"| {' | '.join(line)} |" for line in padded]
    return "\n".join([texts[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *texts[1:]])


def _plain(text: str) -> str:
    """Text from data as one line in which Markdown finds no tags."""
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").split())


def render_markdown(report: Report) -> str:
    """The summary for a pull request or a README."""
    others = [row for row in report.rows if row.rank is None]
    parts = [
        f"# {_plain(report.records.sweep.name)}",
        f"**{report.headline}.** {_plain(report.answer)}",
        *(f"**{question}** {_plain(text)}" for question, text in report.questions),
        _plain(report.conventions),
    ]
    parts.append("; ".join(arm.text() for arm in report.arms) + ".")
    if report.finals:
        parts += ["## Finalists", _markdown_table(_finalists_table(report.finals)), _verdicts_text(report.finals)]
    table = _ranked_table(report)
    parts += ["## Leaderboard", _markdown_table(table) if len(table) > 1 else "No trial is complete yet."]
    if others:
        lines = [["arm", "trial", "status", "reason"]]
        lines += [[ARM_NAMES[r.arm], str(r.trial.trial), r.status, r.reason or ""] for r in others]
        parts += ["## Pruned, failed and unfinished trials", _markdown_table(lines)]
    if report.advice:
        parts += ["## Advice", "\n".join(f"- {_plain(item.short)}. {_plain(item.why)}" for item in report.advice)]
    parts += ["## Provenance", _markdown_table([("what", "value"), *report.provenance]), "## Next"]
    parts += [f"{purpose}:\n\n```\n{text}\n```" for purpose, text in report.commands]
    return "\n\n".join(parts) + "\n"


def write_report(folder: Path, *others: Path) -> Report:
    """Write report.html, report.md, leaderboard.csv and leaderboard.json into the first folder. Raises ResultsError."""
    report = build_report(folder, *others)
    board = leaderboard.leaderboard_json(report.records.sweep.name, report.rows, report.headline, report.comparison)
    board["finals"] = finals_json(report.finals) if report.finals else None
    write_json(folder / "leaderboard.json", board)
    write_atomically(folder / "leaderboard.csv", leaderboard.leaderboard_csv(report.rows, report.searched))
    write_atomically(folder / "report.md", render_markdown(report))
    write_atomically(folder / "report.html", render_html(report))
    return report


def terminal_text(report: Report, most: int = 10) -> str:
    """The answer, the best rows, what was written and what to run next."""
    table = _ranked_table(report)
    parts = [f"{report.headline}. {report.answer}"]
    parts += ["\n".join(f"{question} {text}" for question, text in report.questions)]
    parts += [_markdown_table(_finalists_table(report.finals)), _verdicts_text(report.finals)] if report.finals else []
    parts += [_markdown_table(table[: most + 1])] if len(table) > 1 else []
    written = ("report.html", "report.md", "leaderboard.csv", "leaderboard.json")
    parts.append("Written:\n" + "\n".join(f"  {report.folder}/{name}" for name in written))
    shell = [(purpose, text) for purpose, text in report.commands if "\n" not in text]
    parts.append("Next:\n" + "\n".join(f"  {text}    # {purpose}" for purpose, text in shell))
    return "\n\n".join(parts)


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a sweep's report and print its summary; 0, or 2 with a message."""
    parser = argparse.ArgumentParser(
        prog="python -m kdsweep.report",
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
