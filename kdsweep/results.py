"""Read a sweep's results in Python: its trials, steps and finalists as pandas tables, the verdict, the trial to ship."""

import html
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsweep.config.arms import ARM_NAMES, PRIMARY, Arm
from kdsweep.config.sweep import SweepConfig
from kdsweep.config.trial import TrialConfig
from kdsweep.errors import ResultsError
from kdsweep.records.reading import TrialRow, read_steps, read_trial
from kdsweep.records.schema import EpochMetrics, StepMetrics, TrialResult
from kdsweep.records.teacher_schema import TeacherResult

if TYPE_CHECKING:
    import pandas

    from kdsweep.analysis.secondary import Secondary
    from kdsweep.analysis.two_arms import FinalComparison
    from kdsweep.reporting.answers import Verdict

Place = str | os.PathLike[str]

ROWS_SHOWN = 10
"""Rows of the leaderboard that a notebook shows."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Trial:
    """Holds one trial of a sweep, as its folder records it; `Results.best` and `Results.trial` return one.

    results.best.config.temperature
    transformers.AutoModelForSequenceClassification.from_pretrained(results.best.student)
    """

    folder: Path
    arm: Arm
    """`distilled`, `fine_tuned` or `pseudo_labeled`."""
    number: int
    """The trial's number in its arm, from 0."""
    seed: int | None
    """The seed of a finalist, which is trial `number` once more on a fresh seed; None for a trial of the search."""
    config: TrialConfig
    """Everything that ran, without any `auto`."""
    result: TrialResult | None
    """How it ended, with its last epoch's metrics; None while it runs or where it was cut off."""

    @property
    def student(self) -> Path:
        """Return the folder of the trained student and its tokenizer, for transformers' `from_pretrained`.

        Raises ResultsError where the student is not on disk: a sweep keeps the best `study.keep_students` of each arm.
        """
        path = self.folder / "student"
        if not path.is_dir():
            raise ResultsError(
                f"a sweep keeps the students of its best trials (study.keep_students), but that of {self} is not on disk"
            )
        return path

    def steps(self) -> "pandas.DataFrame":
        """Return every training step: step, epoch, L_soft, L_hard, L_total, learning_rate, L_relation; losses in nats."""
        return _frame(map(vars, read_steps(self.folder)), _names(StepMetrics))

    def epochs(self) -> "pandas.DataFrame":
        """Return every epoch: mean training losses, metrics on the validation rows, seconds."""
        return _frame(map(vars, read_trial(self.folder).epochs), _names(EpochMetrics))

    def __repr__(self) -> str:
        seed = "" if self.seed is None else f", seed {self.seed}"
        status = self.result.status if self.result else "unfinished"
        return f"Trial({ARM_NAMES[self.arm]} {self.number}{seed}, {status}, {str(self.folder)!r})"


