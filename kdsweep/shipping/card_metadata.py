"""Write the metadata of a model card: the YAML that the Hub reads at the top of README.md."""

from collections.abc import Iterable

from huggingface_hub import EvalResult, ModelCardData

from kdsweep.config.tasks import TaskName
from kdsweep.records.export_schema import Export
from kdsweep.records.reading import TrialRow, read_test
from kdsweep.records.schema import FinalTest
from kdsweep.records.whole_sweep import SweepRecords
from kdsweep.shipping.sources import body_field, dataset_type, hub_name, rows_field, shown_place

TASK = "text-classification"
METRICS: dict[TaskName, dict[str, tuple[str, str]]] = {
    "single_label": {
        "accuracy": ("accuracy", "accuracy"),
        "macro_f1": ("f1", "macro F1"),
        "mcc": ("matthews_correlation", "mcc"),
    },
    "multi_label": {
        "example_f1": ("f1", "example F1"),
        "micro_f1": ("f1", "micro F1"),
        "macro_f1": ("f1", "macro F1"),
        "map": ("mean_average_precision", "mean average precision"),
        "accuracy": ("accuracy", "subset accuracy"),
    },
    "regression": {"pearson": ("pearsonr", "pearson"), "spearman": ("spearmanr", "spearman"), "rmse": ("rmse", "rmse")},
}
"""The metrics in the card's metadata by task: by our name, that of the Hub, and what they are called there."""
OF_FORMS: dict[TaskName, str] = {"single_label": "accuracy", "multi_label": "example_f1", "regression": "pearson"}
"""The one that is listed of ONNX forms too."""
TO_FILL = """\
# kdsweep cannot know these; fill them in before you publish, the licence by those of the data and of the base model:
# license: apache-2.0
# language: en"""
BASE_TO_FILL = "# base_model: its name on the Hub, if it is there"


def metadata(export: Export, found: SweepRecords, run: TrialRow) -> str:
    """Return the metadata as YAML between two lines of dashes; what is to be filled in is a comment: licence, language, an unknown base model."""
    base, data = hub_name(run.config, body_field(run.config)), hub_name(run.config, "dataset")
    known = ModelCardData(
        base_model=base,
        datasets=[data] if data else None,
        library_name="transformers",
        pipeline_tag=TASK,
        tags=_tags(export),
        metrics=[*dict.fromkeys(hub for hub, _ in METRICS[export.task].values())],
        model_name=f"{found.sweep.name}-{export.run}",
        eval_results=_results(export, run),
    )
    to_fill = [TO_FILL] if base else [TO_FILL, BASE_TO_FILL]
    return "\n".join(["---", known.to_yaml(), *to_fill, "---"])


def _tags(export: Export) -> list[str]:
    how = {"distilled": ["knowledge-distillation"], "pseudo_labeled": ["pseudo-labels"]}.get(export.arm, [])
    return ["kdsweep", *how, *(["onnx"] if len(export.forms) > 1 else [])]


def _results(export: Export, run: TrialRow) -> list[EvalResult]:
    """Return the student's metrics on each split, and the one of its ONNX forms."""
    test, results, known = read_test(run.folder), [], METRICS[export.task]
    for split in ("validation", "test"):
        measured = _of_validation(run, known) if split == "validation" else _of_test(test, known)
        named = [(*known[name], value) for name, value in measured.items()]
        for form in export.forms[1:]:
            quality = form.validation if split == "validation" else form.test
            hub, title = known[OF_FORMS[export.task]]
            value = getattr(quality, OF_FORMS[export.task], None)
            named += [(hub, f"{title}, ONNX {form.form}", value)] if value is not None else []
        results += [_result(run, split, *each) for each in named]
    return results


def _of_validation(run: TrialRow, names: Iterable[str]) -> dict[str, float]:
    values = {name: getattr(run.result, f"val_{name}") for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _of_test(test: FinalTest | None, names: Iterable[str]) -> dict[str, float]:
    values = {name: getattr(test, name) for name in names} if test else {}
    return {name: value for name, value in values.items() if value is not None}


def _result(run: TrialRow, split: str, metric: str, name: str, value: float) -> EvalResult:
    config = run.config
    is_hub = hub_name(config, "dataset") is not None
    return EvalResult(
        task_type=TASK,
        task_name="Text classification",
        dataset_type=dataset_type(config),
        dataset_name=shown_place(config, rows_field(config)).replace("`", ""),
        dataset_config=config.dataset_config,
        dataset_split=getattr(config, f"{split}_split") or split,
        dataset_revision=config.dataset_revision if is_hub else None,
        metric_type=metric,
        metric_name=name,
        metric_value=round(value, 4),
    )
