"""Choose which of a student's quantised models is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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
    """Share of rows with the float32 student's label both alone and in a batch."""
    validation: FormQuality
    speed: tuple[FormSpeed, ...]

    def described(self) -> str:
        """Return its numbers in words."""
        rows = self.validation
        return (
            f"{self.alike:.2%} of the validation rows have the float32 student's label both alone and in a batch ({rows.agreement:.2%} alone), "
            f"accuracy {rows.accuracy:.2%}, {self.speed[0].latency_ms_p50:.2f} ms a row"
        )


def kept_int8(candidates: Sequence[Candidate]) -> tuple[Candidate | None, list[str]]:
    """Return the candidate to keep, None without any, and a sentence on each of the others.

    Kept is the one that gives most validation rows the float32 student's label, both alone and in a batch; of equals the one that gives
    it to more rows alone, then the first. Speed does not decide: it is another one in every run.
    """
    best = max(candidates, key=lambda each: (each.alike, each.validation.agreement), default=None)
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
