"""Name a sweep's W&B runs: ids that no other sweep's runs have, short names, and the tags and job types that W&B groups them by.

An id begins with what distinguishes runs, because `wandb leet` shows three letters of it: `d7-a1-k3x9qz` is the first attempt at
distilled trial 7, `f3-…` fine-tuned trial 3, `p2-…` pseudo-labeled trial 2, `d7s12-…` trial 7 as a finalist with seed 12. It ends
with the sweep's key, which is drawn once: two sweeps of one name in one project never write into each other's runs. Older sweeps, which
have no key, have ids such as `T_alpha-trial-0007-a1`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdsweep.config.arms import ARM_NAMES, Arm, Stage
from kdsweep.config.layers import layers_text
from kdsweep.config.sweep import LONGEST_TAG, SweepConfig
from kdsweep.config.tasks import TaskName
from kdsweep.config.trial import FROM_TEACHER, TrialConfig
from kdsweep.records.layout import KEY_LENGTH, TrialId
from kdsweep.tracking.in_words import last_parts, run_name, teacher_notes, trial_notes, verdict_notes

JOB_TYPES: dict[Stage, str] = {
    "distilled": "trial",
    "fine_tuned": "control",
    "pseudo_labeled": "pseudo_label",
    "finalists": "finalist",
}
"""W&B's job type for a run of each stage."""
LETTERS: dict[Arm, str] = {"distilled": "d", "fine_tuned": "f", "pseudo_labeled": "p"}
_KEY = f"-(?P<key>[a-z0-9]{{{KEY_LENGTH}}})"


@dataclass(frozen=True, kw_only=True)
class RunLabel:
    """Holds a W&B run's id, name, job type, tags, and what its config has beside the fields of `TrialConfig`."""

    run_id: str
    name: str
    """The name that W&B's pages show; its first 20 letters differ from those of the sweep's other runs."""
    job_type: str
    facts: Mapping[str, Any]
    """Values for its config, beside the fields of `TrialConfig`."""
    tags: tuple[str, ...] = ()
    notes: str = ""
    """What its page says of it, in Markdown."""


def trial_label(
    sweep: SweepConfig, key: str, config: TrialConfig, trial: TrialId, attempt: int, task: TaskName = "single_label"
) -> RunLabel:
    """Return the label of an attempt's run, at a trial of the search or at a finalist."""
    seed = "" if trial.seed is None else f" s{trial.seed}"
    again = f" a{attempt}" if attempt > 1 else ""
    arm, of_search = ARM_NAMES[trial.arm], _short_name(TrialId(trial.arm, trial.number))
    facts = trial_facts(sweep, key, config, trial)
    return RunLabel(
        run_id=trial_run_id(trial, attempt, key),
        name=run_name(of_search + seed + again, sweep, config, trial),
        job_type=JOB_TYPES[trial.stage],
        facts=facts,
        tags=_tags(sweep.name, arm, f"trial {trial.number}", facts["student_name"], facts["data_name"]),
        notes=trial_notes(sweep, config, trial, attempt, task),
    )


def teacher_label(sweep: SweepConfig, key: str) -> RunLabel:
    """Return the label of the teacher's run."""
    facts = sweep_facts(sweep, key)
    tags = _tags(sweep.name, facts["data_name"])
    notes = teacher_notes(sweep)
    return RunLabel(run_id=f"teacher-{key}", name="teacher", job_type="teacher", facts=facts, tags=tags, notes=notes)


def verdict_label(sweep: SweepConfig, key: str, number: int) -> RunLabel:
    """Return the label of the sweep's `number`-th verdict run: a verdict that more trials changed gets a new run."""
    facts = sweep_facts(sweep, key)
    return RunLabel(
        run_id=f"verdict{f'-{number}' if number > 1 else ''}-{key}",
        name=f"verdict{f' {number}' if number > 1 else ''}",
        job_type="verdict",
        facts=facts,
        tags=_tags(sweep.name, facts["data_name"]),
        notes=verdict_notes(sweep),
    )


def export_label(sweep: SweepConfig, key: str, number: int) -> RunLabel:
    """Return the label of the run that holds the sweep's `number`-th exported student."""
    facts, again = sweep_facts(sweep, key), number > 1
    return RunLabel(
        run_id=f"export{f'-{number}' if again else ''}-{key}",
        name=f"export{f' {number}' if again else ''}",
        job_type="export",
        facts=facts,
        tags=_tags(sweep.name, facts["data_name"]),
        notes=f"The student to ship of the sweep {sweep.name}, in the forms in which it was judged.",
    )


# Facts ---------------------------------------------------------------------------------------------------------------


def sweep_facts(sweep: SweepConfig, key: str) -> dict[str, Any]:
    """Return what the config of every run of a sweep has: the sweep's name and key, and its data in a few words."""
    (data,), (subset,), (file,) = (sweep.values(name) for name in ("dataset", "dataset_config", "train_file"))
    return {"sweep": sweep.name, "sweep_key": key, "data_name": data_name(data, subset, file)}


