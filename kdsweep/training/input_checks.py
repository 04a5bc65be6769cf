"""Check what can be refused before the teacher is fine-tuned: rows, tokens, the models' configs; tell what `max_length` cuts."""

from collections.abc import Callable, Sequence

import numpy as np

from kdsweep.analysis.formats import truncated
from kdsweep.config.trial import FROM_TEACHER, TrialConfig
from kdsweep.errors import DataError, ModelError
from kdsweep.training.data.splits import Data, SplitName
from kdsweep.training.fewer_layers import check_layers, fewer_layers, is_known
from kdsweep.training.folds import fold_of_rows
from kdsweep.training.models import load_classifier, model_config
from kdsweep.training.online import same_tokens
from kdsweep.training.reader import check_forward
from kdsweep.training.relations import check_relations
from kdsweep.training.shared import Materials
from kdsweep.training.students import becomes_distilbert, chosen_layers, student_source
from kdsweep.training.teacher import teacher_address
from kdsweep.training.texts import trained
from kdsweep.training.unlike import strange_pieces

UNKNOWN_WARNED = 0.1
"""Share of the texts' word pieces unknown to a tokenizer above which a warning is given."""
LARGE_NUMBERS = 10.0
"""Root mean square of the numbers of a regression above which a warning is given: a head begins at 0, and moves by small steps."""
WARNED_SHARE = 0.05
"""Share of a split's rows that `max_length` must cut for a warning."""


def check_inputs(
    materials: Materials, corners: Sequence[TrialConfig], *, largest_batch: int, splits: Sequence[SplitName]
) -> list[str]:
    """Check rows, teacher and students before the teacher is fine-tuned; return a warning for each tokenizer with many unknown word pieces, or
    with far more in the texts without labels.

    Raises DataError for fewer training rows than `largest_batch`, and for a class with fewer texts than `teacher_folds`; ModelError for a
    teacher or student that cannot read the rows, or a student that cannot be made.
    """
    unknown: dict[str, float] = {}
    odd: dict[str, None] = {}
    for config in corners:
        rows = len(materials.data(config).train)
        if rows < largest_batch:
            raise DataError(f"batch_size <= training rows must hold, but got {largest_batch} and {rows} rows")
        if config.teacher_folds > 1:
            fold_of_rows(materials.data(config), config)
        source = student_source(config)[0]
        readers = {source: materials.whole_student_tokens}
        if config.student_vocabulary == "trained":
            readers[f"{source}, cut down (student_vocabulary: trained),"] = materials.student_tokens
        if config.teacher is not None:
            readers = {config.teacher: materials.teacher_tokens, **readers}
        for address, read in readers.items():
            shares = [read(config, name).unknown_share for name in splits]
            unknown[address] = max(unknown.get(address, 0.0), *shares)
            if config.has_unlabeled:
                odd.update(dict.fromkeys(strange_pieces(address, read(config, "unlabeled").unknown_share, max(shares))))
        check_student(materials, config)
    copied = {(*student_source(each), each.student_layers): each for each in corners if each.student == FROM_TEACHER}
    for config in copied.values():
        check_copied(materials, config)
    return [
        f"{share:.0%} of the texts' word pieces are unknown to the tokenizer of {address}, which reads all of them alike"
        for address, share in unknown.items()
        if share > UNKNOWN_WARNED
    ] + [*odd, *_large_numbers(materials.data(corners[0]), corners[0])]


def _large_numbers(data: Data, config: TrialConfig) -> list[str]:
    """Return a warning where a teacher is fine-tuned on numbers so large that a fresh head hardly gets there; nothing for other tasks."""
    labels = data.train.labels.astype(np.float64)
    if data.task != "regression" or config.teacher_epochs == 0 or np.sqrt(np.mean(labels**2)) <= LARGE_NUMBERS:
        return []
    mean, spread = (f"{each:.0f}" if abs(each) >= 100 else f"{each:.3g}" for each in (labels.mean(), labels.std()))
    return [
        f"the numbers of {data.label_names[0]} are large (mean {mean}, standard deviation {spread}), and models begin at 0 and learn by small "
        f"steps: they learn faster and better from (number - {mean}) / {spread}"
    ]


