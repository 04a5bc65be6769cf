"""Choose which of a student's quantised models is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdsweep.analysis.shipped_form import SCORE_NAMES, form_score, score_said
from kdsweep.config.tasks import TaskName
from kdsweep.records.export_schema import FormQuality, FormSpeed

CANDIDATES = {"dynamic": "onnx/model_int8_dynamic.onnx", "static": "onnx/model_int8_static.onnx"}
"""The files of an unfinished export, by how their activations are scaled."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Holds one quantised model, judged on the validation rows."""

    how: str
    words: str
    """Its quantisation in words, such as `static per channel, 512 rows`."""
    alike: float
    """How like the float32 student's its answers are, alone and in a batch: `SameAnswer.likeness`."""
    validation: FormQuality
    speed: tuple[FormSpeed, ...]
    task: TaskName = "single_label"

    def described(self) -> str:
        """Return its numbers in words."""
        rows = self.validation
        score = form_score(rows, self.task)
        scored = score_said(score, self.task) if score is None or self.task == "regression" else f"{score:.2%}"
        return f"{self._likeness()}, {SCORE_NAMES[self.task]} {scored}, {self.speed[0].latency_ms_p50:.2f} ms a row"

    def _likeness(self) -> str:
        agreed = self.validation.agreement or 0.0
        if self.task == "regression":
            return (
                f"its numbers of the validation rows, alone and in a batch, are {-self.alike:.4f} standard deviations of the labels from the "
                "float32 student's (root mean square)"
            )
        what, alone = ("label", "alone") if self.task == "single_label" else ("labels", "of single decisions alone")
        return f"{self.alike:.2%} of the validation rows have the float32 student's {what} both alone and in a batch ({agreed:.2%} {alone})"


def kept_int8(candidates: Sequence[Candidate]) -> tuple[Candidate | None, list[str]]:
    """Return the candidate to keep, None without any, and a sentence on each of the others.

    Kept is the one whose answers to the validation rows, both alone and in a batch, are most like the float32 student's: most rows with
    its label or labels, or numbers nearest to its own. Of equals it is the one with more labels alike alone, then the first. What is right
    does not decide, since an error of rounding is right by chance; nor does speed: it is another one in every run.
    """
    best = max(candidates, key=lambda each: (each.alike, each.validation.agreement or 0.0), default=None)
    lost = [each for each in candidates if each is not best]
    return best, [
        f"int8, {each.words}: {each.described()}; kept was {best.words}: {best.described()}" for each in lost if best
    ]


def keep_file(folder: Path, best: Candidate | None, candidates: Mapping[str, str], to: str) -> None:
    """Give the model of the best candidate the name `to`, and remove those of the others."""
    for how, file in candidates.items():
        if best is not None and how == best.how:
            (folder / file).replace(folder / to)
        else:
            (folder / file).unlink()
