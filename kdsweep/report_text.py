"""The report as text: Markdown for a pull request, and what the terminal shows."""

from collections.abc import Sequence

from kdsweep.contents import Report
from kdsweep.finalists import Finals
from kdsweep.words import ARM_NAMES, compact, number, percent, signed, small


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


def finalists_table(finals: Finals) -> list[list[str]]:
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
    lines = verdicts_table(finals)
    return _markdown_table(lines) if len(lines) > 1 else "No comparison is possible yet."


def verdicts_table(finals: Finals) -> list[list[str]]:
    """The primary comparison and the others."""
    asked = [("distilled finalists against fine-tuned ones (primary)", finals.primary, None)] if finals.primary else []
    lines = [["comparison", "points", "95 % interval", "p", "verdict"]]
    for what, found, corrected in [*asked, *((each.what, each.comparison, each) for each in finals.secondary)]:
        ends = f"{signed(found.low)} to {signed(found.high)}"
        p_value = small(found.p_value) if corrected is None else f"{small(corrected.adjusted_p)} (Holm)"
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
        *(f"**Note:** {_plain(doubt)}" for doubt in report.doubts),
    ]
    parts.append("; ".join(arm.text() for arm in report.arms) + ".")
    if report.finals:
        parts += ["## Finalists", _markdown_table(finalists_table(report.finals)), _verdicts_text(report.finals)]
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


def terminal_text(report: Report, most: int = 10) -> str:
    """The answer, the best rows, what was written and what to run next."""
    table = _ranked_table(report)
    parts = [f"{report.headline}. {report.answer}"]
    parts += ["\n".join(f"{question} {text}" for question, text in report.questions)]
    parts += [f"Note: {doubt}" for doubt in report.doubts]
    parts += [_markdown_table(finalists_table(report.finals)), _verdicts_text(report.finals)] if report.finals else []
    parts += [_markdown_table(table[: most + 1])] if len(table) > 1 else []
    written = ("report.html", "report.md", "leaderboard.csv", "leaderboard.json")
    parts.append("Written:\n" + "\n".join(f"  {report.folder}/{name}" for name in written))
    shell = [(purpose, text) for purpose, text in report.commands if "\n" not in text]
    parts.append("Next:\n" + "\n".join(f"  {text}    # {purpose}" for purpose, text in shell))
    return "\n\n".join(parts)