class Results:
    """Holds a sweep's results, read once from its folder; a sweep that still runs has results too, and reading again gives newer ones.

    `folder` is a results folder such as results/T_alpha, `others` those of the same sweep on hosts that share no folder. Raises
    ResultsError where a folder holds no sweep, or `others` another one. Reading imports no torch.

        results = kdsweep.Results("results/T_alpha")
        results.trials().query("status == 'complete'").plot.scatter("alpha", "val_accuracy")
    """

    def __init__(self, folder: Place, *others: Place) -> None:
        from kdsweep.reporting.build import build_report

        first, *more = (Path(each).expanduser().resolve() for each in (folder, *others))
        self._folder, self._read = first, build_report(first, *more)

    @property
    def folder(self) -> Path:
        """Return the results folder."""
        return self._folder

    @property
    def sweep(self) -> SweepConfig:
        """Return the sweep of the results folder; `kdsweep.run(results.sweep)` continues it."""
        return self._read.records.sweep

    @property
    def teacher(self) -> TeacherResult | None:
        """Return what is recorded of the teacher and the rows; None before they are ready."""
        return self._read.records.teacher

    @property
    def headline(self) -> str:
        """Return whether distilling helped, in a sentence, as the report begins."""
        return f"{self._read.headline}."

    @property
    def verdict(self) -> "Verdict | None":
        """Return whether distilling helped, as numbers; None while nothing can be compared.

        Its fields: `word` (better, not better or cannot tell; with one configuration an arm, where `pair` is True, better of this pair
        or not better of this pair), `difference` of the accuracies in [-1, 1] (of several labels, of the F1 of a row's labels; of numbers, how
        far the squared error is lower) with `low` and `high` of its 95 % interval, `p_value`, `rows`, `split`, and `provisional`, True where
        students were chosen on the rows that compare them.
        """
        return self._read.verdict

    @property
    def best(self) -> Trial | None:
        """Return the trial whose student to ship: the best finalist's best run, or without finalists rank 1 of the search; None without either."""
        return _trial(self._read.shipped) if self._read.shipped else None

    @property
    def report(self) -> Path:
        """Return the path of the report's page; a sweep that has not ended has no page before `write_report`."""
        return self._folder / "report.html"

    def trial(self, number: int, arm: Arm = "distilled", *, seed: int | None = None) -> Trial:
        """Return one trial of the search, or with a `seed` its run as a finalist. Raises ResultsError where there is none."""
        rows = self._read.records.trials if seed is None else self._read.records.finalists
        for row in rows:
            if (row.arm, row.trial, row.finalist_seed) == (arm, number, seed):
                return _trial(row)
        if arm not in ARM_NAMES:
            raise ResultsError(f"an arm is {' or '.join(ARM_NAMES)}, but got {arm!r}")
        listed = ", ".join(
            f"{row.trial}" if seed is None else f"{row.trial} seed {row.finalist_seed}"
            for row in rows
            if row.arm == arm
        )
        what = f"trial {number}" if seed is None else f"finalist {number} with seed {seed}"
        raise ResultsError(f"{self._folder} has no {ARM_NAMES[arm]} {what}; it has {listed or 'none'}")

    def trials(self) -> "pandas.DataFrame":
        """Return the leaderboard, best first, all arms: rank, arm, trial, status, the searched fields, metrics, cost, seconds, W&B's page.

        Trials without rank (infeasible, pruned, failed, duplicate, unfinished) follow, with their reason. The columns are those of
        leaderboard.csv, which `kdsweep.analysis.leaderboard` explains.
        """
        from kdsweep.analysis.leaderboard import column_names, table

        frame = _frame(table(self._read.rows), column_names(self._read.searched, self._read.rows))
        return frame.astype({"rank": "Int64"})

    def steps(self, number: int, arm: Arm = "distilled", *, seed: int | None = None) -> "pandas.DataFrame":
        """Return every step of one trial, as `Trial.steps` does. Raises ResultsError where there is no such trial."""
        return self.trial(number, arm, seed=seed).steps()

    def epochs(self, number: int, arm: Arm = "distilled", *, seed: int | None = None) -> "pandas.DataFrame":
        """Return every epoch of one trial, as `Trial.epochs` does. Raises ResultsError where there is no such trial."""
        return self.trial(number, arm, seed=seed).epochs()

    def finalists(self) -> "pandas.DataFrame":
        """Return the best configurations of each arm on fresh seeds, a row each: rank, arm, trial, seeds, the searched fields and the scores.

        search_score and confirmed_score are `study.metric` in the search and its mean over the fresh seeds; test_accuracy and the
        like, those of the task, are means on the test split, missing without one. `compared` tells whether the verdict counts it.
        """
        from kdsweep.analysis.finalists import TEST_MEANS

        finals, searched = self._read.finals, self._read.searched
        task = finals.task if finals else "single_label"
        known = ("rank", "arm", "trial", "compared", "search_score", "confirmed_score")
        records = [
            {
                **{name: getattr(row, name) for name in known},
                "seeds": [run.finalist_seed for run in row.runs],
                **row.searched,
                **{f"test_{name}": row.mean(name) for name in TEST_MEANS[task]},
            }
            for row in (finals.rows if finals else ())
        ]
        left = [name for name in searched if name not in known]
        scores = ["search_score", "confirmed_score", *(f"test_{name}" for name in TEST_MEANS[task]), "compared"]
        return _frame(records, ["rank", "arm", "trial", "seeds", *left, *scores])

    def comparisons(self) -> "pandas.DataFrame":
        """Return the finalists' comparisons, the primary one first: what is compared, word, difference, its 95 % interval, p-value.

        difference, low and high are of accuracies, in [-1, 1], of multi_label of the F1 of a row's labels, of regression of squared errors, where
        more is better too. `adjusted_p` is the p-value of a secondary comparison after Holm's correction,
        by which its word is; it is missing for the primary one. Empty before both arms have finalists.
        """
        from kdsweep.analysis.secondary import of_arms

        finals = self._read.finals
        known: list[tuple[str, FinalComparison, Secondary | None]] = []
        if finals and finals.primary:
            known.append((of_arms(*PRIMARY, finals.primary), finals.primary, None))
        known += [(each.what, each.comparison, each) for each in (finals.secondary if finals else ())]
        names = ("rows", "difference", "low", "high", "p_value")
        records = [
            {
                "comparison": what,
                "primary": second is None,
                "word": second.word if second else found.word,
                **{name: getattr(found, name) for name in names},
                "adjusted_p": second.adjusted_p if second else None,
            }
            for what, found, second in known
        ]
        return _frame(records, ["comparison", "primary", "word", *names, "adjusted_p"])

    def exports(self) -> "pandas.DataFrame":
        """Return the forms of the exported students, a row each, the student to ship first: run, form, to_ship, sizes, speeds, quality.

        Speeds are of one thread, and with `_all` of all of them; times_teacher is the teacher's median time of a row over the form's, both from
        the one run that measured all of a student's forms. accuracy and the like are on `split`; difference, low and high (95 % interval) are of
        accuracy (of several labels, of example_f1; of numbers, of r2) from the float32 student, and missing for that student itself. Empty before
        `kdsweep export`.
        """
        from kdsweep.analysis.exports import RECORD_NAMES, form_records

        return _frame(form_records(self._read.exports), RECORD_NAMES)

    def write_report(self) -> Path:
        """Write page, Markdown, CSV and JSON of the current records into the folder, as `kdsweep report` does; return the page's path."""
        from kdsweep.reporting.write import write_report

        write_report(self._folder, *self._read.records.others)
        return self.report

    def __repr__(self) -> str:
        progress = "; ".join(arm.text() for arm in self._read.arms)
        return f"Results({str(self._folder)!r}): {progress}. {self.headline}"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the headline, the progress, the best trials, the exported forms."""
        metric, shown = self.sweep.study.metric, self.trials()
        names = ["rank", "arm", "trial", "status", metric, *(n for n in self._read.searched if n != metric)]
        table = shown[names].head(ROWS_SHOWN).to_html(index=False, border=0, na_rep="")
        more = len(shown) - ROWS_SHOWN
        progress = "; ".join(arm.text() for arm in self._read.arms)
        tail = f"<p>… and {more} more in results.trials()</p>" if more > 0 else ""
        return (
            f"<p><b>{html.escape(self.headline)}</b><br>{html.escape(progress)}</p>{table}{tail}{self._exports_html()}"
        )

    def _exports_html(self) -> str:
        """Return the forms of the exported students as a notebook shows them; empty without any."""
        shown = self.exports()
        if shown.empty:
            return ""
        names = [
            "run",
            "form",
            "to_ship",
            "size_mb",
            "latency_ms_p50",
            "times_teacher",
            {"single_label": "accuracy", "multi_label": "example_f1", "regression": "r2"}[self._read.task],
            "difference",
            "word",
        ]
        return str(shown[names].to_html(index=False, border=0, na_rep="", float_format="{:.4g}".format))


def _trial(row: TrialRow) -> Trial:
    return Trial(
        folder=row.folder,
        arm=row.arm,
        number=row.trial,
        seed=row.finalist_seed,
        config=row.config,
        result=row.result,
    )


def _names(kind: type[StepMetrics] | type[EpochMetrics]) -> list[str]:
    return [field.name for field in fields(kind)]


def _frame(records: Iterable[Mapping[str, Any]], names: Sequence[str]) -> "pandas.DataFrame":
    """Return records as a table that has its columns even where there is no record."""
    import pandas

    return pandas.DataFrame.from_records(list(records), columns=list(names))