def trial_facts(sweep: SweepConfig, key: str, config: TrialConfig, trial: TrialId) -> dict[str, Any]:
    """Return what the config of a trial's run has beside the fields of `TrialConfig`: the facts of the sweep, arm, trial and student."""
    return {**sweep_facts(sweep, key), "arm": trial.arm, "trial": trial.number, "student_name": student_name(config)}


def data_name(dataset: str | None, subset: str | None, train_file: str | None) -> str:
    """Return the name of a data set in a few words: `nyu-mll/glue sst2`, `reviews/train.csv`."""
    return f"{dataset} {subset}" if dataset and subset else last_parts(dataset or train_file or "-")


def student_name(config: TrialConfig) -> str:
    """Return the name of a student in a few words: `from_teacher 3 layers`, `from_teacher first 3 layers`, `distilbert-base-uncased`."""
    if config.student != FROM_TEACHER:
        return last_parts(config.student)
    return f"{FROM_TEACHER} {layers_text(config.student_layers)}"


def _tags(*texts: str) -> tuple[str, ...]:
    """Return texts as tags that W&B accepts: none twice, each cut in its middle to `LONGEST_TAG` letters."""
    half = LONGEST_TAG // 2
    cut = (text if len(text) <= LONGEST_TAG else f"{text[: half - 1]}…{text[-half:]}" for text in texts)
    return tuple(dict.fromkeys(cut))


# Ids -----------------------------------------------------------------------------------------------------------------


def trial_run_id(trial: TrialId, attempt: int, key: str) -> str:
    """Return the W&B run id of the `attempt`-th attempt at `trial`."""
    return f"{_short_name(trial)}-a{attempt}-{key}"


def _short_name(trial: TrialId) -> str:
    return f"{LETTERS[trial.arm]}{trial.number}" + ("" if trial.seed is None else f"s{trial.seed}")


def attempt_of(run_id: str, sweep: str, trial: TrialId) -> int | None:
    """Return the number of the attempt at `trial` that a run of this id logs; None where it is not a run of that trial."""
    job = f"{JOB_TYPES[trial.arm]}-{trial.number:04d}"
    if trial.seed is not None:
        job = f"{JOB_TYPES['finalists']}-{trial.arm}-{trial.number:04d}-seed{trial.seed}"
    now = rf"{_short_name(trial)}-a(?P<number>\d+){_KEY}"
    found = _first_match(run_id, now, rf"{re.escape(sweep)}-{job}-a(?P<number>\d+)")
    return int(found["number"]) if found else None


def is_teacher(run_id: str, sweep: str) -> bool:
    """Return whether a run of this id is the teacher's."""
    return _first_match(run_id, f"teacher{_KEY}", f"{re.escape(sweep)}-teacher") is not None


def verdict_number(run_id: str, sweep: str) -> int | None:
    """Return the number of the verdict that a run of this id holds, from 1; None where it is not a verdict's run."""
    number = r"(-(?P<number>\d{1,4}))?"
    found = _first_match(run_id, rf"verdict{number}{_KEY}", rf"{re.escape(sweep)}-verdict{number}")
    return int(found["number"] or 1) if found else None


def export_number(run_id: str) -> int | None:
    """Return the number of the exported student that a run of this id holds, from 1; None where it holds none."""
    found = re.fullmatch(rf"export(-(?P<number>\d{{1,4}}))?{_KEY}", run_id)
    return int(found["number"] or 1) if found else None


def key_in(run_id: str) -> str | None:
    """Return the sweep's key at the end of a run id; None where the id has none, as those of older sweeps."""
    found = re.fullmatch(rf"(teacher|(verdict|export)(-\d{{1,4}})?|[dfp]\d+(s\d+)?-a\d+){_KEY}", run_id)
    return found["key"] if found else None


def _first_match(text: str, *patterns: str) -> re.Match[str] | None:
    return next((found for pattern in patterns if (found := re.fullmatch(pattern, text))), None)


def tracked_runs(sweep_folder: Path) -> list[tuple[str, Path]]:
    """List every W&B run on disk, oldest first: its id and its file, such as `offline-run-20260102_030405-ID/run-ID.wandb`.

    W&B adds a number to a folder whose name is taken, so the id is read from the file's name; for a folder without a file, the file that
    it should have is listed.
    """
    named = re.compile(r"(?:offline-)?run-(\d{8}_\d{6})-(.+)")
    folders = [(match, path) for path in (sweep_folder / "wandb").glob("*") if (match := named.fullmatch(path.name))]
    files = []
    for match, path in sorted(folders, key=lambda pair: (pair[0][1], pair[1].name)):
        files.append(next(path.glob("run-*.wandb"), path / f"run-{match[2]}.wandb"))
    return [(file.stem.removeprefix("run-"), file) for file in files]