def check_student(materials: Materials, config: TrialConfig) -> None:
    """Check that the student can be used, as far as is known before there is a teacher. Raises ModelError where it cannot."""
    if config.student != FROM_TEACHER:
        check_forward(materials.student(config), materials.student_tokens(config, "train"), config.student)
    if config.relation_weight > 0:
        _check_relations(materials, config)


def check_copied(materials: Materials, config: TrialConfig) -> None:
    """Check that a from_teacher student can be made; where no table knows its teacher's family, by making it from the weights on disk.

    Raises ModelError where it cannot.
    """
    address, revision = student_source(config)
    found = model_config(address, revision)
    chosen = chosen_layers(found, config.student_layers)
    if becomes_distilbert(found):
        return
    check_layers(found, chosen)
    if not is_known(found):
        data = materials.data(config)
        body = load_classifier(address, revision, data.label_names, seed=0, task=data.task)
        for layers in (tuple(range(found.num_hidden_layers)), chosen):
            fewer_layers(body, layers, data.label_names, seed=0)


def _check_relations(materials: Materials, config: TrialConfig) -> None:
    """Check that teacher and student have relations to compare. Raises ModelError where they have none, or read other tokens."""
    teacher, student = (
        model_config(teacher_address(config), config.teacher_revision),
        model_config(*student_source(config)),
    )
    check_relations(teacher, student, config.relation_heads)
    for name in trained(config):
        if not same_tokens(materials.teacher_tokens(config, name), materials.whole_student_tokens(config, name)):
            raise ModelError(
                f"relation_weight > 0 needs a teacher and a student that read the same tokens, but the tokenizers of "
                f"{config.teacher!r} and {student_source(config)[0]!r} cut the training texts otherwise: name a student with the "
                "teacher's tokenizer (student: from_teacher without a student_body has it), or say relation_weight: 0"
            )


def kept_pieces(materials: Materials, corners: Sequence[TrialConfig]) -> list[str]:
    """Return what each smaller vocabulary keeps and how it reads the validation texts, in words; nothing where all students have all pieces."""
    lines: dict[str, None] = {}
    has_texts = any(corner.has_unlabeled for corner in corners)
    for corner in corners:
        if use := materials.vocabulary_use(corner, test=False):
            more = "; texts without labels would add pieces (unlabeled_file, unlabeled_rest)"
            if has_texts:
                more = f" ({'with' if corner.has_unlabeled else 'without'} the texts without labels)"
            lines[
                f"student_vocabulary: trained keeps {use.pieces:,} of the {use.whole:,} pieces of {student_source(corner)[0].partition('#')[0]}: of "
                f"the validation texts {use.validation.recut_share:.0%} are cut otherwise{more}"
            ] = None
    return list(lines)


def truncation(materials: Materials, corners: Sequence[TrialConfig]) -> tuple[list[str], list[str]]:
    """Return what `max_length` cuts, in words, one line for each model and length; and the lines that are worth a warning."""
    several = len({(corner.teacher, corner.student, corner.student_body) for corner in corners}) > 1
    named: Callable[[str, str], str] = lambda role, address: (
        f"the {role} {address.partition('#')[0]}" if several else f"the {role}"
    )
    lines: dict[str, bool] = {}
    for corner in corners:
        texts = materials.unlabeled(corner)
        rows = {**materials.data(corner).sizes(), "unlabeled": len(texts) if texts else 0}
        cuts = {}
        if corner.teacher is not None:
            cuts[named("teacher", corner.teacher)] = materials.truncated_rows(corner, texts=True)
        if corner.student != FROM_TEACHER or corner.student_body:
            cuts[named("student", student_source(corner)[0])] = materials.student_truncated_rows(corner, test=False)
        for who, cut in cuts.items():
            many = any(count >= WARNED_SHARE * rows[name] for name, count in cut.items())
            lines[f"{corner.max_length} cuts {truncated(cut, rows)} for {who}"] = many
    return list(lines), [line for line, many in lines.items() if many]
