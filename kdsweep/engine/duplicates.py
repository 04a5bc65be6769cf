"""Answer a configuration that has been run already from its record, instead of training it again."""

from dataclasses import replace
from typing import Any

from kdsweep.config.trial import TrialConfig
from kdsweep.records.reading import packed_trial
from kdsweep.records.schema import TrialResult, missing_result
from kdsweep.records.writing import TrialFolder
from kdsweep.search.assignment import Assignment
from kdsweep.search.studies import Studies


def answered_duplicate(
    studies: Studies, assignment: Assignment, folder: TrialFolder, config: TrialConfig, *, metric: str
) -> TrialResult | None:
    """Return the result of a trial whose configuration has been run, recorded and told to the search; None for a new one.

    It ends as its twin did, with the twin's score in `metric`, and is not ranked.
    """
    twin = studies.twin(assignment)
    if twin is None:
        return None
    trial, why = assignment.id, f"the same configuration as trial {twin.number}, which ended {twin.status}"
    result = missing_result(trial.arm, trial.number, status="duplicate", error=why, attempt=assignment.attempt)
    if twin.status == "complete":
        score: dict[str, Any] = {metric: twin.score}
        result = replace(result, **score)
    folder.start(config)
    folder.finish(result)
    studies.finish_like(assignment, twin, packed_trial(folder.path))
    return result
